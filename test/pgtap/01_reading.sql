-- Reading the cache: meritum_get_metrics, meritum_compute_metrics,
-- meritum_is_stale, meritum_freshness, meritum_get_stale_entries,
-- meritum_request_refresh, meritum_verify.
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
\pset pager off
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS meritum_cache;
CREATE SCHEMA tap_reading;
SELECT set_config('search_path', 'tap_reading, ' || current_setting('search_path'), true) AS path \gset
\ir ../support/platform.sql

\set p '\'a0000000-0000-4000-8000-000000000001\''
\set q '\'a0000000-0000-4000-8000-000000000002\''
INSERT INTO providers (provider_id) VALUES (:p), (:q);
INSERT INTO practice_locations (location_id, provider_id, functional_centre) VALUES
    ('b0000000-0000-4000-8000-000000000001', :p, 'FC1'), ('b0000000-0000-4000-8000-000000000002', :p, 'FC2');
INSERT INTO claims (claim_id, physician_id, state, date_of_service) VALUES
    ('c0000000-0000-4000-8000-000000000001', :p, 'PAID', '2024-03-04'),
    ('c0000000-0000-4000-8000-000000000002', :p, 'REJECTED', '2024-03-05'),
    ('c0000000-0000-4000-8000-000000000003', :p, 'PAID', '2024-04-05'),
    ('c0000000-0000-4000-8000-000000000004', :q, 'PAID', '2024-03-04');
INSERT INTO ahcip_claim_details (claim_id, ba_number, functional_centre, health_service_code, assessed_fee)
SELECT claim_id, 'BA1', 'FC1', '03.03A', 1234.5 FROM claims;
SELECT count(*) AS attached FROM meritum_attach() \gset

SELECT no_plan();

SELECT has_table('meritum_cache', 'analytics_cache', 'the cache is meritum_cache.analytics_cache');
SELECT columns_are('meritum_cache', 'analytics_cache', ARRAY['cache_id', 'provider_id', 'metric_key', 'period_start', 'period_end', 'dimensions', 'value', 'computed_at']);
SELECT col_is_pk('meritum_cache', 'analytics_cache', 'cache_id', 'cache_id is the primary key');
SELECT col_is_null('meritum_cache', 'analytics_cache', 'dimensions', 'dimensions may be null');
SELECT is((SELECT count(*) FROM meritum_cache.metric), 40::bigint, 'there are forty metrics');

-- every function takes the provider; null is an error, not an empty answer
SELECT throws_ok($$SELECT * FROM meritum_get_metrics(NULL, '{claims_paid}', '2024-01-01', '2024-01-31')$$, '22004', NULL, 'get_metrics: null provider');
SELECT throws_ok($$SELECT * FROM meritum_get_metrics('a0000000-0000-4000-8000-000000000001', NULL, '2024-01-01', '2024-01-31')$$, '22004', NULL, 'get_metrics: null keys');
SELECT throws_ok($$SELECT * FROM meritum_compute_metrics(NULL, '{claims_paid}', '2024-01-01', '2024-01-31')$$, '22004', NULL, 'compute_metrics: null provider');
SELECT throws_ok($$SELECT meritum_is_stale(NULL)$$, '22004', NULL, 'is_stale: null provider');
SELECT throws_ok($$SELECT * FROM meritum_freshness(NULL)$$, '22004', NULL, 'freshness: null provider');
SELECT throws_ok($$SELECT * FROM meritum_verify(NULL)$$, '22004', NULL, 'verify: null provider');
SELECT throws_ok($$SELECT * FROM meritum_get_stale_entries(NULL)$$, '22004', NULL, 'get_stale_entries: null provider');
SELECT throws_ok($$SELECT meritum_request_refresh(NULL)$$, '22004', NULL, 'request_refresh: null provider');
-- an unknown metric key is an error that names it
SELECT throws_like($$SELECT * FROM meritum_get_metrics('a0000000-0000-4000-8000-000000000001', '{profit}', '2024-01-01', '2024-01-31')$$, '%profit%', 'an unknown metric is named');
SELECT throws_ok($$SELECT * FROM meritum_get_metrics('a0000000-0000-4000-8000-000000000001', '{profit}', '2024-01-01', '2024-01-31')$$, '22023', NULL, 'get_metrics: unknown metric');
SELECT throws_ok($$SELECT * FROM meritum_compute_metrics('a0000000-0000-4000-8000-000000000001', '{profit}', '2024-01-01', '2024-01-31')$$, '22023', NULL, 'compute_metrics: unknown metric');

