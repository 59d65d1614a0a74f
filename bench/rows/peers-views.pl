# peers-views.pl: what materialized views cost for the nightly batch.
#
# A: one GROUP BY over all claims and their details
# B: REFRESH MATERIALIZED VIEW of the 14 views of bench/peers.sql, the
#    dashboard's metrics without breakdowns; plain and CONCURRENTLY

use strict;
use warnings FATAL => 'all';
use Bench;

row(
	'views' => {
		what => '14 materialized views, REFRESH',
		against => 'one bare GROUP BY of the claims with their details',
		unit => 'ms' },
	'views-concurrently' => {
		what => '14 materialized views, REFRESH CONCURRENTLY',
		against => 'one bare GROUP BY of the claims with their details',
		unit => 'ms' });

my ($plain) = reference();
setup(databases => { peer => $plain });
sql('peer', peers_sql('views'));
sql('peer', 'VACUUM (ANALYZE)');
my $session = session('peer');
my @views = split /\n/, $session->ask(
	q(SELECT oid::regclass FROM pg_class WHERE relkind = 'm' ORDER BY relname));
die scalar @views . " views\n" if @views != 14;

sub refresh
{
	my ($how) = @_;
	return sum0(map { $session->time("REFRESH MATERIALIZED VIEW $how $_") } @views);
}

compare('views',
	repetitions => 2, cold => 1,
	A => sub { $session->time(group_by()) },
	B => sub { refresh('') });
compare('views-concurrently',
	repetitions => 2, cold => 1,
	A => sub { $session->time(group_by()) },
	B => sub { refresh('CONCURRENTLY') });
