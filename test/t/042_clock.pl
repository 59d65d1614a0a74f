# Jobs and the clock: a restart across a due time, a clock that is set forward
# and back, daylight saving, and what happens when jobs come due together.
#
# The server runs with a clock that the test sets (test/support/clock.c).  A
# worker that sleeps looks at the clock again after five minutes at the latest;
# here it is woken, by the commit of a prepared transaction that is none of
# its business, so that the test need not wait.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use Time::Local qw(timegm);

my $node = PostgreSQL::Test::Cluster->new('main');
my $dir = PostgreSQL::Test::Utils::tempdir();
my $offset = "$dir/offset";
my ($compiler) = run_command([ 'pg_config', '--cc' ]);

system("$compiler -O1 -fPIC -shared -o $dir/clock.so $FindBin::Bin/../support/clock.c -ldl >$dir/cc 2>&1") == 0
  or plan skip_all => "the compiler \"$compiler\" cannot make a library";

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Set the server's clock; it goes on from there.
sub set_clock
{
	my ($to) = @_;
	my ($year, $month, $day, $hour, $minute, $second, $zone) =
	  $to =~ /^(\d+)-(\d+)-(\d+) (\d+):(\d+):(\d+)(-\d+)$/
	  or die "no time: $to";
	my $epoch = timegm($second, $minute, $hour, $day, $month - 1, $year) - 3600 * $zone;

	# written over, since running processes look at this very file
	open my $file, (-e $offset ? '+<' : '>'), $offset or die;
	binmode $file;
	syswrite $file, pack('q', ($epoch - time) * 1_000_000);
	close $file;
	return;
}

sub start
{
	local $ENV{LD_PRELOAD} = "$dir/clock.so";
	local $ENV{TEST_CLOCK} = $offset;
	$node->start;
	return;
}

sub wake { return sql(q(BEGIN; SELECT txid_current(); PREPARE TRANSACTION 'wake'; COMMIT PREPARED 'wake')); }

# The worker has looked at the present clock: a run that is asked for has
# ended, and it takes them in order.
sub looked
{
	wake();
	my $run = sql(q(SELECT meritum_run_job('probe')));
	$node->poll_query_until('postgres',
		"SELECT status = 'succeeded' FROM meritum_cache.job_run WHERE run_id = $run")
	  or die 'the probe has not run';
	$node->poll_query_until('postgres',
		q(SELECT NOT EXISTS (SELECT FROM meritum_cache.job_run
							  WHERE status IN ('queued', 'running') AND job_name <> 'slow')))
	  or die 'runs do not end';
	return;
}

# When a job has run since the last question: scheduled and begun, by the clocks
# of the jobs' zone.
my $asked = 0;
sub runs
{
	my $result = sql(qq(
		SELECT job_name || ' ' || to_char(scheduled_at AT TIME ZONE 'America/Edmonton', 'DD HH24:MI')
			   || CASE WHEN status <> 'succeeded' THEN ' ' || status ELSE '' END
		  FROM meritum_cache.job_run
		 WHERE run_id > $asked AND scheduled_at IS NOT NULL ORDER BY scheduled_at, 1));

	$asked = sql('SELECT max(run_id) FROM meritum_cache.job_run');
	return join ', ', split /\n/, $result;
}

sub next_runs
{
	return join ', ', split /\n/, sql(
		q(SELECT name || ' ' || to_char(next_run_at AT TIME ZONE 'America/Edmonton', 'DD HH24:MI')
			FROM meritum_cache.job_status WHERE enabled AND name IN ('daily', 'hourly', 'weekly') ORDER BY name));
}

sub jobs
{
	my (%schedule) = @_;

	sql("DELETE FROM meritum_cache.job");
	$schedule{probe} = '0 0 1 1 *';
	sql("SELECT meritum_schedule('$_', '$schedule{$_}', 'SELECT 1')") foreach keys %schedule;
	looked();
	runs();
	return;
}

