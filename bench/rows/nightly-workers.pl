# nightly-workers.pl: whether two processes share the nightly batch.
#
# A: the nightly batch with meritum_cache.batch_workers = 1
# B: the same with 2

use strict;
use warnings FATAL => 'all';
use Bench;

row('nightly-workers' => {
	what => 'nightly batch, 2 workers',
	against => '1 worker',
	unit => 'ms',
	goal => '<= 0.6' });

my (undef, $attached) = reference();
setup(
	databases => { attached => $attached },
	settings => { 'meritum_cache.databases' => 'attached' });
if (sql('attached', "SELECT count(*) FROM pg_settings WHERE name = 'meritum_cache.batch_workers'") eq '0')
{
	not_available('nightly-workers', 'there is no setting meritum_cache.batch_workers');
	exit;
}

sub batch
{
	my ($workers) = @_;
	setup(settings => { 'meritum_cache.databases' => 'attached', 'meritum_cache.batch_workers' => $workers });
	my $session = session('attached');
	my $ms = nightly($session);
	$session->close;
	return $ms;
}

compare('nightly-workers',
	A => sub { batch(1) },
	B => sub { batch(2) });
