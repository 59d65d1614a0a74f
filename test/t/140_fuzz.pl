# 140_fuzz.pl: arguments of every kind give a right answer or a decent error.
#
# The functions that take jsonb, text and dates are called with random
# arguments, many of them malformed or far too large.  None may crash the
# server, hang, or fail with an internal error; of those that succeed some
# simple truths are checked.
#
#   SEED=N      repeats a run; the seed is printed
#   INPUTS=N    calls (default 1000; 10000 take half a minute)

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} || (time ^ $$) % 1_000_000;
my $inputs = $ENV{INPUTS} || 1000;
srand($seed);
diag("SEED=$seed INPUTS=$inputs");

sub pick { return $_[ int rand @_ ] }

sub quote
{
	my ($text) = @_;

	return 'NULL' unless defined $text;
	return "'" . $text =~ s/'/''/gr . "'";
}

# Mostly something usual, now and then something else.
sub mostly
{
	my ($usual, $odd) = @_;

	return rand() < 0.75 ? $usual->() : $odd->();
}

sub odd_text
{
	return pick(undef, '', ' ', 'NULL', "'; DROP TABLE claims; --", '%s%n%d', "\\", '"', '$1', "\t\n", '*', '-', '0',
		'x' x pick(49, 50, 51, 63, 64, 255, 8192, 300_000), "\xc3\xa9" x pick(1, 25, 40), "\xf0\x9f\x92\xb0",
		join('', map { chr(32 + int rand 95) } 1 .. int rand 40));
}

sub odd_date
{
	return pick(undef, 'infinity', '-infinity', '4713-01-01 BC', '4714-11-24 BC', '0001-01-01', '0001-12-31 BC',
		'5874897-12-31', '5874897-01-01', '294276-12-31', '9999-12-31', '10000-01-01', '2000-02-29', '1999-12-31',
		'1970-01-01', '2024-02-30', '2024-13-01', 'today', 'epoch', '', 'x');
}

sub usual_date
{
	return sprintf '20%02d-%02d-%02d', 22 + int rand 6, 1 + int rand 12, 1 + int rand 28;
}

sub date { return mostly(\&usual_date, \&odd_date) }

