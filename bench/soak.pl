# soak.pl: the clients of scripts/soak.
#
#   perl bench/soak.pl --minutes N [--clients N] [--seed N] [--log FILE]
#
# Loads the platform into the empty database that the PG* variables of the
# environment name, attaches it, and writes to it from several sessions.  A
# session takes its row locks in the order of the claims, so that a deadlock
# can only be of the extension's making.
#
# While that goes on, another session compares the cache with the oracle, in
# one snapshot, for providers that have nothing pending in that snapshot: they
# must be right at any time.  In the end everything must be.

use strict;
use warnings FATAL => 'all';

use FindBin;
use Getopt::Long;
use List::Util qw(sum0);
use Time::HiRes qw(time usleep);

my ($minutes, $clients, $seed, $log) = (10, 8, time % 1_000_000, undef);
GetOptions(
	'minutes=f' => \$minutes,
	'clients=i' => \$clients,
	'seed=i' => \$seed,
	'log=s' => \$log) or exit 2;
$seed = int $seed;

my $providers = 30;
my $hot = 3;    # providers that get half of the load
my $zone = 'America/Edmonton';
my $today = "(now() AT TIME ZONE '$zone')::date";
my $scratch = $ENV{TMPDIR} // '/tmp';
my $deadline;
$| = 1;

# ----------------------------------------------------------------------
# Sessions
# ----------------------------------------------------------------------

# Run a command; returns its output, and dies if it fails.
sub sql
{
	my ($sql) = @_;
	my $file = "$scratch/soak.$$.sql";
	open(my $fh, '>', $file) or die "$file: $!";
	print $fh $sql;
	close $fh;
	my $out = `psql -XAtq -v ON_ERROR_STOP=1 -f $file`;
	die "failed: $sql\n" if $?;
	unlink $file;
	chomp $out;
	return $out;
}

sub try_sql
{
	my ($sql) = @_;
	my $out = eval { sql($sql) };
	return $out // '';
}

# A session that stays open; its output goes to files.
sub open_session
{
	my ($name) = @_;
	my %session = (out => "$scratch/$name.out", err => "$scratch/$name.err", n => 0);
	open($session{in}, '|-',
		"psql -XAtq -v VERBOSITY=sqlstate >$session{out} 2>$session{err}")
	  or die "psql: $!";
	$session{in}->autoflush(1);
	return \%session;
}

# Send statements and wait until they are done.
sub run_session
{
	my ($session, $sql) = @_;
	my $mark = 'done ' . ++$session->{n};
	print { $session->{in} } "$sql\n\\echo $mark\n";
	until (tail($session->{out}) =~ /^$mark$/m)
	{
		usleep(5000);
		die "a session is gone\n" unless $session->{in}->opened;
	}
	return;
}

sub tail
{
	my ($file) = @_;
	open(my $fh, '<', $file) or return '';
	seek($fh, -200, 2);
	local $/;
	return <$fh> // '';
}

sub slurp
{
	my ($file) = @_;
	open(my $fh, '<', $file) or return '';
	local $/;
	return <$fh> // '';
}

# ----------------------------------------------------------------------
# What a client does
# ----------------------------------------------------------------------

sub chance { return rand() < shift; }
sub pick { return $_[ rand @_ ]; }

sub provider
{
	my $n = chance(0.5) ? 1 + int rand $hot : 1 + int rand $providers;
	return "gen.id(1, 'provider', $n)";
}

my @states = qw(DRAFT VALIDATED QUEUED SUBMITTED ASSESSED PAID PAID REJECTED
  ADJUSTED WRITTEN_OFF EXPIRED);

# One change of one claim; the claim's own row comes before those of its
# details.
sub change_claim
{
	my ($id) = @_;
	my $state = pick(@states);
	my $fee = sprintf '%.2f', rand 300;
	my $kind = rand;

	return "UPDATE claims SET state = '$state', updated_at = now() WHERE claim_id = $id" if $kind < 0.35;
	return (
		"UPDATE claims SET state = '" . pick('ASSESSED', 'PAID') . "' WHERE claim_id = $id",
		"UPDATE ahcip_claim_details SET assessed_fee = $fee WHERE claim_id = $id") if $kind < 0.5;
	return "UPDATE ahcip_claim_details SET assessed_fee = $fee, functional_centre = '" . pick('F1', 'F2') . "' WHERE claim_id = $id" if $kind < 0.65;
	return "UPDATE claims SET physician_id = " . provider() . " WHERE claim_id = $id" if $kind < 0.73;
	return "UPDATE claims SET date_of_service = date_of_service + (" . int(rand 61) . " - 30) WHERE claim_id = $id" if $kind < 0.8;
	return "UPDATE claims SET deleted_at = " . pick('now()', 'NULL') . " WHERE claim_id = $id" if $kind < 0.85;
	return ("DELETE FROM ahcip_claim_details WHERE claim_id = $id") if $kind < 0.87;
	return ("DELETE FROM claims WHERE claim_id = $id") if $kind < 0.89;
	return ("INSERT INTO claim_audit_history (claim_id, new_state) VALUES ($id, 'REJECTED')") if $kind < 0.93;
	return ("UPDATE claims SET notes = 'seen', row_version = row_version + 1 WHERE claim_id = $id");
}