-- a provider without entries
SELECT is(meritum_is_stale(:p), true, 'a provider without entries is stale');
SELECT is((SELECT pending FROM meritum_freshness(:q)), 0::bigint, 'nothing is pending of one who was never refreshed');
SELECT results_eq('SELECT newest_computed_at FROM meritum_freshness(''a0000000-0000-4000-8000-000000000002'')', ARRAY[NULL::timestamptz], 'he has no newest figure');

-- compute
SELECT is((SELECT value FROM meritum_compute_metrics(:p, '{revenue_monthly}', '2024-03-01', '2024-03-31')),
    '{"claimCount": 1, "monthlyTrend": [{"month": "2024-03", "revenue": "1234.50", "count": 1}], "totalRevenue": "1234.50", "totalSubmitted": "0.00"}'::jsonb,
    'compute_metrics: money is a string with two decimals');
SELECT is((SELECT value FROM meritum_compute_metrics(:p, '{claims_paid}', '2024-03-01', '2024-04-30')), '{"count": 2}', 'compute_metrics: any range');
SELECT is((SELECT value FROM meritum_compute_metrics(:p, '{claims_paid}', '2024-03-05', '2024-04-04')), '{"count": 0}', 'compute_metrics: both ends count');
SELECT is((SELECT value FROM meritum_compute_metrics(:p, '{claims_submitted}', '2024-03-01', '2024-04-30', '{"claim_state": "REJECTED"}')), '{"count": 1}', 'compute_metrics: filter by state');
SELECT is((SELECT value FROM meritum_compute_metrics(:p, '{claims_submitted}', '2024-03-01', '2024-04-30', '{"ba_number": ["BA1", "BA2"], "hsc_code": "03.03A"}')), '{"count": 3}', 'compute_metrics: a value or an array each');
SELECT is((SELECT jsonb_array_length(value) FROM meritum_compute_metrics(:p, '{multisite_claims}', '2024-03-01', '2024-03-31')), 2, 'compute_metrics: every active location');
SELECT is((SELECT jsonb_array_length(value) FROM meritum_compute_metrics(:p, '{multisite_claims}', '2024-03-01', '2024-03-31', '{"location_id": "b0000000-0000-4000-8000-000000000002"}')), 1, 'compute_metrics: location lists hold the filtered location only');
SELECT throws_ok($$SELECT * FROM meritum_compute_metrics('a0000000-0000-4000-8000-000000000001', '{ai_coach_by_category}', '2024-03-01', '2024-03-31', '{"claim_type": "WCB"}')$$, '22023', NULL, 'compute_metrics: a filter on a metric that reads no claims');
SELECT throws_ok($$SELECT * FROM meritum_compute_metrics('a0000000-0000-4000-8000-000000000001', '{claims_paid}', '2022-01-01', '2024-03-31')$$, '22023', NULL, 'compute_metrics: more than 730 days');
SELECT is((SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id IN (:p, :q)), 0::bigint, 'compute_metrics stores nothing');

-- get
SELECT cmp_ok(meritum_refresh_provider_metrics(:p, NULL, '2024-04-15'), '>', 0, 'refresh writes entries');
SELECT results_eq($$SELECT dimensions, value FROM meritum_get_metrics('a0000000-0000-4000-8000-000000000001', '{claims_paid}', '2024-03-01', '2024-03-31') ORDER BY dimensions NULLS FIRST$$,
    $$VALUES (NULL::jsonb, '{"count": 1}'::jsonb), ('{"ba_number": "BA1"}', '{"count": 1}'), ('{"claim_type": "AHCIP"}', '{"count": 1}'), ('{"location_id": "b0000000-0000-4000-8000-000000000001"}', '{"count": 1}')$$,
    'get_metrics: without dimensions, all rows, totals and breakdowns');
