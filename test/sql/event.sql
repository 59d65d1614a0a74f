--
-- events beyond claims: raised by hand and by triggers
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin
\set p '''a0000000-0000-4000-8000-000000000001'''
\set q '''a0000000-0000-4000-8000-000000000002'''
\set r '''a0000000-0000-4000-8000-000000000003'''

CREATE TABLE orders (order_id serial PRIMARY KEY, provider_id uuid, ordered_on date, amount numeric);
CREATE TABLE stock (provider_id uuid, quantity integer);
SELECT meritum_create_metric('fr:orders', 'SELECT NULL::jsonb, to_jsonb(coalesce(sum(amount), 0)) FROM orders WHERE provider_id = $1 AND ordered_on BETWEEN $2 AND $3');
SELECT meritum_create_metric('fr:daily', 'SELECT jsonb_build_object(''day'', ordered_on), to_jsonb(sum(amount)) FROM orders WHERE provider_id = $1 AND ordered_on BETWEEN $2 AND $3 GROUP BY ordered_on');
SELECT meritum_create_metric('fr:stock', 'SELECT NULL::jsonb, to_jsonb(coalesce(sum(quantity), 0)) FROM stock WHERE provider_id = $1', 'snapshot');
SELECT meritum_create_metric('other', 'SELECT NULL::jsonb, to_jsonb(coalesce(sum(quantity), 0)) FROM stock WHERE provider_id = $1', 'snapshot');
INSERT INTO meritum_cache.event_metric VALUES ('order.placed', 'fr:orders'), ('order.placed', 'fr:daily'), ('Stock.Changed', 'fr:stock'), ('nothing.yet', 'fr:stock');

-- today, as the extension has it
SELECT value FROM meritum_get_metrics(:r, '{fr:stock}', '-infinity', 'infinity');
SELECT set_config('helper.today', snapshot_on::text, false) IS NOT NULL AS today FROM meritum_cache.metric_state;
-- what was written since helper.watch(), by month before the running one
CREATE FUNCTION written() RETURNS TABLE (provider text, metric_key text, changes text)
LANGUAGE sql AS $$
    SELECT provider, metric_key, string_agg(change || ' ' || n, ', ' ORDER BY change)
      FROM (SELECT right(provider_id::text, 1) AS provider, metric_key, change, count(*) AS n FROM helper.moved_rows() GROUP BY 1, 2, 3) AS x
     GROUP BY 1, 2 ORDER BY 1, 2
$$;
-- what verify finds, of any provider
CREATE VIEW wrong AS SELECT right(p.provider_id::text, 1) AS provider, v.metric_key, v.cached, v.computed
  FROM meritum_cache.provider_state p, meritum_verify(p.provider_id) v ORDER BY 1, 2;
INSERT INTO orders (provider_id, ordered_on, amount) VALUES (:p, helper.month(0), 10), (:p, helper.month(-1), 20), (:p, helper.month(-20), 40), (:q, helper.month(0), 80);
INSERT INTO stock VALUES (:p, 1), (:q, 2);
SELECT meritum_refresh_provider_metrics(:p), meritum_refresh_provider_metrics(:q);

--
-- by hand
--
SELECT meritum_handle_event('no.such.event', :p);
SELECT helper.fault('SELECT meritum_handle_event(NULL, ''a0000000-0000-4000-8000-000000000001'')'), helper.fault('SELECT meritum_handle_event(''order.placed'', NULL)');
BEGIN READ ONLY;
SELECT helper.sqlstate(format('SELECT meritum_handle_event(''order.placed'', %L)', :p)), helper.sqlstate(format('SELECT meritum_invalidate(%L, ''fr:'')', :p));
COMMIT;
-- the entries of that provider and of those metrics, and no others
INSERT INTO orders (provider_id, ordered_on, amount) VALUES (:p, helper.month(0), 1), (:q, helper.month(0), 1);
SELECT helper.watch();
SELECT meritum_handle_event('order.placed', :p);
SELECT * FROM written();
SELECT * FROM wrong;
SELECT refresh_cause FROM meritum_cache.provider_state WHERE provider_id = :p;
-- letter case matters not
SELECT helper.watch();
SELECT meritum_handle_event('stock.changed', :q);
SELECT * FROM written();
-- a known event of a provider without entries: none is hit, and yet they are computed
SELECT helper.watch();
SELECT meritum_handle_event('order.placed', :r);
SELECT * FROM written();
-- months that are stored outside the trailing window follow as well
SELECT sum(value::numeric) FROM meritum_get_metrics(:p, '{fr:orders}', helper.month(-20), helper.month(-19) - 1);
UPDATE orders SET amount = amount + 1 WHERE ordered_on = helper.month(-20);
SELECT meritum_handle_event('order.placed', :p);
SELECT metric_key, value FROM meritum_cache.analytics_cache WHERE provider_id = :p AND period_start = helper.month(-20);

