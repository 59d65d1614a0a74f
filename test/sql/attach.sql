--
-- attaching the application's tables
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin

INSERT INTO providers (provider_id) VALUES (helper.p(1));
INSERT INTO practice_locations (location_id, provider_id, functional_centre) VALUES (helper.l(1), helper.p(1), 'FC1');
INSERT INTO patients (patient_id, phn_province) VALUES (helper.t(1), 'BC');
INSERT INTO claims (claim_id, physician_id, patient_id, state, date_of_service)
SELECT helper.c(n), helper.p(1), helper.t(1), (ARRAY['PAID', 'REJECTED', 'QUEUED'])[1 + n % 3], '2024-03-01'::date + n FROM generate_series(1, 9) AS n;
INSERT INTO ahcip_claim_details (claim_id, ba_number, functional_centre, assessed_fee) SELECT claim_id, 'BA1', 'FC1', 10 FROM claims;

CREATE VIEW triggers AS
SELECT tgrelid::regclass AS relation, count(*) > 0 AS triggers FROM pg_trigger
 WHERE NOT tgisinternal AND tgparentid = 0 AND tgfoid::regprocedure::text LIKE 'meritum%'
   AND tgrelid NOT IN (SELECT oid FROM pg_class WHERE relnamespace = 'meritum_cache'::regnamespace)
 GROUP BY 1;
-- a year of figures
CREATE FUNCTION trial() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15');
END
$$;

--
-- the usual names on the search path
--
SELECT source, relation FROM meritum_attach() ORDER BY source COLLATE "C";
SELECT source, relation FROM meritum_cache.source_table ORDER BY source COLLATE "C";
SELECT * FROM triggers ORDER BY relation::text COLLATE "C";
SELECT trial();
SELECT * FROM helper.wrong();
-- again: harmless
SELECT count(*) AS n FROM pg_trigger WHERE tgrelid::regclass::text !~ 'meritum_cache' \gset
SELECT helper.watch();
SELECT count(*) FROM meritum_attach();
SELECT count(*) = :n AS as_many_triggers FROM pg_trigger WHERE tgrelid::regclass::text !~ 'meritum_cache';
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(1);
SELECT * FROM helper.wrong();
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') > 0 AS written;
SELECT * FROM helper.wrong();

-- detach: says what it removed, and leaves nothing
SELECT source, relation FROM meritum_detach() ORDER BY source COLLATE "C";
SELECT * FROM triggers;
SELECT count(*) FROM meritum_cache.source_table;
SELECT count(*) FROM meritum_detach();
UPDATE claims SET state = 'DRAFT' WHERE claim_id = helper.c(1);
SELECT helper.sqlstate(format('SELECT meritum_refresh_provider_metrics(%L)', helper.p(1)));

--
-- the claims alone; others as they appear
--
ALTER TABLE ahcip_claim_details RENAME TO later;
ALTER TABLE patients RENAME TO later_patients;
SELECT source, relation FROM meritum_attach() WHERE source IN ('claims', 'ahcip_claim_details', 'patients', 'wcb_claim_details') ORDER BY source COLLATE "C";
SELECT trial();
SELECT * FROM helper.wrong(p_tables => array_remove(array_remove(oracle.all_tables(), 'ahcip_claim_details'), 'patients'));
SELECT value FROM meritum_cache.analytics_cache WHERE metric_key = 'reciprocal_claims' AND period_start = '2024-03-01';
ALTER TABLE later RENAME TO ahcip_claim_details;
SELECT source, relation FROM meritum_attach() WHERE source IN ('claims', 'ahcip_claim_details', 'patients') ORDER BY source COLLATE "C";
SELECT trial();
SELECT * FROM helper.wrong(p_tables => array_remove(oracle.all_tables(), 'patients'));
-- under another name
SELECT source, relation FROM meritum_attach(patients => 'later_patients') WHERE source IN ('claims', 'patients') ORDER BY source COLLATE "C";
ALTER TABLE later_patients RENAME TO patients;
SELECT trial();
SELECT * FROM helper.wrong();
UPDATE patients SET phn_province = 'AB';
SELECT * FROM helper.wrong();
SELECT count(*) > 0 AS detached FROM meritum_detach();

