# Dump and restore: what the extension's tables say of tables, jobs and events
# comes back as it was, whichever way the dump is restored; facts and figures
# are rebuilt.  And dropping the extension leaves the application's tables as
# they were.

use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$FindBin::Bin/../support";
use Platform;

my $node = platform_server('main', conf => q(
meritum_cache.databases = 'postgres, restored'
));
my $dir = PostgreSQL::Test::Utils::tempdir();

# Everything that is to come back, a line each.
sub configuration
{
	my ($db) = @_;

	return $node->safe_psql($db, q(
		SET search_path = '';
		SELECT 'job', name, schedule, timezone, command, enabled, timeout, owner
		  FROM meritum_cache.job WHERE name <> 'orphan' ORDER BY name COLLATE "C";
		SELECT 'event', event_type, metric_key
		  FROM meritum_cache.event_metric
		 ORDER BY event_type COLLATE "C", metric_key COLLATE "C";
		SELECT 'metric', metric_key, grain, description, query, search_path, owner
		  FROM meritum_cache.metric
		 WHERE query IS NOT NULL ORDER BY metric_key COLLATE "C";
		SELECT 'source', source, relation, columns, attached_at
		  FROM meritum_cache.source_table WHERE source <> 'ghost' ORDER BY source COLLATE "C";
		SELECT 'role', role, level, pinned
		  FROM meritum_cache.role_grant
		 WHERE role IN (SELECT oid FROM pg_roles) ORDER BY role::text COLLATE "C";
		SELECT 'default', relation, key, metric_key
		  FROM meritum_cache.default_row
		 ORDER BY relation COLLATE "C", key COLLATE "C", metric_key COLLATE "C";
		SELECT 'trigger', tgrelid::regclass, tgname, tgfoid::regproc, tgenabled,
			   (SELECT count(*) FROM pg_depend
				 WHERE classid = 'pg_trigger'::regclass AND objid = t.oid AND deptype = 'x')
		  FROM pg_trigger AS t WHERE tgname LIKE 'meritum%'
		 ORDER BY tgrelid::regclass::text COLLATE "C", tgname;
		SELECT 'grant', o.name, a.grantee::regrole, a.privilege_type
		  FROM (SELECT proname, proacl, proowner FROM pg_proc
				 WHERE proname LIKE 'meritum\_%'
				 UNION ALL
				SELECT relname, relacl, relowner FROM pg_class
				 WHERE relnamespace = 'meritum_cache'::regnamespace) AS o (name, acl, owner),
			   aclexplode(o.acl) AS a
		 WHERE a.grantee <> o.owner
		 ORDER BY o.name COLLATE "C", a.grantee::regrole::text COLLATE "C",
				  a.privilege_type;));
}

# Does a database have the same as that list?
sub same
{
	my ($db, $expected) = @_;

	is_deeply([ split /\n/, configuration($db) ], [ split /\n/, $expected ],
		"$db: everything is as it was");
	return;
}

sub new_database
{
	my ($db) = @_;

	$node->safe_psql('postgres', "DROP DATABASE IF EXISTS $db WITH (FORCE)");
	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0");
	return;
}

sub dump_database
{
	my ($db, $file, @options) = @_;

	$node->command_ok(
		[ 'pg_dump', '-d', $node->connstr($db), '-f', "$dir/$file", @options ],
		"pg_dump " . join(' ', @options));
	return;
}

sub restore
{
	my ($db, $file, @options) = @_;

	$node->command_ok(
		[ 'pg_restore', '-d', $node->connstr($db), @options, "$dir/$file" ],
		'pg_restore ' . join(' ', @options));
	return;
}

# Something to carry

