--
-- reading: get, compute, freshness, verify
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin

INSERT INTO providers (provider_id) VALUES (helper.p(1)), (helper.p(2));
INSERT INTO practice_locations (location_id, provider_id, name, functional_centre, rrnp_rate) VALUES
    (helper.l(1), helper.p(1), 'North', 'FC1', 5.25),
    (helper.l(2), helper.p(1), 'South', 'FC2', NULL),
    (helper.l(3), helper.p(2), 'North', 'FC1', NULL);
INSERT INTO claims (claim_id, physician_id, claim_type, state, date_of_service, validation_result, deleted_at) VALUES
    (helper.c(1), helper.p(1), 'AHCIP', 'PAID', '2024-03-04', NULL, NULL),
    (helper.c(2), helper.p(1), 'AHCIP', 'PAID', '2024-03-04', NULL, NULL),
    (helper.c(3), helper.p(1), 'AHCIP', 'PAID', '2024-03-05', NULL, NULL),
    (helper.c(4), helper.p(1), 'AHCIP', 'REJECTED', '2024-03-06', NULL, NULL),
    (helper.c(5), helper.p(1), 'AHCIP', 'SUBMITTED', '2024-03-07', NULL, NULL),
    (helper.c(6), helper.p(1), 'AHCIP', 'ASSESSED', '2024-03-08', NULL, NULL),
    (helper.c(7), helper.p(1), 'WCB', 'PAID', '2024-03-10', '{"timing_tier": "same_day"}', NULL),
    (helper.c(8), helper.p(1), 'WCB', 'REJECTED', '2024-03-11', '{"timing_tier": "late"}', NULL),
    (helper.c(9), helper.p(1), 'AHCIP', 'DRAFT', '2024-03-12', NULL, NULL),
    (helper.c(10), helper.p(1), 'AHCIP', 'PAID', '2024-03-13', NULL, '2024-03-14 10:00+00'),
    (helper.c(11), helper.p(1), 'AHCIP', 'PAID', '2024-04-01', NULL, NULL),
    (helper.c(12), helper.p(2), 'AHCIP', 'PAID', '2024-03-04', NULL, NULL);
INSERT INTO ahcip_claim_details (claim_id, ba_number, functional_centre, health_service_code, submitted_fee, assessed_fee, assessment_explanatory_codes) VALUES
    (helper.c(1), 'BA1', 'FC1', '03.03A', 50, 45.50, NULL),
    (helper.c(2), 'BA2', 'FC2', '03.03A', 60, 60, NULL),
    (helper.c(3), 'BA1', 'FC1', '08.19A', 100.10, 99.99, NULL),
    (helper.c(4), 'BA1', 'FC1', '03.03A', 20, NULL, '["30A", "30A", 5]'),
    (helper.c(5), 'BA1', 'FC2', '03.08A', 33.33, NULL, NULL),
    (helper.c(6), 'BA2', NULL, '08.19A', 10, 9, NULL),
    (helper.c(10), 'BA1', 'FC1', '03.03A', 500, 500, NULL),
    (helper.c(11), 'BA1', 'FC1', '03.03A', 70, 70, NULL),
    (helper.c(12), 'BA1', 'FC1', '03.03A', 1000, 1000, NULL);
INSERT INTO wcb_claim_details (wcb_claim_detail_id, claim_id, form_id) VALUES
    (helper.d(7), helper.c(7), 'C050E'), (helper.d(8), helper.c(8), 'C151');
INSERT INTO wcb_invoice_lines (wcb_claim_detail_id, amount) VALUES
    (helper.d(7), 80), (helper.d(7), 15.50), (helper.d(8), 10);
-- (a time at which it is the same day nearly everywhere)
UPDATE claims SET created_at = '2024-04-10 10:00+00', updated_at = '2024-04-10 10:00+00';
ALTER TABLE claims ALTER created_at SET DEFAULT '2024-04-10 10:00+00', ALTER updated_at SET DEFAULT '2024-04-10 10:00+00';
SELECT count(*) FROM meritum_attach();

