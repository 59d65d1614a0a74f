# Several databases with a worker each; databases and extensions that come and
# go; and a server that has no process left for a worker or a job.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf(
	'postgresql.conf', q(
shared_preload_libraries = 'meritum_cache'
meritum_cache.databases = 'one, two, nowhere, bare'
max_worker_processes = 12
max_logical_replication_workers = 0
autovacuum = off
));
$node->start;

sub sql { my ($db, $sql) = @_; return $node->safe_psql($db, $sql); }

sub wait_for
{
	my ($db, $query, $name) = @_;

	ok($node->poll_query_until($db, $query), $name);
	return;
}

sub wait_for_run
{
	my ($db, $run, $status) = @_;

	wait_for($db,
		"SELECT status = '$status' FROM meritum_cache.job_run WHERE run_id = $run AND finished_at IS NOT NULL",
		"$db: run $run: $status");
	return;
}

sub worker { return sql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'meritum_cache worker' AND datname = '$_[0]'"); }

sub has_worker
{
	my ($db) = @_;

	wait_for('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'meritum_cache worker' AND datname = '$db'",
		"$db has a worker");
	return;
}

# How often the log has a line since the mark.
my $mark = 0;
sub logged
{
	my ($pattern) = @_;

	return scalar(() = slurp_file($node->logfile, $mark) =~ /$pattern/g);
}

sub wait_for_log
{
	my ($pattern, $name) = @_;

	$node->wait_for_log($pattern, $mark);
	pass($name);
	return;
}

# The launcher looks for its databases each minute, or when told to reload.
sub reload
{
	sql('postgres', 'SELECT pg_reload_conf()') foreach 1 .. 3;
	return;
}

# Databases that do not exist yet

wait_for_log(qr/database "nowhere" of meritum_cache\.databases does not exist/,
	'a database that does not exist is told of');
sql('postgres', "CREATE DATABASE $_") foreach qw(one two bare);
reload();
has_worker($_) foreach qw(one two bare);
is(logged(qr/database "nowhere"/), 1, 'once');

# Two databases do not touch each other

foreach my $db (qw(one two))
{
	sql($db, qq(CREATE EXTENSION meritum_cache;
		CREATE TABLE ran (who text);
		SELECT meritum_schedule('same', '0 0 1 1 *', 'INSERT INTO ran VALUES (current_database())')));
	wait_for($db, 'SELECT count(*) = 3 FROM meritum_cache.job_state', "$db: the worker knows the jobs");
}
my $run = sql('one', q(SELECT meritum_run_job('same')));
wait_for_run('one', $run, 'succeeded');
is(sql('one', 'SELECT * FROM ran'), 'one', 'a job runs in its database');
is(sql('two', 'SELECT count(*) FROM ran'), '0', 'and in no other');
is(sql('two', 'SELECT count(*) FROM meritum_cache.job_run'), '0', 'where no run is to be seen');
sql('two', q(SELECT meritum_unschedule('same')));
wait_for('two', 'SELECT count(*) = 2 FROM meritum_cache.job_state', 'two: the job is gone');
is(sql('one', q(SELECT enabled FROM meritum_cache.job WHERE name = 'same')), 't', 'one: it is still there');

my $two = worker('two');
sql('postgres', 'SELECT pg_terminate_backend(' . worker('one') . ')');
$run = sql('one', q(SELECT meritum_run_job('same')));
wait_for_run('one', $run, 'succeeded');
is(worker('two'), $two, 'a worker that ends leaves the other alone');

# A database without the extension: the worker waits for it

is(sql('bare', q(SELECT count(*) FROM pg_extension WHERE extname = 'meritum_cache')), '0', 'bare has no extension');
is(logged(qr/(WARNING|ERROR):  (?!the background worker of this database)/), 0, 'which is no reason to complain');
sql('bare', 'CREATE EXTENSION meritum_cache');
$run = sql('bare', q(SELECT meritum_run_job('cleanup')));
wait_for_run('bare', $run, 'succeeded');

# DROP EXTENSION ... CASCADE below a worker and a job that is at work, and
# CREATE EXTENSION again, when runs are numbered anew

sql('one', q(
	DROP EXTENSION meritum_cache;
	CREATE EXTENSION meritum_cache;
	CREATE VIEW mine AS SELECT * FROM meritum_cache.analytics_cache;
	SELECT meritum_schedule('long', '0 0 1 1 *', 'SELECT pg_advisory_lock_shared(1)')));
my $holder = $node->background_psql('one');
$holder->query_safe('SELECT pg_advisory_lock(1)');
is(sql('one', q(SELECT meritum_run_job('long'))), '1', 'the first run');
wait_for('one', q(SELECT status = 'running' FROM meritum_cache.job_run WHERE run_id = 1), 'goes on');
my $worker = worker('one');
sql('one', 'DROP EXTENSION meritum_cache CASCADE');
is(sql('one', q(SELECT to_regclass('mine') IS NULL)), 't', 'DROP EXTENSION CASCADE');
sql('one', q(CREATE EXTENSION meritum_cache;
	SELECT meritum_schedule('quick', '0 0 1 1 *', 'SELECT 1')));
is(sql('one', q(SELECT meritum_run_job('quick'))), '1', 'CREATE EXTENSION again, and a run of that number');
wait_for_run('one', 1, 'succeeded');
is(sql('one', q(SELECT meritum_run_job('long') FROM meritum_cache.job WHERE name = 'long')), '', 'the old job is gone');
# the old process ends: it must leave the new runs alone
$run = sql('one', q(INSERT INTO meritum_cache.job_run (job_name, status) VALUES ('quick', 'queued') RETURNING run_id));
is($run, '2', 'a run that nobody has begun');
$holder->quit;
wait_for('postgres', q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'meritum_cache job'), 'the old process ends');
$run = sql('one', q(SELECT meritum_run_job('quick')));
wait_for_run('one', $run, 'succeeded');
is(sql('one', q(SELECT run_id || ' ' || job_name || ' ' || status FROM meritum_cache.job_run ORDER BY 1)),
	"1 quick succeeded\n2 quick succeeded\n3 quick succeeded", 'and has touched no run of the new extension');
