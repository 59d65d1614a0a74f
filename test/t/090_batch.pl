# 090_batch.pl: the nightly batch, alone and in several processes, beside other
# sessions.
#
# Processes are made to stand still by locks on the cells of the provider that
# they are refreshing, so that what the others do meanwhile can be seen.

use strict;
use warnings FATAL => 'all';

use FindBin;
use IPC::Run;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $providers = 12;

# Launcher, worker and the server's own leave room for three helpers.
my $node = platform_server('batch',
	providers => $providers,
	conf => "restart_after_crash = on\nmax_worker_processes = 6\n");

# Providers in the order of their locks, in which the batch takes them.
my @order = split /\n/, $node->safe_psql('postgres', qq(
	SELECT n FROM generate_series(1, $providers) AS n
	 ORDER BY uuid_hash(test.p(n))::bigint & 4294967295));

# Settings that new sessions see from now on.
sub set_batch
{
	my (%value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET meritum_cache.$_ = '$value{$_}'")
	  foreach keys %value;
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	$node->poll_query_until('postgres', 'SELECT '
		  . join(' AND ', map { "current_setting('meritum_cache.$_') = '$value{$_}'" } keys %value));
	return;
}

# Sessions that make whoever refreshes one of the providers stand still in
# the middle of it, until they commit.
sub block_cells
{
	return map {
		my $session = session($node);
		$session->query_safe(qq(
			BEGIN;
			SELECT count(*) FROM (SELECT FROM meritum_cache.analytics_cache
								   WHERE provider_id = test.p($_) FOR UPDATE) AS c));
		$session;
	} @_;
}

sub release
{
	foreach my $session (@_)
	{
		$session->query_safe('COMMIT');
		$session->quit;
	}
	return;
}

# A change that some figures of the provider follow.
sub change_claim
{
	my ($n) = @_;

	return "UPDATE claims SET state = CASE state WHEN 'PAID' THEN 'REJECTED' ELSE 'PAID' END
			 WHERE claim_id = (SELECT min(claim_id::text)::uuid FROM claims
								WHERE physician_id = test.p($n))";
}

# A session that calls the batch without waiting for its end; its pid.
sub start_batch
{
	my ($arguments, %param) = @_;
	my $batch = $node->background_psql('postgres', on_error_stop => 0, %param);
	my $pid = $batch->query_safe('SELECT pg_backend_pid()');

	finish_later($batch, "CALL meritum_refresh_all_providers($arguments)");
	return ($batch, $pid);
}

# The result of the batch, without the number of entries.
sub end_batch
{
	my ($batch) = @_;
	my $result = $batch->query_until(qr/finished/, '');

	$batch->quit;
	return $result =~ /^(\d+)\|\d+\|(.*)$/m ? "$1 $2" : $batch->{stderr};
}

# How many processes of the batch stand still; the leader is one of them.
sub standing_still
{
	my ($pid, $n, $name) = @_;

	wait_for($node, "SELECT count(DISTINCT pid) = $n FROM pg_locks
		JOIN pg_stat_activity USING (pid)
		WHERE NOT granted AND (pid = $pid OR backend_type = 'meritum_cache batch')", $name);
	return;
}

# A condition on the providers that the running batch has done.
sub done
{
	my ($condition, $name) = @_;

	wait_for($node, "SELECT count(*) $condition FROM meritum_cache.provider_state
		WHERE batch_run = (SELECT max(batch_run) FROM meritum_cache.job_run)", $name);
	return;
}

sub progress
{
	my ($condition, $name) = @_;

	wait_for($node, "SELECT $condition FROM meritum_cache.job_run
		ORDER BY run_id DESC LIMIT 1", $name);
	return;
}

sub helpers_gone
{
	my ($name) = @_;

	wait_for($node, q(SELECT NOT EXISTS (SELECT FROM pg_stat_activity
		WHERE backend_type = 'meritum_cache batch')), $name);
	return;
}

sub helper_pid
{
	return $node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'meritum_cache batch' ORDER BY pid LIMIT 1));
}

# Which of two sessions a process waits for.
sub blocker_of
{
	my ($pid, @session) = @_;
	my $blocker = $node->safe_psql('postgres', "SELECT unnest(pg_blocking_pids($pid))");

	return $blocker eq $session[0]->query_safe('SELECT pg_backend_pid()') ? 0 : 1;
}

# ----------------------------------------------------------------------
# Giving way
# ----------------------------------------------------------------------

{
	my $name = 'a claim that waits for the batch';
	my ($third, $fourth) = block_cells(@order[ 2, 3 ]);
	my $writer = session($node);
	my $writer_pid = $writer->query_safe('SELECT pg_backend_pid()');
	my ($batch, $pid) = start_batch(1000);

	ok(waiting_for($node, $pid), "$name: the batch is at the third provider");

	# so that it does not leave a note
	$writer->query_safe("SET deadlock_timeout = '600s'");
	finish_later($writer, change_claim($order[0]));
	ok(waiting_for($node, $writer_pid, "locktype = 'object'"),
		"$name: a claim of the first waits");
	release($third);
	$writer->query_until(qr/finished/, '');
	is($writer->{stderr}, '', "$name: it commits");
	ok(waiting_for($node, $pid), "$name: with the batch at the fourth");
	release($fourth);
	is(end_batch($batch), "$providers []", "$name: the batch succeeds");
	$writer->quit;
	settled($node, "$name: the figures are right");
}

{
	my $name = 'a batch that waits';
	my $holder = session($node);

	$holder->query_safe(
		"BEGIN; SELECT meritum_refresh_provider_metrics(test.p($order[6]), '{claims_paid}')");
	my ($batch, $pid) = start_batch(1000);
	ok(waiting_for($node, $pid, "locktype = 'object'"), "$name: for the seventh provider");
	is( $node->safe_psql('postgres',
			"SELECT count(*) FROM pg_locks WHERE pid = $pid AND granted AND locktype = 'object'
				AND classid = 'meritum_cache.provider_state'::regclass"),
		0, "$name: holds no other");
	progress('providers_done = 11', "$name: has done all others");
	release($holder);
	is(end_batch($batch), "$providers []", "$name: succeeds");
}

# ----------------------------------------------------------------------
# Several processes do what one does
# ----------------------------------------------------------------------

my $entries;
foreach my $workers (1, 2, 4)
{
	my $name = "$workers workers";

	set_batch(batch_workers => $workers);
	$node->safe_psql('postgres', 'TRUNCATE meritum_cache.analytics_cache');
	my ($processed, $written, $errors) = split /\|/,
	  $node->safe_psql('postgres', 'CALL meritum_refresh_all_providers(2)');
	$entries //= $written;
	is("$processed $written $errors", "$providers $entries []",
		"$name: as many providers and entries");
	progress("providers_done = $providers AND providers_total = $providers
			AND entries = $entries AND errors = '[]' AND status = 'succeeded'",
		"$name: so says the run");
	is(wrong($node), '', "$name: the figures are right");
	is(incomplete($node), '', "$name: and complete");
}

# One process is held up, the others do all the rest.
{
	my $name = 'a helper that is held up';
	my @blocked = block_cells(@order[ 0, 1 ]);

	set_batch(batch_workers => 2);
	my ($batch, $pid) = start_batch(1);
	standing_still($pid, 2, "$name: both processes are");
	is($node->safe_psql('postgres', q(SELECT providers_done, providers_total, status
			FROM meritum_cache.job_run ORDER BY run_id DESC LIMIT 1)),
		"0|$providers|running", "$name: nothing is done");
	my $mine = blocker_of($pid, @blocked);
	release($blocked[$mine]);
	progress("providers_done = $providers - 1 AND entries > 0 AND status = 'running'",
		"$name: the leader does all others and shows it");
	release($blocked[ 1 - $mine ]);
	is(end_batch($batch), "$providers []", "$name: it finishes in the end");
	helpers_gone("$name: and is gone");
}

{
	my $name = 'a leader that is held up';
	my $role = 'nurse';
	my @blocked = block_cells(@order[ 0, 1 ]);

	$node->safe_psql('postgres', "CREATE ROLE $role LOGIN; SELECT meritum_grant('$role', 'operator')");
	my ($batch, $pid) = start_batch(1, extra_params => [ '-U', $role ]);
	standing_still($pid, 2, "$name: both processes are");
	is($node->safe_psql('postgres', q(SELECT usename, count(*) FROM pg_stat_activity
			WHERE backend_type = 'meritum_cache batch' GROUP BY 1)),
		"$role|1", "$name: the helper has the leader's role");
	my $mine = blocker_of($pid, @blocked);
	release($blocked[ 1 - $mine ]);
	done("= $providers - 1", "$name: the helper does all others");
	release($blocked[$mine]);
	is(end_batch($batch), "$providers []", "$name: all is counted in the end");
	

}

# A provider that fails, in the process that is not held up, whichever it is.
{
	my $name = 'a provider that fails';

	$node->safe_psql('postgres', qq(
		ALTER TABLE meritum_cache.analytics_cache ADD CONSTRAINT no_more
		CHECK (provider_id <> test.p($order[5])) NOT VALID));
	my ($blocked) = block_cells($order[0]);
	my ($batch, $pid) = start_batch(3);
	done("= $providers - 2", "$name: the others are done");
	release($blocked);
	my ($n, $errors) = split / /, end_batch($batch), 2;
	is($n, $providers - 1, "$name: is not counted");
	is($node->safe_psql('postgres', qq(
			SELECT jsonb_array_length(e), e -> 0 ->> 'sqlstate',
				   (e -> 0 ->> 'providerId')::uuid = test.p($order[5])
			  FROM jsonb(\$\$$errors\$\$) AS e)),
		'1|23514|t', "$name: is recorded once");
	progress("errors = \$\$$errors\$\$ AND status = 'succeeded'", "$name: in the run as well");
	$node->safe_psql('postgres',
		'ALTER TABLE meritum_cache.analytics_cache DROP CONSTRAINT no_more');
}

# ----------------------------------------------------------------------
# Cut off, and continued
# ----------------------------------------------------------------------

foreach my $function ('pg_cancel_backend', 'pg_terminate_backend')
{
	my $name = "$function of the leader";
	my @blocked = block_cells(@order[ 4, 5 ]);
	my ($batch, $pid) = start_batch(1);

	standing_still($pid, 2, "$name: two processes are at work");
	$node->safe_psql('postgres', "SELECT $function($pid)");
	helpers_gone("$name: the helper is stopped");
	eval { $batch->{run}->pump_nb; $batch->quit; };
	wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)",
		"$name: the leader is gone");
	release(@blocked);
	is($node->safe_psql('postgres', 'CALL meritum_refresh_all_providers(1)') =~ s/\|\d+\|/ /r,
		($providers - 4) . ' []', "$name: the next batch does the rest");
	progress("providers_done = $providers AND status = 'succeeded'", "$name: and says so");
	is($node->safe_psql('postgres', q(SELECT count(*) FROM meritum_cache.job_run
			WHERE status = 'running')), 0, "$name: no run is left behind");
}

{
	my $name = 'a leader that waits for its helper';
	my @blocked = block_cells(@order[ 0, 1 ]);
	my ($batch, $pid) = start_batch(1);

	standing_still($pid, 2, "$name: both processes are held up");
	my $mine = blocker_of($pid, @blocked);
	release($blocked[$mine]);
	progress("providers_done = $providers - 1", "$name: has done all others");
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	$batch->query_until(qr/finished/, '');
	like($batch->{stderr}, qr/canceling statement/, "$name: can be canceled");
	$batch->quit;
	is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'meritum_cache batch')), 0, "$name: no helper is left");
	release($blocked[ 1 - $mine ]);
	is($node->safe_psql('postgres', 'CALL meritum_refresh_all_providers(1)') =~ s/\|\d+\|/ /r,
		'1 []', "$name: the next batch does the one that is left");
}