--
-- meritum_compute_metrics: values worked out by hand
--
\pset format unaligned
-- March: paid are 1, 2, 3 and the WCB claim 7; decided also 4, 6 and 8
SELECT * FROM meritum_compute_metrics(helper.p(1),
    '{revenue_monthly,revenue_by_ba,revenue_by_location,revenue_by_hsc,top_hsc_codes,claims_submitted,claims_assessed,claims_paid,claims_rejected,claims_adjusted,rejection_rate_monthly,rejection_by_code,rejection_by_hsc,rejection_resolution_funnel,pending_pipeline,avg_fee_per_claim,wcb_by_form_type,wcb_timing_tier_dist,wcb_fee_tier_analysis,wcb_revenue_trend,wcb_rejection_rate,multisite_revenue,multisite_claims,multisite_rrnp}',
    '2024-03-01', '2024-03-31') ORDER BY metric_key COLLATE "C";
-- a range that is no month: claims 3 to 9 and 11; the trend has both months
SELECT * FROM meritum_compute_metrics(helper.p(1), '{revenue_monthly,claims_submitted,wcb_revenue_trend}', '2024-03-05', '2024-04-01') ORDER BY metric_key COLLATE "C";
-- nothing at all
SELECT * FROM meritum_compute_metrics(helper.p(1), '{revenue_monthly,revenue_by_ba,claims_paid,rejection_rate_monthly,avg_fee_per_claim,multisite_rrnp,aging_brackets}',
    '2023-03-05', '2023-04-01', as_of => '2024-03-31') ORDER BY metric_key COLLATE "C";
-- by business arrangement: claims 1, 3, 4 and 5
SELECT * FROM meritum_compute_metrics(helper.p(1), '{revenue_monthly,claims_submitted}', '2024-03-01', '2024-03-31', '{"ba_number": "BA1"}') ORDER BY metric_key COLLATE "C";
-- by pathway
SELECT * FROM meritum_compute_metrics(helper.p(1), '{revenue_monthly,claims_paid,wcb_by_form_type}', '2024-03-01', '2024-03-31', '{"claim_type": "WCB"}') ORDER BY metric_key COLLATE "C";
SELECT * FROM meritum_compute_metrics(helper.p(1), '{revenue_monthly,claims_paid,wcb_by_form_type}', '2024-03-01', '2024-03-31', '{"claim_type": "AHCIP"}') ORDER BY metric_key COLLATE "C";
-- by location, whose list then holds that one only: claims 2 and 5
SELECT * FROM meritum_compute_metrics(helper.p(1), '{claims_submitted,revenue_by_location,multisite_claims}', '2024-03-01', '2024-03-31',
    jsonb_build_object('location_id', helper.l(2))) ORDER BY metric_key COLLATE "C";
-- another provider's location, though at the same centre, is none of his
SELECT * FROM meritum_compute_metrics(helper.p(1), '{claims_submitted,revenue_by_location}', '2024-03-01', '2024-03-31',
    jsonb_build_object('location_id', helper.l(3))) ORDER BY metric_key COLLATE "C";
-- by service code and states together: claims 1, 2 and 4
SELECT * FROM meritum_compute_metrics(helper.p(1), '{claims_submitted,rejection_rate_monthly}', '2024-03-01', '2024-03-31',
    '{"hsc_code": "03.03A", "claim_state": ["PAID", "REJECTED"]}') ORDER BY metric_key COLLATE "C";
-- arrays: all but 6 of the detailed ones
SELECT * FROM meritum_compute_metrics(helper.p(1), '{claims_submitted}', '2024-03-01', '2024-03-31',
    jsonb_build_object('ba_number', '["BA1", "BA2"]'::jsonb, 'location_id', jsonb_build_array(helper.l(1), helper.l(2))));
