--
-- statistics: what is counted, by cause and by provider
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin

INSERT INTO providers (provider_id, status) VALUES
    (helper.p(1), 'ACTIVE'), (helper.p(2), 'ACTIVE'), (helper.p(3), 'INACTIVE');
INSERT INTO claims (claim_id, physician_id, state, date_of_service)
SELECT helper.c(10 * p + n), helper.p(p), 'SUBMITTED', make_date(2024, n, 10)
  FROM generate_series(1, 3) AS p, generate_series(1, 4) AS n;
INSERT INTO ahcip_claim_details (claim_id, ba_number, functional_centre, submitted_fee, assessed_fee)
SELECT claim_id, 'BA1', 'FC1', 20, 10 FROM claims;
SELECT count(*) FROM meritum_attach();

-- the counters, without what depends on a clock
CREATE VIEW causes AS
SELECT cause, refreshes, entries_written, entries_unchanged, errors
  FROM meritum_cache.stat_refresh WHERE refreshes > 0 OR errors > 0;
CREATE VIEW people AS
SELECT provider_id, refreshes, refresh_cause, refreshed_at IS NOT NULL AS refreshed,
       invalidations, invalidated_at IS NOT NULL AS invalidated
  FROM meritum_cache.stat_provider ORDER BY provider_id;

SELECT meritum_stat_reset();
SELECT * FROM causes;
SELECT count(*), sum(total_ms) AS total_ms, sum(max_ms) AS max_ms, bool_and(stats_reset <= clock_timestamp()) AS reset
  FROM meritum_cache.stat_refresh;
SELECT cause FROM meritum_cache.stat_refresh;

-- a request: what the function returns is what it wrote, and all of it is new
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') AS first \gset
SELECT cause, refreshes, entries_written = :first AS written, entries_unchanged, errors FROM causes;
-- again: nothing has another value
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') = :first AS same;
SELECT cause, refreshes, entries_written = :first AS written, entries_unchanged = :first AS unchanged, errors FROM causes;
SELECT total_ms > 0 AS total, max_ms > 0 AND max_ms <= total_ms AS max FROM meritum_cache.stat_refresh WHERE cause = 'request';
SELECT * FROM people;
SELECT count(meritum_refresh_provider_metrics(helper.p(n), NULL, '2024-05-15')) FROM generate_series(2, 3) AS n;
SELECT cause, refreshes FROM causes;

-- a change: one refresh of each provider, one invalidation of each month
SELECT meritum_stat_reset();
SELECT helper.watch();
UPDATE claims SET state = 'PAID' WHERE claim_id IN (helper.c(11), helper.c(12), helper.c(21));
SELECT cause, refreshes, errors,
       entries_written = (SELECT count(*) FROM helper.moved_rows() WHERE change <> 'touched') AS written,
       entries_unchanged = (SELECT count(*) FROM helper.moved_rows() WHERE change = 'touched') AS unchanged
  FROM causes;
SELECT * FROM people;
-- however many statements touch it
BEGIN;
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(11);
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(11);
UPDATE claims SET state = 'ADJUSTED' WHERE claim_id = helper.c(11);
COMMIT;
SELECT cause, refreshes FROM causes;
SELECT * FROM people;
-- what is rolled back invalidates nothing, and what nets to nothing neither
BEGIN;
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(31);
ROLLBACK;
BEGIN;
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(31);
UPDATE claims SET state = 'SUBMITTED' WHERE claim_id = helper.c(31);
COMMIT;
SELECT * FROM people WHERE provider_id = helper.p(3);
-- a refresh whose transaction is rolled back was work, but the provider's
-- figures are as they were
SELECT meritum_stat_reset();
BEGIN;
SELECT meritum_refresh_provider_metrics(helper.p(3), NULL, '2024-05-15') > 0 AS written;
ROLLBACK;
SELECT cause, refreshes FROM causes;
SELECT * FROM people;

-- an event
SELECT meritum_handle_claim_state_change(helper.p(2), 'AHCIP', 'paid') > 0 AS written;
SELECT meritum_handle_claim_state_change(helper.p(2), 'AHCIP', 'draft') AS written;
SELECT cause, refreshes FROM causes;
SELECT * FROM people WHERE provider_id = helper.p(2);

-- a domain event: each metric that it names, in both modes alike
SELECT meritum_stat_reset();
SELECT meritum_handle_event('adjusted', helper.p(2)) > 0 AS hit;
SELECT meritum_invalidate(helper.p(3), 'rejection_') > 0 AS hit;
SELECT cause, refreshes, errors FROM causes;
SELECT p.provider_id, p.invalidations, p.invalidations = m.metrics AS right
  FROM people p LEFT JOIN (VALUES (helper.p(2), (SELECT count(*) FROM meritum_cache.event_metric WHERE event_type = 'adjusted')),
                                  (helper.p(3), (SELECT count(*) FROM meritum_cache.metric WHERE metric_key LIKE 'rejection\_%')))
       AS m (provider_id, metrics) USING (provider_id);
SET meritum_cache.refresh_mode = async;
SELECT meritum_handle_event('adjusted', helper.p(2)) > 0 AS hit;
RESET meritum_cache.refresh_mode;
SELECT meritum_refresh_provider_metrics(helper.p(2), NULL, '2024-05-15') > 0 AS written;
SELECT invalidations / (SELECT count(*) FROM meritum_cache.event_metric WHERE event_type = 'adjusted') AS times FROM people WHERE provider_id = helper.p(2);
-- with claims changed besides, it is one refresh, of the trigger
SELECT meritum_stat_reset();
BEGIN;
SELECT meritum_handle_event('adjusted', helper.p(2)) > 0 AS hit;
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(23);
COMMIT;
SELECT cause, refreshes FROM causes;