foreach my $function ('pg_cancel_backend', 'pg_terminate_backend')
{
	my $name = "$function of a helper";
	my @blocked = block_cells(@order[ 4, 5 ]);
	my ($batch, $pid) = start_batch(1);

	standing_still($pid, 2, "$name: two processes are at work");
	$node->safe_psql('postgres', "SELECT $function(" . helper_pid() . ')');
	helpers_gone("$name: it is gone");
	release(@blocked);
	is(end_batch($batch), "$providers []", "$name: nothing is lost");
	like($batch->{stderr}, qr/WARNING:  a process of the batch ended early/,
		"$name: the leader says so");
}

{
	my $name = 'SIGKILL of a helper';
	my @blocked = block_cells(@order[ 4, 5 ]);
	my ($batch, $pid) = start_batch(1);

	standing_still($pid, 2, "$name: two processes are at work");
	my $helper = helper_pid();
	kill 'KILL', $helper;
	eval { $_->{run}->pump_nb; $_->{run}->finish; } foreach $batch, @blocked;
	wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $helper)",
		"$name: the server is back");
	is($node->safe_psql('postgres', 'CALL meritum_refresh_all_providers(1)') =~ s/\|\d+\|/ /r,
		($providers - 4) . ' []', "$name: the next batch does the rest");
}