SELECT results_eq($$SELECT period_start, period_end FROM meritum_get_metrics('a0000000-0000-4000-8000-000000000001', '{claims_paid}', '2024-02-15', '2024-04-29', '{"ba_number": "BA1"}')$$,
    $$VALUES ('2024-03-01'::date, '2024-03-31'::date)$$, 'get_metrics: rows whose dimensions contain the given ones, whose period lies within');
SELECT is_empty($$SELECT * FROM meritum_get_metrics('a0000000-0000-4000-8000-000000000001', '{claims_paid}', '2024-03-01', '2024-03-31', '{"ba_number": "BA2"}')$$, 'get_metrics: no such dimension');
SELECT bag_eq($$SELECT * FROM meritum_get_metrics('a0000000-0000-4000-8000-000000000001', '{claims_paid}', '2024-03-01', '2024-03-31')$$,
    $$SELECT * FROM meritum_cache.analytics_cache WHERE provider_id = 'a0000000-0000-4000-8000-000000000001' AND metric_key = 'claims_paid' AND period_start = '2024-03-01'$$,
    'get_metrics: rows of the cache');
-- staleness
SELECT cmp_ok(meritum_refresh_provider_metrics(:p), '>', 0, 'refresh of the running year');
SELECT is(meritum_is_stale(:p), false, 'a provider who has just been refreshed is not stale');
SELECT is(meritum_request_refresh(:p), false, 'request_refresh: false if nothing was stale');
SELECT is_empty($$SELECT * FROM meritum_get_stale_entries('a0000000-0000-4000-8000-000000000001')$$, 'no entry is stale');
UPDATE meritum_cache.analytics_cache SET computed_at = clock_timestamp() - interval '2 hours'
 WHERE provider_id = :p AND metric_key = 'claims_paid' AND period_start = '2024-03-01' AND dimensions IS NULL;
SELECT results_eq($$SELECT metric_key::text, period_start FROM meritum_get_stale_entries('a0000000-0000-4000-8000-000000000001')$$, $$VALUES ('claims_paid', '2024-03-01'::date)$$, 'get_stale_entries: older than stale_after');
SELECT is_empty($$SELECT * FROM meritum_get_stale_entries('a0000000-0000-4000-8000-000000000001', 121)$$, 'get_stale_entries: older than max_age_minutes');
SELECT ok((SELECT newest_computed_at >= oldest_computed_at AND refreshed_at IS NOT NULL AND refresh_cause IS NOT NULL AND version > 0 FROM meritum_freshness(:p)), 'freshness tells ages, last refresh and its cause, version');

-- verify
SELECT is_empty($$SELECT * FROM meritum_verify('a0000000-0000-4000-8000-000000000001')$$, 'verify: nothing, if the cache is right');
UPDATE meritum_cache.analytics_cache SET value = '{"count": 7}' WHERE provider_id = :p AND metric_key = 'claims_paid' AND period_start = '2024-03-01' AND dimensions IS NULL;
SELECT results_eq($$SELECT metric_key, period_start, period_end, dimensions, cached, computed FROM meritum_verify('a0000000-0000-4000-8000-000000000001')$$,
    $$VALUES ('claims_paid', '2024-03-01'::date, '2024-03-31'::date, NULL::jsonb, '{"count": 7}'::jsonb, '{"count": 1}'::jsonb)$$, 'verify: what differs');
SELECT is((SELECT count(*) FROM meritum_verify(:p, true)), 1::bigint, 'verify with repair says what it corrected');
SELECT is_empty($$SELECT * FROM meritum_verify('a0000000-0000-4000-8000-000000000001')$$, 'verify: after repair the cache is right');

-- a change of this very transaction is pending until the reader comes
UPDATE claims SET state = 'PAID' WHERE claim_id = 'c0000000-0000-4000-8000-000000000002';
SELECT is((SELECT value FROM meritum_get_metrics(:p, '{claims_paid}', '2024-03-01', '2024-03-31') WHERE dimensions IS NULL), '{"count": 2}', 'get_metrics: what is pending is refreshed first');


SELECT * FROM finish();
ROLLBACK;
