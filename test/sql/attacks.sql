--
-- attacks: code of others must never run with the rights of the extension's
-- owner, nor anything be read or written with rights that the caller lacks
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin
DROP EXTENSION meritum_cache CASCADE;
CREATE ROLE regress_meritum_mallory;
GRANT USAGE ON SCHEMA shop, public, helper, oracle TO regress_meritum_mallory;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO regress_meritum_mallory;

--
-- objects of the same name that come first: in a schema before pg_catalog, and
-- in that of temporary objects.  Each function says when it runs.
--
CREATE SCHEMA trap;
CREATE TABLE trap.victim (who name, what text);
CREATE FUNCTION trap.spring(what text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog SET client_min_messages = warning AS $$
BEGIN
    RAISE WARNING 'trapped in %', what;
    INSERT INTO trap.victim VALUES (current_user, what);
END
$$;
CREATE FUNCTION trap.set_traps(p_schema text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $do$
DECLARE
    r record;
    n integer := 0;
BEGIN
    FOR r IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, p.prorettype::regtype AS result, p.proretset
               FROM pg_proc p
              WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.provariadic = 0
                AND p.prorettype NOT IN (SELECT oid FROM pg_type WHERE typtype = 'p' AND typname NOT IN ('anyelement', 'anyarray'))
                AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) AS t WHERE t IN (SELECT oid FROM pg_type WHERE typtype = 'p' AND typname NOT IN ('anyelement', 'anyarray')))
                AND p.proname IN ('upper', 'lower', 'timezone', 'make_interval', 'clock_timestamp', 'now', 'gen_random_uuid', 'current_setting', 'date_trunc', 'power',
                                  'pg_current_snapshot', 'pg_snapshot_xmin', 'pg_snapshot_xmax', 'has_schema_privilege', 'unnest', 'numeric', 'int8', 'date', 'text', 'jsonb_array_length')
    LOOP
        EXECUTE format('CREATE FUNCTION %I.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS $$BEGIN PERFORM trap.spring(%L); %s END$$',
                       p_schema, r.proname, r.arguments, CASE WHEN r.proretset THEN 'SETOF' ELSE '' END, r.result,
                       r.proname, CASE WHEN r.proretset THEN 'RETURN;' ELSE 'RETURN NULL;' END);
    END LOOP;
    FOR r IN SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result
               FROM pg_operator o
              WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprname IN ('=', '<>', '<', '>', '<=', '>=', '->>', '@>', '-', '+', '*')
                AND o.oprleft IN ('uuid'::regtype, 'date'::regtype, 'text'::regtype, 'int4'::regtype, 'int8'::regtype, 'timestamptz'::regtype, 'jsonb'::regtype, 'oid'::regtype, 'name'::regtype, 'numeric'::regtype, 'interval'::regtype, 'tid'::regtype, 'xid8'::regtype, 'bool'::regtype)
                AND o.oprright IN (o.oprleft, 'text'::regtype, 'interval'::regtype)
    LOOP
        n := n + 1;
        EXECUTE format('CREATE FUNCTION %I.trap%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS $$BEGIN PERFORM trap.spring(%L); RETURN NULL; END$$',
                       p_schema, n, r.l, r.r, r.result, r.oprname);
        EXECUTE format('CREATE OPERATOR %I.%s (FUNCTION = %I.trap%s, LEFTARG = %s, RIGHTARG = %s)', p_schema, r.oprname, p_schema, n, r.l, r.r);
    END LOOP;
END
$do$;
SELECT trap.set_traps('trap');
CREATE TABLE trap.claims (claim_id uuid);
CREATE TABLE trap.metric (metric_key text);
CREATE TABLE trap.pg_class (oid oid);
CREATE TABLE trap.pg_roles (oid oid);
CREATE TYPE trap.uuid AS (a int);
-- they do their work
SELECT set_config('search_path', 'trap, pg_catalog', false) \gset
SELECT lower('X') IS NULL AS trapped;
SET search_path = shop, public;
SELECT count(*) > 0 AS trapped FROM trap.victim;
TRUNCATE trap.victim;
CREATE TEMP TABLE claims (claim_id uuid);
CREATE TEMP TABLE provider_state (provider_id uuid);
CREATE FUNCTION pg_temp.upper(text) RETURNS text LANGUAGE sql AS $$ SELECT trap.spring('temporary upper')::text $$;