sub new_claim
{
	my $id = "'" . join('-', map { join '', map { sprintf '%x', int rand 16 } 1 .. $_ } 8, 4, 4, 4, 12) . "'";
	my $fee = sprintf '%.2f', rand 300;
	my @rows = (
		"INSERT INTO claims (claim_id, physician_id, state, date_of_service, submission_deadline) VALUES ($id, "
		  . provider() . ", '" . pick(@states) . "', $today - " . int(rand 150) . ", $today + 5)",
		"INSERT INTO ahcip_claim_details (claim_id, ba_number, functional_centre, submitted_fee, assessed_fee) VALUES ($id, '"
		  . pick(1, 2, 3) . "', 'F1', $fee, $fee)");
	return chance(0.2) ? reverse @rows : @rows;
}

sub transaction
{
	my ($claims) = @_;
	my $level = pick('READ COMMITTED', 'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE');
	my $sql = '';

	$sql .= 'SET meritum_cache.refresh_mode = ' . pick('commit', 'async') . ";\n" if chance(0.1);
	$sql .= "RESET meritum_cache.refresh_mode;\n" if chance(0.1);
	if (chance(0.12))
	{
		return $sql . 'SELECT count(*) FROM meritum_get_metrics(' . provider()
		  . ", '{revenue_monthly,claims_paid,aging_brackets}', $today - 300, $today + 31);\n";
	}
	if (chance(0.02))
	{
		return $sql . pick(
			'SELECT meritum_refresh_provider_metrics(' . provider() . ");\n",
			'SELECT meritum_request_refresh(' . provider() . ");\n",
			'SELECT count(*) FROM meritum_verify(' . provider() . ", true);\n");
	}
	if (chance(0.01))
	{
		return $sql . pick(
			"UPDATE patients SET phn_province = '" . pick('AB', 'BC', 'SK') . "' WHERE patient_id = (SELECT patient_id FROM patients OFFSET "
			  . int(rand 200) . " LIMIT 1);\n",
			'INSERT INTO practice_locations (provider_id, name, functional_centre) VALUES (' . provider() . ", 'New', 'F2');\n",
			"INSERT INTO ai_suggestion_events (provider_id, event_type, category) VALUES (" . provider() . ", 'accepted', 'MODIFIER');\n");
	}
	if (chance(0.02))
	{
		# many claims of one provider, as an assessment file does
		return $sql . "WITH picked AS MATERIALIZED (SELECT claim_id FROM claims WHERE physician_id = "
		  . provider() . " ORDER BY claim_id LIMIT " . pick(20, 100, 300) . " FOR UPDATE)\n"
		  . "UPDATE claims SET state = '" . pick(@states) . "' WHERE claim_id IN (SELECT claim_id FROM picked);\n";
	}

	$sql .= "BEGIN ISOLATION LEVEL $level;\n";
	$sql .= "SELECT count(*) FROM meritum_get_metrics(" . provider()
	  . ", '{claims_paid}', $today - 100, $today + 31);\n" if chance(0.05);
	# existing claims in their order, then new ones
	my %seen;
	my @ids = sort grep { !$seen{$_}++ } map { pick(@$claims) } 1 .. 1 + int(rand(pick(1, 2, 6)));
	my $saved = 0;
	foreach my $id (@ids)
	{
		$sql .= "$_;\n" foreach change_claim("'$id'");
		if (chance(0.05))
		{
			$sql .= $saved++ ? "ROLLBACK TO s;\n" : "SAVEPOINT s;\n";
		}
	}
	$sql .= join('', map { "$_;\n" } new_claim()) if chance(0.2);
	$sql .= chance(0.05) ? "ROLLBACK;\n" : "COMMIT;\n";
	return $sql;
}

