# 060_statements.pl: the figures are right however the claims are written.
#
# One way of writing after the other, each followed by a comparison of the
# whole cache with the oracle.  The last part writes behind the triggers, by
# logical replication and with session_replication_role, and repairs it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = platform_server('statements',
	init => { allows_streaming => 'logical' },
	conf => "max_parallel_workers_per_gather = 2\n");
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');

# Run SQL in one session; what it prints must be as expected, without any
# warning or error.  In commit mode nothing may be left to the worker unless
# told so.
sub writes
{
	my ($name, $sql, %param) = @_;
	my ($out, $err) = run_sql($node, $sql);

	is($err =~ s/^.*NOTICE:.*\n?//gmr, '', "$name: no warning")
	  unless $param{messages};
	like($err, $param{messages}, "$name: messages") if $param{messages};
	is($out, $param{prints}, "$name: result") if defined $param{prints};
	is(pending($node, 'provider_id IS NOT NULL'), 0, "$name: nothing is pending")
	  unless $param{pending};
	settled($node, "$name: the figures are right");
	return;
}

sub value
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

is(wrong($node), '', 'all is right in the beginning');

# ----------------------------------------------------------------------
# Transactions
# ----------------------------------------------------------------------

foreach my $level ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
{
	writes("$level", qq(
		BEGIN ISOLATION LEVEL $level;
		SELECT FROM claims LIMIT 1;
		UPDATE claims SET state = 'PAID' WHERE claim_id IN (test.c(1), test.c(2));
		UPDATE ahcip_claim_details SET assessed_fee = 77.25 WHERE claim_id = test.c(1);
		INSERT INTO claims (claim_id, physician_id, state, date_of_service)
		VALUES (gen_random_uuid(), test.p(1), 'REJECTED', current_date);
		UPDATE claims SET physician_id = test.p(4) WHERE claim_id = test.c(3);
		UPDATE claims SET date_of_service = date_of_service - 35 WHERE claim_id = test.c(5);
		DELETE FROM claims WHERE claim_id = test.c(6);
		COMMIT;
		BEGIN ISOLATION LEVEL $level;
		UPDATE claims SET state = 'DRAFT' WHERE claim_id = test.c(1);
		ROLLBACK;),
		pending => $level eq 'SERIALIZABLE');

	# Another session changes the provider after the snapshot was taken.
	my $late = session($node);
	$late->query_safe("BEGIN ISOLATION LEVEL $level; SELECT FROM claims LIMIT 1");
	$node->safe_psql('postgres', q(
		UPDATE claims SET state = 'ASSESSED' WHERE claim_id IN (test.c(7), test.c(8));
		INSERT INTO ahcip_claim_details (claim_id, submitted_fee, assessed_fee)
		VALUES (test.c(10), 3, 4) ON CONFLICT DO NOTHING));
	$late->query("UPDATE claims SET state = 'PAID' WHERE claim_id IN (test.c(11), test.c(12), test.c(4)); COMMIT");
	is($late->{stderr}, '', "$level, with an older snapshot: commits");
	$late->quit;
	settled($node, "$level, with an older snapshot: the figures are right");
}

# Two serializable transactions that do not conflict, one with a detail, one
# with its claim: whether the refresh makes them.
foreach my $attached (0, 1)
{
	my ($one, $two) = (session($node), session($node));
	$node->safe_psql('postgres',
		'ALTER TABLE claims ' . ($attached ? 'ENABLE' : 'DISABLE') . ' TRIGGER ALL;'
		  . 'ALTER TABLE ahcip_claim_details ' . ($attached ? 'ENABLE' : 'DISABLE') . ' TRIGGER ALL;');
	$_->query_safe('BEGIN ISOLATION LEVEL SERIALIZABLE') foreach $one, $two;
	$one->query_safe("UPDATE ahcip_claim_details SET assessed_fee = 50 + $attached WHERE claim_id = test.c(13)");
	$two->query_safe('SELECT assessed_fee FROM ahcip_claim_details WHERE claim_id = test.c(13)');
	$two->query_safe("UPDATE claims SET state = 'PAID', row_version = row_version + 1 WHERE claim_id = test.c(13)");
	$_->query('COMMIT') foreach $one, $two;
	is($one->{stderr} . $two->{stderr}, '',
		'two serializable transactions without a conflict commit '
		  . ($attached ? 'with' : 'without') . ' the triggers');
	$_->quit foreach $one, $two;
}
is(value(q(SELECT count(*) FROM test.everyone() AS e, unnest(e) AS p, meritum_verify(p, true))) >= 0,
	1, 'what was written without the triggers is repaired');
settled($node, 'serializable transactions: the figures are right');

writes('savepoints', q(
	BEGIN;
	UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(14);
	SAVEPOINT a;
	UPDATE claims SET state = 'REJECTED' WHERE claim_id IN (test.c(14), test.c(15));
	INSERT INTO claims (physician_id, state, date_of_service) VALUES (test.p(2), 'PAID', current_date);
	ROLLBACK TO a;
	UPDATE claims SET state = 'ADJUSTED' WHERE claim_id = test.c(15);
	SAVEPOINT b;
	UPDATE claims SET deleted_at = now() WHERE claim_id = test.c(16);
	SAVEPOINT c;
	UPDATE claims SET deleted_at = NULL, state = 'PAID' WHERE claim_id = test.c(16);
	RELEASE b;
	ROLLBACK TO a;
	DELETE FROM claims WHERE claim_id = test.c(17);
	COMMIT;));

writes('an aborted statement', q(
	BEGIN;
	UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(18);
	SAVEPOINT a;
	UPDATE claims SET state = 'REJECTED', priority = 1 / (priority * 0) WHERE claim_id = test.c(19);
	ROLLBACK TO a;
	COMMIT;), messages => qr/division by zero/);

writes('PL/pgSQL exception blocks', q(
	DO $$
	BEGIN
		FOR i IN 20 .. 29 LOOP
			BEGIN
				UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(i);
				UPDATE ahcip_claim_details SET assessed_fee = i * 3 WHERE claim_id = test.c(i);
				IF i % 2 = 0 THEN RAISE division_by_zero; END IF;
			EXCEPTION WHEN division_by_zero THEN
				UPDATE claims SET state = 'EXPIRED' WHERE claim_id = test.c(i);
			END;
		END LOOP;
	END $$;));

writes('COMMIT in a procedure', q(
	CREATE PROCEDURE pay() LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 30 .. 38 LOOP
			UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(i);
			IF i % 3 = 0 THEN ROLLBACK; ELSIF i % 3 = 1 THEN COMMIT; END IF;
		END LOOP;
		COMMIT AND CHAIN;
		UPDATE claims SET state = 'WRITTEN_OFF' WHERE claim_id = test.c(30);
	END $$;
	CALL pay();));

writes('COMMIT AND CHAIN', q(
	BEGIN ISOLATION LEVEL REPEATABLE READ;
	UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(39);
	COMMIT AND CHAIN;
	UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(41);
	COMMIT;));

writes('several statements in one message', q(
	UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(42)\; UPDATE claims SET state = 'QUEUED' WHERE claim_id = test.c(42)\; UPDATE claims SET state = 'ASSESSED' WHERE claim_id = test.c(43);));

# Prepared transactions: another session must not see, nor lose, anything.
$node->safe_psql('postgres', q(
	BEGIN;
	UPDATE claims SET state = 'PAID' WHERE claim_id IN (test.c(44), test.c(45));
	PREPARE TRANSACTION 'kept';
	BEGIN;
	UPDATE claims SET state = 'REJECTED' WHERE claim_id IN (test.c(46), test.c(47));
	PREPARE TRANSACTION 'undone'));
is(wrong($node), '', 'PREPARE TRANSACTION: nothing has changed yet');
$node->restart;
writes('COMMIT PREPARED and ROLLBACK PREPARED', q(
	COMMIT PREPARED 'kept'; ROLLBACK PREPARED 'undone';));
is(value(q(SELECT string_agg(state, ' ' ORDER BY claim_id) FROM claims
			WHERE claim_id IN (test.c(44), test.c(45)))), 'PAID PAID', 'with the claims');

writes('a cursor WITH HOLD over the commit', q(
	BEGIN;
	UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(48);
	DECLARE held CURSOR WITH HOLD FOR SELECT state FROM claims WHERE claim_id = test.c(48);
	UPDATE claims SET state = 'REJECTED' WHERE claim_id = test.c(49);
	COMMIT;
	FETCH held;
	BEGIN;
	UPDATE claims SET state = 'ASSESSED' WHERE claim_id = test.c(48);
	FETCH held;
	COMMIT;
	CLOSE held;), prints => 'PAID');

writes('a volatile cursor WITH HOLD that writes at commit', q(
	CREATE FUNCTION write_off(n bigint) RETURNS text LANGUAGE sql AS
	$$ UPDATE claims SET state = 'WRITTEN_OFF' WHERE claim_id = test.c(n) RETURNING state $$;
	BEGIN;
	DECLARE late CURSOR WITH HOLD FOR SELECT write_off(n) FROM generate_series(50, 53) AS n;
	COMMIT;
	FETCH ALL late;), prints => join("\n", ('WRITTEN_OFF') x 4));

writes('a cursor and WHERE CURRENT OF', q(
	BEGIN;
	DECLARE c CURSOR FOR SELECT FROM claims WHERE claim_id = test.c(54) FOR UPDATE;
	MOVE c;
	UPDATE claims SET state = 'PAID' WHERE CURRENT OF c;
	COMMIT;));

# ----------------------------------------------------------------------
# Constraints, triggers and rules of the application
# ----------------------------------------------------------------------

writes('deferred constraints', q(
	ALTER TABLE wcb_invoice_lines ADD CONSTRAINT deferred_line
		FOREIGN KEY (wcb_claim_detail_id) REFERENCES wcb_claim_details DEFERRABLE INITIALLY DEFERRED;
	BEGIN;
	INSERT INTO wcb_invoice_lines (wcb_claim_detail_id, amount) VALUES (test.c(500), 125.50);
	INSERT INTO wcb_claim_details (wcb_claim_detail_id, claim_id) VALUES (test.c(500), test.c(500));
	INSERT INTO claims (claim_id, physician_id, claim_type, state, date_of_service)
	VALUES (test.c(500), test.p(1), 'WCB', 'PAID', current_date);
	COMMIT;));
writes('a deferred constraint that fails', q(
	BEGIN;
	UPDATE claims SET state = 'REJECTED' WHERE claim_id = test.c(500);
	INSERT INTO wcb_invoice_lines (wcb_claim_detail_id, amount) VALUES (test.c(501), 1);
	COMMIT;), messages => qr/ERROR:  23503/);

writes('a deferred constraint trigger that writes claims', q(
	CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		UPDATE claims SET state = 'ADJUSTED', physician_id = test.p(3)
		 WHERE claim_id = NEW.claim_id AND state = 'ASSESSED';
		UPDATE ahcip_claim_details SET assessed_fee = 12.34 WHERE claim_id = NEW.claim_id;
		INSERT INTO claim_audit_history (claim_id, new_state) VALUES (NEW.claim_id, 'REJECTED');
		RETURN NULL;
	END $$;
	CREATE CONSTRAINT TRIGGER follow AFTER UPDATE ON claims DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW WHEN (NEW.state = 'ASSESSED') EXECUTE FUNCTION follow();
	BEGIN;
	UPDATE claims SET state = 'ASSESSED' WHERE claim_id IN (test.c(55), test.c(56), test.c(57));
	COMMIT;
	UPDATE claims SET state = 'ASSESSED' WHERE claim_id = test.c(58);
	BEGIN;
	UPDATE claims SET state = 'ASSESSED' WHERE claim_id = test.c(59);
	SET CONSTRAINTS ALL IMMEDIATE;
	SELECT count(*) > 0 FROM meritum_get_metrics(test.p(3), '{claims_adjusted}', current_date - 400, current_date + 40) WHERE dimensions IS NULL;
	COMMIT;
	DROP TRIGGER follow ON claims;), prints => 't');

writes('triggers that change the row, and other claims', q(
	CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		NEW.physician_id := test.p(2);
		RETURN NEW;
	END $$;
	CREATE TRIGGER a_before BEFORE UPDATE ON claims FOR EACH ROW
		WHEN (NEW.notes = 'move') EXECUTE FUNCTION before_row();
	CREATE FUNCTION after_row() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		UPDATE claims SET state = 'REJECTED', notes = 'done'
		 WHERE physician_id = test.p(1) AND state = 'DRAFT';
		UPDATE claims SET state = 'QUEUED', notes = 'done' WHERE claim_id = NEW.claim_id;
		DELETE FROM claims WHERE claim_id = test.c(61);
		RETURN NULL;
	END $$;
	CREATE TRIGGER z_after AFTER UPDATE ON claims FOR EACH ROW
		WHEN (NEW.notes = 'move') EXECUTE FUNCTION after_row();
	UPDATE claims SET notes = 'move' WHERE claim_id IN (test.c(62), test.c(63), test.c(64));
	DROP TRIGGER a_before ON claims;
	DROP TRIGGER z_after ON claims;));

writes('a trigger that suppresses the change', q(
	CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER suppress BEFORE UPDATE OR DELETE ON claims FOR EACH ROW EXECUTE FUNCTION suppress();
	UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(65);
	DELETE FROM claims WHERE claim_id = test.c(66);
	DROP TRIGGER suppress ON claims;));

writes('updatable views, and one with an INSTEAD OF trigger', q(
	CREATE VIEW open_claim AS SELECT * FROM claims WHERE deleted_at IS NULL WITH CHECK OPTION;
	UPDATE open_claim SET state = 'PAID' WHERE claim_id = test.c(67);
	INSERT INTO open_claim (claim_id, physician_id, state, date_of_service)
	VALUES (test.c(502), test.p(3), 'PAID', current_date);
	DELETE FROM open_claim WHERE claim_id = test.c(68);
	CREATE VIEW wide AS SELECT c.claim_id, c.state, a.assessed_fee
		FROM claims c JOIN ahcip_claim_details a USING (claim_id);
	CREATE FUNCTION write_wide() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		UPDATE claims SET state = NEW.state WHERE claim_id = NEW.claim_id;
		UPDATE ahcip_claim_details SET assessed_fee = NEW.assessed_fee WHERE claim_id = NEW.claim_id;
		RETURN NEW;
	END $$;
	CREATE TRIGGER wide INSTEAD OF UPDATE ON wide FOR EACH ROW EXECUTE FUNCTION write_wide();
	UPDATE wide SET state = 'PAID', assessed_fee = 99 WHERE claim_id IN (test.c(69), test.c(71));));

writes('rules', q(
	CREATE VIEW paid AS SELECT claim_id FROM claims WHERE state = 'PAID';
	CREATE RULE unpay AS ON DELETE TO paid DO INSTEAD
		UPDATE claims SET state = 'ADJUSTED' WHERE claim_id = OLD.claim_id;
	CREATE RULE log_claim AS ON UPDATE TO claims WHERE NEW.state = 'REJECTED' DO ALSO
		INSERT INTO claim_audit_history (claim_id, new_state) VALUES (NEW.claim_id, NEW.state);
	DELETE FROM paid WHERE claim_id IN (test.c(69), test.c(72));
	UPDATE claims SET state = 'REJECTED' WHERE claim_id = test.c(71);
	UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(71);
	DROP RULE log_claim ON claims;));

# ----------------------------------------------------------------------
# Kinds of statements
# ----------------------------------------------------------------------

writes('MERGE', q(
	MERGE INTO claims c USING (SELECT test.c(n) AS id, n FROM generate_series(70, 80) AS n
							   UNION SELECT test.c(n), n FROM generate_series(510, 512) AS n) AS s
		ON c.claim_id = s.id
	WHEN MATCHED AND s.n < 73 THEN DELETE
	WHEN MATCHED AND s.n < 77 THEN UPDATE SET state = 'PAID', date_of_service = current_date
	WHEN MATCHED THEN DO NOTHING
	WHEN NOT MATCHED THEN INSERT (claim_id, physician_id, state, date_of_service)
		VALUES (s.id, test.p(2), 'SUBMITTED', current_date - 40);));

writes('INSERT ON CONFLICT', q(
	INSERT INTO claims (claim_id, physician_id, state, date_of_service)
	SELECT test.c(n), test.p(3), 'PAID', current_date FROM generate_series(81, 90) AS n
	ON CONFLICT (claim_id) DO UPDATE SET state = EXCLUDED.state WHERE claims.priority = 0;
	INSERT INTO claims (claim_id, physician_id, state, date_of_service)
	SELECT test.c(n), test.p(4), 'REJECTED', current_date FROM generate_series(88, 95) AS n
	ON CONFLICT DO NOTHING;
	INSERT INTO ahcip_claim_details (claim_id, assessed_fee, submitted_fee)
	SELECT test.c(n), n, n + 1 FROM generate_series(81, 90) AS n
	ON CONFLICT (claim_id) DO UPDATE SET assessed_fee = EXCLUDED.assessed_fee;));

writes('UPDATE FROM and DELETE USING', q(
	UPDATE claims c SET state = 'ASSESSED', physician_id = test.p(1 + n % 4)
	  FROM generate_series(91, 100) AS n WHERE c.claim_id = test.c(n);
	DELETE FROM ahcip_claim_details a USING claims c
	 WHERE a.claim_id = c.claim_id AND c.claim_id IN (test.c(101), test.c(102));
	UPDATE claims SET claim_id = test.c(520) WHERE claim_id = test.c(103);));

writes('writable CTEs', q(
	WITH gone AS (DELETE FROM claims WHERE claim_id IN (test.c(104), test.c(105)) RETURNING *),
		 again AS (INSERT INTO claims (claim_id, physician_id, claim_type, state, date_of_service)
				   SELECT gen_random_uuid(), test.p(4), claim_type, 'PAID', date_of_service FROM gone
				   RETURNING claim_id),
		 detail AS (INSERT INTO ahcip_claim_details (claim_id, submitted_fee, assessed_fee)
					SELECT claim_id, 11, 12 FROM again)
	UPDATE claims SET state = 'REJECTED' WHERE claim_id = test.c(106);));

writes('COPY, with and without FREEZE', q(
	COPY claims (claim_id, physician_id, state, date_of_service) FROM stdin WITH (DELIMITER ',');
c0000000-0000-4000-8000-000000000530,a0000000-0000-4000-8000-000000000001,PAID,2026-01-15
c0000000-0000-4000-8000-000000000531,a0000000-0000-4000-8000-000000000002,PAID,2026-01-15
\.
));

my $force = $version >= 160000 ? 'debug_parallel_query' : 'force_parallel_mode';
writes('parallel queries in the session', qq(
	SET $force = on;
	SET parallel_setup_cost = 0;
	SET parallel_tuple_cost = 0;
	SET min_parallel_table_scan_size = 0;
	BEGIN;
	SELECT count(*) > 0 FROM claims;
	UPDATE claims SET state = 'PAID' WHERE claim_id IN (SELECT test.c(n) FROM generate_series(107, 110) AS n);
	SELECT count(*) > 0 FROM claims JOIN ahcip_claim_details USING (claim_id);
	SELECT count(*) > 0 FROM meritum_get_metrics(test.p(1), '{claims_paid}', current_date - 400, current_date + 40);
	COMMIT;
	CREATE TABLE copied AS SELECT * FROM claims;
	SELECT bool_or(meritum_is_stale(provider_id)) FROM providers;
	UPDATE claims SET state = 'REJECTED' WHERE state = 'PAID' AND physician_id = test.p(1);),
	prints => "t\nt\nt\nf");

# every provider's figures, which would be more than commit_limit
writes('TRUNCATE, undone and for good', q(
	SET meritum_cache.commit_limit = 100000;
	BEGIN; TRUNCATE ahcip_claim_details; ROLLBACK;
	BEGIN; SAVEPOINT a; TRUNCATE claim_audit_history; ROLLBACK TO a; COMMIT;
	TRUNCATE wcb_invoice_lines;));

writes('a change of role, search_path and settings', q(
	CREATE ROLE writer;
	GRANT SELECT, UPDATE ON claims TO writer;
	GRANT USAGE ON SCHEMA test TO writer;
	CREATE SCHEMA decoy;
	CREATE TABLE decoy.claims (claim_id uuid);
	SET search_path = decoy, pg_catalog;
	SET ROLE writer;
	SET default_transaction_isolation = 'repeatable read';
	SET enable_indexscan = off;
	SET jit_above_cost = 0;
	BEGIN;
	UPDATE public.claims SET state = 'PAID' WHERE claim_id = test.c(111);
	SET LOCAL ROLE NONE;
	COMMIT;
	BEGIN;
	UPDATE public.claims SET state = 'REJECTED' WHERE claim_id = test.c(112);
	COMMIT;));

writes('a read-only transaction after a write in a function', q(
	CREATE FUNCTION pay_one() RETURNS void LANGUAGE sql AS
	$$ UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(113) $$;
	BEGIN; SELECT FROM pay_one(); SET TRANSACTION READ ONLY; COMMIT;));

# ----------------------------------------------------------------------
# Another time zone, other breakdowns
# ----------------------------------------------------------------------

sub change_setting
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET meritum_cache.$name = '$value'");
	$node->reload;
	wait_for($node, "SELECT current_setting('meritum_cache.$name') = '$value'",
		"$name is '$value'");
	return;
}

