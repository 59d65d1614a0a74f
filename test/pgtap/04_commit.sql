-- What happens at commit: the claim change and its figures become visible
-- together; in async mode a note does.  These tests commit, in a schema of
-- their own, and clean up.
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
\pset pager off
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS meritum_cache;
CREATE SCHEMA tap_commit;
SELECT set_config('search_path', 'tap_commit, ' || current_setting('search_path'), false) AS path \gset
\ir ../support/platform.sql
\set p '\'a0000000-0000-4000-8000-000000000001\''
INSERT INTO providers (provider_id) VALUES (:p);
SELECT count(*) AS attached FROM meritum_attach() \gset
SELECT meritum_refresh_provider_metrics(:p, NULL, '2024-05-15') AS written \gset
CREATE VIEW paid AS SELECT value FROM meritum_cache.analytics_cache
 WHERE provider_id = :p AND metric_key = 'claims_paid' AND period_start = '2024-03-01' AND dimensions IS NULL;

SELECT no_plan();

SELECT is((SELECT value FROM paid), '{"count": 0}', 'an empty month stores zero');
INSERT INTO claims (claim_id, physician_id, state, date_of_service)
SELECT ('c0000000-0000-4000-8000-00000000000' || n)::uuid, :p, 'PAID', '2024-03-04' FROM generate_series(1, 5) AS n;
SELECT is((SELECT value FROM paid), '{"count": 5}', 'INSERT');
UPDATE claims SET state = 'REJECTED' WHERE claim_id = 'c0000000-0000-4000-8000-000000000001';
SELECT is((SELECT value FROM paid), '{"count": 4}', 'UPDATE');
DELETE FROM claims WHERE claim_id = 'c0000000-0000-4000-8000-000000000002';
SELECT is((SELECT value FROM paid), '{"count": 3}', 'DELETE');
UPDATE claims SET date_of_service = '2024-04-01' WHERE claim_id = 'c0000000-0000-4000-8000-000000000003';
SELECT is((SELECT value FROM paid), '{"count": 2}', 'moved to another month');
UPDATE claims SET deleted_at = now() WHERE claim_id = 'c0000000-0000-4000-8000-000000000004';
SELECT is((SELECT value FROM paid), '{"count": 1}', 'deleted softly');

BEGIN;
UPDATE claims SET state = 'DRAFT' WHERE claim_id = 'c0000000-0000-4000-8000-000000000005';
SELECT is((SELECT value FROM paid), '{"count": 1}', 'not before the commit');
COMMIT;
SELECT is((SELECT value FROM paid), '{"count": 0}', 'at the commit');
BEGIN;
UPDATE claims SET state = 'PAID';
ROLLBACK;
SELECT is((SELECT value FROM paid), '{"count": 0}', 'not after a rollback');
BEGIN;
SAVEPOINT s;
UPDATE claims SET state = 'PAID' WHERE claim_id = 'c0000000-0000-4000-8000-000000000001';
ROLLBACK TO s;
UPDATE claims SET state = 'PAID' WHERE claim_id = 'c0000000-0000-4000-8000-000000000005';
COMMIT;
SELECT is((SELECT value FROM paid), '{"count": 1}', 'not what is rolled back to a savepoint');

SELECT computed_at AS at FROM meritum_cache.analytics_cache WHERE provider_id = :p AND metric_key = 'claims_paid' AND period_start = '2024-03-01' AND dimensions IS NULL \gset
SELECT version AS version FROM meritum_freshness(:p) \gset
UPDATE claims SET notes = 'a column that no metric reads';
SELECT is((SELECT max(computed_at) FROM meritum_cache.analytics_cache WHERE provider_id = :p AND metric_key = 'claims_paid' AND period_start = '2024-03-01' AND dimensions IS NULL),
    :'at'::timestamptz, 'what an event does not affect is not touched');
SELECT is((SELECT version FROM meritum_freshness(:p)), :version::bigint, 'nor does the version grow');

SET meritum_cache.refresh_mode = async;
UPDATE claims SET state = 'REJECTED' WHERE claim_id = 'c0000000-0000-4000-8000-000000000005';
SELECT isnt_empty($$SELECT FROM meritum_cache.pending_refresh WHERE provider_id = 'a0000000-0000-4000-8000-000000000001'$$, 'async: the transaction leaves a durable note');
SELECT is(meritum_is_stale(:p), true, 'async: a provider with a pending change is stale');
SELECT is((SELECT value FROM meritum_get_metrics(:p, '{claims_paid}', '2024-03-01', '2024-03-31') WHERE dimensions IS NULL), '{"count": 0}', 'async: readers get exact figures');
RESET meritum_cache.refresh_mode;

SET meritum_cache.on_error = error;
ALTER TABLE meritum_cache.analytics_cache ADD CONSTRAINT tap_hostile CHECK (provider_id <> 'a0000000-0000-4000-8000-000000000001' OR period_start <> '2024-04-01') NOT VALID;
\set ON_ERROR_STOP off
\set VERBOSITY terse
SET client_min_messages = error;
UPDATE claims SET state = 'ADJUSTED' WHERE claim_id = 'c0000000-0000-4000-8000-000000000003';
\set ON_ERROR_STOP on
SELECT is((SELECT state::text FROM claims WHERE claim_id = 'c0000000-0000-4000-8000-000000000003'), 'PAID', 'on_error = error: the transaction aborts');
RESET meritum_cache.on_error;
UPDATE claims SET state = 'ADJUSTED' WHERE claim_id = 'c0000000-0000-4000-8000-000000000003';
SELECT is((SELECT state::text FROM claims WHERE claim_id = 'c0000000-0000-4000-8000-000000000003'), 'ADJUSTED', 'on_error = warn: a claim is never lost to the cache');
SELECT isnt_empty($$SELECT FROM meritum_cache.pending_refresh WHERE provider_id = 'a0000000-0000-4000-8000-000000000001'$$, 'on_error = warn: the cell stays pending');
ALTER TABLE meritum_cache.analytics_cache DROP CONSTRAINT tap_hostile;
SET client_min_messages = warning;
SELECT isnt_empty($$SELECT * FROM meritum_get_metrics('a0000000-0000-4000-8000-000000000001', '{claims_adjusted}', '2024-04-01', '2024-04-30')$$, 'and is settled by the next reader');
SELECT is_empty($$SELECT * FROM meritum_verify('a0000000-0000-4000-8000-000000000001')$$, 'in the end the cache is right');

SELECT * FROM finish();
SELECT count(*) AS detached FROM meritum_detach() \gset
SET client_min_messages = error;
DROP SCHEMA tap_commit CASCADE;