sub client
{
	my ($number) = @_;
	srand($seed * 100 + $number);
	my $session = open_session("client$number");
	my $n = 0;
	run_session($session, "SET client_min_messages = warning;\n\\o $scratch/client$number.pid\nSELECT pg_backend_pid();\n\\o\n\\echo");
	while (time < $deadline)
	{
		# half of the busy providers' claims are the same few hundred
		my @claims = split /\n/, sql(
			"(SELECT claim_id FROM claims WHERE physician_id IN (SELECT gen.id(1, 'provider', n) FROM generate_series(1, $hot) AS n) ORDER BY claim_id LIMIT 60)"
			  . " UNION ALL (SELECT claim_id FROM claims ORDER BY random() LIMIT 60)");
		my $sql = '';
		foreach (1 .. 50)
		{
			$sql .= transaction(\@claims);
			$n++;
		}
		run_session($session, "\\o /dev/null\n$sql\\o\n\\echo");
	}
	close $session->{in};
	open(my $fh, '>', "$scratch/client$number.count") or die $!;
	print $fh $n;
	close $fh;
	return;
}

# ----------------------------------------------------------------------
# What goes on beside them
# ----------------------------------------------------------------------

sub nightly
{
	srand($seed * 100 + 98);
	my ($batches, $failed) = (0, 0);
	while (time < $deadline)
	{
		try_sql('ALTER SYSTEM SET meritum_cache.refresh_mode = ' . pick('commit', 'async')
			  . '; ALTER SYSTEM SET meritum_cache.batch_workers = ' . pick(1, 2, 4)
			  . '; SELECT pg_reload_conf();');
		my $errors = try_sql('SET client_min_messages = error; CALL meritum_refresh_all_providers('
			  . pick(1, 5, 10) . ')');
		$batches++;
		$failed++ unless $errors =~ /\|\[\]$/;
		try_sql('SET client_min_messages = error; CALL meritum_cleanup_old_entries()');
		sleep 2;
	}
	open(my $fh, '>', "$scratch/nightly.count") or die $!;
	print $fh "$batches $failed";
	close $fh;
	return;
}

# Providers without a note in a snapshot are right in that snapshot.
sub checker
{
	srand($seed * 100 + 99);
	my ($checks, $wrong) = (0, '');
	while (time < $deadline)
	{
		my $start = int rand $providers;
		my $got = try_sql(qq(
			BEGIN ISOLATION LEVEL REPEATABLE READ;
			CREATE TEMP TABLE settled ON COMMIT DROP AS
			SELECT array_agg(p.provider_id) AS ids FROM
				   (SELECT gen.id(1, 'provider', 1 + ($start + n) % $providers) AS provider_id
					  FROM generate_series(0, 5) AS n
					UNION SELECT gen.id(1, 'provider', n) FROM generate_series(1, $hot) AS n) AS p
			 WHERE NOT EXISTS (SELECT FROM meritum_cache.pending_refresh AS r
								WHERE r.provider_id = p.provider_id
								   OR (r.provider_id IS NULL AND (r.keys IS NULL
									   OR r.scope NOT IN ('claims', 'ahcip_claim_details', 'claim_audit_history')
									   OR EXISTS (SELECT FROM claims AS c
												   WHERE c.claim_id = ANY (r.keys)
													 AND c.physician_id = p.provider_id))));
			SELECT 'providers', coalesce(cardinality(ids), 0) FROM settled;
			SELECT 'wrong', clock_timestamp(), d.*
			  FROM settled, oracle.existing_diff(ids, NULL, $today, '$zone') AS d LIMIT 20;
			COMMIT;));
		$checks += $1 if $got =~ /^providers\|(\d+)$/m;
		$wrong .= join '', map { "$_\n" } grep { /^wrong/ } split /\n/, $got;
		usleep(500_000);
	}
	open(my $fh, '>', "$scratch/checker.count") or die $!;
	print $fh "$checks\n$wrong";
	close $fh;
	return;
}

