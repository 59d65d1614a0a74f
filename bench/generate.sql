-- generate.sql: a realistic platform of any size, the same for the same seed.
--
-- Fills the tables of test/support/platform.sql, found on the search path:
--
--   SELECT gen.platform(42, 200, 12, '2025-06-30');          -- benchmarks
--   SELECT gen.platform(42, 30, 6, current_date, 0.3);       -- a demo
--
-- Six providers in ten have about 150 claims a month, three have 300 and one
-- has 1,200, times p_scale.  The running month is filled up to p_as_of, so a
-- p_as_of at the end of a month gives whole months.  Nothing depends on
-- random(), the clock or the session's time zone.

CREATE SCHEMA gen;

-- A fraction in [0, 1) for a numbered thing and a purpose (salt).
CREATE FUNCTION gen.fraction(p_seed bigint, p_number bigint, p_salt integer)
RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ((hashint8extended(p_number, p_seed * 1009 + p_salt) >> 11)
            & 9007199254740991)::float8 / 9007199254740992
$$;

-- The id of a numbered thing of a kind ('provider', 'claim', ...).
CREATE FUNCTION gen.id(p_seed bigint, p_kind text, p_number bigint)
RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT md5(p_seed::text || p_kind || p_number::text)::uuid
$$;

-- One of the values, as often as its weight says (weights are percentages
-- that need not add up; what is left goes to the last value).
CREATE FUNCTION gen.pick(p_fraction float8, p_values text[], p_weights float8[])
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    v_left float8 := p_fraction * 100;
BEGIN
    FOR i IN 1 .. cardinality(p_weights) LOOP
        v_left := v_left - p_weights[i];
        IF v_left < 0 THEN
            RETURN p_values[i];
        END IF;
    END LOOP;
    RETURN p_values[cardinality(p_values)];
END
$$;

-- The state of a claim some days after the service.
CREATE FUNCTION gen.state(p_fraction float8, p_age integer)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN p_age < 3 THEN gen.pick(p_fraction,
            '{DRAFT,VALIDATED,QUEUED,SUBMITTED}', '{40,30,25,5}')
        WHEN p_age < 10 THEN gen.pick(p_fraction,
            '{SUBMITTED,QUEUED,DRAFT,VALIDATED,ASSESSED}', '{55,25,8,7,5}')
        WHEN p_age < 30 THEN gen.pick(p_fraction,
            '{SUBMITTED,ASSESSED,PAID,REJECTED,DRAFT,QUEUED}',
            '{44,26,20,6,3,1}')
        WHEN p_age < 60 THEN gen.pick(p_fraction,
            '{PAID,REJECTED,ASSESSED,SUBMITTED,ADJUSTED,DRAFT,DELETED}',
            '{80,6,5,4,3,1,1}')
        WHEN p_age <= 90 THEN gen.pick(p_fraction,
            '{PAID,REJECTED,ADJUSTED,WRITTEN_OFF,SUBMITTED,DRAFT,VALIDATED}',
            '{90,4,3,1,1,0.5,0.5}')
        ELSE gen.pick(p_fraction,
            '{PAID,ADJUSTED,REJECTED,WRITTEN_OFF,EXPIRED,DELETED}',
            '{91,3,2.5,1.5,1.3,0.7}')
        END
$$;

CREATE FUNCTION gen.platform(p_seed bigint, p_providers integer,
                             p_months integer, p_as_of date,
                             p_scale numeric DEFAULT 1.0)
RETURNS bigint
LANGUAGE plpgsql SET jit = off SET timezone = 'UTC' AS $$
DECLARE
    v_running date := date_trunc('month', p_as_of::timestamp)::date;
    v_claims bigint;
