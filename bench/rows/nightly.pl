# nightly.pl: the nightly batch with the default breakdowns.
#
# A: one GROUP BY over all claims and their details
# B: the batch on the same database, in one process; it writes every figure
#    of the trailing window anew

use strict;
use warnings FATAL => 'all';
use Bench;

row('nightly' => {
	what => 'nightly batch, all metrics with the default breakdowns, 1 worker',
	against => 'one bare GROUP BY of the claims with their details',
	unit => 'ms',
	goal => '<= 3.5' });

my (undef, $attached) = reference();
setup(databases => { attached => $attached });
my $session = session('attached');

compare('nightly',
	A => sub { $session->time(group_by()) },
	B => sub { nightly($session) });
