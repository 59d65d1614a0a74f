# 110_upgrade.pl: from each older version to the present one.  An upgraded
# extension is the same as a fresh one, to the last privilege, and the library
# works with the old objects as with the new ones.

use strict;
use warnings FATAL => 'all';

use Cwd;
use File::Basename;
use File::Spec::Functions 'rel2abs';
use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('upgrade');
$node->init;
$node->append_conf('postgresql.conf', platform_conf());
$node->start;

my $present = $node->safe_psql('postgres',
	q(SELECT default_version FROM pg_available_extensions WHERE name = 'meritum_cache'));
my @older = split /\n/, $node->safe_psql('postgres', qq(
	SELECT version FROM pg_available_extension_versions
	 WHERE name = 'meritum_cache' AND version <> '$present'
	 ORDER BY string_to_array(version, '.')::int[]));

ok(@older > 0, "there are versions before $present");
is( $node->safe_psql('postgres', qq(
		SELECT source FROM pg_extension_update_paths('meritum_cache')
		 WHERE target = '$present' AND path IS NULL)),
	'', 'there is a way from each of them');

# All that can be said of the extension's objects, a line each.  Privileges that
# were never changed are written as the defaults that they are.
my $inventory = q(
	SET search_path = pg_catalog;
	CREATE FUNCTION pg_temp.privileges(acl aclitem[], kind "char", owner oid)
	RETURNS text[] LANGUAGE sql AS
	$$ SELECT array_agg(a::text ORDER BY a::text) FROM unnest(coalesce(acl, acldefault(kind, owner))) AS a $$;
	CREATE TEMPORARY VIEW member AS
	SELECT d.classid, d.objid
	  FROM pg_depend AS d JOIN pg_extension AS e
		   ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	 WHERE e.extname = 'meritum_cache' AND d.deptype = 'e';
	CREATE TEMPORARY VIEW relation AS
	SELECT c.*, c.oid::regclass AS name FROM member AS m JOIN pg_class AS c
		   ON m.classid = 'pg_class'::regclass AND m.objid = c.oid;

	SELECT 'member', o.type, o.identity, obj_description(m.objid, m.classid::regclass::text)
	  FROM member AS m, pg_identify_object(m.classid, m.objid, 0) AS o
	 ORDER BY 2, 3;
	SELECT 'extension', extowner::regrole, extnamespace::regnamespace, extrelocatable, extversion,
		   (SELECT array_agg(c::regclass ORDER BY c::regclass::text) FROM unnest(extconfig) AS c),
		   extcondition
	  FROM pg_extension WHERE extname = 'meritum_cache';
	SELECT 'schema', nspname, nspowner::regrole, pg_temp.privileges(nspacl, 'n', nspowner) FROM member JOIN pg_namespace AS n
		   ON classid = 'pg_namespace'::regclass AND objid = n.oid ORDER BY 2;
	SELECT 'function', oid::regprocedure, proowner::regrole, pg_temp.privileges(proacl, 'f', proowner), provolatile, proparallel,
		   proisstrict, prosecdef, proleakproof, procost, prorows, proconfig,
		   pg_get_functiondef(oid)
	  FROM member JOIN pg_proc AS p ON classid = 'pg_proc'::regclass AND objid = p.oid ORDER BY 2;
	SELECT 'relation', name, relkind, relpersistence, relowner::regrole,
		   pg_temp.privileges(relacl, (CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner), reloptions,
		   relrowsecurity, relforcerowsecurity, relreplident,
		   CASE WHEN relkind = 'v' THEN pg_get_viewdef(oid) END
	  FROM relation ORDER BY 2;
	SELECT 'initial privileges', o.identity, i.objsubid, i.privtype, i.initprivs
	  FROM member AS m JOIN pg_init_privs AS i ON i.classoid = m.classid AND i.objoid = m.objid,
		   pg_identify_object(i.classoid, i.objoid, 0) AS o ORDER BY 2, 3;
	SELECT 'column', name, attname, format_type(atttypid, atttypmod), attnotnull, attacl,
		   attidentity, attgenerated, attstorage, attstattarget,
		   pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
	  FROM relation AS r JOIN pg_attribute ON attrelid = r.oid
		   LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
	 WHERE attnum > 0 AND NOT attisdropped ORDER BY 2, attnum;
	SELECT 'constraint', name, conname, convalidated, pg_get_constraintdef(k.oid)
	  FROM relation AS r JOIN pg_constraint AS k ON conrelid = r.oid ORDER BY 2, 3;
	SELECT 'index', name, pg_get_indexdef(indexrelid), indisvalid
	  FROM relation AS r JOIN pg_index ON indrelid = r.oid ORDER BY 2, 3;
	SELECT 'trigger', name, tgenabled, pg_get_triggerdef(t.oid)
	  FROM relation AS r JOIN pg_trigger AS t ON tgrelid = r.oid
	 WHERE NOT tgisinternal ORDER BY 2, 4;
	SELECT 'policy', name, polname, polcmd, polpermissive,
		   (SELECT array_agg(CASE p WHEN 0 THEN 'public' ELSE p::regrole::text END ORDER BY 1)
			  FROM unnest(polroles) AS p),
		   pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
	  FROM relation AS r JOIN pg_policy ON polrelid = r.oid ORDER BY 2, 3;
	SELECT 'rule', name, pg_get_ruledef(w.oid)
	  FROM relation AS r JOIN pg_rewrite AS w ON ev_class = r.oid ORDER BY 2, 3;
	SELECT 'event trigger', evtname, evtevent, evtenabled, evttags, evtowner::regrole, evtfoid::regprocedure
	  FROM member JOIN pg_event_trigger AS t ON classid = 'pg_event_trigger'::regclass AND objid = t.oid
	 ORDER BY 2;
	SELECT 'metric', t FROM meritum_cache.metric AS t ORDER BY 2;
	SELECT 'event', t FROM meritum_cache.event_metric AS t ORDER BY 2;
	SELECT 'job', name, schedule, timezone, command, enabled, timeout, owner
	  FROM meritum_cache.job ORDER BY 2);

# The lines that two lists do not share.
sub differences
{
	my ($left, $right) = @_;
	my %count;

	$count{$_}++ foreach split /\n/, $left;
	$count{$_}-- foreach split /\n/, $right;
	return join "\n", map { ($count{$_} > 0 ? '- ' : '+ ') . $_ }
	  grep { $count{$_} } sort keys %count;
}

sub create
{
	my ($db, $how) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, "CREATE SCHEMA tools; CREATE EXTENSION meritum_cache $how");
	return;
}