# ----------------------------------------------------------------------
# Pauses
# ----------------------------------------------------------------------

{
	my $name = 'batch_delay';

	set_batch(batch_delay => '1h');
	my ($batch, $pid) = start_batch(2);
	done('= 4', "$name: each of two processes does one transaction");
	wait_for($node, "SELECT count(*) = 2 FROM pg_stat_activity
		WHERE wait_event = 'Extension' AND (pid = $pid OR backend_type = 'meritum_cache batch')",
		"$name: then both pause");
	done('= 4', "$name: and do no more");
	my ($out, $err) = run_sql($node, 'CALL meritum_refresh_all_providers();');
	like($err, qr/ERROR:  55006:/, "$name: no second batch begins");
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	$batch->query_until(qr/finished/, '');
	like($batch->{stderr}, qr/canceling statement/, "$name: a pause can be interrupted");
	$batch->quit;
	is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'meritum_cache batch')), 0, "$name: no helper is left");
	set_batch(batch_delay => 0);
	is($node->safe_psql('postgres', 'CALL meritum_refresh_all_providers(3)') =~ s/\|\d+\|/ /r,
		($providers - 4) . ' []', "$name: the next batch does the rest");
}

# ----------------------------------------------------------------------
# Claims that change meanwhile
# ----------------------------------------------------------------------

