# The background side: launcher, workers, jobs and their runs, and that all of
# it survives restarts, errors and dropped databases.

use strict;
use warnings;

use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $support = dirname(__FILE__) . '/../support';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf(
	'postgresql.conf', qq(
shared_preload_libraries = 'meritum_cache'
meritum_cache.databases = 'postgres, app'
meritum_cache.timezone = 'America/Edmonton'
max_worker_processes = 16
));
$node->start;

# Wait until a query returns t.
sub wait_for
{
	my ($query, $name, $db) = @_;

	ok($node->poll_query_until($db // 'postgres', $query), $name);
	return;
}

# Wait until a run has ended in the way given.
sub wait_for_run
{
	my ($run, $status) = @_;

	wait_for(
		qq(SELECT status = '$status' FROM meritum_cache.job_run
			WHERE run_id = $run AND finished_at IS NOT NULL),
		"run $run: $status");
	return;
}

# How many processes of a type there are.
sub count_of
{
	my ($type) = @_;

	return "(SELECT count(*) FROM pg_stat_activity
			  WHERE backend_type = 'meritum_cache $type')";
}

# Before the extension, and with a database that does not exist

wait_for('SELECT ' . count_of('worker') . ' = 1',
	'a worker starts for the database that exists');
is($node->safe_psql('postgres', 'SELECT ' . count_of('launcher')),
	'1', 'there is one launcher');

$node->safe_psql('postgres', 'CREATE EXTENSION meritum_cache');
wait_for('SELECT count(*) = 2 FROM meritum_cache.job_state',
	'the worker takes notice of CREATE EXTENSION');
is( $node->safe_psql(
		'postgres',
		q(SELECT string_agg(name || ' ' || to_char(next_run_at AT TIME ZONE 'America/Edmonton', 'HH24:MI'), ', ' ORDER BY name)
			FROM meritum_cache.job_state)),
	'cleanup 03:30, nightly_refresh 02:00',
	'the two jobs are due in the zone of the setting');

# Runs on request

my $run = $node->safe_psql('postgres',
	q(SELECT meritum_schedule('ok', '0 0 1 1 *', 'CREATE TABLE made (n int)'))
	  . q(; SELECT meritum_run_job('ok')));
$run =~ s/\s//g;
wait_for_run($run, 'succeeded');
is($node->safe_psql('postgres', 'SELECT count(*) FROM made'),
	'0', 'the command was executed');

my ($result, $stdout, $stderr) = $node->psql(
	'postgres', q(\set VERBOSITY verbose
	SELECT meritum_run_job('nothing')));
like($stderr, qr/42704.*job "nothing" does not exist/s, 'unknown job');

($result, $stdout, $stderr) = $node->psql(
	'template1', q(\set VERBOSITY verbose
	CREATE EXTENSION meritum_cache; SELECT meritum_run_job('cleanup')));
like($stderr, qr/55000.*meritum_cache\.databases/s, 'no worker in this database');
$node->safe_psql('template1', 'DROP EXTENSION meritum_cache');

# A failing job is recorded, and nothing else suffers

$node->safe_psql(
	'postgres', q(
	SELECT meritum_schedule('fails', '0 0 1 1 *', 'SELECT 1 / 0');
	SELECT meritum_schedule('slow', '0 0 1 1 *', 'SELECT pg_sleep(600)', timeout => '50 ms');
	SELECT meritum_schedule('vacuum', '0 0 1 1 *', 'VACUUM made');
	SELECT meritum_schedule('block', '0 0 1 1 *', 'BEGIN')));
my %run;
$run{$_} = $node->safe_psql('postgres', "SELECT meritum_run_job('$_')")
  foreach qw(fails slow vacuum block cleanup);
wait_for_run($run{fails}, 'failed');
wait_for_run($run{slow}, 'failed');
wait_for_run($run{vacuum}, 'succeeded');
wait_for_run($run{block}, 'failed');
wait_for_run($run{cleanup}, 'succeeded');
is( $node->safe_psql(
		'postgres',
		"SELECT string_agg(message, ', ' ORDER BY run_id) FROM meritum_cache.job_run WHERE status = 'failed'"),
	'data exception (SQLSTATE 22012), canceling statement due to statement timeout, a job cannot execute BEGIN',
	'each failure tells why, and quotes nothing');

# A run that was taken for cut off just before it ended: its process knows
# better.

$node->safe_psql('postgres', q(
	SELECT meritum_schedule('late', '0 0 1 1 *', 'SELECT pg_advisory_xact_lock_shared(42); SELECT 1 / 0')));
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(42)');
$run{late} = $node->safe_psql('postgres', q(SELECT meritum_run_job('late')));
wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'meritum_cache job' AND wait_event = 'advisory'",
	'a run waits');