\set path 'SET search_path = trap, pg_temp, pg_catalog, shop, public;'
:path
CREATE EXTENSION meritum_cache SCHEMA public;
SET search_path = pg_catalog;
INSERT INTO shop.providers (provider_id) SELECT helper.p(n) FROM generate_series(1, 2) AS n;
INSERT INTO shop.patients (patient_id, phn_province) VALUES (helper.t(1), 'BC');
INSERT INTO shop.practice_locations (location_id, provider_id, functional_centre) VALUES (helper.l(1), helper.p(1), 'FC1');
INSERT INTO shop.claims (claim_id, physician_id, patient_id, state, date_of_service)
SELECT helper.c(n), helper.p(1 + n % 2), helper.t(1), 'PAID', '2024-03-04' FROM generate_series(1, 6) AS n;
INSERT INTO shop.ahcip_claim_details (claim_id, ba_number, functional_centre, assessed_fee) SELECT claim_id, 'BA1', 'FC1', 10 FROM shop.claims;
CREATE ROLE regress_meritum_reader;
ALTER SCHEMA trap OWNER TO regress_meritum_mallory;
SET search_path = trap, pg_temp, pg_catalog, public;
-- tables are taken from the caller's path, temporary ones left out
SELECT meritum_attach('shop.claims', '{}', 'shop.ahcip_claim_details', 'shop.wcb_claim_details', 'shop.wcb_invoice_lines', 'shop.claim_audit_history', 'shop.patients', 'shop.providers',
                      'shop.practice_locations', 'shop.ai_suggestion_events', 'shop.ai_provider_learning', 'shop.ai_rules') \g /dev/null
