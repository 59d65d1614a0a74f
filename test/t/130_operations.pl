# 130_operations.pl: what docs/operations.md tells to paste can be pasted.
#
# Each block of SQL is run as it is, in the order of the page and in a session
# of its own; the variable provider is set, as the page asks for.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = platform_server('operations');
my $page = slurp_file("$FindBin::Bin/../../docs/operations.md");
my $provider = 'a0000000-0000-4000-8000-000000000001';
my @found = $page =~ /^(#+ [^\n]*)\n|^```sql\n(.*?)^```$/msg;
my %output;
my %block;
my $heading = '';
my $n = 0;

# Something to look at: a provider that is parked, another that is pending.
$node->safe_psql('postgres', q(
	UPDATE meritum_cache.job SET enabled = false;
	ALTER TABLE meritum_cache.analytics_cache ADD CONSTRAINT hostile
		CHECK (provider_id <> test.p(1)) NOT VALID;
	UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(4);
	UPDATE meritum_cache.pending_refresh SET attempts = 10, next_attempt_at = 'infinity';
	ALTER TABLE meritum_cache.analytics_cache DROP CONSTRAINT hostile;
	UPDATE meritum_cache.provider_state SET drift = 1 WHERE provider_id = test.p(2);));
is(pending($node, 'attempts >= 10'), '1', 'a provider is parked');

# notices are no trouble
local $ENV{PGOPTIONS} = '-c client_min_messages=warning';
while (my ($title, $sql) = splice @found, 0, 2)
{
	if (defined $title)
	{
		($heading = $title) =~ s/^#+ //;
		next;
	}
	my ($code, $out, $err) = $node->psql(
		'postgres', $sql,
		on_error_stop => 1,
		extra_params => [ '-v', "provider=$provider", '-v', 'ON_ERROR_STOP=1' ]);

	$n++;
	is("$code $err", '0 ', "$heading: block $n");
	$output{$heading} .= $out;
	push @{ $block{$heading} }, $sql;

	# to look takes no more than the page says
	if ($heading eq 'Waiting for locks')
	{
		foreach my $look (@{ $block{'One look'} }, $block{MeritumCacheWorkerMissing}[0],
			$block{MeritumCachePendingOld}[0], $block{MeritumCacheDrift}[0],
			$block{'Stale dashboards'}[1], $sql)
		{
			($code, $out, $err) = $node->psql(
				'postgres', "SET ROLE on_call; $look",
				on_error_stop => 1,
				extra_params => [ '-v', "provider=$provider", '-v', 'ON_ERROR_STOP=1' ]);
			is("$code $err", '0 ', 'who is on call may ' . substr($look, 0, 40));
		}
	}

	# the page promises that this is all that it takes
	settled($node, 'what was parked is right again')
	  if $heading eq 'MeritumCacheParked' && $sql =~ /refresh_provider_metrics/;
	is( $node->safe_psql('postgres', q(
			SELECT string_agg(DISTINCT tgenabled::text, '') FROM pg_trigger WHERE tgname LIKE 'meritum\_cache%')),
		'A', 'all triggers are enabled always')
	  if $heading eq 'Logical replication';
}
cmp_ok($n, '>', 15, 'the page has its blocks');

like($output{'One look'}, qr/^$provider\|.*\|10\|23514\|/m, 'one look shows what is parked');
like($output{'MeritumCacheDrift'}, qr/000000000002\|1$/m, 'drift shows');
is( $node->safe_psql('postgres', q(
		SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'meritum\_cache%')),
	'0', 'at the end no trigger is left');
is( $node->safe_psql('postgres', q(
		SELECT count(*) FROM pg_namespace WHERE nspname = 'meritum_cache')),
	'0', 'nor anything else');

# Each alert has its section.
my @alerts = slurp_file("$FindBin::Bin/../../examples/prometheus/alerts.yaml") =~ /alert: (\w+)/g;
is(join(' ', grep { $page !~ /^### .*\b$_\b/m } @alerts), '', 'every alert is explained');

# Whatever it sends the reader to is there.
sub anchor
{
	my $title = lc shift;

	$title =~ s/[^\w -]//g;
	return $title =~ tr/ /-/r;
}
my %anchor = map { (anchor($_) => 1) } $page =~ /^#+ (.*)$/mg;
is(join(' ', grep { !$anchor{$_} } $page =~ /\]\(#([^)]*)\)/g), '', 'every section that is named exists');
is(join(' ', grep { !-e "$FindBin::Bin/../../docs/$_" } $page =~ /\]\(([^#)][^)]*)\)/g),
	'', 'every page that is named exists');

# What it quotes of the log is what the log says: ours, or the server's.
my $sources = join '', map { slurp_file($_) } glob("$FindBin::Bin/../../src/*.c");
my ($seen) = $page =~ /^## What do you see\?\n(.*?)^## /ms;
my @quoted = map { /`([^`]*)`/g } $seen =~ /the log: ([^|]*)\|/g;
is(join("\n", grep {
			my $pattern = join '\S+', map { quotemeta(s/"/\\"/gr) } split /…/;
			!/^could not access file/ && $sources !~ /$pattern/;
		} @quoted),
	'', 'every message of the log exists');
cmp_ok(scalar @quoted, '>=', 5, 'there are some');

$node->stop;
done_testing();
