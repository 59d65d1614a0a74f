# commit-1200.pl: as commit-150, for providers with 1,200 claims a month.

use strict;
use warnings FATAL => 'all';
use Bench;

row('commit-1200' => {
	what => 'single-claim state update, commit mode, 1,200 claims/month',
	against => 'the same without the extension, 2 clients, synchronous_commit off',
	unit => 'transactions/s',
	goal => '>= 0.12' });

my ($plain, $attached) = reference();
setup(
	databases => { plain => $plain, attached => $attached },
	settings => { synchronous_commit => 'off' });

my %load = (clients => 2, script => claim_update(1200), rows_of => 'claims');

compare('commit-1200',
	A => sub { pgbench('plain', %load)->{tps} },
	B => sub { pgbench('attached', %load)->{tps} });