sub read_all
{
	my ($provider) = @_;

	return "SELECT count(*) > 0 FROM meritum_get_metrics($provider,"
	  . ' ARRAY(SELECT metric_key FROM meritum_cache.metric),'
	  . " (current_date - interval '2 years')::date, current_date + 31)";
}

# claims of long ago, and events that are of another month in the other zone; of
# provider 4, who is not active, too
$node->safe_psql('postgres', q(
	UPDATE providers SET status = 'SUSPENDED' WHERE provider_id = test.p(4);
	INSERT INTO claims (claim_id, physician_id, state, date_of_service)
	SELECT test.c(700 + 10 * p + m), test.p(p), 'PAID', current_date - 30 * (10 + m)
	  FROM generate_series(1, 4) AS p, generate_series(1, 8) AS m;
	INSERT INTO ai_suggestion_events (provider_id, event_type, category, created_at)
	SELECT test.p(p), 'accepted', 'MODIFIER',
		   date_trunc('month', now() AT TIME ZONE 'America/Edmonton') AT TIME ZONE 'America/Edmonton'
		   - make_interval(months => m, hours => 2)
	  FROM generate_series(1, 4) AS p, generate_series(1, 14) AS m));
value(read_all("test.p($_)")) foreach 1 .. 4;
is(wrong($node), '', 'before the change of the zone all is right');
change_setting('timezone', 'Pacific/Kiritimati');
is(value(join ' AND ', 'SELECT true', map { "meritum_is_stale(test.p($_))" } 1 .. 4),
	't', 'the figures of another time zone are stale');
