# 080_standby.pl: a streaming standby reads exact figures and stores nothing;
# after its promotion it takes over.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The primary has no worker for the database, so that notes stay.
my $primary = platform_server('primary',
	init => { allows_streaming => 1 },
	conf => "meritum_cache.databases = 'template1'\nhot_standby_feedback = on\n");
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "meritum_cache.databases = 'postgres'\n");
$standby->start;

my $months = "(date_trunc('month', now()) - interval '11 months')::date, (date_trunc('month', now()) + interval '1 month - 1 day')::date";
my $keys = q(ARRAY(SELECT metric_key FROM oracle.all_keys() WHERE grain = 'monthly'));

# What readers on the standby get, against the oracle on the same server.
sub readers_wrong
{
	my ($server) = @_;
	return $server->safe_psql('postgres', qq(
		WITH got AS (
			SELECT m.provider_id, m.metric_key::text, m.period_start, m.period_end,
				   m.dimensions, m.value
			  FROM unnest(test.everyone()) AS p,
				   meritum_get_metrics(p, $keys, $months) AS m),
		wanted AS MATERIALIZED (
			SELECT * FROM oracle.cells(ARRAY(SELECT provider_id FROM providers),
				oracle.months((now() AT TIME ZONE 'America/Edmonton')::date),
				(now() AT TIME ZONE 'America/Edmonton')::date, 'America/Edmonton',
				oracle.all_tables()) AS c
			 WHERE c.metric_key = ANY ($keys))
		(SELECT 'got', * FROM (SELECT * FROM got EXCEPT ALL SELECT * FROM wanted) AS x
		 UNION ALL
		 SELECT 'wanted', * FROM (SELECT * FROM wanted EXCEPT ALL SELECT * FROM got) AS y)
		LIMIT 20));
}

sub computed_wrong
{
	my ($server) = @_;
	return $server->safe_psql('postgres', qq(
		SELECT p, m.month, c.value, m.value
		  FROM unnest(test.everyone()) AS p,
			   LATERAL (SELECT period_start AS month, metric_key, value
						  FROM oracle.cells(ARRAY[p],
								oracle.months((now() AT TIME ZONE 'America/Edmonton')::date, 3),
								(now() AT TIME ZONE 'America/Edmonton')::date,
								'America/Edmonton', oracle.all_tables())
						 WHERE metric_key IN ('revenue_monthly', 'claims_paid', 'rejection_rate_monthly')
						   AND dimensions IS NULL) AS m,
			   LATERAL meritum_compute_metrics(p, ARRAY[m.metric_key], m.month,
					(m.month + interval '1 month - 1 day')::date) AS c
		 WHERE c.value <> m.value));
}

sub contents
{
	my ($server) = @_;
	return $server->safe_psql('postgres', q(
		SELECT count(*), max(computed_at), sum(hashtext(value::text)::bigint)
		  FROM meritum_cache.analytics_cache));
}

$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 't', 'the standby is one');
is(readers_wrong($standby), '', 'readers get exact figures');
is(computed_wrong($standby), '', 'computed figures are exact');

# A claim committed after its detail: the note names no provider yet.
$primary->safe_psql('postgres', q(
	BEGIN;
	INSERT INTO claims (claim_id, physician_id, state, date_of_service)
	VALUES (test.c(1001), test.p(3), 'PAID', current_date);
	PREPARE TRANSACTION 'claim';
	INSERT INTO ahcip_claim_details (claim_id, submitted_fee, assessed_fee)
	VALUES (test.c(1001), 20, 17.50);
	COMMIT PREPARED 'claim'));
$primary->wait_for_catchup($standby);
is(readers_wrong($standby), '', 'a claim committed after its detail: readers get both');

# With notes pending: claims changed, moved, added and removed, a provider
# that is new and one that is gone
$primary->safe_psql('postgres', q(
	SET meritum_cache.refresh_mode = async;
	UPDATE claims SET state = 'PAID' WHERE claim_id IN (test.c(1), test.c(2), test.c(3), test.c(4));
	UPDATE claims SET physician_id = test.p(2), date_of_service = date_of_service - 31
	 WHERE claim_id IN (test.c(5), test.c(6), test.c(7), test.c(8));
	UPDATE ahcip_claim_details SET assessed_fee = 123.45, ba_number = '7'
	 WHERE claim_id IN (test.c(9), test.c(11));
	DELETE FROM claims WHERE claim_id = test.c(12);
	INSERT INTO practice_locations (provider_id, name, functional_centre)
	VALUES (test.p(1), 'Here', 'F1'), (test.p(2), 'There', 'F2');
	INSERT INTO providers (provider_id) VALUES (test.p(5));
	INSERT INTO claims (claim_id, physician_id, state, date_of_service)
	VALUES (test.c(1000), test.p(5), 'PAID', current_date);
	DELETE FROM claims WHERE physician_id = test.p(4);
	DELETE FROM providers WHERE provider_id = test.p(4);
	BEGIN ISOLATION LEVEL SERIALIZABLE;
	UPDATE claims SET state = 'ADJUSTED' WHERE claim_id = test.c(10);
	COMMIT;));
