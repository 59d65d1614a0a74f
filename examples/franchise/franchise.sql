-- A franchise: purchase orders, transfers, budgets and inventory, and a
-- dashboard over them that meritum_cache keeps right.  See README.md.
--
-- Run it once, as a superuser or an admin of the extension, in a database
-- that has the extension; no other tables need to be attached.  To remove
-- everything:
--
--   SELECT meritum_drop_metric(metric_key) FROM meritum_cache.metric WHERE metric_key LIKE 'fr:%';
--   DROP SCHEMA franchise CASCADE;

BEGIN;

CREATE SCHEMA franchise;
SELECT set_config('search_path', 'franchise, ' || current_setting('search_path'), true);

--
-- The tables of the application.  An organisation is what the extension calls
-- a provider.
--

CREATE TABLE organisation (
	org_id uuid PRIMARY KEY,
	name text NOT NULL
);

CREATE TABLE store (
	store_id integer PRIMARY KEY,
	org_id uuid NOT NULL REFERENCES organisation,
	name text NOT NULL
);

CREATE TABLE purchase_order (
	po_id integer PRIMARY KEY,
	org_id uuid NOT NULL REFERENCES organisation,
	store_id integer NOT NULL REFERENCES store,
	amount numeric(12,2) NOT NULL,
	received_on date            -- null: on its way
);

CREATE TABLE transfer (
	transfer_id integer PRIMARY KEY,
	org_id uuid NOT NULL REFERENCES organisation,
	from_store integer NOT NULL REFERENCES store,
	to_store integer NOT NULL REFERENCES store,
	moved_on date NOT NULL,
	amount numeric(12,2) NOT NULL
);

CREATE TABLE budget (
	org_id uuid NOT NULL REFERENCES organisation,
	month date NOT NULL CHECK (extract(day FROM month) = 1),
	amount numeric(12,2) NOT NULL,
	PRIMARY KEY (org_id, month)
);

CREATE TABLE inventory (
	org_id uuid NOT NULL REFERENCES organisation,
	store_id integer NOT NULL REFERENCES store,
	item text NOT NULL,
	on_hand integer NOT NULL,
	used_per_week integer NOT NULL,
	PRIMARY KEY (store_id, item)
);

CREATE INDEX ON purchase_order (org_id, received_on);
CREATE INDEX ON transfer (org_id, moved_on);
CREATE INDEX ON inventory (org_id);

--
-- The figures.  $1 is the organisation, $2 and $3 are the first and the last
-- day of the month.
--

SELECT meritum_create_metric('fr:overview', $$
	SELECT NULL::jsonb,
		   jsonb_build_object('ordersReceived', o.n, 'spent', o.amount::text,
							  'transfers', t.n, 'moved', t.amount::text)
	  FROM (SELECT count(*) AS n, coalesce(sum(amount), 0.00) AS amount
			  FROM purchase_order
			 WHERE org_id = $1 AND received_on BETWEEN $2 AND $3) AS o,
		   (SELECT count(*) AS n, coalesce(sum(amount), 0.00) AS amount
			  FROM transfer
			 WHERE org_id = $1 AND moved_on BETWEEN $2 AND $3) AS t
$$, description => 'orders received and goods moved in a month');

-- a row for each store, and the list as the total
SELECT meritum_create_metric('fr:rankings', $$
	WITH ranked AS (
		SELECT s.store_id, s.name, g.amount,
			   rank() OVER (ORDER BY g.amount DESC) AS place
		  FROM store AS s,
			   LATERAL (SELECT coalesce(sum(m.amount), 0.00) AS amount
						  FROM (SELECT amount FROM purchase_order
								 WHERE org_id = $1 AND store_id = s.store_id
								   AND received_on BETWEEN $2 AND $3
								UNION ALL
								SELECT CASE to_store WHEN s.store_id THEN amount ELSE -amount END
								  FROM transfer
								 WHERE org_id = $1 AND s.store_id IN (from_store, to_store)
								   AND moved_on BETWEEN $2 AND $3) AS m) AS g
		 WHERE s.org_id = $1)
	SELECT jsonb_build_object('store', store_id::text),
		   jsonb_build_object('place', place, 'goods', amount::text)
	  FROM ranked
	UNION ALL
	SELECT NULL, coalesce(jsonb_agg(jsonb_build_object('store', name, 'goods', amount::text)
									ORDER BY place, store_id), '[]')
	  FROM ranked
$$, description => 'stores by the goods that came to them, less what they passed on');