is(value('BEGIN; ' . read_all('test.p(1)') . '; COMMIT'), 't', 'a reader in a transaction block');
value(read_all("test.p($_)")) foreach 1, 4;
$node->safe_psql('postgres', "UPDATE claims SET state = 'ADJUSTED' WHERE claim_id = test.c(13)");
$node->safe_psql('postgres', 'CALL meritum_refresh_all_providers()');
is(value("SELECT count(*) FROM generate_series(1, 4) AS p, meritum_verify(test.p(p))"),
	0, 'readers, a commit and the nightly batch have made them right');
isnt(wrong($node), '', 'they are not those of the zone before');
change_setting('timezone', 'America/Edmonton');
is(value(q(SELECT sum((value ->> 'totalAccepted')::integer)
			 FROM meritum_get_metrics(test.p(4), '{ai_coach_acceptance_rate}',
				  (now() - interval '2 years')::date, (date_trunc('month', now()) - interval '1 day')::date))),
	value(q(SELECT count(*) FROM ai_suggestion_events
			 WHERE provider_id = test.p(4) AND event_type = 'accepted'
			   AND created_at < date_trunc('month', now() AT TIME ZONE 'America/Edmonton')
								AT TIME ZONE 'America/Edmonton')),
	'a reader gets those of the present zone');
