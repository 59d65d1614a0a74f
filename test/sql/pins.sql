--
-- pins: a session or a transaction that is about one provider
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin
INSERT INTO providers (provider_id) SELECT helper.p(n) FROM generate_series(1, 2) AS n;
INSERT INTO claims (physician_id, state, date_of_service) SELECT helper.p(1 + n % 2), 'PAID', '2024-03-04' FROM generate_series(1, 6) AS n;
SELECT count(*) FROM meritum_attach();
SELECT meritum_refresh_provider_metrics(helper.p(n), NULL, '2024-05-15') > 0 AS written FROM generate_series(1, 2) AS n;
SET meritum_cache.refresh_mode = async;
UPDATE claims SET state = 'REJECTED' WHERE physician_id IN (helper.p(1), helper.p(2));
RESET meritum_cache.refresh_mode;
UPDATE meritum_cache.pending_refresh SET attempts = 10, next_attempt_at = 'infinity', sqlstate = '22003', message = 'test';
CREATE ROLE regress_meritum_free;
CREATE ROLE regress_meritum_bound;
CREATE ROLE regress_meritum_both IN ROLE regress_meritum_free, regress_meritum_bound;
CREATE ROLE regress_meritum_child IN ROLE regress_meritum_bound;
CREATE ROLE regress_meritum_stranger;
CREATE ROLE regress_meritum_operator;
GRANT USAGE ON SCHEMA shop, public, helper TO PUBLIC;
SELECT meritum_grant('regress_meritum_free', 'reader'), meritum_grant('regress_meritum_bound', 'reader', true), meritum_grant('regress_meritum_operator', 'operator');

-- what the session sees in the tables, and of which provider functions tell
CREATE FUNCTION helper.seen() RETURNS TABLE (relation text, providers text) LANGUAGE plpgsql AS $$
BEGIN
    FOREACH relation IN ARRAY ARRAY['analytics_cache', 'provider_state', 'pending_refresh', 'failed_refresh'] LOOP
        EXECUTE format('SELECT coalesce(string_agg(DISTINCT right(provider_id::text, 1), '','' ORDER BY right(provider_id::text, 1)), ''none'') FROM meritum_cache.%I', relation) INTO providers;
        RETURN NEXT;
    END LOOP;
    relation := 'functions';
    SELECT coalesce(string_agg(n::text, ',' ORDER BY n), 'none') INTO providers FROM generate_series(1, 2) AS n
     WHERE helper.fault(format('SELECT meritum_freshness(%L)', helper.p(n))) = 'none';
    RETURN NEXT;
END
$$;

-- a reader that is free to choose
SET ROLE regress_meritum_free;
SELECT * FROM helper.seen();
SELECT meritum_set_provider(helper.p(1));
SELECT * FROM helper.seen();
SHOW meritum_cache.provider;
SELECT helper.fault(format('SELECT meritum_is_stale(%L)', helper.p(2)));
SELECT meritum_set_provider(helper.p(2));
SELECT providers FROM helper.seen();
SELECT meritum_set_provider(NULL);
SELECT providers FROM helper.seen();
-- every function that takes a provider asks for the pin
RESET ROLE;
SELECT meritum_set_provider(helper.p(1));
SELECT left(helper.fault(format('SELECT %s(%L%s)', proname, helper.p(2),
       (SELECT string_agg(', NULL::' || format_type(t, NULL), '' ORDER BY i) FROM unnest(proargtypes::oid[]) WITH ORDINALITY AS a (t, i) WHERE i > 1))), 5) AS sqlstate, count(*) > 0 AS functions
  FROM pg_proc WHERE proname LIKE 'meritum\_%' AND proname <> 'meritum_set_provider' AND prokind = 'f' AND proargnames[1] = 'provider_id' GROUP BY 1;
-- what is about all providers is refused, for a superuser too
SELECT helper.fault('SELECT meritum_run_job(''cleanup'')');
SELECT helper.sqlstate('SELECT meritum_attach()'), helper.sqlstate('SELECT meritum_detach()'), helper.sqlstate('SELECT meritum_schedule(''j'', ''@daily'', ''SELECT 1'')'),
       helper.sqlstate('SELECT meritum_unschedule(''cleanup'')'), helper.sqlstate('SELECT meritum_grant(''regress_meritum_free'', ''admin'')'),
       helper.sqlstate('SELECT meritum_revoke(''regress_meritum_free'')'), helper.sqlstate('SELECT meritum_next_run(''@daily'')');
