# floor.pl: what reading and writing alone would cost in commit mode.
#
# A: random claims get a new state, one a transaction, on untouched tables
# B: the same with a trigger that reads the facts of the claim's month and
#    writes 32 rows of the cache, as many as such a change affects, and that
#    derives, compares and computes nothing

use strict;
use warnings FATAL => 'all';
use Bench;

row(
	'floor-150' => {
		what => "only reading the month's facts and writing 32 rows, 150 claims/month",
		against => 'untouched tables, 2 clients, synchronous_commit off',
		unit => 'transactions/s' },
	'floor-1200' => {
		what => 'the same, 1,200 claims/month',
		against => 'untouched tables, 2 clients, synchronous_commit off',
		unit => 'transactions/s' });

my ($plain, $attached) = reference();
setup(
	databases => { plain => $plain, floor => $attached },
	settings => { synchronous_commit => 'off' });
sql('floor', <<~'SQL');
	DROP TRIGGER meritum_cache_row ON claims;
	CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
	DECLARE
		first date := date_trunc('month', NEW.date_of_service)::date;
		cells tid[];
	BEGIN
		PERFORM count(f.state), sum(f.assessed_fee) FROM meritum_cache.claim_fact f
		WHERE f.provider_id = NEW.physician_id
		AND f.date_of_service BETWEEN first AND first + 30;
		SELECT array_agg(c.ctid) INTO cells
		FROM (SELECT ctid FROM meritum_cache.analytics_cache
			  WHERE provider_id = NEW.physician_id AND period_start = first
			  AND metric_key IN ('claims_submitted', 'claims_assessed', 'claims_paid',
				  'claims_rejected', 'rejection_rate_monthly', 'revenue_monthly')
			  LIMIT 32) AS c;
		UPDATE meritum_cache.analytics_cache SET computed_at = clock_timestamp()
		WHERE ctid = ANY (cells);
		RETURN NULL;
	END $$;
	CREATE TRIGGER touch AFTER UPDATE ON claims FOR EACH ROW EXECUTE FUNCTION touch();
	SQL

foreach my $per_month (150, 1200)
{
	my %load = (clients => 2, script => claim_update($per_month), rows_of => 'claims');
	compare("floor-$per_month",
		repetitions => 2,
		A => sub { pgbench('plain', %load)->{tps} },
		B => sub { pgbench('floor', %load)->{tps} });
}
