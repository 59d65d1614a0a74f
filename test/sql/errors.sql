--
-- what is refused, with which SQLSTATE and words
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin
\pset format unaligned
\set p '\'a0000000-0000-4000-8000-000000000001\''

-- The command, and what is wrong with it.
CREATE FUNCTION faults(VARIADIC commands text[])
RETURNS TABLE (command text, fault text) LANGUAGE sql AS $$
    SELECT replace(c, '''a0000000-0000-4000-8000-000000000001''', ':p'), helper.fault(c)
    FROM unnest(commands) WITH ORDINALITY AS u (c, n) ORDER BY n
$$;

--
-- before anything is attached: 55000, with the command to run
--
SELECT fault FROM faults(format('SELECT meritum_refresh_provider_metrics(%L)', :p));
SELECT command, left(fault, 5) AS sqlstate, fault LIKE '%meritum_attach%' AS says_what_to_run
  FROM faults(
    format('SELECT meritum_refresh_provider_metrics(%L)', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT meritum_handle_claim_state_change(%L, ''AHCIP'', ''PAID'')', :p),
    format('SELECT * FROM meritum_verify(%L)', :p));
-- what needs no source tables works
SELECT meritum_is_stale(:p);
SELECT count(*) FROM meritum_get_stale_entries(:p);
SELECT meritum_delete_expired_entries(:p, '2024-01-01');
-- nothing to attach
DROP TABLE claims;
SELECT fault FROM faults('SELECT meritum_attach()');
SELECT count(*) FROM meritum_detach();
CREATE TABLE claims (claim_id uuid PRIMARY KEY, physician_id uuid, patient_id uuid, claim_type varchar(10),
    state varchar(20), date_of_service date, submission_deadline date, validation_result jsonb,
    created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(), deleted_at timestamptz);

INSERT INTO providers (provider_id) VALUES (helper.p(1)), (helper.p(2));
INSERT INTO claims (claim_id, physician_id, claim_type, state, date_of_service) VALUES
    (helper.c(1), helper.p(1), 'AHCIP', 'PAID', '2024-03-03'),
    (helper.c(2), helper.p(2), 'AHCIP', 'PAID', '2024-03-03'),
    (helper.c(3), helper.p(1), 'WCB', 'PAID', '2024-03-03'),
    (helper.c(4), helper.p(1), 'AHCIP', 'DELETED', '2024-03-03');
SELECT count(*) FROM meritum_attach();
SELECT meritum_refresh_provider_metrics(:p, NULL, '2024-05-05') > 0 AS written;
SELECT helper.watch();

--
-- null for a required argument: 22004
--
SELECT command, left(fault, 5) AS sqlstate FROM faults(
    'SELECT * FROM meritum_get_metrics(NULL, ''{claims_paid}'', ''2024-01-01'', ''2024-12-31'')',
    format('SELECT * FROM meritum_get_metrics(%L, NULL, ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_get_metrics(%L, ''{claims_paid,NULL}'', ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_get_metrics(%L, ''{claims_paid}'', NULL, ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_get_metrics(%L, ''{claims_paid}'', ''2024-01-01'', NULL)', :p),
    'SELECT * FROM meritum_compute_metrics(NULL, ''{claims_paid}'', ''2024-01-01'', ''2024-12-31'')',
    format('SELECT * FROM meritum_compute_metrics(%L, NULL, ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{NULL}'', ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', NULL, ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2024-01-01'', NULL)', :p),
    format('SELECT meritum_upsert_metric(NULL, ''claims_paid'', ''2024-01-01'', ''2024-01-31'', NULL, ''{}'')'),
    format('SELECT meritum_upsert_metric(%L, NULL, ''2024-01-01'', ''2024-01-31'', NULL, ''{}'')', :p),
    format('SELECT meritum_upsert_metric(%L, ''claims_paid'', NULL, ''2024-01-31'', NULL, ''{}'')', :p),
    format('SELECT meritum_upsert_metric(%L, ''claims_paid'', ''2024-01-01'', NULL, NULL, ''{}'')', :p),
    format('SELECT meritum_upsert_metric(%L, ''claims_paid'', ''2024-01-01'', ''2024-01-31'', NULL, NULL)', :p),
    'SELECT meritum_bulk_upsert(NULL, ''[]'')',
    format('SELECT meritum_bulk_upsert(%L, NULL)', :p),
    'SELECT * FROM meritum_get_stale_entries(NULL)',
    'SELECT meritum_delete_expired_entries(NULL, ''2024-01-01'')',
    format('SELECT meritum_delete_expired_entries(%L, NULL)', :p),
    'SELECT meritum_refresh_provider_metrics(NULL)',
    format('SELECT meritum_refresh_provider_metrics(%L, ''{claims_paid,NULL}'')', :p),
    'SELECT meritum_handle_claim_state_change(NULL, ''AHCIP'', ''PAID'')',
    format('SELECT meritum_handle_claim_state_change(%L, NULL, ''PAID'')', :p),
    format('SELECT meritum_handle_claim_state_change(%L, ''AHCIP'', NULL)', :p),
    'SELECT meritum_is_stale(NULL)',
    'SELECT * FROM meritum_freshness(NULL)',
    'SELECT meritum_request_refresh(NULL)',
    'SELECT * FROM meritum_verify(NULL)',
    'SELECT meritum_unschedule(NULL)',
    'SELECT meritum_run_job(NULL)',
    'SELECT meritum_schedule(NULL, ''@daily'', ''SELECT 1'')',
    'SELECT meritum_schedule(''j'', NULL, ''SELECT 1'')',
    'SELECT meritum_schedule(''j'', ''@daily'', NULL)');
-- and the words: which argument
SELECT fault FROM faults(
    'SELECT meritum_is_stale(NULL)',
    format('SELECT meritum_upsert_metric(%L, ''claims_paid'', ''2024-01-01'', ''2024-01-31'', NULL, NULL)', :p));

--
-- an unknown metric: 22023, which one, and where to look
--
SELECT fault FROM faults(
    format('SELECT * FROM meritum_get_metrics(%L, ''{claims_paid,profit}'', ''2024-01-01'', ''2024-12-31'')', :p));
SELECT left(fault, 5) AS sqlstate, fault LIKE '%profit%' AS named, fault LIKE '%hint: %meritum_cache.metric%' AS hinted FROM faults(
    format('SELECT * FROM meritum_get_metrics(%L, ''{profit}'', ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid,profit}'', ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT meritum_upsert_metric(%L, ''profit'', ''2024-01-01'', ''2024-01-31'', NULL, ''{}'')', :p),
    format('SELECT meritum_refresh_provider_metrics(%L, ''{claims_paid,profit}'')', :p),
    format('SELECT meritum_bulk_upsert(%L, ''[{"metric_key": "profit", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": 1}]'')', :p));
-- case matters; so does a blank; too long a name is just as unknown
SELECT left(fault, 5) AS sqlstate FROM faults(
    format('SELECT * FROM meritum_get_metrics(%L, ''{Claims_paid}'', ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_get_metrics(%L, ''{"claims_paid "}'', ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_get_metrics(%L, ''{""}'', ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_get_metrics(%L, ARRAY[repeat(''x'', 1000)], ''2024-01-01'', ''2024-12-31'')', :p));

--
-- bad periods: 22023
--
SELECT command, left(fault, 5) AS sqlstate FROM faults(
    format('SELECT * FROM meritum_get_metrics(%L, ''{claims_paid}'', ''2024-02-01'', ''2024-01-31'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2024-02-01'', ''2024-01-31'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2022-01-01'', ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''-infinity'', ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2024-12-01'', ''infinity'')', :p),
    format('SELECT meritum_upsert_metric(%L, ''claims_paid'', ''2024-02-01'', ''2024-01-31'', NULL, ''{}'')', :p),
    format('SELECT meritum_is_stale(%L, -1)', :p),
    format('SELECT meritum_get_stale_entries(%L, -1)', :p),
    format('SELECT meritum_refresh_provider_metrics(%L, NULL, ''infinity'')', :p),
    format('SELECT meritum_refresh_provider_metrics(%L, NULL, ''5874897-12-31'')', :p));
-- 730 days are allowed, 731 are not
SELECT left(fault, 5) AS sqlstate FROM faults(
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2023-01-01'', ''2024-12-30'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2023-01-01'', ''2025-01-02'')', :p));
-- one day is a range
SELECT * FROM meritum_compute_metrics(:p, '{claims_paid}', '2024-03-03', '2024-03-03');

