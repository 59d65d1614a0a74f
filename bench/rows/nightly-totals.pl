# nightly-totals.pl: the nightly batch without breakdowns.
#
# A: one GROUP BY over all claims and their details
# B: the batch on the same database, in one process; it writes every figure
#    of the trailing window anew

use strict;
use warnings FATAL => 'all';
use Bench;

row('nightly-totals' => {
	what => 'nightly batch, all metrics, totals only, 1 worker',
	against => 'one bare GROUP BY of the claims with their details',
	unit => 'ms',
	goal => '<= 2.0' });

my (undef, $attached) = reference();
setup(
	databases => { attached => $attached },
	settings => { 'meritum_cache.dimensions' => '' });
my $session = session('attached');

compare('nightly-totals',
	A => sub { $session->time(group_by()) },
	B => sub { nightly($session) });
