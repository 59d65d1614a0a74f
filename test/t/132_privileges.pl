# 132_privileges.pl: who may do what.
#
# Every function, table and view of the extension is tried as each kind of
# role, unpinned, pinned to the provider that is asked for, and pinned to
# another.  What the server does makes a table, which has to be that of
# test/privileges.txt; an object without a line there fails the test.
#
#   ACCEPT=FILE   writes the table as it is into that file, to be looked over

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @roles = qw(nobody writer metric pinned reader operator admin owner super);

# How each function is called, about provider $P where it takes one; everything
# is rolled back.
my %call = (
	meritum_get_metrics => q(SELECT meritum_get_metrics($P, '{claims_paid}', '2024-01-01', '2024-12-31')),
	meritum_compute_metrics => q(SELECT meritum_compute_metrics($P, '{claims_paid}', '2024-01-01', '2024-12-31')),
	meritum_is_stale => 'SELECT meritum_is_stale($P)',
	meritum_freshness => 'SELECT meritum_freshness($P)',
	meritum_get_stale_entries => 'SELECT meritum_get_stale_entries($P)',
	meritum_request_refresh => 'SELECT meritum_request_refresh($P)',
	meritum_verify => 'SELECT meritum_verify($P, true)',
	meritum_upsert_metric => q(SELECT meritum_upsert_metric($P, 'claims_paid', '2024-01-01', '2024-01-31', NULL, '1')),
	meritum_bulk_upsert => q(SELECT meritum_bulk_upsert($P, '[{"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": 1}]')),
	meritum_delete_expired_entries => q(SELECT meritum_delete_expired_entries($P, '2024-01-01')),
	meritum_refresh_provider_metrics => q(SELECT meritum_refresh_provider_metrics($P, '{claims_paid}')),
	meritum_handle_claim_state_change => q(SELECT meritum_handle_claim_state_change($P, 'AHCIP', 'PAID')),
	meritum_handle_event => q(SELECT meritum_handle_event('paid', $P)),
	meritum_invalidate => q(SELECT meritum_invalidate($P, 'claims')),
	meritum_set_provider => 'SELECT meritum_set_provider(test.p(1), true)',
	meritum_refresh_all_providers => 'CALL meritum_refresh_all_providers()',
	meritum_cleanup_old_entries => 'CALL meritum_cleanup_old_entries()',
	meritum_attach => 'SELECT meritum_attach()',
	meritum_detach => 'SELECT meritum_detach()',
	meritum_next_run => q(SELECT meritum_next_run('@daily')),
	meritum_run_job => q(SELECT meritum_run_job('cleanup')),
	meritum_schedule => q(SELECT meritum_schedule('cleanup', '@daily', 'SELECT 1')),
	meritum_unschedule => q(SELECT meritum_unschedule('cleanup')),
	meritum_grant => q(SELECT meritum_grant('nobody', 'admin')),
	meritum_revoke => q(SELECT meritum_revoke('admin')),
	meritum_create_metric => q(SELECT meritum_create_metric('test:one', 'SELECT NULL::jsonb, to_jsonb(1) WHERE $1 IS NOT NULL AND $2 <= $3', 'monthly')),
	meritum_drop_metric => q(SELECT meritum_drop_metric('test:own')),
	meritum_attach_event => q(SELECT meritum_attach_event('orders', 'order.made', 'provider_id')),
	meritum_detach_event => q(SELECT meritum_detach_event('orders', 'order.paid')),
	meritum_stat_reset => 'SELECT meritum_stat_reset()',
	pinned_provider => 'SELECT meritum_cache.pinned_provider()',
	sees_all => 'SELECT meritum_cache.sees_all()',
	builtin_metric => 'SELECT meritum_cache.builtin_metric()',
	refresh_statistics => 'SELECT meritum_cache.refresh_statistics()');

my $node = PostgreSQL::Test::Cluster->new('privileges');
$node->init;
$node->append_conf('postgresql.conf', platform_conf());
$node->start;

# The extension's owner is no superuser any more; he and the admin are members
# of the role that owns the application's tables.
$node->safe_psql('postgres', q(
	CREATE ROLE application;
	CREATE ROLE nobody;
	CREATE ROLE writer;
	CREATE ROLE metric;
	CREATE ROLE pinned;
	CREATE ROLE reader;
	CREATE ROLE operator;
	CREATE ROLE admin IN ROLE application;
	CREATE ROLE owner SUPERUSER IN ROLE application;
	CREATE ROLE super SUPERUSER;
	GRANT ALL ON SCHEMA public TO application;));
load_platform($node);
$node->safe_psql('postgres', q(
	CREATE TABLE orders (provider_id uuid, amount numeric);
	DO $$
	DECLARE r regclass;
	BEGIN
		FOR r IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
			EXECUTE format('ALTER TABLE %s OWNER TO application', r);
			EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO writer', r);
		END LOOP;
	END
	$$;
	GRANT USAGE ON SCHEMA test TO PUBLIC;
	INSERT INTO providers (provider_id) SELECT test.p(n) FROM generate_series(1, 2) AS n;
	) . add_claims(1, 40, 2));
