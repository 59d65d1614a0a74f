# 050_failures.pl: a refresh that fails, or has to wait, never costs a claim.
#
# Refreshes are made to fail by bad data, by constraints and by locks; the
# claims must be kept, the failure noted, tried again and settled when its
# cause is gone.  The second half is about the notes of the async mode and of
# changes that are too large.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = platform_server('failures', conf => 'restart_after_crash = on');
my ($out, $err);

# A cell that is refreshed again wakes the worker, which then looks at all
# that is due.
sub wake_worker
{
	$node->safe_psql('postgres', q(
		BEGIN;
		SET LOCAL meritum_cache.refresh_mode = async;
		UPDATE claims SET state = CASE state WHEN 'PAID' THEN 'QUEUED' ELSE 'PAID' END
		 WHERE claim_id = test.c(3);
		COMMIT;));
	return;
}

# Let the worker stand still in front of the lock of provider 1, which a
# prepared transaction holds, and let it go on.
sub stop_worker
{
	my $pid = worker_pid($node);
	$node->safe_psql('postgres', q(
		BEGIN;
		SET LOCAL meritum_cache.refresh_mode = commit;
		UPDATE claims SET state = CASE state WHEN 'DRAFT' THEN 'QUEUED' ELSE 'DRAFT' END
		 WHERE claim_id = test.c(4);
		PREPARE TRANSACTION 'stop the worker';
		SET meritum_cache.refresh_mode = async;
		UPDATE claims SET state = CASE state WHEN 'PAID' THEN 'QUEUED' ELSE 'PAID' END
		 WHERE claim_id = test.c(8)));
	ok(waiting_for($node, $pid, "locktype = 'object'"), 'the worker waits for a provider');
	return;
}

sub start_worker
{
	$node->safe_psql('postgres', "COMMIT PREPARED 'stop the worker'");
	return;
}

# What a provider's notes say of its failures.
sub failure
{
	my ($n) = @_;
	return $node->safe_psql('postgres', 'SELECT max(attempts), max(sqlstate),'
		  . ' bool_or(next_attempt_at > now()) FROM meritum_cache.pending_refresh'
		  . " WHERE provider_id = test.p($n)");
}

sub state_of
{
	my ($n) = @_;
	return $node->safe_psql('postgres',
		"SELECT state FROM claims WHERE claim_id = test.c($n)");
}

is(wrong($node), '', 'all is right in the beginning');

# ----------------------------------------------------------------------
# Data that no figure can be made of
# ----------------------------------------------------------------------

# Claims 1, 5, 9 … are of provider 2, claims 2, 6 … of provider 3.
($out, $err) = run_sql($node, q(
	BEGIN;
	UPDATE ahcip_claim_details SET submitted_fee = 'NaN' WHERE claim_id = test.c(1);
	UPDATE claims SET state = 'PAID' WHERE claim_id IN (test.c(1), test.c(2));
	COMMIT;
	SELECT count(*) FROM claims WHERE claim_id IN (test.c(1), test.c(2)) AND state = 'PAID';));