create('fresh', '');
create('fresh_tools', 'SCHEMA tools');
my $fresh = $node->safe_psql('fresh', $inventory);
my $fresh_tools = $node->safe_psql('fresh_tools', $inventory);

# The comparison would notice.
isnt(differences($fresh, $fresh_tools), '', 'a different schema is a difference');
$node->safe_psql('fresh', q(
	BEGIN;
	ALTER FUNCTION meritum_stat_reset() STABLE;
	COMMENT ON VIEW meritum_cache.stat_provider IS 'changed';
	GRANT SELECT ON meritum_cache.stat_refresh TO pg_monitor;
	COMMIT));
my $changed = differences($fresh, $node->safe_psql('fresh', $inventory));
like($changed, qr/^\+ function\|.*meritum_stat_reset\(\)\|.*\|s\|/m, 'so is a volatility');
like($changed, qr/^\+ member\|view\|meritum_cache\.stat_provider\|changed$/m, 'a comment');
like($changed, qr/^\+ relation\|meritum_cache\.stat_refresh\|.*pg_monitor=r/m, 'and a privilege');

foreach my $version (@older)
{
	my $db = "from_$version" =~ s/\W/_/gr;

	create($db, "VERSION '$version'");
	$node->safe_psql($db, 'ALTER EXTENSION meritum_cache UPDATE');
	is(differences($fresh, $node->safe_psql($db, $inventory)),
		'', "$version upgraded is the same as $present");

	create("${db}_tools", "VERSION '$version' SCHEMA tools");
	$node->safe_psql("${db}_tools", 'ALTER EXTENSION meritum_cache UPDATE');
	is(differences($fresh_tools, $node->safe_psql("${db}_tools", $inventory)),
		'', "$version upgraded in a schema of the user's choice too");

	# Another superuser may run it: the objects get the extension's owner.
	create("${db}_other", "VERSION '$version'");
	$node->safe_psql("${db}_other", q(
		CREATE ROLE other_superuser SUPERUSER;
		SET ROLE other_superuser;
		SET search_path = tools;
		ALTER EXTENSION meritum_cache UPDATE));
	is(differences($fresh, $node->safe_psql("${db}_other", $inventory)),
		'', "$version upgraded by somebody else too");
	$node->safe_psql('postgres', "DROP DATABASE ${db}_other");
	$node->safe_psql('postgres', 'DROP ROLE other_superuser');
}