-- no value will do, then no claim does
SELECT * FROM meritum_compute_metrics(helper.p(1), '{claims_submitted}', '2024-03-01', '2024-03-31', '{"ba_number": []}');
-- a key asked for twice is answered once; an empty list is an empty answer
SELECT metric_key FROM meritum_compute_metrics(helper.p(1), '{claims_paid,claims_paid}', '2024-03-01', '2024-03-31');
SELECT metric_key FROM meritum_compute_metrics(helper.p(1), '{}', '2024-03-01', '2024-03-31');
-- snapshots as of a day: claims 5 (24 days old) and 9 (19) are open in March
SELECT * FROM meritum_compute_metrics(helper.p(1), '{aging_brackets,expired_claims,approaching_deadline}', '2024-03-01', '2024-03-31', as_of => '2024-03-31')
 ORDER BY metric_key COLLATE "C";
SELECT value -> 1 AS second_bracket FROM meritum_compute_metrics(helper.p(1), '{aging_brackets}', '2024-03-01', '2024-03-31', as_of => '2024-04-30');
\pset format aligned
-- another provider has his own
SELECT value ->> 'totalRevenue' AS revenue FROM meritum_compute_metrics(helper.p(2), '{revenue_monthly}', '2024-03-01', '2024-03-31');
-- nothing of this was stored
SELECT count(*) FROM meritum_cache.analytics_cache;

--
-- meritum_get_metrics
--
SELECT meritum_refresh_provider_metrics(helper.p(1), NULL, '2024-04-15') > 0 AS written;
SELECT * FROM helper.wrong('2024-04-15', true);
-- all rows, totals and breakdowns
SELECT metric_key, period_start, period_end, dimensions, value
  FROM meritum_get_metrics(helper.p(1), '{claims_paid}', '2024-03-01', '2024-04-30')
 ORDER BY period_start, dimensions NULLS FIRST;
-- with dimensions, those that contain it
SELECT metric_key, period_start, dimensions, value
  FROM meritum_get_metrics(helper.p(1), '{claims_paid,claims_rejected}', '2024-03-01', '2024-04-30', '{"ba_number": "BA1"}')
 ORDER BY metric_key, period_start;
SELECT metric_key, dimensions, value
  FROM meritum_get_metrics(helper.p(1), '{claims_paid}', '2024-03-01', '2024-03-31', '{"ba_number": "BA3"}');
-- {} is contained in every breakdown, but not in a total
SELECT count(*) AS rows, count(dimensions) AS breakdowns
  FROM meritum_get_metrics(helper.p(1), '{claims_paid}', '2024-03-01', '2024-03-31', '{}');
-- the period must lie within, not overlap
SELECT count(*) FROM meritum_get_metrics(helper.p(1), '{claims_paid}', '2024-03-02', '2024-03-31');
SELECT count(*) FROM meritum_get_metrics(helper.p(1), '{claims_paid}', '2024-03-01', '2024-03-30');
-- only the keys asked for, and of the provider asked for
SELECT DISTINCT provider_id, metric_key FROM meritum_get_metrics(helper.p(1), '{claims_paid,stale_claims}', '2024-04-01', '2024-04-30') ORDER BY 2;
SELECT count(*) FROM meritum_get_metrics(helper.p(1), '{}', '2024-03-01', '2024-03-31');
-- it is the table's own row type and content
SELECT count(*) FROM (
    SELECT * FROM meritum_get_metrics(helper.p(1), oracle.metrics_24(), '2023-05-01', '2024-04-30')
    EXCEPT SELECT * FROM meritum_cache.analytics_cache) AS x;
SELECT count(*) FROM (
    SELECT * FROM meritum_cache.analytics_cache
     WHERE provider_id = helper.p(1) AND metric_key = ANY (oracle.metrics_24()) AND period_end <= '2024-04-30'
    EXCEPT SELECT * FROM meritum_get_metrics(helper.p(1), oracle.metrics_24(), '2023-05-01', '2024-04-30')) AS x;

