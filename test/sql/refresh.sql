--
-- commit mode: a change and its figures become visible together, and nothing
-- else is touched
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin

-- two providers with places of work, and one who has left
INSERT INTO providers (provider_id, status) VALUES
    (helper.p(1), 'ACTIVE'), (helper.p(2), 'ACTIVE'), (helper.p(3), 'INACTIVE');
INSERT INTO practice_locations
    (location_id, provider_id, name, functional_centre, rrnp_rate, is_active) VALUES
    (helper.l(1), helper.p(1), 'North', 'FC1', 5.25, true),
    (helper.l(2), helper.p(1), 'South', 'FC2', NULL, true),
    (helper.l(3), helper.p(1), 'Closed', 'FC3', NULL, false),
    (helper.l(4), helper.p(2), 'Elsewhere', 'FC1', NULL, true);
INSERT INTO patients (patient_id, phn_province) VALUES
    (helper.t(1), 'AB'), (helper.t(2), 'BC'), (helper.t(3), NULL);
INSERT INTO ai_rules (rule_id, name) VALUES (helper.r(1), 'Modifier');

SELECT source, relation, action IS NOT NULL AS told FROM meritum_attach() ORDER BY source;

-- the twelve months up to May 2024, for all three
SELECT n, meritum_refresh_provider_metrics(helper.p(n), NULL, '2024-05-15') > 0 AS written
  FROM generate_series(1, 3) AS n;
SELECT provider_id, count(DISTINCT period_start) AS months, count(DISTINCT metric_key) AS metrics,
       count(*) FILTER (WHERE metric_key IN ('aging_brackets', 'expired_claims')) AS snapshots,
       min(period_start), max(period_end)
  FROM meritum_cache.analytics_cache GROUP BY 1 ORDER BY 1;
SELECT * FROM helper.wrong(p_snapshots => true);

--
-- INSERT
--

-- a claim alone, in a month that has cells
SELECT helper.watch();
INSERT INTO claims (claim_id, physician_id, patient_id, state, date_of_service)
VALUES (helper.c(1), helper.p(1), helper.t(1), 'SUBMITTED', '2024-04-10');
-- claims_submitted counts it; the event map adds the pipeline
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();
SELECT value FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(1) AND metric_key = 'claims_submitted' AND period_start = '2024-04-01' AND dimensions IS NULL;

-- its detail, in a transaction of its own: now the pipeline counts it, and
-- what lists the location does
SELECT helper.watch();
INSERT INTO ahcip_claim_details (claim_id, ba_number, functional_centre, health_service_code, submitted_fee)
VALUES (helper.c(1), 'BA1', 'FC1', '03.03A', 40.50);
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();
SELECT value FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(1) AND metric_key = 'pending_pipeline' AND period_start = '2024-04-01' AND dimensions IS NULL;
-- and the new business arrangement and location have rows for all nine
SELECT dimensions, count(*) FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(1) AND period_start = '2024-04-01' AND dimensions IS NOT NULL
 GROUP BY 1 ORDER BY 1;

-- details before the claim, in two transactions: a detail without a claim is
-- nobody's
SELECT helper.watch();
INSERT INTO ahcip_claim_details (claim_id, ba_number, functional_centre, health_service_code, submitted_fee, assessed_fee)
VALUES (helper.c(2), 'BA1', 'FC2', '08.19A', 100, 90.10);
SELECT * FROM helper.moved_rows();
INSERT INTO claims (claim_id, physician_id, patient_id, state, date_of_service)
VALUES (helper.c(2), helper.p(1), helper.t(2), 'PAID', '2024-04-11');
SELECT * FROM helper.wrong();
SELECT value FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(1) AND metric_key = 'revenue_monthly' AND period_start = '2024-04-01' AND dimensions IS NULL;

-- details before the claim, in one transaction; WCB with its lines first
BEGIN;
INSERT INTO wcb_invoice_lines (wcb_claim_detail_id, amount) VALUES
    (helper.d(3), 50), (helper.d(3), 25.25), (helper.d(3), NULL);
