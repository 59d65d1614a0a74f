--
-- metrics of one's own
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin
\set p '''a0000000-0000-4000-8000-000000000001'''
\set q '''a0000000-0000-4000-8000-000000000002'''
CREATE TABLE spend (spend_id serial, provider_id uuid, spent_on date, category text, amount numeric);
INSERT INTO spend (provider_id, spent_on, category, amount) VALUES
    (:p, '2024-03-05', 'rent', 1000), (:p, '2024-03-20', 'staff', 250.5), (:p, '2024-05-01', 'rent', 1100),
    (:q, '2024-03-07', 'rent', 7), (:p, '2022-01-09', 'rent', 900);

-- what the cache holds of these metrics
CREATE FUNCTION held() RETURNS TABLE (provider text, metric_key text, month text, dimensions jsonb, value jsonb)
LANGUAGE sql AS $$
    SELECT right(provider_id::text, 1), metric_key, period_start || CASE WHEN period_end <> (period_start + interval '1 month - 1 day')::date THEN ' to ' || period_end ELSE '' END,
           dimensions, value
      FROM meritum_cache.analytics_cache WHERE metric_key NOT IN (SELECT metric_key FROM meritum_cache.builtin_metric())
     ORDER BY 1, 2, 3, 4 NULLS FIRST
$$;

-- without claims and without such metrics there is nothing to refresh
SELECT helper.fault('SELECT meritum_refresh_provider_metrics(''a0000000-0000-4000-8000-000000000001'')');

--
-- creating: what is wrong shows at once
--
CREATE TEMP TABLE mine (v jsonb);
SELECT q, helper.fault(format('SELECT meritum_create_metric(%L, %L)', 'my:x', q)) AS fault FROM (VALUES
    (1, ''), (2, 'SELECT'), (3, 'SELEC NULL::jsonb, to_jsonb(1)'), (4, 'SELECT NULL::jsonb, to_jsonb(1); SELECT 2'),
    (5, 'DELETE FROM spend RETURNING NULL::jsonb, to_jsonb(1)'),
    (6, 'WITH d AS (DELETE FROM spend RETURNING amount) SELECT NULL::jsonb, to_jsonb(amount) FROM d'),
    (7, 'SELECT NULL::jsonb, to_jsonb(amount) FROM spend FOR UPDATE'), (8, 'SELECT NULL::jsonb, to_jsonb(1) INTO hidden'),
    (9, 'SELECT NULL::jsonb, to_jsonb($4::text)'), (10, 'SELECT to_jsonb(1)'), (11, 'SELECT NULL::jsonb, 1'),
    (12, 'SELECT NULL, to_jsonb(1)'), (13, 'SELECT NULL::jsonb, to_jsonb(1), 3'), (14, 'SELECT NULL::jsonb, v FROM mine'),
    (15, 'SELECT NULL::jsonb, to_jsonb(amount) FROM nowhere'), (16, 'TABLE spend'), (17, 'EXPLAIN SELECT 1')) AS v (n, q) ORDER BY n;
