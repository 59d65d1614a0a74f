--
-- creating and dropping the extension
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set platform :abs_srcdir '/support/platform.sql'
SET client_min_messages = warning;
CREATE SCHEMA shop;
SET search_path = shop, public;
\set ECHO none
\i :platform
\set ECHO all

-- what the database consists of, by names that outlive a drop
CREATE VIEW public.inventory AS
SELECT 'relation' AS kind, c.oid::regclass::text || ' ' || c.relkind::text AS name FROM pg_class c
 WHERE c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND c.relnamespace::regnamespace::text NOT LIKE 'pg\_t%'
UNION ALL
SELECT 'function', p.oid::regprocedure::text FROM pg_proc p
UNION ALL
SELECT 'trigger', tgrelid::regclass || ' ' || tgname FROM pg_trigger
UNION ALL
SELECT 'type', t.oid::regtype::text FROM pg_type t WHERE t.typnamespace::regnamespace::text NOT LIKE 'pg\_t%'
UNION ALL
SELECT 'constraint', conrelid::regclass || ' ' || conname FROM pg_constraint
UNION ALL
SELECT 'schema', nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\_t%'
UNION ALL
SELECT 'event trigger', evtname FROM pg_event_trigger
UNION ALL
SELECT 'operator', o.oid::regoperator::text FROM pg_operator o
UNION ALL
SELECT 'cast', castsource::regtype || ' ' || casttarget::regtype FROM pg_cast
UNION ALL
SELECT 'extension', extname FROM pg_extension
UNION ALL
SELECT 'column of shop', attrelid::regclass || ' ' || attname || ' ' || atttypid::regtype || ' ' || attisdropped
  FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE c.relnamespace = 'shop'::regnamespace AND attnum > 0
UNION ALL
SELECT 'privileges', c.oid::regclass || ' ' || relacl::text FROM pg_class c WHERE relacl IS NOT NULL
UNION ALL
SELECT 'reloptions', c.oid::regclass || ' ' || reloptions::text FROM pg_class c WHERE reloptions IS NOT NULL;
CREATE TABLE public.before AS SELECT * FROM public.inventory WITH NO DATA;
CREATE VIEW public.difference AS
(SELECT 'gone', * FROM public.before EXCEPT ALL SELECT 'gone', * FROM public.inventory)
UNION ALL
(SELECT 'new', * FROM public.inventory EXCEPT ALL SELECT 'new', * FROM public.before);
INSERT INTO public.before SELECT * FROM public.inventory;
SELECT count(*) AS depends FROM pg_depend \gset
SELECT count(*) AS shdepends FROM pg_shdepend WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \gset
SELECT count(*) AS descriptions FROM pg_description \gset

--
-- create: functions into the first schema of the search path, tables into
-- meritum_cache
--
CREATE EXTENSION meritum_cache;
SELECT extversion = '1.0' OR extversion > '1.0' AS version FROM pg_extension WHERE extname = 'meritum_cache';
SELECT DISTINCT pronamespace::regnamespace FROM pg_proc WHERE proname LIKE 'meritum\_%';
SELECT meritum_is_stale('a0000000-0000-4000-8000-000000000001');
-- the cache table, column by column
SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid) AS "default"
  FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE attrelid = 'meritum_cache.analytics_cache'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum;
SELECT contype, pg_get_constraintdef(oid) FROM pg_constraint
 WHERE conrelid = 'meritum_cache.analytics_cache'::regclass AND contype IN ('p', 'u', 'c') ORDER BY 1;
-- the metrics, and the two jobs
SELECT grain, count(*), count(*) FILTER (WHERE breakdown) AS breakdown, count(*) FILTER (WHERE length(description) > 0) AS described
  FROM meritum_cache.metric GROUP BY 1 ORDER BY 1;
SELECT metric_key FROM meritum_cache.metric WHERE breakdown ORDER BY 1;
SELECT name, schedule, enabled, owner = current_user::regrole AS owner FROM meritum_cache.job ORDER BY 1;
-- no table of the application has been touched
SELECT * FROM public.difference WHERE name NOT LIKE '%meritum%' AND kind <> 'privileges';
SELECT count(*) FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'shop'::regnamespace;