SELECT meritum_refresh_provider_metrics('a0000000-0000-4000-8000-000000000001', NULL, '2024-05-15') \g /dev/null
SELECT meritum_refresh_provider_metrics('a0000000-0000-4000-8000-000000000002', NULL, '2024-05-15') \g /dev/null
SELECT meritum_get_metrics('a0000000-0000-4000-8000-000000000001', '{claims_paid,top_hsc_codes}', '2024-01-01', '2024-12-31', '{"ba_number": "BA1"}') \g /dev/null
SELECT meritum_compute_metrics('a0000000-0000-4000-8000-000000000001', '{claims_paid}', '2024-01-01', '2024-12-31', '{"ba_number": "BA1"}') \g /dev/null
SELECT meritum_verify('a0000000-0000-4000-8000-000000000001') \g /dev/null
SELECT meritum_verify('a0000000-0000-4000-8000-000000000001', true) \g /dev/null
SELECT meritum_is_stale('a0000000-0000-4000-8000-000000000001') \g /dev/null
SELECT meritum_freshness('a0000000-0000-4000-8000-000000000001') \g /dev/null
SELECT meritum_get_stale_entries('a0000000-0000-4000-8000-000000000001', 0) \g /dev/null
SELECT meritum_request_refresh('a0000000-0000-4000-8000-000000000001') \g /dev/null
SELECT meritum_handle_claim_state_change('a0000000-0000-4000-8000-000000000001', 'AHCIP', 'paid') \g /dev/null
SELECT meritum_upsert_metric('a0000000-0000-4000-8000-000000000001', 'claims_paid', '2023-01-01', '2023-01-31', '{"a": 1}', '{}') \g /dev/null
SELECT meritum_bulk_upsert('a0000000-0000-4000-8000-000000000001', '[{"metric_key": "claims_paid", "period_start": "2023-01-01", "period_end": "2023-01-31", "value": 1}]') \g /dev/null
SELECT meritum_delete_expired_entries('a0000000-0000-4000-8000-000000000001', '2023-05-01') \g /dev/null
SELECT meritum_grant('regress_meritum_reader', 'operator') \g /dev/null
SELECT meritum_schedule('attack', '@daily', 'SELECT 1') \g /dev/null
SELECT meritum_unschedule('attack') \g /dev/null
CALL meritum_cleanup_old_entries() \g /dev/null
-- what is asked as a reader goes through row security
SET ROLE regress_meritum_reader;
SELECT meritum_set_provider('a0000000-0000-4000-8000-000000000001') \g /dev/null
TABLE meritum_cache.analytics_cache \g /dev/null
TABLE meritum_cache.failed_refresh \g /dev/null
TABLE meritum_cache.job_status \g /dev/null
TABLE meritum_cache.stat_provider \g /dev/null
SELECT meritum_set_provider(NULL) \g /dev/null
RESET ROLE;
-- at commit, in both modes; only the statements themselves have another path
BEGIN;
SET LOCAL search_path = shop, pg_catalog;
UPDATE shop.claims SET state = 'REJECTED' WHERE claim_id = helper.c(1);
UPDATE ahcip_claim_details SET assessed_fee = 5 WHERE claim_id = helper.c(2);
UPDATE patients SET phn_province = 'ON';
SET LOCAL search_path = trap, pg_temp, pg_catalog, public;
COMMIT;
BEGIN;
SET LOCAL search_path = shop, pg_catalog;
UPDATE shop.claims SET state = 'QUEUED' WHERE claim_id = helper.c(2);
SET LOCAL meritum_cache.refresh_mode = async;
SET LOCAL search_path = trap, pg_temp, pg_catalog, public;
COMMIT;
SELECT meritum_get_metrics('a0000000-0000-4000-8000-000000000001', '{claims_paid,pending_pipeline}', '2024-01-01', '2024-12-31') \g /dev/null
SELECT meritum_revoke('regress_meritum_reader') \g /dev/null
SELECT meritum_detach() \g /dev/null
SET search_path = shop, public;
SELECT * FROM trap.victim;
DROP TABLE pg_temp.claims, pg_temp.provider_state;
DROP FUNCTION pg_temp.upper(text);
DROP SCHEMA trap CASCADE;