# Memory of a process that it does not share, in kB.
sub memory
{
	my ($pid) = @_;
	return $pid && slurp("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m ? $1 : undef;
}

# ----------------------------------------------------------------------
# The run
# ----------------------------------------------------------------------

print "seed $seed, $clients clients, $minutes minutes\n";
foreach my $file ("$FindBin::Bin/../test/support/platform.sql",
	"$FindBin::Bin/../test/support/oracle.sql", "$FindBin::Bin/generate.sql")
{
	system('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $file) == 0
	  or die "$file failed\n";
}
sql("SET client_min_messages = warning; SELECT gen.platform(1, $providers, 6, $today, 0.1);");
sql('CREATE EXTENSION meritum_cache; SELECT * FROM meritum_attach();');
sql('CALL meritum_refresh_all_providers()');
print sql('SELECT count(*) FROM claims') . " claims of "
  . sql('SELECT count(*) FROM providers') . " providers\n";

$deadline = time + 60 * $minutes;
my @children;
foreach my $work ((map { my $n = $_; sub { client($n) } } 1 .. $clients), \&nightly, \&checker)
{
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		my $ok = eval { $work->(); 1 };
		warn $@ unless $ok;
		exit($ok ? 0 : 1);
	}
	push @children, $pid;
}

my (@worker, @backend);
my $next = 0;
my $every = $minutes >= 5 ? 30 : 10;
while (time < $deadline)
{
	if (time >= $next)
	{
		my $worker = try_sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'meritum_cache worker'");
		my ($backend) = slurp("$scratch/client1.pid") =~ /^(\d+)/m;
		push @worker, memory($worker);
		push @backend, memory($backend);
		$next = time + $every;
	}
	usleep(200_000);
}
my $died = 0;
foreach my $pid (@children)
{
	waitpid $pid, 0;
	$died++ if $?;
}

# ----------------------------------------------------------------------
# The report
# ----------------------------------------------------------------------

my @bad;
push @bad, "$died clients died" if $died;

my $transactions = sum0(map { slurp("$scratch/client$_.count") || 0 } 1 .. $clients);
my %errors;
foreach my $n (1 .. $clients)
{
	my $messages = slurp("$scratch/client$n.err");
	$errors{$1}++ while $messages =~ /(?:ERROR|FATAL|WARNING):\s+(\w{5})/g;
}
printf "transactions: %d (%.0f a second)\n", $transactions, $transactions / (60 * $minutes);
# 25P02 follows every other error inside a transaction block
print 'errors and warnings: ',
  join(', ', map { "$_ $errors{$_}" } grep { $_ ne '25P02' } sort keys %errors) || 'none', "\n";
foreach my $state (sort keys %errors)
{
	push @bad, "unexpected SQLSTATE $state" unless $state =~ /^(40001|25P02|25P01|55P03|3B001)$/;
}

my ($batches, $failed) = split ' ', slurp("$scratch/nightly.count") || '0 0';
print "nightly batches: $batches, with errors: $failed\n";
my $batch_errors = sql("SELECT DISTINCT e ->> 'sqlstate', e ->> 'message' FROM meritum_cache.job_run,"
	  . " jsonb_array_elements(errors) AS e");
push @bad, "errors of nightly batches:\n$batch_errors" if $batch_errors ne '';

my ($checks, @wrong) = split /\n/, slurp("$scratch/checker.count");
print 'checks of a provider under load: ', $checks // 0, "\n";
push @bad, "figures were wrong although nothing was pending:\n" . join("\n", @wrong) if @wrong;

# The worker has a minute to settle what is left.
my $pending;
foreach (1 .. 120)
{
	$pending = sql('SELECT count(*) FROM meritum_cache.pending_refresh');
	last if $pending == 0;
	usleep(500_000);
}
push @bad, "$pending notes are left: " . sql('SELECT scope, attempts, sqlstate, message, count(*) FROM meritum_cache.pending_refresh GROUP BY 1, 2, 3, 4') if $pending;
my $verify = sql('SELECT p.provider_id, v.* FROM providers p, meritum_verify(p.provider_id) AS v LIMIT 20');
push @bad, "verify finds differences:\n$verify" if $verify ne '';
my $diff = sql("SELECT * FROM oracle.existing_diff(ARRAY(SELECT provider_id FROM providers), NULL, $today, '$zone') LIMIT 20");
push @bad, "the oracle finds differences:\n$diff" if $diff ne '';
my $drift = sql('SELECT coalesce(sum(drift), 0) FROM meritum_cache.provider_state');
print "drift: $drift\n";
push @bad, "drift: $drift claims had changed without a note" if $drift;

if ($log)
{
	my $text = slurp($log);
	my @deadlocks = $text =~ /^(.*deadlock detected.*(?:\n(?!\d{4}-).*|\n.*(?:DETAIL|HINT|CONTEXT|STATEMENT):.*)*)/mg;
	print 'deadlocks: ', scalar(@deadlocks), "\n";
	push @bad, "deadlocks:\n" . join("\n", @deadlocks[ 0 .. ($#deadlocks > 2 ? 2 : $#deadlocks) ]) if @deadlocks;
	push @bad, 'a process crashed' if $text =~ /PANIC:|was terminated by signal/;
	my %warnings;
	$warnings{ $1 =~ s/[0-9a-f-]{36}/…/gr }++ while $text =~ /WARNING:\s+(.*)/g;
	print "log: $warnings{$_} × $_\n" foreach sort keys %warnings;
}
print 'memory of the worker, kB: ', join(' ', map { $_ // '-' } @worker), "\n";
print 'memory of one session, kB: ', join(' ', map { $_ // '-' } @backend), "\n";

print @bad ? "\nFAILED\n" . join("\n", @bad) . "\n" : "passed\n";
exit(@bad ? 1 : 0);