# With data: the present library, the oldest objects

load_platform($node);
$node->safe_psql('postgres', q(
	INSERT INTO providers (provider_id) SELECT test.p(n) FROM generate_series(1, 3) AS n;
	) . add_claims(1, 90, 3));
$node->safe_psql('postgres', "CREATE EXTENSION meritum_cache VERSION '$older[0]'");
$node->safe_psql('postgres', q(
	CREATE ROLE operator;
	SELECT meritum_grant('operator', 'operator');
	CREATE ROLE reader;
	GRANT USAGE ON SCHEMA meritum_cache TO reader;
	GRANT SELECT ON meritum_cache.analytics_cache TO reader;
	GRANT SELECT (provider_id, version) ON meritum_cache.provider_state TO reader;
	GRANT EXECUTE ON FUNCTION meritum_is_stale(uuid, integer) TO reader WITH GRANT OPTION;
	UPDATE meritum_cache.job SET enabled = false));
$node->safe_psql('postgres', 'SELECT * FROM meritum_attach()');

# What a user would do, all of which must work with both.
sub works
{
	my ($name) = @_;
	my ($out, $err) = run_sql($node, q(
		CALL meritum_refresh_all_providers();
		UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(6);
		SET meritum_cache.refresh_mode = async;
		UPDATE claims SET state = 'REJECTED' WHERE claim_id IN (test.c(6), test.c(7));
		RESET meritum_cache.refresh_mode;
		SELECT count(*) FROM meritum_get_metrics(test.p(1), '{claims_paid}', current_date - 100, current_date);
		SELECT meritum_handle_claim_state_change(test.p(2), 'AHCIP', 'paid');
		SELECT meritum_refresh_provider_metrics(test.p(3));
		SELECT count(*) FROM meritum_verify(test.p(3), true);
		SELECT * FROM meritum_freshness(test.p(1));
		CALL meritum_cleanup_old_entries();));

	unlike($err, qr/WARNING|ERROR/, "$name: everything works");
	settled($node, "$name: the figures are right");
	return;
}

works($older[0]);
my $cells = q(SELECT provider_id, metric_key, period_start, dimensions, value
				FROM meritum_cache.analytics_cache ORDER BY 1, 2, 3, 4);
my $acl = q(
	SELECT c.oid::regclass::text, c.relacl::text FROM pg_class AS c JOIN pg_depend AS d
		   ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	UNION ALL
	SELECT a.attrelid::regclass || '.' || attname, a.attacl::text FROM pg_attribute AS a WHERE attacl IS NOT NULL
	   AND attrelid >= 16384
	UNION ALL
	SELECT c.oid::regprocedure::text, c.proacl::text FROM pg_proc AS c JOIN pg_depend AS d
		   ON d.classid = 'pg_proc'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	UNION ALL
	SELECT n.oid::regnamespace::text, n.nspacl::text FROM pg_namespace AS n WHERE nspname = 'meritum_cache'
	ORDER BY 1);
# While the update is under way, claims are changed and read as ever.
my $updater = session($node);
my $writer = session($node);
$writer->query_safe(q(UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(8)));
$updater->query_safe('BEGIN; ALTER EXTENSION meritum_cache UPDATE');
$writer->query_safe(q(SET lock_timeout = '10s';
	UPDATE claims SET state = 'REJECTED' WHERE claim_id = test.c(8);
	SELECT count(*) FROM meritum_get_metrics(test.p(1), '{claims_paid}', current_date - 100, current_date)));
is($writer->{stderr}, '', 'nobody waits for an update');
is(pending($node), '0', 'and the change is refreshed at once');
$updater->query_safe('ROLLBACK');
is( $node->safe_psql('postgres',
		q(SELECT extversion FROM pg_extension WHERE extname = 'meritum_cache')),
	$older[0], 'an update can be rolled back');

my $acl_before = $node->safe_psql('postgres', $acl);
my $cells_before = $node->safe_psql('postgres', $cells);
my $state_before = $node->safe_psql('postgres',
	'SELECT * FROM meritum_cache.provider_state ORDER BY 1');

$updater->query_safe('ALTER EXTENSION meritum_cache UPDATE');
$updater->quit;
is( $node->safe_psql('postgres',
		q(SELECT extversion FROM pg_extension WHERE extname = 'meritum_cache')),
	$present, 'the extension is updated');
