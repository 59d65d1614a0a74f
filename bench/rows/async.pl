# async.pl: what the update of a claim's state pays when the worker refreshes.
#
# A: random claims of providers with 150 claims a month get a new state, one
#    claim a transaction; the tables are not attached
# B: the same on attached tables in async mode, while the worker settles what
#    that leaves, on the same cores

use strict;
use warnings FATAL => 'all';
use Bench;

row('async' => {
	what => 'single-claim state update, async mode, worker running',
	against => 'the same without the extension, 2 clients, synchronous_commit off',
	unit => 'transactions/s',
	goal => '>= 0.90' });

my ($plain, $attached) = reference();
setup(
	databases => { plain => $plain, attached => $attached },
	settings => { 'meritum_cache.databases' => 'attached', synchronous_commit => 'off' });

my %load = (clients => 2, script => claim_update(150), rows_of => 'claims');
my @backlog;

compare('async',
	A => sub { pgbench('plain', %load)->{tps} },
	B => sub {
		my $run = pgbench('attached', %load, settings => { 'meritum_cache.refresh_mode' => 'async' });
		push @backlog, wait_settled('attached');
		note('seconds until the worker had settled the rest', sprintf '%.1f', median(@backlog));
		return $run->{tps};
	});
