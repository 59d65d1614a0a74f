-- peers.sql: what one would write without the extension, to measure beside it.

-- part trigger

CREATE TABLE cache (
    provider_id uuid NOT NULL,
    metric_key text NOT NULL,
    month date NOT NULL,
    value jsonb NOT NULL,
    computed_at timestamptz NOT NULL,
    PRIMARY KEY (provider_id, metric_key, month)
) WITH (fillfactor = 50);

CREATE FUNCTION refresh_month() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_month date := date_trunc('month', NEW.date_of_service)::date;
BEGIN
    INSERT INTO cache (provider_id, metric_key, month, value, computed_at)
    SELECT NEW.physician_id, m.key, v_month, m.value, clock_timestamp()
    FROM (SELECT count(*) FILTER (WHERE state = 'PAID' AND d.claim_id IS NOT NULL) AS n,
                 coalesce(sum(assessed_fee) FILTER (WHERE state = 'PAID'), 0.00) AS revenue,
                 coalesce(sum(submitted_fee) FILTER (WHERE state = 'PAID'), 0.00) AS submitted,
                 count(*) FILTER (WHERE state IN ('SUBMITTED', 'ASSESSED', 'PAID', 'REJECTED', 'ADJUSTED')) AS sent,
                 count(*) FILTER (WHERE state IN ('ASSESSED', 'PAID')) AS assessed,
                 count(*) FILTER (WHERE state = 'PAID') AS paid,
                 count(*) FILTER (WHERE state = 'REJECTED') AS rejected,
                 count(*) FILTER (WHERE state IN ('ASSESSED', 'PAID', 'REJECTED', 'ADJUSTED')) AS decided,
                 count(*) FILTER (WHERE state IN ('QUEUED', 'SUBMITTED') AND d.claim_id IS NOT NULL) AS pending,
                 coalesce(sum(submitted_fee) FILTER (WHERE state IN ('QUEUED', 'SUBMITTED')), 0.00) AS pending_fee
          FROM claims c LEFT JOIN ahcip_claim_details d USING (claim_id)
          WHERE c.physician_id = NEW.physician_id
            AND c.date_of_service >= v_month
            AND c.date_of_service < (v_month + interval '1 month')::date
            AND c.deleted_at IS NULL AND c.state <> 'DELETED') AS s,
         LATERAL (VALUES
             ('revenue_monthly', jsonb_build_object(
                 'totalRevenue', revenue::text, 'totalSubmitted', submitted::text, 'claimCount', n)),
             ('claims_submitted', jsonb_build_object('count', sent)),
             ('claims_assessed', jsonb_build_object('count', assessed)),
             ('claims_paid', jsonb_build_object('count', paid)),
             ('claims_rejected', jsonb_build_object('count', rejected)),
             ('rejection_rate_monthly', jsonb_build_object(
                 'rate', coalesce(round(100.0 * rejected / nullif(decided, 0), 2), 0)::text,
                 'totalRejected', rejected, 'totalDecided', decided)),
             ('pending_pipeline', jsonb_build_object('value', pending_fee::text, 'count', pending)),
             ('avg_fee_per_claim', jsonb_build_object(
                 'avgFee', coalesce(round(revenue / nullif(n, 0), 2), 0)::text))) AS m (key, value)
    ON CONFLICT (provider_id, metric_key, month) DO UPDATE
        SET value = excluded.value, computed_at = excluded.computed_at;
    RETURN NULL;
END
$$;

CREATE TRIGGER refresh_month AFTER UPDATE ON claims
    FOR EACH ROW EXECUTE FUNCTION refresh_month();

-- part views

CREATE VIEW live AS
SELECT c.physician_id, date_trunc('month', c.date_of_service)::date AS month,
       c.state, d.claim_id IS NOT NULL AS detailed, d.ba_number,
       d.functional_centre, d.health_service_code AS hsc_code,
       d.submitted_fee, d.assessed_fee, d.assessment_explanatory_codes AS codes,
       c.state IN ('ASSESSED', 'PAID', 'REJECTED', 'ADJUSTED') AS decided
FROM claims c LEFT JOIN ahcip_claim_details d USING (claim_id)
WHERE c.deleted_at IS NULL AND c.state <> 'DELETED';

CREATE FUNCTION rate(part bigint, whole bigint) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN CASE WHEN whole > 0 THEN round(100.0 * part / whole, 2)::text ELSE '0.00' END;

CREATE MATERIALIZED VIEW revenue_monthly AS
SELECT physician_id, month, jsonb_build_object(
           'totalRevenue', coalesce(sum(assessed_fee), 0)::text,
           'totalSubmitted', coalesce(sum(submitted_fee), 0)::text,
           'claimCount', count(*)) AS value
FROM live WHERE state = 'PAID' AND detailed GROUP BY 1, 2;

CREATE MATERIALIZED VIEW revenue_by_ba AS
SELECT physician_id, month, jsonb_agg(jsonb_build_object(
           'baNumber', ba_number, 'revenue', revenue::text, 'count', n)
           ORDER BY revenue DESC, ba_number) AS value
FROM (SELECT physician_id, month, ba_number, coalesce(sum(assessed_fee), 0) AS revenue, count(*) AS n
      FROM live WHERE state = 'PAID' AND detailed GROUP BY 1, 2, 3) AS s
GROUP BY 1, 2;

CREATE MATERIALIZED VIEW revenue_by_location AS
SELECT physician_id, month, jsonb_agg(jsonb_build_object(
           'locationId', location_id, 'locationName', name, 'revenue', revenue::text,
           'claimCount', n, 'rejectionRate', rate(rejected, decided),
           'rrnpPremium', coalesce(rrnp_rate, 0)::text)
           ORDER BY revenue DESC, name, location_id) AS value