sub provider
{
	return mostly(sub { 'a0000000-0000-4000-8000-00000000000' . (1 + int rand 4) },
		sub { pick(undef, '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'x', '') });
}

my @metrics;

sub metric { return mostly(sub { pick(@metrics) }, \&odd_text) }

sub metric_keys
{
	return mostly(sub { 'ARRAY[' . join(', ', map { quote(pick(@metrics)) } 1 .. 1 + int rand 5) . ']' },
		sub {
			pick('NULL', "'{}'", "'{NULL}'", "'{{claims_paid,claims_rejected},{a,b}}'", "'[5:6]={claims_paid,claims_paid}'",
				"array_fill('claims_paid'::text, ARRAY[20000])", 'ARRAY[' . quote(odd_text()) . ']::text[]', "'{'") });
}

sub integer { return pick('NULL', 0, 1, -1, 60, 10, 2147483647, -2147483648, "'2147483648'") }

# A random JSON document, sometimes broken.
sub json_value
{
	my ($depth) = @_;
	my $kind = int rand($depth > 3 ? 6 : 9);

	return 'null' if $kind == 0;
	return pick('true', 'false') if $kind == 1;
	return pick(0, -0.0, 1, 1e15, '1e400', '-1e-400', '99999999999999999999999999.5', '1e131071', '1e1000000', '01', 'NaN') if $kind == 2;
	return json_string() if $kind < 6;
	return '[' . join(',', map { json_value($depth + 1) } 1 .. int rand 5) . ']' if $kind < 8;
	return '{' . join(',', map { json_string() . ':' . json_value($depth + 1) } 1 .. int rand 4) . '}';
}

sub json_string
{
	return pick('""', '"a"', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"' . ('y' x pick(1, 60, 5000)) . '"', '"claim_type"',
		'"AHCIP"', '"WCB"', '"dimensions"', '"value"', '"code"', "\"'\"", '"%s"');
}

sub odd_json
{
	return pick(undef, '', '{', '[]', '{}', 'null', '1', '"x"', '[' x 3000 . ']' x 3000, '[' x 20000, '{"a":' x 200 . '1' . '}' x 200,
		'[' . join(',', (1) x 5000) . ']', json_value(0), json_value(0), json_value(0), json_value(0));
}

sub dimensions
{
	return mostly(sub { pick(undef, '{"claim_type": "AHCIP"}', '{"ba_number": "1"}', '{"ba_number": "x", "claim_type": "WCB"}', '{}') }, \&odd_json);
}

sub filter
{
	return mostly(
		sub {
			my %f;
			$f{ pick(qw(claim_type ba_number hsc_code claim_state location_id)) } = 1 foreach 0 .. int rand 3;
			return '{' . join(', ', map {
					my $key = $_;
					my $value = sub { $key eq 'location_id' ? pick('"b0000000-0000-4000-8000-000000000001"', '"B0000000-0000-4000-8000-000000000001"', '"x"')
						  : pick('"AHCIP"', '"WCB"', '"1"', '"H1"', '"PAID"', '"paid"', '"rejected"') };
					"\"$key\": " . pick($value->(), '[' . join(', ', map { $value->() } 1 .. int rand 4) . ']', json_value(2)) } sort keys %f) . '}';
		},
		\&odd_json);
}

sub entries
{
	return odd_json() if rand() < 0.3;
	return '[' . join(', ', map {
			my @members;
			push @members, '"metric_key": ' . mostly(sub { '"' . pick(@metrics) . '"' }, sub { json_value(1) });
			push @members, "\"$_\": " . mostly(sub { '"' . usual_date() . '"' },
				sub { pick('"2024-13-01"', '"2024-02-30"', '"10000-01-01"', '"0000-01-01"', '"-001-01-01"', '" 024-01-01"', '"2024-1-1"', '"+024-01-01"', '"2024-01-01 "', json_value(1)) })
			  foreach qw(period_start period_end);
			push @members, '"value": ' . json_value(1) if rand() < 0.9;
			push @members, '"dimensions": ' . json_value(1) if rand() < 0.4;
			push @members, '"provider_id": ' . pick('"a0000000-0000-4000-8000-000000000001"', '"A0000000-0000-4000-8000-000000000001"', json_value(1)) if rand() < 0.2;
			'{' . join(', ', @members) . '}' } 1 .. 1 + int rand 4) . ']';
}

sub schedule
{
	my @field = ('*', '0', '59', '60', '*/5', '1-5', '5-1', '1,2,3', '*/0', 'mon', 'jan', 'L', '99999999999', '-1', '', '1-', '/2', '1-5/2', 'mon-fri');

	return mostly(sub { join ' ', map { pick(@field) } 1 .. pick(5, 5, 5, 5, 4, 6) }, sub { pick('@daily', '@never', '0 0 30 2 *', '0 0 29 2 *', '* ' x 5000, odd_text()) });
}

sub timestamp
{
	return mostly(sub { usual_date() . sprintf(' %02d:%02d', rand 24, rand 60) },
		sub { pick('infinity', '-infinity', '4713-01-01 00:00 BC', '294276-12-31 23:59:59', '0001-01-01 BC', undef) });
}

sub zone { return pick('UTC', 'America/Edmonton', 'Europe/Berlin', undef, '', 'Atlantis', 'UTC+25', 'posixrules', '../etc', odd_text()) }

# A call, and what is true of its result: a condition that may not be false.
my @calls = (
	sub {
		my ($first, $last, $keys) = (date(), date(), metric_keys());
		return sprintf 'SELECT count(*) = count(DISTINCT metric_key) FROM meritum_compute_metrics(%s, %s, %s, %s, %s, %s)',
		  quote(provider()), $keys, quote($first), quote($last), quote(filter()), quote(pick(undef, date()));
	},
	sub {
		my ($provider, $first, $last, $dimensions) = (quote(provider()), quote(date()), quote(date()), quote(dimensions()));
		return "SELECT bool_and(provider_id = $provider AND period_start >= $first AND period_end <= $last"
		  . " AND (${dimensions}::jsonb IS NULL OR dimensions \@> $dimensions)) FROM meritum_get_metrics($provider, "
		  . metric_keys() . ", $first, $last, $dimensions)";
	},
	sub {
		my $value = quote(odd_json());
		return sprintf 'SELECT value = %s::jsonb FROM meritum_upsert_metric(%s, %s, %s, %s, %s, %s)',
		  $value, quote(provider()), quote(metric()), quote(date()), quote(date()), quote(dimensions()), $value;
	},
	sub { return sprintf 'SELECT meritum_bulk_upsert(%s, %s) >= 0', quote(provider()), quote(entries()) },
	sub { return sprintf 'SELECT meritum_bulk_upsert(%s, %s) >= 0', quote('a0000000-0000-4000-8000-000000000001'), quote(entries()) },
	sub { return sprintf 'SELECT meritum_delete_expired_entries(%s, %s) >= 0', quote(provider()), quote(date()) },
	sub { return sprintf 'SELECT bool_and(computed_at <= now()) FROM meritum_get_stale_entries(%s, %s)', quote(provider()), integer() },
	sub { return sprintf 'SELECT meritum_is_stale(%s, %s) IS NOT NULL', quote(provider()), integer() },
	sub { return sprintf 'SELECT meritum_refresh_provider_metrics(%s, %s, %s) >= 0', quote(provider()), metric_keys(), quote(date()) },
	sub {
		return sprintf 'SELECT meritum_handle_claim_state_change(%s, %s, %s, %s) >= 0', quote(provider()),
		  quote(mostly(sub { pick('AHCIP', 'WCB') }, \&odd_text)), quote(mostly(sub { pick(qw(paid PAID rejected submitted adjusted)) }, \&odd_text)),
		  pick('NULL', 'test.c(1)', 'test.c(5)', quote(provider()));
	},
	sub {
		my $after = quote(timestamp());
		return sprintf 'SELECT meritum_next_run(%s, %s, %s) > %s', quote(schedule()), $after, quote(zone()), $after;
	},
	sub {
		return sprintf 'SELECT meritum_schedule(%s, %s, %s, %s, %s, %s) IS NOT NULL', quote(odd_text()), quote(schedule()), quote(odd_text()),
		  quote(zone()), pick('true', 'false', 'NULL'),
		  quote(pick(undef, '1 min', '0', '-1 day', '178000000 years', '1 month -30 days', '0.0001 ms'));
	},
	sub { return sprintf 'SELECT meritum_unschedule(%s) IS NOT NULL', quote(odd_text()) },
	sub {
		return 'SELECT count(*) > 0 FROM meritum_attach(columns => '
		  . quote(rand() < 0.5 ? odd_json() : '{"claims": {' . pick('"state"', '"physician_id"', json_string()) . ': ' . pick('"state"', '"claim_id"', json_value(1)) . '}}') . ')';
	},
	sub { return sprintf 'SELECT meritum_grant(%s, %s, %s) IS NOT NULL', quote(pick('fuzzy', 'no one', '', '-', '4294967295', undef)), quote(mostly(sub { pick(qw(reader operator admin)) }, \&odd_text)), pick('true', 'false', 'NULL') },
	sub { return sprintf 'SELECT meritum_set_provider(%s, true) IS NOT NULL', quote(provider()) });

my $node = platform_server('fuzz', providers => 4, claims => 60);
@metrics = split /\n/, $node->safe_psql('postgres', 'SELECT metric_key FROM meritum_cache.metric ORDER BY 1');
my $more = sub {
	my ($name, $call) = @_;
	push @calls, $call if $node->safe_psql('postgres', "SELECT count(*) FROM pg_proc WHERE proname = '$name'") > 0;
};
$more->('meritum_handle_event', sub { return sprintf 'SELECT meritum_handle_event(%s, %s) >= 0', quote(mostly(sub { pick(qw(paid rejected po.received)) }, \&odd_text)), quote(provider()) });
$more->('meritum_invalidate', sub { return sprintf 'SELECT meritum_invalidate(%s, %s) >= 0', quote(provider()), quote(mostly(sub { pick('claims', 'fr:', 'r') }, \&odd_text)) });
$more->('meritum_create_metric', sub {
	return sprintf 'SELECT meritum_create_metric(%s, %s, %s, %s) IS NOT NULL', quote(mostly(sub { 'test:' . int rand 9 }, \&odd_text)),
	  quote(mostly(sub { pick('SELECT NULL::jsonb, to_jsonb(1)', 'SELECT NULL::jsonb, to_jsonb($2 - $3)', 'SELECT $1', 'SELECT 1; SELECT 2', 'DELETE FROM claims RETURNING NULL::jsonb, NULL::jsonb', 'SELECT $4', 'BEGIN') }, \&odd_text)),
	  quote(mostly(sub { pick('monthly', 'snapshot') }, \&odd_text)), quote(pick(undef, 'x', odd_text())) });
$more->('meritum_drop_metric', sub { return sprintf 'SELECT meritum_drop_metric(%s) IS NOT NULL', quote(pick('claims_paid', 'test:1', 'test:2', odd_text())) });
$more->('meritum_attach_event', sub { return sprintf 'SELECT meritum_attach_event(%s, %s, %s) IS NOT NULL', quote(pick('claims', 'patients', 'pg_class', 'x', undef)), quote(odd_text()), quote(pick('physician_id', 'state', 'ctid', '', undef, 'no')) });
$node->safe_psql('postgres', q(
	CREATE ROLE fuzzy;
	-- the answer, which may not be false, or the SQLSTATE; nothing is kept
	CREATE FUNCTION test.call(p_command text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		v_answer boolean;
		v_result text;
	BEGIN
		BEGIN
			EXECUTE p_command INTO v_answer;
			v_result := coalesce(v_answer, true);
			IF random() < 0.5 THEN
				RAISE SQLSTATE 'OK000';
			END IF;
		EXCEPTION WHEN SQLSTATE 'OK000' THEN
			NULL;
		WHEN OTHERS THEN
			v_result := SQLSTATE;
		END;
		RETURN v_result;
	END
	$$;));
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my %outcomes;
my @bad;
my $done = 0;

while ($done < $inputs && @bad < 10)
{
	my @commands = map { pick(@calls)->() } 1 .. ($inputs - $done < 200 ? $inputs - $done : 200);
	my ($code, $out, $err) = $node->psql('postgres', join "\n",
		"SET statement_timeout = '60s'; SET client_min_messages = error; SELECT setseed(0.5) \\g /dev/null",
		map { 'SELECT test.call(' . quote($_) . ');' } @commands);
	my @results = split /\n/, $out;

	foreach my $i (0 .. $#commands)
	{
		my $result = $results[$i] // 'nothing';

		$outcomes{$result}++;
		# false; internal errors, constraints, timeouts, lost connections
		push @bad, substr($commands[$i], 0, 1000) . "\n    gave $result"
		  if $result !~ /^(true|[0-9A-Z]{5})$/ || $result =~ /^(XX|57|08|58|25|23)/;
		last if $result eq 'nothing';
	}
	$done += @commands;
}

is(join("\n", @bad), '', "$done calls gave an answer or a decent error");
cmp_ok($outcomes{true} // 0, '>', $done / 20, 'some gave an answer');
cmp_ok(scalar(keys %outcomes), '>', 6, 'and others errors of several kinds');
note(join ' ', map { "$_=$outcomes{$_}" } sort keys %outcomes);
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server has not been restarted');
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP/, 'nor has a process crashed');
is($node->safe_psql('postgres', "SELECT count(*) > 0 FROM claims"), 't', 'the claims are there');

$node->stop;
done_testing();
