# examples/clinic: what its README says, and each rule on planted data, through
# the jobs and the worker.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $example = "$FindBin::Bin/../../examples/clinic";
my $node = PostgreSQL::Test::Cluster->new('main');

$node->init;
$node->append_conf('postgresql.conf', platform_conf());
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Run a job through the worker, and wait for its end.
sub run_job
{
	my ($name) = @_;
	my $run = sql("SELECT meritum_run_job('$name')");

	wait_for($node,
		"SELECT finished_at IS NOT NULL FROM meritum_cache.job_run WHERE run_id = $run",
		"$name ends");
	is( sql("SELECT concat_ws(': ', status, message) FROM meritum_cache.job_run WHERE run_id = $run"),
		'succeeded',
		"$name succeeds");
	return;
}

# Open tasks, without their dates unless asked for.
sub tasks
{
	my ($clients) = @_;

	return sql("SELECT client_id || ' ' || kind || ' ' || subject FROM clinic.task
				 WHERE closed_at IS NULL AND client_id IN ($clients) ORDER BY 1");
}

sql('CREATE EXTENSION meritum_cache');
sql(slurp_file("$example/clinic.sql"));
is( sql(q(SELECT name || ' ' || schedule || ' ' || timezone FROM meritum_cache.job
		   WHERE name LIKE 'clinic%' ORDER BY 1)),
	"clinic_summary 0 2 * * * America/Edmonton\n"
	  . "clinic_tasks 0 3 * * * America/Edmonton\n"
	  . 'clinic_views 0 */6 * * * America/Edmonton',
	'three jobs');
wait_for($node, q(SELECT count(*) = 3 FROM meritum_cache.job_status
				   WHERE name LIKE 'clinic%' AND next_run_at > now()
					 AND date_part('minute', next_run_at) = 0),
	'the worker has taken them up');

# What the README says

my @blocks = slurp_file("$example/README.md") =~ /```sql\n(.*?)```/sg;
is(scalar @blocks, 3, 'the README has three steps');
my $run = (sql($blocks[0]) =~ s/\D//gr);
wait_for($node,
	"SELECT status = 'succeeded' FROM meritum_cache.job_run WHERE run_id = $run",
	'the run that it asks for succeeds');
like(sql($blocks[1]), qr/clinic_tasks\|idle\|succeeded\|00:00/, 'its status');
is( sql('SELECT kind, subject ~ \'^(since|DTG|never checked)\', closed_at FROM clinic.task ORDER BY kind'),
	"refill|t|\nsilent|t|\nviral load|t|",
	'three tasks');
is(sql($blocks[2]), 'viral load', 'one is left');

# Each rule for the right client only, on a day that is fixed.  The numbers
# are: 1 to 9 are not to be mentioned, from 10 on each has a reason.

sql(q{
	TRUNCATE clinic.client, clinic.visit, clinic.prescription, clinic.lab, clinic.task;
	CREATE OR REPLACE FUNCTION clinic.today() RETURNS date
	LANGUAGE sql STABLE AS $$ SELECT '2026-03-10'::date $$;

	INSERT INTO clinic.client (client_id, registered_on, status) VALUES
		(1, '2020-01-01', 'active'), (2, '2025-12-10', 'active'), (3, '2020-01-01', 'deceased'),
		(4, '2026-03-01', 'active'), (5, '2026-03-01', 'active'), (6, '2026-03-01', 'active'),
		(10, '2020-01-01', 'active'), (11, '2025-12-09', 'active'), (12, '2020-01-01', 'active'),
		(20, '2026-03-01', 'active'), (21, '2026-03-01', 'transferred'),
		(30, '2026-03-01', 'active'), (31, '2026-03-01', 'active'),
		(40, '2026-03-01', 'active'), (41, '2026-03-01', 'active');
	-- 1 was seen 90 days ago by the clock of the clinic, when it was the day
	-- after in UTC; 10 an hour earlier than that day; 12 twice
	INSERT INTO clinic.visit (client_id, visited_at) VALUES
		(1, '2025-12-10 00:00-07'), (3, '2024-01-01'),
		(10, '2025-12-09 23:59-07'), (12, '2025-11-01 12:00-07'), (12, '2024-11-01 12:00-07');
	-- 4 has them all, or not yet for long, or does not need them
	INSERT INTO clinic.lab (lab_id, client_id, test, ordered_on, cancelled, resulted_on, result) VALUES
		(1, 4, 'CD4', '2026-02-24', false, NULL, NULL),
		(2, 4, 'CD4', '2026-01-01', false, '2026-01-20', 400),
		(3, 4, 'CD4', '2026-01-01', true, NULL, NULL),
		(20, 20, 'CD4', '2026-02-23', false, NULL, NULL),
		(21, 21, 'CD4', '2026-01-01', false, NULL, NULL),
		-- 5 was checked a year ago, 40 a day earlier, 41 never
		(5, 5, 'viral load', '2025-03-01', false, '2025-03-10', 20),
		(6, 6, 'viral load', '2025-03-01', false, '2026-03-01', 20),
		(30, 30, 'viral load', '2025-03-01', false, '2026-03-01', 20),
		(31, 31, 'viral load', '2025-03-01', false, '2026-03-01', 20),
		(40, 40, 'viral load', '2025-03-01', false, '2025-03-09', 700);
	INSERT INTO clinic.prescription (prescription_id, client_id, drug, dispensed_on, days_supplied, stopped_on) VALUES
		-- due in four days; due, but given again; due, but stopped
		(5, 5, 'A', '2026-02-12', 30, NULL),
		(6, 6, 'A', '2026-02-10', 30, NULL), (7, 6, 'A', '2026-03-09', 30, NULL),
		(8, 6, 'B', '2026-02-10', 30, '2026-02-20'),
		(30, 30, 'A', '2026-02-11', 30, NULL),
		(31, 31, 'A', '2026-01-11', 30, NULL), (32, 31, 'B', '2026-03-09', 30, NULL),
		(40, 40, 'A', '2026-03-09', 30, NULL),
		(41, 41, 'A', '2026-03-09', 30, NULL);
	});
is(sql('SELECT client_id, last_visit_at AT TIME ZONE \'UTC\' FROM clinic.client WHERE last_visit_at IS NOT NULL ORDER BY 1'),
	"1|2025-12-10 07:00:00\n3|2024-01-01 00:00:00\n10|2025-12-10 06:59:00\n12|2025-11-01 19:00:00",
	'the trigger keeps the last visit');
is(sql('SELECT count(*) FROM clinic.task'), '0', 'no task before the job');

run_job('clinic_tasks');
my $expected = join "\n",
  '10 silent since 2025-12-09',
  '11 silent never seen',
  '12 silent since 2025-11-01',
  '20 missing lab CD4 20',
  '30 refill A 30',
  '31 refill A 31',
  '40 viral load since 2025-03-09',
  '41 viral load never checked';
my $all = 'SELECT client_id FROM clinic.client';
is(tasks($all), $expected, 'each rule for the right clients');
is(sql(q(SELECT client_id, due_on FROM clinic.task WHERE kind = 'refill' ORDER BY 1)),
	"30|2026-03-13\n31|2026-02-10", 'refills say when');

# Again: the same tasks, not new ones
my $before = sql('SELECT * FROM clinic.task ORDER BY task_id');
run_job('clinic_tasks');
is(sql('SELECT * FROM clinic.task ORDER BY task_id'),
	$before, 'running the job again changes nothing');

# A task that somebody closed does not come back
sql(q(UPDATE clinic.task SET closed_at = '2026-03-10' WHERE client_id = 41));
run_job('clinic_tasks');
is(tasks('41'), '', 'a closed task stays closed');

# Activity closes the tasks that it answers, and no other

sql(q(INSERT INTO clinic.visit (client_id, visited_at) VALUES (12, '2025-11-20 12:00-07')));
is(tasks('12'), '', 'a visit recorded late takes the place of the older one');
run_job('clinic_tasks');
is(tasks('12'), '12 silent since 2025-11-20', 'but it was long ago as well');
sql(q(
	INSERT INTO clinic.visit (client_id, visited_at) VALUES (10, '2026-03-10 09:00-06'), (11, '2026-03-10 09:30-06');
	UPDATE clinic.lab SET resulted_on = '2026-03-10', result = 350 WHERE lab_id = 20;
	INSERT INTO clinic.prescription (prescription_id, client_id, drug, dispensed_on, days_supplied)
	VALUES (100, 30, 'A', '2026-03-10', 30), (101, 31, 'B', '2026-03-10', 30);
	INSERT INTO clinic.lab (lab_id, client_id, test, ordered_on, resulted_on, result)
	VALUES (100, 40, 'viral load', '2026-03-10', '2026-03-10', 20)));
is(tasks($all), "12 silent since 2025-11-20\n31 refill A 31",
	'what a visit, a result and a refill answer is closed; another drug is none');
sql(q(UPDATE clinic.client SET status = 'transferred' WHERE client_id = 31));
is(tasks($all), '12 silent since 2025-11-20', 'and what a client who leaves had open');
is(sql('SELECT count(*) FROM clinic.task WHERE closed_at IS NULL OR closed_at < opened_at AND client_id <> 41'),
	'1', 'closed when it happened');
run_job('clinic_tasks');
is(tasks($all), '12 silent since 2025-11-20', 'nothing comes back with the next run');

# A visit that was a mistake
sql(q(DELETE FROM clinic.visit WHERE client_id = 12 AND visited_at > '2025-11-10';
	UPDATE clinic.visit SET client_id = 2 WHERE client_id = 11));
is( sql('SELECT client_id, last_visit_at AT TIME ZONE \'UTC\' FROM clinic.client WHERE client_id IN (2, 11, 12) ORDER BY 1'),
	"2|2026-03-10 15:30:00\n11|\n12|2025-11-01 19:00:00",
	'the last visit follows deletion and correction');
run_job('clinic_tasks');
is(tasks('11, 12'), "11 silent never seen\n12 silent since 2025-11-01",
	'the tasks that it had closed are back');

# Two visits of one client at the same time: the later commit sees both.
my ($one, $two) = (session($node), session($node));
$one->query_safe(q(BEGIN; INSERT INTO clinic.visit (client_id, visited_at) VALUES (4, '2026-03-10 12:00Z');));
my $pid = $two->query_safe('SELECT pg_backend_pid()');
finish_later($two, q(INSERT INTO clinic.visit (client_id, visited_at) VALUES (4, '2026-03-10 11:00Z')));
ok(waiting_for($node, $pid), 'a second visit waits for the first');
$one->query_safe('COMMIT');
ok(idle_soon($node, $pid), 'and goes on after it');
is( sql('SELECT last_visit_at AT TIME ZONE \'UTC\' FROM clinic.client WHERE client_id = 4'),
	'2026-03-10 12:00:00', 'the later one is the last visit');
$_->quit foreach $one, $two;

# The five views, while a reader looks at one

my @views = qw(client_overview monthly_visit retention viral_suppression workload);
is(sql("SELECT count(*) FROM clinic.$_ WHERE " . ($_ eq 'client_overview' ? 'client_id = 41' : 'true')),
	'0', "$_ is as it was made")
  foreach @views;
my $reader = session($node);
$reader->query_safe('BEGIN; SELECT count(*) FROM clinic.workload;');
run_job('clinic_views');
$reader->quit;
is(sql('SELECT client_id, last_visit_on, visits, drugs, next_refill_on FROM clinic.client_overview WHERE client_id IN (6, 10, 31) ORDER BY 1'),
	"6||0|1|2026-04-08\n10|2026-03-10|2|0|\n31||0|2|2026-02-10", 'client_overview is refreshed');
is(sql('SELECT month, visits, clients FROM clinic.monthly_visit ORDER BY 1 DESC LIMIT 2'),
	"2026-03-01|4|3\n2025-12-01|2|2", 'monthly_visit is');
is(sql('SELECT * FROM clinic.retention ORDER BY 1'),
	"2020|4|3|2\n2025|2|2|1\n2026|9|7|1", 'retention is');
is(sql('SELECT * FROM clinic.viral_suppression ORDER BY 1'),
	"2025-03-01|2|1\n2026-03-01|4|4", 'viral_suppression is');
is( sql('SELECT * FROM clinic.workload ORDER BY 1'),
	"missing lab|0||1\nrefill|0||2\nsilent|2|2026-03-10|2\nviral load|0||2",
	'workload is');

# The summary, on another day and with something recorded late

run_job('clinic_summary');
sql(q(INSERT INTO clinic.visit (client_id, visited_at) VALUES (5, '2026-03-09 23:30-06')));
run_job('clinic_summary');
is(sql('SELECT * FROM clinic.daily_summary WHERE visits + registrations + dispensed + results > 0 ORDER BY 1'),
	"2026-03-09|1|0|4|0", 'the summary of the days that are over');
is(sql('SELECT min(day), max(day), count(*) FROM clinic.daily_summary'),
	'2026-03-03|2026-03-09|7', 'seven of them');

$node->stop;
done_testing();