FROM (SELECT c.physician_id, c.month, l.location_id, l.name, l.rrnp_rate,
             coalesce(sum(c.assessed_fee) FILTER (WHERE state = 'PAID'), 0) AS revenue, count(*) AS n,
             count(*) FILTER (WHERE state = 'REJECTED') AS rejected,
             count(*) FILTER (WHERE decided) AS decided
      FROM live c JOIN practice_locations l
           ON l.provider_id = c.physician_id AND l.functional_centre = c.functional_centre AND l.is_active
      WHERE detailed GROUP BY 1, 2, 3) AS s
GROUP BY 1, 2;

CREATE MATERIALIZED VIEW revenue_by_hsc AS
SELECT physician_id, month, jsonb_agg(jsonb_build_object(
           'hscCode', hsc_code, 'revenue', revenue::text, 'count', n)
           ORDER BY revenue DESC, hsc_code) AS value
FROM (SELECT physician_id, month, hsc_code, coalesce(sum(assessed_fee), 0) AS revenue, count(*) AS n
      FROM live WHERE state = 'PAID' AND detailed GROUP BY 1, 2, 3) AS s
GROUP BY 1, 2;

CREATE MATERIALIZED VIEW top_hsc_codes AS
SELECT physician_id, month, jsonb_agg(jsonb_build_object(
           'hscCode', hsc_code, 'revenue', revenue::text, 'count', n,
           'rejectionRate', rate(rejected, decided))
           ORDER BY revenue DESC, hsc_code) AS value
FROM (SELECT *, row_number() OVER (PARTITION BY physician_id, month
                                   ORDER BY revenue DESC, hsc_code) AS place
      FROM (SELECT physician_id, month, hsc_code,
                   coalesce(sum(assessed_fee) FILTER (WHERE state = 'PAID'), 0) AS revenue,
                   count(*) FILTER (WHERE state = 'PAID') AS n,
                   count(*) FILTER (WHERE state = 'REJECTED') AS rejected,
                   count(*) FILTER (WHERE decided) AS decided
            FROM live WHERE detailed GROUP BY 1, 2, 3) AS s
      WHERE n > 0) AS ranked
WHERE place <= 10
GROUP BY 1, 2;

CREATE MATERIALIZED VIEW claims_submitted AS
SELECT physician_id, month, jsonb_build_object('count', count(*)) AS value
FROM live WHERE decided OR state = 'SUBMITTED' GROUP BY 1, 2;

CREATE MATERIALIZED VIEW claims_assessed AS
SELECT physician_id, month, jsonb_build_object('count', count(*)) AS value
FROM live WHERE state IN ('ASSESSED', 'PAID') GROUP BY 1, 2;

CREATE MATERIALIZED VIEW claims_paid AS
SELECT physician_id, month, jsonb_build_object('count', count(*)) AS value
FROM live WHERE state = 'PAID' GROUP BY 1, 2;

CREATE MATERIALIZED VIEW claims_rejected AS
SELECT physician_id, month, jsonb_build_object('count', count(*)) AS value
FROM live WHERE state = 'REJECTED' GROUP BY 1, 2;

CREATE MATERIALIZED VIEW claims_adjusted AS
SELECT physician_id, month, jsonb_build_object('count', count(*)) AS value
FROM live WHERE state = 'ADJUSTED' GROUP BY 1, 2;

CREATE MATERIALIZED VIEW rejection_rate_monthly AS
SELECT physician_id, month, jsonb_build_object(
           'rate', rate(count(*) FILTER (WHERE state = 'REJECTED'), count(*)),
           'totalRejected', count(*) FILTER (WHERE state = 'REJECTED'),
           'totalDecided', count(*)) AS value
FROM live WHERE decided GROUP BY 1, 2;

CREATE MATERIALIZED VIEW rejection_by_code AS
SELECT physician_id, month, jsonb_agg(jsonb_build_object('code', code, 'count', n)
           ORDER BY n DESC, code) AS value
FROM (SELECT physician_id, month, code, count(*) AS n
      FROM live, jsonb_array_elements(codes) AS element,
           LATERAL (SELECT CASE jsonb_typeof(element) WHEN 'object' THEN element ->> 'code'
                                ELSE element #>> '{}' END) AS e (code)
      WHERE state = 'REJECTED' AND code IS NOT NULL GROUP BY 1, 2, 3) AS s
GROUP BY 1, 2;

CREATE MATERIALIZED VIEW rejection_by_hsc AS
SELECT physician_id, month, jsonb_agg(jsonb_build_object(
           'hscCode', hsc_code, 'count', rejected, 'total', n, 'rate', rate(rejected, n))
           ORDER BY rejected DESC, hsc_code) AS value
FROM (SELECT physician_id, month, hsc_code, count(*) AS n,
             count(*) FILTER (WHERE state = 'REJECTED') AS rejected
      FROM live WHERE decided AND detailed GROUP BY 1, 2, 3) AS s
WHERE rejected > 0
GROUP BY 1, 2;

CREATE MATERIALIZED VIEW pending_pipeline AS
SELECT physician_id, month, jsonb_build_object(
           'value', coalesce(sum(submitted_fee), 0)::text, 'count', count(*)) AS value
FROM live WHERE state IN ('QUEUED', 'SUBMITTED') AND detailed GROUP BY 1, 2;

DO $$
DECLARE
    v_view regclass;
BEGIN
    FOR v_view IN SELECT oid FROM pg_class WHERE relkind = 'm' LOOP
        EXECUTE format('CREATE UNIQUE INDEX ON %s (physician_id, month)', v_view);
    END LOOP;
END
$$;