$primary->wait_for_catchup($standby);
cmp_ok(pending($standby), '>', 4, 'notes are pending on the standby');
isnt(wrong($primary), '', 'and the stored figures are behind');
my $before = contents($standby);
is(readers_wrong($standby), '', 'readers on the standby get exact figures nevertheless');
is(computed_wrong($standby), '', 'and so do those that compute');
is($standby->safe_psql('postgres', 'SELECT meritum_is_stale(test.p(1))'), 't', 'stale, it says');
is($standby->safe_psql('postgres', 'SELECT pending > 0 FROM meritum_freshness(test.p(1))'),
	't', 'and why');
isnt($standby->safe_psql('postgres', 'SELECT count(*) FROM meritum_verify(test.p(1))'),
	0, 'verify works there');
is(contents($standby), $before, 'nothing was stored');

# What writes says that it cannot
foreach my $sql ('SELECT meritum_refresh_provider_metrics(test.p(1))',
	'SELECT meritum_request_refresh(test.p(1))',
	'SELECT * FROM meritum_verify(test.p(1), true)',
	q(SELECT meritum_handle_claim_state_change(test.p(1), 'AHCIP', 'PAID')),
	q(SELECT meritum_upsert_metric(test.p(1), 'claims_paid', '2024-01-01', '2024-01-31', NULL, '{}')),
	q(SELECT meritum_bulk_upsert(test.p(1), '[{"metric_key": "claims_paid", "period_start": "2024-01-01", "period_end": "2024-01-31", "value": 1}]')),
	q(SELECT meritum_delete_expired_entries(test.p(1), '2020-01-01')),
	'CALL meritum_refresh_all_providers()', 'CALL meritum_cleanup_old_entries()')
{
	my ($out, $err) = run_sql($standby, "$sql;");
	like($err, qr/ERROR:  25006: .* in a read-only transaction/, "$sql: read-only");
}

# Processes
is($standby->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'meritum_cache %'"),
	0, 'no worker is at work on the standby');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM meritum_cache.job_run WHERE job_name <> \'nightly_refresh\''),
	0, 'no job has run');

# Promotion: the worker takes over, and the job that is due runs once.
$primary->safe_psql('postgres', q(
	CREATE TABLE made (at timestamptz);
	SELECT meritum_schedule('due', '0 2 * * *', 'INSERT INTO made VALUES (clock_timestamp())');
	INSERT INTO meritum_cache.job_state (name, schedule, timezone, next_run_at)
	VALUES ('due', '0 2 * * *', 'America/Edmonton', now() - interval '3 days')));
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$standby->promote;
wait_for($standby,
	q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'meritum_cache worker'),
	'after the promotion there is a worker');
settled($standby, 'the notes are settled and the figures right');
is(readers_wrong($standby), '', 'readers get exact figures');
wait_for($standby,
	q(SELECT count(*) = 1 FROM meritum_cache.job_run WHERE job_name = 'due' AND status = 'succeeded'),
	'the job that was due runs');
$standby->restart;
wait_for($standby,
	q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'meritum_cache worker'),
	'a restart');
my $run = $standby->safe_psql('postgres', q(SELECT meritum_run_job('cleanup')));
wait_for($standby, "SELECT status = 'succeeded' FROM meritum_cache.job_run WHERE run_id = $run",
	'another job runs');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM made'), 1, 'the one that was due ran once');
$standby->safe_psql('postgres', "UPDATE claims SET state = 'REJECTED' WHERE claim_id IN (test.c(1), test.c(2))");
settled($standby, 'changes are refreshed as on any server');
is(incomplete($standby), '', 'nothing is missing') if $standby->safe_psql('postgres',
	'CALL meritum_refresh_all_providers()');

$standby->stop;
unlike(slurp_file($_->logfile), qr/PANIC|TRAP|segmentation|signal 11/i,
	'no process has crashed')
  foreach $primary, $standby;

done_testing();