\set VERBOSITY terse
CALL meritum_refresh_all_providers();
CALL meritum_cleanup_old_entries();
\set VERBOSITY default
-- writers of claims and the refresh do not know it
UPDATE claims SET state = 'PAID' WHERE physician_id = helper.p(2);
SELECT meritum_set_provider(NULL);
SELECT meritum_refresh_provider_metrics(helper.p(2), NULL, '2024-05-15') > 0 AS written;
SELECT * FROM helper.wrong() WHERE provider_id = helper.p(2);

-- transactions and savepoints, as other settings
BEGIN;
SELECT meritum_set_provider(helper.p(1), is_local => true);
SHOW meritum_cache.provider;
SAVEPOINT s;
SELECT meritum_set_provider(helper.p(2), is_local => true);
SHOW meritum_cache.provider;
ROLLBACK TO s;
SHOW meritum_cache.provider;
RELEASE s;
COMMIT;
SHOW meritum_cache.provider;
BEGIN;
SELECT meritum_set_provider(helper.p(1));
ROLLBACK;
SHOW meritum_cache.provider;
BEGIN;
SELECT meritum_set_provider(helper.p(1));
SELECT meritum_set_provider(helper.p(2), true);
SHOW meritum_cache.provider;
COMMIT;
SHOW meritum_cache.provider;
SELECT helper.fault('SELECT meritum_set_provider(NULL, NULL)');
-- no other way to set it; RESET ALL leaves it, DISCARD ALL is the end of a client
SELECT helper.sqlstate($$SET meritum_cache.provider = ''$$), helper.sqlstate($$RESET meritum_cache.provider$$), helper.sqlstate($$SELECT set_config('meritum_cache.provider', '', false)$$),
       helper.sqlstate($$ALTER ROLE regress_meritum_free SET meritum_cache.provider = ''$$), helper.sqlstate($$CREATE FUNCTION f() RETURNS int LANGUAGE sql SET meritum_cache.provider = '' AS 'SELECT 1'$$);
RESET ALL;
SHOW meritum_cache.provider;
DISCARD ALL;
SHOW meritum_cache.provider;
SET client_min_messages = warning;
SET search_path = shop, public;

-- a reader that sees nothing until pinned
SET ROLE regress_meritum_bound;
SELECT * FROM helper.seen();
SELECT helper.fault(format('SELECT meritum_is_stale(%L)', helper.p(1)));
SELECT meritum_set_provider(helper.p(1));
SELECT * FROM helper.seen();
-- in a new transaction another, in the same none
BEGIN;
SELECT meritum_set_provider(helper.p(2));
SELECT providers FROM helper.seen();
SELECT helper.fault(format('SELECT meritum_set_provider(%L)', helper.p(1)));
SELECT helper.sqlstate('SELECT meritum_set_provider(NULL)'), helper.sqlstate(format('SELECT meritum_set_provider(%L)', helper.p(2)));
COMMIT;
-- one that was used counts, functions and tables alike
BEGIN;
SELECT meritum_is_stale(helper.p(2)) IS NOT NULL AS used;
SELECT helper.sqlstate(format('SELECT meritum_set_provider(%L)', helper.p(1)));
COMMIT;
BEGIN;
SELECT count(*) > 0 AS used FROM meritum_cache.analytics_cache;
SELECT helper.sqlstate(format('SELECT meritum_set_provider(%L)', helper.p(1)));
COMMIT;
-- a savepoint brings the pin back, not the freedom
SELECT meritum_set_provider(NULL);
BEGIN;
SAVEPOINT s;
SELECT meritum_set_provider(helper.p(1), true);
ROLLBACK TO s;
SELECT providers FROM helper.seen();
SELECT helper.sqlstate(format('SELECT meritum_set_provider(%L, true)', helper.p(2)));
SELECT meritum_set_provider(helper.p(1), true);
COMMIT;
SELECT providers FROM helper.seen();
-- in one statement, in a function, in an exception block
SELECT helper.sqlstate(format('SELECT meritum_set_provider(%L), meritum_set_provider(%L)', helper.p(1), helper.p(2)));
DO $$
BEGIN
    PERFORM meritum_set_provider(helper.p(1), true);
    BEGIN
        PERFORM meritum_set_provider(helper.p(2), true);
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE WARNING 'refused';
    END;
END
$$;
SELECT meritum_set_provider(helper.p(1));
-- neither goes around it: RESET ALL, SET ROLE and back, another search path
BEGIN;
SELECT count(*) > 0 AS used FROM meritum_cache.analytics_cache;
RESET ALL;
SET search_path = shop, public;
SET client_min_messages = warning;
SELECT DISTINCT right(provider_id::text, 1) AS provider FROM meritum_cache.analytics_cache;
SELECT helper.sqlstate(format('SELECT meritum_set_provider(%L)', helper.p(2)));
COMMIT;
SELECT meritum_set_provider(NULL);
RESET ROLE;

