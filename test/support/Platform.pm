# Platform.pm: a server with a small platform, for the tests of what happens
# under concurrency, failures and crashes.
#
#   use lib "$FindBin::Bin/../support";
#   use Platform;
#
#   my $node = platform_server('name', conf => '...', providers => 4);
#   is(wrong($node), '', 'the figures are right');
#
# Everything is in the database postgres, so that the background worker finds
# it there from the start.  Providers are numbered from 1, claims too: test.p(1)
# and test.c(1) are their ids.

package Platform;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(platform_server platform_conf load_platform add_claims
  wrong incomplete wait_for drained settled session run_sql finish_later
  waiting_for idle_soon worker_pid pending);

my $support = dirname(__FILE__);

# The zone is not the one that the tests' sessions have.
my $zone = 'America/Edmonton';
my $today = "(now() AT TIME ZONE '$zone')::date";

sub platform_conf
{
	return qq{
shared_preload_libraries = 'meritum_cache'
timezone = 'UTC'
max_worker_processes = 16
max_prepared_transactions = 10
meritum_cache.databases = 'postgres'
meritum_cache.timezone = '$zone'
};
}

# Tables, oracle and ids, without the extension.
sub load_platform
{
	my ($node, %param) = @_;
	my @files = ('platform.sql', 'oracle.sql');

	splice(@files, 1, 0, 'platform_fk.sql') if $param{foreign_keys};
	$node->safe_psql('postgres', slurp_file("$support/$_")) foreach @files;
	$node->safe_psql(
		'postgres', q(
		CREATE SCHEMA test;
		CREATE FUNCTION test.p(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
		$$ SELECT ('a0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
		CREATE FUNCTION test.c(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
		$$ SELECT ('c0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
		-- before the extension is there
		SET check_function_bodies = off;
		CREATE FUNCTION test.everyone() RETURNS uuid[] LANGUAGE sql STABLE AS
		$$ SELECT array_agg(provider_id) FROM
		   (SELECT provider_id FROM providers
			UNION SELECT provider_id FROM meritum_cache.analytics_cache) AS p $$;));
	return;
}

# Claims from one number to another with their details, spread over so many
# providers, some five months and the usual states.
sub add_claims
{
	my ($from, $to, $providers) = @_;

	return qq(
		INSERT INTO claims (claim_id, physician_id, patient_id, claim_type,
							state, date_of_service, submission_deadline)
		SELECT test.c(n), test.p(1 + n % $providers), NULL,
			   CASE WHEN n % 10 = 0 THEN 'WCB' ELSE 'AHCIP' END,
			   (ARRAY['SUBMITTED', 'PAID', 'REJECTED', 'ASSESSED', 'QUEUED',
					  'PAID', 'DRAFT'])[1 + n % 7],
			   $today - (n * 7 % 150)::integer, $today + (n % 20)::integer
		  FROM generate_series($from, $to) AS n;
		INSERT INTO ahcip_claim_details (claim_id, ba_number,
										 functional_centre, health_service_code,
										 submitted_fee, assessed_fee)
		SELECT test.c(n), (1 + n % 2)::text, 'F' || n % 3, 'H' || n % 9,
			   10 + n % 50, 9 + n % 50
		  FROM generate_series($from, $to) AS n WHERE n % 10 <> 0;
		INSERT INTO wcb_claim_details (wcb_claim_detail_id, claim_id)
		SELECT test.c(n), test.c(n)
		  FROM generate_series($from, $to) AS n WHERE n % 10 = 0;
		INSERT INTO wcb_invoice_lines (wcb_claim_detail_id, amount)
		SELECT test.c(n), 7.5 * n
		  FROM generate_series($from, $to) AS n WHERE n % 10 = 0;);
}

# A server whose platform is attached and refreshed.  Parameters: conf (more
# lines of postgresql.conf), init (parameters of initdb), providers, claims,
# foreign_keys, install_path (of another server than the one under test).
sub platform_server
{
	my ($name, %param) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name,
		$param{install_path} ? (install_path => $param{install_path}) : ());
	my $providers = $param{providers} // 4;
	my $claims = $param{claims} // 30 * $providers;

	$node->init(%{ $param{init} // {} });
	$node->append_conf('postgresql.conf', platform_conf());
	$node->append_conf('postgresql.conf', $param{conf} // '');
	$node->start;
	load_platform($node, %param);
	$node->safe_psql('postgres', qq(
		INSERT INTO providers (provider_id)
		SELECT test.p(n) FROM generate_series(1, $providers) AS n;
		) . add_claims(1, $claims, $providers));
	$node->safe_psql('postgres', 'CREATE EXTENSION meritum_cache');
	$node->safe_psql('postgres', 'SELECT * FROM meritum_attach()');
	is($node->safe_psql('postgres', 'CALL meritum_refresh_all_providers()')
		  =~ s/\|\d+\|/|/r,
		"$providers|[]", 'the platform is loaded, attached and refreshed');
	return $node;
}

# What is wrong in the cache, an empty string if nothing: figures that differ
# from the oracle's, or from the extension's own recomputation.
sub wrong
{
	my ($node, $db) = @_;

	return $node->safe_psql($db // 'postgres', qq(
		SELECT 'oracle', d.* FROM
			   oracle.existing_diff(test.everyone(), NULL, $today, '$zone') AS d
		 ORDER BY 2, 3, 4, 5 LIMIT 20;
		SELECT 'verify', p, v.* FROM unnest(test.everyone()) AS p,
			   meritum_verify(p) AS v LIMIT 20;));
}

# The same, with all that should be there and is not.
sub incomplete
{
	my ($node) = @_;

	return $node->safe_psql('postgres', qq(
		SELECT 'oracle', d.* FROM
			   oracle.diff(ARRAY(SELECT provider_id FROM providers
								  WHERE status = 'ACTIVE'),
						   oracle.months($today), $today, '$zone',
						   oracle.all_tables(),
						   ARRAY(SELECT metric_key FROM oracle.all_keys()
								  WHERE grain = 'monthly')) AS d
		 ORDER BY 2, 3, 4, 5 LIMIT 20;));
}

sub wait_for
{
	my ($node, $query, $name) = @_;
	my $found;

	# While the server starts again, psql may be refused and gone before it
	# was given the query, of which IPC::Run dies.
	foreach (1 .. 100)
	{
		$found = eval { $node->poll_query_until('postgres', $query) };
		last unless $@ =~ /Broken pipe/;
	}
	die $@ if $@;
	ok($found, $name);
	return;
}

# Wait until nothing is pending.
sub drained
{
	my ($node, $name) = @_;

	wait_for($node,
		'SELECT NOT EXISTS (SELECT FROM meritum_cache.pending_refresh)',
		$name // 'the worker has settled all notes');
	return;
}

# Nothing is pending and everything is right.
sub settled
{
	my ($node, $name) = @_;

	$node->poll_query_until('postgres',
		'SELECT NOT EXISTS (SELECT FROM meritum_cache.pending_refresh)')
	  or fail("$name: notes remain");
	is(wrong($node), '', $name);
	return;
}

sub pending
{
	my ($node, $condition) = @_;

	$condition //= 'true';
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM meritum_cache.pending_refresh WHERE $condition");
}

# A session that stays open.
sub session
{
	my ($node) = @_;

	return $node->background_psql('postgres', on_error_stop => 0);
}

# Run SQL in a session of its own; returns its output and its messages.
sub run_sql
{
	my ($node, $sql) = @_;
	my ($code, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	return ($out, $err);
}

# Send SQL to a session without waiting for its end; "finished" is printed
# then.
sub finish_later
{
	my ($session, $sql) = @_;

	$session->{stdin} .= "$sql;\n\\echo finished\n";
	$session->{run}->pump_nb while length $session->{stdin};
	return;
}

# Wait until the backend waits for a lock; returns whether it does.
sub waiting_for
{
	my ($node, $pid, $condition) = @_;

	$condition //= 'true';
	return $node->poll_query_until('postgres',
		"SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $pid AND NOT granted"
		  . " AND $condition)");
}

# Does the session of that backend come to rest within ten seconds?
sub idle_soon
{
	my ($node, $pid) = @_;

	foreach (1 .. 100)
	{
		return 1 if $node->safe_psql('postgres',
			"SELECT state FROM pg_stat_activity WHERE pid = $pid") eq 'idle';
		usleep(100_000);
	}
	return 0;
}

sub worker_pid
{
	my ($node) = @_;

	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'meritum_cache worker'"
		  . " AND datname = 'postgres'");
}

1;