INSERT INTO wcb_claim_details (wcb_claim_detail_id, claim_id, form_id)
VALUES (helper.d(3), helper.c(3), 'C050E');
INSERT INTO claims (claim_id, physician_id, patient_id, claim_type, state, date_of_service, validation_result)
VALUES (helper.c(3), helper.p(1), helper.t(3), 'WCB', 'ASSESSED', '2024-04-12', '{"timing_tier": "same_day"}');
COMMIT;
SELECT * FROM helper.wrong();
SELECT metric_key, value FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(1) AND metric_key LIKE 'wcb%' AND period_start = '2024-04-01' ORDER BY 1;

-- several claims, providers and months in one transaction, and in one statement
BEGIN;
INSERT INTO claims (claim_id, physician_id, patient_id, state, date_of_service)
SELECT helper.c(100 + n), helper.p(1 + n % 3), helper.t(1 + n % 2),
       (ARRAY['PAID', 'REJECTED', 'DRAFT', 'QUEUED', 'ADJUSTED'])[1 + n % 5],
       '2024-02-01'::date + n * 3
  FROM generate_series(0, 29) AS n;
INSERT INTO ahcip_claim_details (claim_id, ba_number, functional_centre, health_service_code,
       shadow_billing_flag, time_spent, submitted_fee, assessed_fee, assessment_explanatory_codes)
SELECT helper.c(100 + n), 'BA' || 1 + n % 2, 'FC' || 1 + n % 3, '0' || n % 4 || '.01',
       n % 2 = 0, n, 10 * n + 0.05, 9 * n + 0.01,
       CASE n % 5 WHEN 1 THEN '["30A", 5, {"code": "30B"}, null]'::jsonb END
  FROM generate_series(0, 29) AS n;
COMMIT;
SELECT * FROM helper.wrong();
SELECT provider_id, sum((value ->> 'claimCount')::int) AS paid, sum((value ->> 'totalRevenue')::numeric) AS revenue
  FROM meritum_cache.analytics_cache WHERE metric_key = 'revenue_monthly' AND dimensions IS NULL GROUP BY 1 ORDER BY 1;

--
-- COPY
--
COPY claims (claim_id, physician_id, state, date_of_service) FROM stdin;
c0000000-0000-4000-8000-000000000201	a0000000-0000-4000-8000-000000000001	PAID	2024-01-05
c0000000-0000-4000-8000-000000000202	a0000000-0000-4000-8000-000000000001	rejected	2024-01-06
c0000000-0000-4000-8000-000000000203	a0000000-0000-4000-8000-000000000002	Validated	2024-01-07
\.
COPY ahcip_claim_details (claim_id, ba_number, functional_centre, health_service_code, submitted_fee, assessed_fee, assessment_explanatory_codes) FROM stdin;
c0000000-0000-4000-8000-000000000201	BA1	FC1	03.03A	12.34	12.30	\N
c0000000-0000-4000-8000-000000000202	BA1	FC1	03.03A	12.34	\N	["01"]
c0000000-0000-4000-8000-000000000203	BA9	FC1	03.04A	1	\N	\N
\.
SELECT * FROM helper.wrong();
-- letter case of the state does not matter
SELECT metric_key, value FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(1) AND period_start = '2024-01-01' AND dimensions IS NULL
   AND metric_key IN ('claims_rejected', 'rejection_by_code', 'revenue_monthly') ORDER BY 1;

--
-- UPDATE
--

-- paid: exactly what counts a submitted or a paid claim, and the event map
SELECT helper.watch();
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(1);
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();

-- the assessed fee of a paid claim: the revenue figures; the patient is from
-- Alberta, so no reciprocal one
SELECT helper.watch();
UPDATE ahcip_claim_details SET assessed_fee = 38.10 WHERE claim_id = helper.c(1);
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();

-- its service code
SELECT helper.watch();
UPDATE ahcip_claim_details SET health_service_code = '03.08A' WHERE claim_id = helper.c(1);
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();