# In February 2021 the clocks of Edmonton are seven hours behind UTC.
set_clock('2021-02-10 02:20:00-07');
$node->init;
$node->append_conf('postgresql.conf', platform_conf());
$node->append_conf('postgresql.conf', "autovacuum = off\n");
start();
if (sql('SELECT now()::date') ne '2021-02-10')
{
	$node->stop;
	plan skip_all => 'the server does not see the clock of the test';
}
sql('CREATE EXTENSION meritum_cache');
jobs(hourly => '0 * * * *', daily => '30 2 * * *', weekly => '0 0 * * 0');
is(next_runs(), 'daily 10 02:30, hourly 10 03:00, weekly 14 00:00', 'jobs are due');

# A restart across a due time

$node->stop;
set_clock('2021-02-10 02:31:00-07');
start();
looked();
is(runs(), 'daily 10 02:30', 'what came due while the server was down is made up');
is( sql(q(SELECT started_at - pg_postmaster_start_time() BETWEEN '0' AND '60 s'
			FROM meritum_cache.job_run WHERE job_name = 'daily')),
	't', 'at start');
$node->stop;
start();
looked();
is(runs(), '', 'and once');

$node->stop;
set_clock('2021-02-15 02:45:00-07');
start();
looked();
is(runs(), 'hourly 10 03:00, daily 11 02:30, weekly 14 00:00',
	'of five days each job is made up once');
is(next_runs(), 'daily 16 02:30, hourly 15 03:00, weekly 21 00:00', 'and goes on from there');

# A due time that the worker sleeps towards

set_clock('2021-02-15 02:59:59-07');
wake();
ok($node->poll_query_until('postgres',
	q(SELECT count(*) = 2 FROM meritum_cache.job_run WHERE job_name = 'hourly')),
	'a job runs when its time comes');
is( sql(q(SELECT started_at - scheduled_at BETWEEN '0' AND '60 s'
			FROM meritum_cache.job_run WHERE job_name = 'hourly' ORDER BY run_id DESC LIMIT 1)),
	't', 'then and not earlier');
looked();
is(runs(), 'hourly 15 03:00', 'once');

# The clock is set forward

set_clock('2021-02-16 05:10:00-07');
looked();
is(runs(), 'hourly 15 04:00, daily 16 02:30', 'what the clock leaps over runs once');
is(next_runs(), 'daily 17 02:30, hourly 16 06:00, weekly 21 00:00', 'and is due later again');

# The clock is set back a little: nothing runs twice

set_clock('2021-02-17 02:31:00-07');
looked();
is(runs(), 'hourly 16 06:00, daily 17 02:30', 'before the clock is set back');
set_clock('2021-02-17 00:31:00-07');
looked();
is(next_runs(), 'daily 18 02:30, hourly 17 03:00, weekly 21 00:00',
	'two hours back: every job waits for the clock');
set_clock('2021-02-17 02:40:00-07');
looked();
is(runs(), '', 'no job runs twice');
set_clock('2021-02-17 03:00:01-07');
looked();
is(runs(), 'hourly 17 03:00', 'until its time comes');

# Back by seven hours, as when local time is taken for UTC: a job of each hour
# must not wait for so long, the others need not run twice

set_clock('2021-02-21 06:31:00-07');
looked();
is(runs(), 'hourly 17 04:00, daily 18 02:30, weekly 21 00:00', 'before the clock is set back');
set_clock('2021-02-20 23:31:00-07');
looked();
is(next_runs(), 'daily 22 02:30, hourly 21 00:00, weekly 28 00:00',
	'seven hours back: the job of each hour is looked at again');
set_clock('2021-02-21 00:00:01-07');
looked();
is(runs(), 'hourly 21 00:00', 'and no other runs twice');

# Back by days, as when the clock had been wrong: nobody waits for it

set_clock('2021-03-03 12:00:00-07');
looked();
is(runs(), 'hourly 21 01:00, daily 22 02:30, weekly 28 00:00', 'the clock is ten days ahead');
set_clock('2021-02-21 12:00:00-07');
wake();
ok($node->poll_query_until('postgres',
	q(SELECT count(*) = 3 FROM meritum_cache.job_state WHERE computed_at < '2021-03-01' AND name <> 'probe')),
	'ten days back: all schedules are looked at again');
