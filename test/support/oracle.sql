-- oracle.sql: the figures of the metric catalogue, computed plainly.
--
-- The tests compare what the extension keeps with what these functions make
-- of the application's tables.  They are written from the catalogue alone and
-- prefer to be read: no caching, no shortcuts.  The application's tables are
-- found on the search path of the caller.  The extension need not exist until
-- oracle.diff() or oracle.existing_diff() is called.
--
--   oracle.all_keys()        the forty metrics with their grain
--   oracle.metrics_24()      the first twenty-four keys
--   oracle.all_tables()      the source tables
--   oracle.months(to, n)     n first days of months, up to that of a date
--   oracle.cells(...)        every expected row of the cache
--   oracle.diff(...)         cache and expectation compared, both ways
--   oracle.existing_diff(...)  the same for the cells that are in the cache

CREATE SCHEMA oracle;

CREATE FUNCTION oracle.all_keys(
    OUT number integer, OUT metric_key text, OUT grain text)
RETURNS SETOF record
LANGUAGE sql IMMUTABLE AS $$
    SELECT n::integer, k, CASE WHEN n <= 34 THEN 'monthly' ELSE 'snapshot' END
    FROM unnest(ARRAY[
        'revenue_monthly', 'revenue_by_ba', 'revenue_by_location',
        'revenue_by_hsc', 'top_hsc_codes', 'claims_submitted',
        'claims_assessed', 'claims_paid', 'claims_rejected',
        'claims_adjusted', 'rejection_rate_monthly', 'rejection_by_code',
        'rejection_by_hsc', 'rejection_resolution_funnel',
        'pending_pipeline', 'avg_fee_per_claim', 'wcb_by_form_type',
        'wcb_timing_tier_dist', 'wcb_fee_tier_analysis',
        'wcb_revenue_trend', 'wcb_rejection_rate', 'multisite_revenue',
        'multisite_claims', 'multisite_rrnp', 'arp_claims', 'arp_tm_units',
        'arp_rejection_rate', 'reciprocal_claims',
        'reciprocal_acceptance_by_province',
        'reciprocal_rejections_by_province', 'ai_coach_acceptance_rate',
        'ai_coach_revenue_recovered', 'ai_coach_by_category',
        'ai_coach_top_accepted', 'ai_coach_suppressed', 'aging_brackets',
        'approaching_deadline', 'expired_claims', 'avg_resolution_time',
        'stale_claims']) WITH ORDINALITY AS u (k, n)
    ORDER BY n
$$;

CREATE FUNCTION oracle.metrics_24()
RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(metric_key ORDER BY number)
    FROM oracle.all_keys() WHERE number <= 24
$$;

CREATE FUNCTION oracle.all_tables()
RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['claims', 'ahcip_claim_details', 'wcb_claim_details',
                 'wcb_invoice_lines', 'claim_audit_history', 'patients',
                 'providers', 'practice_locations', 'ai_suggestion_events',
                 'ai_provider_learning', 'ai_rules']
$$;

-- The first day of the month of a date; null for no date or an infinite one,
-- which lies in no month.
CREATE FUNCTION oracle.month_of(d date)
RETURNS date
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN isfinite(d)
                THEN date_trunc('month', d::timestamp)::date END
$$;

CREATE FUNCTION oracle.month_end(d date)
RETURNS date
LANGUAGE sql IMMUTABLE AS $$
    SELECT (date_trunc('month', d::timestamp) + interval '1 month -1 day')::date
$$;