-- it becomes shadow billed, then gets minutes
SELECT helper.watch();
UPDATE ahcip_claim_details SET shadow_billing_flag = true WHERE claim_id = helper.c(1);
SELECT * FROM helper.moved();
SELECT helper.watch();
UPDATE ahcip_claim_details SET time_spent = 25 WHERE claim_id = helper.c(1);
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();

-- explanatory codes of a rejected claim of an Alberta patient
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(1);
SELECT helper.watch();
UPDATE ahcip_claim_details SET assessment_explanatory_codes = '["64", "64", {"code": 7}, {"x": 1}, [1], null, true]'
 WHERE claim_id = helper.c(1);
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();
SELECT value FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(1) AND period_start = '2024-04-01' AND metric_key = 'rejection_by_code';

-- another patient, of whom nothing is known, then something
SELECT helper.watch();
UPDATE claims SET patient_id = helper.t(4) WHERE claim_id = helper.c(1);
SELECT * FROM helper.moved();
SELECT helper.watch();
INSERT INTO patients (patient_id, phn_province) VALUES (helper.t(4), 'SK');
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();
SELECT helper.watch();
UPDATE patients SET phn_province = NULL WHERE patient_id = helper.t(4);
SELECT * FROM helper.moved();
UPDATE patients SET phn_province = 'MB' WHERE patient_id = helper.t(4);
SELECT * FROM helper.wrong();
DELETE FROM patients WHERE patient_id = helper.t(4);
SELECT * FROM helper.wrong();

-- the history: once rejected, now paid
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(1);
SELECT helper.watch();
INSERT INTO claim_audit_history (claim_id, new_state) VALUES (helper.c(1), 'Rejected');
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();
SELECT value FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(1) AND period_start = '2024-04-01' AND metric_key = 'rejection_resolution_funnel';
-- a second time makes no difference, nor does another state, nor none
SELECT helper.watch();
INSERT INTO claim_audit_history (claim_id, new_state) VALUES
    (helper.c(1), 'REJECTED'), (helper.c(1), 'PAID'), (helper.c(1), NULL);
SELECT * FROM helper.moved();
-- nor does the history of a claim that is not there
INSERT INTO claim_audit_history (claim_id, new_state) VALUES (helper.c(999), 'REJECTED');
SELECT * FROM helper.moved();

-- WCB: form, amounts, tier
SELECT helper.watch();
UPDATE wcb_claim_details SET form_id = 'C151' WHERE claim_id = helper.c(3);
SELECT * FROM helper.moved();
SELECT helper.watch();
UPDATE wcb_invoice_lines SET amount = 60 WHERE wcb_claim_detail_id = helper.d(3) AND amount = 50;
SELECT * FROM helper.moved();
SELECT helper.watch();
UPDATE claims SET validation_result = '{"timing_tier": "late"}' WHERE claim_id = helper.c(3);
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();
SELECT metric_key, value FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(1) AND metric_key LIKE 'wcb%' AND period_start = '2024-04-01' ORDER BY 1;
-- an invoice line finds another claim, a detail another claim
BEGIN;
INSERT INTO wcb_claim_details (wcb_claim_detail_id, claim_id, form_id) VALUES (helper.d(4), helper.c(4), 'C8');
INSERT INTO claims (claim_id, physician_id, claim_type, state, date_of_service)
VALUES (helper.c(4), helper.p(2), 'WCB', 'PAID', '2024-03-30'), (helper.c(5), helper.p(2), 'WCB', 'REJECTED', '2024-02-28');
COMMIT;
SELECT * FROM helper.wrong();
UPDATE wcb_invoice_lines SET wcb_claim_detail_id = helper.d(4) WHERE amount = 60;
SELECT * FROM helper.wrong();
UPDATE wcb_claim_details SET claim_id = helper.c(5) WHERE claim_id = helper.c(4);
SELECT * FROM helper.wrong();
DELETE FROM wcb_invoice_lines WHERE wcb_claim_detail_id = helper.d(4);
SELECT * FROM helper.wrong();
DELETE FROM wcb_claim_details WHERE wcb_claim_detail_id = helper.d(4);
SELECT * FROM helper.wrong();

