# 135_attacks.pl: attacks that need a session's beginning or the worker.
#
# A pin that is set before the library is there, jobs and metrics of an admin
# that reach for the rights of others, and default privileges that would open
# what the extension makes.  Those within one session are in sql/attacks.sql.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('attacks');
$node->init;
$node->append_conf('postgresql.conf',
	platform_conf() . "meritum_cache.databases = 'none'\nshared_preload_libraries = ''\n");
$node->start;
load_platform($node);
$node->safe_psql('postgres', q(
	CREATE ROLE pinned LOGIN;
	CREATE ROLE admin LOGIN;
	CREATE ROLE operator LOGIN;
	CREATE ROLE writer LOGIN;
	CREATE ROLE anyone LOGIN;
	GRANT USAGE ON SCHEMA test TO PUBLIC;
	GRANT SELECT, INSERT, UPDATE ON claims TO writer;
	INSERT INTO providers (provider_id) SELECT test.p(n) FROM generate_series(1, 2) AS n;
	) . add_claims(1, 20, 2));

# ----------------------------------------------------------------------
# Default privileges that a database may have
# ----------------------------------------------------------------------

$node->safe_psql('postgres', q(
	ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
	ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
	ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
	CREATE EXTENSION meritum_cache;
	ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC;
	ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM PUBLIC;
	ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS FROM PUBLIC;));
is($node->safe_psql('postgres', q(
		SELECT c.oid::regclass::text FROM pg_class c, aclexplode(c.relacl) AS a
		 WHERE c.relnamespace = 'meritum_cache'::regnamespace AND a.grantee = 0
		UNION ALL
		SELECT nspname FROM pg_namespace, aclexplode(nspacl) AS a
		 WHERE nspname = 'meritum_cache' AND a.grantee = 0
		UNION ALL
		SELECT p.oid::regprocedure::text FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
		 WHERE (p.proname LIKE 'meritum\_%' OR p.pronamespace = 'meritum_cache'::regnamespace) AND a.grantee = 0)),
	'', 'default privileges open nothing to PUBLIC');

$node->safe_psql('postgres', q(
	SELECT * FROM meritum_attach();
	CALL meritum_refresh_all_providers();
	SELECT meritum_grant('pinned', 'reader', true), meritum_grant('admin', 'admin'), meritum_grant('operator', 'operator');));

# ----------------------------------------------------------------------
# A pin before the library is loaded
# ----------------------------------------------------------------------

sub as_role
{
	my ($role, $sql, %param) = @_;
	my ($out, $err) = ('', '');

	local $ENV{PGOPTIONS} = $param{options} if $param{options};
	$node->psql('postgres', "\\set VERBOSITY sqlstate\n$sql",
		extra_params => [ '-U', $role ], stdout => \$out, stderr => \$err, on_error_stop => 0);
	return ($out, $err);
}

my $pin = q('a0000000-0000-4000-8000-000000000001');
my $count = 'SELECT count(*) FROM meritum_cache.analytics_cache;';
my ($out, $err) = as_role('pinned', "SET meritum_cache.provider = $pin;\n$count");
is($out, '0', 'a pin that was set before the library is loaded is none');
($out, $err) = as_role('pinned', "BEGIN;\nSET LOCAL meritum_cache.provider = $pin;\n$count\nCOMMIT;\n$count");
is($out, "0\n0", 'nor one that is local');
($out, $err) = as_role('pinned', $count, options => '-c meritum_cache.provider=a0000000-0000-4000-8000-000000000001');
is($out, '0', 'nor one of the connection');
($out, $err) = as_role('pinned', "SET meritum_cache.provider = 'x';\n$count\nSHOW meritum_cache.provider;");
is($out, "0\n", 'one that is no provider does no harm');
($out, $err) = as_role('pinned', "SELECT meritum_set_provider($pin) \\g /dev/null\nSELECT count(DISTINCT provider_id) FROM meritum_cache.analytics_cache;");
is($out, '1', 'meritum_set_provider pins');

# ----------------------------------------------------------------------
# Jobs
# ----------------------------------------------------------------------

$node->append_conf('postgresql.conf',
	"shared_preload_libraries = 'meritum_cache'\nmeritum_cache.databases = 'postgres'\n");
$node->restart;
$node->safe_psql('postgres', q(
	CREATE SCHEMA lair AUTHORIZATION admin;
	CREATE TABLE secret AS SELECT 'secret' AS secret;));

my %commands = (
	proof => 'CREATE TABLE lair.proof AS SELECT current_user::text AS c, session_user::text AS s',
	rise => 'ALTER ROLE admin SUPERUSER',
	become => 'SET SESSION AUTHORIZATION postgres; ALTER ROLE admin SUPERUSER',
	reset => 'RESET SESSION AUTHORIZATION; RESET ROLE; ALTER ROLE admin SUPERUSER',
	read => 'CREATE TABLE lair.loot AS SELECT * FROM public.secret',
	facts => 'CREATE TABLE lair.facts AS SELECT * FROM meritum_cache.claim_fact',
	forge => q(UPDATE meritum_cache.job SET owner = 'postgres'),
	# the superuser's job, taken over
	nightly_refresh => 'ALTER ROLE admin SUPERUSER');
foreach my $name (sort keys %commands)
{
	my $command = $commands{$name} =~ s/'/''/gr;

	as_role('admin', "SELECT meritum_schedule('$name', '\@yearly', '$command'); SELECT meritum_run_job('$name');");
}
wait_for($node, q(SELECT count(*) >= 8 AND bool_and(finished_at IS NOT NULL) FROM meritum_cache.job_run WHERE batch_run IS NULL),
	'the jobs of an admin have run');