--
-- what is pending is settled for the reader
--
SET meritum_cache.refresh_mode = async;
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(6);
RESET meritum_cache.refresh_mode;
SELECT value FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(1) AND metric_key = 'claims_paid' AND period_start = '2024-03-01' AND dimensions IS NULL;
SELECT value FROM meritum_get_metrics(helper.p(1), '{claims_paid}', '2024-03-01', '2024-03-31') WHERE dimensions IS NULL;
SELECT * FROM helper.wrong('2024-04-15');
-- in a read-only transaction it is computed on the fly and not stored
SET meritum_cache.refresh_mode = async;
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(6);
RESET meritum_cache.refresh_mode;
SELECT helper.watch();
BEGIN READ ONLY;
SELECT metric_key, dimensions, value FROM meritum_get_metrics(helper.p(1), '{claims_paid,claims_rejected}', '2024-03-01', '2024-03-31', '{"ba_number": "BA2"}')
 ORDER BY 1;
SELECT metric_key, value FROM meritum_get_metrics(helper.p(1), '{claims_paid,claims_rejected}', '2024-03-01', '2024-03-31')
 WHERE dimensions IS NULL ORDER BY 1;
COMMIT;
SELECT * FROM helper.moved_rows();
SELECT pending > 0 AS pending, pending_since IS NOT NULL AS since FROM meritum_freshness(helper.p(1));
SELECT value FROM meritum_get_metrics(helper.p(1), '{claims_rejected}', '2024-03-01', '2024-03-31') WHERE dimensions IS NULL;
-- whose figures are asked for is what is settled
SET meritum_cache.refresh_mode = async;
UPDATE claims SET date_of_service = '2024-03-05' WHERE claim_id = helper.c(12);
RESET meritum_cache.refresh_mode;
SELECT count(*) > 0 AS read FROM meritum_get_metrics(helper.p(1), '{claims_paid}', '2024-03-01', '2024-03-31');
SELECT provider_id, count(*) > 0 AS pending FROM meritum_cache.pending_refresh GROUP BY 1;

--
-- the running months
--
INSERT INTO providers (provider_id) VALUES (helper.p(3)), (helper.p(4));
SELECT meritum_is_stale(helper.p(3)) AS stale_without_entries;
SELECT oldest_computed_at, newest_computed_at, pending, pending_since, refreshed_at IS NULL AS never_refreshed, refresh_cause, snapshot_on FROM meritum_freshness(helper.p(3));
SELECT meritum_refresh_provider_metrics(helper.p(3)) AS written \gset
SELECT count(*) = :written AS says_how_many FROM meritum_cache.analytics_cache WHERE provider_id = helper.p(3);
SELECT set_config('helper.today', snapshot_on::text, false) IS NOT NULL AS today FROM meritum_freshness(helper.p(3));
SELECT meritum_is_stale(helper.p(3)) AS stale, meritum_is_stale(helper.p(3), 1) AS after_a_minute, meritum_is_stale(helper.p(3), 0) AS at_once;
SELECT oldest_computed_at <= newest_computed_at AS aged, newest_computed_at <= clock_timestamp() AS past,
       pending, pending_since, refreshed_at IS NOT NULL AS refreshed, refresh_cause IS NOT NULL AS cause, version > 0 AS version
  FROM meritum_freshness(helper.p(3));
-- an empty month is stored as zeros and empty lists
SELECT * FROM oracle.diff(ARRAY[helper.p(3)], oracle.months(helper.month(0)), helper.month(0) + 14, 'UTC');

-- a month among the last 24 that has no entry is computed and stored when it
-- is read
INSERT INTO claims (claim_id, physician_id, state, date_of_service) VALUES
    (helper.c(21), helper.p(3), 'PAID', helper.month(-15) + 3), (helper.c(22), helper.p(3), 'PAID', helper.month(-30) + 3);
SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = helper.p(3) AND period_start < helper.month(-11);
SELECT dimensions, value FROM meritum_get_metrics(helper.p(3), '{claims_paid}', helper.month(-15), helper.month(-14) - 1) ORDER BY dimensions NULLS FIRST;
SELECT metric_key, dimensions, value FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(3) AND period_start = helper.month(-15) AND metric_key = 'claims_paid' ORDER BY dimensions NULLS FIRST;
SELECT count(DISTINCT period_start) FROM meritum_get_metrics(helper.p(3), '{claims_paid}', helper.month(-23), helper.month(1) - 1);
-- from then on it is kept right
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(21);
SELECT * FROM helper.wrong();
-- also of a provider that has nothing yet
SELECT count(*) FROM meritum_get_metrics(helper.p(4), '{claims_paid,claims_rejected}', helper.month(-1), helper.month(0) - 1);
SELECT * FROM helper.wrong();
-- a month further back is not, nor one to come
SELECT count(*) FROM meritum_get_metrics(helper.p(3), '{claims_paid}', helper.month(-30), helper.month(-29) - 1);
SELECT count(*) FROM meritum_get_metrics(helper.p(3), '{claims_paid}', helper.month(1), helper.month(2) - 1);
SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = helper.p(3) AND (period_start < helper.month(-23) OR period_start > helper.month(0));

-- snapshots never lag for a reader
INSERT INTO claims (claim_id, physician_id, state, date_of_service) VALUES (helper.c(23), helper.p(3), 'EXPIRED', helper.month(0));
SELECT value FROM meritum_get_metrics(helper.p(3), '{expired_claims}', helper.month(0), helper.month(1) - 1);
UPDATE claims SET state = 'DRAFT' WHERE claim_id = helper.c(23);
SELECT value FROM meritum_get_metrics(helper.p(3), '{expired_claims}', helper.month(0), helper.month(1) - 1);
SELECT snapshot_on = current_setting('helper.today')::date AS up_to_date FROM meritum_freshness(helper.p(3));
SELECT * FROM helper.wrong(current_setting('helper.today')::date, true) WHERE provider_id = helper.p(3);
-- nor do those that were right before the note which the reader settles
SET meritum_cache.refresh_mode = async;
UPDATE claims SET state = 'EXPIRED' WHERE claim_id = helper.c(23);
SELECT value FROM meritum_get_metrics(helper.p(3), '{expired_claims}', helper.month(0), helper.month(1) - 1);
UPDATE claims SET state = 'DRAFT' WHERE claim_id = helper.c(23);
SELECT value FROM meritum_get_metrics(helper.p(3), '{expired_claims}', helper.month(0), helper.month(1) - 1);
RESET meritum_cache.refresh_mode;
SELECT * FROM helper.wrong(current_setting('helper.today')::date, true) WHERE provider_id = helper.p(3);

--
-- stale entries, and asking for a refresh
--
SELECT count(*) FROM meritum_get_stale_entries(helper.p(3));
SELECT count(*) = (SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = helper.p(3)) AS all_of_them
  FROM meritum_get_stale_entries(helper.p(3), 0);
UPDATE meritum_cache.analytics_cache SET computed_at = now() - interval '61 min'
 WHERE provider_id = helper.p(3) AND metric_key = 'claims_paid' AND period_start = helper.month(-2) AND dimensions IS NULL;
SELECT metric_key, period_start = helper.month(-2) AS month FROM meritum_get_stale_entries(helper.p(3));
SELECT count(*) FROM meritum_get_stale_entries(helper.p(3), 62);
SET meritum_cache.stale_after = '2h';
SELECT count(*) FROM meritum_get_stale_entries(helper.p(3));
RESET meritum_cache.stale_after;
-- a pending change makes stale
SET meritum_cache.refresh_mode = async;
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(23);
RESET meritum_cache.refresh_mode;
SELECT meritum_is_stale(helper.p(3));
SELECT pending, pending_since <= clock_timestamp() AS since FROM meritum_freshness(helper.p(3));
SELECT count(*) > 0 AS read FROM meritum_get_metrics(helper.p(3), ARRAY(SELECT metric_key FROM oracle.all_keys()), helper.month(-11), helper.month(1) - 1);
SELECT meritum_is_stale(helper.p(3));
-- a refresh is queued where something is stale, once
SELECT meritum_request_refresh(helper.p(3)) AS of_one_that_is_fresh;
SET meritum_cache.refresh_mode = async;
UPDATE claims SET state = 'ASSESSED' WHERE claim_id = helper.c(23);
RESET meritum_cache.refresh_mode;
SELECT helper.sqlstate(format('SELECT meritum_request_refresh(%L)', helper.p(3))) AS of_one_that_is_stale;
SELECT meritum_refresh_provider_metrics(helper.p(3)) > 0 AS written;
SELECT meritum_is_stale(helper.p(3));
SELECT count(*) FROM meritum_cache.pending_refresh WHERE provider_id = helper.p(3);
-- the version grows with each change of the figures, and with nothing else
SELECT version AS version FROM meritum_freshness(helper.p(3)) \gset
UPDATE claims SET notes = 'unread' WHERE claim_id = helper.c(23);
SELECT version > :version AS grown FROM meritum_freshness(helper.p(3));
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(23);
SELECT version > :version AS grown FROM meritum_freshness(helper.p(3));