BEGIN
    -- What is fixed about a provider.  Location 1 is at one of a few shared
    -- functional centres (hospitals), the others are the provider's own.
    CREATE TEMP TABLE gen_provider AS
    SELECT n,
           gen.id(p_seed, 'provider', n) AS provider_id,
           greatest(1, p_scale * CASE WHEN n % 10 = 0 THEN 1200
                                      WHEN n % 10 <= 3 THEN 300
                                      ELSE 150 END)::integer AS per_month,
           10 + (gen.fraction(p_seed, n, 1) * 90)::integer AS codes,
           1 + (gen.fraction(p_seed, n, 2) ^ 2 * 4)::integer % 4 AS locations,
           CASE WHEN gen.fraction(p_seed, n, 3) < 0.3 THEN 2 ELSE 1 END AS bas,
           n % 7 = 3 AS shadow,
           'FH' || lpad((n % (p_providers / 4 + 2))::text, 4, '0') AS hospital
    FROM generate_series(1, p_providers) AS n;

    INSERT INTO providers (provider_id, status, billing_number, first_name,
                           last_name, specialty_code, created_at, updated_at)
    SELECT provider_id,
           CASE WHEN n % 50 = 49 THEN 'SUSPENDED' ELSE 'ACTIVE' END,
           (100000 + n)::text, 'Given' || n, 'Family' || n,
           (ARRAY['GP', 'INTM', 'DIRD', 'EMSP'])[1 + n % 4],
           v_running - interval '3 years', v_running - interval '1 year'
    FROM gen_provider;

    INSERT INTO practice_locations (location_id, provider_id, name,
                                    functional_centre, rrnp_eligible,
                                    rrnp_rate, is_default, is_active,
                                    created_at, updated_at)
    SELECT gen.id(p_seed, 'location', n * 10 + l), provider_id,
           (ARRAY['Hospital', 'Clinic', 'Care Centre', 'Lodge'])[l] || ' ' || n,
           CASE WHEN l = 1 THEN hospital
                ELSE 'F' || lpad((n * 10 + l)::text, 6, '0') END,
           f < 0.3,
           CASE WHEN f < 0.3 THEN round((5 + f * 80)::numeric, 2) END,
           l = 1, l = 1 OR f < 0.9,
           v_running - interval '3 years', v_running - interval '1 year'
    FROM gen_provider
         CROSS JOIN LATERAL generate_series(1, locations) AS l
         CROSS JOIN LATERAL gen.fraction(p_seed, n * 10 + l, 4) AS f;

    INSERT INTO patients (patient_id, provider_id, phn, phn_province,
                          first_name, last_name, date_of_birth, gender,
                          created_at, updated_at)
    SELECT gen.id(p_seed, 'patient', n * 100000::bigint + k), provider_id,
           lpad(((n * 100000::bigint + k) % 1000000000)::text, 9, '0'),
           gen.pick(gen.fraction(p_seed, n * 100000::bigint + k, 5),
                    ARRAY['BC', 'SK', 'ON', 'MB', NULL, 'AB'],
                    '{1.5,1.3,0.8,0.4,0.5}'),
           'Given' || k, 'Family' || k,
           p_as_of - (gen.fraction(p_seed, n * 100000::bigint + k, 6)
                      * 32000)::integer,
           CASE WHEN k % 2 = 0 THEN 'F' ELSE 'M' END,
           v_running - interval '2 years', v_running - interval '2 years'
    FROM gen_provider
         CROSS JOIN LATERAL generate_series(1, per_month * 3) AS k;

    -- Every claim with what its rows in the several tables share.
    CREATE TEMP TABLE gen_claim AS
    SELECT c.n, p.n AS provider, p.provider_id, p.shadow,
           gen.id(p_seed, 'claim', c.n) AS claim_id,
           gen.id(p_seed, 'patient', p.n * 100000::bigint + 1
                  + (gen.fraction(p_seed, c.n, 10)
                     * (p.per_month * 3 - 1))::integer) AS patient_id,
           CASE WHEN gen.fraction(p_seed, c.n, 11) < 0.1 THEN 'WCB'
                ELSE 'AHCIP' END AS claim_type,
           d.dos,
           gen.state(gen.fraction(p_seed, c.n, 13), p_as_of - d.dos) AS state,
           'BA' || lpad((p.n * 2 + CASE WHEN gen.fraction(p_seed, c.n, 14) < 0.8
                                   THEN 0 ELSE p.bas - 1 END)::text, 5, '0')
               AS ba_number,
           -- now and then a centre that is no location of the provider
           CASE WHEN l.location = 1 THEN p.hospital
                WHEN l.location > p.locations THEN 'FX' || p.n % 10
                ELSE 'F' || lpad((p.n * 10 + l.location)::text, 6, '0')
                END AS functional_centre,
           s.code,
           round((20 + gen.fraction(p_seed, s.code, 17) ^ 3 * 480)::numeric
                 * CASE WHEN gen.fraction(p_seed, c.n, 18) < 0.2
                        THEN 1.15 ELSE 1 END, 2) AS fee,
           gen.fraction(p_seed, c.n, 19) AS luck,
           gen.fraction(p_seed, c.n, 20) AS pace
    FROM gen_provider p
         CROSS JOIN generate_series(0, p_months - 1) AS m
         CROSS JOIN LATERAL (
             SELECT (v_running - make_interval(months => m))::date AS first_day,
                    (v_running + make_interval(months => 1 - m))::date AS end_day
         ) AS month
         CROSS JOIN LATERAL (
             SELECT least(end_day, p_as_of + 1) - first_day AS days,
                    end_day - first_day AS whole
         ) AS length
         CROSS JOIN LATERAL generate_series(1, greatest(1, round(p.per_month
             * (0.9 + 0.2 * gen.fraction(p_seed, p.n * 1000 + m, 7))
             * days / whole))::integer) AS k
         CROSS JOIN LATERAL (
             SELECT (p.n * 1000 + m)::bigint * 100000 + k AS n) AS c
         CROSS JOIN LATERAL (
             SELECT first_day + floor(gen.fraction(p_seed, c.n, 12)
                                      * days)::integer AS dos) AS d
         CROSS JOIN LATERAL (
             SELECT CASE WHEN gen.fraction(p_seed, c.n, 15) < 0.04
                         THEN p.locations + 1
                         ELSE 1 + floor(gen.fraction(p_seed, c.n, 15) * 97)
                                  ::integer % p.locations END AS location
         ) AS l
         CROSS JOIN LATERAL (
             -- a provider's first codes are by far the most used
             SELECT (p.n % 20) * 40 + floor(gen.fraction(p_seed, c.n, 16) ^ 2
                                            * p.codes)::integer AS code
         ) AS s;

    INSERT INTO claims (claim_id, physician_id, patient_id, claim_type, state,
                        is_clean, date_of_service, submission_deadline,
                        submitted_at, validation_result, created_by,
                        created_at, updated_at, deleted_at)
    SELECT claim_id, provider_id, patient_id, claim_type, state,
           luck < 0.9, dos, dos + 90,
           CASE WHEN state IN ('SUBMITTED', 'ASSESSED', 'PAID', 'REJECTED',
                               'ADJUSTED', 'WRITTEN_OFF')
                THEN dos + interval '9 days' * pace END,
           CASE WHEN claim_type = 'WCB' AND luck < 0.85
                THEN jsonb_build_object('errors', '[]'::jsonb, 'timing_tier',
                         (ARRAY['same_day', 'on_time', 'late'])
                             [1 + floor(pace * 3)::integer])
                WHEN luck < 0.3 THEN '{"errors": []}' END,
           provider_id,
           least(dos + interval '3 days' * luck, p_as_of::timestamp),
           least(dos + interval '50 days' * pace, p_as_of::timestamp),
           CASE WHEN luck BETWEEN 0.5 AND 0.505
                THEN least(dos + interval '5 days', p_as_of::timestamp) END
    FROM gen_claim;
    GET DIAGNOSTICS v_claims = ROW_COUNT;

    INSERT INTO ahcip_claim_details (ahcip_detail_id, claim_id, ba_number,
                                     functional_centre, health_service_code,
                                     diagnostic_code, time_spent,
                                     shadow_billing_flag, submitted_fee,
                                     assessed_fee,
                                     assessment_explanatory_codes)
    SELECT gen.id(p_seed, 'ahcip', n), claim_id, ba_number, functional_centre,
           lpad((1 + code % 97)::text, 2, '0') || '.'
               || lpad((code % 89)::text, 2, '0') || chr(65 + code % 26),
           (100 + code % 800)::text,
           CASE WHEN shadow OR luck < 0.1 THEN 1 + floor(pace * 8) END,
           shadow AND luck < 0.7,
           fee,
           CASE WHEN state = 'ADJUSTED'
                     THEN round(fee * (0.6 + 0.3 * luck)::numeric, 2)
                WHEN state IN ('PAID', 'ASSESSED') AND luck < 0.96 THEN fee
                WHEN state IN ('PAID', 'ASSESSED') THEN round(fee * 0.85, 2)
                WHEN state = 'REJECTED' THEN 0 END,
           CASE WHEN state NOT IN ('REJECTED', 'ADJUSTED') THEN NULL
                WHEN luck < 0.7
                    THEN jsonb_build_array(gen.explanation(pace))
                WHEN luck < 0.9
                    THEN jsonb_build_array(gen.explanation(pace),
                                           gen.explanation(luck))
                ELSE jsonb_build_array(jsonb_build_object(
                         'code', gen.explanation(pace),
                         'description', 'Refer to the schedule')) END
    FROM gen_claim WHERE claim_type = 'AHCIP';

    INSERT INTO wcb_claim_details (wcb_claim_detail_id, claim_id, form_id,
                                   date_of_injury, created_at, updated_at)
    SELECT gen.id(p_seed, 'wcb', n), claim_id,
           (ARRAY['C050E', 'C151', 'C568', 'C050S', 'C569', 'C570'])
               [1 + floor(luck * luck * 6)::integer],
           dos - floor(pace * 30)::integer, dos, dos
    FROM gen_claim WHERE claim_type = 'WCB';

    INSERT INTO wcb_invoice_lines (wcb_invoice_line_id, wcb_claim_detail_id,
                                   invoice_detail_id, health_service_code,
                                   amount)
    SELECT gen.id(p_seed, 'line', n * 10 + l), gen.id(p_seed, 'wcb', n), l,
           '03.0' || l, round(94.15 + fee * (l - 1), 2)
    FROM gen_claim
         CROSS JOIN generate_series(1, 2) AS l
    WHERE claim_type = 'WCB' AND (l = 1 OR luck < 0.4);

    -- One history row for the claim's creation, one for its present state,
    -- and one for a rejection on the way there.
    INSERT INTO claim_audit_history (audit_id, claim_id, action,
                                     previous_state, new_state, created_at)
    SELECT gen.id(p_seed, 'audit', n * 10 + step), claim_id,
           CASE WHEN step = 1 THEN 'claim.created'
                ELSE 'claim.state_changed' END,
           CASE step WHEN 2 THEN 'SUBMITTED' WHEN 3 THEN 'QUEUED' END,
           CASE step WHEN 1 THEN 'DRAFT' WHEN 2 THEN 'REJECTED'
                ELSE state END,
           least(dos + interval '15 days' * pace * step, p_as_of::timestamp)
    FROM gen_claim
         CROSS JOIN generate_series(1, 3) AS step
    WHERE step = 1
       OR step = 2 AND (state = 'WRITTEN_OFF'
                        OR state IN ('PAID', 'QUEUED', 'SUBMITTED')
                           AND luck BETWEEN 0.90 AND 0.93)
       OR step = 3 AND state <> 'DRAFT';

    INSERT INTO ai_rules (rule_id, name, category, created_at)
    SELECT gen.id(p_seed, 'rule', n), 'Suggestion rule ' || n,
           gen.category(n), v_running - interval '3 years'
    FROM generate_series(1, 40) AS n;

    -- A suggestion for one claim in ten; most are answered on the same day.
    INSERT INTO ai_suggestion_events (event_id, claim_id, suggestion_id,
                                      rule_id, provider_id, event_type,
                                      category, revenue_impact, created_at)
    SELECT gen.id(p_seed, 'event', n * 10 + step), claim_id,
           gen.id(p_seed, 'suggestion', n),
           CASE WHEN luck < 0.09 THEN gen.id(p_seed, 'rule', rule) END,
           provider_id,
           CASE WHEN step = 1 THEN 'generated'
                WHEN pace < 0.5 THEN 'accepted' ELSE 'dismissed' END,
           gen.category(rule), round(fee * 0.15, 2),
           least(dos + interval '1 day' * pace
                 + interval '1 hour' * step, p_as_of + interval '12 hours')
    FROM gen_claim
         CROSS JOIN LATERAL (SELECT 1 + code % 40) AS r (rule)
         CROSS JOIN generate_series(1, 2) AS step
    WHERE luck < 0.1 AND (step = 1 OR pace < 0.8);

    INSERT INTO ai_provider_learning (learning_id, provider_id, rule_id,
                                      times_shown, is_suppressed, updated_at)
    SELECT gen.id(p_seed, 'learning', p.n * 100 + r), provider_id,
           gen.id(p_seed, 'rule', r), 1 + floor(f * 100)::integer, f < 0.05,
           v_running
    FROM gen_provider p
         CROSS JOIN generate_series(1, 40) AS r
         CROSS JOIN LATERAL gen.fraction(p_seed, p.n * 100 + r, 30) AS f
    WHERE f < 0.4;

    DROP TABLE gen_claim, gen_provider;
    ANALYZE providers, patients, practice_locations, claims,
        ahcip_claim_details, wcb_claim_details, wcb_invoice_lines,
        claim_audit_history, ai_rules, ai_suggestion_events,
        ai_provider_learning;
    RETURN v_claims;
END
$$;

-- An explanatory code of the assessment; a few are much more frequent.
CREATE FUNCTION gen.explanation(p_fraction float8)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT lpad(floor(p_fraction * p_fraction * 60)::integer::text, 2, '0')
           || chr(65 + floor(p_fraction * p_fraction * 60)::integer % 5)
$$;

CREATE FUNCTION gen.category(p_rule integer)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (ARRAY['MODIFIER', 'TIME_UNITS', 'DIAGNOSTIC', 'REFERRAL',
                  'WCB_FORM', 'BUNDLING'])[1 + p_rule % 6]
$$;

COMMENT ON FUNCTION gen.platform(bigint, integer, integer, date, numeric) IS
'fills the platform tables with p_providers providers and p_months months of claims up to p_as_of; returns the number of claims';
