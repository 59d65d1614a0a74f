--
-- writing: single entries, bulk, expiry, the nightly batch
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin

-- entries that an application writes need no source tables
SELECT provider_id, metric_key, period_start, period_end, dimensions, value, computed_at = now() OR computed_at > now() AS now
  FROM meritum_upsert_metric(helper.p(1), 'claims_paid', '2024-01-01', '2024-01-31', NULL, '{"count": 1}');
SELECT cache_id AS id, computed_at AS at FROM meritum_cache.analytics_cache \gset
-- the same again is an update of that row: null dimensions are equal
SELECT value, cache_id = :'id' AS same_row, computed_at > :'at' AS later
  FROM meritum_upsert_metric(helper.p(1), 'claims_paid', '2024-01-01', '2024-01-31', NULL, '{"count": 2}');
SELECT count(*) FROM meritum_cache.analytics_cache;
-- other dimensions, periods and providers are other rows
SELECT value FROM meritum_upsert_metric(helper.p(1), 'claims_paid', '2024-01-01', '2024-01-31', '{"ba_number": "BA1"}', '3');
SELECT value FROM meritum_upsert_metric(helper.p(1), 'claims_paid', '2024-01-01', '2024-01-31', '{"ba_number": "BA2"}', '[]');
SELECT value FROM meritum_upsert_metric(helper.p(1), 'claims_paid', '2024-01-01', '2024-01-31', '{"ba_number": "BA1"}', 'null');
SELECT value FROM meritum_upsert_metric(helper.p(1), 'claims_paid', '2024-01-01', '2024-02-29', NULL, '{}');
SELECT value FROM meritum_upsert_metric(helper.p(1), 'claims_paid', '2024-01-01', '2024-01-01', NULL, '{}');
SELECT value FROM meritum_upsert_metric(helper.p(2), 'claims_paid', '2024-01-01', '2024-01-31', NULL, '{}');
SELECT provider_id, period_start, period_end, dimensions, value FROM meritum_cache.analytics_cache ORDER BY 1, 2, 3, 4 NULLS FIRST;
-- a second copy cannot be smuggled in
INSERT INTO meritum_cache.analytics_cache (provider_id, metric_key, period_start, period_end, value, computed_at)
VALUES (helper.p(1), 'claims_paid', '2024-01-01', '2024-01-31', '{}', now())
ON CONFLICT DO NOTHING RETURNING value;
SELECT helper.sqlstate($$INSERT INTO meritum_cache.analytics_cache (provider_id, metric_key, period_start, period_end, value, computed_at)
VALUES (helper.p(1), 'claims_paid', '2024-02-01', '2024-01-31', '{}', now())$$);
TRUNCATE meritum_cache.analytics_cache;

