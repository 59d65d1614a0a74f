# 090_batch.pl: the nightly batch beside other sessions.
#
# It gives way to whoever waits for a provider that it has refreshed.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $providers = 12;
my $node = platform_server('batch', providers => $providers);

# Providers in the order of their locks, in which the batch takes them.
my @order = split /\n/, $node->safe_psql('postgres', qq(
	SELECT n FROM generate_series(1, $providers) AS n
	 ORDER BY uuid_hash(test.p(n))::bigint & 4294967295));

# Make whoever refreshes a provider stand still in the middle of it.
sub block_cells
{
	my ($session, $n) = @_;

	$session->query_safe(qq(
		BEGIN;
		SELECT count(*) FROM (SELECT FROM meritum_cache.analytics_cache
							   WHERE provider_id = test.p($n) FOR UPDATE) AS c));
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
	my ($arguments, @settings) = @_;
	my $batch = session($node);
	my $pid = $batch->query_safe('SELECT pg_backend_pid()');

	$batch->query_safe($_) foreach @settings;
	finish_later($batch, "CALL meritum_refresh_all_providers($arguments)");
	return ($batch, $pid);
}

sub end_batch
{
	my ($batch, $name) = @_;
	my $result = $batch->query_until(qr/finished/, '');

	like($result, qr/^\d+\|\d+\|\[\]$/m, "$name: the batch succeeds");
	$batch->quit;
	return;
}

# ----------------------------------------------------------------------
# Giving way
# ----------------------------------------------------------------------

{
	my $name = 'a claim that waits for the batch';
	my ($third, $fourth, $writer) = map { session($node) } 1 .. 3;
	my $writer_pid = $writer->query_safe('SELECT pg_backend_pid()');

	block_cells($third, $order[2]);
	block_cells($fourth, $order[3]);
	my ($batch, $pid) = start_batch(1000);
	ok(waiting_for($node, $pid), "$name: the batch is at the third provider");

	# so that it does not leave a note
	$writer->query_safe("SET deadlock_timeout = '600s'");
	finish_later($writer, change_claim($order[0]));
	ok(waiting_for($node, $writer_pid, "locktype = 'object'"),
		"$name: a claim of the first waits");
	$third->query_safe('COMMIT');
	$writer->query_until(qr/finished/, '');
	is($writer->{stderr}, '', "$name: it commits");
	ok(waiting_for($node, $pid), "$name: with the batch at the fourth");
	$fourth->query_safe('COMMIT');
	end_batch($batch, $name);
	$_->quit foreach $third, $fourth, $writer;
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
	is( $node->safe_psql('postgres',
			'SELECT max(providers_done) FROM meritum_cache.job_run WHERE status = \'running\''),
		6, "$name: has committed the six before");
	$holder->query_safe('COMMIT');
	$holder->quit;
	end_batch($batch, $name);
}

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|segmentation|signal 11/i,
	'no process has crashed');

done_testing();