is(next_runs(), 'daily 22 02:30, hourly 21 13:00, weekly 28 00:00', 'and nobody waits for days');
looked();
is(runs(), '', 'nothing runs because of that');
like(slurp_file($node->logfile), qr/the clock was set back by 8\d{5} seconds/, 'the log tells');

# A note whose next attempt was put off by the clock that was ahead

sql(q(INSERT INTO meritum_cache.pending_refresh (provider_id, scope, cause, next_attempt_at)
	VALUES ('a0000000-0000-4000-8000-000000000001', 'provider', 'worker', '2021-03-03')));
wake();
ok($node->poll_query_until('postgres',
	q(SELECT NOT EXISTS (SELECT FROM meritum_cache.pending_refresh WHERE next_attempt_at > '2021-03-01'))),
	'a note does not wait for days either');

# The same while the server is down

set_clock('2021-03-03 12:00:00-07');
looked();
runs();
$node->stop;
set_clock('2021-02-21 12:00:00-07');
start();
looked();
is(next_runs(), 'daily 22 02:30, hourly 21 13:00, weekly 28 00:00',
	'also if the clock is set back while the server is down');
is(runs(), '', 'nothing runs because of that either');

# Daylight saving: on 14 March 02:00 is followed by 03:00, on 7 November the
# hour from 01:00 is repeated

jobs(daily => '30 2 * * *');
set_clock('2021-03-14 01:50:00-07');
looked();
runs();
set_clock('2021-03-14 01:59:59-07');
ok($node->poll_query_until('postgres',
	q(SELECT EXISTS (SELECT FROM meritum_cache.job_run
		WHERE job_name = 'daily' AND scheduled_at = '2021-03-14 09:00+00' AND status = 'succeeded'))),
	'an hour that is skipped: the job runs right after the gap');
set_clock('2021-03-14 03:31:00-06');
looked();
is(runs(), 'daily 14 03:00', 'once');
is(next_runs(), 'daily 15 02:30', 'the next day is as usual');

jobs(daily => '30 1 * * *');
set_clock('2021-11-07 00:00:00-06');
looked();
runs();
set_clock('2021-11-07 01:31:00-06');
looked();
is(runs(), 'daily 07 01:30', 'an hour that is repeated: the job runs in the first');
set_clock('2021-11-07 01:31:00-07');
looked();
is(runs(), '', 'and not in the second');
is(next_runs(), 'daily 08 01:30', 'the next day is as usual');

# A zone of its own, jobs that are disabled, and owners that are gone

jobs();
sql(q(
	CREATE ROLE leaving LOGIN;
	SELECT meritum_schedule('nepal', '45 5 * * *', 'SELECT 1', timezone => 'Asia/Kathmandu');
	SELECT meritum_schedule('disabled', '0 17 * * *', 'SELECT 1', enabled => false);
	SELECT meritum_schedule('orphan', '0 17 * * *', 'SELECT 1');
	SELECT meritum_schedule('lost', '0 17 * * *', 'SELECT 1');
	UPDATE meritum_cache.job SET owner = 'leaving' WHERE name = 'orphan';
	DROP ROLE leaving;
	UPDATE meritum_cache.job SET timezone = 'Mars/Olympus' WHERE name = 'lost'));
looked();
runs();
is( sql(q(SELECT name, next_run_at AT TIME ZONE 'UTC' FROM meritum_cache.job_status WHERE name <> 'probe' ORDER BY 1)),
	"disabled|\nlost|\nnepal|2021-11-08 00:00:00\norphan|2021-11-08 00:00:00",
	'when they are due');
like(slurp_file($node->logfile),
	qr/WARNING:  job "lost" is not scheduled: time zone "Mars\/Olympus" not recognized/,
	'a zone that the server does not know is told of');
set_clock('2021-11-07 17:00:01-07');
looked();
is(runs(), 'nepal 07 17:00, orphan 07 17:00 failed', 'one runs');
is(sql(q(SELECT last_message FROM meritum_cache.job_status WHERE name = 'orphan')),
	'the owner of the job does not exist', 'one tells why it cannot');