--
-- bulk: the number of entries, of two with one key the last
--
SELECT meritum_bulk_upsert(helper.p(1), '[
    {"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": {"count": 1}},
    {"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31", "dimensions": null, "value": {"count": 2}},
    {"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31", "dimensions": {"ba_number": "BA1"}, "value": {"count": 3}},
    {"metric_key": "stale_claims", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": {"count": 4}, "provider_id": "a0000000-0000-4000-8000-000000000001"},
    {"metric_key": "stale_claims", "period_start": "2024-02-01", "period_end": "2024-02-29", "value": null}]') IN (4, 5) AS written;
SELECT provider_id, metric_key, period_start, dimensions, value FROM meritum_cache.analytics_cache ORDER BY 2, 3, 4 NULLS FIRST;
-- again, now as updates
SELECT helper.watch();
SELECT meritum_bulk_upsert(helper.p(1), '[
    {"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": {"count": 9}},
    {"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31", "dimensions": {"ba_number": "BA1"}, "value": {"count": 3}}]');
SELECT dimensions, change, old, new FROM helper.moved_rows() ORDER BY 1 NULLS FIRST;
-- many
SELECT meritum_bulk_upsert(helper.p(2), (SELECT jsonb_agg(jsonb_build_object('metric_key', metric_key, 'period_start', m,
           'period_end', oracle.month_end(m), 'value', jsonb_build_object('n', number)))
    FROM oracle.all_keys(), unnest(oracle.months('2024-12-01', 24)) AS m));
SELECT count(*), count(DISTINCT metric_key) FROM meritum_cache.analytics_cache WHERE provider_id = helper.p(2);

--
-- expiry
--
-- those that ended before the date, of that provider
SELECT meritum_delete_expired_entries(helper.p(2), '2024-01-31');
SELECT min(period_start), count(*) FROM meritum_cache.analytics_cache WHERE provider_id = helper.p(2);
SELECT meritum_delete_expired_entries(helper.p(2), '2024-01-31');
SELECT meritum_delete_expired_entries(helper.p(2), '2024-02-01');
SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = helper.p(1);
SELECT meritum_delete_expired_entries(helper.p(2), 'infinity');
TRUNCATE meritum_cache.analytics_cache;

-- the cleanup: what ended more than 24 months ago, of everyone (no month that
-- might end today, wherever that is)
INSERT INTO meritum_cache.analytics_cache (provider_id, metric_key, period_start, period_end, value, computed_at)
SELECT helper.p(n), 'claims_paid', m, oracle.month_end(m), '{}', now()
  FROM generate_series(1, 300) AS n, unnest(oracle.months(current_date, 40)) AS m
 WHERE m < current_date - interval '26 months' OR m > current_date - interval '24 months';
DO $$
DECLARE
    v_deleted bigint;
    v_expected bigint := (SELECT count(*) FROM meritum_cache.analytics_cache WHERE period_end < current_date - interval '24 months');
BEGIN
    CALL meritum_cleanup_old_entries(v_deleted);
    RAISE WARNING 'deleted as many as expected: %', v_deleted = v_expected;
END
$$;
SELECT count(*) FROM meritum_cache.analytics_cache WHERE period_end < current_date - interval '24 months';
SELECT count(DISTINCT provider_id) AS providers, count(*) / 300 IN (23, 24) AS two_years_left FROM meritum_cache.analytics_cache;
CALL meritum_cleanup_old_entries();
TRUNCATE meritum_cache.analytics_cache;

--
-- refreshing one provider
--
INSERT INTO providers (provider_id, status) VALUES
    (helper.p(1), 'ACTIVE'), (helper.p(2), 'ACTIVE'), (helper.p(3), 'INACTIVE'), (helper.p(4), 'ACTIVE'), (helper.p(5), 'ACTIVE');
INSERT INTO claims (claim_id, physician_id, state, date_of_service, created_at, updated_at)
SELECT helper.c(10 * p + n), helper.p(p), (ARRAY['PAID', 'REJECTED', 'DRAFT'])[1 + n % 3], '2023-06-15'::date + 31 * n, '2024-03-10 10:00+00', '2024-03-10 10:00+00'
  FROM generate_series(1, 5) AS p, generate_series(0, 9) AS n;
SELECT count(*) FROM meritum_attach();
-- the months of a window, by metric; the number is that of the entries
SELECT meritum_refresh_provider_metrics(helper.p(1), '{claims_paid,stale_claims}', '2024-05-31') AS written \gset
SELECT count(*) = :written AS says_how_many FROM meritum_cache.analytics_cache;
SELECT metric_key, count(*), min(period_start), max(period_end) FROM meritum_cache.analytics_cache WHERE dimensions IS NULL GROUP BY 1 ORDER BY 1;
SELECT * FROM helper.wrong('2024-05-31', true);
-- leap years and ends of months
SELECT meritum_refresh_provider_metrics(helper.p(1), '{claims_paid}', '2024-02-29') > 0 AS written;
SELECT min(period_start), max(period_end) FROM meritum_cache.analytics_cache;
SELECT period_end FROM meritum_cache.analytics_cache WHERE period_start = '2024-02-01' AND dimensions IS NULL AND metric_key = 'claims_paid';
-- each refresh moves computed_at and leaves the rows where they are
SELECT helper.watch();
SELECT meritum_refresh_provider_metrics(helper.p(1), '{claims_paid}', '2024-05-31') > 0 AS written;
SELECT change, count(*) FROM helper.moved_rows() WHERE dimensions IS NULL GROUP BY 1;
SELECT metrics, count(*) FROM helper.moved() GROUP BY 1;
-- rows that no longer have a reason go
INSERT INTO meritum_cache.analytics_cache (provider_id, metric_key, period_start, period_end, dimensions, value, computed_at)
VALUES (helper.p(1), 'claims_paid', '2024-05-01', '2024-05-31', '{"ba_number": "GONE"}', '{"count": 5}', now());
SELECT meritum_refresh_provider_metrics(helper.p(1), '{claims_paid}', '2024-05-31') > 0 AS written;
SELECT * FROM helper.wrong('2024-05-31');
TRUNCATE meritum_cache.analytics_cache;

--
-- the explicit event
--
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-05-31') > 0 AS written;
SELECT helper.watch();
-- claim 13 is of September 2023
SELECT date_of_service FROM claims WHERE claim_id = helper.c(13);
SELECT meritum_handle_claim_state_change(helper.p(1), 'AHCIP', 'PAID', helper.c(13)) > 0 AS written;
SELECT * FROM helper.moved();
SELECT helper.watch();
-- letter case of the state does not matter
SELECT meritum_handle_claim_state_change(helper.p(1), 'AHCIP', 'rejected', helper.c(13)) > 0 AS written;
SELECT * FROM helper.moved();
SELECT helper.watch();
SELECT meritum_handle_claim_state_change(helper.p(1), 'AHCIP', 'VALIDATED', helper.c(13)) AS written;
SELECT * FROM helper.moved_rows();
-- without a claim it is the running month
SELECT meritum_handle_claim_state_change(helper.p(1), 'AHCIP', 'submitted') > 0 AS written;
SELECT metrics, date_trunc('month', current_date) - month BETWEEN '-31 days' AND '31 days' AS running_month FROM helper.moved();
-- the map can be extended
INSERT INTO meritum_cache.event_metric VALUES ('validated', 'claims_adjusted');
SELECT helper.watch();
SELECT meritum_handle_claim_state_change(helper.p(1), 'AHCIP', 'VALIDATED', helper.c(13)) > 0 AS written;
SELECT * FROM helper.moved();
SELECT helper.watch();
UPDATE claims SET state = 'VALIDATED' WHERE claim_id = helper.c(12);
SELECT * FROM helper.moved();
DELETE FROM meritum_cache.event_metric WHERE event_type = 'validated';
SELECT helper.sqlstate($$INSERT INTO meritum_cache.event_metric VALUES ('validated', 'no such metric')$$);

--
-- the nightly batch
--
TRUNCATE meritum_cache.analytics_cache;
-- the fourth provider's figures cannot be stored
ALTER TABLE meritum_cache.analytics_cache ADD CONSTRAINT never CHECK (provider_id <> 'a0000000-0000-4000-8000-000000000004');
DO $$
DECLARE
    v_processed bigint; v_metrics bigint; v_errors jsonb;
BEGIN
    CALL meritum_refresh_all_providers(2, '2024-05-15', v_processed, v_metrics, v_errors);
    RAISE WARNING 'processed %, some metrics %, errors %', v_processed, v_metrics > 0,
        (SELECT jsonb_agg(e - 'message') FROM jsonb_array_elements(v_errors) AS e);
    RAISE WARNING 'message given: %', v_errors -> 0 ->> 'message' <> '';
END
$$;
-- all active providers but that one
SELECT provider_id, count(DISTINCT metric_key) FROM meritum_cache.analytics_cache GROUP BY 1 ORDER BY 1;
SELECT * FROM helper.wrong(p_snapshots => true);
-- once it can be, it is
ALTER TABLE meritum_cache.analytics_cache DROP CONSTRAINT never;
DO $$
DECLARE
    v_processed bigint; v_metrics bigint; v_errors jsonb;
BEGIN
    CALL meritum_refresh_all_providers(as_of => '2024-05-15', providers_processed => v_processed, metrics_refreshed => v_metrics, errors => v_errors);
    RAISE WARNING 'processed %, some metrics %, errors %', v_processed, v_metrics > 0, v_errors;
END
$$;
SELECT provider_id, count(DISTINCT metric_key) FROM meritum_cache.analytics_cache GROUP BY 1 ORDER BY 1;
SELECT * FROM helper.wrong(p_snapshots => true);
-- it repairs what it finds wrong
UPDATE meritum_cache.analytics_cache SET value = '{"count": 99}' WHERE metric_key = 'claims_paid';
\pset tuples_only on
CALL meritum_refresh_all_providers(1, '2024-05-15') \g /dev/null
\pset tuples_only off
SELECT * FROM helper.wrong(p_snapshots => true);
SELECT count(*) FROM meritum_cache.pending_refresh;

-- without a providers table every provider that has a claim in the window is
-- active
SELECT count(*) FROM meritum_detach();
SELECT count(*) FROM meritum_cache.analytics_cache;
ALTER TABLE providers RENAME TO people;
SELECT count(*) FROM meritum_attach();
DELETE FROM claims WHERE physician_id = helper.p(2);
UPDATE claims SET date_of_service = '2019-01-01' WHERE physician_id = helper.p(5);
\pset tuples_only on
CALL meritum_refresh_all_providers(NULL, '2024-05-15') \g /dev/null
\pset tuples_only off
SELECT DISTINCT provider_id FROM meritum_cache.analytics_cache ORDER BY 1;

DROP EXTENSION meritum_cache;
DROP SCHEMA shop, oracle, helper CASCADE;