is($node->safe_psql('postgres', $cells), $cells_before, 'no figure has changed');
is( $node->safe_psql('postgres', 'SELECT * FROM meritum_cache.provider_state ORDER BY 1'),
	$state_before, 'nor a state');
unlike(differences($acl_before, $node->safe_psql('postgres', $acl)),
	qr/^- /m, 'and no privilege is lost');
is( $node->safe_psql('postgres', q(
		SELECT has_column_privilege('reader', 'meritum_cache.provider_state', 'version', 'SELECT'),
			   has_table_privilege('reader', 'meritum_cache.provider_state', 'SELECT'),
			   has_function_privilege('reader', 'meritum_is_stale(uuid, integer)', 'EXECUTE WITH GRANT OPTION'))),
	't|f|t', 'those granted by hand included');
is( $node->safe_psql('postgres',
		'SELECT count(*) FROM meritum_cache.job WHERE enabled'),
	'0', 'nor is a job enabled again');

# What is new is not granted by the way, but easily.
my $may = q(SELECT has_table_privilege('operator', 'meritum_cache.stat_provider', 'SELECT'),
				   has_function_privilege('operator', 'meritum_stat_reset()', 'EXECUTE'),
				   has_table_privilege('operator', 'meritum_cache.role_grant', 'SELECT'));
is($node->safe_psql('postgres', $may), 'f|f|f', 'a level does not yet have what is new');
$node->safe_psql('postgres',
	'SELECT meritum_grant(role, level, pinned) FROM meritum_cache.role_grant');
is($node->safe_psql('postgres', $may), 't|t|f', 'it has once it is granted again');

# a session from before the update goes on
$writer->query_safe(q(UPDATE claims SET state = 'PAID' WHERE claim_id = test.c(8)));
is($writer->{stderr}, '', 'a session of before the update goes on without it');
$writer->quit;
works($present);
is( $node->safe_psql('postgres', q(
		SELECT count(*) FILTER (WHERE refreshes > 0) > 3 FROM meritum_cache.stat_refresh)),
	't', 'what the new version adds works');

# Scripts are for CREATE EXTENSION alone

my $extension = $node->config_data('--sharedir') . '/extension';
foreach my $script (sort glob "$extension/meritum_cache--*.sql")
{
	my ($code, $out, $err) =
	  $node->psql('fresh_tools', '', extra_params => [ '-f', $script ]);

	like($out, qr/^Use "(?:CREATE|ALTER) EXTENSION meritum_cache.*" to load this file\.$/,
		basename($script) . ' cannot be run by psql');
}
is(differences($fresh_tools, $node->safe_psql('fresh_tools', $inventory)),
	'', 'nor does trying to do any harm');

# To another cluster, as for a new major version: facts and figures go along

my $new = PostgreSQL::Test::Cluster->new('new');
my $bindir = $node->config_data('--bindir');
my $what = q(
	SELECT (SELECT count(*) FROM meritum_cache.claim_fact) > 0, s.*
	  FROM meritum_cache.provider_state AS s ORDER BY provider_id;
	SELECT * FROM meritum_cache.analytics_cache ORDER BY cache_id;
	SELECT * FROM meritum_cache.role_grant;
	SELECT * FROM meritum_cache.job ORDER BY name;
	SELECT source, relation, columns FROM meritum_cache.source_table ORDER BY source);
my $before = $node->safe_psql('postgres', $what);
my $inventory_before = $node->safe_psql('postgres', $inventory);

$new->init;
$new->append_conf('postgresql.conf', platform_conf());
$node->stop;
my @upgrade = ("$bindir/pg_upgrade", '--no-sync',
	'-d', rel2abs($node->data_dir), '-D', rel2abs($new->data_dir),
	'-b', $bindir, '-B', $bindir, '-s', $node->host, '-p', $node->port, '-P', $new->port);
my $folder = getcwd();

# it leaves a script where it runs
chdir $PostgreSQL::Test::Utils::tmp_check or die;
command_ok(\@upgrade, 'pg_upgrade');
chdir $folder or die;
$new->start;
$node = $new;
is($node->safe_psql('postgres', $what), $before, 'facts, figures, jobs and grants are there');
is(differences($inventory_before, $node->safe_psql('postgres', $inventory)),
	'', 'so are all objects');
works('after pg_upgrade');

$node->stop;
done_testing();
