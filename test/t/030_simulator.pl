# 030_simulator.pl: the claims of a patient simulator against the oracle.
#
# Loads the tables that the simulator's export has, and no others, attaches
# them, refreshes every provider as of the end of the data, and compares every
# row of the cache with test/support/oracle.sql, both ways.
#
# Environment:
#   MERITUM_SIMULATOR_DATA  the folder of the CSV files (default:
#                           ../shared/data/synthea beside the repository);
#                           without it the test is skipped

use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $data = $ENV{MERITUM_SIMULATOR_DATA}
  // "$FindBin::Bin/../../../shared/data/synthea";
plan skip_all => "no simulator data in $data (see MERITUM_SIMULATOR_DATA)"
  unless -r "$data/claims.csv";

my @tables = qw(providers patients practice_locations claims
  ahcip_claim_details);
my $tables = "'{" . join(',', @tables) . "}'";
my $as_of = '2021-12-31';
my $zone = 'America/Edmonton';

my $node = PostgreSQL::Test::Cluster->new('simulator');
$node->init;
$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'meritum_cache'
timezone = '$zone'
meritum_cache.databases = 'postgres'
meritum_cache.timezone = '$zone'
});
$node->start;
$node->safe_psql('postgres',
	"CREATE DATABASE platform TEMPLATE template0 ENCODING 'UTF8'");
for my $file ('platform.sql', 'oracle.sql')
{
	$node->safe_psql('platform', slurp_file("$FindBin::Bin/../support/$file"));
}

# Attaching finds tables by their names, so those without data must go.
$node->safe_psql('platform', "DO \$\$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY oracle.all_tables() LOOP
        IF v_table <> ALL (${tables}::text[]) THEN
            EXECUTE format('DROP TABLE %I', v_table);
        END IF;
    END LOOP;
END\$\$");

# The first line of each file names its columns.
for my $table (@tables)
{
	my $content = slurp_file("$data/$table.csv");
	my ($columns) = $content =~ /\A([a-z_,]+)\r?\n/
	  or die "no column names in $data/$table.csv";
	$content .= "\n" unless $content =~ /\n\z/;
	$node->safe_psql('platform',
		"COPY $table ($columns) FROM stdin WITH (FORMAT csv, HEADER);\n"
		  . "$content\\.\n");
}
my $claims = $node->safe_psql('platform', 'SELECT count(*) FROM claims');
cmp_ok($claims, '>', 0, "loaded $claims claims");

$node->safe_psql('platform', 'CREATE EXTENSION meritum_cache');
$node->safe_psql('platform', 'SELECT * FROM meritum_attach()');

my $result = $node->safe_psql('platform',
	"CALL meritum_refresh_all_providers(as_of => '$as_of')");
my ($processed, undef, $errors) = split /\|/, $result;
is($processed,
	$node->safe_psql('platform',
		"SELECT count(*) FROM providers WHERE status = 'ACTIVE'"),
	'every active provider was refreshed');
is($errors, '[]', 'no provider failed');

# Figures of the whole platform, so that two empty sides cannot agree.
my $paid = "SELECT sum((value ->> 'count')::integer) FROM %s"
  . " WHERE metric_key = 'claims_paid' AND dimensions IS NULL";
my $expected = $node->safe_psql('platform',
	"SELECT count(*) FROM claims WHERE state = 'PAID' AND date_of_service"
	  . " BETWEEN date '$as_of' - 364 AND '$as_of'");
is($node->safe_psql('platform',
		sprintf($paid, 'meritum_cache.analytics_cache')),
	$expected, "the cache counts the $expected paid claims of the year");

my $everyone = 'ARRAY(SELECT provider_id FROM providers)';
my $difference = $node->safe_psql('platform',
	"SELECT * FROM oracle.diff($everyone, oracle.months('$as_of'), '$as_of',"
	  . " '$zone', $tables) LIMIT 20");
is($difference, '', 'every row of the trailing window is as expected');

my $elsewhere = $node->safe_psql('platform',
	'SELECT count(*) FROM meritum_cache.analytics_cache'
	  . " WHERE period_end > '$as_of' OR period_start < '2021-01-01'");
is($elsewhere, 0, 'no row outside the trailing window');

$node->stop;
done_testing();
