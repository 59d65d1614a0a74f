# 150_content.pl: what is in a claim stays in it.
#
# Recognisable values are planted in every column of claims and details, then
# everything is made to fail that can be.  None of the values may show in a
# message to the client, in the server's log, in the tables that tell of
# failures, in a notification or in what processes say of themselves.  Texts of
# statements are the application's own and are kept out of the log.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = platform_server('content', conf => q(
	log_statement = none
	log_min_error_statement = panic
	log_error_verbosity = verbose
	log_min_messages = info
	meritum_cache.log_min_duration = 0
	meritum_cache.log_invalidations = on
	meritum_cache.notify_channel = 'content'
));

# Texts, amounts (also as ten-thousandths), dates and ids.  The dates are of the
# last month, and not such as anything else has.
my ($served, $deadline) = split /\|/, $node->safe_psql('postgres',
	"SELECT m + 12, m + 18 FROM (SELECT date_trunc('month', now() - interval '1 month')::date AS m) AS m");
my $planted = qr/SECRET|271828|314159|161803|$served|$deadline|5ec5e7/;

my $setup = q(
	CREATE FUNCTION test.s(kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
	$$ SELECT ('5ec5e7' || kind || '0-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
	ALTER TABLE claims ALTER validation_result TYPE json;
	-- text wherever it goes in, as long as the column takes
	CREATE FUNCTION test.plant(p_table regclass, p_where text) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		v_set text;
	BEGIN
		SELECT string_agg(format('%I = %L', attname, left('SECRET ' || attname, CASE WHEN atttypmod > 4 THEN atttypmod - 4 ELSE 100 END)), ', ')
		  INTO v_set FROM pg_attribute
		 WHERE attrelid = p_table AND attnum > 0 AND NOT attisdropped
		   AND atttypid IN ('text'::regtype, 'varchar'::regtype) AND (atttypmod = -1 OR atttypmod - 4 >= 6)
		   AND attname NOT IN ('state', 'claim_type', 'new_state', 'previous_state', 'functional_centre', 'status', 'import_source', 'actor_context', 'action');
		IF v_set IS NOT NULL THEN
			EXECUTE format('UPDATE %s SET %s WHERE %s', p_table, v_set, p_where);
		END IF;
	END
	$$;
	INSERT INTO patients (patient_id, phn_province) SELECT test.s('a', n), 'BC' FROM generate_series(1, 8) AS n;
	INSERT INTO claims (claim_id, physician_id, patient_id, claim_type, state, date_of_service, submission_deadline, validation_result)
	SELECT test.s('c', n), test.p(1 + n % 4), test.s('a', n), CASE WHEN n > 6 THEN 'WCB' ELSE 'AHCIP' END, 'PAID', '$served', '$deadline', '{"timing_tier": "SECRET tier"}'
	  FROM generate_series(1, 8) AS n;
	INSERT INTO ahcip_claim_details (claim_id, functional_centre, submitted_fee, assessed_fee, assessment_explanatory_codes)
	SELECT test.s('c', n), 'F1', 2718.28, 3141.59, '["SECRET code"]' FROM generate_series(1, 6) AS n;
	INSERT INTO wcb_claim_details (wcb_claim_detail_id, claim_id) SELECT test.s('d', n), test.s('c', n) FROM generate_series(7, 8) AS n;
	INSERT INTO wcb_invoice_lines (wcb_claim_detail_id, amount) SELECT test.s('d', n), 1618.03 FROM generate_series(7, 8) AS n;
	SELECT test.plant('claims', 'claim_id::text LIKE ''5ec5e7%'''), test.plant('ahcip_claim_details', 'claim_id::text LIKE ''5ec5e7%'''),
		   test.plant('wcb_claim_details', 'claim_id::text LIKE ''5ec5e7%''');
	INSERT INTO claim_audit_history (claim_id, new_state, reason) SELECT test.s('c', n), 'REJECTED', 'SECRET reason' FROM generate_series(1, 8) AS n;);
$setup =~ s/\$served/$served/g;
$setup =~ s/\$deadline/$deadline/g;
$node->safe_psql('postgres', $setup);
cmp_ok($node->safe_psql('postgres', q(SELECT count(*) FROM claims AS c, jsonb_each_text(to_jsonb(c)) AS v WHERE v.value LIKE 'SECRET%')),
	'>', 8, 'the values are planted');
$node->safe_psql('postgres', 'CALL meritum_refresh_all_providers()');
is(wrong($node), '', 'and the figures are right');

my $said = '';
my $heard = '';
my $failures = 0;

# Run SQL in a session of its own and keep all that it says.
sub run_and_keep
{
	my ($sql) = @_;
	my ($out, $err) = run_sql($node, "LISTEN content;\n$sql");

	$said .= $err;
	$heard .= join '', map { "$_\n" } grep { /^Asynchronous notification/ } split /\n/, $out;
	$failures++ while $err =~ /(?:ERROR|WARNING): /g;
	return;
}

# Everything that reads or refreshes provider 2, whose claims are the first,
# fifth and so on, and some that is about others.
my @all_ways = (
	'UPDATE claims SET row_version = row_version + 1, state = CASE state WHEN \'PAID\' THEN \'ASSESSED\' ELSE \'PAID\' END WHERE claim_id = test.s(\'c\', 1)',
	'SET meritum_cache.on_error = error; UPDATE claims SET state = \'ADJUSTED\' WHERE claim_id = test.s(\'c\', 1)',
	'SET meritum_cache.refresh_mode = async; UPDATE claims SET state = CASE state WHEN \'PAID\' THEN \'ASSESSED\' ELSE \'PAID\' END WHERE claim_id = test.s(\'c\', 1)',
	'SELECT meritum_refresh_provider_metrics(test.p(2))',
	q(SELECT count(*) FROM meritum_get_metrics(test.p(2), '{claims_paid,top_hsc_codes}', '2020-01-01', '2099-12-31')),
	q(BEGIN; SELECT count(*) FROM meritum_get_metrics(test.p(2), '{claims_paid,top_hsc_codes}', '2020-01-01', '2099-12-31'); COMMIT),
	q(SELECT count(*) FROM meritum_compute_metrics(test.p(2), '{claims_paid,rejection_by_code}', current_date - 400, current_date)),
	'SELECT count(*) FROM meritum_verify(test.p(2))', 'SELECT count(*) FROM meritum_verify(test.p(2), true)',
	q(SELECT meritum_handle_claim_state_change(test.p(2), 'AHCIP', 'paid', test.s('c', 1))),
	'SELECT meritum_request_refresh(test.p(2))', q(SELECT meritum_handle_event('paid', test.p(2))),
	'CALL meritum_refresh_all_providers()',
	'BEGIN; SELECT meritum_detach(); SELECT count(*) FROM meritum_attach(); ROLLBACK');

# What goes wrong, and how it is set right again.
my @troubles = (
	[ 'a fee that is no number',
		q(UPDATE ahcip_claim_details SET submitted_fee = 'NaN', modifier_1 = 'SECRET' WHERE claim_id = test.s('c', 1)),
		q(UPDATE ahcip_claim_details SET submitted_fee = 2718.28 WHERE claim_id = test.s('c', 1)) ],
	[ 'a fee that is too large',
		q(ALTER TABLE ahcip_claim_details ALTER submitted_fee TYPE numeric; UPDATE ahcip_claim_details SET submitted_fee = 27182818284590452353602874713527 WHERE claim_id = test.s('c', 1)),
		q(UPDATE ahcip_claim_details SET submitted_fee = 2718.28 WHERE claim_id = test.s('c', 1)) ],
	[ 'JSON that cannot be read',
		q(UPDATE claims SET validation_result = '{"timing_tier": "SECRET \u0000", "note": "SECRET"}' WHERE claim_id = test.s('c', 1)),
		q(UPDATE claims SET validation_result = '{"timing_tier": "SECRET tier"}' WHERE claim_id = test.s('c', 1)) ],
	[ 'facts that are refused',
		q(ALTER TABLE meritum_cache.claim_fact ADD CONSTRAINT refused CHECK (hsc_code IS NULL OR state <> 'ASSESSED' AND state <> 'PAID') NOT VALID),
		q(ALTER TABLE meritum_cache.claim_fact DROP CONSTRAINT refused) ],
	[ 'facts that a trigger refuses, and tells',
		q(CREATE FUNCTION test.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused %', to_jsonb(NEW) USING DETAIL = to_jsonb(NEW)::text, HINT = to_jsonb(NEW)::text; END $$;
		  CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON meritum_cache.claim_fact FOR EACH ROW EXECUTE FUNCTION test.refuse()),
		q(DROP TRIGGER refuse ON meritum_cache.claim_fact; DROP FUNCTION test.refuse()) ],
	[ 'two claims with one id',
		q(ALTER TABLE claims DROP CONSTRAINT claims_pkey CASCADE; INSERT INTO claims SELECT * FROM claims WHERE claim_id = test.s('c', 1)),
		q(DELETE FROM claims WHERE claim_id = test.s('c', 1) AND ctid <> (SELECT min(ctid) FROM claims WHERE claim_id = test.s('c', 1))) ],
	[ 'figures that are refused',
		q(ALTER TABLE meritum_cache.analytics_cache ADD CONSTRAINT refused CHECK (metric_key NOT IN ('claims_paid', 'top_hsc_codes', 'rejection_by_code')) NOT VALID),
		q(ALTER TABLE meritum_cache.analytics_cache DROP CONSTRAINT refused) ],
	[ 'claims that changed behind our back',
		q(SET session_replication_role = replica; UPDATE claims SET state = 'ADJUSTED', notes = 'SECRET' WHERE claim_id = test.s('c', 5)),
		q(UPDATE claims SET state = 'PAID' WHERE claim_id = test.s('c', 5)) ]);

foreach my $trouble (@troubles)
{
	my ($name, $break, $mend) = @$trouble;
	my $before = $failures;

	run_and_keep($break);
	run_and_keep($_) foreach @all_ways;
	# the worker fails too, at least once
	$node->poll_query_until('postgres',
		q(SELECT NOT EXISTS (SELECT FROM meritum_cache.pending_refresh WHERE next_attempt_at <= clock_timestamp()) OR EXISTS (SELECT FROM meritum_cache.pending_refresh WHERE attempts > 0)));
	cmp_ok($failures, '>', $before, "$name: there were failures");
	$said .= $node->safe_psql('postgres', q(
		SELECT to_jsonb(p) - 'claims' - 'keys' FROM meritum_cache.pending_refresh AS p;
		SELECT to_jsonb(f) FROM meritum_cache.failed_refresh AS f;
		SELECT to_jsonb(r) FROM meritum_cache.job_run AS r;
		SELECT to_jsonb(s) FROM meritum_cache.job_status AS s;
		SELECT to_jsonb(s) FROM meritum_cache.stat_refresh AS s;
		SELECT to_jsonb(s) FROM meritum_cache.stat_provider AS s;
		SELECT to_jsonb(s) FROM meritum_cache.provider_state AS s;
		SELECT to_jsonb(a) FROM pg_stat_activity AS a WHERE backend_type LIKE 'meritum%';));
	$node->safe_psql('postgres', "$mend; SELECT meritum_refresh_provider_metrics(test.p(n)) FROM generate_series(1, 4) AS n");
	drained($node, "$name: set right");
}

# ----------------------------------------------------------------------
# Code of others: custom metrics and jobs whose errors quote a claim
# ----------------------------------------------------------------------

$node->safe_psql('postgres', q(
	SELECT meritum_create_metric('test:quote', 'SELECT NULL::jsonb, to_jsonb(min(c.notes)::integer) FROM public.claims c WHERE c.physician_id = $1 AND $2 <= $3', 'monthly');
	SELECT meritum_schedule('quote', '@yearly', 'SELECT notes::integer FROM public.claims WHERE notes LIKE ''S%''');
	SELECT meritum_schedule('tell', '@yearly', $$DO 'BEGIN RAISE EXCEPTION ''%'', (SELECT max(notes) FROM public.claims); END'$$);
	SELECT meritum_run_job('quote'), meritum_run_job('tell');));
my $before = $failures;
run_and_keep($_) foreach @all_ways[ 0 .. $#all_ways - 1 ];
run_and_keep(q(SELECT count(*) FROM meritum_get_metrics(test.p(2), '{test:quote}', '2020-01-01', '2099-12-31')));
run_and_keep(q(SELECT meritum_invalidate(test.p(2), 'test:')));
cmp_ok($failures, '>', $before, 'a metric that quotes claims fails');
wait_for($node, q(SELECT count(*) = 2 FROM meritum_cache.job_run WHERE job_name IN ('quote', 'tell') AND status = 'failed'),
	'jobs that quote claims fail');
$said .= $node->safe_psql('postgres', q(
	SELECT to_jsonb(p) - 'claims' - 'keys' FROM meritum_cache.pending_refresh AS p;
	SELECT to_jsonb(r) FROM meritum_cache.job_run AS r;
	SELECT to_jsonb(s) FROM meritum_cache.job_status AS s;
	SELECT to_jsonb(a) FROM pg_stat_activity AS a WHERE backend_type LIKE 'meritum%';));
is($node->safe_psql('postgres', q(SELECT count(*) FROM meritum_cache.job_run WHERE job_name IN ('quote', 'tell') AND coalesce(message, '') = '')),
	'0', 'their runs say something');

# ----------------------------------------------------------------------
# What was said
# ----------------------------------------------------------------------

cmp_ok($failures, '>', 50, 'many things failed');
sub leaks
{
	my ($text) = @_;
	my %seen;

	return join("\n", grep { !$seen{ s/\d+/N/gr }++ } grep { /$planted/i } split /\n/, $text);
}
is(leaks($said), '', 'no message or table shows a value');
my $log = slurp_file($node->logfile);
like($log, qr/cache_refresh provider=/, 'refreshes are logged');
like($log, qr/could not refresh|background worker failed|SQLSTATE/i, 'failures are logged');
is(leaks($log), '', 'nor does the log');
like($heard, qr/notification "content" with payload/, 'notifications are heard');
is(leaks($heard), '', 'and show none');

$node->stop;
done_testing();