--
-- renamed columns
--
ALTER TABLE claims RENAME physician_id TO doctor_id;
ALTER TABLE claims RENAME state TO "claim State";
ALTER TABLE ahcip_claim_details RENAME assessed_fee TO "order";
SELECT helper.fault('SELECT meritum_attach()');
SELECT source, relation FROM meritum_attach(columns => '{"claims": {"physician_id": "doctor_id", "state": "claim State"}, "ahcip_claim_details": {"assessed_fee": "order"}}')
 WHERE source IN ('claims', 'ahcip_claim_details') ORDER BY source COLLATE "C";
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') > 0 AS written;
UPDATE claims SET "claim State" = 'PAID' WHERE claim_id = helper.c(2);
UPDATE ahcip_claim_details SET "order" = 12.5 WHERE claim_id = helper.c(2);
-- paid are 2, 3, 6 and 9
SELECT metric_key, value FROM meritum_cache.analytics_cache
 WHERE metric_key IN ('claims_paid', 'revenue_monthly') AND period_start = '2024-03-01' AND dimensions IS NULL ORDER BY 1;
-- names that do not exist
SELECT helper.sqlstate($$SELECT meritum_attach(columns => '{"claims": {"physician_id": "nobody"}}')$$) AS no_such_column,
       helper.sqlstate($$SELECT meritum_attach(columns => '{"claims": {"no_such_thing": "doctor_id"}}')$$) AS not_read,
       helper.sqlstate($$SELECT meritum_attach(columns => '{"invoices": {"physician_id": "doctor_id"}}')$$) AS not_a_source,
       helper.sqlstate($$SELECT meritum_attach(columns => '[]')$$) AS no_object,
       helper.sqlstate($$SELECT meritum_attach(columns => '{"claims": "doctor_id"}')$$) AS no_map;
-- a renamed column afterwards: attach again
SELECT count(*) > 0 AS detached FROM meritum_detach();
ALTER TABLE claims RENAME doctor_id TO physician_id;
ALTER TABLE claims RENAME "claim State" TO state;
ALTER TABLE ahcip_claim_details RENAME "order" TO assessed_fee;

--
-- other types that mean the same; columns dropped before and in between
--
ALTER TABLE claims ALTER claim_type TYPE text, ALTER state TYPE text, ALTER updated_at TYPE timestamp USING '2024-04-04 12:00', ALTER created_at TYPE timestamp USING '2024-04-04 12:00',
    ALTER state DROP DEFAULT, DROP is_clean, DROP notes, ADD extra integer;
ALTER TABLE ahcip_claim_details ALTER assessed_fee TYPE numeric, ALTER submitted_fee TYPE integer, ALTER time_spent TYPE integer, ALTER ba_number TYPE text, DROP modifier_1;
ALTER TABLE practice_locations ALTER name TYPE text, ALTER rrnp_rate TYPE numeric;
SELECT count(*) FROM meritum_attach();
SELECT trial();
SELECT * FROM helper.wrong();
UPDATE ahcip_claim_details SET assessed_fee = 7.77, time_spent = 40000, submitted_fee = 3 WHERE claim_id = helper.c(3);
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(6);
SELECT * FROM helper.wrong();
-- after attaching: columns come and go, rows are rewritten
ALTER TABLE claims DROP priority, ADD another text DEFAULT 'x', ALTER claim_type TYPE varchar(20);
ALTER TABLE ahcip_claim_details ALTER assessed_fee TYPE numeric(12,4);
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(6);
UPDATE ahcip_claim_details SET assessed_fee = 8.88 WHERE claim_id = helper.c(3);
SELECT * FROM helper.wrong();
VACUUM FULL claims;
CLUSTER ahcip_claim_details USING ahcip_claim_details_pkey;
UPDATE claims SET state = 'QUEUED' WHERE claim_id = helper.c(6);
SELECT * FROM helper.wrong();
-- a renamed or moved table stays attached
ALTER TABLE claims RENAME TO bills;
CREATE SCHEMA annex;
ALTER TABLE bills SET SCHEMA annex;
UPDATE annex.bills SET state = 'PAID' WHERE claim_id = helper.c(6);
ALTER TABLE annex.bills SET SCHEMA shop;
ALTER TABLE bills RENAME TO claims;
SELECT * FROM helper.wrong();
-- a trigger that was lost: attaching again makes up for what it has missed
DROP TRIGGER meritum_cache_row ON ahcip_claim_details;
UPDATE ahcip_claim_details SET assessed_fee = 3.33 WHERE claim_id = helper.c(6);
SELECT count(*) > 0 AS wrong FROM helper.wrong();
SELECT source, action FROM meritum_attach() WHERE source IN ('claims', 'ahcip_claim_details') ORDER BY 1;
SELECT * FROM helper.wrong();
-- a column that is renamed, or gets a type that does not fit: told once
ALTER TABLE ahcip_claim_details RENAME assessed_fee TO fee;
UPDATE ahcip_claim_details SET fee = 9.99 WHERE claim_id IN (helper.c(3), helper.c(6));
ALTER TABLE ahcip_claim_details RENAME fee TO assessed_fee;
ALTER TABLE ahcip_claim_details ALTER assessed_fee TYPE text;
UPDATE ahcip_claim_details SET assessed_fee = '9.98' WHERE claim_id IN (helper.c(3), helper.c(6));
ALTER TABLE ahcip_claim_details ALTER assessed_fee TYPE numeric(12,4) USING assessed_fee::numeric;
SELECT count(*) > 0 AS detached FROM meritum_detach();

