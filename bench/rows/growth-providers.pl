# growth-providers.pl: how cost grows with the number of providers.
#
# Databases with 10 to 10,000 providers that have few claims each (less, if the
# reference data are smaller).  In each: updates of single claims of the same
# ten providers in commit mode (one client, synchronous_commit off),
# meritum_is_stale and a dashboard of them, and the nightly batch by provider.
#
# flat: A is the update with the fewest providers, B that with the most.

use strict;
use warnings FATAL => 'all';
use Bench;

my @sizes = option('SMOKE') ? (10, 20)
  : grep { $_ <= 50 * option('PROVIDERS') } 10, 100, 1000, 10000;
my ($least, $most) = @sizes[ 0, -1 ];
my %unit = (unit => 'ms', x => 'providers in the database');
row(
	'flat' => {
		what => "refresh of one claim at commit, $most providers in the database",
		against => "$least providers",
		unit => 'ms',
		goal => '<= 1.1' },
	'providers-commit' => { what => 'update of a claim, commit mode', %unit },
	'providers-stale' => { what => 'meritum_is_stale', %unit },
	'providers-read' => { what => 'meritum_get_metrics, 14 keys and 12 months', %unit },
	'providers-batch' => { what => 'nightly batch, each provider', %unit });

my %database = map { $_ => wide($_) } @sizes;
setup(settings => { synchronous_commit => 'off' });

my ($keys, $start, $end) = dashboard();
my $id = provider_id(':provider');
my $choose = '\set provider random(1, 10)';
my $update = wide_update();
my %short = (seconds => 0.4 * option('SECONDS'));

compare('flat',
	repetitions => 5,
	A => sub { pgbench($database{$least}, script => $update, rows_of => 'claims')->{latency} },
	B => sub { pgbench($database{$most}, script => $update, rows_of => 'claims')->{latency} });

my %points;
foreach my $size (@sizes)
{
	my %measure = (
		'providers-commit' => sub { pgbench($database{$size}, %short, script => $update)->{latency} },
		'providers-stale' => sub { pgbench($database{$size}, %short, script => "$choose\nSELECT meritum_is_stale($id);\n")->{latency} },
		'providers-read' => sub {
			pgbench($database{$size}, %short,
				script => "$choose\nSELECT * FROM meritum_get_metrics($id, $keys, $start, $end);\n")->{latency};
		},
		'providers-batch' => sub {
			my $session = session($database{$size});
			my $ms = nightly($session);
			my $providers = $session->ask('SELECT providers_done FROM meritum_cache.job_run ORDER BY run_id DESC LIMIT 1');
			$session->close;
			return $ms / $providers;
		});
	push @{ $points{$_} }, [ $size, $measure{$_}->() ] foreach sort keys %measure;
}
series($_, @{ $points{$_} }) foreach sort keys %points;