-- async: the reader settles what was noted, two months of one provider
SELECT meritum_stat_reset();
SET meritum_cache.refresh_mode = async;
UPDATE claims SET state = 'PAID' WHERE claim_id IN (helper.c(31), helper.c(32));
SELECT * FROM causes;
SELECT count(*) FROM meritum_get_metrics(helper.p(3), '{claims_paid}', '2024-01-01', '2024-02-29') WHERE dimensions IS NULL;
RESET meritum_cache.refresh_mode;
SELECT cause, refreshes, errors FROM causes;
SELECT * FROM people WHERE provider_id = helper.p(3);

-- verify counts when it repairs
SELECT count(*) FROM meritum_verify(helper.p(3));
SELECT cause, refreshes FROM causes WHERE cause = 'verify';
SELECT count(*) FROM meritum_verify(helper.p(3), true);
SELECT cause, refreshes FROM causes WHERE cause = 'verify';

-- the nightly batch: two are active
CALL meritum_refresh_all_providers(as_of => '2024-05-15') \gset
SELECT :providers_processed AS processed, :'errors' AS errors;
SELECT cause, refreshes, errors FROM causes WHERE cause = 'nightly';

--
-- failures: an attempt each, of which nothing else is counted
--
ALTER TABLE meritum_cache.analytics_cache ADD CONSTRAINT hostile
    CHECK (provider_id <> 'a0000000-0000-4000-8000-000000000002') NOT VALID;
SELECT meritum_stat_reset();
\set VERBOSITY terse
UPDATE claims SET state = 'PAID' WHERE claim_id IN (helper.c(22), helper.c(33));
SELECT cause, refreshes, errors FROM causes;
CALL meritum_refresh_all_providers(as_of => '2024-05-15') \gset
SELECT :providers_processed AS processed;
SELECT meritum_refresh_provider_metrics(helper.p(2), NULL, '2024-05-15');
SELECT cause, refreshes, errors FROM causes;
\set VERBOSITY default
SELECT * FROM people;
ALTER TABLE meritum_cache.analytics_cache DROP CONSTRAINT hostile;
-- once it succeeds, the change that was pending has been counted
SELECT meritum_refresh_provider_metrics(helper.p(2), NULL, '2024-05-15') > 0 AS written;
SELECT * FROM people WHERE provider_id = helper.p(2);

-- a custom metric that fails is an error of a refresh that was done
SELECT meritum_create_metric('my:none', 'SELECT NULL::jsonb, to_jsonb(1 / (SELECT count(*) FROM claims WHERE claim_id <> claim_id))', 'snapshot');
SELECT meritum_stat_reset();
\set VERBOSITY terse
SELECT meritum_refresh_provider_metrics(helper.p(2), NULL, '2024-05-15') > 0 AS written;
\set VERBOSITY default
SELECT cause, refreshes, errors FROM causes;
SELECT meritum_drop_metric('my:none');
SELECT meritum_stat_reset();
SELECT meritum_refresh_provider_metrics(helper.p(2), NULL, '2024-05-15') > 0 AS written;

--
-- reset: all of it, rolled back half of it; twice does no harm
--
BEGIN;
SELECT meritum_stat_reset();
ROLLBACK;
SELECT * FROM causes;
SELECT * FROM people WHERE provider_id = helper.p(2);
SELECT meritum_stat_reset(), meritum_stat_reset();
SELECT * FROM people;
SELECT count(DISTINCT stats_reset), min(stats_reset) = (SELECT min(stats_reset) FROM meritum_cache.stat_refresh) AS at_once
  FROM meritum_cache.stat_provider;
-- nor is the transaction of a refresh touched by it
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM claims;
SELECT meritum_stat_reset();
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(34);
COMMIT;
SELECT * FROM people;
-- a provider that goes and comes back begins anew
DELETE FROM providers WHERE provider_id = helper.p(3);
SELECT * FROM people;
INSERT INTO providers (provider_id, status) VALUES (helper.p(3), 'ACTIVE');
SELECT meritum_refresh_provider_metrics(helper.p(3), NULL, '2024-05-15') > 0 AS written;
SELECT * FROM people WHERE provider_id = helper.p(3);

-- who may: nobody but the owner until it is granted
CREATE ROLE regress_meritum_watch;
SELECT has_table_privilege('regress_meritum_watch', 'meritum_cache.stat_refresh', 'SELECT') AS refresh,
       has_table_privilege('regress_meritum_watch', 'meritum_cache.stat_provider', 'SELECT') AS provider,
       has_function_privilege('regress_meritum_watch', 'meritum_cache.refresh_statistics()', 'EXECUTE') AS statistics,
       has_function_privilege('regress_meritum_watch', 'meritum_stat_reset()', 'EXECUTE') AS reset;
SELECT meritum_grant('regress_meritum_watch', 'operator');
SET ROLE regress_meritum_watch;
SELECT (SELECT count(*) FROM meritum_cache.stat_refresh) AS causes, (SELECT count(*) FROM meritum_cache.stat_provider) AS providers;
RESET ROLE;
DROP OWNED BY regress_meritum_watch;
DROP ROLE regress_meritum_watch;

DROP VIEW causes, people;
DROP EXTENSION meritum_cache;
DROP SCHEMA shop, oracle, helper CASCADE;