is($out, '2', 'bad data: the change is committed');
like($err, qr/WARNING:.*a0000000-0000-4000-8000-000000000002 \(SQLSTATE/,
	'a warning names the provider and the SQLSTATE');
unlike($err, qr/ERROR/, 'and there is no error');
unlike($err, qr/NaN|c0000000/, 'and nothing of the claim');
is(pending($node, 'provider_id = test.p(3)'),
	'0', 'the other provider of the transaction is not held up');
like(failure(2), qr/^[1-9]\d*\|\w{5}\|[tf]$/, 'the failure is noted');
is($node->safe_psql('postgres', 'SELECT meritum_is_stale(test.p(2))'),
	't', 'the provider is stale');

($out, $err) = run_sql($node, q(
	SET meritum_cache.on_error = error;
	UPDATE ahcip_claim_details SET assessed_fee = 'NaN' WHERE claim_id = test.c(2);));
like($err, qr/ERROR/, 'on_error = error: the transaction fails');
is($node->safe_psql('postgres',
		"SELECT count(*) FROM ahcip_claim_details WHERE assessed_fee = 'NaN'"),
	'0', 'and its change is undone');

# ----------------------------------------------------------------------
# Retries, parking and release
# ----------------------------------------------------------------------

my $previous = 1;
my $growing = 1;
my $tries = 0;
while ($tries++ < 60)
{
	my ($attempts, $pause) = split /\|/, $node->safe_psql('postgres', q(
		SELECT attempts, extract(epoch FROM
			   nullif(next_attempt_at, 'infinity') - clock_timestamp())
		  FROM meritum_cache.pending_refresh WHERE provider_id = test.p(2)
		 ORDER BY attempts DESC LIMIT 1));
	# pauses of 1, 2, 4 … seconds after the worker's attempts
	$growing = 0
	  if $attempts > 1 && $attempts < 10 && $attempts > $previous
	  && ($pause > 2**($attempts - 1) || $pause < 2**($attempts - 1) - 30);
	$previous = $attempts;
	last if $attempts >= 10;
	$node->safe_psql('postgres', q(
		UPDATE meritum_cache.pending_refresh SET next_attempt_at = clock_timestamp()
		 WHERE provider_id = test.p(2)));
	wake_worker();
	$node->poll_query_until('postgres', qq(
		SELECT max(attempts) > $attempts FROM meritum_cache.pending_refresh
		 WHERE provider_id = test.p(2)));
}
is($previous, 10, 'the worker tries ten times');
ok($growing, 'with growing pauses');
is($node->safe_psql('postgres', q(
		SELECT provider_id, attempts, sqlstate IS NOT NULL, message IS NOT NULL,
			   since < now() FROM meritum_cache.failed_refresh)),
	'a0000000-0000-4000-8000-000000000002|10|t|t|t',
	'then the refresh is parked and shown in failed_refresh');
wake_worker();
$node->poll_query_until('postgres', q(
	SELECT NOT EXISTS (SELECT FROM meritum_cache.pending_refresh
						WHERE provider_id <> test.p(2))));
is($node->safe_psql('postgres', 'SELECT max(attempts) FROM meritum_cache.pending_refresh'),
	'10', 'and not tried again');

($out, $err) = run_sql($node, 'SELECT meritum_refresh_provider_metrics(test.p(2))');
like($err, qr/ERROR/, 'an explicit refresh fails as long as the data are bad');
is($node->safe_psql('postgres', 'SELECT count(*) FROM meritum_cache.failed_refresh'),
	'1', 'and releases nothing');
$node->safe_psql('postgres',
	'UPDATE ahcip_claim_details SET submitted_fee = 12 WHERE claim_id = test.c(1)');
is($node->safe_psql('postgres',
		'SELECT meritum_refresh_provider_metrics(test.p(2)) > 0'),
	't', 'with the data repaired it succeeds');
is($node->safe_psql('postgres', 'SELECT count(*) FROM meritum_cache.failed_refresh'),
	'0', 'and releases the provider');
settled($node, 'all is right again');

# ----------------------------------------------------------------------
# A constraint of the cache that fails
# ----------------------------------------------------------------------

$node->safe_psql('postgres', q(
	ALTER TABLE meritum_cache.analytics_cache ADD CONSTRAINT no_more
	CHECK (provider_id <> test.p(4)) NOT VALID));
($out, $err) = run_sql($node,
	"UPDATE claims SET state = 'ADJUSTED' WHERE claim_id IN (test.c(7), test.c(6))");
like($err, qr/WARNING:  23514:.*\(SQLSTATE 23514\)/, 'a constraint of the cache: a warning');
is(state_of(7), 'ADJUSTED', 'the claim is kept');
like(failure(4), qr/\|23514\|/, 'the failure is noted');
is(pending($node, 'provider_id = test.p(3)'), '0', 'the other provider is refreshed');
($out, $err) = run_sql($node,
	"SET meritum_cache.on_error = error; UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(7);");
like($err, qr/ERROR:  23514:/, 'on_error = error: the transaction fails');
is(state_of(7), 'ADJUSTED', 'and the claim is as it was');
$node->safe_psql('postgres',
	'ALTER TABLE meritum_cache.analytics_cache DROP CONSTRAINT no_more');
settled($node, 'the worker settles it when the constraint is gone');

# ----------------------------------------------------------------------
# The cache locked by someone else
# ----------------------------------------------------------------------

# The lock is held until after the commit, which must not wait for it.
foreach my $case (
	[ 'no timeout', '', '55P03' ],
	[ 'a lock_timeout', "SET lock_timeout = '100ms';", '55P03' ],
	[ 'a long lock_timeout', "SET lock_timeout = '1h';", '55P03' ],
	[ 'a statement_timeout', "SET statement_timeout = '100ms';", '(?:57014|55P03)' ])
{
	my ($name, $setting, $sqlstate) = @$case;
	my $locker = session($node);
	my $table = 'meritum_cache.'
	  . ($name eq 'no timeout' ? 'claim_fact' : 'analytics_cache');
	$locker->query_safe("BEGIN; LOCK TABLE $table IN ACCESS EXCLUSIVE MODE");
	($out, $err) = run_sql($node, $setting . q(
		UPDATE claims SET state = 'PAID', notes = ) . "'$name'" . q(
		 WHERE claim_id = test.c(10);
		UPDATE claims SET state = 'REJECTED', notes = ) . "'$name'" . q(
		 WHERE claim_id = test.c(10);));
	unlike($err, qr/ERROR/, "$name: the commit does not fail");
	like($err, qr/WARNING:  $sqlstate:/, "$name: but warns");
	is($node->safe_psql('postgres', 'SELECT state, notes FROM claims WHERE claim_id = test.c(10)'),
		"REJECTED|$name", "$name: the claim is kept");
	isnt(pending($node, 'provider_id = test.p(3)'), '0', "$name: a note is left");
	$locker->query_safe('COMMIT');
	$locker->quit;
	settled($node, "$name: the worker settles it after the lock is released");
}

# Many providers in one transaction: one wait, not one for each.
my $many = 12;
$node->safe_psql('postgres',
	"INSERT INTO providers (provider_id) SELECT test.p(n) FROM generate_series(101, 100 + $many) AS n");
settled($node, 'more providers');
{
	my $locker = session($node);
	$locker->query_safe('BEGIN; LOCK TABLE meritum_cache.analytics_cache IN ACCESS EXCLUSIVE MODE');
	my $start = time;
	$node->safe_psql('postgres', qq(
		INSERT INTO claims (claim_id, physician_id, date_of_service, state)
		SELECT test.c(n + 1000), test.p(n), current_date, 'PAID'
		  FROM generate_series(101, 100 + $many) AS n));
	cmp_ok(time - $start, '<', $many / 2,
		"$many providers: the commit does not wait for the lock once for each");
	$locker->query_safe('COMMIT');
	$locker->quit;
	settled($node, "$many providers: settled afterwards");
}

# The source tables locked: what a detail's claim is cannot be looked up.
foreach my $setting ('', "SET lock_timeout = '100ms';", "SET statement_timeout = '100ms';")
{
	my $locker = session($node);
	my $writer = session($node);
	my $pid = $writer->query_safe('SELECT pg_backend_pid()');
	$locker->query_safe('BEGIN; LOCK TABLE claims IN ACCESS EXCLUSIVE MODE');
	$writer->query_safe($setting) if $setting;
	finish_later($writer, q(UPDATE ahcip_claim_details
		SET assessed_fee = assessed_fee + 1, functional_centre = 'changed'
		WHERE claim_id = test.c(11)));
	ok(idle_soon($node, $pid), "claims locked, $setting: the commit of a detail does not hang");
	$locker->query_safe('COMMIT');
	$locker->quit;
	$writer->query_until(qr/finished/, '');
	unlike($writer->{stderr}, qr/ERROR/, "claims locked, $setting: nor fail");
	$writer->quit;
	is($node->safe_psql('postgres', q(
		WITH seen AS (SELECT detail.functional_centre FROM ahcip_claim_details AS detail
					   WHERE claim_id = test.c(11)),
		reset AS (UPDATE ahcip_claim_details SET functional_centre = 'F2'
				   WHERE claim_id = test.c(11))
		SELECT * FROM seen)), 'changed', "claims locked, $setting: the detail is kept");
	settled($node, "claims locked, $setting: settled afterwards");
}

# The provider's own lock, held by a prepared transaction.
$node->safe_psql('postgres', q(
	BEGIN;
	UPDATE claims SET state = 'QUEUED' WHERE claim_id = test.c(14);
	PREPARE TRANSACTION 'holder'));
($out, $err) = run_sql($node,
	"UPDATE claims SET state = 'ASSESSED' WHERE claim_id = test.c(18)");
like($err, qr/WARNING:  55P03/, 'the provider is being refreshed by another: a warning');
is(state_of(18), 'ASSESSED', 'and the claim is kept');
($out, $err) = run_sql($node,
	"UPDATE claims SET state = 'ASSESSED' WHERE claim_id = test.c(19)");
is($err, '', 'a writer on another provider does not wait');
$node->safe_psql('postgres', "COMMIT PREPARED 'holder'");
settled($node, 'both are settled afterwards');

# A commit that is cancelled or terminated while it waits.
foreach my $how ('cancel', 'terminate')
{
	my $locker = session($node);
	my $writer = session($node);
	my $pid = $writer->query_safe('SELECT pg_backend_pid()');
	# long enough to be found waiting
	$writer->query_safe("SET deadlock_timeout = '120s'");
	$locker->query_safe('BEGIN; LOCK TABLE meritum_cache.analytics_cache IN ACCESS EXCLUSIVE MODE');
	finish_later($writer, "UPDATE claims SET state = '" . ($how eq 'cancel' ? 'EXPIRED' : 'PAID') . "', notes = '$how' WHERE claim_id = test.c(22)");
	ok(waiting_for($node, $pid), "$how: the commit waits");
	$node->safe_psql('postgres', "SELECT pg_${how}_backend($pid)");
	if ($how eq 'cancel')
	{
		$writer->query_until(qr/finished/, '');
		like($writer->{stderr}, qr/WARNING/, 'cancel: a warning');
	}
	else
	{
		wait_for($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)",
			'terminate: the session ends');
	}
	is($node->safe_psql('postgres', 'SELECT notes FROM claims WHERE claim_id = test.c(22)'),
		'cancel', "$how: " . ($how eq 'cancel' ? 'the claim is kept' : 'the change is undone'));
	$locker->query_safe('COMMIT');
	$locker->quit;
	$how eq 'cancel' ? $writer->quit : eval { $writer->{run}->finish };
	settled($node, "$how: all is right");
}