-- nothing is granted to PUBLIC, neither schema, table, column nor function
SELECT classid::regclass, objid FROM pg_depend d
 WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'meritum_cache') AND d.deptype = 'e'
   AND (EXISTS (SELECT FROM pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
                 WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid AND a.grantee = 0)
     OR EXISTS (SELECT FROM pg_class c, aclexplode(coalesce(relacl, acldefault('r', relowner))) a
                 WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND a.grantee = 0)
     OR EXISTS (SELECT FROM pg_attribute t, aclexplode(attacl) a
                 WHERE d.classid = 'pg_class'::regclass AND t.attrelid = d.objid AND a.grantee = 0)
     OR EXISTS (SELECT FROM pg_namespace n, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a
                 WHERE d.classid = 'pg_namespace'::regclass AND n.oid = d.objid AND a.grantee = 0));
SELECT pg_describe_object(classid, objid, 0) FROM pg_depend d
 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'meritum_cache')
   AND classid = 'pg_namespace'::regclass;
-- every function, table and view is described
SELECT pg_describe_object(classid, objid, 0) FROM pg_depend d
 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'meritum_cache')
   AND classid IN ('pg_proc'::regclass, 'pg_namespace'::regclass) AND obj_description(objid, classid::regclass::text) IS NULL
UNION ALL
SELECT c.oid::regclass::text FROM pg_class c
 WHERE relnamespace = 'meritum_cache'::regnamespace AND relkind IN ('r', 'v', 'm', 'p') AND obj_description(oid, 'pg_class') IS NULL;
-- no security-definer function without a fixed search path, none in SQL
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
 WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'meritum_cache')
   AND p.prosecdef AND NOT coalesce(p.proconfig::text ~ 'search_path', false);
-- each setting is described
SELECT name FROM pg_settings WHERE name LIKE 'meritum\_cache.%' AND coalesce(short_desc, '') = '';
-- those of the contract are there, with the defaults that it says
SELECT c.*, s.context AS has_context, s.boot_val AS has_default
  FROM (VALUES ('refresh_mode', 'user', 'commit'), ('on_error', 'user', 'warn'), ('commit_limit', 'user', '1000'), ('stale_after', 'user', '60'),
               ('dimensions', 'sighup', 'claim_type, ba_number, location_id'), ('timezone', 'sighup', ''), ('retention_months', 'sighup', '24'),
               ('batch_size', 'sighup', '10'), ('batch_workers', 'sighup', '1'), ('batch_delay', 'sighup', '0'), ('databases', 'postmaster', 'postgres'),
               ('worker_role', 'sighup', ''), ('max_parallel_jobs', 'sighup', '2'), ('job_run_retention', 'sighup', '30'),
               ('log_min_duration', 'superuser', '-1'), ('log_invalidations', 'superuser', 'off'), ('notify_channel', 'user', '')) AS c (name, context, "default")
       LEFT JOIN pg_settings s ON s.name = 'meritum_cache.' || c.name
 WHERE (s.context, s.boot_val) IS DISTINCT FROM (c.context, c."default")
   AND (c.name <> 'databases' OR current_setting('shared_preload_libraries') LIKE '%meritum_cache%');
-- a name that does not exist is refused
SET meritum_cache.no_such_setting = 1;
-- so is a list with a quote too few, before the server starts with it
ALTER SYSTEM SET meritum_cache.databases = 'billing, "Clinic';
ALTER SYSTEM SET meritum_cache.dimensions = 'claim_type, hsc_code';

--
-- drop: nothing is left, also after the tables were attached and filled
--
DROP EXTENSION meritum_cache;
SELECT * FROM public.difference;
SELECT count(*) - :depends AS more_depends FROM pg_depend;

