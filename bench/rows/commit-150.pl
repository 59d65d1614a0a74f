# commit-150.pl: what the update of a claim's state pays in commit mode.
#
# A: random claims of providers with 150 claims a month get a new state, one
#    claim a transaction; the tables are not attached
# B: the same on attached tables, where each commit refreshes the figures

use strict;
use warnings FATAL => 'all';
use Bench;

row(
	'commit-150' => {
		what => 'single-claim state update, commit mode, 150 claims/month',
		against => 'the same without the extension, 2 clients, synchronous_commit off',
		unit => 'transactions/s',
		goal => '>= 0.30' },
	'commit-150-durable' => {
		what => 'the same with synchronous_commit on',
		against => 'the same without the extension, 2 clients, synchronous_commit on',
		unit => 'transactions/s',
		goal => '>= 0.60' });

my ($plain, $attached) = reference();
setup(databases => { plain => $plain, attached => $attached });

foreach my $durable ('off', 'on')
{
	my %load = (
		clients => 2,
		script => claim_update(150),
		rows_of => 'claims',
		settings => { synchronous_commit => $durable });
	compare($durable eq 'on' ? 'commit-150-durable' : 'commit-150',
		A => sub { pgbench('plain', %load)->{tps} },
		B => sub { pgbench('attached', %load)->{tps} });
}