--
-- what is missing is told all at once; wrong types
--
CREATE TABLE bad_claims (claim_id uuid PRIMARY KEY, physician_id uuid, state text, date_of_service date);
CREATE TABLE bad_details (claim_id uuid, ba_number text);
SELECT helper.fault('SELECT meritum_attach(''bad_claims'', ahcip_claim_details => ''bad_details'')') AS fault \gset
SELECT left(:'fault', 5) AS sqlstate;
SELECT c AS missing FROM unnest('{patient_id,claim_type,submission_deadline,validation_result,created_at,updated_at,deleted_at,functional_centre,health_service_code,shadow_billing_flag,time_spent,submitted_fee,assessed_fee,assessment_explanatory_codes}'::text[]) AS c
 WHERE strpos(:'fault', c) = 0;
SELECT * FROM triggers;
SELECT count(*) FROM meritum_cache.source_table;
CREATE TABLE odd_claims (LIKE claims INCLUDING ALL);
ALTER TABLE odd_claims ALTER date_of_service TYPE text, ALTER physician_id TYPE text;
SELECT helper.fault('SELECT meritum_attach(''odd_claims'')') AS fault \gset
SELECT left(:'fault', 5) AS sqlstate, strpos(:'fault', 'date_of_service') > 0 AND strpos(:'fault', 'physician_id') > 0 AS both_named;

--
-- only tables
--
CREATE VIEW claims_view AS SELECT * FROM claims;
CREATE MATERIALIZED VIEW claims_matview AS SELECT * FROM claims;
CREATE TEMP TABLE claims_temp (LIKE claims INCLUDING ALL);
CREATE SEQUENCE claims_seq;
SELECT left(helper.fault('SELECT meritum_attach(''claims_view'')'), 5) AS view,
       left(helper.fault('SELECT meritum_attach(''claims_matview'')'), 5) AS matview,
       left(helper.fault('SELECT meritum_attach(''claims_seq'')'), 5) AS sequence,
       helper.fault('SELECT meritum_attach(''pg_temp.claims_temp'')') <> 'none' AS temp_refused,
       left(helper.fault('SELECT meritum_attach(''no_such_table'')'), 5) AS none,
       helper.fault('SELECT meritum_attach(''pg_class'')') <> 'none' AS catalog_refused;
SELECT * FROM triggers;

--
-- who may: an admin who owns the tables, or a superuser
--
CREATE ROLE regress_meritum_owner;
CREATE ROLE regress_meritum_other;
GRANT USAGE ON SCHEMA shop, public, helper, oracle TO regress_meritum_owner, regress_meritum_other;
SELECT meritum_grant('regress_meritum_other', 'admin');
GRANT ALL ON ALL TABLES IN SCHEMA shop TO regress_meritum_other;
ALTER TABLE claims OWNER TO regress_meritum_owner;
-- the owner of the claims is no admin
GRANT EXECUTE ON FUNCTION meritum_attach, meritum_detach TO regress_meritum_owner;
SET ROLE regress_meritum_owner;
SELECT helper.sqlstate('SELECT meritum_attach()'), helper.sqlstate('SELECT meritum_detach()');
RESET ROLE;
SELECT meritum_grant('regress_meritum_owner', 'admin');
-- an admin, but not the owner
SET ROLE regress_meritum_other;
SELECT helper.sqlstate('SELECT meritum_attach()');
RESET ROLE;
-- the owner of the claims, but not of the patients
SET ROLE regress_meritum_owner;
SELECT helper.sqlstate('SELECT meritum_attach()');
RESET ROLE;
SELECT * FROM triggers;
DO $$
DECLARE r regclass;
BEGIN
    FOR r IN SELECT oid FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO regress_meritum_owner', r);
    END LOOP;
