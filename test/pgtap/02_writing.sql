-- Writing the cache by hand: meritum_upsert_metric, meritum_bulk_upsert,
-- meritum_delete_expired_entries.  They need no source tables.
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
\pset pager off
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS meritum_cache;
\set p '\'a0000000-0000-4000-8000-000000000001\''

SELECT no_plan();

SELECT throws_ok($$SELECT meritum_upsert_metric(NULL, 'claims_paid', '2024-01-01', '2024-01-31', NULL, '{}')$$, '22004', NULL, 'upsert: null provider');
SELECT throws_ok($$SELECT meritum_upsert_metric('a0000000-0000-4000-8000-000000000001', 'claims_paid', '2024-01-01', '2024-01-31', NULL, NULL)$$, '22004', NULL, 'upsert: null value');
SELECT throws_ok($$SELECT meritum_upsert_metric('a0000000-0000-4000-8000-000000000001', 'profit', '2024-01-01', '2024-01-31', NULL, '{}')$$, '22023', NULL, 'upsert: unknown metric');
SELECT throws_ok($$SELECT meritum_upsert_metric('a0000000-0000-4000-8000-000000000001', 'claims_paid', '2024-02-01', '2024-01-31', NULL, '{}')$$, '22023', NULL, 'upsert: the period must not end before it starts');

SELECT is((SELECT value FROM meritum_upsert_metric(:p, 'claims_paid', '2024-01-01', '2024-01-31', NULL, '{"count": 1}')), '{"count": 1}', 'upsert inserts');
UPDATE meritum_cache.analytics_cache SET computed_at = '2020-01-01' WHERE provider_id = :p;
SELECT is((SELECT value FROM meritum_upsert_metric(:p, 'claims_paid', '2024-01-01', '2024-01-31', NULL, '{"count": 2}')), '{"count": 2}', 'upsert updates');
SELECT is((SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = :p), 1::bigint, 'null dimensions are equal: no second copy');
SELECT ok((SELECT computed_at >= now() FROM meritum_cache.analytics_cache WHERE provider_id = :p), 'upsert sets computed_at');
SELECT is((SELECT dimensions FROM meritum_upsert_metric(:p, 'claims_paid', '2024-01-01', '2024-01-31', '{"ba_number": "BA1"}', '{"count": 3}')), '{"ba_number": "BA1"}', 'other dimensions are another row');
SELECT is((SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = :p), 2::bigint, 'two rows');

SELECT throws_ok($$SELECT meritum_bulk_upsert(NULL, '[]')$$, '22004', NULL, 'bulk: null provider');
SELECT throws_ok($$SELECT meritum_bulk_upsert('a0000000-0000-4000-8000-000000000001', NULL)$$, '22004', NULL, 'bulk: null entries');
SELECT is(meritum_bulk_upsert(:p, '[]'), 0, 'bulk: nothing to do');
SELECT is(meritum_bulk_upsert(:p, '[{"metric_key": "stale_claims", "period_start": "2024-02-01", "period_end": "2024-02-29", "value": {"count": 1}},
    {"metric_key": "stale_claims", "period_start": "2024-03-01", "period_end": "2024-03-31", "dimensions": null, "value": {"count": 2}, "provider_id": "a0000000-0000-4000-8000-000000000001"}]'), 2, 'bulk: the number of entries');
SELECT lives_ok($$SELECT meritum_bulk_upsert('a0000000-0000-4000-8000-000000000001', '[{"metric_key": "stale_claims", "period_start": "2024-02-01", "period_end": "2024-02-29", "value": {"count": 5}},
    {"metric_key": "stale_claims", "period_start": "2024-02-01", "period_end": "2024-02-29", "value": {"count": 6}}]')$$, 'bulk: two entries with one key');
SELECT is((SELECT value FROM meritum_cache.analytics_cache WHERE provider_id = :p AND metric_key = 'stale_claims' AND period_start = '2024-02-01'), '{"count": 6}', 'the last wins');

CREATE FUNCTION pg_temp.with_bad(entry text) RETURNS text LANGUAGE sql AS $$
    SELECT format('SELECT meritum_bulk_upsert(''a0000000-0000-4000-8000-000000000001'', %L)',
        '[{"metric_key": "claims_paid", "period_start": "2023-01-01", "period_end": "2023-01-31", "value": {"count": 1}}, ' || entry || ']') $$;
CREATE TEMP TABLE bad AS SELECT *
  FROM (VALUES
    ('an entry of another provider', '{"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": {}, "provider_id": "a0000000-0000-4000-8000-000000000002"}'),
    ('an unknown key', '{"metric_key": "profit", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": {}}'),
    ('a bad date', '{"metric_key": "claims_paid", "period_start": "2024-02-30", "period_end": "2024-03-31", "value": {}}'),
    ('an end before the start', '{"metric_key": "claims_paid", "period_start": "2024-02-01", "period_end": "2024-01-31", "value": {}}')) AS v (what, entry);
SELECT throws_ok(pg_temp.with_bad(entry), '22023', NULL, 'bulk: ' || what || ' rejects the call') FROM bad;
SELECT throws_matching(pg_temp.with_bad(entry), '\m1\M', 'bulk: ' || what || ': the index is named') FROM bad;
SELECT is((SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = :p AND period_start < '2024-01-01'), 0::bigint, 'bulk: nothing was written of a rejected call');

SELECT throws_ok($$SELECT meritum_delete_expired_entries(NULL, '2024-01-01')$$, '22004', NULL, 'delete_expired: null provider');
SELECT throws_ok($$SELECT meritum_delete_expired_entries('a0000000-0000-4000-8000-000000000001', NULL)$$, '22004', NULL, 'delete_expired: null date');
SELECT is(meritum_delete_expired_entries(:p, '2024-01-31'), 0::bigint, 'a period that ends on the date is not before it');
SELECT is(meritum_delete_expired_entries('a0000000-0000-4000-8000-000000000002', '2025-01-01'), 0::bigint, 'only of that provider');
SELECT is(meritum_delete_expired_entries(:p, '2024-02-01'), 2::bigint, 'entries with period_end before the date');
SELECT is((SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = :p), 2::bigint, 'the others stay');

SELECT * FROM finish();
ROLLBACK;