value(read_all("test.p($_)")) foreach 1 .. 4;
is(wrong($node), '', 'and all is right');
$node->safe_psql('postgres', q(
	UPDATE providers SET status = 'ACTIVE' WHERE provider_id = test.p(4);
	ALTER SYSTEM RESET meritum_cache.timezone));
$node->reload;

# a change of the breakdowns reaches all that is stored, whatever refreshes next
my $breakdowns = q(SELECT count(*) > 0 FROM meritum_cache.analytics_cache
					WHERE dimensions ? 'claim_type' AND period_start < now() - interval '13 months');
is(value($breakdowns), 't', 'there are breakdowns of months before the trailing window');
change_setting('dimensions', '');
$node->safe_psql('postgres', 'CALL meritum_refresh_all_providers()');
is(value('SELECT count(*) FROM meritum_cache.analytics_cache WHERE dimensions IS NOT NULL'),
	0, 'no breakdowns: none is left');
change_setting('dimensions', 'claim_type, ba_number, location_id');
$node->safe_psql('postgres', q(UPDATE claims SET state = 'ASSESSED' WHERE physician_id = test.p(1)));
is(value('SELECT count(*) FROM meritum_verify(test.p(1))'), 0, 'breakdowns again: a commit makes them');
value(read_all('test.p(2)'));
$node->safe_psql('postgres', 'CALL meritum_refresh_all_providers()');
is(wrong($node), '', 'the nightly batch does');
is(value($breakdowns), 't', 'also of the months before');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET meritum_cache.dimensions');
$node->reload;

