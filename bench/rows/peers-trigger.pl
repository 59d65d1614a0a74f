# peers-trigger.pl: what a trigger costs that does the same in PL/pgSQL.
#
# A: random claims get a new state, one a transaction, on untouched tables
# B: the same with the trigger of bench/peers.sql, which recomputes eight
#    metrics of the claim's provider and month in one pass and writes them with
#    one upsert.  Under concurrency it is wrong.

use strict;
use warnings FATAL => 'all';
use Bench;

row(
	'trigger-150' => {
		what => 'PL/pgSQL trigger, eight metrics, state update, 150 claims/month',
		against => 'untouched tables, 2 clients, synchronous_commit off',
		unit => 'transactions/s' },
	'trigger-1200' => {
		what => 'the same, 1,200 claims/month',
		against => 'untouched tables, 2 clients, synchronous_commit off',
		unit => 'transactions/s' });

my ($plain) = reference();
setup(
	databases => { plain => $plain, peer => $plain },
	settings => { synchronous_commit => 'off' });
sql('peer', peers_sql('trigger'));

foreach my $per_month (150, 1200)
{
	my %load = (clients => 2, script => claim_update($per_month), rows_of => 'claims');
	compare("trigger-$per_month",
		repetitions => 2,
		A => sub { pgbench('plain', %load)->{tps} },
		B => sub { pgbench('peer', %load)->{tps} });
}
