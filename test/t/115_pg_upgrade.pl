# pg_upgrade from an older major version: figures, notes, jobs and all else are
# carried as they are, and go on to be right.
#
# MERITUM_OLD_BINDIR is the folder of the older server's programs, with the
# extension installed there; scripts/check sets it if it finds one.

use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$FindBin::Bin/../support";
use Platform;

my $old_bin = $ENV{MERITUM_OLD_BINDIR};
if (!$old_bin)
{
	plan skip_all => 'no older server is installed (MERITUM_OLD_BINDIR)';
}
my ($new_bin) = run_command([ 'pg_config', '--bindir' ]);

# A server under which no worker settles what is pending
my $old = platform_server(
	'old',
	install_path => $old_bin =~ s|/bin/*$||r,
	conf => q(meritum_cache.databases = 'none'));
$old->safe_psql('postgres', q(
	CREATE ROLE clerk LOGIN;
	CREATE ROLE desk;
	SELECT meritum_grant('desk', 'reader', pinned => true);
	SELECT meritum_schedule('cleanup', '@weekly', 'SELECT 1', enabled => false);
	SELECT meritum_unschedule('nightly_refresh');
	INSERT INTO meritum_cache.job (name, schedule, command, owner)
	VALUES ('of clerk', '@daily', 'SELECT 2', 'clerk');
	DELETE FROM meritum_cache.event_metric WHERE event_type = 'submitted';
	SET meritum_cache.refresh_mode = async;
	UPDATE claims SET state = 'REJECTED' WHERE claim_id = test.c(1);));
is(pending($old), '1', 'a note is pending');

my @tables = qw(analytics_cache claim_fact provider_state job job_run
  event_metric default_row source_table role_grant metric);

# All rows of the tables
sub contents
{
	my ($node) = @_;

	return [ map { $node->safe_psql('postgres',
		"SELECT '$_', t FROM meritum_cache.$_ AS t ORDER BY t::text COLLATE \"C\"") } @tables ];
}

my $contents = contents($old);
$old->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
my ($help) = run_command([ 'initdb', '--help' ]);
$new->init($help =~ /--no-data-checksums/ ? (extra => ['--no-data-checksums']) : ());
$new->append_conf('postgresql.conf', platform_conf());

chdir ${PostgreSQL::Test::Utils::tmp_check};
command_ok(
	[
		'pg_upgrade', '--no-sync',
		'--old-datadir' => $old->data_dir,
		'--new-datadir' => $new->data_dir,
		'--old-bindir' => $old_bin,
		'--new-bindir' => $new_bin,
		'--socketdir' => $new->host,
		'--old-port' => $old->port,
		'--new-port' => $new->port,
	],
	'pg_upgrade');

# First without a worker, to see what was carried
$new->append_conf('postgresql.conf', "meritum_cache.databases = 'none'");
$new->start;
is_deeply(contents($new), $contents, 'all rows are as they were');
is(pending($new), '1', 'the note is pending');
is( $new->safe_psql('postgres', q(
	SELECT meritum_is_stale(test.p(n)) FROM generate_series(1, 4) AS n ORDER BY 1)),
	"f\nf\nf\nt", 'only its provider is stale');

$new->append_conf('postgresql.conf', "meritum_cache.databases = 'postgres'");
$new->restart;
settled($new, 'the worker settles it, and all figures are right');
$new->safe_psql('postgres',
	q(UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(2)));
is(pending($new), '0', 'a change leaves no note');
is(wrong($new), '', 'and is seen with its commit');
is( $new->safe_psql('postgres', q(
	SELECT count(*) FROM meritum_cache.job_state;
	SET ROLE desk;
	SELECT count(*) FROM meritum_cache.analytics_cache)),
	"1\n0", 'one job is due, and a pinned reader sees nothing');
$new->safe_psql('postgres', 'DROP EXTENSION meritum_cache');
$new->stop;
unlike(slurp_file($_->logfile), qr/PANIC|TRAP|signal 11/i, 'no process has crashed')
  foreach $old, $new;

done_testing();
