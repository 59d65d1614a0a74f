-- Refreshing and attaching within one transaction:
-- meritum_refresh_provider_metrics, meritum_handle_claim_state_change,
-- meritum_attach, meritum_detach.
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
\pset pager off
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS meritum_cache;
CREATE SCHEMA tap_refreshing;
SELECT set_config('search_path', 'tap_refreshing, ' || current_setting('search_path'), true) AS path \gset
\ir ../support/platform.sql
\set p '\'a0000000-0000-4000-8000-000000000001\''
INSERT INTO providers (provider_id) VALUES (:p), ('a0000000-0000-4000-8000-000000000002');
INSERT INTO claims (claim_id, physician_id, claim_type, state, date_of_service) VALUES
    ('c0000000-0000-4000-8000-000000000001', :p, 'AHCIP', 'PAID', '2024-03-04'),
    ('c0000000-0000-4000-8000-000000000002', :p, 'WCB', 'PAID', '2024-03-04'),
    ('c0000000-0000-4000-8000-000000000003', 'a0000000-0000-4000-8000-000000000002', 'AHCIP', 'PAID', '2024-03-04');

SELECT no_plan();

SELECT throws_ok($$SELECT meritum_refresh_provider_metrics('a0000000-0000-4000-8000-000000000001')$$, '55000', NULL, 'not attached');
SELECT set_eq('SELECT source FROM meritum_attach()', ARRAY['claims', 'ahcip_claim_details', 'wcb_claim_details', 'wcb_invoice_lines',
    'claim_audit_history', 'patients', 'providers', 'practice_locations', 'ai_suggestion_events', 'ai_provider_learning', 'ai_rules'], 'attach: one row per table');
SELECT isnt_empty($$SELECT FROM pg_trigger WHERE tgrelid = 'claims'::regclass$$, 'attach: the triggers are there');
SELECT lives_ok('SELECT * FROM meritum_attach()', 'attach: running it again is harmless');
CREATE TABLE no_claims (claim_id uuid);
SELECT throws_ok($$SELECT * FROM meritum_attach('no_claims')$$, '42703', NULL, 'attach: missing columns');
CREATE VIEW a_view AS SELECT * FROM claims;
SELECT throws_ok($$SELECT * FROM meritum_attach('a_view')$$, '42809', NULL, 'attach: a view is no table');

SELECT throws_ok('SELECT meritum_refresh_provider_metrics(NULL)', '22004', NULL, 'refresh: null provider');
SELECT throws_ok($$SELECT meritum_refresh_provider_metrics('a0000000-0000-4000-8000-000000000001', '{profit}')$$, '22023', NULL, 'refresh: unknown metric');
SELECT cmp_ok(meritum_refresh_provider_metrics(:p, '{claims_paid,stale_claims}', '2024-05-15'), '>=', 13, 'refresh: returns entries written');
SELECT results_eq($$SELECT metric_key::text, count(*), min(period_start), max(period_end) FROM meritum_cache.analytics_cache
    WHERE provider_id = 'a0000000-0000-4000-8000-000000000001' AND dimensions IS NULL GROUP BY 1 ORDER BY 1$$,
    $$VALUES ('claims_paid', 12::bigint, '2023-06-01'::date, '2024-05-31'::date), ('stale_claims', 1, '2024-05-01', '2024-05-31')$$,
    'refresh: the given metrics for the trailing window, snapshots for its last month');
SELECT cmp_ok(meritum_refresh_provider_metrics(:p, NULL, '2024-05-15'), '>', 400, 'refresh: all metrics');
SELECT is((SELECT count(DISTINCT metric_key) FROM meritum_cache.analytics_cache WHERE provider_id = :p), 40::bigint, 'refresh: forty of them');
SELECT is((SELECT value FROM meritum_cache.analytics_cache WHERE provider_id = :p AND metric_key = 'claims_paid' AND period_start = '2024-03-01' AND dimensions IS NULL), '{"count": 2}', 'refresh: computed from the claims');
SELECT is((SELECT value FROM meritum_cache.analytics_cache WHERE provider_id = :p AND metric_key = 'claims_paid' AND period_start = '2024-01-01'), '{"count": 0}', 'refresh: an empty month stores zero');
SELECT is_empty($$SELECT * FROM meritum_cache.analytics_cache WHERE provider_id = 'a0000000-0000-4000-8000-000000000002'$$, 'refresh: of that provider only');
SELECT is(meritum_refresh_provider_metrics('a0000000-0000-4000-8000-000000000009'), 0, 'refresh: a provider that the providers table does not know gets no rows');

-- the explicit event
SELECT throws_ok($$SELECT meritum_handle_claim_state_change(NULL, 'AHCIP', 'PAID')$$, '22004', NULL, 'event: null provider');
SELECT throws_ok($$SELECT meritum_handle_claim_state_change('a0000000-0000-4000-8000-000000000001', 'DENTAL', 'PAID')$$, '22023', NULL, 'event: unknown pathway');
SELECT throws_ok($$SELECT meritum_handle_claim_state_change('a0000000-0000-4000-8000-000000000001', 'AHCIP', 'PAID', 'c0000000-0000-4000-8000-000000000003')$$, '42501', NULL, 'event: a claim of another provider');
SELECT throws_ok($$SELECT meritum_handle_claim_state_change('a0000000-0000-4000-8000-000000000001', 'AHCIP', 'PAID', 'c0000000-0000-4000-8000-000000000002')$$, '42501', NULL, 'event: a claim of the other pathway');
SELECT throws_ok($$SELECT meritum_handle_claim_state_change('a0000000-0000-4000-8000-000000000001', 'AHCIP', 'PAID', 'c0000000-0000-4000-8000-000000000009')$$, '42501', NULL, 'event: no such claim');
SELECT is(meritum_handle_claim_state_change(:p, 'AHCIP', 'DRAFT'), 0, 'event: a state with no entry refreshes nothing');
UPDATE meritum_cache.analytics_cache SET computed_at = '2020-01-01' WHERE provider_id = :p;
SELECT cmp_ok(meritum_handle_claim_state_change(:p, 'AHCIP', 'rejected', 'c0000000-0000-4000-8000-000000000001'), '>', 0, 'event: returns entries written');
SELECT set_eq($$SELECT metric_key::text || ' ' || period_start FROM meritum_cache.analytics_cache WHERE provider_id = 'a0000000-0000-4000-8000-000000000001' AND computed_at > '2020-01-01'$$,
    ARRAY['rejection_rate_monthly 2024-03-01', 'rejection_by_code 2024-03-01', 'rejection_by_hsc 2024-03-01', 'claims_rejected 2024-03-01'],
    'event: the metrics that the event map names, in the month of the claim');

SELECT isnt_empty('SELECT * FROM meritum_detach()', 'detach says what it removed');
SELECT is_empty($$SELECT FROM pg_trigger WHERE tgrelid = 'claims'::regclass$$, 'detach removes the triggers');

SELECT * FROM finish();
ROLLBACK;
