# 055_events.pl: metrics of one's own and the background worker: notes of
# events, queries that fail, crashes, prepared transactions, a standby.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
my $p = "'a0000000-0000-4000-8000-000000000001'";
my $q = "'a0000000-0000-4000-8000-000000000002'";

$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', platform_conf());
# days are those of the sessions
$node->append_conf('postgresql.conf', "meritum_cache.timezone = 'UTC'");
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# What is cached of a provider's metric, whatever is pending.
sub cached
{
	my ($key, $provider) = @_;

	$provider //= $p;
	return sql("SELECT coalesce((SELECT value::text FROM meritum_cache.analytics_cache
							 WHERE provider_id = $provider AND metric_key = '$key'
							 ORDER BY period_start DESC LIMIT 1), 'none')");
}

# The metrics belong to a role that is no superuser and may not log in.
sql(qq(
	CREATE EXTENSION meritum_cache;
	CREATE ROLE analyst;
	SELECT meritum_grant('analyst', 'admin');
	CREATE TABLE stock (provider_id uuid, quantity integer);
	GRANT SELECT ON stock TO analyst;
	INSERT INTO stock VALUES ($p, 1), ($q, 2);
	SET ROLE analyst;
	SELECT meritum_create_metric('sum', 'SELECT NULL::jsonb, to_jsonb(sum(quantity)) FROM stock WHERE provider_id = \$1', 'snapshot');
	SELECT meritum_create_metric('rows', 'SELECT NULL::jsonb, to_jsonb(count(*)) FROM stock WHERE provider_id = \$1');
	SELECT meritum_create_metric('inverse', 'SELECT NULL::jsonb, to_jsonb(trunc(sum(100 / quantity))) FROM stock WHERE provider_id = \$1', 'snapshot');
	INSERT INTO meritum_cache.event_metric VALUES ('stock', 'sum'), ('stock', 'rows'), ('stock', 'inverse');
	RESET ROLE;
	SELECT meritum_attach_event('stock', 'stock', 'provider_id');
	SELECT meritum_refresh_provider_metrics($p), meritum_refresh_provider_metrics($q);));
is(cached('sum') . ' ' . cached('rows') . ' ' . cached('inverse'), '1 1 100', 'refreshed as their owner');

# Asynchronously

sql("ALTER DATABASE postgres SET meritum_cache.refresh_mode = async");
sql("UPDATE stock SET quantity = 5");
drained($node, 'the worker settles what events of two providers have left');
is(cached('sum') . ' ' . cached('inverse', $q), '5 20', 'and the figures are there');
is(sql("SELECT DISTINCT refresh_cause FROM meritum_cache.provider_state"), 'worker', 'by the worker');

# While the worker waits for the provider, many sessions raise events.
my $holder = session($node);
$holder->query_safe("BEGIN; SELECT meritum_refresh_provider_metrics($p);");
sql("UPDATE stock SET quantity = 6 WHERE provider_id = $p");
ok(waiting_for($node, worker_pid($node), "locktype = 'object'"), 'the worker waits for the provider');
$node->pgbench(
	'--no-vacuum --client=4 --jobs=2 --transactions=150', 0,
	[qr{600/600}], [qr{^$}], 'sessions raise events',
	{ 'event@1' => "SELECT meritum_handle_event('stock', $p)" });
my $notes = pending($node, "provider_id = $p");
cmp_ok($notes, '>=', 1800, 'each leaves its notes');
my $before = sql("SELECT refreshes FROM meritum_cache.provider_state WHERE provider_id = $p");
$holder->query_safe('COMMIT');
$holder->quit;
drained($node, 'the worker settles them');
is(sql("SELECT refreshes - $before FROM meritum_cache.provider_state WHERE provider_id = $p"),
	2, 'all in one refresh, beside that of the session');
is(cached('sum'), '6', 'and right');

# Who listens hears of them