SELECT meritum_create_metric('fr:budgets', $$
	SELECT NULL::jsonb,
		   jsonb_build_object('budget', b.amount::text, 'spent', s.amount::text,
							  'left', (b.amount - s.amount)::text)
	  FROM budget AS b,
		   (SELECT coalesce(sum(amount), 0.00) AS amount FROM purchase_order
			 WHERE org_id = $1 AND received_on BETWEEN $2 AND $3) AS s
	 WHERE b.org_id = $1 AND b.month = $2
$$, description => 'the budget of a month and what is left of it; months without one have none');

-- not of a month but of today
SELECT meritum_create_metric('fr:forecast', $$
	SELECT jsonb_build_object('item', item),
		   jsonb_build_object('onHand', sum(on_hand),
							  'weeksLeft', sum(on_hand) / nullif(sum(used_per_week), 0))
	  FROM inventory WHERE org_id = $1 GROUP BY item
	UNION ALL
	SELECT NULL, jsonb_build_object('ordersOnTheirWay', count(*))
	  FROM purchase_order WHERE org_id = $1 AND received_on IS NULL
$$, 'snapshot', 'weeks that the stock of each item lasts, and orders on their way');

--
-- Which event touches what, and the triggers that raise them
--

INSERT INTO meritum_cache.event_metric (event_type, metric_key) VALUES
	('po.received', 'fr:overview'), ('po.received', 'fr:rankings'),
	('po.received', 'fr:budgets'), ('po.received', 'fr:forecast'),
	('transfer.changed', 'fr:overview'), ('transfer.changed', 'fr:rankings'),
	('budget.updated', 'fr:budgets'),
	('inventory.adjusted', 'fr:forecast');

SELECT meritum_attach_event('purchase_order', 'po.received', 'org_id');
SELECT meritum_attach_event('transfer', 'transfer.changed', 'org_id');
SELECT meritum_attach_event('budget', 'budget.updated', 'org_id');
SELECT meritum_attach_event('inventory', 'inventory.adjusted', 'org_id');

--
-- Two organisations with two stores each
--

INSERT INTO organisation VALUES
	('a0000000-0000-4000-8000-000000000001', 'North Bakeries'),
	('a0000000-0000-4000-8000-000000000002', 'South Bakeries');
INSERT INTO store VALUES
	(1, 'a0000000-0000-4000-8000-000000000001', 'Harbour'),
	(2, 'a0000000-0000-4000-8000-000000000001', 'Station'),
	(3, 'a0000000-0000-4000-8000-000000000002', 'Market'),
	(4, 'a0000000-0000-4000-8000-000000000002', 'Bridge');
INSERT INTO purchase_order
SELECT row_number() OVER (), s.org_id, s.store_id, 100 * s.store_id + d,
	   current_date - d
  FROM store AS s, generate_series(0, 300, 10) AS d;
INSERT INTO transfer
SELECT row_number() OVER (), f.org_id, f.store_id, t.store_id, current_date - d, 40
  FROM store AS f JOIN store AS t ON t.org_id = f.org_id AND t.store_id > f.store_id,
	   generate_series(5, 300, 30) AS d;
INSERT INTO budget
SELECT o.org_id, (date_trunc('month', current_date) - make_interval(months => n))::date, 2000
  FROM organisation AS o, generate_series(0, 5) AS n;
INSERT INTO inventory
SELECT s.org_id, s.store_id, i.item, 10 * s.store_id, i.used
  FROM store AS s, (VALUES ('flour', 5), ('yeast', 2)) AS i (item, used);

COMMIT;
