--
-- the two modes, their limits, and what happens when a refresh fails
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin

INSERT INTO providers (provider_id) SELECT helper.p(n) FROM generate_series(1, 6) AS n;
INSERT INTO practice_locations (location_id, provider_id, functional_centre) VALUES (helper.l(1), helper.p(1), 'FC1');
INSERT INTO claims (claim_id, physician_id, state, date_of_service)
SELECT helper.c(10 * p + n), helper.p(p), 'DRAFT', '2024-03-01'::date + n FROM generate_series(1, 6) AS p, generate_series(1, 3) AS n;
INSERT INTO ahcip_claim_details (claim_id, ba_number, functional_centre, submitted_fee, assessed_fee)
SELECT claim_id, 'BA1', 'FC1', 20, 10 FROM claims;
SELECT count(*) FROM meritum_attach();
SELECT count(meritum_refresh_provider_metrics(helper.p(n), NULL, '2024-05-15')) FROM generate_series(1, 6) AS n;
SELECT * FROM helper.wrong();

CREATE VIEW paid AS
SELECT provider_id, value -> 'count' AS paid FROM meritum_cache.analytics_cache
 WHERE metric_key = 'claims_paid' AND period_start = '2024-03-01' AND dimensions IS NULL;
CREATE VIEW pending AS
SELECT provider_id, count(*) > 0 AS pending, max(attempts) AS attempts, max(sqlstate) AS sqlstate
  FROM meritum_cache.pending_refresh GROUP BY 1 ORDER BY 1;

SHOW meritum_cache.refresh_mode;
SHOW meritum_cache.on_error;
SHOW meritum_cache.commit_limit;
SELECT helper.sqlstate('SET meritum_cache.refresh_mode = never') AS bad_mode, helper.sqlstate('SET meritum_cache.on_error = ignore') AS bad_error,
       helper.sqlstate('SET meritum_cache.commit_limit = -1') AS bad_limit;

--
-- async: a note, written with the change
--
SET meritum_cache.refresh_mode = async;
SELECT helper.watch();
BEGIN;
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(11);
ROLLBACK;
SELECT * FROM pending;
BEGIN;
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(11);
SAVEPOINT a;
UPDATE claims SET state = 'PAID' WHERE physician_id = helper.p(1);
ROLLBACK TO a;
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(11);
COMMIT;
SELECT * FROM pending;
SELECT * FROM helper.moved_rows();
-- the reader gets it right, which settles the note
SELECT value FROM meritum_get_metrics(helper.p(1), ARRAY(SELECT metric_key FROM oracle.all_keys()), '2024-03-01', '2024-03-31')
 WHERE metric_key = 'claims_paid' AND dimensions IS NULL;
SELECT * FROM helper.wrong();
SELECT * FROM pending;
-- of every kind of table
UPDATE ahcip_claim_details SET assessed_fee = 11 WHERE claim_id = helper.c(11);
UPDATE practice_locations SET name = 'Elsewhere';
INSERT INTO ai_suggestion_events (provider_id, event_type, created_at) VALUES (helper.p(1), 'accepted', '2024-03-15 10:00+00');
INSERT INTO claim_audit_history (claim_id, new_state) VALUES (helper.c(11), 'REJECTED');
SELECT * FROM pending WHERE provider_id = helper.p(1);
SELECT count(*) > 0 AS read FROM meritum_get_metrics(helper.p(1), ARRAY(SELECT metric_key FROM oracle.all_keys()), '2023-06-01', '2024-05-31');
SELECT * FROM helper.wrong();
SELECT count(*) FROM meritum_cache.pending_refresh;
-- what no metric reads leaves none
UPDATE claims SET notes = 'x';
UPDATE claims SET state = state;
SELECT count(*) FROM meritum_cache.pending_refresh;
-- truncating leaves figures that a reader finds right
BEGIN;
TRUNCATE ahcip_claim_details;
COMMIT;
SELECT count(*) > 0 AS pending FROM meritum_cache.pending_refresh;
SELECT count(*) > 0 AS read FROM generate_series(1, 6) AS n,
    meritum_get_metrics(helper.p(n), ARRAY(SELECT metric_key FROM oracle.all_keys()), '2023-06-01', '2024-05-31');