is(worker('one'), $worker, 'the worker is the same all the time');

# Dropped and not created again: the worker rests, and neither does a due time
# that it remembers wake it all the time

$worker = worker('bare');
my $due = sql('bare', q(
	UPDATE meritum_cache.job_state SET next_run_at = now() + interval '3 seconds' WHERE name = 'cleanup' RETURNING next_run_at;
	DELETE FROM meritum_cache.job_state WHERE name = 'nightly_refresh';
	UPDATE meritum_cache.job SET enabled = enabled));
wait_for('bare', 'SELECT count(*) = 2 FROM meritum_cache.job_state', 'the worker knows of a due time');
sql('bare', 'DROP EXTENSION meritum_cache');
wait_for('postgres', "SELECT now() > '$due'", 'a job would be due');
my %looked;
$looked{ sql('postgres', "SELECT state_change FROM pg_stat_activity WHERE pid = $worker") } = 1 foreach 1 .. 20;
cmp_ok(scalar keys %looked, '<', 5, 'a worker without the extension rests');
is(worker('bare'), $worker, 'and is there');

# A database that is dropped while its worker and a job are at work

$mark = -s $node->logfile;
sql('two', q(SELECT meritum_schedule('long', '0 0 1 1 *', 'SELECT pg_sleep(600)'); SELECT meritum_run_job('long')));
wait_for('two', q(SELECT state = 'running' FROM meritum_cache.job_status WHERE name = 'long'), 'two: a job runs');
$worker = worker('one');
sql('postgres', 'DROP DATABASE two WITH (FORCE)');
# its process has ended, so the launcher may be told to look for it
wait_for('postgres', q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'meritum_cache job'), 'the job ends with it');
sub gone { reload(); return logged(qr/database "two" of meritum_cache\.databases does not exist/); }
$node->poll_query_until('postgres', q(SELECT pg_reload_conf() AND pg_sleep(0.2) IS NOT NULL)) until gone();
reload();
is(gone(), 1, 'that the database is gone is told once');
is(worker('one'), $worker, 'the worker of another database goes on');
unlike(slurp_file($node->logfile, $mark), qr/PANIC|TRAP|signal 11/, 'nothing has crashed');
sql('postgres', 'CREATE DATABASE two');
reload();
has_worker('two');
$node->stop;