is($node->safe_psql('postgres', q(SELECT string_agg(job_name, ' ' ORDER BY job_name) FROM meritum_cache.job_run WHERE status = 'succeeded' AND batch_run IS NULL)),
	'proof', 'what an admin may not do his jobs may not');
is($node->safe_psql('postgres', 'SELECT * FROM lair.proof'), 'admin|admin', 'they run as the admin');
is($node->safe_psql('postgres', "SELECT rolsuper FROM pg_roles WHERE rolname = 'admin'"), 'f', 'who is no superuser now');
is($node->safe_psql('postgres', "SELECT owner FROM meritum_cache.job WHERE name = 'nightly_refresh'"),
	'admin', 'a job that is taken over has another owner');
($out, $err) = as_role('operator', q(SELECT meritum_schedule('x', '@daily', 'SELECT 1');
	INSERT INTO meritum_cache.job (name, schedule, command, owner) VALUES ('x', '@daily', 'SELECT 1', 'postgres');
	UPDATE meritum_cache.job SET command = 'ALTER ROLE operator SUPERUSER';
	INSERT INTO meritum_cache.job_run (job_name, status) VALUES ('x', 'queued');));
is(scalar(() = $err =~ /42501/g), 4, 'an operator can neither schedule nor write the tables of jobs');

# ----------------------------------------------------------------------
# A metric whose query reaches for more, run for others and by the worker
# ----------------------------------------------------------------------

as_role('admin', q(
	CREATE FUNCTION lair.attempts() RETURNS jsonb LANGUAGE plpgsql AS $$
	DECLARE
		v_command text;
		v_result jsonb := to_jsonb(current_user::text);
	BEGIN
		FOREACH v_command IN ARRAY ARRAY['SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'ALTER ROLE admin SUPERUSER',
				'CREATE TABLE lair.made ()', 'INSERT INTO lair.proof VALUES (''a'', ''b'')', 'TABLE public.secret', 'TABLE meritum_cache.claim_fact',
				'SET session_replication_role = replica', 'SET LOCAL meritum_cache.log_min_duration = 0', 'CREATE TEMP TABLE t ()',
				'SELECT set_config(''transaction_read_only'', ''off'', false)']
		LOOP
			BEGIN
				EXECUTE v_command;
				v_result := v_result || to_jsonb(v_command);
			EXCEPTION WHEN OTHERS THEN
				NULL;
			END;
		END LOOP;
		PERFORM set_config('meritum_cache.on_error', 'error', false), set_config('application_name', 'lair', false), set_config('work_mem', '64kB', false);
		PERFORM meritum_set_provider('a0000000-0000-4000-8000-000000000002', false);
		RETURN v_result;
	END
	$$;
	SELECT meritum_create_metric('lair:attempts', 'SELECT NULL::jsonb, lair.attempts()', 'monthly');
	INSERT INTO meritum_cache.event_metric VALUES ('paid', 'lair:attempts');));
my $value = q(SELECT DISTINCT value FROM meritum_cache.analytics_cache WHERE metric_key = 'lair:attempts');
my $after = q(SELECT current_setting('meritum_cache.on_error'), current_setting('application_name') = 'lair', current_setting('work_mem') = '64kB', current_setting('meritum_cache.provider') = '', current_user = session_user;);
is( $node->safe_psql('postgres', "SELECT meritum_refresh_provider_metrics(test.p(1)) > 0;\n$after\n$value"),
	qq(t\nwarn|f|f|t|t\n"admin"), 'a metric computed for a superuser is its owner\'s work, and leaves nothing behind');
$node->safe_psql('postgres', q(DELETE FROM meritum_cache.analytics_cache WHERE metric_key = 'lair:attempts'; DELETE FROM meritum_cache.metric_state;));
# by a claim's commit, by an event at commit, and by the worker
($out, $err) = as_role('writer', "UPDATE claims SET state = CASE state WHEN 'PAID' THEN 'DRAFT' ELSE 'PAID' END WHERE claim_id = test.c(2);\n$after");
is("$out$err", 'warn|f|f|t|t', 'so for one who writes claims');
($out, $err) = as_role('operator', "SELECT meritum_handle_event('paid', test.p(1)) IS NOT NULL;\n$after");
is("$out$err", "t\nwarn|f|f|t|t", 'so by an event');
$node->safe_psql('postgres', q(SET meritum_cache.refresh_mode = async; SELECT meritum_invalidate(test.p(2), 'lair:')));
as_role('operator', 'SELECT meritum_request_refresh(test.p(2))');
drained($node, 'the worker has done its part');
$node->safe_psql('postgres', 'SELECT meritum_refresh_provider_metrics(test.p(n)) FROM generate_series(1, 2) AS n');
is($node->safe_psql('postgres', $value), '"admin"', 'whoever computes it, it is its owner\'s work');
is($node->safe_psql('postgres', 'SELECT count(*) FROM lair.proof'), '1', 'and writes nothing');
# a metric's level may be taken, and its owner dropped: the query fails alone
$node->safe_psql('postgres', q(SELECT meritum_revoke('admin')));
is($node->safe_psql('postgres', 'SELECT meritum_refresh_provider_metrics(test.p(1)) > 0'), 't', 'a metric outlives the level of its owner');
unlike($node->safe_psql('postgres', 'SELECT current_user'), qr/admin/, 'and lends nobody his name');
is(wrong($node), '', 'the figures are right');

$node->stop;
done_testing();
