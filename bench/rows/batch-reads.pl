# batch-reads.pl: whether dashboards notice the nightly batch.
#
# A: 50 dashboards a second of random providers (14 metrics, 12 months, one
#    client) with nothing else going on; 99th percentile of their time
# B: the same while the nightly batch runs again and again

use strict;
use warnings FATAL => 'all';
use Bench;

row('batch-reads' => {
	what => 'meritum_get_metrics during the nightly batch, 99th percentile',
	against => 'the same without the batch; 50 reads a second',
	unit => 'ms' });

my (undef, $attached) = reference();
setup(databases => { attached => $attached });
my ($keys, $start, $end) = dashboard();
my $id = provider_id(':provider');
my %load = (
	rate => 50,
	seconds => 2 * option('SECONDS'),
	latencies => 1,
	script => '\set provider ' . random_provider(150)
	  . "\nSELECT * FROM meritum_get_metrics($id, $keys, $start, $end);\n");
my $session = session('attached');

compare('batch-reads',
	A => sub { percentile(99, @{ pgbench('attached', %load)->{latencies} }) },
	B => sub {
		percentile(99, @{ pgbench('attached', %load, beside => sub { nightly($session) })->{latencies} });
	});