END
$$;
SELECT count(*) FROM meritum_attach();
SELECT trial();
SELECT * FROM helper.wrong();
-- a writer needs no rights on the cache, nor on the tables that he does not touch
CREATE ROLE regress_meritum_clerk;
GRANT USAGE ON SCHEMA shop, helper TO regress_meritum_clerk;
GRANT SELECT, UPDATE ON claims TO regress_meritum_clerk;
SET ROLE regress_meritum_clerk;
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(9);
RESET ROLE;
SELECT * FROM helper.wrong();
SELECT count(*) FROM meritum_cache.pending_refresh;
SELECT count(*) > 0 AS detached FROM meritum_detach();
DROP OWNED BY regress_meritum_clerk, regress_meritum_other;
REASSIGN OWNED BY regress_meritum_owner TO CURRENT_USER;
DROP OWNED BY regress_meritum_owner;
DROP ROLE regress_meritum_owner, regress_meritum_other, regress_meritum_clerk;

--
-- partitioned claims, by month and by default, details too
--
ALTER TABLE claims RENAME TO old_claims;
CREATE TABLE claims (LIKE old_claims INCLUDING DEFAULTS) PARTITION BY RANGE (date_of_service);
CREATE TABLE claims_2024_03 PARTITION OF claims FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
CREATE TABLE claims_other PARTITION OF claims DEFAULT;
INSERT INTO claims SELECT * FROM old_claims;
SELECT count(*) FROM meritum_attach();
SELECT trial();
SELECT * FROM helper.wrong();
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(4);
SELECT * FROM helper.wrong();
-- straight into a partition, from one to another, out of both
UPDATE claims_2024_03 SET state = 'REJECTED' WHERE claim_id = helper.c(4);
SELECT * FROM helper.wrong();
UPDATE claims SET date_of_service = '2024-04-02' WHERE claim_id = helper.c(5);
SELECT * FROM helper.wrong();
DELETE FROM claims WHERE claim_id = helper.c(5);
SELECT * FROM helper.wrong();
COPY claims (claim_id, physician_id, state, date_of_service, claim_type) FROM stdin;
c0000000-0000-4000-8000-000000000021	a0000000-0000-4000-8000-000000000001	PAID	2024-03-05	AHCIP
c0000000-0000-4000-8000-000000000022	a0000000-0000-4000-8000-000000000001	PAID	2024-04-06	AHCIP
\.
SELECT * FROM helper.wrong();
-- a partition that is added later
CREATE TABLE claims_2024_06 PARTITION OF claims FOR VALUES FROM ('2023-12-01') TO ('2024-01-01');
INSERT INTO claims (claim_id, physician_id, state, date_of_service, claim_type) VALUES (helper.c(23), helper.p(1), 'PAID', '2023-12-05', 'AHCIP');
SELECT * FROM helper.wrong();
-- truncated, alone and as a whole
TRUNCATE claims_other;
SELECT * FROM helper.wrong();
TRUNCATE claims;
SELECT * FROM helper.wrong();
SELECT count(*) > 0 AS detached FROM meritum_detach();
SELECT * FROM triggers;

--
-- other schemas, and names given
--
CREATE SCHEMA other;
CREATE TABLE other.claims (LIKE old_claims INCLUDING ALL);
CREATE TABLE other."Details" (LIKE ahcip_claim_details INCLUDING ALL);
SELECT source, relation FROM meritum_attach('other.claims', ahcip_claim_details => 'other."Details"')
 WHERE source IN ('claims', 'ahcip_claim_details') ORDER BY source COLLATE "C";
INSERT INTO other.claims (claim_id, physician_id, state, date_of_service) VALUES (helper.c(31), helper.p(1), 'PAID', '2024-03-05');
INSERT INTO other."Details" (claim_id, assessed_fee) VALUES (helper.c(31), 3.21);
SELECT value FROM meritum_compute_metrics(helper.p(1), '{revenue_monthly}', '2024-03-01', '2024-03-31');
-- the other one of that name is not attached
INSERT INTO shop.claims (claim_id, physician_id, state, date_of_service) VALUES (helper.c(32), helper.p(1), 'PAID', '2024-03-05');
SELECT value FROM meritum_compute_metrics(helper.p(1), '{claims_paid}', '2024-03-01', '2024-03-31');
SELECT count(*) > 0 AS detached FROM meritum_detach();

-- an attached table that is dropped
SELECT count(*) FROM meritum_attach('other.claims', ahcip_claim_details => 'other."Details"');
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') > 0 AS written;
DROP TABLE other."Details";
INSERT INTO other.claims (claim_id, physician_id, state, date_of_service) VALUES (helper.c(33), helper.p(1), 'PAID', '2024-03-05');
SELECT value FROM meritum_compute_metrics(helper.p(1), '{claims_paid}', '2024-03-01', '2024-03-31');
DROP TABLE other.claims;
SELECT count(*) > 0 AS detached FROM meritum_detach();

DROP VIEW triggers;
DROP EXTENSION meritum_cache;
DROP SCHEMA shop, oracle, helper, annex, other CASCADE;