# ----------------------------------------------------------------------
# The async mode
# ----------------------------------------------------------------------

# The worker is woken, it does not poll: it must be quick each time.
my @slow;
foreach my $n (1 .. 8)
{
	$node->safe_psql('postgres', qq(
		SET meritum_cache.refresh_mode = async;
		UPDATE claims SET state = 'PAID', notes = 'async $n' WHERE claim_id = test.c(24 + $n)));
	my $start = time;
	$node->poll_query_until('postgres',
		'SELECT NOT EXISTS (SELECT FROM meritum_cache.pending_refresh)');
	push @slow, time - $start if time - $start > 3;
}
is("@slow", '', 'async: notes are settled soon after each commit');
settled($node, 'async: all is right');

$node->safe_psql('postgres', q(
	SET meritum_cache.refresh_mode = async;
	BEGIN;
	UPDATE claims SET state = 'REJECTED' WHERE claim_id = test.c(30);
	PREPARE TRANSACTION 'async';
	COMMIT PREPARED 'async'));
my $start = time;
while (time - $start < 10 && pending($node) ne '0') { select undef, undef, undef, 0.1; }
is(pending($node), '0', 'async: so are those of a prepared transaction');
wake_worker();
settled($node, 'async: all is right');

# Modes by session, role and database, all at once
$node->safe_psql('postgres', q(
	CREATE ROLE importer LOGIN;
	GRANT ALL ON ALL TABLES IN SCHEMA public TO importer;
	GRANT USAGE ON SCHEMA test TO importer;
	ALTER ROLE importer SET meritum_cache.refresh_mode = commit;
	ALTER DATABASE postgres SET meritum_cache.refresh_mode = async));
