# is-stale.pl: what it costs to ask whether a provider is stale.
#
# A: SELECT 1, prepared
# B: SELECT meritum_is_stale of a random provider, prepared

use strict;
use warnings FATAL => 'all';
use Bench;

row('is-stale' => {
	what => 'meritum_is_stale',
	against => 'SELECT 1; both prepared, 1 client',
	unit => 'ms',
	goal => '<= 1.3' });

my (undef, $attached) = reference();
setup(databases => { attached => $attached });
my $id = provider_id(':provider');
my $choose = '\set provider ' . random_provider(150);

compare('is-stale',
	A => sub { pgbench('attached', seconds => 3, script => "$choose\nSELECT 1;\n")->{latency} },
	B => sub { pgbench('attached', seconds => 3, script => "$choose\nSELECT meritum_is_stale($id);\n")->{latency} });