--
-- tables of one who is no superuser, attached by one who is: his functions
-- run, if at all, as himself
--
CREATE SCHEMA lair AUTHORIZATION regress_meritum_mallory;
CREATE FUNCTION lair.hostile(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF current_user <> 'regress_meritum_mallory' THEN
        RAISE WARNING 'mallory acts as another';
    END IF;
    RETURN $1;
END
$$;
ALTER FUNCTION lair.hostile(integer) OWNER TO regress_meritum_mallory;
SET ROLE regress_meritum_mallory;
CREATE TABLE lair.claims (LIKE shop.claims INCLUDING ALL);
CREATE TABLE lair.details (LIKE shop.ahcip_claim_details INCLUDING ALL);
CREATE TABLE lair.patients (LIKE shop.patients INCLUDING ALL);
ALTER TABLE lair.claims ADD hidden integer GENERATED ALWAYS AS (lair.hostile(7)) STORED, ADD CHECK (lair.hostile(8) = 8);
-- a constant in an index is computed when a statement is planned
CREATE INDEX ON lair.claims ((lair.hostile(1)));
CREATE INDEX ON lair.claims (claim_id) WHERE lair.hostile(2) = 2;
CREATE INDEX ON lair.details ((lair.hostile(3)), claim_id);
CREATE STATISTICS lair.hostile ON (lair.hostile(4) + length(state)), claim_type FROM lair.claims;
ALTER TABLE lair.claims ENABLE ROW LEVEL SECURITY;
CREATE POLICY hostile ON lair.claims USING (lair.hostile(5) = 5);
CREATE FUNCTION lair.hostile_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM lair.hostile(6); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER hostile AFTER INSERT OR UPDATE ON lair.claims DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION lair.hostile_trigger();
INSERT INTO lair.claims (claim_id, physician_id, patient_id, state, date_of_service) VALUES (helper.c(1), helper.p(1), helper.t(1), 'PAID', '2024-03-04');
INSERT INTO lair.details (claim_id, assessed_fee) VALUES (helper.c(1), 12);
RESET ROLE;
-- each in a session of its own, since a session computes them once
\c -
SET client_min_messages = warning;
SET search_path = shop, public;
SELECT count(*) FROM meritum_attach('lair.claims', ahcip_claim_details => 'lair.details', patients => 'lair.patients');
\c -
SET client_min_messages = warning;
SET search_path = shop, public;
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') > 0 AS written;
\c -
SET client_min_messages = warning;
SET search_path = shop, public;
SELECT value FROM meritum_compute_metrics(helper.p(1), '{claims_paid}', '2024-03-01', '2024-03-31');
\c -
SET client_min_messages = warning;
SET search_path = shop, public;
SELECT count(*) FROM meritum_verify(helper.p(1), true);
\c -
SET client_min_messages = warning;
SET search_path = shop, public;
SET ROLE regress_meritum_mallory;
UPDATE lair.claims SET state = 'REJECTED';
RESET ROLE;
\c -
SET client_min_messages = warning;
SET search_path = shop, public;
SELECT value FROM meritum_get_metrics(helper.p(1), '{claims_rejected}', '2024-03-01', '2024-03-31') WHERE dimensions IS NULL;
\c -
SET client_min_messages = warning;
SET search_path = shop, public;
-- the trap is one: planned as a superuser's, a statement springs it
SELECT count(*) FROM lair.details WHERE claim_id = helper.c(9);

-- a table that turns into a view, where the server lets it
SET ROLE regress_meritum_mallory;
CREATE FUNCTION lair.row() RETURNS SETOF lair.details LANGUAGE plpgsql AS $$ BEGIN PERFORM lair.hostile(9); END $$;
DO $$
BEGIN
    DROP TRIGGER meritum_cache_row ON lair.details;
    DROP TRIGGER meritum_cache_truncate ON lair.details;
    DELETE FROM lair.details;
    CREATE RULE "_RETURN" AS ON SELECT TO lair.details DO INSTEAD SELECT * FROM lair.row();
EXCEPTION WHEN OTHERS THEN
    NULL;
END
$$;
RESET ROLE;
SELECT helper.sqlstate(format('SELECT meritum_refresh_provider_metrics(%L, NULL, ''2024-05-15'')', helper.p(1))) <> '42501' AS went_on;
-- dropped, and a view in its place
SET ROLE regress_meritum_mallory;
DROP TABLE IF EXISTS lair.patients CASCADE;
CREATE VIEW lair.patients AS SELECT helper.t(lair.hostile(1)) AS patient_id, 'BC'::text AS phn_province;
RESET ROLE;
SELECT helper.sqlstate(format('SELECT meritum_refresh_provider_metrics(%L, NULL, ''2024-05-15'')', helper.p(1))) <> '42501' AS went_on;
SELECT count(*) > 0 AS detached FROM meritum_detach();

-- a type with a cast of his own, which the server would find
SET ROLE regress_meritum_mallory;
CREATE TYPE lair.disguise AS (a text);
CREATE FUNCTION lair.unmask(lair.disguise) RETURNS uuid LANGUAGE plpgsql AS $$ BEGIN PERFORM lair.hostile(1); RETURN helper.p(1); END $$;
CREATE CAST (lair.disguise AS uuid) WITH FUNCTION lair.unmask(lair.disguise) AS IMPLICIT;
CREATE TABLE lair.disguised (LIKE shop.claims INCLUDING ALL);
ALTER TABLE lair.disguised DROP physician_id, ADD physician_id lair.disguise;
RESET ROLE;
SELECT helper.fault('SELECT meritum_attach(''lair.disguised'')');
-- nor one that is read as another thing than it is
CREATE TABLE lair.names AS SELECT * FROM shop.claims;
ALTER TABLE lair.names ALTER state TYPE name;
SELECT helper.sqlstate('SELECT meritum_attach(''lair.names'')');
-- a column that changes its type once it is attached stops being noted
CREATE TABLE lair.changing (LIKE shop.claims INCLUDING ALL);
SELECT count(*) FROM meritum_attach('lair.changing');
ALTER TABLE lair.changing ALTER physician_id TYPE text, ALTER state DROP DEFAULT, ALTER state TYPE "char" USING 'x', ALTER claim_type TYPE name;
INSERT INTO lair.changing (physician_id, date_of_service, state, claim_type) VALUES ('x', '2024-03-04', 'p', 'AHCIP');
SELECT helper.sqlstate(format('SELECT meritum_refresh_provider_metrics(%L, NULL, ''2024-05-15'')', helper.p(1))) <> 'none' AS refused;
SELECT count(*) > 0 AS detached FROM meritum_detach();
-- padded text is text
CREATE TABLE lair.padded (LIKE shop.claims INCLUDING ALL);
ALTER TABLE lair.padded ALTER state TYPE char(12), ALTER claim_type TYPE char(9);
CREATE TABLE lair.history (LIKE shop.claim_audit_history INCLUDING ALL);
ALTER TABLE lair.history ALTER new_state TYPE char(20);
SELECT count(*) FROM meritum_attach('lair.padded', claim_audit_history => 'lair.history');
INSERT INTO lair.padded (claim_id, physician_id, date_of_service, state, claim_type) VALUES (helper.c(1), helper.p(1), '2024-03-04', 'PAID', 'AHCIP');
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') > 0 AS written;
INSERT INTO lair.history (claim_id, new_state) VALUES (helper.c(1), 'REJECTED');
SELECT count(*) FROM meritum_verify(helper.p(1));
SELECT count(*) > 0 AS detached FROM meritum_detach();

-- claims without a key: one that is there twice is an error, of the refresh alone
CREATE TABLE lair.doubled AS SELECT * FROM shop.claims WITH NO DATA;
SELECT count(*) FROM meritum_attach('lair.doubled');
INSERT INTO lair.doubled (claim_id, physician_id, date_of_service, state) VALUES (helper.c(1), helper.p(1), '2024-03-04', 'PAID');
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') > 0 AS written;
SET client_min_messages = error;
INSERT INTO lair.doubled (claim_id, physician_id, date_of_service, state) VALUES (helper.c(1), helper.p(1), '2024-03-04', 'DRAFT');
INSERT INTO lair.doubled (claim_id, physician_id, date_of_service, state) VALUES (helper.c(2), helper.p(2), '2024-03-04', 'DRAFT'), (helper.c(2), helper.p(2), '2024-04-04', 'DRAFT');
SET client_min_messages = warning;
SELECT provider_id, sqlstate FROM meritum_cache.pending_refresh ORDER BY 1;
SELECT helper.fault(format('SELECT meritum_refresh_provider_metrics(%L, NULL, ''2024-05-15'')', helper.p(1)));
SELECT helper.sqlstate(format('SELECT meritum_refresh_provider_metrics(%L, NULL, ''2024-05-15'')', helper.p(2))),
       helper.sqlstate(format('SELECT meritum_verify(%L)', helper.p(1)));
DELETE FROM lair.doubled WHERE state = 'DRAFT';
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') > 0 AS written;
SELECT count(*) FROM meritum_verify(helper.p(1));
SELECT count(*) > 0 AS detached FROM meritum_detach();

--
-- row security on claims: figures count all rows or there are none, whoever
-- writes and whatever the session's row_security says
--
CREATE ROLE regress_meritum_writer;
GRANT USAGE ON SCHEMA lair, helper TO regress_meritum_writer;
CREATE TABLE lair.secured (LIKE shop.claims INCLUDING ALL);
ALTER TABLE lair.secured OWNER TO regress_meritum_mallory;
GRANT SELECT, INSERT, UPDATE ON lair.secured TO regress_meritum_writer;
ALTER TABLE lair.secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON lair.secured USING (notes = current_setting('app.owner', true));
SET ROLE regress_meritum_mallory;
INSERT INTO lair.secured (claim_id, physician_id, state, date_of_service, notes) SELECT helper.c(n), helper.p(1), 'PAID', '2024-03-04', 'owner ' || n % 2 FROM generate_series(1, 6) AS n;
RESET ROLE;
SELECT count(*) FROM meritum_attach('lair.secured');
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') > 0 AS written;
CREATE VIEW helper.paid AS
SELECT value, (SELECT count(*) FROM meritum_cache.pending_refresh) AS pending FROM meritum_cache.analytics_cache
 WHERE metric_key = 'claims_paid' AND period_start = '2024-03-01' AND dimensions IS NULL;
SELECT * FROM helper.paid;
SET ROLE regress_meritum_writer;
SET app.owner = 'owner 1';
SELECT count(*) FROM lair.secured;
UPDATE lair.secured SET state = 'REJECTED' WHERE claim_id = helper.c(1);
UPDATE lair.secured SET state = 'REJECTED' WHERE claim_id = helper.c(2);
INSERT INTO lair.secured (claim_id, physician_id, state, date_of_service, notes) VALUES (helper.c(7), helper.p(1), 'PAID', '2024-03-04', 'owner 1');
RESET ROLE;
SELECT * FROM helper.paid;
-- forced: its owner would see a part, and that must never become a figure
ALTER TABLE lair.secured FORCE ROW LEVEL SECURITY;
SET client_min_messages = error;
UPDATE lair.secured SET state = 'DRAFT' WHERE claim_id = helper.c(3);
SET client_min_messages = warning;
SELECT * FROM helper.paid;
SELECT sqlstate FROM meritum_cache.pending_refresh;
SET row_security = off;
SELECT helper.sqlstate(format('SELECT meritum_refresh_provider_metrics(%L, NULL, ''2024-05-15'')', helper.p(1)));
SET row_security = on;
SELECT helper.sqlstate(format('SELECT meritum_refresh_provider_metrics(%L, NULL, ''2024-05-15'')', helper.p(1)));
SELECT helper.sqlstate(format('SELECT meritum_compute_metrics(%L, ''{claims_paid}'', ''2024-03-01'', ''2024-03-31'')', helper.p(1))) IN ('none', '42501') AS whole_or_nothing;
ALTER TABLE lair.secured NO FORCE ROW LEVEL SECURITY;
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') > 0 AS written;
SELECT * FROM helper.paid;
SELECT count(*) FROM meritum_verify(helper.p(1));
SELECT count(*) > 0 AS detached FROM meritum_detach();
ALTER TABLE lair.secured FORCE ROW LEVEL SECURITY;
SELECT helper.sqlstate('SELECT meritum_attach(''lair.secured'')');
DROP TABLE lair.secured;

--
-- identifiers that are more than names
--
CREATE SCHEMA "x'); DROP TABLE shop.claims; --";
\set odd '"x\'); DROP TABLE shop.claims; --"'
CREATE TABLE :odd."Claims ""of"" 50%s $1" (LIKE shop.claims INCLUDING ALL);
CREATE TABLE :odd."Details. -- /*" (LIKE shop.ahcip_claim_details INCLUDING ALL);
ALTER TABLE :odd."Claims ""of"" 50%s $1" RENAME state TO "state"" = 'PAID' --";
ALTER TABLE :odd."Claims ""of"" 50%s $1" RENAME physician_id TO "select";
ALTER TABLE :odd."Details. -- /*" RENAME assessed_fee TO "a.fee%n";
SELECT source, action
  FROM meritum_attach(format('%I.%I', 'x''); DROP TABLE shop.claims; --', 'Claims "of" 50%s $1')::regclass,
                      '{"claims": {"state": "state\" = ''PAID'' --", "physician_id": "select"}, "ahcip_claim_details": {"assessed_fee": "a.fee%n"}}',
                      format('%I.%I', 'x''); DROP TABLE shop.claims; --', 'Details. -- /*')::regclass)
 WHERE action = 'attached' AND source IN ('claims', 'ahcip_claim_details');
INSERT INTO :odd."Claims ""of"" 50%s $1" (claim_id, "select", "state"" = 'PAID' --", date_of_service) VALUES (helper.c(1), helper.p(1), 'PAID', '2024-03-04'), (helper.c(2), helper.p(1), 'DRAFT', '2024-03-04');
INSERT INTO :odd."Details. -- /*" (claim_id, "a.fee%n") VALUES (helper.c(1), 4.5), (helper.c(2), 3);
SELECT metric_key, value FROM meritum_compute_metrics(helper.p(1), '{revenue_monthly,claims_paid}', '2024-03-01', '2024-03-31') ORDER BY 1;
SELECT count(*) FROM meritum_verify(helper.p(1));
SELECT meritum_schedule('''; DROP TABLE shop.claims; -- %s', '@daily', 'SELECT 1');
SELECT name FROM meritum_cache.job WHERE name LIKE '''%';
SELECT meritum_unschedule('''; DROP TABLE shop.claims; -- %s');
SELECT helper.fault($$SELECT meritum_run_job('"; %s')$$);
SELECT helper.fault(format('SELECT meritum_get_metrics(%L, ARRAY[%L], ''2024-01-01'', ''2024-01-31'')', helper.p(1), 'a''%s"'));
CREATE ROLE "regress_meritum x; DROP ""y""";
SELECT meritum_grant('"regress_meritum x; DROP ""y"""', 'admin');
SELECT meritum_revoke('"regress_meritum x; DROP ""y"""');
SET meritum_cache.notify_channel = 'a"; DROP TABLE shop.claims; --';
UPDATE :odd."Claims ""of"" 50%s $1" SET "state"" = 'PAID' --" = 'PAID';
RESET meritum_cache.notify_channel;
SELECT count(*) FROM meritum_verify(helper.p(1));
SELECT count(*) > 0 AS detached FROM meritum_detach();
SELECT count(*) FROM shop.claims;

-- the functions of triggers are nobody's to use on tables of his own
SET ROLE regress_meritum_mallory;
CREATE TABLE lair.own (id uuid);
SELECT helper.sqlstate('CREATE TRIGGER t AFTER INSERT ON lair.own FOR EACH ROW EXECUTE FUNCTION meritum_cache.note_change(''claims'')'),
       helper.sqlstate('CREATE TRIGGER t AFTER INSERT ON lair.own FOR EACH STATEMENT EXECUTE FUNCTION meritum_cache.configuration_changed()');
RESET ROLE;
-- nor do they do harm where they do not belong
CREATE TABLE lair.other (claim_id uuid, state text);
CREATE TRIGGER a AFTER INSERT ON lair.other FOR EACH ROW EXECUTE FUNCTION meritum_cache.note_change('claims');
CREATE TRIGGER b AFTER INSERT ON lair.other FOR EACH ROW EXECUTE FUNCTION meritum_cache.note_change('no such source');
SELECT helper.sqlstate('INSERT INTO lair.other VALUES (NULL, NULL)');
DROP TRIGGER b ON lair.other;
SELECT helper.sqlstate('INSERT INTO lair.other VALUES (NULL, NULL)');

DROP EXTENSION meritum_cache CASCADE;
DROP SCHEMA shop, oracle, helper, lair, :odd CASCADE;
REVOKE ALL ON SCHEMA public FROM regress_meritum_mallory;
DROP ROLE regress_meritum_mallory, regress_meritum_writer, regress_meritum_reader, "regress_meritum x; DROP ""y""";