{
	my $name = 'claims that change during the batch';
	my @clients;

	set_batch(batch_workers => 4);
	foreach my $client (1 .. 3)
	{
		my %c = (out => '', err => '', in => "SET client_min_messages = error;\n");
		foreach my $n (1 .. 150)
		{
			my $mode = $n % 3 ? 'commit' : 'async';
			my $claim = 1 + ($n * 7 + $client * 31) % (30 * $providers);
			my $provider = 1 + ($n + $client) % $providers;
			my $state = (qw(PAID REJECTED QUEUED ASSESSED))[ $n % 4 ];
			$c{in} .= "SET meritum_cache.refresh_mode = $mode;\n"
			  . "UPDATE claims SET state = '$state', physician_id = test.p($provider)"
			  . " WHERE claim_id = test.c($claim);\n";
		}
		$c{in} .= "\\echo finished\n";
		$c{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', '-' ],
			'<', \$c{in}, '>', \$c{out}, '2>', \$c{err});
		push @clients, \%c;
	}
	my ($batches, $bad) = (0, '');
	do
	{
		my $result = $node->safe_psql('postgres', 'CALL meritum_refresh_all_providers(3)');
		$batches++;
		$bad .= "$result\n" unless $result =~ /^$providers\|\d+\|\[\]$/;
		$_->{run}->pump_nb foreach @clients;
	} while ($batches < 1000 && grep { $_->{out} !~ /finished/ } @clients);
	$_->{run}->finish foreach @clients;
	is($bad, '', "$name: $batches batches succeed");
	is(join('', map { $_->{err} } @clients), '', "$name: so do the claims");
	settled($node, "$name: the figures are right");
	is($node->safe_psql('postgres', 'SELECT sum(drift) FROM meritum_cache.provider_state'),
		0, "$name: and there was no drift");
}

# ----------------------------------------------------------------------
# As a job, with too few processes, and with the library not preloaded
# ----------------------------------------------------------------------

{
	my $run = $node->safe_psql('postgres', q(SELECT meritum_run_job('nightly_refresh')));
	wait_for($node, qq(SELECT status = 'succeeded' AND providers_done = $providers
		FROM meritum_cache.job_run WHERE run_id = $run AND finished_at IS NOT NULL),
		'the job is done by several processes');
}

{
	my $name = 'fewer processes than wanted';

	set_batch(batch_workers => 64);
	my ($out, $err) = run_sql($node, 'CALL meritum_refresh_all_providers();');
	like($out, qr/^$providers\|\d+\|\[\]$/m, "$name: the batch succeeds");
	like($err, qr/WARNING:  53000: the batch runs in [2-4] instead of 12 processes/,
		"$name: with a warning");
	unlike($err, qr/WARNING.*WARNING/s, "$name: one");
}

{
	my $name = 'no process at all';

	$node->append_conf('postgresql.conf', 'max_worker_processes = 3');
	$node->restart;
	wait_for($node, q(SELECT count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'meritum_cache worker'), "$name: for helpers, that is");
	my ($out, $err) = run_sql($node, 'CALL meritum_refresh_all_providers();');
	like($out, qr/^$providers\|\d+\|\[\]$/m, "$name: the batch succeeds");
	like($err, qr/the batch runs in 1 instead of 12 processes/, "$name: with a warning");
}

{
	my $name = 'not preloaded';

	$node->append_conf('postgresql.conf',
		"max_worker_processes = 6\nshared_preload_libraries = ''");
	$node->safe_psql('postgres', 'ALTER SYSTEM SET meritum_cache.batch_workers = 2');
	$node->restart;
	my ($blocked) = block_cells($order[0]);
	my ($batch, $pid) = start_batch(1);
	done("= $providers - 1", "$name: the batch has a helper");
	release($blocked);
	is(end_batch($batch), "$providers []", "$name: and succeeds");
	is(wrong($node), '', "$name: the figures are right");
}

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|segmentation|signal 11/i,
	'no process has crashed by itself');

done_testing();