$node->safe_psql('postgres',
	"UPDATE meritum_cache.job_run SET status = 'aborted', finished_at = now() WHERE run_id = $run{late}");
$holder->quit;
wait_for_run($run{late}, 'failed');

# A job has its owner's rights, and no more

$node->safe_psql(
	'postgres', q(
	CREATE ROLE clerk LOGIN;
	CREATE ROLE group_role;
	INSERT INTO meritum_cache.job (name, schedule, command, owner) VALUES
		('clerk', '0 0 1 1 *', 'DELETE FROM meritum_cache.job', 'clerk'),
		('whoami', '0 0 1 1 *', 'DO $$BEGIN ASSERT session_user = ''clerk'' AND current_user = ''clerk''; END$$', 'clerk'),
		('readonly', '0 0 1 1 *', 'SET default_transaction_read_only = on', 'clerk'),
		('group', '0 0 1 1 *', 'SELECT 1', 'group_role')));
$run{$_} = $node->safe_psql('postgres', "SELECT meritum_run_job('$_')")
  foreach qw(clerk whoami readonly group);
wait_for_run($run{clerk}, 'failed');
wait_for_run($run{whoami}, 'succeeded');
wait_for_run($run{readonly}, 'succeeded');
wait_for_run($run{group}, 'failed');
($result, $stdout, $stderr) = $node->psql('postgres',
	q(SET ROLE clerk; SELECT meritum_schedule('x', '* * * * *', 'SELECT 1')));
like($stderr, qr/permission denied/, 'not everybody may schedule');

# No overlap, and no more than max_parallel_jobs

$node->safe_psql(
	'postgres', q(
	SELECT meritum_schedule('par' || i, '0 0 1 1 *', 'SELECT pg_sleep(0.2)')
	  FROM generate_series(1, 4) AS i;
	SELECT meritum_run_job('par' || i)
	  FROM generate_series(1, 4) AS i, generate_series(1, 2)));
wait_for(
	q(SELECT count(*) = 8 FROM meritum_cache.job_run
	   WHERE job_name LIKE 'par_' AND status = 'succeeded'),
	'all of eight runs end');
is( $node->safe_psql(
		'postgres', q(
	WITH r AS (SELECT * FROM meritum_cache.job_run WHERE job_name LIKE 'par_')
	SELECT max((SELECT count(*) FROM r AS b
				 WHERE b.started_at <= a.started_at AND b.finished_at > a.started_at)) <= 2,
		   max((SELECT count(*) FROM r AS b
				 WHERE b.started_at <= a.started_at AND b.finished_at > a.started_at
				   AND b.job_name = a.job_name)) = 1
	  FROM r AS a)),
	't|t', 'two at once, and never two of one job');

# A run that was missed is made up once

$node->stop;
$node->start;
$node->safe_psql(
	'postgres', q(
	SELECT meritum_schedule('missed', '0 2 * * *', 'SELECT 1')));
wait_for(q(SELECT count(*) = 1 FROM meritum_cache.job_state WHERE name = 'missed'),
	'the worker knows when the job is due');
$node->safe_psql(
	'postgres', q(
	UPDATE meritum_cache.job_state SET next_run_at = now() - interval '3 days'
	 WHERE name = 'missed'));
is($node->safe_psql('postgres', q(SELECT count(*) FROM meritum_cache.job_run WHERE job_name = 'missed')),
	'0', 'it has not run yet');
$node->restart;
wait_for(
	q(SELECT count(*) = 1 FROM meritum_cache.job_run
	   WHERE job_name = 'missed' AND scheduled_at < now() - interval '2 days'
		 AND status = 'succeeded'),
	'a run missed while the server was down is made up');
$node->restart;
$run = $node->safe_psql('postgres', q(SELECT meritum_run_job('ok')));
wait_for_run($run, 'failed');
is($node->safe_psql('postgres', q(SELECT count(*) FROM meritum_cache.job_run WHERE job_name = 'missed')),
	'1', 'and only once');
is( $node->safe_psql(
		'postgres',
		q(SELECT next_run_at > now() FROM meritum_cache.job_state WHERE name = 'missed')),
	't', 'it is due again later');

# What a crash cuts off is marked

$node->safe_psql('postgres',
	q(SELECT meritum_schedule('long', '0 0 1 1 *', 'SELECT pg_sleep(600)')));
$run = $node->safe_psql('postgres', q(SELECT meritum_run_job('long')));
wait_for("SELECT status = 'running' FROM meritum_cache.job_run WHERE run_id = $run",
	'the long job runs');
