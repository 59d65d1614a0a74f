# environment.pl: says what is measured, where, and under which settings, and
# writes that as the first line of the results.

use strict;
use warnings FATAL => 'all';
use Bench;

sub one_line
{
	my ($file, $pattern) = @_;
	return read_file($file) =~ $pattern ? $1 : '';
}

my %settings = map { split /\|/, $_, 2 } split /\n/, sql('postgres', <<~'SQL');
	SELECT name, current_setting(name) FROM pg_settings
	WHERE name IN ('fsync', 'shared_buffers', 'work_mem', 'max_wal_size', 'wal_level',
	               'max_parallel_workers_per_gather', 'jit', 'autovacuum', 'TimeZone')
	ORDER BY name
	SQL
my %line = (
	kind => 'environment',
	started => sql('postgres', q(SELECT to_char(now(), 'YYYY-MM-DD HH24:MI TZ'))),
	server => sql('postgres', 'SHOW server_version'),
	commit => $ENV{BENCH_COMMIT},
	cores => $ENV{BENCH_CORES},
	processor => one_line('/proc/cpuinfo', qr/^model name\s*:\s*(.*)/m),
	memory_mb => int(one_line('/proc/meminfo', qr/^MemTotal:\s+(\d+)/m) / 1024),
	load => $ENV{BENCH_LOAD},
	providers => option('PROVIDERS'),
	months => option('MONTHS'),
	scale => option('SCALE'),
	seconds => option('SECONDS'),
	smoke => option('SMOKE'),
	settings => \%settings);

print "PostgreSQL $line{server}, $line{cores} cores ($line{processor}), $line{memory_mb} MB\n";
print 'meritum_cache ', $line{commit} || 'of no known commit', ", $line{started}\n";
print 'settings: ', join(', ', map { "$_ = $settings{$_}" } sort keys %settings),
  "; each row names what it changes\n";
print "reference data: $line{providers} providers, $line{months} months",
  $line{scale} == 1 ? '' : ", claims times $line{scale}", "\n";
print "THIS IS NOT THE REFERENCE DATA (200 providers): ratios may differ\n"
  if $line{providers} != 200 || $line{scale} != 1;
if ($line{load} > 0.25 * $line{cores})
{
	print "THE MACHINE WAS LOADED: load average $line{load} at the start; figures that are times are worth little\n";
}
else
{
	print "load average $line{load} at the start\n";
}

append(\%line);