SELECT * FROM helper.wrong();
SELECT count(*) FROM meritum_cache.pending_refresh;
RESET meritum_cache.refresh_mode;

--
-- SERIALIZABLE: the refresh is left to the worker and the reader, so that it
-- adds no serialization failure
--
SELECT helper.watch();
BEGIN ISOLATION LEVEL SERIALIZABLE;
UPDATE claims SET state = 'PAID' WHERE claim_id IN (helper.c(12), helper.c(21));
COMMIT;
SELECT * FROM helper.moved_rows();
SELECT * FROM pending;
SELECT value FROM meritum_get_metrics(helper.p(1), '{claims_paid}', '2024-03-01', '2024-03-31') WHERE dimensions IS NULL;
SELECT value FROM meritum_get_metrics(helper.p(2), '{claims_paid}', '2024-03-01', '2024-03-31') WHERE dimensions IS NULL;
-- REPEATABLE READ refreshes at commit
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM claims;
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(22);
COMMIT;
SELECT * FROM paid ORDER BY 1 LIMIT 2;
SELECT count(meritum_refresh_provider_metrics(helper.p(n), NULL, '2024-05-15')) FROM generate_series(1, 2) AS n;
SELECT * FROM helper.wrong();
SELECT count(*) FROM meritum_cache.pending_refresh;

--
-- commit_limit: the rest is left as notes
--
SET meritum_cache.commit_limit = 50;
UPDATE claims SET state = 'PAID';
SELECT count(*) > 0 AS some_left FROM meritum_cache.pending_refresh;
SELECT count(*) < 6 AS fewer_done FROM paid WHERE paid = '3';
-- no figure is wrong of a provider without a note
SELECT * FROM helper.wrong() AS w WHERE NOT EXISTS (SELECT FROM meritum_cache.pending_refresh p WHERE p.provider_id = w.provider_id);
SELECT count(*), sum((value ->> 'count')::int) FROM generate_series(1, 6) AS n,
    meritum_get_metrics(helper.p(n), '{claims_paid}', '2024-03-01', '2024-03-31') WHERE dimensions IS NULL;
SELECT count(meritum_refresh_provider_metrics(helper.p(n), NULL, '2024-05-15')) FROM generate_series(1, 6) AS n;
SELECT * FROM helper.wrong();
SELECT count(*) FROM meritum_cache.pending_refresh;
RESET meritum_cache.commit_limit;
-- within the limit nothing is left
UPDATE claims SET state = 'REJECTED' WHERE physician_id IN (helper.p(1), helper.p(2));
SELECT * FROM helper.wrong();
SELECT count(*) FROM meritum_cache.pending_refresh;

--
-- a refresh that fails: on_error = warn
--
-- the second provider's paid claims cannot be stored
ALTER TABLE meritum_cache.analytics_cache ADD CONSTRAINT hostile
    CHECK (provider_id <> 'a0000000-0000-4000-8000-000000000002' OR metric_key <> 'claims_paid') NOT VALID;
-- the claims commit, also those of others; a warning tells which provider and
-- the SQLSTATE
\set VERBOSITY terse
UPDATE claims SET state = 'ADJUSTED' WHERE claim_id IN (helper.c(11), helper.c(21), helper.c(31));
UPDATE claims SET state = 'PAID' WHERE claim_id IN (helper.c(11), helper.c(21), helper.c(31));
SELECT physician_id, state FROM claims WHERE claim_id IN (helper.c(11), helper.c(21), helper.c(31)) ORDER BY 1;
SELECT * FROM paid WHERE provider_id <> helper.p(2) AND provider_id < helper.p(4) ORDER BY 1;
SELECT provider_id, pending FROM pending;
SELECT * FROM helper.wrong() WHERE provider_id <> helper.p(2);
SELECT meritum_is_stale(helper.p(2));
-- nothing of it is parked yet
SELECT * FROM meritum_cache.failed_refresh;
-- further changes of the same and of other providers commit as well
UPDATE claims SET state = 'PAID' WHERE claim_id IN (helper.c(12), helper.c(22));
SELECT * FROM helper.wrong() WHERE provider_id <> helper.p(2);
-- after ten failures it is parked and shown
UPDATE meritum_cache.pending_refresh SET attempts = 10, sqlstate = '23514', message = 'm' WHERE provider_id = helper.p(2);
SELECT provider_id, since IS NOT NULL AS since, attempts, sqlstate, message FROM meritum_cache.failed_refresh;
-- no reader is served an old figure even so: claims 21 and 22 are paid
-- (computed on the fly, or else refused)
CREATE FUNCTION served() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT value FROM meritum_get_metrics(helper.p(2), '{claims_paid}', '2024-03-01', '2024-03-31') WHERE dimensions IS NULL);
EXCEPTION WHEN check_violation THEN
    RETURN 'refused';