--
-- meritum_verify
--
INSERT INTO providers (provider_id) VALUES (helper.p(5));
INSERT INTO claims (claim_id, physician_id, state, date_of_service) VALUES
    (helper.c(31), helper.p(5), 'PAID', helper.month(0)), (helper.c(32), helper.p(5), 'REJECTED', helper.month(-1));
INSERT INTO ahcip_claim_details (claim_id, ba_number, functional_centre, assessed_fee) VALUES (helper.c(31), 'BA1', 'FC1', 12.34);
SELECT meritum_refresh_provider_metrics(helper.p(5)) > 0 AS written;
SELECT * FROM meritum_verify(helper.p(5));
SELECT count(*) AS rows FROM meritum_cache.analytics_cache WHERE provider_id = helper.p(5) \gset
-- a wrong figure, a missing one, and one too many
UPDATE meritum_cache.analytics_cache SET value = '{"count": 99}'
 WHERE provider_id = helper.p(5) AND metric_key = 'claims_paid' AND period_start = helper.month(0) AND dimensions IS NULL;
DELETE FROM meritum_cache.analytics_cache
 WHERE provider_id = helper.p(5) AND metric_key = 'claims_rejected' AND period_start = helper.month(-1) AND dimensions IS NULL;
INSERT INTO meritum_cache.analytics_cache (provider_id, metric_key, period_start, period_end, dimensions, value, computed_at)
VALUES (helper.p(5), 'claims_paid', helper.month(0), helper.month(1) - 1, '{"ba_number": "BA9"}', '{"count": 1}', now());
SELECT metric_key, period_start = helper.month(0) AS this_month, period_end = (period_start + interval '1 month - 1 day')::date AS whole_month,
       dimensions, cached, computed
  FROM meritum_verify(helper.p(5)) ORDER BY 1, 2, 4 NULLS FIRST;
-- looking repairs nothing
SELECT count(*) FROM meritum_verify(helper.p(5));
-- with repair it says the same, and corrects it
SELECT metric_key, dimensions, cached, computed FROM meritum_verify(helper.p(5), true) ORDER BY 1, 2 NULLS FIRST;
SELECT * FROM meritum_verify(helper.p(5));
SELECT * FROM helper.wrong(current_setting('helper.today')::date, true) WHERE provider_id = helper.p(5);
SELECT count(*) = :rows AS as_many_as_before FROM meritum_cache.analytics_cache WHERE provider_id = helper.p(5);
-- what was switched off during a change is found, snapshots included
ALTER TABLE claims DISABLE TRIGGER USER;
UPDATE claims SET state = 'EXPIRED' WHERE claim_id = helper.c(32);
ALTER TABLE claims ENABLE TRIGGER USER;
SELECT metric_key, cached, computed FROM meritum_verify(helper.p(5))
 WHERE dimensions IS NULL AND metric_key IN ('claims_rejected', 'expired_claims', 'claims_submitted', 'claims_paid') ORDER BY 1;
SELECT count(*) > 0 AS repaired FROM meritum_verify(helper.p(5), true);
SELECT * FROM meritum_verify(helper.p(5));
SELECT * FROM helper.wrong(current_setting('helper.today')::date, true) WHERE provider_id = helper.p(5);
-- the other providers are as right as they were
SELECT count(*) FROM meritum_verify(helper.p(3));

DROP EXTENSION meritum_cache;
DROP SCHEMA shop, oracle, helper CASCADE;