-- locations: renaming touches the four lists in every month that is kept
SELECT helper.watch();
UPDATE practice_locations SET name = 'Far north' WHERE location_id = helper.l(1);
SELECT provider_id, metrics, count(*) AS months FROM helper.moved() GROUP BY 1, 2 ORDER BY 1, 2;
SELECT * FROM helper.wrong();
-- closing and opening one changes the breakdown as well
UPDATE practice_locations SET is_active = false WHERE location_id = helper.l(2);
SELECT * FROM helper.wrong();
SELECT count(*) FROM meritum_cache.analytics_cache WHERE dimensions = jsonb_build_object('location_id', helper.l(2));
UPDATE practice_locations SET is_active = true WHERE location_id IN (helper.l(2), helper.l(3));
SELECT * FROM helper.wrong();
-- another centre, another provider, gone
UPDATE practice_locations SET functional_centre = 'FC2' WHERE location_id = helper.l(1);
SELECT * FROM helper.wrong();
UPDATE practice_locations SET provider_id = helper.p(2) WHERE location_id = helper.l(1);
SELECT * FROM helper.wrong();
DELETE FROM practice_locations WHERE location_id = helper.l(1);
SELECT * FROM helper.wrong();

-- the AI coach
SELECT helper.watch();
INSERT INTO ai_suggestion_events (provider_id, rule_id, event_type, category, revenue_impact, created_at) VALUES
    (helper.p(1), helper.r(1), 'generated', 'MODIFIER', 10, '2024-03-15 10:00+00'),
    (helper.p(1), helper.r(1), 'accepted', 'MODIFIER', 10, '2024-03-16 10:00+00'),
    (helper.p(1), NULL, 'accepted', NULL, NULL, '2024-03-16 10:00+00');
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();
-- a dismissed suggestion counts neither in what was recovered nor among the
-- accepted rules
SELECT helper.watch();
INSERT INTO ai_suggestion_events (provider_id, rule_id, event_type, category, revenue_impact, created_at) VALUES
    (helper.p(1), helper.r(2), 'dismissed', 'FEE', 3, '2024-04-16 10:00+00');
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();
-- a rule's name is read by the list of accepted rules, where it is listed
SELECT helper.watch();
UPDATE ai_rules SET name = 'Modifier, better' WHERE rule_id = helper.r(1);
SELECT * FROM helper.moved();
SELECT * FROM helper.wrong();
UPDATE ai_suggestion_events SET created_at = '2024-02-16 10:00+00', event_type = 'accepted' WHERE event_type = 'dismissed';
SELECT * FROM helper.wrong();
DELETE FROM ai_rules;
SELECT * FROM helper.wrong();
DELETE FROM ai_suggestion_events WHERE rule_id IS NULL;
SELECT * FROM helper.wrong();
TRUNCATE ai_suggestion_events;
SELECT * FROM helper.wrong();

--
-- moving claims
--

-- to another month: both
SELECT helper.watch();
UPDATE claims SET date_of_service = '2024-05-02' WHERE claim_id = helper.c(2);
SELECT provider_id, month, 'revenue_monthly' = ANY (string_to_array(metrics, ' ')) AS revenue FROM helper.moved();
SELECT * FROM helper.wrong();
-- to another provider, in the same month
SELECT helper.watch();
UPDATE claims SET physician_id = helper.p(2) WHERE claim_id = helper.c(2);
SELECT provider_id, month, 'revenue_monthly' = ANY (string_to_array(metrics, ' ')) AS revenue FROM helper.moved();
SELECT * FROM helper.wrong();
-- to no date, to another id, and back
UPDATE claims SET date_of_service = NULL WHERE claim_id = helper.c(2);
SELECT * FROM helper.wrong();
UPDATE claims SET date_of_service = '2024-05-03', claim_id = helper.c(6) WHERE claim_id = helper.c(2);
SELECT * FROM helper.wrong();
UPDATE ahcip_claim_details SET claim_id = helper.c(6) WHERE claim_id = helper.c(2);
SELECT * FROM helper.wrong();
UPDATE claims SET date_of_service = 'infinity' WHERE claim_id = helper.c(6);
SELECT * FROM helper.wrong();
UPDATE claims SET date_of_service = '2024-05-03', claim_type = 'WCB' WHERE claim_id = helper.c(6);
SELECT * FROM helper.wrong();