$node->safe_psql('postgres', q(
	SET SESSION AUTHORIZATION owner;
	CREATE EXTENSION meritum_cache;
	RESET SESSION AUTHORIZATION;
	ALTER ROLE owner NOSUPERUSER;
	SET SESSION AUTHORIZATION owner;
	SELECT * FROM meritum_attach();
	CALL meritum_refresh_all_providers();
	SELECT meritum_grant('pinned', 'reader', true), meritum_grant('reader', 'reader'),
		   meritum_grant('operator', 'operator'), meritum_grant('admin', 'admin'),
		   meritum_grant('metric', 'admin');
	SELECT meritum_stat_reset();));

# a metric outlives the level of its owner
$node->safe_psql('postgres', q(
	SET SESSION AUTHORIZATION metric;
	SELECT meritum_create_metric('test:own', 'SELECT NULL::jsonb, to_jsonb(1) WHERE $1 IS NOT NULL AND $2 <= $3', 'monthly');
	SET SESSION AUTHORIZATION admin;
	SELECT meritum_attach_event('orders', 'order.paid', 'provider_id');
	RESET SESSION AUTHORIZATION;
	SELECT meritum_refresh_provider_metrics(test.p(n)) FROM generate_series(1, 2) AS n;));
$node->safe_psql('postgres', q(
	SELECT meritum_revoke('metric');
	-- a note of each provider, which nobody takes
	INSERT INTO meritum_cache.pending_refresh (provider_id, scope, cause, attempts, next_attempt_at, sqlstate, message)
	SELECT test.p(n), 'snapshot', 'worker', 10, 'infinity', '22003', 'test' FROM generate_series(1, 2) AS n;));

# Tries a command as a role: "yes" or the SQLSTATE; and counts providers and
# rows in a table.
$node->safe_psql('postgres', q(
	CREATE FUNCTION test.try(p_role name, p_command text)
	RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		v_state text;
	BEGIN
		EXECUTE format('SET LOCAL ROLE %I', p_role);
		BEGIN
			EXECUTE p_command;
			RAISE SQLSTATE 'OK000';
		EXCEPTION WHEN OTHERS THEN
			v_state := SQLSTATE;
		END;
		RETURN CASE v_state WHEN 'OK000' THEN 'yes' ELSE v_state END;
	END
	$$;
	CREATE FUNCTION test.providers(p_role name, p_table text)
	RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		v_result text;
	BEGIN
		EXECUTE format('SET LOCAL ROLE %I', p_role);
		EXECUTE format('SELECT count(DISTINCT to_jsonb(t) ->> ''provider_id'') || '' '' || count(*) FROM %s AS t', p_table) INTO v_result;
		RETURN v_result;
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE;
	END
	$$;));

# All tries go through one session, each in a transaction of its own.  The pin
# is set as a superuser, who may always.
my (%result, @script);

sub try_later
{
	my ($key, $function, $role, $pin, $command) = @_;
	my $quoted = $command =~ s/'/''/gr;

	push @script, $pin ? "BEGIN; SELECT meritum_set_provider(test.p($pin), true) \\g /dev/null\n" : 'BEGIN;',
	  "SELECT '$key' || E'\\t' || test.$function('$role', '$quoted');\nROLLBACK;";
	return;
}

# Procedures want to be outermost, so they cannot be tried in a function.
sub try_procedure
{
	my ($key, $role, $pin, $command) = @_;
	my ($code, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY sqlstate\n"
		  . ($pin ? "SELECT meritum_set_provider(test.p($pin)) \\g /dev/null\n" : '')
		  . "SET ROLE $role;\n$command;");
	$result{$key} = $err =~ /ERROR:\s+(\w{5})/ ? $1 : 'yes';
	return;
}

my @functions = map { [ split /\|/ ] } split /\n/, $node->safe_psql('postgres', q(
	SELECT p.proname, p.oid::regprocedure, p.prokind, p.prorettype = 'trigger'::regtype,
		   coalesce('provider_id' = ANY (p.proargnames[1:p.pronargs]), false) AND p.proname <> 'meritum_set_provider'
	  FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	 WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'meritum_cache')
	 ORDER BY p.oid::regprocedure::text COLLATE "C"));
my @relations = map { [ split /\|/ ] } split /\n/, $node->safe_psql('postgres', q(
	SELECT c.oid::regclass, c.relkind
	  FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	 WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'meritum_cache') AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
	 ORDER BY c.oid::regclass::text COLLATE "C"));
cmp_ok(scalar @functions, '>', 30, 'the functions are found');
cmp_ok(scalar @relations, '>', 10, 'the tables and views are found');

my @procedures;