CREATE EXTENSION meritum_cache;
INSERT INTO providers (provider_id) VALUES ('a0000000-0000-4000-8000-000000000001');
INSERT INTO claims (physician_id, state, date_of_service) VALUES ('a0000000-0000-4000-8000-000000000001', 'PAID', '2024-03-04');
SELECT count(*) FROM meritum_attach();
SELECT count(*) > 0 AS triggers FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'shop'::regnamespace;
SELECT meritum_refresh_provider_metrics('a0000000-0000-4000-8000-000000000001') > 0 AS written;
INSERT INTO claims (physician_id, state, date_of_service) VALUES ('a0000000-0000-4000-8000-000000000001', 'PAID', '2024-03-04');
DROP EXTENSION meritum_cache;
SELECT * FROM public.difference;
SELECT count(*) - :depends AS more_depends FROM pg_depend;
SELECT count(*) - :shdepends AS more_shdepends FROM pg_shdepend WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database());
SELECT count(*) - :descriptions AS more_descriptions FROM pg_description;
-- the application goes on in the same session
INSERT INTO claims (physician_id, state, date_of_service) VALUES ('a0000000-0000-4000-8000-000000000001', 'PAID', '2024-03-04');
UPDATE claims SET state = 'DRAFT';
DELETE FROM claims;
TRUNCATE claims;

-- dropped in the transaction that changed a claim, and rolled back
CREATE EXTENSION meritum_cache;
SELECT count(*) FROM meritum_attach();
BEGIN;
INSERT INTO claims (physician_id, state, date_of_service) VALUES ('a0000000-0000-4000-8000-000000000001', 'PAID', '2024-03-04');
DROP EXTENSION meritum_cache;
COMMIT;
SELECT * FROM public.difference;
CREATE EXTENSION meritum_cache;
SELECT count(*) FROM meritum_attach();
SELECT meritum_refresh_provider_metrics('a0000000-0000-4000-8000-000000000001', NULL, '2024-05-05') > 0 AS written;
BEGIN;
INSERT INTO claims (physician_id, state, date_of_service) VALUES ('a0000000-0000-4000-8000-000000000001', 'PAID', '2024-03-04');
DROP EXTENSION meritum_cache;
ROLLBACK;
INSERT INTO claims (physician_id, state, date_of_service) VALUES ('a0000000-0000-4000-8000-000000000001', 'PAID', '2024-03-04');
SELECT value FROM meritum_cache.analytics_cache WHERE metric_key = 'claims_paid' AND period_start = '2024-03-01' AND dimensions IS NULL;
DROP EXTENSION meritum_cache;

--
-- a schema of the caller's choice
--
CREATE SCHEMA tools;
CREATE EXTENSION meritum_cache SCHEMA tools;
SELECT DISTINCT pronamespace::regnamespace FROM pg_proc WHERE proname LIKE 'meritum\_%';
\set VERBOSITY terse
SELECT meritum_is_stale('a0000000-0000-4000-8000-000000000001');
\set VERBOSITY default
SELECT tools.meritum_is_stale('a0000000-0000-4000-8000-000000000001');
-- the jobs name it
SELECT name, command FROM meritum_cache.job ORDER BY 1;
SELECT count(*) FROM tools.meritum_attach();
SELECT tools.meritum_refresh_provider_metrics('a0000000-0000-4000-8000-000000000001', NULL, '2024-05-05') > 0 AS written;
-- writers need it not on their path, nor any other
SET search_path = pg_catalog;
UPDATE shop.claims SET state = 'REJECTED';
SELECT value FROM meritum_cache.analytics_cache WHERE metric_key = 'claims_rejected' AND period_start = '2024-03-01' AND dimensions IS NULL;
SET search_path = shop, public;
-- it cannot be had twice, nor moved
CREATE EXTENSION meritum_cache;
ALTER EXTENSION meritum_cache SET SCHEMA public;
DROP EXTENSION meritum_cache;
DROP SCHEMA tools;
DELETE FROM claims;
SELECT * FROM public.difference;

-- who may: a superuser
CREATE ROLE regress_meritum_plain;
GRANT ALL ON SCHEMA public TO regress_meritum_plain;
SET ROLE regress_meritum_plain;
SET search_path = public;
\set VERBOSITY sqlstate
CREATE EXTENSION meritum_cache;
\set VERBOSITY default
RESET ROLE;
DROP OWNED BY regress_meritum_plain;
DROP ROLE regress_meritum_plain;

DROP VIEW public.difference;
DROP VIEW public.inventory;
DROP TABLE public.before;
DROP SCHEMA shop CASCADE;
