-- helper.sql: what the regression tests share, in a schema of its own.
--
-- Run after platform.sql and oracle.sql.  Identifiers are fixed, so that they
-- may be printed: helper.p(1) is a provider, helper.c(1) a claim, and so on.
-- All timestamps that the tests store lie at 10:00 UTC in the middle of a
-- month, so that the server's time zone changes no figure.
--
--   helper.fault(sql)     SQLSTATE, message, detail and hint of a failing
--                         command
--   helper.wrong(...)     the cache compared with the oracle, both ways
--   helper.watch()        remembers the cache
--   helper.moved()        the metrics whose total was written since, removed
--                         or added
--   helper.moved_rows()   the same, row by row, breakdowns included

CREATE SCHEMA helper;

CREATE FUNCTION helper.id(kind text, n integer)
RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$
    SELECT (kind || '0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;

-- provider, claim, detail, location, patient, rule
CREATE FUNCTION helper.p(n integer) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$ SELECT helper.id('a', n) $$;
CREATE FUNCTION helper.c(n integer) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$ SELECT helper.id('c', n) $$;
CREATE FUNCTION helper.d(n integer) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$ SELECT helper.id('d', n) $$;
CREATE FUNCTION helper.l(n integer) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$ SELECT helper.id('b', n) $$;
CREATE FUNCTION helper.t(n integer) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$ SELECT helper.id('e', n) $$;
CREATE FUNCTION helper.r(n integer) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$ SELECT helper.id('f', n) $$;

-- A month n months after the running one, in the eyes of the extension; the
-- test sets helper.today first.
CREATE FUNCTION helper.month(n integer)
RETURNS date
LANGUAGE sql STABLE AS $$
    SELECT (date_trunc('month', current_setting('helper.today')::timestamp)
            + make_interval(months => n))::date
$$;

-- "none", or what went wrong.
CREATE FUNCTION helper.fault(command text)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_detail text;
    v_hint text;
BEGIN
    EXECUTE command;
    RETURN 'none';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL,
                            v_hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || ': ' || SQLERRM
           || coalesce(E'\n  detail: ' || nullif(v_detail, ''), '')
           || coalesce(E'\n  hint: ' || nullif(v_hint, ''), '');
END
$$;

-- The SQLSTATE alone, where the words do not matter.
CREATE FUNCTION helper.sqlstate(command text)
RETURNS text
LANGUAGE sql AS $$ SELECT left(helper.fault(command), 5) $$;

-- What the cache holds of the test's providers (those of helper.p) and what
-- it should hold, where they differ.
CREATE FUNCTION helper.wrong(p_as_of date DEFAULT '2024-05-15',
                             p_snapshots boolean DEFAULT false,
                             p_tables text[] DEFAULT oracle.all_tables())
RETURNS TABLE (side text, provider_id uuid, metric_key text, month date,
               dimensions jsonb, value jsonb)
LANGUAGE sql STABLE AS $$
    SELECT d.side, d.provider_id, d.metric_key, d.period_start, d.dimensions,
           d.value
    FROM oracle.existing_diff(
             (SELECT array_agg(helper.p(n)) FROM generate_series(1, 9) AS n),
             NULL, p_as_of, 'UTC', p_tables, NULL, p_snapshots) AS d
$$;

CREATE TABLE helper.seen AS SELECT * FROM meritum_cache.analytics_cache
WITH NO DATA;

CREATE FUNCTION helper.watch()
RETURNS void
LANGUAGE sql AS $$
    TRUNCATE helper.seen;
    INSERT INTO helper.seen SELECT * FROM meritum_cache.analytics_cache;
$$;

-- Whether a row was written, added or removed since helper.watch().
CREATE FUNCTION helper.moved_rows()
RETURNS TABLE (provider_id uuid, month date, metric_key text,
               dimensions jsonb, change text, old jsonb, new jsonb)
LANGUAGE sql STABLE AS $$
    SELECT coalesce(s.provider_id, c.provider_id),
           coalesce(s.period_start, c.period_start),
           coalesce(s.metric_key, c.metric_key)::text,
           coalesce(s.dimensions, c.dimensions),
           CASE WHEN s.provider_id IS NULL THEN 'added'
                WHEN c.provider_id IS NULL THEN 'removed'
                WHEN s.value = c.value THEN 'touched'
                ELSE 'changed' END,
           s.value, c.value
    FROM helper.seen s FULL JOIN meritum_cache.analytics_cache c
         ON  c.provider_id = s.provider_id
         AND c.metric_key = s.metric_key
         AND c.period_start = s.period_start
         AND coalesce(c.dimensions, 'null') = coalesce(s.dimensions, 'null')
    WHERE s.provider_id IS NULL OR c.provider_id IS NULL
       OR s.computed_at <> c.computed_at OR s.value <> c.value
       OR s.cache_id <> c.cache_id
$$;

CREATE FUNCTION helper.moved(p_grain text DEFAULT 'monthly')
RETURNS TABLE (provider_id uuid, month date, metrics text)
LANGUAGE sql STABLE AS $$
    SELECT m.provider_id, m.month,
           string_agg(m.metric_key, ' ' ORDER BY k.number)
    FROM helper.moved_rows() m JOIN oracle.all_keys() k USING (metric_key)
    WHERE m.dimensions IS NULL AND k.grain = p_grain
    GROUP BY 1, 2 ORDER BY 1, 2
$$;
