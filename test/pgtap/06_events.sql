-- Events beyond claims and metrics of one's own, as the contract has them.
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
\pset pager off
SET client_min_messages = error;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS meritum_cache;
SELECT plan(37);

\set mine '''a0000000-0000-4000-8000-000000000001'''
\set yours '''a0000000-0000-4000-8000-000000000002'''

CREATE TABLE purchase_order (org uuid, received_on date, amount integer);
INSERT INTO purchase_order VALUES (:mine, '2024-03-05', 10), (:mine, '2024-04-05', 20), (:yours, '2024-03-05', 70);

-- creating
SELECT function_returns('meritum_create_metric', ARRAY['text', 'text', 'text', 'text'], 'void');
SELECT function_returns('meritum_drop_metric', ARRAY['text'], 'void');
SELECT function_returns('meritum_handle_event', ARRAY['text', 'uuid'], 'integer');
SELECT function_returns('meritum_invalidate', ARRAY['uuid', 'text'], 'integer');
SELECT function_returns('meritum_attach_event', ARRAY['regclass', 'text', 'name'], 'void');
SELECT lives_ok($$SELECT meritum_create_metric('po:spent', 'SELECT NULL::jsonb, to_jsonb(coalesce(sum(amount), 0)) FROM purchase_order WHERE org = $1 AND received_on BETWEEN $2 AND $3')$$,
    'a metric is an SQL query over provider, period_start and period_end');
SELECT lives_ok($$SELECT meritum_create_metric('po:last', 'SELECT jsonb_build_object(''kind'', ''last''), to_jsonb(max(received_on)) FROM purchase_order WHERE org = $1 HAVING count(*) > 0', 'snapshot', 'the last order')$$,
    'with a grain and a description');
SELECT lives_ok($$SELECT meritum_create_metric('staff', 'SELECT NULL::jsonb, ''1''::jsonb')$$, 'another');
SELECT results_eq($$SELECT metric_key::text, grain, description FROM meritum_cache.metric WHERE query IS NOT NULL ORDER BY 1$$,
    $$VALUES ('po:last', 'snapshot', 'the last order'), ('po:spent', 'monthly', ''), ('staff', 'monthly', '')$$, 'they are listed with the others');
SELECT throws_ok($$SELECT meritum_create_metric('po:spent', 'SELECT NULL::jsonb, ''1''::jsonb')$$, '42710', NULL, 'a name is taken once');
SELECT throws_ok($$SELECT meritum_create_metric('claims_paid', 'SELECT NULL::jsonb, ''1''::jsonb')$$, '42710', NULL, 'also by a built-in metric');
SELECT throws_ok($$SELECT meritum_create_metric('x', NULL)$$, '22004', NULL, 'null');
SELECT throws_ok($$SELECT meritum_create_metric('x', 'DELETE FROM purchase_order')$$, '22023', NULL, 'not a query');
SELECT throws_ok($$SELECT meritum_create_metric('x', 'SELECT 1, 2')$$, '42804', NULL, 'other columns');
SELECT throws_ok($$SELECT meritum_create_metric('x', 'SELECT NULL::jsonb, ''1''::jsonb', 'weekly')$$, '22023', NULL, 'unknown grain');
SELECT throws_ok($$SELECT meritum_drop_metric('x')$$, '42704', NULL, 'unknown metric');

-- refreshed, read and verified like the built-in ones, without claims
SELECT is(meritum_is_stale(:mine), true, 'a provider without entries is stale');
SELECT is(meritum_refresh_provider_metrics(:mine, ARRAY['po:spent', 'po:last'], '2024-05-15'), 13, 'twelve months and a snapshot are written');
SELECT is(meritum_is_stale(:mine), false, 'then it is not');
SELECT is((SELECT value FROM meritum_cache.analytics_cache WHERE metric_key = 'po:spent' AND period_start = '2024-03-01'), '10', 'the figure of a month');
SELECT is((SELECT value FROM meritum_get_metrics(:mine, ARRAY['po:last'], '2024-05-01', '2024-05-31', '{"kind": "last"}')), '"2024-04-05"', 'by its dimensions');
SELECT is_empty($$SELECT * FROM meritum_verify('a0000000-0000-4000-8000-000000000001')$$, 'nothing differs');
SELECT is((SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id = :yours), 0::bigint, 'nobody else has got any');

-- events
INSERT INTO meritum_cache.event_metric VALUES ('po.received', 'po:spent'), ('po.cancelled', 'po:last');
SELECT throws_ok($$INSERT INTO meritum_cache.event_metric VALUES ('po.received', 'po:nothing')$$, '23503', NULL, 'the map names existing metrics');
SELECT is(meritum_handle_event('po.received', :mine), 12, 'an event says how many entries it hits');
SELECT is(meritum_handle_event('po.lost', :mine), 0, 'none if it is unknown');
SELECT is(meritum_handle_event('po.received', :yours), 0, 'none of a provider that has none');
SELECT is(meritum_invalidate(:mine, 'po:'), 13, 'by prefix');
SELECT is(meritum_invalidate(:mine, 'pi:'), 0, 'which no key has');
SELECT throws_ok($$SELECT meritum_handle_event(NULL, 'a0000000-0000-4000-8000-000000000001')$$, '22004', NULL, 'null event');
SELECT throws_ok($$SELECT meritum_handle_event('po.received', NULL)$$, '22004', NULL, 'null provider');
SELECT lives_ok($$SELECT meritum_attach_event('purchase_order', 'po.received', 'org')$$, 'a trigger raises it');
INSERT INTO purchase_order VALUES (:mine, '2024-03-06', 5);
SELECT is(meritum_is_stale(:mine), true, 'the change is pending until the commit');
SELECT is((SELECT value FROM meritum_get_metrics(:mine, ARRAY['po:spent'], '2024-03-01', '2024-03-31')), '15', 'but read already');
SELECT throws_ok($$SELECT meritum_attach_event('purchase_order', 'po.received', 'amount')$$, '42804', NULL, 'the provider must be a uuid');

-- dropping
SELECT lives_ok($$SELECT meritum_drop_metric('po:spent')$$, 'dropped');
SELECT is_empty($$SELECT metric_key FROM meritum_cache.analytics_cache WHERE metric_key = 'po:spent'
    UNION ALL SELECT metric_key FROM meritum_cache.event_metric WHERE metric_key = 'po:spent'$$, 'with its figures and events');

SELECT * FROM finish();
ROLLBACK;