--
-- filters: 22023
--
SELECT substring(command from '\{"?[a-z_]*"?: ?.*\}|\[.*\]|''1''') AS filter, left(fault, 5) AS sqlstate FROM faults(
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2024-01-01'', ''2024-12-31'', ''{"colour": "red"}'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2024-01-01'', ''2024-12-31'', ''{"claim_type": {"a": 1}}'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2024-01-01'', ''2024-12-31'', ''{"claim_type": [["AHCIP"]]}'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2024-01-01'', ''2024-12-31'', ''["AHCIP"]'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2024-01-01'', ''2024-12-31'', ''1'')', :p));
-- a value that no claim has is no error
SELECT * FROM meritum_compute_metrics(:p, '{claims_paid}', '2024-01-01', '2024-12-31', '{"ba_number": "nobody''s"}');
-- a filter on a metric that reads no claims; without one it is allowed
SELECT command ~ 'claim_type' AS filtered, left(fault, 5) AS sqlstate, fault ~ 'ai_coach' AS named FROM faults(
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid,ai_coach_acceptance_rate}'', ''2024-01-01'', ''2024-12-31'', ''{"claim_type": "AHCIP"}'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{ai_coach_suppressed}'', ''2024-01-01'', ''2024-12-31'', ''{"claim_type": "AHCIP"}'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{ai_coach_acceptance_rate,ai_coach_suppressed}'', ''2024-01-01'', ''2024-12-31'')', :p));