$node->safe_psql('postgres', q(
	CREATE ROLE clerk LOGIN;
	CREATE ROLE desk;
	CREATE ROLE gone;
	GRANT USAGE ON SCHEMA meritum_cache TO clerk;
	GRANT SELECT ON meritum_cache.job TO clerk;
	GRANT EXECUTE ON FUNCTION meritum_is_stale(uuid, integer) TO clerk;
	SELECT meritum_grant('desk', 'reader', pinned => true);
	SELECT meritum_grant('gone', 'operator');
	SELECT meritum_schedule('own', '5 4 * * mon-fri', $$SELECT 'a	tab, a \ and '$$,
							timezone => 'Europe/Vienna', timeout => '90 s');
	SELECT meritum_schedule('cleanup', '30 3 * * *', 'SELECT 1', enabled => false);
	SELECT meritum_unschedule('nightly_refresh');
	INSERT INTO meritum_cache.job (name, schedule, command, owner)
	VALUES ('of clerk', '@daily', 'SELECT 2', 'clerk'),
		   ('orphan', '@daily', 'SELECT 3', 'gone');
	-- a metric of an organisation's own
	CREATE TABLE stock (provider_id uuid, quantity integer);
	INSERT INTO stock VALUES (test.p(1), 5);
	SELECT meritum_create_metric('stock', $$SELECT NULL::jsonb, to_jsonb(coalesce(sum(quantity), 0))
		FROM stock WHERE provider_id = $1$$, 'snapshot', 'a	tab, a \ and ''');
	INSERT INTO meritum_cache.event_metric VALUES ('stock.changed', 'stock');
	SELECT meritum_attach_event('stock', 'stock.changed', 'provider_id');
	SELECT meritum_refresh_provider_metrics(test.p(1));
	DROP OWNED BY gone;
	DROP ROLE gone;
	DELETE FROM meritum_cache.event_metric
	 WHERE event_type = 'submitted' OR metric_key = 'top_hsc_codes';
	INSERT INTO meritum_cache.event_metric VALUES ('validated', 'pending_pipeline');
	-- a table that was dropped behind the extension's back
	INSERT INTO meritum_cache.source_table (source, relation, columns)
	SELECT 'ghost', max(oid::bigint + 1000000)::oid, '{}' FROM pg_class;));
drained($node, 'a row of source_table that was not written by meritum_attach '
	. 'makes everything refreshed');
my $configuration = configuration('postgres');

# Into another database, in parallel, where a worker waits

$node->safe_psql('postgres', q(
	SELECT meritum_create_metric('orphaned', 'SELECT NULL::jsonb, to_jsonb(1)');
	UPDATE meritum_cache.metric SET owner = (SELECT max(oid::bigint + 1000000)::oid FROM pg_roles)
	 WHERE metric_key = 'orphaned';));
dump_database('postgres', 'custom', '-Fc');
$node->safe_psql('postgres', q(SELECT meritum_drop_metric('orphaned')));
new_database('restored');
$node->reload;
restore('restored', 'custom', '-j', '3');
same('restored', $configuration);
is( $node->safe_psql(
		'restored', q(SELECT name FROM meritum_cache.job WHERE name = 'orphan'
					   UNION ALL
					   SELECT metric_key FROM meritum_cache.metric WHERE metric_key = 'orphaned'
					   UNION ALL
					  SELECT source FROM meritum_cache.source_table WHERE source = 'ghost')),
	'', 'a job and a metric of a dropped role and a dropped table are left out');
ok( $node->poll_query_until(
		'restored', q(
		SELECT NOT EXISTS (SELECT FROM meritum_cache.pending_refresh)
		   AND NOT EXISTS (SELECT FROM providers WHERE meritum_is_stale(provider_id)))),
	'the worker rebuilds everything');
is(wrong($node, 'restored'), '', 'and it is right');
is( $node->safe_psql(
		'restored', q(
		SET ROLE desk;
		SELECT count(*) FROM meritum_cache.analytics_cache;
		SELECT meritum_set_provider('a0000000-0000-4000-8000-000000000001') IS NULL;
		SELECT DISTINCT provider_id FROM meritum_cache.analytics_cache)),
	"0\nf\na0000000-0000-4000-8000-000000000001", 'a pinned reader sees one provider');
isnt($node->safe_psql('restored', 'SELECT count(*) FROM meritum_cache.analytics_cache'),
	'0', 'there are figures');
$node->safe_psql('restored', q(UPDATE claims SET state = 'REJECTED' WHERE claim_id = test.c(1)));
is(wrong($node, 'restored'), '', 'a change is seen with its commit');
$node->safe_psql('restored', 'UPDATE stock SET quantity = 6');
is( $node->safe_psql('restored', q(SELECT value FROM meritum_cache.analytics_cache WHERE metric_key = 'stock' AND provider_id = test.p(1))),
	'6', 'and so is an event');
is($node->safe_psql('restored', 'SELECT count(*) FROM meritum_cache.pending_refresh'),
	'0', 'and leaves no note');
is(wrong($node), '', 'the other database is not concerned');

# Into a database without a worker, in one transaction