# ----------------------------------------------------------------------
# Foreign keys that cascade
# ----------------------------------------------------------------------

writes('cascading foreign keys', q(
	DELETE FROM ahcip_claim_details a WHERE NOT EXISTS (SELECT FROM claims c WHERE c.claim_id = a.claim_id);
	DELETE FROM wcb_claim_details a WHERE NOT EXISTS (SELECT FROM claims c WHERE c.claim_id = a.claim_id);
	DELETE FROM claim_audit_history a WHERE NOT EXISTS (SELECT FROM claims c WHERE c.claim_id = a.claim_id);
	ALTER TABLE claims ADD FOREIGN KEY (physician_id) REFERENCES providers ON DELETE CASCADE ON UPDATE CASCADE;
	ALTER TABLE ahcip_claim_details ADD FOREIGN KEY (claim_id) REFERENCES claims ON DELETE CASCADE ON UPDATE CASCADE;
	ALTER TABLE wcb_claim_details ADD FOREIGN KEY (claim_id) REFERENCES claims ON DELETE CASCADE ON UPDATE CASCADE;
	DELETE FROM claims WHERE claim_id IN (test.c(114), test.c(115), test.c(120));
	UPDATE claims SET claim_id = test.c(540) WHERE claim_id = test.c(116);
	UPDATE providers SET provider_id = test.p(8) WHERE provider_id = test.p(4);
	DELETE FROM providers WHERE provider_id = test.p(3);), pending => 1);