CREATE FUNCTION oracle.months(p_to date, p_count integer DEFAULT 12)
RETURNS date[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg((date_trunc('month', p_to::timestamp)
                      - make_interval(months => i))::date ORDER BY i DESC)
    FROM generate_series(0, p_count - 1) AS i
$$;

CREATE FUNCTION oracle.money(n numeric)
RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT round(coalesce(n, 0), 2)::text
$$;

CREATE FUNCTION oracle.rate(part bigint, whole bigint)
RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN whole > 0
                THEN round(100.0 * part / whole, 2)::text ELSE '0.00' END
$$;

-- The codes in one value of assessment_explanatory_codes, one row an
-- occurrence.
CREATE FUNCTION oracle.explanatory_code(codes jsonb)
RETURNS SETOF text
LANGUAGE sql IMMUTABLE AS $$
    SELECT code
    FROM jsonb_array_elements(CASE WHEN jsonb_typeof(codes) = 'array'
                                   THEN codes ELSE '[]' END) AS element,
         LATERAL (SELECT CASE WHEN jsonb_typeof(element) = 'object'
                              THEN element -> 'code'
                              ELSE element END) AS s (scalar),
         LATERAL (SELECT CASE WHEN jsonb_typeof(scalar)
                                   IN ('string', 'number', 'boolean')
                              THEN scalar #>> '{}' END) AS t (code)
    WHERE code IS NOT NULL
$$;

-- The optional source tables.  A table that is not attached (not in p_tables)
-- need not exist; it is then empty.  (ROWS keeps the planner from nesting
-- loops over large platforms.)

CREATE FUNCTION oracle.source_ahcip(p_providers uuid[], p_tables text[])
RETURNS TABLE (claim_id uuid, ba_number text, functional_centre text,
               hsc_code text, shadow boolean, time_spent integer,
               submitted_fee numeric, assessed_fee numeric, codes jsonb)
LANGUAGE plpgsql STABLE ROWS 100000 AS $$
#variable_conflict use_column
BEGIN
    IF 'ahcip_claim_details' = ANY (p_tables) THEN
        RETURN QUERY
        SELECT claim_id, d.ba_number::text, d.functional_centre::text,
               d.health_service_code::text, d.shadow_billing_flag,
               d.time_spent::integer, d.submitted_fee::numeric,
               d.assessed_fee::numeric, d.assessment_explanatory_codes
        FROM claims c JOIN ahcip_claim_details d USING (claim_id)
        WHERE c.physician_id = ANY (p_providers);
    END IF;
END
$$;

CREATE FUNCTION oracle.source_wcb(p_providers uuid[], p_tables text[])
RETURNS TABLE (claim_id uuid, wcb_claim_detail_id uuid, form_id text)
LANGUAGE plpgsql STABLE ROWS 100000 AS $$
#variable_conflict use_column
BEGIN
    IF 'wcb_claim_details' = ANY (p_tables) THEN
        RETURN QUERY
        SELECT claim_id, d.wcb_claim_detail_id, d.form_id::text
        FROM claims c JOIN wcb_claim_details d USING (claim_id)
        WHERE c.physician_id = ANY (p_providers);
    END IF;
END
$$;

-- One row for each claim whose WCB detail has invoice lines.
CREATE FUNCTION oracle.source_invoice(p_providers uuid[], p_tables text[])
RETURNS TABLE (claim_id uuid, amount numeric)
LANGUAGE plpgsql STABLE ROWS 100000 AS $$
#variable_conflict use_column
BEGIN
    IF 'wcb_invoice_lines' = ANY (p_tables) THEN
        RETURN QUERY
        SELECT w.claim_id, sum(l.amount)
        FROM oracle.source_wcb(p_providers, p_tables) w
             JOIN wcb_invoice_lines l USING (wcb_claim_detail_id)
        GROUP BY w.claim_id;
    END IF;
END
$$;

-- The claims that were rejected at some time.
CREATE FUNCTION oracle.source_rejected(p_providers uuid[], p_tables text[])
RETURNS TABLE (claim_id uuid)
LANGUAGE plpgsql STABLE ROWS 100000 AS $$
#variable_conflict use_column
BEGIN
    IF 'claim_audit_history' = ANY (p_tables) THEN
        RETURN QUERY
        SELECT DISTINCT claim_id
        FROM claims c JOIN claim_audit_history h USING (claim_id)
        WHERE c.physician_id = ANY (p_providers)
          AND upper(h.new_state) = 'REJECTED';
    END IF;
END
$$;

CREATE FUNCTION oracle.source_patient(p_providers uuid[], p_tables text[])
RETURNS TABLE (patient_id uuid, province text)
LANGUAGE plpgsql STABLE ROWS 100000 AS $$
#variable_conflict use_column
BEGIN
    IF 'patients' = ANY (p_tables) THEN
        RETURN QUERY
        SELECT p.patient_id, p.phn_province::text
        FROM patients p
        WHERE p.patient_id IN (SELECT c.patient_id FROM claims c
                               WHERE c.physician_id = ANY (p_providers));
    END IF;
END
$$;

CREATE FUNCTION oracle.source_location(p_providers uuid[], p_tables text[])
RETURNS TABLE (provider_id uuid, location_id uuid, name text,
               functional_centre text, rrnp_rate numeric)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    IF 'practice_locations' = ANY (p_tables) THEN
        RETURN QUERY
        SELECT l.provider_id, l.location_id, l.name::text,
               l.functional_centre::text, coalesce(l.rrnp_rate, 0)::numeric
        FROM practice_locations l
        WHERE l.provider_id = ANY (p_providers) AND l.is_active;
    END IF;
END
$$;

CREATE FUNCTION oracle.source_rule(p_tables text[])
RETURNS TABLE (rule_id uuid, name text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    IF 'ai_rules' = ANY (p_tables) THEN
        RETURN QUERY SELECT r.rule_id, r.name::text FROM ai_rules r;
    END IF;
END
$$;

CREATE FUNCTION oracle.source_event(p_providers uuid[], p_zone text,
                                    p_tables text[])
RETURNS TABLE (provider_id uuid, month date, rule_id uuid, rule_name text,
               event_type text, category text, revenue_impact numeric)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    IF 'ai_suggestion_events' = ANY (p_tables) THEN
        RETURN QUERY
        SELECT e.provider_id,
               oracle.month_of((e.created_at AT TIME ZONE p_zone)::date),
               e.rule_id, coalesce(r.name, 'Unknown rule'),
               e.event_type::text, e.category::text, e.revenue_impact::numeric
        FROM ai_suggestion_events e
             LEFT JOIN oracle.source_rule(p_tables) r USING (rule_id)
        WHERE e.provider_id = ANY (p_providers);
    END IF;
END
$$;

CREATE FUNCTION oracle.source_suppressed(p_providers uuid[], p_tables text[])
RETURNS TABLE (provider_id uuid, rule_id uuid, rule_name text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    IF 'ai_provider_learning' = ANY (p_tables) THEN
        RETURN QUERY
        SELECT l.provider_id, l.rule_id, coalesce(r.name, 'Unknown rule')
        FROM ai_provider_learning l
             LEFT JOIN oracle.source_rule(p_tables) r USING (rule_id)
        WHERE l.provider_id = ANY (p_providers) AND l.is_suppressed;
    END IF;
END
$$;

-- Every live claim of the providers, with all that the metrics read of it.
-- The state is in upper case, timestamps are dates in the zone.
CREATE FUNCTION oracle.claim(p_providers uuid[], p_zone text, p_tables text[])
RETURNS TABLE (provider_id uuid, claim_id uuid, claim_type text, state text,
               date_of_service date, month date, submission_deadline date,
               timing_tier text, created_on date, updated_on date,
               has_ahcip boolean, ba_number text, functional_centre text,
               hsc_code text, shadow boolean, time_spent integer,
               submitted_fee numeric, assessed_fee numeric, codes jsonb,
               has_wcb boolean, form_id text, wcb_revenue numeric,
               once_rejected boolean, province text,
               paid boolean, rejected boolean, decided boolean, sent boolean)
LANGUAGE plpgsql STABLE ROWS 100000 AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT c.physician_id, c.claim_id, c.claim_type::text, u.state,
           c.date_of_service, oracle.month_of(c.date_of_service),
           c.submission_deadline,
           c.validation_result ->> 'timing_tier',
           (c.created_at AT TIME ZONE p_zone)::date,
           (c.updated_at AT TIME ZONE p_zone)::date,
           a.claim_id IS NOT NULL, a.ba_number, a.functional_centre,
           a.hsc_code, coalesce(a.shadow, false), a.time_spent,
           a.submitted_fee, a.assessed_fee, a.codes,
           w.claim_id IS NOT NULL, w.form_id, coalesce(i.amount, 0),
           r.claim_id IS NOT NULL, p.province,
           u.state = 'PAID', u.state = 'REJECTED',
           u.state IN ('ASSESSED', 'PAID', 'REJECTED', 'ADJUSTED'),
           u.state IN ('SUBMITTED', 'ASSESSED', 'PAID', 'REJECTED', 'ADJUSTED')
    FROM claims c
         CROSS JOIN LATERAL (SELECT upper(c.state)) AS u (state)
         LEFT JOIN oracle.source_ahcip(p_providers, p_tables) a USING (claim_id)
         LEFT JOIN oracle.source_wcb(p_providers, p_tables) w USING (claim_id)
         LEFT JOIN oracle.source_invoice(p_providers, p_tables) i
             USING (claim_id)
         LEFT JOIN oracle.source_rejected(p_providers, p_tables) r
             USING (claim_id)
         LEFT JOIN oracle.source_patient(p_providers, p_tables) p
             USING (patient_id)
    WHERE c.physician_id = ANY (p_providers)
      AND c.deleted_at IS NULL
      AND u.state IS DISTINCT FROM 'DELETED';
END
$$;

-- Every row that the cache should hold for the providers and months: totals
-- and breakdown rows of the monthly metrics, and the snapshot metrics as of a
-- day, if its month is one of the months.
CREATE FUNCTION oracle.cells(p_providers uuid[], p_months date[],
                             p_as_of date, p_zone text,
                             p_tables text[] DEFAULT oracle.all_tables())
RETURNS TABLE (provider_id uuid, metric_key text, period_start date,
               period_end date, dimensions jsonb, value jsonb)
LANGUAGE sql STABLE SET jit = off AS $$
WITH provider AS (
    SELECT DISTINCT p AS provider_id FROM unnest(p_providers) AS p
), month AS (
    SELECT DISTINCT oracle.month_of(m) AS month FROM unnest(p_months) AS m
), grid AS (
    SELECT provider_id, month FROM provider CROSS JOIN month
), claim AS MATERIALIZED (
    SELECT * FROM oracle.claim(p_providers, p_zone, p_tables)
), location AS MATERIALIZED (
    SELECT * FROM oracle.source_location(p_providers, p_tables)
), claim_in_month AS MATERIALIZED (
    SELECT * FROM claim WHERE month IN (SELECT month FROM month)

-- Objects of counts and sums: one pass over the claims of each total (also of
-- a month without claims) and of each breakdown row.
), counted AS (
    SELECT NULL::jsonb AS dimensions, g.provider_id, g.month, c.claim_id
    FROM grid g LEFT JOIN claim_in_month c
        ON c.provider_id = g.provider_id AND c.month = g.month
    UNION ALL
    SELECT jsonb_build_object('claim_type', claim_type),
           provider_id, month, claim_id
    FROM claim_in_month WHERE claim_type IS NOT NULL
    UNION ALL
    SELECT jsonb_build_object('ba_number', ba_number),
           provider_id, month, claim_id
    FROM claim_in_month WHERE ba_number IS NOT NULL
    UNION ALL
    SELECT jsonb_build_object('location_id', l.location_id),
           c.provider_id, c.month, c.claim_id
    FROM claim_in_month c JOIN location l
        ON l.provider_id = c.provider_id
       AND l.functional_centre = c.functional_centre
), figure AS MATERIALIZED (
    SELECT n.provider_id, n.month, n.dimensions,
           to_char(n.month, 'YYYY-MM') AS month_name,
           -- revenue
           count(*) FILTER (WHERE paid AND has_ahcip) AS revenue_count,
           coalesce(sum(assessed_fee) FILTER (WHERE paid), 0) AS revenue,
           coalesce(sum(submitted_fee) FILTER (WHERE paid), 0) AS fee,
           -- states
           count(*) FILTER (WHERE sent) AS sent,
           count(*) FILTER (WHERE decided) AS decided,
           count(*) FILTER (WHERE state IN ('ASSESSED', 'PAID')) AS assessed,
           count(*) FILTER (WHERE paid) AS paid,
           count(*) FILTER (WHERE rejected) AS rejected,
           count(*) FILTER (WHERE state = 'ADJUSTED') AS adjusted,
           count(*) FILTER (WHERE state = 'WRITTEN_OFF') AS written_off,
           count(*) FILTER (WHERE once_rejected AND NOT rejected
                                  AND (sent OR state = 'QUEUED'))
               AS resubmitted,
           count(*) FILTER (WHERE once_rejected AND paid) AS paid_later,
           count(*) FILTER (WHERE has_ahcip
                                  AND state IN ('QUEUED', 'SUBMITTED'))
               AS pending,
           sum(submitted_fee) FILTER (WHERE state IN ('QUEUED', 'SUBMITTED'))
               AS pending_fee,
           -- WCB
           count(*) FILTER (WHERE claim_type = 'WCB' AND has_wcb)
               AS wcb_count,
           sum(wcb_revenue) FILTER (WHERE claim_type = 'WCB' AND has_wcb)
               AS wcb_revenue,
           count(*) FILTER (WHERE claim_type = 'WCB' AND decided)
               AS wcb_decided,
           count(*) FILTER (WHERE claim_type = 'WCB' AND rejected)
               AS wcb_rejected,
           -- shadow billing
           count(*) FILTER (WHERE shadow) AS arp_count,
           count(*) FILTER (WHERE shadow AND state IN ('ASSESSED', 'PAID'))
               AS arp_assessed,
           count(*) FILTER (WHERE shadow AND decided) AS arp_decided,
           count(*) FILTER (WHERE shadow AND rejected) AS arp_rejected,
           count(*) FILTER (WHERE shadow AND state = 'ADJUSTED')
               AS arp_adjusted,
           coalesce(sum(time_spent) FILTER (WHERE shadow), 0) AS arp_units,
           -- reciprocal billing
           count(*) FILTER (WHERE province <> 'AB') AS reciprocal_count,
           sum(assessed_fee) FILTER (WHERE province <> 'AB' AND paid)
               AS reciprocal_revenue
    FROM counted n LEFT JOIN claim_in_month c USING (claim_id)
    GROUP BY n.provider_id, n.month, n.dimensions
), broken_down AS (
    SELECT f.provider_id, f.month, f.dimensions, o.metric_key, o.value
    FROM figure f CROSS JOIN LATERAL (VALUES
        ('revenue_monthly', jsonb_build_object(
            'totalRevenue', oracle.money(revenue),
            'totalSubmitted', oracle.money(fee),
            'claimCount', revenue_count,
            'monthlyTrend', CASE WHEN revenue_count > 0
                THEN jsonb_build_array(jsonb_build_object(
                    'month', month_name,
                    'revenue', oracle.money(revenue),
                    'count', revenue_count))
                ELSE '[]' END)),
        ('claims_submitted', jsonb_build_object('count', sent)),
        ('claims_assessed', jsonb_build_object('count', assessed)),
        ('claims_paid', jsonb_build_object('count', paid)),
        ('claims_rejected', jsonb_build_object('count', rejected)),
        ('claims_adjusted', jsonb_build_object('count', adjusted)),
        ('rejection_rate_monthly', jsonb_build_object(
            'rate', oracle.rate(rejected, decided),
            'totalRejected', rejected,
            'totalDecided', decided)),
        ('pending_pipeline', jsonb_build_object(
            'value', oracle.money(pending_fee),
            'count', pending)),
        ('avg_fee_per_claim', jsonb_build_object(
            'avgFee', CASE WHEN revenue_count > 0
                           THEN oracle.money(revenue / revenue_count)
                           ELSE '0.00' END))
    ) AS o (metric_key, value)
), arp_date AS (
    SELECT provider_id, month, date_of_service, sum(time_spent) AS units
    FROM claim_in_month WHERE shadow
    GROUP BY provider_id, month, date_of_service
), arp_date_list AS (
    SELECT provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'date', to_char(date_of_service, 'YYYY-MM-DD'),
                         'units', units)
                     ORDER BY date_of_service) AS arp_dates
    FROM arp_date WHERE units > 0 GROUP BY provider_id, month
), total_only AS (
    SELECT f.provider_id, f.month, o.metric_key, o.value
    FROM figure f
         LEFT JOIN arp_date_list USING (provider_id, month)
         CROSS JOIN LATERAL (VALUES
        ('rejection_resolution_funnel', jsonb_build_object(
            'rejected', rejected,
            'resubmitted', resubmitted,
            'paidOnResubmission', paid_later,
            'writtenOff', written_off)),
        ('wcb_revenue_trend', CASE WHEN wcb_count > 0
            THEN jsonb_build_array(jsonb_build_object(
                'month', month_name,
                'revenue', oracle.money(wcb_revenue),
                'count', wcb_count))
            ELSE '[]' END),
        ('wcb_rejection_rate', jsonb_build_object(
            'rate', oracle.rate(wcb_rejected, wcb_decided),
            'totalClaims', wcb_decided,
            'totalRejected', wcb_rejected)),
        ('arp_claims', jsonb_build_object(
            'count', arp_count,
            'assessed', arp_assessed,
            'rejected', arp_rejected,
            'adjusted', arp_adjusted)),
        ('arp_tm_units', jsonb_build_object(
            'units', arp_units,
            'byDate', coalesce(arp_dates, '[]'))),
        ('arp_rejection_rate', jsonb_build_object(
            'rate', oracle.rate(arp_rejected, arp_decided),
            'totalDecided', arp_decided,
            'totalRejected', arp_rejected)),
        ('reciprocal_claims', jsonb_build_object(
            'count', reciprocal_count,
            'revenue', oracle.money(reciprocal_revenue)))
    ) AS o (metric_key, value)
    WHERE f.dimensions IS NULL

-- Lists of claims by business arrangement, service code and explanatory code.
), ba AS (
    SELECT provider_id, month, ba_number,
           coalesce(sum(assessed_fee), 0) AS revenue, count(*) AS count
    FROM claim_in_month WHERE paid AND has_ahcip
    GROUP BY provider_id, month, ba_number
), hsc AS (
    SELECT provider_id, month, hsc_code,
           coalesce(sum(assessed_fee) FILTER (WHERE paid), 0) AS revenue,
           count(*) FILTER (WHERE paid) AS paid,
           count(*) FILTER (WHERE rejected) AS rejected,
           count(*) FILTER (WHERE decided) AS decided
    FROM claim_in_month WHERE has_ahcip
    GROUP BY provider_id, month, hsc_code
), paid_hsc AS (
    SELECT *, row_number() OVER (PARTITION BY provider_id, month
                                 ORDER BY revenue DESC,
                                          hsc_code COLLATE "C" NULLS LAST)
              AS place
    FROM hsc WHERE paid > 0
), explanation AS (
    SELECT c.provider_id, c.month, c.province, e.code
    FROM claim_in_month c
         CROSS JOIN LATERAL oracle.explanatory_code(c.codes) AS e (code)
    WHERE c.rejected AND c.has_ahcip
), explanation_code AS (
    SELECT provider_id, month, code, count(*) AS count
    FROM explanation GROUP BY provider_id, month, code

-- Lists of WCB claims.
), wcb AS (
    SELECT * FROM claim_in_month WHERE claim_type = 'WCB'
), wcb_form AS (
    SELECT provider_id, month, form_id, count(*) AS count,
           sum(wcb_revenue) AS revenue
    FROM wcb WHERE has_wcb GROUP BY provider_id, month, form_id
), wcb_tier AS (
    SELECT provider_id, month, timing_tier AS tier, count(*) AS count
    FROM wcb WHERE timing_tier IS NOT NULL
    GROUP BY provider_id, month, timing_tier
), wcb_fee AS (
    SELECT provider_id, month, timing_tier AS tier, count(*) AS count,
           sum(wcb_revenue) AS revenue
    FROM wcb WHERE has_wcb AND timing_tier IS NOT NULL
    GROUP BY provider_id, month, timing_tier

-- Lists of practice locations: every active one, whether or not it has claims.
), site AS (
    SELECT g.provider_id, g.month, l.location_id, l.name, l.rrnp_rate,
           coalesce(sum(c.assessed_fee) FILTER (WHERE c.paid), 0) AS revenue,
           count(c.claim_id) AS count,
           count(*) FILTER (WHERE c.rejected) AS rejected,
           count(*) FILTER (WHERE c.decided) AS decided
    FROM grid g
         JOIN location l ON l.provider_id = g.provider_id
         LEFT JOIN claim_in_month c
             ON c.provider_id = g.provider_id AND c.month = g.month
            AND c.has_ahcip AND c.functional_centre = l.functional_centre
    GROUP BY g.provider_id, g.month, l.location_id, l.name, l.rrnp_rate

-- Lists of reciprocal billing.
), recip_province AS (
    SELECT provider_id, month, province,
           count(*) FILTER (WHERE decided) AS decided,
           count(*) FILTER (WHERE decided AND NOT rejected) AS accepted
    FROM claim_in_month WHERE province <> 'AB'
    GROUP BY provider_id, month, province
), recip_code AS (
    SELECT provider_id, month, province, code, count(*) AS count
    FROM explanation WHERE province <> 'AB'
    GROUP BY provider_id, month, province, code

-- The AI coach.
), event AS MATERIALIZED (
    SELECT *, event_type = 'generated' AS generated,
           event_type = 'accepted' AS accepted,
           event_type = 'dismissed' AS dismissed
    FROM oracle.source_event(p_providers, p_zone, p_tables)
    WHERE month IN (SELECT month FROM month)
), coach AS (
    SELECT g.provider_id, g.month,
           count(*) FILTER (WHERE generated) AS generated,
           count(*) FILTER (WHERE accepted) AS accepted,
           count(*) FILTER (WHERE dismissed) AS dismissed,
           sum(revenue_impact) FILTER (WHERE accepted) AS revenue
    FROM grid g LEFT JOIN event e
        ON e.provider_id = g.provider_id AND e.month = g.month
    GROUP BY g.provider_id, g.month
), coach_category AS (
    SELECT provider_id, month, category,
           count(*) FILTER (WHERE generated) AS generated,
           count(*) FILTER (WHERE accepted) AS accepted,
           count(*) FILTER (WHERE dismissed) AS dismissed,
           sum(revenue_impact) FILTER (WHERE accepted) AS revenue
    FROM event GROUP BY provider_id, month, category
), coach_rule AS (
    SELECT provider_id, month, rule_id, rule_name, count(*) AS accepted,
           sum(revenue_impact) AS revenue,
           row_number() OVER (PARTITION BY provider_id, month
                              ORDER BY count(*) DESC, rule_id NULLS LAST)
               AS place
    FROM event WHERE accepted
    GROUP BY provider_id, month, rule_id, rule_name

), list AS (
    SELECT 'revenue_by_ba' AS metric_key, provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'baNumber', ba_number,
                         'revenue', oracle.money(revenue),
                         'count', count)
                     ORDER BY revenue DESC, ba_number COLLATE "C" NULLS LAST)
               AS value
    FROM ba GROUP BY provider_id, month
    UNION ALL
    SELECT 'revenue_by_location', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'locationId', location_id,
                         'locationName', name,
                         'revenue', oracle.money(revenue),
                         'claimCount', count,
                         'rejectionRate', oracle.rate(rejected, decided),
                         'rrnpPremium', oracle.money(rrnp_rate))
                     ORDER BY revenue DESC, name COLLATE "C", location_id)
    FROM site GROUP BY provider_id, month
    UNION ALL
    SELECT 'revenue_by_hsc', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'hscCode', hsc_code,
                         'revenue', oracle.money(revenue),
                         'count', paid) ORDER BY place)
    FROM paid_hsc GROUP BY provider_id, month
    UNION ALL
    SELECT 'top_hsc_codes', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'hscCode', hsc_code,
                         'revenue', oracle.money(revenue),
                         'count', paid,
                         'rejectionRate', oracle.rate(rejected, decided))
                     ORDER BY place)
    FROM paid_hsc WHERE place <= 10 GROUP BY provider_id, month
    UNION ALL
    SELECT 'rejection_by_code', provider_id, month,
           jsonb_agg(jsonb_build_object('code', code, 'count', count)
                     ORDER BY count DESC, code COLLATE "C")
    FROM explanation_code GROUP BY provider_id, month
    UNION ALL
    SELECT 'rejection_by_hsc', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'hscCode', hsc_code,
                         'count', rejected,
                         'total', decided,
                         'rate', oracle.rate(rejected, decided))
                     ORDER BY rejected DESC, hsc_code COLLATE "C" NULLS LAST)
    FROM hsc WHERE rejected > 0 GROUP BY provider_id, month
    UNION ALL
    SELECT 'wcb_by_form_type', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'formId', form_id,
                         'count', count,
                         'revenue', oracle.money(revenue))
                     ORDER BY count DESC, form_id COLLATE "C" NULLS LAST)
    FROM wcb_form GROUP BY provider_id, month
    UNION ALL
    SELECT 'wcb_timing_tier_dist', provider_id, month,
           jsonb_agg(jsonb_build_object('tier', tier, 'count', count)
                     ORDER BY count DESC, tier COLLATE "C")
    FROM wcb_tier GROUP BY provider_id, month
    UNION ALL
    SELECT 'wcb_fee_tier_analysis', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'tier', tier,
                         'totalFee', oracle.money(revenue),
                         'avgFee', oracle.money(revenue / count),
                         'count', count)
                     ORDER BY tier COLLATE "C")
    FROM wcb_fee GROUP BY provider_id, month
    UNION ALL
    SELECT 'multisite_revenue', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'locationId', location_id,
                         'locationName', name,
                         'revenue', oracle.money(revenue))
                     ORDER BY revenue DESC, location_id)
    FROM site GROUP BY provider_id, month
    UNION ALL
    SELECT 'multisite_claims', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'locationId', location_id,
                         'locationName', name,
                         'claimCount', count,
                         'rejectedCount', rejected,
                         'rejectionRate', oracle.rate(rejected, decided))
                     ORDER BY count DESC, location_id)
    FROM site GROUP BY provider_id, month
    UNION ALL
    SELECT 'multisite_rrnp', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'locationId', location_id,
                         'locationName', name,
                         'rrnpRate', oracle.money(rrnp_rate),
                         'revenue', oracle.money(revenue))
                     ORDER BY rrnp_rate DESC, location_id)
    FROM site GROUP BY provider_id, month
    UNION ALL
    SELECT 'reciprocal_acceptance_by_province', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'province', province,
                         'decided', decided,
                         'accepted', accepted,
                         'rate', oracle.rate(accepted, decided))
                     ORDER BY province COLLATE "C")
    FROM recip_province GROUP BY provider_id, month
    UNION ALL
    SELECT 'reciprocal_rejections_by_province', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'province', province,
                         'code', code,
                         'count', count)
                     ORDER BY province COLLATE "C", count DESC,
                              code COLLATE "C")
    FROM recip_code GROUP BY provider_id, month
    UNION ALL
    SELECT 'ai_coach_by_category', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'category', category,
                         'generated', generated,
                         'accepted', accepted,
                         'dismissed', dismissed,
                         'rate', oracle.rate(accepted, accepted + dismissed),
                         'revenue', oracle.money(revenue))
                     ORDER BY accepted DESC,
                              category COLLATE "C" NULLS LAST)
    FROM coach_category GROUP BY provider_id, month
    UNION ALL
    SELECT 'ai_coach_top_accepted', provider_id, month,
           jsonb_agg(jsonb_build_object(
                         'ruleId', rule_id,
                         'ruleName', rule_name,
                         'acceptedCount', accepted,
                         'revenue', oracle.money(revenue))
                     ORDER BY place)
    FROM coach_rule WHERE place <= 5 GROUP BY provider_id, month
), list_key (metric_key) AS (
    VALUES ('revenue_by_ba'), ('revenue_by_location'), ('revenue_by_hsc'),
           ('top_hsc_codes'), ('rejection_by_code'), ('rejection_by_hsc'),
           ('wcb_by_form_type'), ('wcb_timing_tier_dist'),
           ('wcb_fee_tier_analysis'), ('multisite_revenue'),
           ('multisite_claims'), ('multisite_rrnp'),
           ('reciprocal_acceptance_by_province'),
           ('reciprocal_rejections_by_province'), ('ai_coach_by_category'),
           ('ai_coach_top_accepted')

-- Snapshots of today, over claims of any date.
), today AS (
    SELECT p.provider_id, m.month
    FROM provider p CROSS JOIN month m
    WHERE m.month = oracle.month_of(p_as_of)
), bracket (label, min_days, max_days) AS (
    VALUES ('0-30 days', 0, 30), ('31-60 days', 31, 60),
           ('61-90 days', 61, 90), ('90+ days', 91, NULL)
), aged AS (
    SELECT provider_id, submitted_fee,
           greatest(p_as_of - date_of_service, 0) AS days
    FROM claim
    WHERE isfinite(date_of_service)
      AND state IN ('DRAFT', 'VALIDATED', 'QUEUED', 'SUBMITTED')
), aging AS (
    SELECT t.provider_id, t.month, b.label, b.min_days, b.max_days,
           count(a.days) AS count, sum(a.submitted_fee) AS fee
    FROM today t CROSS JOIN bracket b
         LEFT JOIN aged a
             ON a.provider_id = t.provider_id AND a.days >= b.min_days
            AND (a.days <= b.max_days OR b.max_days IS NULL)
    GROUP BY t.provider_id, t.month, b.label, b.min_days, b.max_days
), deadline AS (
    SELECT provider_id, claim_id, submission_deadline,
           submission_deadline - p_as_of AS days
    FROM claim
    WHERE isfinite(submission_deadline)
      AND submission_deadline BETWEEN p_as_of AND p_as_of + 7
      AND state IN ('DRAFT', 'VALIDATED', 'QUEUED')
), resolved AS (
    SELECT provider_id, avg(updated_on - date_of_service) AS days,
           count(*) AS count
    FROM claim
    WHERE paid
      AND month BETWEEN (oracle.month_of(p_as_of) - interval '11 months')::date
                    AND oracle.month_of(p_as_of)
    GROUP BY provider_id
), lingering AS (
    SELECT provider_id,
           count(*) FILTER (WHERE state = 'EXPIRED') AS expired,
           count(*) FILTER (WHERE state IN ('DRAFT', 'VALIDATED')
                                  AND p_as_of - created_on > 14) AS stale
    FROM claim GROUP BY provider_id
), snapshot AS (
    SELECT t.provider_id, t.month, o.metric_key, o.value
    FROM today t
         LEFT JOIN resolved r USING (provider_id)
         LEFT JOIN lingering s USING (provider_id)
         CROSS JOIN LATERAL (VALUES
        ('ai_coach_suppressed',
         (SELECT coalesce(jsonb_agg(
                     jsonb_build_object('ruleId', s.rule_id,
                                        'ruleName', s.rule_name)
                     ORDER BY s.rule_name COLLATE "C", s.rule_id), '[]')
          FROM oracle.source_suppressed(p_providers, p_tables) s
          WHERE s.provider_id = t.provider_id)),
        ('aging_brackets',
         (SELECT jsonb_agg(jsonb_build_object(
                     'label', label,
                     'minDays', min_days,
                     'maxDays', max_days,
                     'count', count,
                     'value', oracle.money(fee)) ORDER BY min_days)
          FROM aging a WHERE a.provider_id = t.provider_id)),
        ('approaching_deadline',
         (SELECT jsonb_build_object(
                     'count', count(*),
                     'claims', coalesce(jsonb_agg(jsonb_build_object(
                         'claimId', claim_id,
                         'deadline', to_char(submission_deadline, 'YYYY-MM-DD'),
                         'daysRemaining', days)
                         ORDER BY submission_deadline, claim_id), '[]'))
          FROM deadline d WHERE d.provider_id = t.provider_id)),
        ('expired_claims',
         jsonb_build_object('count', coalesce(s.expired, 0))),
        ('avg_resolution_time',
         jsonb_build_object('avgDays', round(r.days, 1),
                            'count', coalesce(r.count, 0))),
        ('stale_claims',
         jsonb_build_object('count', coalesce(s.stale, 0)))
    ) AS o (metric_key, value)

), cell (provider_id, metric_key, month, dimensions, value) AS (
    SELECT provider_id, metric_key, month, dimensions, value FROM broken_down
    UNION ALL
    SELECT provider_id, metric_key, month, NULL, value FROM total_only
    UNION ALL
    SELECT g.provider_id, k.metric_key, g.month, NULL, coalesce(l.value, '[]')
    FROM grid g CROSS JOIN list_key k
         LEFT JOIN list l USING (provider_id, month, metric_key)
    UNION ALL
    SELECT provider_id, 'ai_coach_acceptance_rate', month, NULL,
           jsonb_build_object(
               'rate', oracle.rate(accepted, accepted + dismissed),
               'totalGenerated', generated,
               'totalAccepted', accepted,
               'totalDismissed', dismissed)
    FROM coach
    UNION ALL
    SELECT provider_id, 'ai_coach_revenue_recovered', month, NULL,
           jsonb_build_object('revenue', oracle.money(revenue))
    FROM coach
    UNION ALL
    SELECT provider_id, metric_key, month, NULL, value FROM snapshot
)
SELECT provider_id, metric_key, month, oracle.month_end(month), dimensions,
       value