foreach my $function (@functions)
{
	my ($name, $signature, $kind, $trigger, $provider) = @$function;
	my $command = $trigger eq 't' ? "SELECT $signature" : $call{$name};

	if (!defined $command)
	{
		fail("$signature is tried (add it to the calls)");
		next;
	}
	foreach my $role (@roles)
	{
		my $own = $command =~ s/\$P/test.p(1)/gr;
		my $other = $command =~ s/\$P/test.p(2)/gr;

		if ($kind eq 'p')
		{
			push @procedures, [ "$signature $role none", $role, 0, $own ],
			  [ "$signature $role own", $role, 1, $own ];
			next;
		}
		try_later("$signature $role none", 'try', $role, 0, $own);
		try_later("$signature $role own", 'try', $role, 1, $own);
		try_later("$signature $role other", 'try', $role, 1, $other)
		  if $provider eq 't';
	}
}
my %first_column;

sub first_column
{
	my ($name) = @_;

	$first_column{$name} //= $node->safe_psql('postgres',
		"SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = '$name'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum LIMIT 1");
	return $first_column{$name};
}

foreach my $relation (@relations)
{
	my ($name, $kind) = @$relation;

	foreach my $role (@roles)
	{
		try_later("$name $role none", 'providers', $role, 0, $name);
		try_later("$name $role own", 'providers', $role, 1, $name);
		next if $kind eq 'v';
		try_later("$name $role insert", 'try', $role, 0, "INSERT INTO $name SELECT WHERE false");
		try_later("$name $role update", 'try', $role, 0,
			"UPDATE $name SET " . first_column($name) . ' = DEFAULT WHERE false');
		try_later("$name $role delete", 'try', $role, 0, "DELETE FROM $name WHERE false");
		try_later("$name $role truncate", 'try', $role, 0, "TRUNCATE $name CASCADE");
	}
}

my ($code, $out, $err) = $node->psql('postgres', join("\n", 'SET client_min_messages = error;', @script));
is($err, '', 'all is tried');
foreach (split /\n/, $out)
{
	$result{$1} = $2 if /^(.*)\t(.*)$/;
}

# Last, since what they do is not rolled back.
try_procedure(@$_) foreach @procedures;

# ----------------------------------------------------------------------
# The table
# ----------------------------------------------------------------------

# What the outcomes of a function come to; themselves if that is nothing known.
sub function_cell
{
	my ($signature, $role, $provider) = @_;
	my $outcome = join ' ', map { $result{"$signature $role $_"} // '?' }
	  $provider eq 't' ? qw(none own other) : qw(none own);
	my %cells = (
		'42501 42501 42501' => '-',
		'42501 yes 42501' => 'p',
		'yes yes 42501' => '+',
		'42501 42501' => '-',
		'yes 42501' => 'a',
		'yes yes' => '*',
		'39P01 39P01' => 't');

	return $cells{$outcome} // "($outcome)";
}

sub relation_cell
{
	my ($name, $kind, $role) = @_;
	my ($none, $own) = map { $result{"$name $role $_"} // '?' } qw(none own);
	my $cell = "($none, $own)";
	my $letters = '';

	$cell = '-' if $none eq '42501' && $own eq '42501';
	if ("$none $own" =~ /^(\d+) (\d+) (\d+) (\d+)$/)
	{
		# providers and rows, unpinned and pinned
		$cell = $2 == $4 ? '*' : $1 == 0 && $2 == 0 && $3 == 1 ? 'p'
		  : $1 > 1 && $3 == 1 ? '+' : $4 == 0 ? 'a' : $cell;
	}
	foreach (qw(insert update delete truncate))
	{
		my $outcome = $result{"$name $role $_"} // next;
		$letters .= substr($_, 0, 1) if $outcome ne '42501';
		diag("$name $role $_: $outcome") if $outcome !~ /^(yes|42501)$/;
	}
	return $letters eq '' ? $cell : "$cell$letters";
}

my @rows;
foreach my $function (@functions)
{
	my (undef, $signature, undef, undef, $provider) = @$function;
	push @rows, [ $signature =~ s/,/, /gr, map { function_cell($signature, $_, $provider) } @roles ];
}
foreach my $relation (@relations)
{
	my ($name, $kind) = @$relation;
	push @rows, [ $name, map { relation_cell($name, $kind, $_) } @roles ];
}

sub table
{
	return join '', map { my ($name, @cells) = @$_;
		join(' ', map { sprintf '%-8s', $_ } @cells) . " $name\n" } [ 'object', @roles ], @_;
}

my $actual = table(@rows);
my $file = "$FindBin::Bin/../privileges.txt";
my $expected = -e $file ? slurp_file($file) : '';
if ($ENV{ACCEPT})
{
	my ($head) = $expected =~ /\A((?:#[^\n]*\n|\n)*)/;
	append_to_file($ENV{ACCEPT}, ($head // '') . $actual);
}
my %lines = map { (split /\s+/, $_, scalar(@roles) + 1)[-1] => $_ }
  grep { /^[^#\n]/ } split /\n/, $expected;
foreach my $line (split /\n/, $actual)
{
	my $name = (split /\s+/, $line, scalar(@roles) + 1)[-1];
	is($line, delete $lines{$name} // 'no line in test/privileges.txt', $name);
}
is(join(', ', sort keys %lines), '', 'all that test/privileges.txt names exists');

$node->stop;
done_testing();
