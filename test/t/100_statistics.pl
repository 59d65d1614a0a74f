# 100_statistics.pl: the counters survive a clean restart and not a crash,
# each database has its own, nobody waits to count, and the log lines.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = platform_server('statistics');

# Whatever the hour is.
$node->safe_psql('postgres', 'UPDATE meritum_cache.job SET enabled = false');

# Refreshes, errors and whether entries were written, of each cause that has
# any.
sub causes
{
	my ($db) = @_;

	return $node->safe_psql($db // 'postgres', q(
		SELECT string_agg(concat_ws(' ', cause, refreshes, errors), ', ' ORDER BY cause)
		  FROM meritum_cache.stat_refresh WHERE refreshes + errors > 0));
}

sub people
{
	return $node->safe_psql('postgres', q(
		SELECT string_agg(concat_ws(' ', refreshes, invalidations), ', ' ORDER BY provider_id)
		  FROM meritum_cache.stat_provider));
}

# Everything that there is to see.
sub everything
{
	return $node->safe_psql('postgres', q(
		SELECT * FROM meritum_cache.stat_refresh;
		SELECT * FROM meritum_cache.stat_provider ORDER BY provider_id));
}

sub reset_counters
{
	$node->safe_psql('postgres', 'SELECT meritum_stat_reset()');
	return;
}

sub pay
{
	my ($claim) = @_;

	return "UPDATE claims SET state = CASE state WHEN 'PAID' THEN 'REJECTED' ELSE 'PAID' END"
	  . " WHERE claim_id = test.c($claim)";
}

# Every cause

is(causes(), 'nightly 4 0', 'the first batch has been counted');
reset_counters();
is(causes(), '', 'a reset clears the counters');
is(people(), '0 0, 0 0, 0 0, 0 0', 'and those of the providers');

$node->safe_psql('postgres', pay(1));
$node->safe_psql('postgres', 'SET meritum_cache.refresh_mode = async; ' . pay(1));
drained($node);
is(causes(), 'claim trigger 1 0, worker 1 0', 'commit and worker');
is(people(), '0 0, 2 2, 0 0, 0 0', 'both modes count an invalidation each');
$node->safe_psql('postgres',
	q(SELECT meritum_handle_claim_state_change(test.p(2), 'AHCIP', 'paid')));
$node->safe_psql('postgres', 'SELECT meritum_refresh_provider_metrics(test.p(3))');
$node->safe_psql('postgres', 'CALL meritum_refresh_all_providers()');
is( causes(),
	'claim trigger 1 0, event 1 0, nightly 4 0, request 1 0, worker 1 0',
	'event, request, nightly batch');
is( $node->safe_psql('postgres', q(
		SELECT bool_and(total_ms > 0 AND max_ms > 0 AND max_ms <= total_ms
						AND entries_written + entries_unchanged > 0)
		  FROM meritum_cache.stat_refresh WHERE refreshes > 0)),
	't', 'with times and entries');

# Failures in the worker

$node->safe_psql('postgres', q(
	ALTER TABLE meritum_cache.analytics_cache ADD CONSTRAINT hostile
		CHECK (provider_id <> test.p(2)) NOT VALID));
reset_counters();
$node->safe_psql('postgres', 'SET meritum_cache.refresh_mode = async; ' . pay(1));
wait_for($node,
	q(SELECT errors >= 2 FROM meritum_cache.stat_refresh WHERE cause = 'worker'),
	'each attempt of the worker that fails is an error');
is(people(), '0 0, 0 0, 0 0, 0 0', 'an attempt that fails is nothing else');
$node->safe_psql('postgres',
	'ALTER TABLE meritum_cache.analytics_cache DROP CONSTRAINT hostile');
drained($node);
like(causes(), qr/^worker 1 \d+$/, 'the one that succeeds is a refresh');
is(people(), '0 0, 1 1, 0 0, 0 0', 'and an invalidation');

# Whether the transaction of a refresh commits is not asked, except of the
# provider's own figures

reset_counters();
$node->psql('postgres', 'BEGIN; '
	  . 'SELECT meritum_refresh_provider_metrics(test.p(1)); ROLLBACK');
is(causes(), 'request 1 0', 'a refresh that was rolled back was work');
is(people(), '0 0, 0 0, 0 0, 0 0', 'but no refresh of the provider');

# A reset holds up no refresh, and fails none

my $resetter = session($node);
my $writer = session($node);
$writer->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM claims');
$resetter->query_safe('BEGIN; SELECT meritum_stat_reset()');
$writer->query_safe("SET lock_timeout = '10s'; " . pay(5) . '; COMMIT');
is(pending($node), '0', 'the change was refreshed while a reset was under way');
$resetter->query_safe('COMMIT');
is($writer->{stderr}, '', 'and without a warning');
is(people(), '0 0, 1 1, 0 0, 0 0', 'what comes after the reset is counted');
$resetter->quit;
$writer->quit;