is(value('SELECT count(*) FROM meritum_cache.analytics_cache WHERE provider_id IN (test.p(3), test.p(4))'),
	0, 'cascading foreign keys: the rows of providers that are gone are gone');

# ----------------------------------------------------------------------
# Behind the triggers
# ----------------------------------------------------------------------

# Drift: verify finds it, the nightly batch repairs and counts it.
sub drift
{
	my ($server) = @_;
	return $server->safe_psql('postgres',
		'SELECT sum(drift) FROM meritum_cache.provider_state');
}

my $before = drift($node);
$node->safe_psql('postgres', q(
	SET session_replication_role = replica;
	UPDATE claims SET state = 'WRITTEN_OFF' WHERE claim_id IN (test.c(117), test.c(21));
	DELETE FROM claims WHERE claim_id = test.c(22);
	INSERT INTO claims (claim_id, physician_id, state, date_of_service)
	VALUES (test.c(550), test.p(1), 'PAID', current_date)));
isnt(value('SELECT count(*) FROM providers, meritum_verify(provider_id)'), 0,
	'session_replication_role = replica: verify finds the difference');
my ($out, $err) = run_sql($node, 'CALL meritum_refresh_all_providers();');
like($err, qr/WARNING:.*drift/, 'the nightly batch warns');
cmp_ok(drift($node), '>=', $before + 3, 'and counts');
is(wrong($node), '', 'and repairs');
like(slurp_file($node->logfile), qr/WARNING:.*drifted/, 'the warning is in the log');
($out, $err) = run_sql($node, 'CALL meritum_refresh_all_providers();');
is($err, '', 'the next batch has nothing to warn about');