SELECT helper.fault('SELECT meritum_create_metric(' || args || ')') FROM (VALUES
    (1, 'NULL, ''SELECT 1'''), (2, '''x'', NULL'), (3, '''x'', ''SELECT 1'', NULL'), (4, '''x'', ''SELECT 1'', ''monthly'', NULL'),
    (5, ''''', ''SELECT 1'''), (6, 'repeat(''x'', 51), ''SELECT 1'''), (7, '''x'', ''SELECT 1'', ''weekly'''),
    (8, '''claims_paid'', ''SELECT NULL::jsonb, to_jsonb(1)''')) AS v (n, args) ORDER BY n;
DROP TABLE mine;

-- an error in it points into the query, or shows it
SELECT meritum_create_metric('my:x', 'SELECT NULL::jsonb, to_jsonb(nothing) FROM spend');
SELECT meritum_create_metric('my:x', concat('SELECT NULL::jsonb, to_jsonb(noth', 'ing) FROM spend'));

SELECT meritum_create_metric('my:spend',
    $$SELECT NULL::jsonb, jsonb_build_object('spent', coalesce(sum(amount), 0)) FROM spend WHERE provider_id = $1 AND spent_on BETWEEN $2 AND $3$$,
    description => 'money spent');
SELECT meritum_create_metric('my:category',
    $$SELECT jsonb_build_object('category', category), jsonb_build_object('spent', sum(amount)) FROM spend
       WHERE provider_id = $1 AND spent_on BETWEEN $2 AND $3 GROUP BY category ORDER BY 2$$);
SELECT meritum_create_metric('my:count', 'SELECT NULL::jsonb, jsonb_build_object(''count'', count(*)) FROM spend WHERE provider_id = $1', 'snapshot');
-- 50 characters, and every byte of them
SELECT meritum_create_metric(repeat('é', 50), 'SELECT NULL::jsonb, to_jsonb(1)');
SELECT meritum_drop_metric(repeat('é', 50));
SELECT helper.fault('SELECT meritum_create_metric(''my:spend'', ''SELECT NULL::jsonb, to_jsonb(1)'')');
SELECT metric_key, grain, breakdown, description, search_path, owner = current_user::regrole AS own FROM meritum_cache.metric WHERE query IS NOT NULL ORDER BY 1;

--
-- refreshing, without any claims
--
SELECT meritum_is_stale(:p);
SELECT meritum_refresh_provider_metrics(:p, NULL, '2024-05-15');
SELECT * FROM held();
SELECT right(provider_id::text, 1) AS provider, metric_key, full_from, full_to, snapshot_on FROM meritum_cache.metric_state ORDER BY 2;
SELECT version, full_from, full_to, snapshot_on, refresh_cause FROM meritum_cache.provider_state;
SELECT meritum_is_stale(:p);
SELECT * FROM meritum_verify(:p);
-- again: equal rows get another time, and nothing else
SELECT helper.watch();
SELECT meritum_refresh_provider_metrics(:p, NULL, '2024-05-15');
SELECT metric_key, change, count(*) FROM helper.moved_rows() GROUP BY 1, 2 ORDER BY 1;
SELECT version FROM meritum_cache.provider_state;
-- one of them; rows that are no longer returned go, new ones come
DELETE FROM spend WHERE category = 'staff';
UPDATE spend SET amount = 1001 WHERE provider_id = :p AND spent_on = '2024-03-05';
INSERT INTO spend (provider_id, spent_on, category, amount) VALUES (:p, '2024-03-31', 'tools', 5);
SELECT metric_key, period_start, dimensions, cached, computed FROM meritum_verify(:p) ORDER BY 1, 2, 3;
SELECT helper.watch();
SELECT meritum_refresh_provider_metrics(:p, '{my:category}', '2024-05-15');
SELECT month, metric_key, dimensions, change, old, new FROM helper.moved_rows() ORDER BY 1, 2, 3;
-- verify sets the others right
SELECT metric_key, period_start, dimensions, cached, computed FROM meritum_verify(:p, true) ORDER BY 1, 2, 3;
SELECT metric_key, period_start, dimensions, cached, computed FROM meritum_verify(:p);
-- built-in metrics need claims
SELECT helper.fault('SELECT meritum_refresh_provider_metrics(''a0000000-0000-4000-8000-000000000001'', ''{claims_paid,my:spend}'')');
SELECT helper.fault('SELECT meritum_refresh_provider_metrics(''a0000000-0000-4000-8000-000000000001'', ''{my:nothing}'')');

--
-- reading
--
-- today, as the extension has it
SELECT value FROM meritum_get_metrics(helper.p(3), '{my:count}', '-infinity', 'infinity');
SELECT set_config('helper.today', snapshot_on::text, false) IS NOT NULL AS today FROM meritum_cache.metric_state WHERE provider_id = helper.p(3);
SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = :q;
-- months of the last 24 are computed when they are first read
INSERT INTO spend (provider_id, spent_on, category, amount) VALUES (:q, helper.month(-2), 'rent', 8), (:q, helper.month(0), 'rent', 9);
SELECT period_start = helper.month(0) AS running, dimensions, value FROM meritum_get_metrics(:q, '{my:spend,my:category,my:count}', helper.month(-1), helper.month(1))
 ORDER BY metric_key, period_start;
SELECT metric_key, count(*) FROM meritum_cache.analytics_cache WHERE provider_id = :q GROUP BY 1 ORDER BY 1;
SELECT metric_key, full_from = helper.month(-1) AND full_to = helper.month(0) AS months, snapshot_on = current_setting('helper.today')::date AS today FROM meritum_cache.metric_state WHERE provider_id = :q ORDER BY 1;
-- a month without rows is not computed again and again
SELECT helper.watch();
SELECT count(*) FROM meritum_get_metrics(:q, '{my:category}', helper.month(-1), (helper.month(0) - 1));
SELECT count(*) FROM helper.moved_rows();
-- in a transaction block, and where it is read-only, nothing is stored
BEGIN;
SELECT count(*), sum((value ->> 'spent')::numeric) FROM meritum_get_metrics(:q, '{my:spend}', helper.month(-5), helper.month(1));
SELECT count(*) FROM helper.moved_rows();
COMMIT;
BEGIN READ ONLY;
SELECT count(*), sum((value ->> 'spent')::numeric) FROM meritum_get_metrics(:q, '{my:spend}', helper.month(-5), helper.month(1));
COMMIT;
SELECT count(*) FROM helper.moved_rows();
-- by dimensions
SELECT dimensions, value FROM meritum_get_metrics(:q, '{my:category,my:spend}', helper.month(0), helper.month(1), '{"category": "rent"}');
BEGIN;
SELECT dimensions, value FROM meritum_get_metrics(:q, '{my:category,my:spend}', helper.month(-2), helper.month(0) - 1, '{"category": "rent"}');
COMMIT;
-- a snapshot is outdated when the day is another
UPDATE meritum_cache.metric_state SET snapshot_on = snapshot_on - 1 WHERE provider_id = :q AND metric_key = 'my:count';
INSERT INTO spend (provider_id, spent_on, category, amount) VALUES (:q, '2024-03-08', 'rent', 1);
SELECT value FROM meritum_get_metrics(:q, '{my:count}', helper.month(0), helper.month(1));
SELECT snapshot_on = current_setting('helper.today')::date AS today FROM meritum_cache.metric_state WHERE provider_id = :q AND metric_key = 'my:count';
-- over any range, not stored
SELECT * FROM meritum_compute_metrics(:p, '{my:spend}', '2022-01-01', '2023-12-31');
SELECT * FROM meritum_compute_metrics(:p, '{my:category}', '2022-01-01', '2023-12-31');
SELECT helper.fault(format('SELECT * FROM meritum_compute_metrics(%L, ''{my:spend}'', ''2024-01-01'', ''2024-12-31'', ''{"claim_type": "WCB"}'')', :p));
SELECT helper.sqlstate(format('SELECT * FROM meritum_compute_metrics(%L, ''{my:spend,claims_paid}'', ''2024-01-01'', ''2024-12-31'')', :p));

--
-- entries of the application's own, staleness, expiry
--
SELECT metric_key, dimensions, value FROM meritum_upsert_metric(:p, 'my:spend', '2021-01-01', '2021-12-31', NULL, '{"spent": 12}');
SELECT meritum_bulk_upsert(:p, '[{"metric_key": "my:spend", "period_start": "2021-01-01", "period_end": "2021-06-30", "value": 1},
                                 {"metric_key": "my:category", "period_start": "2021-01-01", "period_end": "2021-06-30", "dimensions": {"category": "x"}, "value": 2}]');
SELECT * FROM held() WHERE month LIKE '2021%';
SELECT count(*) FROM meritum_get_stale_entries(:q, 0);
SELECT meritum_delete_expired_entries(:p, '2024-04-01');
SELECT * FROM held() WHERE provider = '1';
SELECT metric_key, full_from, full_to FROM meritum_cache.metric_state WHERE provider_id = :p ORDER BY 1;
SELECT * FROM meritum_verify(:p);

--
-- the nightly batch
--
CALL meritum_refresh_all_providers(as_of => '2024-05-15');
SELECT right(provider_id::text, 1) AS provider, refresh_cause, full_from FROM meritum_cache.provider_state ORDER BY 1;
SELECT count(*) FROM meritum_verify(:p);
SELECT count(*) FROM meritum_verify(:q);

--
-- a query that fails: the others are written
--
SELECT meritum_create_metric('my:ratio', 'SELECT NULL::jsonb, to_jsonb(sum(1 / amount)) FROM spend WHERE provider_id = $1 AND spent_on BETWEEN $2 AND $3 HAVING count(*) > 0');
SELECT meritum_refresh_provider_metrics(:p, NULL, '2024-05-15');
SELECT * FROM held() WHERE metric_key = 'my:ratio';
INSERT INTO spend (provider_id, spent_on, category, amount) VALUES (:p, '2024-05-02', 'gift', 0);
SELECT helper.watch();
SELECT meritum_refresh_provider_metrics(:p, NULL, '2024-05-15');
SELECT metric_key, change, count(*) FROM helper.moved_rows() GROUP BY 1, 2 ORDER BY 1, 2;
SELECT provider_id, scope, metric_key, month, cause, attempts, sqlstate, message FROM meritum_cache.pending_refresh;
SELECT meritum_is_stale(:p);
SELECT pending FROM meritum_freshness(:p);
-- who reads others does not run into it, who reads this one does
SELECT count(*) > 0 AS read FROM meritum_get_metrics(:p, '{my:spend,my:count}', '2024-05-01', '2024-05-31');
SELECT helper.fault(format('SELECT * FROM meritum_get_metrics(%L, ''{my:spend,my:ratio}'', ''2024-05-01'', ''2024-05-31'')', :p));
SELECT helper.fault(format('SELECT * FROM meritum_compute_metrics(%L, ''{my:ratio}'', ''2024-05-01'', ''2024-05-31'')', :p));
SELECT count(*) FROM meritum_verify(:p);
-- again: one note; only attempts of the worker count
SELECT meritum_refresh_provider_metrics(:p, NULL, '2024-05-15');
SELECT metric_key, attempts, sqlstate FROM meritum_cache.pending_refresh;
-- set right
DELETE FROM spend WHERE amount = 0;
SELECT meritum_refresh_provider_metrics(:p, NULL, '2024-05-15');
SELECT count(*) FROM meritum_cache.pending_refresh;
SELECT * FROM meritum_verify(:p);
SELECT meritum_drop_metric('my:ratio');

-- results that cannot be kept
SELECT meritum_create_metric('bad:twice', 'SELECT NULL::jsonb, to_jsonb(n) FROM generate_series(1, 2) n');
SELECT meritum_create_metric('bad:null', 'SELECT ''{"a": 1}''::jsonb, NULL::jsonb');
SELECT meritum_create_metric('bad:array', 'SELECT ''[]''::jsonb, ''1''::jsonb');
SELECT meritum_create_metric('bad:self', 'SELECT NULL::jsonb, value FROM meritum_get_metrics($1, ''{bad:self}'', $2, $3)');
CREATE FUNCTION spend_more() RETURNS jsonb LANGUAGE sql AS 'INSERT INTO shop.spend (amount) VALUES (1) RETURNING to_jsonb(amount)';
SELECT meritum_create_metric('bad:write', 'SELECT NULL::jsonb, spend_more()');
CREATE FUNCTION leave() RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN SET TRANSACTION READ WRITE; INSERT INTO shop.spend (amount) VALUES (1); RETURN '1'; END$$;
SELECT meritum_create_metric('bad:leave', 'SELECT NULL::jsonb, leave()');
\set VERBOSITY terse
SELECT meritum_refresh_provider_metrics(:q, array_agg(metric_key::text ORDER BY metric_key), '2024-05-15') FROM meritum_cache.metric WHERE metric_key LIKE 'bad:%';
SELECT meritum_refresh_provider_metrics(:q, '{bad:self}');
\set VERBOSITY default
SELECT metric_key, sqlstate, message FROM meritum_cache.pending_refresh ORDER BY 1;
SELECT count(*) FROM spend WHERE provider_id IS NULL;
SELECT meritum_drop_metric(metric_key) FROM meritum_cache.metric WHERE metric_key LIKE 'bad:%';
SELECT count(*) FROM meritum_cache.pending_refresh;

--
-- it runs with its owner's rights, path and settings, whoever asks
--
CREATE ROLE regress_meritum_admin;
CREATE ROLE regress_meritum_reader;
GRANT USAGE ON SCHEMA shop, helper TO regress_meritum_admin, regress_meritum_reader;
GRANT USAGE, CREATE ON SCHEMA shop TO regress_meritum_admin;
SELECT meritum_grant('regress_meritum_admin', 'admin'), meritum_grant('regress_meritum_reader', 'reader');
SET ROLE regress_meritum_reader;
SELECT helper.sqlstate('SELECT meritum_create_metric(''x'', ''SELECT NULL::jsonb, to_jsonb(1)'')');
SET ROLE regress_meritum_admin;
SELECT meritum_create_metric('our:who', 'SELECT NULL::jsonb, jsonb_build_object(''user'', current_user, ''path'', current_setting(''search_path''), ''zone'', current_setting(''TimeZone'') = $$Asia/Tokyo$$, ''date'', to_char(date ''2024-05-06'', ''YYYY''), ''text'', (date ''2024-05-06'')::text) WHERE $1 IS NOT NULL AND $2 = ''2024-05-01''');
-- it can become nobody else
CREATE FUNCTION escape(how text) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN EXECUTE how; RETURN to_jsonb(current_user); END$$;
SELECT meritum_create_metric('our:escape' || n, format('SELECT NULL::jsonb, escape(%L) WHERE $1 IS NOT NULL', how))
  FROM (VALUES (1, 'RESET ROLE'), (2, 'RESET SESSION AUTHORIZATION'), (3, 'CREATE TEMP TABLE loot (a integer)'), (4, 'SET search_path = pg_temp')) AS v (n, how);
SELECT meritum_create_metric('our:secret', 'SELECT NULL::jsonb, to_jsonb(count(*)) FROM spend WHERE provider_id = $1');
RESET ROLE;
\set VERBOSITY terse
SELECT meritum_refresh_provider_metrics(:p, '{our:escape1,our:escape2,our:escape3}', '2024-05-15');
SELECT meritum_refresh_provider_metrics(:p, '{our:escape4}', '2024-05-15');
SHOW search_path;
\set VERBOSITY default
SELECT DISTINCT value FROM meritum_cache.analytics_cache WHERE metric_key LIKE 'our:%';
SELECT metric_key, sqlstate, message FROM meritum_cache.pending_refresh ORDER BY 1;
SELECT meritum_drop_metric('our:escape' || n) FROM generate_series(1, 4) n;
SET timezone = 'Asia/Tokyo';
SET datestyle = 'German';
SELECT meritum_refresh_provider_metrics(:p, '{our:who,our:secret}', '2024-05-15');
SET ROLE regress_meritum_reader;
SET datestyle = 'ISO, YMD';
SELECT value FROM meritum_get_metrics(:p, '{our:who}', '2024-05-01', '2024-05-31');
RESET ROLE;
RESET timezone;
SELECT metric_key, sqlstate, message FROM meritum_cache.pending_refresh;
GRANT SELECT ON spend TO regress_meritum_admin;
-- the table of the path, not a temporary one of the session
CREATE TEMP TABLE spend (provider_id uuid);
SELECT meritum_refresh_provider_metrics(:p, '{our:secret}', '2024-05-15');
SELECT DISTINCT value FROM meritum_cache.analytics_cache WHERE metric_key = 'our:secret';
DROP TABLE pg_temp.spend;
SELECT count(*) FROM meritum_cache.pending_refresh;
-- an owner that is no more
DELETE FROM meritum_cache.analytics_cache WHERE metric_key = 'our:secret';
SELECT meritum_revoke('regress_meritum_admin'), meritum_revoke('regress_meritum_reader');
DROP OWNED BY regress_meritum_admin, regress_meritum_reader;
DROP ROLE regress_meritum_admin, regress_meritum_reader;
SELECT regexp_replace(helper.fault(format('SELECT * FROM meritum_compute_metrics(%L, ''{our:secret}'', ''2024-05-01'', ''2024-05-31'')', :p)), '\d{5,}', 'OID');

--
-- dropping takes along what is stored
--
INSERT INTO meritum_cache.event_metric VALUES ('spend.changed', 'my:spend');
SELECT meritum_drop_metric('our:who'), meritum_drop_metric('our:secret'), meritum_drop_metric('my:spend');
SELECT * FROM held() WHERE metric_key NOT LIKE 'my:c%';
SELECT metric_key FROM meritum_cache.metric_state WHERE metric_key NOT LIKE 'my:c%';
SELECT count(*) FROM meritum_cache.event_metric WHERE event_type = 'spend.changed';
SELECT helper.fault('SELECT meritum_drop_metric(' || k || ')') FROM (VALUES (1, '''my:spend'''), (2, '''claims_paid'''), (3, 'NULL')) AS v (n, k) ORDER BY n;
SELECT helper.sqlstate(format('SELECT * FROM meritum_get_metrics(%L, ''{my:spend}'', ''2024-05-01'', ''2024-05-31'')', :p));
-- the name is free for another
SELECT meritum_create_metric('my:spend', 'SELECT NULL::jsonb, ''"other"''::jsonb');
SELECT meritum_refresh_provider_metrics(:p, '{my:spend}', '2024-05-15');
SELECT DISTINCT value FROM meritum_cache.analytics_cache WHERE metric_key = 'my:spend';
-- created and used in one transaction, and undone
BEGIN;
SELECT meritum_drop_metric('my:spend');
SELECT meritum_create_metric('my:spend', 'SELECT NULL::jsonb, ''"third"''::jsonb');
SELECT meritum_refresh_provider_metrics(:p, '{my:spend}', '2024-05-15');
SELECT DISTINCT value FROM meritum_cache.analytics_cache WHERE metric_key = 'my:spend';
ROLLBACK;
SELECT meritum_refresh_provider_metrics(:p, '{my:spend}', '2024-05-15');
SELECT DISTINCT value FROM meritum_cache.analytics_cache WHERE metric_key = 'my:spend';

--
-- beside claims
--
INSERT INTO providers (provider_id) VALUES (:p);
INSERT INTO claims (physician_id, state, date_of_service) VALUES (:p, 'PAID', '2024-03-04');
SELECT count(*) FROM meritum_attach();
SELECT count(*) FROM held();
-- a provider that the table does not know has no rows any more
SELECT meritum_refresh_provider_metrics(:p, NULL, '2024-05-15'), meritum_refresh_provider_metrics(:q, NULL, '2024-05-15');
SELECT provider, count(*) FROM held() GROUP BY 1;
SELECT count(*) FROM meritum_get_metrics(:q, '{my:spend}', '2024-05-01', '2024-05-31');
SELECT full_from, full_to FROM meritum_cache.provider_state;
-- claims touch them not
SELECT helper.watch();
UPDATE claims SET state = 'REJECTED';
SELECT metric_key FROM helper.moved_rows() WHERE metric_key LIKE 'my:%';
SELECT * FROM meritum_verify(:p);
-- and detaching leaves them
SELECT count(*) FROM meritum_detach();
SELECT count(*) FILTER (WHERE metric_key LIKE 'my:%') AS own, count(*) FILTER (WHERE metric_key NOT LIKE 'my:%') AS others FROM meritum_cache.analytics_cache;
SELECT full_from, full_to, facts_zone FROM meritum_cache.provider_state;
SELECT * FROM meritum_verify(:p);

DROP EXTENSION meritum_cache;
DROP SCHEMA shop, oracle, helper CASCADE;