dump_database('postgres', 'plain.sql');
new_database('plain');
$node->command_ok(
	[
		'psql', '-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-o', "$dir/output",
		'-d', $node->connstr('plain'), '-f', "$dir/plain.sql"
	],
	'psql restores the script');
same('plain', $configuration);
is( $node->safe_psql(
		'plain', q(
		SELECT (SELECT count(*) FROM meritum_cache.analytics_cache),
			   (SELECT count(*) FROM meritum_cache.claim_fact),
			   (SELECT count(*) FROM meritum_cache.provider_state),
			   (SELECT bool_and(meritum_is_stale(provider_id)) FROM providers))),
	'0|0|0|t', 'no figure and no fact is carried, and every provider is stale');
my $read = q(
	SELECT metric_key, period_start, dimensions, value
	  FROM meritum_get_metrics(test.p(1), ARRAY(SELECT metric_key FROM meritum_cache.metric),
							   '2000-01-01', '2100-01-01')
	 ORDER BY metric_key COLLATE "C", period_start, dimensions);
is($node->safe_psql('plain', $read), $node->safe_psql('postgres', $read),
	'a reader gets exact figures at once');
$node->safe_psql('plain', q(UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(2)));
is(wrong($node, 'plain'), '', 'and so after a change');
$node->safe_psql('plain', 'CALL meritum_refresh_all_providers()');
is(wrong($node, 'plain'), '', 'the nightly batch rebuilds');

# Over what is there: clean, as INSERTs; and then a dump of a restored database

dump_database('plain', 'again', '-Fc', '--rows-per-insert=1');
$node->safe_psql('plain', q(
	SELECT meritum_schedule('later', '@daily', 'SELECT 4'),
		   meritum_unschedule('cleanup');
	TRUNCATE meritum_cache.event_metric;));
restore('plain', 'again', '--clean', '--if-exists', '--exit-on-error');
same('plain', $configuration);

# The schema first and the data later, into tables that have their triggers

new_database('later');
restore('later', 'custom', '--schema-only');
is( $node->safe_psql(
		'later', 'SELECT name, enabled FROM meritum_cache.job ORDER BY name'),
	"cleanup|t\nnightly_refresh|t", 'a schema comes with the default jobs');
restore('later', 'custom', '--data-only', '-j', '2');
same('later', $configuration);
is($node->safe_psql('later', $read), $node->safe_psql('postgres', $read),
	'the figures are exact');
$node->safe_psql('later', q(
	UPDATE meritum_cache.job SET enabled = NOT enabled;
	INSERT INTO meritum_cache.event_metric VALUES ('submitted', 'claims_submitted');
	TRUNCATE claims, ahcip_claim_details, wcb_claim_details, wcb_invoice_lines,
			 claim_audit_history, patients, providers, practice_locations,
			 ai_suggestion_events, ai_provider_learning, ai_rules, stock;));
restore('later', 'custom', '--data-only');
same('later', $configuration);
is($node->safe_psql('later', $read), $node->safe_psql('postgres', $read),
	'the figures are exact');

# A role that does not exist where the dump is restored

$node->safe_psql('postgres', q(
	REVOKE USAGE ON SCHEMA meritum_cache FROM clerk;
	REVOKE SELECT ON meritum_cache.job FROM clerk;
	REVOKE EXECUTE ON FUNCTION meritum_is_stale(uuid, integer) FROM clerk;));
dump_database('postgres', 'clerk', '-Fc');
foreach my $db ('restored', 'plain', 'later')
{
	$node->safe_psql('postgres', "DROP DATABASE $db WITH (FORCE)");
}
$node->safe_psql('postgres', 'ALTER ROLE clerk RENAME TO other');
new_database('plain');
my ($out, $err) =
  run_command([ 'pg_restore', '-d', $node->connstr('plain'), "$dir/clerk" ]);
like($err, qr/table "job".*role "clerk" does not exist/, 'pg_restore names the role');
like($err, qr/errors ignored on restore: 1\b/, 'and nothing else fails');
is( $node->safe_psql('plain', 'SELECT name FROM meritum_cache.job ORDER BY name'),
	'cleanup', 'the default job that had not been removed is there meanwhile');
$node->safe_psql('postgres', 'ALTER ROLE other RENAME TO clerk');
restore('plain', 'clerk', '--data-only', '--table=job', '--table=default_row');
is_deeply([ grep { /^job/ } split /\n/, configuration('plain') ],
	[ grep { /^job/ } split /\n/, configuration('postgres') ],
	'the jobs can be restored alone, once the role is there');

