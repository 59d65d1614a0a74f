# get-metrics.pl: what it costs to read a dashboard through the function.
#
# A: SELECT of the rows of 14 metrics and twelve months of a random provider
# B: the same rows from meritum_get_metrics; nothing is pending

use strict;
use warnings FATAL => 'all';
use Bench;

row('get-metrics' => {
	what => 'meritum_get_metrics, 14 keys and 12 months',
	against => 'the bare indexed SELECT of the same rows; both prepared, 1 client',
	unit => 'ms',
	goal => '<= 1.3' });

my (undef, $attached) = reference();
setup(databases => { attached => $attached });
my ($keys, $start, $end) = dashboard();
my $id = provider_id(':provider');
my $select = "SELECT * FROM meritum_cache.analytics_cache WHERE provider_id = $id"
  . " AND metric_key = ANY ($keys) AND period_start >= $start AND period_end <= $end";
my $get = "SELECT * FROM meritum_get_metrics($id, $keys, $start, $end)";
my $choose = '\set provider ' . random_provider(150);

my ($rows, $same) = split /\|/, sql('attached', sprintf
	'SELECT (SELECT count(*) FROM (%1$s) AS a), NOT EXISTS (%1$s EXCEPT %2$s) AND NOT EXISTS (%2$s EXCEPT %1$s)',
	map { s/:provider/4/r } $select, $get);
die "the function and the SELECT return different rows\n" if $rows == 0 || $same ne 't';
note('rows of a provider', $rows);

compare('get-metrics',
	A => sub { pgbench('attached', seconds => 3, script => "$choose\n$select;\n")->{latency} },
	B => sub { pgbench('attached', seconds => 3, script => "$choose\n$get;\n")->{latency} });