# Two resets at once wait for each other and both succeed

my @resetters = (session($node), session($node));
my $pid = $resetters[1]->query_safe(
	'SELECT pg_backend_pid(); BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM claims LIMIT 0');
$pid =~ s/\s//g;
$resetters[0]->query_safe('BEGIN; SELECT meritum_stat_reset()');
finish_later($resetters[1], 'SELECT meritum_stat_reset(); COMMIT');
ok(waiting_for($node, $pid), 'the second reset waits');
$resetters[0]->query_safe('COMMIT');
ok(idle_soon($node, $pid), 'and ends');
is(people(), '0 0, 0 0, 0 0, 0 0', 'everything is reset');
$_->quit foreach @resetters;

# Each database has its own

$node->safe_psql('postgres', pay(1));
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', slurp_file("$FindBin::Bin/../support/platform.sql"));
$node->safe_psql('other', q(
	INSERT INTO providers (provider_id) VALUES ('a0000000-0000-4000-8000-000000000001');
	CREATE EXTENSION meritum_cache;
	SELECT * FROM meritum_attach();
	SELECT meritum_refresh_provider_metrics('a0000000-0000-4000-8000-000000000001')));
is(causes('other'), 'request 1 0', 'another database has its own counters');
is(causes(), 'claim trigger 1 0', 'which are not those of the first');
$node->safe_psql('other', 'SELECT meritum_stat_reset()');
is(causes('other'), '', 'they are reset alone');
is(causes(), 'claim trigger 1 0', 'and the first keeps its own');
$node->safe_psql('other', q(
	SELECT meritum_refresh_provider_metrics('a0000000-0000-4000-8000-000000000001')));

# A clean restart keeps them, a crash those of the providers

my $file = $node->data_dir . '/pg_stat/meritum_cache.stat';
my $before = everything();
$node->stop('fast');
ok(-e $file, 'a clean shutdown writes the counters to a file');
$node->start;
ok(!-e $file, 'which the next start removes');
is(everything(), $before, 'all counters are as before');
is(causes('other'), 'request 1 0', 'those of the other database too');

my $providers = people();
$node->stop('immediate');
$node->start;
is(causes(), '', 'after a crash they begin from zero');
is(people(), $providers, 'those of the providers are as before');

# of one backend
$node->safe_psql('postgres', pay(1));
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
$node->reload;
my $victim = session($node);
$pid = $victim->query_safe('SELECT pg_backend_pid()');
$pid =~ s/\s//g;
kill 'KILL', $pid;
wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)",
	'the server has recovered from a crash');
is(causes(), '', 'and the counters begin from zero');
eval { $victim->quit; };

# A file that is none

$node->safe_psql('postgres', pay(1));
$node->stop('fast');
append_to_file($file, 'x');
truncate $file, 100 or die "$file: $!";
my $log = -s $node->logfile;
$node->start;
is(causes(), '', 'counters that cannot be read begin from zero');
like(slurp_file($node->logfile, $log), qr/ignoring invalid data in file "pg_stat\/meritum_cache\.stat"/,
	'the log says so');
ok(!-e $file, 'the file is gone');
$node->safe_psql('postgres', pay(1));
is(causes(), 'claim trigger 1 0', 'and counting goes on');

# Log lines

# What a session with these settings writes to the log.
sub logged
{
	my ($sql) = @_;
	my $from = -s $node->logfile;

	$node->safe_psql('postgres', $sql);
	return join "\n", slurp_file($node->logfile, $from) =~ /(?<=LOG:  )(cache_.*)/g;
}

my $uuid = qr/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;

is(logged(pay(1)), '', 'nothing is logged by default');
like(
	logged('SET meritum_cache.log_min_duration = 0; ' . pay(1)),
	qr/\Acache_refresh provider=$uuid cause=claim_trigger metrics=[1-9]\d* entries=[1-9]\d* ms=\d+\.\d{3}\Z/,
	'one line for one refresh');
is(logged("SET meritum_cache.log_min_duration = '1h'; " . pay(1)),
	'', 'a shorter one is not logged');
like(
	logged("SET meritum_cache.log_min_duration = 0; UPDATE claims SET state = 'PAID' WHERE state = 'REJECTED'"),
	qr/\A(?:cache_refresh provider=$uuid cause=claim_trigger .*\n?){4}\Z/,
	'a line for each provider');
like(
	logged('SET meritum_cache.log_min_duration = 0; CALL meritum_refresh_all_providers()'),
	qr/\A(?:cache_refresh provider=$uuid cause=nightly .*\n?){4}\Z/, 'and in the batch');
