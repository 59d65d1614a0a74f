# 070_crash.pl: no crash loses a claim, a note or a figure.
#
# Backends and the worker are killed at the points where a refresh can be
# made to stand still, then the whole server again and again under a mixed
# load.  After each recovery every confirmed change is there, the notes get
# settled and the figures are right.
#
# Environment:
#   CRASHES  how many immediate shutdowns under load (default 3)
#   SEED     of the load (default: from the clock; printed)

use strict;
use warnings FATAL => 'all';

use FindBin;
use IPC::Run;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $crashes = $ENV{CRASHES} || 3;
my $seed = $ENV{SEED} || time;
diag("SEED=$seed CRASHES=$crashes");

my $node = platform_server('crash',
	claims => 200,
	conf => "restart_after_crash = on\nlog_statement = none\n");

# The server answers and no longer knows the process that was killed: until it
# has noticed the kill, it answers as if nothing had happened.
sub is_up
{
	my ($name, $pid) = @_;
	wait_for($node,
		"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)", $name);
	return;
}

# Nothing is pending once the worker, which a crash stops for some seconds,
# is back.
sub recovered
{
	my ($name) = @_;
	wait_for($node,
		q(SELECT count(*) = 1 FROM pg_stat_activity
		   WHERE backend_type = 'meritum_cache worker'),
		"$name: there is a worker");
	settled($node, "$name: the figures are right");
	return;
}

sub end_session
{
	my ($session) = @_;
	eval { $session->{run}->pump_nb; $session->{run}->finish; };
	return;
}

# ----------------------------------------------------------------------
# Points at which a committing backend can be held
# ----------------------------------------------------------------------

# What a lock of another session keeps a commit from: writing facts, cells,
# state or notes, or from its provider.
my %points = (
	'the provider' => q(SELECT meritum_refresh_provider_metrics(test.p(2), '{claims_paid}')),
	'its facts' => 'LOCK TABLE meritum_cache.claim_fact IN SHARE ROW EXCLUSIVE MODE',
	'its cells' => 'LOCK TABLE meritum_cache.analytics_cache IN SHARE ROW EXCLUSIVE MODE',
	'its state' => 'LOCK TABLE meritum_cache.provider_state IN SHARE ROW EXCLUSIVE MODE',
	'its notes' => 'LOCK TABLE meritum_cache.pending_refresh IN SHARE ROW EXCLUSIVE MODE');
my $claim = 0;
foreach my $point (sort keys %points)
{
	foreach my $signal ('TERM', 'KILL')
	{
		my ($locker, $writer) = (session($node), session($node));
		my $name = "waiting for $point, SIG$signal";
		my $pid = $writer->query_safe('SELECT pg_backend_pid()');
		my $mode = $point eq 'its notes' ? 'async' : 'commit';

		$claim += 4;    # claims of providers 2 and 3
		$node->safe_psql('postgres', 'UPDATE claims SET notes = NULL');
		$locker->query_safe("BEGIN; $points{$point}");
		# so that it goes on waiting
		$writer->query_safe("SET deadlock_timeout = '120s'; SET meritum_cache.refresh_mode = $mode");
		finish_later($writer, qq(
			UPDATE claims SET notes = 'lost', date_of_service = date_of_service - 31,
				   state = CASE state WHEN 'PAID' THEN 'REJECTED' ELSE 'PAID' END
			 WHERE claim_id IN (test.c($claim + 1), test.c($claim + 2))));
		ok(waiting_for($node, $pid), "$name: the commit stands still");
		kill $signal, $pid;
		if ($signal eq 'TERM')
		{
			wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)",
				"$name: it is gone");
			$locker->query_safe('COMMIT');
			$locker->quit;
		}
		else
		{
			end_session($locker);
			is_up("$name: the server is back", $pid);
		}
		end_session($writer);
		is($node->safe_psql('postgres', "SELECT count(*) FROM claims WHERE notes = 'lost'"),
			0, "$name: the change is undone");
		recovered($name);
	}
}

# ----------------------------------------------------------------------
# The worker in the middle of a batch, and the nightly batch
# ----------------------------------------------------------------------

foreach my $signal ('TERM', 'KILL')
{
	my $name = "the worker, SIG$signal";
	my $pid = worker_pid($node);
	my $locker = session($node);

	# provider 4 is done after the others are, and then it waits
	$locker->query_safe("BEGIN; SELECT meritum_refresh_provider_metrics(test.p(4), '{claims_paid}')");
	$node->safe_psql('postgres', q(
		SET meritum_cache.refresh_mode = async;
		UPDATE claims SET state = CASE state WHEN 'PAID' THEN 'QUEUED' ELSE 'PAID' END;));
	ok(waiting_for($node, $pid, "locktype = 'object'"), "$name: it is at work");
	isnt(pending($node), 0, "$name: and has something left");
	kill $signal, $pid;
	end_session($locker) if $signal eq 'KILL';
	is_up("$name: the server is up", $pid);
	if ($signal eq 'TERM')
	{
		$locker->query_safe('COMMIT');
		$locker->quit;
	}
	recovered($name);
}