$node->stop('immediate');
$node->start;
wait_for_run($run, 'aborted');

# and so is what someone terminates, with the worker still at work

$run = $node->safe_psql('postgres', q(SELECT meritum_run_job('long')));
wait_for("SELECT status = 'running' FROM meritum_cache.job_run WHERE run_id = $run",
	'the long job runs again');
$node->safe_psql('postgres',
	"SELECT pg_terminate_backend(pid) FROM meritum_cache.job_run WHERE run_id = $run");
wait_for_run($run, 'aborted');

# A worker that is killed comes back, alone

my $pid = $node->safe_psql('postgres',
	q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'meritum_cache worker'));
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_for(
	qq(SELECT count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'meritum_cache worker' AND pid <> $pid),
	'the launcher starts a new worker');

# A database that is created later, dropped, and created again

foreach my $round (1, 2)
{
	$node->safe_psql('postgres', 'CREATE DATABASE app');
	# The launcher looks again each minute, or at once when told to.
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	wait_for(
		q(SELECT count(*) = 1 FROM pg_stat_activity
		   WHERE backend_type = 'meritum_cache worker' AND datname = 'app'),
		"round $round: a worker for the new database");
	$node->safe_psql('app', 'CREATE EXTENSION meritum_cache');
	$run = $node->safe_psql('app', q(SELECT meritum_run_job('cleanup')));
	wait_for("SELECT status = 'succeeded' FROM meritum_cache.job_run WHERE run_id = $run",
		"round $round: it runs jobs", 'app');
	$node->safe_psql('app', 'DROP EXTENSION meritum_cache');
	$node->safe_psql('postgres', 'DROP DATABASE app WITH (FORCE)');
}
wait_for('SELECT ' . count_of('worker') . ' = 1',
	'the other worker is still there');

# Notes are drained

$node->safe_psql('postgres', 'DROP TABLE IF EXISTS made');
$node->command_ok(
	[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
		'-f', "$support/platform.sql" ],
	'the platform\'s tables');
$node->safe_psql(
	'postgres', q(
	INSERT INTO providers (provider_id, status)
	VALUES ('11111111-1111-1111-1111-111111111111', 'ACTIVE');
	SELECT meritum_attach();
	SET meritum_cache.refresh_mode = async;
	INSERT INTO claims (claim_id, physician_id, patient_id, claim_type, state, date_of_service,
						submission_deadline, created_at, updated_at)
	SELECT gen_random_uuid(), '11111111-1111-1111-1111-111111111111', gen_random_uuid(),
		   'AHCIP', 'SUBMITTED', current_date, current_date + 90, now(), now()
	  FROM generate_series(1, 5)));
wait_for(
	q(SELECT NOT EXISTS (SELECT FROM meritum_cache.pending_refresh)
		 AND EXISTS (SELECT FROM meritum_cache.analytics_cache
					  WHERE provider_id = '11111111-1111-1111-1111-111111111111')),
	'the worker settles what an async transaction noted');
is( $node->safe_psql('postgres',
		q(SELECT count(*) FROM meritum_verify('11111111-1111-1111-1111-111111111111'))),
	'0', 'and the figures are right');

# What becomes known while the worker looks and waits for a lock is not lost,
# though the wait uses up the wake-up

my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE meritum_cache.job_run IN ACCESS EXCLUSIVE MODE');
$node->safe_psql('postgres', 'UPDATE meritum_cache.job SET enabled = enabled');
wait_for(
	q(SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE backend_type = 'meritum_cache worker' AND NOT granted)),
	'the worker waits for a lock');
$node->safe_psql('postgres', q(SELECT meritum_schedule('late', '0 0 1 1 *', 'SELECT 1')));
$locker->query_safe('COMMIT');
$locker->quit;
wait_for(q(SELECT count(*) = 1 FROM meritum_cache.job_state WHERE name = 'late'),
	'a job that came meanwhile is taken up');

# The nightly batch as a job

$run = $node->safe_psql('postgres', q(SELECT meritum_run_job('nightly_refresh')));
wait_for_run($run, 'succeeded');
is( $node->safe_psql('postgres',
		"SELECT providers_done, providers_total, errors FROM meritum_cache.job_run WHERE run_id = $run"),
	'1|1|[]', 'it reports its progress');
($result, $stdout, $stderr) = $node->psql(
	'postgres', q(\set VERBOSITY verbose
	BEGIN; CALL meritum_refresh_all_providers()));
like($stderr, qr/2D000/, 'not inside a transaction block');

# Shutting down

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|segmentation|signal 11/i,
	'no process has crashed');

done_testing();