# A note of something that was not there yet must not count as drift.
$before = drift($node);
$node->safe_psql('postgres', q(
	ALTER TABLE ahcip_claim_details DROP CONSTRAINT ahcip_claim_details_claim_id_fkey;
	BEGIN;
	INSERT INTO claims (claim_id, physician_id, state, date_of_service)
	VALUES (test.c(560), test.p(1), 'PAID', current_date);
	PREPARE TRANSACTION 'claim';
	INSERT INTO ahcip_claim_details (claim_id, submitted_fee, assessed_fee)
	VALUES (test.c(560), 20, 17.50)));
my $figure = q(
	SELECT value ->> 'totalRevenue' FROM meritum_get_metrics(test.p(1),
		'{revenue_monthly}', date_trunc('month', current_date)::date,
		(date_trunc('month', current_date) + interval '1 month - 1 day')::date)
	 WHERE dimensions IS NULL);
my ($old, $new) = split /\n/, $node->safe_psql('postgres',
	"$figure; COMMIT PREPARED 'claim'; $figure");
is($new - $old, 17.5, 'a claim committed after its detail: the reader has both');
($out, $err) = run_sql($node, 'CALL meritum_refresh_all_providers();');
is($err, '', 'and that is no drift');
is(drift($node), $before, 'nor counted as such');
settled($node, 'and all is right');

