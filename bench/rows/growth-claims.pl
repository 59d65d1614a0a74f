# growth-claims.pl: how cost grows with the claims of a provider.
#
# Providers with 150 to 5,000 claims a month, one of each.  For each: updates
# of single claims with one client and synchronous_commit off, without the
# extension, in commit mode and in async mode with the worker off; a refresh
# of the whole provider; a dashboard.

use strict;
use warnings FATAL => 'all';
use Bench;

my %unit = (unit => 'ms', x => 'claims a month of the provider');
row(
	'claims-plain' => { what => 'update of a claim without the extension', %unit },
	'claims-async' => { what => 'update of a claim, async mode', %unit },
	'claims-commit' => { what => 'update of a claim, commit mode', %unit },
	'claims-refresh' => { what => 'refresh of all figures of the provider', %unit },
	'claims-read' => { what => 'meritum_get_metrics, 14 keys and 12 months', %unit });

my @volumes = option('SMOKE') ? (5, 10) : (150, 300, 600, 1200, 2500, 5000);
my $months = option('MONTHS');
# seeds make the providers; see plain()
my %seed = map { $volumes[$_] => 100 + $_ } 0 .. $#volumes;
my $plain = plain('claims_plain', map { [ $seed{$_}, 1, $months, $_ / 300 ] } @volumes);
my $attached = attached('claims_attached', $plain);
setup(
	databases => { plain => $plain, attached => $attached },
	settings => { synchronous_commit => 'off' });
my ($keys, $start, $end) = dashboard();

my %points;
foreach my $volume (@volumes)
{
	my $id = provider_id(1, $seed{$volume});
	my %load = (
		seconds => 0.4 * option('SECONDS'),
		script => claim_update($volume,
			provider => '1', seed => $seed{$volume}, claims => max(1, int($volume * 0.9))));
	my %measure = (
		'claims-plain' => sub { pgbench('plain', %load)->{latency} },
		'claims-async' => sub { pgbench('attached', %load, settings => { 'meritum_cache.refresh_mode' => 'async' })->{latency} },
		'claims-commit' => sub { pgbench('attached', %load)->{latency} },
		'claims-refresh' => sub { pgbench('attached', %load, script => "SELECT meritum_refresh_provider_metrics($id);\n")->{latency} },
		'claims-read' => sub { pgbench('attached', %load, script => "SELECT * FROM meritum_get_metrics($id, $keys, $start, $end);\n")->{latency} });
	# async leaves notes, that a reader would settle
	foreach my $name (qw(claims-plain claims-commit claims-refresh claims-read claims-async))
	{
		push @{ $points{$name} }, [ $volume, $measure{$name}->() ];
	}
}
series($_, @{ $points{$_} }) foreach sort keys %points;