sql(q(UPDATE meritum_cache.job SET enabled = true WHERE name = 'disabled'));
looked();
is(runs(), '', 'what passed while a job was disabled is not made up');
is(sql(q(SELECT next_run_at AT TIME ZONE 'UTC' FROM meritum_cache.job_status WHERE name = 'disabled')),
	'2021-11-09 00:00:00', 'it is due the next time');
set_clock('2021-11-07 01:40:00-07');

# Several jobs at once: side by side, and a slow one delays no other

jobs();
my $barrier = session($node);
$barrier->query_safe('SELECT pg_advisory_lock(1)');
sql(q(SELECT meritum_schedule(name, '0 12 * * *', 'SELECT pg_advisory_xact_lock_shared(1)')
		FROM unnest('{one, two, three}'::text[]) AS name));
looked();
runs();
set_clock('2021-11-07 12:00:01-07');
wake();
ok($node->poll_query_until('postgres',
	q(SELECT count(*) = 2 FROM meritum_cache.job_run WHERE status = 'running')),
	'two jobs that are due at once run side by side');
is(sql(q(SELECT count(*) FROM meritum_cache.job_run WHERE status = 'queued')),
	'1', 'a third waits, as max_parallel_jobs says');
$barrier->quit;
looked();
is(runs(), 'one 07 12:00, three 07 12:00, two 07 12:00', 'all of them end');

sql(q(DELETE FROM meritum_cache.job));
sql(q(
	SELECT meritum_schedule('slow', '* * * * *', 'SELECT pg_sleep(3600)'),
		   meritum_schedule('quick' || i, '0 13 * * *', 'SELECT 1') FROM generate_series(1, 5) AS i;
	SELECT meritum_schedule('probe', '0 0 1 1 *', 'SELECT 1')));
looked();
runs();
set_clock('2021-11-07 13:00:01-07');
looked();
is( sql(q(SELECT count(*) FILTER (WHERE status = 'running' AND job_name = 'slow'),
				 count(*) FILTER (WHERE status = 'succeeded' AND job_name LIKE 'quick%')
			FROM meritum_cache.job_run WHERE scheduled_at >= '2021-11-07 12:01-07')),
	'1|5', 'a slow job delays no other');

# It does not overlap itself: of the times it misses, one waits for its end

foreach my $minute (1 .. 3)
{
	set_clock("2021-11-07 13:0$minute:01-07");
	looked();
}
is(sql(q(SELECT state FROM meritum_cache.job_status WHERE name = 'slow')), 'running', 'it is running');
is( sql(q(SELECT string_agg(status, ', ' ORDER BY run_id) FROM meritum_cache.job_run WHERE job_name = 'slow')),
	'running, queued', 'and one run is queued');
sql(q(SELECT pg_cancel_backend(pid) FROM meritum_cache.job_run WHERE job_name = 'slow' AND status = 'running'));
ok($node->poll_query_until('postgres',
	q(SELECT string_agg(status, ', ' ORDER BY run_id) = 'failed, running' FROM meritum_cache.job_run WHERE job_name = 'slow')),
	'which begins when the first has been cancelled');
is(sql(q(SELECT message FROM meritum_cache.job_run WHERE job_name = 'slow' AND status = 'failed')),
	'canceling statement due to user request', 'the first says so');

# Runs are kept for thirty days

sql(q(SELECT meritum_unschedule('slow');
	SELECT pg_cancel_backend(pid) FROM meritum_cache.job_run WHERE status = 'running'));
set_clock('2021-12-07 00:30:00-07');
looked();
is(sql(q(SELECT count(*) FROM meritum_cache.job_run WHERE queued_at < '2021-11-07 00:30-07')),
	'0', 'runs of thirty days ago are gone');
is(sql(q(SELECT count(*) > 10 FROM meritum_cache.job_run WHERE queued_at < '2021-11-08')),
	't', 'later ones are not');

$node->stop;
done_testing();