like(
	sql("LISTEN figures; SET meritum_cache.notify_channel = figures; SET meritum_cache.refresh_mode = commit;
		UPDATE stock SET quantity = 7 WHERE provider_id = $p; SELECT 1"),
	qr/"version":\d+,"metrics":\["sum","rows","inverse"\]/,
	'the notification names the metrics');

# A crash, and a prepared transaction

$holder = session($node);
$holder->query_safe("BEGIN; SELECT meritum_refresh_provider_metrics($p);");
sql("UPDATE stock SET quantity = 8 WHERE provider_id = $p");
isnt(pending($node), 0, 'a note before the crash');
$node->stop('immediate');
$holder->{run}->kill_kill;
$node->start;
drained($node, 'and the worker settles it after');
is(cached('sum'), '8', 'with the right figure');
foreach my $mode ('commit', 'async')
{
	sql("SET meritum_cache.refresh_mode = $mode; BEGIN;
		UPDATE stock SET quantity = quantity + 1 WHERE provider_id = $p;
		SELECT meritum_handle_event('stock', $q); PREPARE TRANSACTION 'event'");
	my $value = cached('sum');
	$node->restart;
	sql("COMMIT PREPARED 'event'");
	drained($node, "$mode: a prepared transaction is settled");
	is(cached('sum'), $value + 1, "$mode: its figure shows when it commits");
	is(sql("SELECT count(*) FROM meritum_verify($p)"), 0, "$mode: all is right");
}

# A query that fails

sub failing_note
{
	return sql("SELECT attempts || ' ' || coalesce(sqlstate, '') FROM meritum_cache.pending_refresh
				 WHERE provider_id = $p AND metric_key = 'inverse' AND attempts > 0");
}

sub make_due
{
	sql("UPDATE meritum_cache.pending_refresh SET next_attempt_at = clock_timestamp()
		  WHERE attempts < 10;
		 SELECT meritum_handle_event('stock', $q)");		# which wakes the worker
	return;
}

sql("UPDATE stock SET quantity = 0 WHERE provider_id = $p");
wait_for($node, "SELECT attempts > 0 FROM meritum_cache.pending_refresh WHERE provider_id = $p",
	'a query of the worker fails');
is(sql("SELECT string_agg(metric_key || ' ' || sqlstate || ' ' || message, ', ') FROM meritum_cache.pending_refresh WHERE provider_id = $p"),
	'inverse 22012 data exception', 'which leaves a note that names the metric');
is(cached('sum'), '0', 'the others of the provider are written');
my ($out, $err) = run_sql($node, "SELECT value FROM meritum_get_metrics($p, '{sum}', '-infinity', 'infinity')");
is("$out$err", '0', 'who reads others does not run into it');
($out, $err) = run_sql($node, "SELECT value FROM meritum_get_metrics($p, '{sum,inverse}', '-infinity', 'infinity')");
like($err, qr/22012: could not compute metric "inverse"/, 'who reads this one does');

my $growing = 1;
my $last = 0;
for (my $try = 0; $try < 60 && $last < 10; $try++)
{
	my ($attempts, $pause) = split /\|/, sql("
		SELECT attempts, extract(epoch FROM nullif(next_attempt_at, 'infinity') - clock_timestamp())
		  FROM meritum_cache.pending_refresh WHERE provider_id = $p AND attempts > 0");
	$growing = 0 if $attempts > 1 && $attempts < 10 && $attempts > $last
	  && ($pause > 2**($attempts - 1) || $pause < 2**($attempts - 1) - 30);
	$last = $attempts;
	last if $last >= 10;
	make_due();
	$node->poll_query_until('postgres', "
		SELECT max(attempts) > $attempts FROM meritum_cache.pending_refresh WHERE provider_id = $p");
}
is($last, 10, 'the worker tries ten times');
ok($growing, 'with growing pauses');
is(sql("SELECT provider_id = $p, attempts, sqlstate, message, since < now() FROM meritum_cache.failed_refresh"),
	't|10|22012|metric "inverse": data exception|t', 'then it is parked and shown in failed_refresh');
# an event of the provider tries once, and does not disturb the parking
sql("UPDATE stock SET quantity = 0 WHERE provider_id = $p; INSERT INTO stock VALUES ($p, 9)");
wait_for($node, "SELECT count(*) = 1 FROM meritum_cache.pending_refresh", 'the others are settled');
is(cached('sum') . ' ' . failing_note(), '9 10 22012', 'and it stays parked');
is(sql("SELECT meritum_is_stale($p)"), 't', 'which makes the provider stale');
($out, $err) = run_sql($node, "SELECT meritum_refresh_provider_metrics($p)");
like($err, qr/WARNING:  22012: could not compute metric "inverse"/, 'an explicit refresh tries, and fails');
is(sql('SELECT count(*) FROM meritum_cache.pending_refresh'), 1, 'there is one note still');
sql("DELETE FROM stock WHERE quantity = 0");
drained($node, 'an event that finds the data healed releases it');
is(cached('inverse'), '11', 'with the right figure');
is(sql('SELECT count(*) FROM meritum_cache.failed_refresh'), 0, 'nothing is parked');

# the same, released by an explicit refresh
sql("ALTER TABLE stock DISABLE TRIGGER USER; UPDATE stock SET quantity = 0 WHERE provider_id = $p; ALTER TABLE stock ENABLE TRIGGER USER");
($out, $err) = run_sql($node, "SELECT meritum_refresh_provider_metrics($p)");
wait_for($node, 'SELECT attempts > 1 FROM meritum_cache.pending_refresh', 'what failed by hand the worker tries again');
sql("ALTER TABLE stock DISABLE TRIGGER USER; UPDATE stock SET quantity = 50 WHERE provider_id = $p; ALTER TABLE stock ENABLE TRIGGER USER");
sql("SELECT meritum_refresh_provider_metrics($p)");
is(cached('inverse') . ' ' . pending($node), '2 0', 'an explicit refresh releases it as well');

# the worker gives a query as long as statement_timeout says
sql("ALTER DATABASE postgres SET statement_timeout = '1s'");
$node->restart;
sql("SET ROLE analyst; SELECT meritum_create_metric('slow', 'SELECT NULL::jsonb, to_jsonb(count(pg_sleep(100))) FROM stock WHERE provider_id = \$1', 'snapshot');
	INSERT INTO meritum_cache.event_metric VALUES ('slow', 'slow'), ('slow', 'sum');
	SELECT meritum_handle_event('slow', $q)");
wait_for($node, "SELECT attempts > 0 AND sqlstate = '57014' FROM meritum_cache.pending_refresh WHERE metric_key = 'slow'",
	'a query that takes too long fails alone');
is(pending($node, "metric_key <> 'slow'"), 0, 'the others are settled');
sql("SELECT meritum_drop_metric('slow')");
is(pending($node), 0, 'and with the metric its note goes');
sql('ALTER DATABASE postgres RESET statement_timeout');
$node->restart;

# A standby

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$holder = session($node);
$holder->query_safe("BEGIN; SELECT meritum_refresh_provider_metrics($p);");
sql("UPDATE stock SET quantity = 25 WHERE provider_id = $p");
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT value FROM meritum_get_metrics($p, '{inverse,sum}', '-infinity', 'infinity') ORDER BY 1"),
	"4\n25", 'a standby computes what is pending');
is($standby->safe_psql('postgres', "SELECT count(*) FROM meritum_get_metrics($p, '{rows}', (date_trunc('month', now()) - interval '19 months')::date, 'infinity')"),
	20, 'and months that were never stored');
like((run_sql($standby, "SELECT meritum_handle_event('stock', $p)"))[1], qr/25006/, 'events are not raised there');
$holder->query_safe('COMMIT');
$holder->quit;
drained($node, 'the worker settles it');
is(cached('sum'), '25', 'and the primary has it');
$standby->stop;

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|segmentation|signal 11/i, 'no process has crashed');

done_testing();