-- within the transaction readers see it, others nothing before the commit
BEGIN;
SELECT helper.watch();
UPDATE orders SET amount = amount + 100 WHERE provider_id = :p AND ordered_on = helper.month(0) AND amount = 1;
SELECT meritum_handle_event('order.placed', :p);
SELECT value FROM meritum_get_metrics(:p, '{fr:orders}', helper.month(0), helper.month(1));
SELECT meritum_is_stale(:p);
SELECT * FROM written();
COMMIT;
SELECT * FROM written();
-- undone with the transaction; with a savepoint it costs a refresh and no more
BEGIN;
SELECT meritum_handle_event('order.placed', :p);
ROLLBACK;
BEGIN;
SAVEPOINT s;
UPDATE orders SET amount = amount + 1 WHERE provider_id = :p;
SELECT meritum_handle_event('order.placed', :p);
ROLLBACK TO s;
COMMIT;
SELECT * FROM wrong WHERE provider = '1';
-- thousands of events are one refresh
SELECT version AS v, refreshes AS n FROM meritum_cache.provider_state WHERE provider_id = :p \gset
BEGIN;
UPDATE orders SET amount = amount + 1 WHERE provider_id = :p;
SELECT count(meritum_handle_event('order.placed', :p)) FROM generate_series(1, 5000);
COMMIT;
SELECT version - :v AS versions, refreshes - :n AS refreshes FROM meritum_cache.provider_state WHERE provider_id = :p;