stop_worker();
foreach my $case (
	[ 'database', 'postgres', '', 'async', 1 ],
	[ 'role', 'importer', '', 'commit', 0 ],
	[ 'session', 'postgres', 'SET meritum_cache.refresh_mode = commit;', 'commit', 0 ])
{
	my ($name, $user, $setting, $mode, $notes) = @$case;
	my (undef, $stdout) = $node->psql('postgres', qq(
		$setting
		UPDATE claims SET state = CASE state WHEN 'PAID' THEN 'QUEUED' ELSE 'PAID' END
		 WHERE claim_id = test.c(13);
		SHOW meritum_cache.refresh_mode;), extra_params => [ '-U', $user ]);
	is($stdout, $mode, "the mode of the $name");
	is(pending($node, 'provider_id = test.p(2)'), $notes, "the mode of the $name counts");
	# and what is pending, a reader settles
	$node->safe_psql('postgres', q(SELECT count(*) FROM meritum_get_metrics(test.p(2),
		'{claims_paid}', current_date - 400, current_date + 40)));
}
start_worker();

# every mode on the same provider at once
my @writers = map { session($node) } 1 .. 3;
$writers[1]->query_safe("SET meritum_cache.refresh_mode = commit");
$writers[2]->query_safe("SET default_transaction_isolation = 'serializable'");
foreach my $round (1 .. 5)
{
	foreach my $n (0 .. 2)
	{
		finish_later($writers[$n], "UPDATE claims SET state = '"
			  . ('PAID', 'QUEUED', 'REJECTED')[ ($n + $round) % 3 ]
			  . "' WHERE claim_id IN (test.c(40 + 4 * $n), test.c(41 + 4 * $n))");
	}
	$_->query_until(qr/finished/, '') foreach @writers;
}
is(join('', map { $_->{stderr} } @writers), '', 'all modes at once: nobody fails');
$_->quit foreach @writers;
settled($node, 'all modes at once: all is right');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET meritum_cache.refresh_mode');