# Logical replication
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init(allows_streaming => 'logical');
$subscriber->append_conf('postgresql.conf', platform_conf());
$subscriber->start;
load_platform($subscriber);
my @tables = split /\n/, value('SELECT unnest(oracle.all_tables())');
$node->safe_psql('postgres', 'CREATE PUBLICATION all_claims FOR TABLE ' . join(', ', @tables));
my $connection = $node->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION all_claims CONNECTION '$connection' PUBLICATION all_claims");
$subscriber->wait_for_subscription_sync($node, 'all_claims');
$subscriber->safe_psql('postgres', 'CREATE EXTENSION meritum_cache; SELECT * FROM meritum_attach();');
$subscriber->safe_psql('postgres', 'CALL meritum_refresh_all_providers()');
is(wrong($subscriber), '', 'a subscriber: the figures are right after the first copy');

# without ENABLE ALWAYS the changes that arrive are not seen
$node->safe_psql('postgres', q(
	UPDATE claims SET state = 'REJECTED' WHERE claim_id IN (test.c(118), test.c(550));
	UPDATE ahcip_claim_details SET assessed_fee = 1 WHERE claim_id = test.c(560)));
$node->wait_for_catchup('all_claims');
isnt($subscriber->safe_psql('postgres', 'SELECT count(*) FROM providers, meritum_verify(provider_id)'),
	0, 'a subscriber: verify finds what the triggers did not see');
($out, $err) = run_sql($subscriber, 'CALL meritum_refresh_all_providers();');
like($err, qr/WARNING:.*drift/, 'a subscriber: the nightly batch warns');
cmp_ok(drift($subscriber), '>', 0, 'a subscriber: and counts');
is(wrong($subscriber), '', 'a subscriber: and repairs');
$before = drift($subscriber);

# with it they are
$subscriber->safe_psql('postgres', q(
	DO $$
	DECLARE
		t record;
	BEGIN
		FOR t IN SELECT tgrelid::regclass AS tab, tgname FROM pg_trigger
				  WHERE tgfoid = 'meritum_cache.note_change'::regproc LOOP
			EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.tab, t.tgname);
		END LOOP;
	END $$));
foreach my $mode ('commit', 'async')
{
	$subscriber->safe_psql('postgres', "ALTER DATABASE postgres SET meritum_cache.refresh_mode = $mode");
	$subscriber->restart;
	$node->safe_psql('postgres', qq(
		UPDATE claims SET state = 'PAID', notes = '$mode' WHERE claim_id IN (test.c(118), test.c(550));
		UPDATE claims SET state = 'ASSESSED' WHERE claim_id IN (test.c(118), test.c(550));
		UPDATE ahcip_claim_details SET assessed_fee = assessed_fee + 3 WHERE claim_id = test.c(560);
		DELETE FROM claims WHERE claim_id = (SELECT min(claim_id::text)::uuid FROM claims);
		BEGIN;
		INSERT INTO claims (claim_id, physician_id, state, date_of_service)
		VALUES (gen_random_uuid(), test.p(1), 'PAID', current_date),
			   (gen_random_uuid(), test.p(2), 'PAID', current_date - 40);
		UPDATE claims SET physician_id = test.p(2) WHERE claim_id = test.c(119);
		COMMIT;));
	$node->wait_for_catchup('all_claims');
	settled($subscriber, "a subscriber with ENABLE ALWAYS, $mode: the figures follow");
}
$node->safe_psql('postgres', 'TRUNCATE claim_audit_history, wcb_invoice_lines');
$node->wait_for_catchup('all_claims');
settled($subscriber, 'a subscriber with ENABLE ALWAYS: TRUNCATE');
$subscriber->safe_psql('postgres', 'CALL meritum_refresh_all_providers()');
is(drift($subscriber), $before, 'a subscriber with ENABLE ALWAYS: no drift');
is(incomplete($subscriber), '', 'a subscriber: nothing is missing');
is(incomplete($node), '', 'the publisher: nothing is missing');

$subscriber->stop;
$node->stop;
unlike(slurp_file($_->logfile), qr/PANIC|TRAP|segmentation|signal 11/i,
	'no process has crashed')
  foreach $node, $subscriber;

done_testing();