like(
	logged(q(SET meritum_cache.log_invalidations = on;
		SELECT meritum_handle_claim_state_change(test.p(1), 'AHCIP', 'Paid'))),
	qr/\Acache_bust provider=$uuid event=claim\.paid removed=[1-9]\d*\Z/,
	'one line for an invalidation by an event');
is( logged(q(SELECT meritum_handle_claim_state_change(test.p(1), 'AHCIP', 'paid'))),
	'', 'which is off by default');

# By role: only a superuser may, also for others

$node->safe_psql('postgres', q(
	CREATE ROLE clerk LOGIN;
	GRANT SELECT, UPDATE ON claims TO clerk;
	GRANT USAGE ON SCHEMA test TO clerk));
foreach my $setting ('log_min_duration = 0', 'log_invalidations = on')
{
	my ($out, $err) = run_sql($node, "SET ROLE clerk; SET meritum_cache.$setting");
	like($err, qr/42501.*permission denied to set parameter/s, "$setting: not for everybody");
	($out, $err) = run_sql($node, "SET ROLE clerk; ALTER ROLE clerk SET meritum_cache.$setting");
	like($err, qr/42501/, "$setting: nor by a detour");
}
$node->safe_psql('postgres', 'ALTER ROLE clerk SET meritum_cache.log_min_duration = 0');
$log = -s $node->logfile;
$node->safe_psql('postgres', pay(1), extra_params => [ '-U', 'clerk' ]);
like(slurp_file($node->logfile, $log), qr/cache_refresh provider=$uuid cause=claim_trigger/,
	'a superuser may for a role');
$node->safe_psql('postgres', 'ALTER ROLE clerk SET meritum_cache.refresh_mode = async');
is( $node->safe_psql('postgres', 'SHOW meritum_cache.refresh_mode', extra_params => [ '-U', 'clerk' ]),
	'async', 'the mode can be set by role too');

# More databases than there is room for: the quietest gives way.  To have that
# many at once, the free slots of the file are filled with copies of a used one
# for databases that there are not.

$node->safe_psql('other', 'SELECT meritum_stat_reset()');
my $quiet = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = 'other'");
$before = everything();
$node->stop('fast');
my $bytes = slurp_file($file);
my ($header, $size, $slots) = (12, unpack 'x4 L2', $bytes);
is(length $bytes, $header + $size * $slots, 'the file is a header and slots');
foreach my $i (0 .. $slots - 1)
{
	my $slot = substr $bytes, $header + $i * $size, $size;
	my $oid = unpack 'L', $slot;

	$slot = pack('L', 4e9 + $i) . substr $bytes, $header + 4, $size - 4 if $oid == 0;
	substr($slot, 16, 8) = pack 'Q', 1 if $oid == $quiet;
	substr($bytes, $header + $i * $size, $size) = $slot;
}
open my $handle, '>:raw', $file or die "$file: $!";
print $handle $bytes;
close $handle or die "$file: $!";
$node->start;
is(everything(), $before, 'a database keeps its counters when all slots are taken');
$node->safe_psql('postgres', 'CREATE DATABASE late TEMPLATE other');
$node->safe_psql('late', q(
	SELECT meritum_refresh_provider_metrics('a0000000-0000-4000-8000-000000000001')));
is(causes('late'), 'request 1 0', 'one more database has counters, its own alone');
is( $node->safe_psql('other', 'SELECT count(stats_reset) FROM meritum_cache.stat_refresh'),
	'0', 'which the quietest one has lost');
is(everything(), $before, 'and no other');
is(wrong($node), '', 'the figures are right');
$node->stop;

# Without preloading

my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->start;
load_platform($plain);
$plain->safe_psql('postgres', q(
	INSERT INTO providers (provider_id) VALUES (test.p(1));
	CREATE EXTENSION meritum_cache;
	SELECT * FROM meritum_attach();
	SELECT meritum_refresh_provider_metrics(test.p(1))));
my ($out, $err) = run_sql($plain, 'SELECT * FROM meritum_cache.stat_refresh');
like($err, qr/55000: refreshes are not counted.*HINT:  Add meritum_cache to shared_preload_libraries/s,
	'the view says what it needs');
is( $plain->safe_psql('postgres',
		'SELECT refreshes, refresh_cause FROM meritum_cache.stat_provider'),
	'1|request', 'what is counted by provider needs no preloading');
$plain->safe_psql('postgres', 'SELECT meritum_stat_reset()');
is( $plain->safe_psql('postgres',
		'SELECT refreshes, refresh_cause FROM meritum_cache.stat_provider'),
	'0|', 'and is reset without');
$plain->stop;

done_testing();
