# compute.pl: what it costs to compute figures that are not in the cache.
#
# meritum_compute_metrics of the dashboard's 14 metrics over one year of a
# provider with 300 claims a month (3,600 facts), filtered by pathway and BA

use strict;
use warnings FATAL => 'all';
use Bench;

row('compute' => {
	what => 'meritum_compute_metrics, 14 keys, one year, two filters, 3,600 facts',
	unit => 'ms',
	goal => '<= 5 ms' });

my (undef, $attached) = reference();
setup(databases => { attached => $attached });
my ($keys, $start, $end) = dashboard();
my $choose = '\set provider ' . random_provider(300);
my $id = provider_id(':provider');

value('compute',
	B => sub {
		pgbench('attached', seconds => 3, script => <<~SQL)->{latency};
			$choose
			SELECT * FROM meritum_compute_metrics($id, $keys, $start, $end,
				jsonb_build_object('claim_type', 'AHCIP', 'ba_number', 'BA' || lpad((2 * :provider)::text, 5, '0')));
			SQL
	});