--
-- soft deletion and its reverse, by date and by state
--
UPDATE claims SET deleted_at = now() WHERE claim_id = helper.c(6);
SELECT * FROM helper.wrong();
UPDATE claims SET deleted_at = NULL WHERE claim_id = helper.c(6);
SELECT * FROM helper.wrong();
UPDATE claims SET state = 'Deleted' WHERE claim_id = helper.c(6);
SELECT * FROM helper.wrong();
UPDATE claims SET state = 'nobody knows' WHERE claim_id = helper.c(6);
SELECT * FROM helper.wrong();
-- a deleted claim may change as it likes
UPDATE claims SET deleted_at = now() WHERE claim_id = helper.c(6);
SELECT helper.watch();
UPDATE claims SET state = 'QUEUED', date_of_service = '2024-02-02' WHERE claim_id = helper.c(6);
UPDATE ahcip_claim_details SET submitted_fee = 5 WHERE claim_id = helper.c(6);
SELECT * FROM helper.moved_rows();

--
-- DELETE
--
DELETE FROM ahcip_claim_details WHERE claim_id = helper.c(101);
SELECT * FROM helper.wrong();
DELETE FROM claims WHERE claim_id IN (helper.c(101), helper.c(102), helper.c(103));
SELECT * FROM helper.wrong();
DELETE FROM claim_audit_history;
SELECT * FROM helper.wrong();

--
-- what touches nothing
--

-- columns that no metric reads
SELECT helper.watch();
SELECT version AS version FROM meritum_freshness(helper.p(1)) \gset
UPDATE claims SET notes = 'x', priority = 2, row_version = row_version + 1;
UPDATE ahcip_claim_details SET calls = 2;
UPDATE patients SET first_name = 'A';
UPDATE practice_locations SET city = 'Hinton';
UPDATE providers SET last_name = 'B';
SELECT * FROM helper.moved_rows();
-- statements that change nothing
UPDATE claims SET state = state;
UPDATE claims SET state = 'PAID' WHERE false;
SELECT * FROM helper.moved_rows();
-- what is cancelled out within a transaction
BEGIN;
UPDATE claims SET state = 'DRAFT' WHERE claim_id = helper.c(1);
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(1);
COMMIT;
BEGIN;
INSERT INTO claims (claim_id, physician_id, state, date_of_service) VALUES (helper.c(7), helper.p(1), 'PAID', '2024-05-01');
DELETE FROM claims WHERE claim_id = helper.c(7);
COMMIT;
BEGIN;
UPDATE ahcip_claim_details SET assessed_fee = assessed_fee + 1;
UPDATE ahcip_claim_details SET assessed_fee = assessed_fee - 1;
COMMIT;
SELECT * FROM helper.moved_rows();
-- what is rolled back
BEGIN;
DELETE FROM claims;
TRUNCATE ahcip_claim_details;
ROLLBACK;
SELECT * FROM helper.moved_rows();
SELECT version = :version AS same_version FROM meritum_freshness(helper.p(1));

--
-- savepoints
--
SELECT helper.watch();
BEGIN;
SAVEPOINT a;
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(1);
ROLLBACK TO a;
COMMIT;
SELECT * FROM helper.moved_rows();

BEGIN;
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(201);
SAVEPOINT a;
UPDATE claims SET state = 'WRITTEN_OFF' WHERE claim_id = helper.c(202);
SAVEPOINT b;
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(201);
RELEASE b;
ROLLBACK TO a;
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(203);
RELEASE a;
COMMIT;
SELECT * FROM helper.wrong();
SELECT provider_id, month FROM helper.moved();