--
-- by prefix
--
SELECT helper.watch();
SELECT meritum_invalidate(:q, 'fr:o');
SELECT * FROM written();
SELECT helper.watch();
SELECT meritum_invalidate(:q, '');
SELECT * FROM written();
SELECT meritum_invalidate(:q, 'FR:');
SELECT helper.fault('SELECT meritum_invalidate(NULL, '''')'), helper.fault('SELECT meritum_invalidate(''a0000000-0000-4000-8000-000000000001'', NULL)');
SELECT * FROM wrong;

--
-- asynchronously: one note of each metric, which readers of it settle
--
SET meritum_cache.refresh_mode = async;
UPDATE orders SET amount = amount + 1;
SELECT meritum_handle_event('order.placed', :p), meritum_handle_event('stock.changed', :p);
SELECT right(provider_id::text, 1) AS provider, scope, metric_key, month, cause, attempts, sqlstate FROM meritum_cache.pending_refresh ORDER BY note_id;
SELECT helper.watch();
SELECT count(*) FROM meritum_get_metrics(:p, '{other}', helper.month(0), helper.month(1));
SELECT count(*) FROM meritum_cache.pending_refresh;
SELECT value FROM meritum_get_metrics(:p, '{fr:orders}', helper.month(0), helper.month(1));
SELECT metric_key FROM meritum_cache.pending_refresh ORDER BY note_id;
SELECT * FROM written();
-- whoever refreshes all takes all
SELECT meritum_refresh_provider_metrics(:p) > 0 AS written;
SELECT count(*) FROM meritum_cache.pending_refresh;
RESET meritum_cache.refresh_mode;
-- and so in a serializable transaction, and beyond the limit
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT meritum_handle_event('stock.changed', :p);
COMMIT;
SET meritum_cache.commit_limit = 15;
SELECT meritum_handle_event('order.placed', :p);
RESET meritum_cache.commit_limit;
SELECT metric_key FROM meritum_cache.pending_refresh ORDER BY note_id;
SELECT meritum_refresh_provider_metrics(:p) > 0 AS written;
SELECT count(*) FROM meritum_cache.pending_refresh;

--
-- from triggers
--
CREATE VIEW v AS SELECT * FROM stock;
CREATE TEMP TABLE t (provider_id uuid);
SELECT helper.fault('SELECT meritum_attach_event(' || args || ')') FROM (VALUES
    (1, 'NULL, ''x'', ''provider_id'''), (2, '''orders'', NULL, ''provider_id'''), (3, '''orders'', ''x'', NULL'),
    (4, '''orders'', ''order.placed'', ''physician_id'''), (5, '''orders'', ''order.placed'', ''amount'''), (6, '''orders'', ''order.placed'', ''tableoid'''),
    (7, '''v'', ''stock.changed'', ''provider_id'''), (8, '''t'', ''stock.changed'', ''provider_id''')) AS a (n, args) ORDER BY n;
SELECT helper.fault('SELECT meritum_detach_event(''orders'', ''order.placed'')');
SELECT meritum_attach_event('orders', 'order.placed', 'provider_id');
SELECT meritum_attach_event('stock', 'stock.changed', 'provider_id');
-- an event that touches nothing yet
SELECT meritum_attach_event('stock', 'some.other', 'provider_id');
SELECT meritum_detach_event('stock', 'some.other');
-- twice is once
SELECT meritum_attach_event('orders', 'order.placed', 'provider_id');
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgrelid IN ('orders'::regclass, 'stock'::regclass) ORDER BY 1, 2;
SELECT meritum_refresh_provider_metrics(:q) > 0 AND meritum_refresh_provider_metrics(:r) > 0 AS written;

SELECT helper.watch();
INSERT INTO orders (provider_id, ordered_on, amount) VALUES (:p, helper.month(0), 5);
SELECT * FROM written();
SELECT helper.watch();
-- from one to another
UPDATE orders SET provider_id = :q WHERE provider_id = :p AND ordered_on = helper.month(-1);
SELECT * FROM written();
SELECT helper.watch();
UPDATE orders SET provider_id = NULL WHERE provider_id = :q AND ordered_on = helper.month(-1);
UPDATE orders SET amount = 3 WHERE provider_id IS NULL;
DELETE FROM orders WHERE provider_id IS NULL;
DELETE FROM stock WHERE provider_id = :q;
SELECT * FROM written();
SELECT * FROM wrong WHERE metric_key <> 'other';
COPY stock FROM stdin;
a0000000-0000-4000-8000-000000000001	7
a0000000-0000-4000-8000-000000000002	8
\N	9
\.
SELECT * FROM wrong WHERE metric_key <> 'other';
-- all that have any
SELECT helper.watch();
TRUNCATE orders;
SELECT * FROM written();
SELECT * FROM wrong WHERE metric_key <> 'other';
-- to the log go provider, event and number; rows of a transaction are one event
SET meritum_cache.log_invalidations = on;
SET client_min_messages = log;
INSERT INTO stock SELECT id, n FROM generate_series(1, 3) n, (VALUES (:p::uuid)) AS x (id);
SELECT meritum_handle_event('order.placed', :q), meritum_invalidate(:q, 'fr:s');
SET client_min_messages = warning;
RESET meritum_cache.log_invalidations;

-- who changes the table needs no right on the cache
CREATE ROLE regress_meritum_writer;
GRANT USAGE ON SCHEMA shop TO regress_meritum_writer;
GRANT INSERT, TRUNCATE ON stock TO regress_meritum_writer;
SET ROLE regress_meritum_writer;
INSERT INTO stock VALUES (:p, 100);
RESET ROLE;
SELECT * FROM wrong WHERE metric_key <> 'other';
SET ROLE regress_meritum_writer;
TRUNCATE stock;
RESET ROLE;
SELECT * FROM wrong WHERE metric_key <> 'other';
-- nor may attach who does not own the table
SELECT meritum_grant('regress_meritum_writer', 'admin');
SET ROLE regress_meritum_writer;
\set VERBOSITY sqlstate
SELECT meritum_attach_event('stock', 'order.placed', 'provider_id');
SELECT meritum_detach_event('stock', 'stock.changed');
\set VERBOSITY default
RESET ROLE;
SELECT meritum_revoke('regress_meritum_writer');
DROP OWNED BY regress_meritum_writer;
DROP ROLE regress_meritum_writer;

-- partitions, also with columns in another order
CREATE TABLE moves (moved_on date, provider_id uuid, quantity integer) PARTITION BY RANGE (moved_on);
CREATE TABLE moves_1 (quantity integer, gone text, provider_id uuid, moved_on date);
ALTER TABLE moves_1 DROP COLUMN gone;
ALTER TABLE moves ATTACH PARTITION moves_1 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
SELECT meritum_create_metric('fr:moves', 'SELECT NULL::jsonb, to_jsonb(coalesce(sum(quantity), 0)) FROM moves WHERE provider_id = $1', 'snapshot');
INSERT INTO meritum_cache.event_metric VALUES ('moved', 'fr:moves');
SELECT meritum_attach_event('moves', 'moved', 'provider_id');
CREATE TABLE moves_2 PARTITION OF moves FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
SELECT meritum_refresh_provider_metrics(:p, '{fr:moves}'), meritum_refresh_provider_metrics(:q, '{fr:moves}');
INSERT INTO moves VALUES ('2024-05-01', :p, 3), ('2025-05-01', :q, 4);
INSERT INTO moves_1 VALUES (5, :p, '2024-05-02');
SELECT right(provider_id::text, 1) AS provider, value FROM meritum_cache.analytics_cache WHERE metric_key = 'fr:moves' ORDER BY 1;
TRUNCATE moves_1;
SELECT right(provider_id::text, 1) AS provider, value FROM meritum_cache.analytics_cache WHERE metric_key = 'fr:moves' ORDER BY 1;
-- a column that has another name now names nobody, and fails nothing
ALTER TABLE moves RENAME COLUMN provider_id TO owner_id;
INSERT INTO moves VALUES ('2024-05-01', :p, 3);
ALTER TABLE moves RENAME COLUMN owner_id TO provider_id;
SELECT meritum_detach_event('moves', 'moved');
SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('moves'::regclass, 'moves_1'::regclass, 'moves_2'::regclass);
DROP TABLE moves;
SELECT meritum_drop_metric('fr:moves');

--
-- failures: at commit the others are written, and the change is kept
--
SELECT meritum_create_metric('fr:broken', 'SELECT NULL::jsonb, to_jsonb(sum(1 / quantity)) FROM stock WHERE provider_id = $1 HAVING count(*) > 0', 'snapshot');
INSERT INTO meritum_cache.event_metric VALUES ('stock.changed', 'fr:broken');
INSERT INTO stock VALUES (:p, 0);
SELECT metric_key, cause, attempts, sqlstate, message FROM meritum_cache.pending_refresh;
SELECT * FROM wrong WHERE metric_key NOT IN ('other', 'fr:broken');
-- again: it counts as one
INSERT INTO stock VALUES (:p, 1);
SELECT metric_key, attempts FROM meritum_cache.pending_refresh;
SELECT value FROM meritum_get_metrics(:p, '{fr:stock}', helper.month(0), helper.month(1));
SET meritum_cache.on_error = error;
INSERT INTO stock VALUES (:p, 50);
RESET meritum_cache.on_error;
SELECT sum(quantity) FROM stock WHERE provider_id = :p;
-- an event that finds it healed releases it
UPDATE stock SET quantity = 2 WHERE quantity = 0;
SELECT count(*) FROM meritum_cache.pending_refresh;
SELECT * FROM wrong WHERE metric_key <> 'other';
-- one that takes too long fails alone too
SELECT meritum_create_metric('fr:slow', 'SELECT NULL::jsonb, to_jsonb(count(pg_sleep(60))) FROM stock WHERE provider_id = $1', 'snapshot');
INSERT INTO meritum_cache.event_metric VALUES ('stock.changed', 'fr:slow');
SET statement_timeout = '1s';
INSERT INTO stock VALUES (:p, 4);
RESET statement_timeout;
SELECT metric_key, attempts, sqlstate FROM meritum_cache.pending_refresh;
SET statement_timeout = '1s';
\set VERBOSITY sqlstate
SELECT * FROM meritum_get_metrics(:p, '{fr:slow}', '-infinity', 'infinity');
SELECT meritum_refresh_provider_metrics(:p);
\set VERBOSITY default
RESET statement_timeout;
SELECT * FROM meritum_get_metrics(:p, '{fr:slow}', '-infinity', '-infinity');
SELECT meritum_drop_metric('fr:slow'), meritum_drop_metric('fr:broken');
SELECT count(*) FROM meritum_cache.pending_refresh;

--
-- beside claims: events name built-in metrics, and states of claims others
--
INSERT INTO providers (provider_id) VALUES (:p), (:q), (:r);
INSERT INTO claims (claim_id, physician_id, state, date_of_service) VALUES (helper.c(1), :p, 'SUBMITTED', helper.month(-1)), (helper.c(2), :p, 'PAID', helper.month(-3)), (helper.c(3), :q, 'PAID', helper.month(-1));
SELECT count(*) FROM meritum_attach();
SELECT meritum_refresh_provider_metrics(:p) > 0 AND meritum_refresh_provider_metrics(:q) > 0 AS written;
INSERT INTO meritum_cache.event_metric VALUES ('audit', 'claims_paid'), ('audit', 'expired_claims'), ('paid', 'fr:orders');
SELECT helper.watch();
SELECT meritum_handle_event('audit', :p) > 12 AS hit;
SELECT * FROM written();
SELECT snapshot_on FROM meritum_cache.provider_state WHERE provider_id = :p;
SELECT count(*) FROM meritum_get_metrics(:p, '{expired_claims}', helper.month(0), helper.month(1));
-- a claim that enters a state touches what the map names, in its month
INSERT INTO orders (provider_id, ordered_on, amount) VALUES (:p, helper.month(0), 5);
SELECT helper.watch();
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(1);
SELECT month = helper.month(-1) AS its_month, metric_key FROM helper.moved_rows() WHERE metric_key LIKE 'fr:%';
SELECT helper.watch();
SELECT meritum_handle_claim_state_change(:p, 'AHCIP', 'PAID', helper.c(2)) > 0 AS written;
SELECT month = helper.month(-3) AS its_month, metric_key FROM helper.moved_rows() WHERE metric_key LIKE 'fr:%';
-- and asynchronously
SET meritum_cache.refresh_mode = async;
UPDATE claims SET state = 'REJECTED' WHERE claim_id = helper.c(1);
UPDATE claims SET state = 'PAID' WHERE claim_id = helper.c(1);
UPDATE claims SET state = 'PAID', date_of_service = helper.month(0) WHERE claim_id = helper.c(2);
INSERT INTO claims (physician_id, state, date_of_service) VALUES (:p, 'PAID', helper.month(-2));
SELECT helper.watch();
SELECT count(*) > 0 AS read FROM meritum_get_metrics(:p, '{fr:orders}', helper.month(-2), helper.month(-1) - 1);
SELECT month = helper.month(-2) AS its_month, metric_key FROM helper.moved_rows() WHERE metric_key LIKE 'fr:%' ORDER BY 1;
RESET meritum_cache.refresh_mode;
SELECT * FROM wrong WHERE metric_key <> 'other';

-- the triggers go with the table, or with the extension
DROP VIEW wrong;
DROP TABLE orders CASCADE;
DROP EXTENSION meritum_cache;
INSERT INTO stock VALUES (:p, 4);
TRUNCATE stock;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'stock'::regclass;
DROP SCHEMA shop, oracle, helper CASCADE;