END
$$;
SELECT served() IN ('{"count": 2}', 'refused') AS right_or_refused;
-- once the cause is gone, asking for it releases it
ALTER TABLE meritum_cache.analytics_cache DROP CONSTRAINT hostile;
SELECT meritum_refresh_provider_metrics(helper.p(2), NULL, '2024-05-15') > 0 AS written;
SELECT * FROM meritum_cache.failed_refresh;
SELECT count(*) FROM meritum_cache.pending_refresh;
SELECT * FROM helper.wrong();

--
-- on_error = error: the transaction aborts
--
\set VERBOSITY default
ALTER TABLE meritum_cache.analytics_cache ADD CONSTRAINT hostile
    CHECK (provider_id <> 'a0000000-0000-4000-8000-000000000002' OR metric_key <> 'claims_rejected') NOT VALID;
SET meritum_cache.on_error = error;
SELECT helper.watch();
\set VERBOSITY sqlstate
UPDATE claims SET state = 'REJECTED' WHERE claim_id IN (helper.c(11), helper.c(21));
BEGIN;
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(31);
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(21);
COMMIT;
\set VERBOSITY default
SELECT physician_id, state FROM claims WHERE claim_id IN (helper.c(11), helper.c(21), helper.c(31)) ORDER BY 1;
SELECT * FROM helper.moved_rows();
SELECT count(*) FROM meritum_cache.pending_refresh;
-- others are not concerned
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(31);
SELECT * FROM helper.wrong();
RESET meritum_cache.on_error;
ALTER TABLE meritum_cache.analytics_cache DROP CONSTRAINT hostile;

--
-- bad data: a fee that is no number
--
INSERT INTO ahcip_claim_details (claim_id, ba_number, functional_centre, submitted_fee, assessed_fee) SELECT claim_id, 'BA1', 'FC1', 20, 10 FROM claims;
SELECT * FROM helper.wrong();
\set VERBOSITY terse
UPDATE ahcip_claim_details SET assessed_fee = 'NaN' WHERE claim_id = helper.c(41);
\set VERBOSITY default
-- it is stored; the other providers' figures go on
SELECT assessed_fee FROM ahcip_claim_details WHERE claim_id = helper.c(41);
UPDATE ahcip_claim_details SET assessed_fee = 12 WHERE claim_id = helper.c(51);
SELECT * FROM helper.wrong() WHERE provider_id <> helper.p(4);
-- and so do his, once it is mended
UPDATE ahcip_claim_details SET assessed_fee = 12 WHERE claim_id = helper.c(41);
SELECT meritum_refresh_provider_metrics(helper.p(4), NULL, '2024-05-15') > 0 AS written;
SELECT * FROM helper.wrong();
SELECT count(*) FROM meritum_cache.pending_refresh;
-- with more decimals and digits than the platform's columns hold
ALTER TABLE ahcip_claim_details ALTER assessed_fee TYPE numeric;
\set VERBOSITY terse
UPDATE ahcip_claim_details SET assessed_fee = 10.0049 WHERE claim_id IN (helper.c(41), helper.c(42));
SELECT * FROM helper.wrong();
UPDATE ahcip_claim_details SET assessed_fee = -5.5 WHERE claim_id IN (helper.c(41), helper.c(42));
SELECT * FROM helper.wrong();
\set VERBOSITY default

DROP VIEW paid, pending;
DROP EXTENSION meritum_cache;
DROP SCHEMA shop, oracle, helper CASCADE;