-- an exception handler is one, too
DO $$
BEGIN
    FOR i IN 1 .. 10 LOOP
        BEGIN
            UPDATE claims SET state = CASE i % 2 WHEN 0 THEN 'PAID' ELSE 'DRAFT' END WHERE claim_id = helper.c(110 + i);
            IF i % 3 = 0 THEN
                RAISE division_by_zero;
            END IF;
        EXCEPTION WHEN division_by_zero THEN
            NULL;
        END;
    END LOOP;
END
$$;
SELECT * FROM helper.wrong();

-- deferred constraints, checked after all triggers but the last
ALTER TABLE ahcip_claim_details ADD CONSTRAINT fk FOREIGN KEY (claim_id) REFERENCES claims
    ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED NOT VALID;
BEGIN;
INSERT INTO ahcip_claim_details (claim_id, ba_number, assessed_fee) VALUES (helper.c(8), 'BA8', 8.88);
INSERT INTO claims (claim_id, physician_id, state, date_of_service) VALUES (helper.c(8), helper.p(1), 'PAID', '2024-05-05');
COMMIT;
SELECT * FROM helper.wrong();
-- and what a cascade does
DELETE FROM claims WHERE claim_id = helper.c(8);
SELECT * FROM helper.wrong();
ALTER TABLE ahcip_claim_details DROP CONSTRAINT fk;

-- a deferred trigger of the application that changes claims at commit
CREATE FUNCTION late_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE claims SET state = 'PAID' WHERE claim_id = NEW.claim_id AND state = 'ASSESSED';
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER late_change AFTER UPDATE ON claims DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.state = 'ASSESSED') EXECUTE FUNCTION late_change();
UPDATE claims SET state = 'ASSESSED' WHERE claim_id = helper.c(201);
SELECT state FROM claims WHERE claim_id = helper.c(201);
SELECT * FROM helper.wrong();
DROP TRIGGER late_change ON claims;

-- MERGE and ON CONFLICT
MERGE INTO claims c USING (VALUES (helper.c(201), 'REJECTED'), (helper.c(9), 'PAID')) AS v (id, state) ON c.claim_id = v.id
  WHEN MATCHED THEN UPDATE SET state = v.state
  WHEN NOT MATCHED THEN INSERT (claim_id, physician_id, state, date_of_service) VALUES (v.id, helper.p(1), v.state, '2024-05-05');
INSERT INTO ahcip_claim_details (claim_id, ba_number, assessed_fee) VALUES (helper.c(9), 'BA8', 9), (helper.c(1), 'BA1', 99)
    ON CONFLICT (claim_id) DO UPDATE SET assessed_fee = excluded.assessed_fee;
SELECT * FROM helper.wrong();

-- a prepared transaction carries its figures
SELECT current_setting('max_prepared_transactions')::int > 0 AS can_prepare \gset
BEGIN;
UPDATE claims SET state = 'ADJUSTED' WHERE claim_id = helper.c(9);
\if :can_prepare
PREPARE TRANSACTION 'meritum_refresh_test';
COMMIT PREPARED 'meritum_refresh_test';
\else
COMMIT;
\endif
SELECT * FROM helper.wrong();

-- figures read within the changing transaction hold its own changes
BEGIN;
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(9);
SELECT value FROM meritum_get_metrics(helper.p(1), '{claims_paid}', '2024-05-01', '2024-05-31') WHERE dimensions IS NULL;
UPDATE claims SET state = 'DRAFT' WHERE claim_id = helper.c(9);
SELECT value FROM meritum_get_metrics(helper.p(1), '{claims_paid}', '2024-05-01', '2024-05-31') WHERE dimensions IS NULL;
ROLLBACK;
SELECT value FROM meritum_get_metrics(helper.p(1), '{claims_paid}', '2024-05-01', '2024-05-31') WHERE dimensions IS NULL;
SELECT * FROM helper.wrong();

-- and so do those that are refreshed within it; nothing has gone astray
BEGIN;
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(9);
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-15') > 0 AS written;
COMMIT;
SELECT * FROM helper.wrong();