FROM cell
$$;

-- What the cache holds of the providers, months and metrics (null: all), and
-- what it should hold: the rows that are in one and not in the other, as
-- often as they are.  A snapshot metric is compared in the month of p_as_of
-- only, since earlier months keep what they had.
CREATE FUNCTION oracle.diff(p_providers uuid[], p_months date[],
                            p_as_of date, p_zone text,
                            p_tables text[] DEFAULT oracle.all_tables(),
                            p_keys text[] DEFAULT NULL)
RETURNS TABLE (side text, provider_id uuid, metric_key text,
               period_start date, period_end date, dimensions jsonb,
               value jsonb)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH cached AS (
        SELECT c.provider_id, c.metric_key::text, c.period_start,
               c.period_end, c.dimensions, c.value
        FROM meritum_cache.analytics_cache c
             JOIN oracle.all_keys() k ON k.metric_key = c.metric_key
        WHERE c.provider_id = ANY (p_providers)
          AND oracle.month_of(c.period_start)
              IN (SELECT oracle.month_of(m) FROM unnest(p_months) AS m)
          AND (k.grain = 'monthly'
               OR oracle.month_of(c.period_start) = oracle.month_of(p_as_of))
          AND (p_keys IS NULL OR c.metric_key = ANY (p_keys))
    ), expected AS MATERIALIZED (
        SELECT *
        FROM oracle.cells(p_providers, p_months, p_as_of, p_zone, p_tables) e
        WHERE p_keys IS NULL OR e.metric_key = ANY (p_keys)
    )
    (SELECT 'cached', x.*
     FROM (SELECT * FROM cached EXCEPT ALL SELECT * FROM expected) AS x
     UNION ALL
     SELECT 'expected', y.*
     FROM (SELECT * FROM expected EXCEPT ALL SELECT * FROM cached) AS y)
    ORDER BY 2, 4, 3, 6 NULLS FIRST, 1;