# ----------------------------------------------------------------------
# Large changes
# ----------------------------------------------------------------------

stop_worker();
($out, $err) = run_sql($node, q(
	SET meritum_cache.commit_limit = 100;
	UPDATE claims SET state = 'ADJUSTED' WHERE physician_id = test.p(2)
	   AND state <> 'ADJUSTED';));
is($err, '', 'more than commit_limit: no warning');
my ($left, $settled) = split /\|/, $node->safe_psql('postgres', q(
	SELECT count(DISTINCT month),
		   (SELECT count(DISTINCT date_trunc('month', date_of_service)) FROM claims
			 WHERE physician_id = test.p(2))
	  FROM meritum_cache.pending_refresh WHERE provider_id = test.p(2)));
cmp_ok($left, '>', 0, 'the rest is left as notes');
cmp_ok($left, '<', $settled, 'and not everything');
is(wrong($node) ne '', 1, 'what is left is not right yet');
is($node->safe_psql('postgres', q(SELECT value ->> 'count' IS NOT NULL FROM
	meritum_get_metrics(test.p(2), '{claims_adjusted}', current_date - 400,
	current_date + 40) WHERE dimensions IS NULL LIMIT 1)), 't', 'a reader settles it');
is(pending($node, 'provider_id = test.p(2)'), '0', 'whatever the worker does');
start_worker();
settled($node, 'more than commit_limit: settled in the end');

my $rows = join('', map {
		sprintf("c1000000-0000-4000-8000-%012d\t%s\t%s\tPAID\t%s\n",
			$_, 'a0000000-0000-4000-8000-00000000000' . (1 + $_ % 4), 'AHCIP',
			sprintf('20%02d-%02d-%02d', 25 - $_ % 2, 1 + $_ % 12, 1 + $_ % 28))
	} 1 .. 20000);
($out, $err) = run_sql($node,
	"COPY claims (claim_id, physician_id, claim_type, state, date_of_service) FROM stdin;\n$rows\\.\n");
is($err, '', 'COPY of 20,000 claims');
is($node->safe_psql('postgres', "SELECT count(*) FROM claims WHERE claim_id::text LIKE 'c1%'"),
	'20000', 'all of them are there');
settled($node, 'COPY: all is right');

# ----------------------------------------------------------------------
# The worker ends
# ----------------------------------------------------------------------

my $worker = worker_pid($node);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
$node->safe_psql('postgres', q(
	SET meritum_cache.refresh_mode = async;
	UPDATE claims SET state = 'PAID' WHERE claim_id IN (test.c(50), test.c(51))));
settled($node, 'the worker is terminated: another one settles the notes');
isnt(worker_pid($node), $worker, 'it is another one');

$worker = worker_pid($node);
stop_worker();
$node->safe_psql('postgres', q(
	SET meritum_cache.refresh_mode = async;
	UPDATE claims SET state = 'PAID' WHERE claim_id IN (test.c(57), test.c(53))));
kill 'KILL', $worker;
ok($node->poll_query_until('postgres',
		"SELECT pg_postmaster_start_time() IS NOT NULL AND NOT EXISTS"
		  . " (SELECT FROM pg_stat_activity WHERE pid = $worker)"),
	'the worker is killed: the server comes back');
start_worker();
is($node->safe_psql('postgres', "SELECT count(*) FROM claims WHERE claim_id"
		  . " IN (test.c(57), test.c(53)) AND state = 'PAID'"),
	'2', 'with the claims');
wake_worker();
settled($node, 'and the notes get settled');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|segmentation|signal 11/i,
	'no process has crashed by itself');

done_testing();