# No process for a job

$node->append_conf('postgresql.conf', "meritum_cache.databases = 'one'\nmax_worker_processes = 2");
$mark = -s $node->logfile;
$node->start;
has_worker('one');
my ($result, $stdout, $stderr) = $node->psql('one', q(SELECT meritum_run_job('quick')));
is($stderr, '', 'a job can be asked for');
wait_for_log(qr/WARNING:  no process for job "quick"\n.*It stays queued.*\n.*max_worker_processes/, 'no process for it');
foreach my $n (1 .. 5)
{
	sql('one', "SELECT meritum_run_job('quick'), meritum_schedule('try$n', '0 0 1 1 *', 'SELECT 1')");
	wait_for('one', "SELECT count(*) = 1 FROM meritum_cache.job_state WHERE name = 'try$n'", "try $n");
}
is(logged(qr/no process for job/), 1, 'the log tells once');
$mark = -s $node->logfile;
is(sql('one', q(SELECT state FROM meritum_cache.job_status WHERE name = 'quick')), 'queued', 'the job is queued');
$run = sql('one', 'SELECT max(run_id) FROM meritum_cache.job_run');
$node->append_conf('postgresql.conf', 'max_worker_processes = 3');
$node->restart;
wait_for_run('one', $run, 'succeeded');
is(sql('one', q(SELECT count(*) FROM meritum_cache.job_run WHERE status <> 'succeeded')), '0',
	'with a process more all of them run');
cmp_ok(logged(qr/no process for job/), '<=', 1, 'one after the other, of which the log does not tell each time');

# A process that is free again is taken

sql('one', q(SELECT meritum_schedule('long', '0 0 1 1 *', 'SELECT pg_advisory_lock_shared(1)')));
$holder = $node->background_psql('one');
$holder->query_safe('SELECT pg_advisory_lock(1)');
sql('one', q(SELECT meritum_run_job('long')));
wait_for('one', q(SELECT state = 'running' FROM meritum_cache.job_status WHERE name = 'long'), 'a job takes the last process');
$run = sql('one', q(SELECT meritum_run_job('quick')));
wait_for_log(qr/no process for job "quick"/, 'another finds none');
$holder->quit;
wait_for_run('one', $run, 'succeeded');
$node->stop;

# No process for a worker

$node->append_conf('postgresql.conf', "meritum_cache.databases = 'one, two'\nmax_worker_processes = 2");
$mark = -s $node->logfile;
$node->start;
has_worker('one');
sql('two', 'CREATE EXTENSION meritum_cache');
($result, $stdout, $stderr) = $node->psql('two', "\\set VERBOSITY verbose\nSELECT meritum_run_job('cleanup')");
is($stdout, '1', 'a job can be asked for where there is no worker');
like($stderr, qr/WARNING:  55000: the background worker of this database is not running\nDETAIL:  The run is queued/, 'with a warning');
reload();
wait_for_log(qr/WARNING:  no process for the worker of database "two"\n.*max_worker_processes/, 'the log tells why');
reload();
$run = sql('one', q(SELECT meritum_run_job('quick'), pg_reload_conf()));
is(logged(qr/no process for the worker/), 1, 'once');
$node->append_conf('postgresql.conf', 'max_worker_processes = 5');
$node->restart;
wait_for_run('two', 1, 'succeeded');
has_worker('one');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|segmentation|signal 11/i, 'no process has crashed');

done_testing();