# No default left

$node->safe_psql('plain', q(
	DELETE FROM meritum_cache.job;
	TRUNCATE meritum_cache.event_metric;));
dump_database('plain', 'empty', '-Fc');
new_database('empty');
restore('empty', 'empty');
is( $node->safe_psql(
		'empty', q(
		SELECT (SELECT count(*) FROM meritum_cache.job),
			   (SELECT count(*) FROM meritum_cache.event_metric))),
	'0|0', 'defaults that were removed do not come back');

# What is removed from a default and made again is the user's own

$node->safe_psql('empty',
	q(SELECT meritum_schedule('cleanup', '@weekly', 'SELECT 5')));
dump_database('empty', 'own.sql', '--inserts');
new_database('plain');
$node->command_ok(
	[
		'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-o', "$dir/output",
		'-d', $node->connstr('plain'), '-f', "$dir/own.sql"
	],
	'psql restores the script');
is( $node->safe_psql('plain', 'SELECT name, command FROM meritum_cache.job'),
	'cleanup|SELECT 5', 'a job by the name of a default one');

# Outside of a restore, keys are keys, and metrics must exist

my ($stdout, $message) = run_sql($node, q(
	INSERT INTO meritum_cache.job (name, schedule, command, owner)
	VALUES ('cleanup', '@daily', 'SELECT 1', current_user::regrole)));
like($message, qr/23505/, 'an insert does not replace a job');
($stdout, $message) = run_sql($node,
	q(INSERT INTO meritum_cache.event_metric VALUES ('paid', 'nothing')));
like($message, qr/23503.*unknown metric "nothing"/s, 'an event needs a metric');

# A schema whose name needs quoting; and what is left after the drop

sub schema_of
{
	my ($db) = @_;

	dump_database($db, 'schema.sql', '--schema-only');
	# newer servers guard a script by a random word
	return join "\n", grep { !/^\\(un)?restrict / } split /\n/,
	  slurp_file("$dir/schema.sql");
}

new_database('odd');
$node->safe_psql('odd', slurp_file("$FindBin::Bin/../support/platform.sql"));
my $before = schema_of('odd');
$node->safe_psql('odd', q(
	CREATE SCHEMA "Odd schema, 2";
	CREATE EXTENSION meritum_cache SCHEMA "Odd schema, 2";
	INSERT INTO providers (provider_id) VALUES ('a0000000-0000-4000-8000-000000000001');
	INSERT INTO claims (physician_id, state, date_of_service)
	VALUES ('a0000000-0000-4000-8000-000000000001', 'PAID', current_date);
	SELECT * FROM "Odd schema, 2".meritum_attach();));
foreach my $db ('odd', 'odd2')
{
	if ($db eq 'odd2')
	{
		dump_database('odd', 'odd', '-Fc');
		new_database('odd2');
		restore('odd2', 'odd');
		same('odd2', configuration('odd'));
	}
	my $command = $node->safe_psql($db,
		q(SELECT command FROM meritum_cache.job WHERE name = 'nightly_refresh'));
	is($command, 'CALL "Odd schema, 2".meritum_refresh_all_providers()',
		"$db: the default jobs name the schema");
	like($node->safe_psql($db, $command), qr/^1\|\d+\|\[\]$/, "$db: and can run");
	is( $node->safe_psql(
			$db, q(
			SELECT count(*) FROM "Odd schema, 2".meritum_get_metrics(
				'a0000000-0000-4000-8000-000000000001', '{claims_paid}',
				date_trunc('month', current_date)::date,
				(date_trunc('month', current_date) + interval '1 month - 1 day')::date)
			 WHERE dimensions IS NULL AND value = '{"count": 1}')),
		'1', "$db: figures can be read");
}
my ($code, $nothing, $refusal) =
  $node->psql('odd', 'ALTER EXTENSION meritum_cache SET SCHEMA public');
like($refusal, qr/does not support SET SCHEMA/, 'the extension does not move');
$node->safe_psql('odd', q(
	DROP EXTENSION meritum_cache CASCADE;
	DROP SCHEMA "Odd schema, 2";));
is(schema_of('odd'), $before, 'the drop leaves the tables as they were');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/i, 'no process has crashed');

done_testing();