-- a member: rights add up, so one of both need not be pinned, unless its own
-- grant says so
SET ROLE regress_meritum_both;
SELECT providers FROM helper.seen();
SET ROLE regress_meritum_child;
SELECT providers FROM helper.seen();
RESET ROLE;
SELECT meritum_grant('regress_meritum_both', 'reader', true);
SET ROLE regress_meritum_both;
SELECT providers FROM helper.seen();
RESET ROLE;

-- a plan that was made for one role or pin is used by another
PREPARE providers AS SELECT count(DISTINCT provider_id) FROM meritum_cache.analytics_cache;
SET plan_cache_mode = force_generic_plan;
EXECUTE providers;
SET ROLE regress_meritum_free;
EXECUTE providers;
SET ROLE regress_meritum_bound;
EXECUTE providers;
SELECT meritum_set_provider(helper.p(1));
EXECUTE providers;
SET ROLE regress_meritum_free;
EXECUTE providers;
SELECT meritum_set_provider(NULL);
EXECUTE providers;
SET ROLE regress_meritum_bound;
EXECUTE providers;
RESET ROLE;
RESET plan_cache_mode;
DEALLOCATE providers;

-- a view of one who sees nothing shows nothing to others either
GRANT CREATE ON SCHEMA shop TO regress_meritum_bound;
SET ROLE regress_meritum_bound;
CREATE VIEW shop.loophole AS SELECT * FROM meritum_cache.analytics_cache;
GRANT SELECT ON shop.loophole TO regress_meritum_stranger, regress_meritum_free;
CREATE FUNCTION shop.loophole() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS 'SELECT count(*) FROM meritum_cache.analytics_cache';
RESET ROLE;
GRANT USAGE ON SCHEMA meritum_cache TO regress_meritum_stranger;
GRANT EXECUTE ON FUNCTION meritum_cache.sees_all, meritum_cache.pinned_provider TO regress_meritum_stranger;
SET ROLE regress_meritum_stranger;
SELECT count(*) FROM shop.loophole;
SELECT shop.loophole();
SET ROLE regress_meritum_free;
SELECT shop.loophole();
RESET ROLE;
DROP VIEW shop.loophole;
-- nor can a condition look at rows before they are let through
CREATE FUNCTION shop.peek(uuid) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE WARNING 'row of %', right($1::text, 1); RETURN true; END $$;
SET ROLE regress_meritum_bound;
SELECT count(*) FROM meritum_cache.provider_state WHERE shop.peek(provider_id);
SELECT meritum_set_provider(helper.p(2));
SELECT count(*) FROM meritum_cache.provider_state WHERE shop.peek(provider_id);
SELECT meritum_set_provider(NULL);
RESET ROLE;

-- a parallel worker does not know the pin, and says so
CREATE FUNCTION shop.parallel(p uuid) RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS 'BEGIN RETURN meritum_is_stale(p); END';
GRANT SELECT ON claims TO regress_meritum_free;
SET ROLE regress_meritum_free;
SELECT meritum_set_provider(helper.p(1));
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off;
SELECT helper.sqlstate(format('SELECT count(*) FROM (SELECT state FROM shop.claims WHERE shop.parallel(%L)) AS c', helper.p(2))) IN ('25000', '42501') AS refused;
SELECT count(DISTINCT provider_id) FROM meritum_cache.analytics_cache;
RESET ALL;
SET client_min_messages = warning;
SET search_path = shop, public;
SELECT meritum_set_provider(NULL);
RESET ROLE;

-- runs of jobs are about all providers
INSERT INTO meritum_cache.job_run (job_name, status, errors) VALUES ('test', 'succeeded', '[]');
SET ROLE regress_meritum_operator;
SELECT count(*) > 0 AS runs FROM meritum_cache.job_run;
SELECT meritum_set_provider(helper.p(1));
SELECT count(*) > 0 AS runs FROM meritum_cache.job_run;
SELECT helper.sqlstate(format('SELECT meritum_bulk_upsert(%L, ''[]'')', helper.p(2))),
       helper.sqlstate(format('SELECT meritum_bulk_upsert(%L, ''[{"metric_key": "claims_paid", "period_start": "2024-03-01", "period_end": "2024-03-31", "value": {}, "provider_id": "%s"}]'')', helper.p(1), helper.p(2)));
SELECT meritum_set_provider(NULL);
RESET ROLE;

DROP EXTENSION meritum_cache;
DROP SCHEMA shop, oracle, helper CASCADE;
DROP ROLE regress_meritum_free, regress_meritum_both, regress_meritum_child, regress_meritum_bound, regress_meritum_stranger, regress_meritum_operator;