foreach my $signal ('TERM', 'KILL')
{
	my $name = "the nightly batch, SIG$signal";
	my ($locker, $batch) = (session($node), session($node));
	my $pid = $batch->query_safe('SELECT pg_backend_pid()');

	$locker->query_safe("BEGIN; SELECT meritum_refresh_provider_metrics(test.p(4), '{claims_paid}')");
	# behind the triggers, so that the batch is what repairs it
	$node->safe_psql('postgres', q(
		SET session_replication_role = replica;
		UPDATE claims SET state = CASE state WHEN 'PAID' THEN 'QUEUED' ELSE 'PAID' END
		 WHERE claim_id IN (test.c(1), test.c(2), test.c(3), test.c(4));));
	finish_later($batch, 'CALL meritum_refresh_all_providers(1)');
	ok(waiting_for($node, $pid, "locktype = 'object'"), "$name: it is at work");
	kill $signal, $pid;
	end_session($locker) if $signal eq 'KILL';
	end_session($batch);
	is_up("$name: the server is up", $pid);
	if ($signal eq 'TERM')
	{
		$locker->query_safe('COMMIT');
		$locker->quit;
	}
	my ($out) = run_sql($node, 'CALL meritum_refresh_all_providers(1);');
	like($out, qr/^\d+\|\d+\|\[\]$/, "$name: the next one goes through");
	is($node->safe_psql('postgres', q(SELECT count(*) FROM meritum_cache.job_run WHERE status = 'running')),
		0, "$name: no run is left behind");
	recovered($name);
}

# ----------------------------------------------------------------------
# Immediate shutdowns under load
# ----------------------------------------------------------------------

# Each client writes what it is about to commit, and that it was committed.
# A transaction inserts a claim with a number of its own, changes others, in
# the order of their ids, and says its number when it is done.
srand($seed);
sub client_script
{
	my ($client, $round) = @_;
	my $sql = "SET client_min_messages = error;\n";

	foreach my $n (1 .. 400)
	{
		my $number = $client * 1_000_000 + $round * 1000 + $n;
		my @others = sort { $a <=> $b } map { 1 + int(rand(200)) } 1 .. 1 + int(rand(4));
		my $mode = (qw(commit commit async))[ rand 3 ];
		my $level = ('READ COMMITTED', 'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')[ rand 4 ];
		my $state = (qw(PAID REJECTED QUEUED ASSESSED ADJUSTED))[ rand 5 ];

		$sql .= "SET meritum_cache.refresh_mode = $mode;\nBEGIN ISOLATION LEVEL $level;\n"
		  . "INSERT INTO claims (claim_id, physician_id, state, date_of_service) VALUES"
		  . " (test.c($number), test.p(1 + $number % 4), '$state', current_date - $n % 60);\n";
		$sql .= "INSERT INTO ahcip_claim_details (claim_id, submitted_fee, assessed_fee)"
		  . " VALUES (test.c($number), $n, $n);\n" if $n % 2;
		$sql .= "UPDATE claims SET state = '$state', physician_id = test.p(1 + ($_ + $n) % 4)"
		  . " WHERE claim_id = test.c($_);\n" foreach @others;
		$sql .= "UPDATE ahcip_claim_details SET assessed_fee = $n WHERE claim_id = test.c($others[-1]);\n"
		  if $n % 3 == 0;
		# the number is printed when the commit has been confirmed
		$sql .= "COMMIT \\; SELECT $number WHERE EXISTS (SELECT FROM claims WHERE claim_id = test.c($number));\n";
		$sql .= "SELECT FROM meritum_get_metrics(test.p(1 + $n % 4), '{claims_paid,revenue_monthly}',"
		  . " current_date - 100, current_date + 40);\n" if $n % 5 == 0;
	}
	return $sql;
}

foreach my $round (1 .. $crashes)
{
	my @clients;
	foreach my $client (1 .. 3)
	{
		my %c = (in => client_script($client, $round), out => '', err => '');
		$c{run} = IPC::Run::start(
			[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', '-' ],
			'<', \$c{in}, '>', \$c{out}, '2>', \$c{err});
		push @clients, \%c;
	}
	my $wanted = 40 + int(rand(150));
	foreach (1 .. 300)
	{
		$_->{run}->pump_nb foreach @clients;
		last if ($clients[0]{out} =~ tr/\n//) >= $wanted;
		usleep(20_000);
	}
	usleep(int(rand(30_000)));
	$node->stop('immediate');
	eval { $_->{run}->finish } foreach @clients;
	$node->start;

	my @confirmed = map { grep { /^\d+$/ } split /\n/, $_->{out} } @clients;
	cmp_ok(scalar(@confirmed), '>', 10, "crash $round: " . @confirmed . ' transactions were confirmed');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM unnest(ARRAY['
			  . join(',', @confirmed) . ']::bigint[]) AS n WHERE NOT EXISTS'
			  . ' (SELECT FROM claims WHERE claim_id = test.c(n))'),
		0, "crash $round: none of them is missing");
	is(join('', map { grep { /(ERROR|PANIC)/ && !/could not serialize|aborted|deadlock/ } split /^/, $_->{err} } @clients),
		'', "crash $round: no unexpected errors");
	recovered("crash $round");
}
is(incomplete($node), '', 'nothing is missing in the cache');
my ($out, $err) = run_sql($node, 'CALL meritum_refresh_all_providers();');
is($err, '', 'and the nightly batch finds no drift');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|segmentation|signal 11/i,
	'no process has crashed by itself');

done_testing();