--
-- who has rows
--

-- outside the trailing window, cells that are not there are not made
SELECT helper.watch();
INSERT INTO claims (claim_id, physician_id, state, date_of_service) VALUES (helper.c(10), helper.p(1), 'PAID', '2019-05-05');
SELECT * FROM helper.moved_rows();
-- a provider that the providers table does not know gets none at all
INSERT INTO claims (claim_id, physician_id, state, date_of_service)
SELECT helper.c(11 + n::int), helper.p(7), 'PAID', d
  FROM unnest(ARRAY['2024-05-05'::date, current_date]) WITH ORDINALITY AS u (d, n);
SELECT * FROM helper.moved_rows();
SELECT count(*) FROM meritum_get_metrics(helper.p(7), '{claims_paid}', '2024-05-01', '2024-05-31');
SELECT meritum_refresh_provider_metrics(helper.p(7));
SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = helper.p(7);
-- the cells of one who has left stay right
SELECT helper.watch();
UPDATE claims SET state = 'PAID' WHERE physician_id = helper.p(3);
SELECT DISTINCT provider_id, month FROM helper.moved();
SELECT * FROM helper.wrong();
-- one who is deleted takes the rows along
DELETE FROM providers WHERE provider_id = helper.p(3);
SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = helper.p(3);
DELETE FROM claims WHERE physician_id IN (helper.p(3), helper.p(7));

-- within the window all cells are kept complete
INSERT INTO providers (provider_id) VALUES (helper.p(4));
SELECT meritum_refresh_provider_metrics(helper.p(4)) > 0 AS written;
SELECT set_config('helper.today', snapshot_on::text, false) IS NOT NULL,
       abs(snapshot_on - current_date) <= 1 AS about_today FROM meritum_freshness(helper.p(4));
INSERT INTO claims (claim_id, physician_id, state, date_of_service) VALUES
    (helper.c(301), helper.p(4), 'PAID', helper.month(0)),
    (helper.c(302), helper.p(4), 'QUEUED', helper.month(-1) + 2),
    (helper.c(303), helper.p(4), 'REJECTED', helper.month(-11)),
    (helper.c(304), helper.p(4), 'REJECTED', helper.month(-12)),
    (helper.c(305), helper.p(4), 'REJECTED', helper.month(1));
SELECT * FROM helper.wrong();
SELECT * FROM oracle.diff(ARRAY[helper.p(4)], oracle.months(helper.month(0)), current_setting('helper.today')::date, 'UTC')
 WHERE metric_key IN (SELECT metric_key FROM oracle.all_keys() WHERE grain = 'monthly');

--
-- TRUNCATE: of everything, more cells than are refreshed at commit by default
--
SET meritum_cache.commit_limit = 10000;
TRUNCATE wcb_invoice_lines, wcb_claim_details;
SELECT * FROM helper.wrong();
TRUNCATE claim_audit_history;
SELECT * FROM helper.wrong();
TRUNCATE patients;
SELECT * FROM helper.wrong();
TRUNCATE practice_locations;
SELECT * FROM helper.wrong();
TRUNCATE ahcip_claim_details;
SELECT * FROM helper.wrong();
BEGIN;
TRUNCATE claims;
INSERT INTO claims (claim_id, physician_id, state, date_of_service) VALUES (helper.c(401), helper.p(1), 'PAID', '2024-05-05');
COMMIT;
SELECT * FROM helper.wrong();
SELECT value FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(1) AND metric_key = 'claims_paid' AND period_start = '2024-05-01' AND dimensions IS NULL;
TRUNCATE claims;
SELECT * FROM helper.wrong();
TRUNCATE providers;
SELECT count(*) FROM meritum_cache.analytics_cache;

-- no provider's refresh has been left behind (a detail without a claim may be
-- on record, lest the claim was being written)
SELECT count(*) FROM meritum_cache.pending_refresh WHERE provider_id IS NOT NULL;

DROP EXTENSION meritum_cache;
DROP SCHEMA shop, oracle, helper CASCADE;