END
$$;

-- The same for those (provider, metric, month) only whose total is in the
-- cache: a month or metric that was never computed is no difference.  Null
-- months are all months in the cache.  Snapshot metrics, which may lag, are
-- compared if p_snapshots says so.
CREATE FUNCTION oracle.existing_diff(p_providers uuid[], p_months date[],
                                     p_as_of date, p_zone text,
                                     p_tables text[]
                                         DEFAULT oracle.all_tables(),
                                     p_keys text[] DEFAULT NULL,
                                     p_snapshots boolean DEFAULT false)
RETURNS TABLE (side text, provider_id uuid, metric_key text,
               period_start date, period_end date, dimensions jsonb,
               value jsonb)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_months date[] := coalesce(p_months,
        (SELECT array_agg(DISTINCT oracle.month_of(c.period_start))
         FROM meritum_cache.analytics_cache c
         WHERE c.provider_id = ANY (p_providers)));
BEGIN
    RETURN QUERY
    SELECT d.*
    FROM oracle.diff(p_providers, v_months, p_as_of, p_zone, p_tables,
                     p_keys) d
         JOIN oracle.all_keys() k USING (metric_key)
    WHERE (k.grain = 'monthly' OR p_snapshots)
      AND EXISTS (SELECT FROM meritum_cache.analytics_cache c
                  WHERE c.provider_id = d.provider_id
                    AND c.metric_key = d.metric_key
                    AND oracle.month_of(c.period_start)
                        = oracle.month_of(d.period_start)
                    AND c.dimensions IS NULL);
END
$$;
