# 125_exporter.pl: examples/prometheus/queries.yaml with the Prometheus
# PostgreSQL exporter itself.
#
# Environment:
#   MERITUM_EXPORTER  the exporter (default: prometheus-postgres-exporter or
#                     postgres_exporter in PATH; skipped if there is none)
#
# With promtool in PATH the rules of alerts.yaml are tested too.

use strict;
use warnings FATAL => 'all';

use FindBin;
use HTTP::Tiny;
use IPC::Run;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my ($exporter) = grep { defined && -x } $ENV{MERITUM_EXPORTER},
  map { ("$_/prometheus-postgres-exporter", "$_/postgres_exporter") } split /:/, $ENV{PATH};
plan skip_all => 'no prometheus-postgres-exporter' unless defined $exporter;

my $queries = "$FindBin::Bin/../../examples/prometheus/queries.yaml";
my $node = platform_server('exporter');
my $figures = slurp_file($queries);

# The role has the rights that the file tells to grant, and no others.
my ($grants) = $figures =~ /^((?:#   (?:CREATE ROLE|GRANT|SELECT) .*\n)+)/m;
$grants =~ s/^#//mg;
$node->safe_psql('postgres', $grants);

# Something to tell of
$node->safe_psql('postgres', q(
	UPDATE meritum_cache.job SET enabled = name = 'cleanup';
	UPDATE claims SET state = 'REJECTED' WHERE claim_id = test.c(1);
	UPDATE meritum_cache.provider_state SET drift = 7 WHERE provider_id = test.p(3);
	ALTER TABLE meritum_cache.analytics_cache ADD CONSTRAINT hostile
		CHECK (provider_id <> test.p(1)) NOT VALID;
	UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(4);
	UPDATE meritum_cache.pending_refresh SET attempts = 10, next_attempt_at = 'infinity';
	INSERT INTO meritum_cache.pending_refresh
		   (provider_id, scope, cause, created_at, attempts, next_attempt_at)
	VALUES (test.p(3), 'provider', 'claim trigger', now() - interval '10 minutes', 3,
			now() + interval '1 hour')));
my $run = $node->safe_psql('postgres', q(
	SELECT meritum_schedule('fails', '0 0 1 1 *', 'SELECT 1 / 0');
	SELECT meritum_run_job('fails'))) =~ s/\s//gr;
wait_for($node, "SELECT finished_at IS NOT NULL FROM meritum_cache.job_run WHERE run_id = $run",
	'a job has failed');

my $port = PostgreSQL::Test::Cluster::get_free_port();
my ($out, $err) = ('', '');
local $ENV{DATA_SOURCE_NAME} =
  'user=exporter dbname=postgres sslmode=disable host=' . $node->host . ' port=' . $node->port;
my $process = IPC::Run::start(
	[   $exporter, "--web.listen-address=127.0.0.1:$port", "--extend.query-path=$queries",
		'--disable-default-metrics', '--disable-settings-metrics' ],
	'<', \undef, '>', \$out, '2>', \$err);

my $page = '';
foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	my $answer = HTTP::Tiny->new(timeout => 10)->get("http://127.0.0.1:$port/metrics");
	$page = $answer->{content} if $answer->{success};
	last if $page =~ /^meritum_cache_/m || !$process->pumpable;
	usleep(100_000);
}
$process->signal('TERM');
$process->finish;
unlike($err, qr/level=error/i, 'the exporter has nothing to complain of') or diag($err);
like($page, qr/^pg_exporter_last_scrape_error 0$/m, 'nor has its own metric');

# Everything that the file names is there.
my %type;
my $query;
foreach (split /\n/, $figures)
{
	$query = $1 if /^(\w+):$/;
	$type{"${query}_$1"} = lc $2 if /^    - (\w+): \{usage: (COUNTER|GAUGE), description: \S/;
}
cmp_ok(scalar keys %type, '>', 20, 'the file names metrics');
is( join(' ', grep { $page !~ /^# TYPE $_ $type{$_}$/m } sort keys %type),
	'', 'each of them is delivered with its type');
is(join(' ', $page =~ /^(meritum_cache_\w+\{.*\} NaN)$/mg), '', 'and has a value');

# And is right.
sub value
{
	my ($metric, %label) = @_;

	foreach ($page =~ /^\Q$metric\E(\{.*)$/mg)
	{
		my $line = $_;
		next if grep { $line !~ /\b$_="\Q$label{$_}\E"/ } keys %label;
		return $1 + 0 if $line =~ / (\S+)$/;
	}
	return 'none';
}

my %label = (datname => 'postgres');
is(value('meritum_cache_refresh_total', %label, cause => 'nightly'), 4, 'refreshes by cause');
is(value('meritum_cache_refresh_total', %label, cause => 'claim trigger'), 1, 'of both kinds');
is(value('meritum_cache_refresh_errors_total', %label, cause => 'claim trigger'), 1, 'errors');
cmp_ok(value('meritum_cache_refresh_seconds_total', %label, cause => 'nightly'), '<', 600, 'seconds are seconds');
cmp_ok(value('meritum_cache_refresh_seconds_total', %label, cause => 'nightly'), '>', 0, 'and some');
is(value('meritum_cache_providers_known', %label), 4, 'providers');
is(value('meritum_cache_providers_drift_total', %label), 7, 'drift');
is(value('meritum_cache_pending_notes', %label), 1, 'notes that are tried again');
cmp_ok(value('meritum_cache_pending_oldest_seconds', %label), '>=', 600, 'their age');
is(value('meritum_cache_pending_parked', %label), 1, 'parked providers');
is(value('meritum_cache_worker_running', %label), 1, 'the worker');
is(value('meritum_cache_worker_expected', %label), 1, 'which there should be');
is(value('meritum_cache_job_failed', %label, job_name => 'fails'), 1, 'a job that failed');
is(value('meritum_cache_job_enabled', %label, job_name => 'nightly_refresh'), 0, 'a job that is disabled');
cmp_ok(abs(value('meritum_cache_job_last_success_timestamp_seconds', %label, job_name => 'nightly_refresh') - time),
	'<', 600, 'when the batch succeeded');
cmp_ok(value('meritum_cache_size_bytes', %label, relation => 'analytics_cache'), '>', 0, 'sizes');
unlike($page, qr/a0000000-0000/, 'no provider is named');

# The alerts fire when they should: what Prometheus's own tool finds.
SKIP:
{
	skip 'no promtool', 1 unless grep { -x "$_/promtool" } split /:/, $ENV{PATH};
	command_ok([ 'promtool', 'test', 'rules', "$FindBin::Bin/../support/alerts.yaml" ],
		'the alerts fire when they should');
}

# The alerts are about metrics that there are.
my %alerted = map { $_ => 1 } slurp_file("$FindBin::Bin/../../examples/prometheus/alerts.yaml") =~ /\b(meritum_cache_[a-z_]+)\b/g;
is(join(' ', grep { !$type{$_} } sort keys %alerted), '', 'the alerts name metrics that are delivered');

$node->stop;
done_testing();