--
-- the explicit event
--
-- a claim of another provider, of the other pathway, of nobody: nothing is
-- refreshed
SELECT fault FROM faults(
    format('SELECT meritum_handle_claim_state_change(%L, ''AHCIP'', ''PAID'', %L)', :p, helper.c(2)));
SELECT left(fault, 5) AS sqlstate FROM faults(
    format('SELECT meritum_handle_claim_state_change(%L, ''AHCIP'', ''PAID'', %L)', :p, helper.c(2)),
    format('SELECT meritum_handle_claim_state_change(%L, ''AHCIP'', ''PAID'', %L)', :p, helper.c(3)),
    format('SELECT meritum_handle_claim_state_change(%L, ''WCB'', ''PAID'', %L)', :p, helper.c(1)),
    format('SELECT meritum_handle_claim_state_change(%L, ''AHCIP'', ''PAID'', %L)', :p, helper.c(99)),
    -- also where the state would refresh nothing
    format('SELECT meritum_handle_claim_state_change(%L, ''AHCIP'', ''DRAFT'', %L)', :p, helper.c(2)));
-- an unknown pathway is a wrong argument
SELECT left(fault, 5) AS sqlstate FROM faults(
    format('SELECT meritum_handle_claim_state_change(%L, ''DENTAL'', ''PAID'')', :p),
    format('SELECT meritum_handle_claim_state_change(%L, '''', ''PAID'')', :p));
-- a state that is not in the map, or none at all, refreshes nothing
SELECT meritum_handle_claim_state_change(:p, 'AHCIP', 'DRAFT'),
       meritum_handle_claim_state_change(:p, 'AHCIP', 'no such state'),
       meritum_handle_claim_state_change(:p, 'AHCIP', 'DRAFT', helper.c(1));
SELECT * FROM helper.moved_rows();

--
-- bulk upsert: a wrong entry names its index and rejects them all
--
CREATE FUNCTION bulk_fault(entry text) RETURNS text LANGUAGE sql AS $$
    SELECT helper.fault(format('SELECT meritum_bulk_upsert(%L, %L)', helper.p(1),
        '[{"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": {"count": 77}}, '
        || entry || ']'))
$$;
CREATE TABLE bad (n serial, what text, entry text);
INSERT INTO bad (what, entry) VALUES
    ('another provider', '{"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": {"count": 1}, "provider_id": "a0000000-0000-4000-8000-000000000002"}'),
    ('provider no uuid', '{"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": {"count": 1}, "provider_id": "me"}'),
    ('unknown key', '{"metric_key": "profit", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": {"count": 1}}'),
    ('no key', '{"period_start": "2024-01-01", "period_end": "2024-01-31", "value": {"count": 1}}'),
    ('null key', '{"metric_key": null, "period_start": "2024-01-01", "period_end": "2024-01-31", "value": {"count": 1}}'),
    ('key no string', '{"metric_key": ["claims_paid"], "period_start": "2024-01-01", "period_end": "2024-01-31", "value": {"count": 1}}'),
    ('bad date', '{"metric_key": "claims_paid", "period_start": "2024-02-30", "period_end": "2024-01-31", "value": {"count": 1}}'),
    ('padded date', '{"metric_key": "claims_paid", "period_start": "2024- 1-01", "period_end": "2024-01-31", "value": {"count": 1}}'),
    ('no date', '{"metric_key": "claims_paid", "period_start": "soon", "period_end": "2024-01-31", "value": {"count": 1}}'),
    ('date a number', '{"metric_key": "claims_paid", "period_start": 20240101, "period_end": "2024-01-31", "value": {"count": 1}}'),
    ('no start', '{"metric_key": "claims_paid", "period_end": "2024-01-31", "value": {"count": 1}}'),
    ('no end', '{"metric_key": "claims_paid", "period_start": "2024-01-01", "value": {"count": 1}}'),
    ('end before start', '{"metric_key": "claims_paid", "period_start": "2024-02-01", "period_end": "2024-01-31", "value": {"count": 1}}'),
    ('infinite', '{"metric_key": "claims_paid", "period_start": "-infinity", "period_end": "infinity", "value": {"count": 1}}'),
    ('no value', '{"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31"}'),
    ('no object', '"claims_paid"'),
    ('null', 'null'),
    ('array', '[]');
SELECT what, left(bulk_fault(entry), 5) AS sqlstate, split_part(bulk_fault(entry), E'\n', 1) ~ '\m1\M' AS names_index FROM bad ORDER BY n;
-- the first wrong one is named, from 0
SELECT fault FROM faults(format('SELECT meritum_bulk_upsert(%L, ''[{"metric_key": "a"}, {"metric_key": "b"}]'')', :p));
-- the whole must be an array
SELECT left(fault, 5) AS sqlstate FROM faults(
    format('SELECT meritum_bulk_upsert(%L, ''{"metric_key": "claims_paid"}'')', :p),
    format('SELECT meritum_bulk_upsert(%L, ''null'')', :p),
    format('SELECT meritum_bulk_upsert(%L, ''1'')', :p));
SELECT meritum_bulk_upsert(:p, '[]');
-- nothing of all this was written
SELECT * FROM helper.moved_rows();

--
-- procedures
--
\set VERBOSITY sqlstate
CALL meritum_refresh_all_providers(0);
CALL meritum_refresh_all_providers(-5);
-- they commit, so they want to be outermost
BEGIN;
CALL meritum_refresh_all_providers();
ROLLBACK;
BEGIN;
CALL meritum_cleanup_old_entries();
ROLLBACK;
\set VERBOSITY default

--
-- names
--
SELECT left(fault, 5) AS sqlstate FROM faults(
    'SELECT meritum_unschedule(''no such job'')',
    'SELECT meritum_run_job(''no such job'')',
    'SELECT meritum_schedule(''j'', ''* * *'', ''SELECT 1'')',
    'SELECT meritum_schedule(''j'', ''@daily'', ''SELECT 1'', ''Atlantis/Capital'')');

--
-- nobody but the owner and whom he grants it may call anything
--
CREATE ROLE regress_meritum_nobody;
GRANT USAGE ON SCHEMA shop, public, helper TO regress_meritum_nobody;
SET ROLE regress_meritum_nobody;
SELECT command, left(fault, 5) AS sqlstate FROM faults(
    format('SELECT * FROM meritum_get_metrics(%L, ''{claims_paid}'', ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT * FROM meritum_compute_metrics(%L, ''{claims_paid}'', ''2024-01-01'', ''2024-12-31'')', :p),
    format('SELECT meritum_upsert_metric(%L, ''claims_paid'', ''2024-01-01'', ''2024-01-31'', NULL, ''{}'')', :p),
    format('SELECT meritum_bulk_upsert(%L, ''[]'')', :p),
    format('SELECT meritum_get_stale_entries(%L)', :p),
    format('SELECT meritum_delete_expired_entries(%L, ''2024-01-01'')', :p),
    format('SELECT meritum_refresh_provider_metrics(%L)', :p),
    format('SELECT meritum_handle_claim_state_change(%L, ''AHCIP'', ''PAID'')', :p),
    format('SELECT meritum_is_stale(%L)', :p),
    format('SELECT meritum_freshness(%L)', :p),
    format('SELECT meritum_request_refresh(%L)', :p),
    format('SELECT meritum_verify(%L)', :p),
    'CALL meritum_refresh_all_providers()',
    'CALL meritum_cleanup_old_entries()',
    'SELECT meritum_attach()', 'SELECT meritum_detach()',
    'SELECT meritum_schedule(''j'', ''@daily'', ''SELECT 1'')',
    'SELECT meritum_unschedule(''cleanup'')', 'SELECT meritum_run_job(''cleanup'')',
    'SELECT * FROM meritum_cache.analytics_cache', 'SELECT * FROM meritum_cache.claim_fact');
RESET ROLE;

DROP EXTENSION meritum_cache;
DROP OWNED BY regress_meritum_nobody;
DROP SCHEMA shop, oracle, helper CASCADE;
DROP ROLE regress_meritum_nobody;
