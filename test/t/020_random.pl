# 020_random.pl: random transactions against the oracle.
#
# A small platform of a few providers is changed by random transactions of
# every kind of statement that an application, or its administrator, may run.
# After each commit the cache must hold what test/support/oracle.sql makes of
# the source tables: every figure that is there must be right and no note of a
# provider may be pending; now and then everything is brought up to date and must then be
# complete as well.  No background worker is at work here, so that what is
# right was made right by the transaction itself.
#
# Environment:
#   SEED          the run to repeat (default: from the clock; always printed)
#   TRANSACTIONS  how many (default 300)
#   CHECK_EVERY   compare after each so many transactions, and after the last
#                 (default 1)
#   RANDOM_KEYS   24 compares the first 24 metrics only (default: all forty)
#   REFRESH_MODE  commit (default), or async: readers settle what is pending

use strict;
use warnings FATAL => 'all';

use Digest::MD5 qw(md5_hex);
use FindBin;
use POSIX qw(strftime);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::Local qw(timegm);

my $zone = 'America/Edmonton';
my $seed = $ENV{SEED} || time;
my $transactions = $ENV{TRANSACTIONS} || 300;
my $check_every = $ENV{CHECK_EVERY} || 1;
my $mode = $ENV{REFRESH_MODE} || 'commit';
my $keys =
  ($ENV{RANDOM_KEYS} // '') eq '24' ? 'oracle.metrics_24()' : 'NULL';
my $full_check_every = 20;

diag("SEED=$seed TRANSACTIONS=$transactions REFRESH_MODE=$mode");

sub chance { return rand() < shift; }
sub number { my ($from, $to) = @_; return $from + int(rand($to - $from + 1)); }
sub pick { return $_[ int(rand(@_)) ]; }

# One of (value => weight, ...).
sub weighted
{
	my @list = @_;
	my ($sum, @pairs) = (0);
	while (my ($value, $weight) = splice(@list, 0, 2))
	{
		push @pairs, [ $value, $weight ];
		$sum += $weight;
	}
	my $left = rand($sum);
	for my $pair (@pairs)
	{
		$left -= $pair->[1];
		return $pair->[0] if $left < 0;
	}
	return $pairs[-1][0];
}

# An SQL literal; undef is NULL.
sub quote
{
	my ($value) = @_;
	return 'NULL' unless defined $value;
	$value =~ s/'/''/g;
	return "'$value'";
}

sub id
{
	my ($kind, $number) = @_;
	my $hex = md5_hex("$kind$number");
	return join '-', unpack('A8 A4 A4 A4 A12', $hex);
}

# ----------------------------------------------------------------------
# The platform
# ----------------------------------------------------------------------

my $node = PostgreSQL::Test::Cluster->new('random');
$node->init;
$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'meritum_cache'
timezone = '$zone'
fsync = off
# To compile the oracle takes seconds, to run it does not; and whether it is
# compiled hangs on when its tables were last analyzed.
jit = off
autovacuum = off
max_prepared_transactions = 5
meritum_cache.databases = 'postgres'
meritum_cache.timezone = '$zone'
meritum_cache.refresh_mode = '$mode'
# a commit settles all it touched, however much that is
meritum_cache.commit_limit = 1000000
});
$node->start;
# Text is ordered by bytes in the figures, whatever the database's collation:
# take one of natural language where there is any.
my $icu = $node->safe_psql('postgres',
	"SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'en-x-icu')");
$node->safe_psql('postgres',
	"CREATE DATABASE platform TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"
	  . ($icu eq 't' ? " LOCALE_PROVIDER icu ICU_LOCALE 'en'" : ''));

for my $file ('platform.sql', 'oracle.sql')
{
	$node->safe_psql('platform', slurp_file("$FindBin::Bin/../support/$file"));
}
$node->safe_psql('platform', 'CREATE EXTENSION meritum_cache');

my $now = "(now() AT TIME ZONE '$zone')::date";
my ($year, $month, $day) = split /-/,
  $node->safe_psql('platform', "SELECT to_char($now, 'YYYY-MM-DD')");

# The random numbers begin here, after the cluster took its own.
srand($seed);

# Five providers that the platform knows, the last without claims, and one
# that it does not know.
my @providers = map { id('provider', $_) } 1 .. 5;
my @billing = @providers[ 0 .. 3 ];
my $stranger = id('provider', 99);
my @patients = map { id('patient', $_) } 1 .. 8;
my @rules = map { id('rule', $_) } 1 .. 8;
my $known = 'ARRAY[' . join(', ', map { "'$_'" } @providers) . ']::uuid[]';
my $everyone = "$known || '$stranger'::uuid";

my $claims = 0;       # claims are numbered from 1; some are gone again
my $locations = 0;
my $events = 0;

my @functional_centres = ('F1', 'F1', 'F2', 'F2', 'F3', 'f1', '', undef);
my @ba_numbers = ('9', '9', '10', '100', "\x{c3}\x{84}1", undef);
my @hsc_codes = (
	'03.03A', '03.03A', '03.04A', '13.99J', 'a', 'B', "\x{c3}\x{a9}1",
	'', (map { "X$_" } 1 .. 12), undef);
my @names = (
	"Zo\x{c3}\x{ab}", "\x{c3}\x{85}ngstr\x{c3}\x{b6}m", 'zebra', 'Zebra',
	"O'Brien", 'Calgary', "\x{e8}\x{a8}\x{ba}\x{e6}\x{89}\x{80}", '"quoted\\');
my @explanatory_codes = (
	undef, 'null', '5', '"05A"', '{"code": "05A"}', '[]', '[null]',
	'["05A"]', '["05A", "05A", "12B"]', '[5, "5", 5.0, true, false]',
	'[{"code": "12B"}, {"code": 7}, {"code": null}, {"code": ["05A"]}]',
	'[["05A"], {"a": 1}, "", "\u00e9"]', '[{"code": {"code": "x"}}, "12B"]');
my @validation_results = (
	undef, '{"timing_tier": "same_day"}', '{"timing_tier": "same_day"}',
	'{"timing_tier": "on_time"}', '{"timing_tier": null}',
	'{"timing_tier": 3}', '{"other": 1}', '[]', '"timing_tier"',
	'{"timing_tier": {"a": [1]}}');

sub claim_state
{
	return weighted(
		DRAFT => 8, VALIDATED => 5, QUEUED => 8, SUBMITTED => 10,
		ASSESSED => 10, PAID => 25, REJECTED => 14, ADJUSTED => 6,
		WRITTEN_OFF => 4, EXPIRED => 4, DELETED => 2, paid => 2,
		Rejected => 2, queued => 1, deleted => 1, ON_HOLD => 2, '' => 0.5);
}

sub claim_type
{
	return weighted(AHCIP => 70, WCB => 25, wcb => 2, OTHER => 2, '' => 0.5);
}

sub fee
{
	my $fee = weighted(
		none => 8, '0' => 4, '10' => 15, '20.00' => 15, '33.33' => 10,
		'-5.25' => 1, sprintf('%.2f', rand(500)) => 30,
		'99999999.99' => 1);
	return $fee eq 'none' ? undef : $fee;
}

# So many days after today (or before it).
sub day
{
	my ($days) = @_;
	return strftime('%Y-%m-%d',
		gmtime(timegm(0, 0, 0, $day, $month - 1, $year) + 86400 * $days));
}

# The first day of the month that is so many months after this one, or a day
# so many days after that.
sub month_start
{
	my ($months, $days) = @_;
	my $number = $year * 12 + $month - 1 + $months;
	return strftime('%Y-%m-%d',
		gmtime(timegm(0, 0, 0, 1, $number % 12, int($number / 12))
			  + 86400 * ($days // 0)));
}

# Mostly in the trailing window, crowded in two months, often at an edge.
sub service_date
{
	my $kind = weighted(
		window => 45, crowded => 25, edge => 12, future => 4, leap => 3,
		old => 5, none => 2, infinite => 1);
	return day(-number(0, 364)) if $kind eq 'window';
	return day(-number(0, 45)) if $kind eq 'crowded';
	return month_start(-number(-1, 12), -number(0, 1)) if $kind eq 'edge';
	return day(number(1, 60)) if $kind eq 'future';
	return pick('2024-02-29', '2020-02-29', '2028-02-29') if $kind eq 'leap';
	return day(-number(365, 1500)) if $kind eq 'old';
	return undef if $kind eq 'none';
	return pick('infinity', '-infinity');
}

# A time up to so many days back, often near midnight of the zone.
sub instant
{
	my ($days) = @_;
	return day(-number(0, $days)) . ' '
	  . pick('00:30', '05:59', '06:00', '06:59:59.999999', '07:00', '12:00',
		'23:59') . '+00';
}

sub deadline { return chance(0.1) ? undef : day(number(-5, 12)); }

sub provider { return chance(0.02) ? $stranger : pick(@billing); }

sub patient
{
	return undef if chance(0.03);
	return chance(0.05) ? id('patient', 99) : pick(@patients);
}

# A claim that exists, or existed, or whose insertion was rolled back; mostly
# one of the last.
sub claim_number
{
	return 1 if $claims < 2;
	return number($claims > 40 && chance(0.5) ? $claims - 40 : 1, $claims);
}

sub claim { return quote(id('claim', claim_number())); }

# ----------------------------------------------------------------------
# Statements
# ----------------------------------------------------------------------

sub insert_claims
{
	my @rows;
	for my $n (@_)
	{
		push @rows, '(' . join(', ', map { quote($_) }
			id('claim', $n), provider(), patient(), claim_type(),
			claim_state(), service_date(), deadline(),
			pick(@validation_results), instant(40), instant(10),
			chance(0.05) ? instant(5) : undef) . ')';
	}
	return 'INSERT INTO claims (claim_id, physician_id, patient_id,'
	  . ' claim_type, state, date_of_service, submission_deadline,'
	  . ' validation_result, created_at, updated_at, deleted_at) VALUES '
	  . join(', ', @rows) . ' ON CONFLICT (claim_id) DO NOTHING';
}

sub insert_ahcip
{
	my ($n) = @_;
	my $action = chance(0.5) ? 'DO NOTHING'
	  : '(claim_id) DO UPDATE SET assessed_fee = EXCLUDED.assessed_fee,'
	  . ' functional_centre = EXCLUDED.functional_centre';
	return 'INSERT INTO ahcip_claim_details (claim_id, ba_number,'
	  . ' functional_centre, health_service_code, shadow_billing_flag,'
	  . ' time_spent, submitted_fee, assessed_fee,'
	  . ' assessment_explanatory_codes) VALUES ('
	  . join(', ', map { quote($_) }
		id('claim', $n), pick(@ba_numbers), pick(@functional_centres),
		pick(@hsc_codes), pick('t', 'f', 'f', undef), pick(undef, 0 .. 4),
		fee(), fee(), pick(@explanatory_codes))
	  . ") ON CONFLICT $action";
}

sub insert_wcb
{
	my ($n) = @_;
	return 'INSERT INTO wcb_claim_details (wcb_claim_detail_id, claim_id,'
	  . ' form_id) VALUES ('
	  . join(', ', map { quote($_) }
		id('wcb', $n), id('claim', $n),
		pick('C050E', 'C050E', 'C151', 'C568', undef))
	  . ') ON CONFLICT DO NOTHING';
}

sub insert_line
{
	my ($n) = @_;
	return 'INSERT INTO wcb_invoice_lines (wcb_claim_detail_id, amount)'
	  . ' VALUES (' . quote(id('wcb', $n)) . ', ' . quote(fee()) . ')';
}

# A claim or several, without details, or with them before or after.
sub new_claims
{
	my @numbers =
	  map { ++$claims } 1 .. weighted(1 => 70, 2 => 15, 6 => 10, 25 => 2);
	my @details;
	for my $n (@numbers)
	{
		push @details, insert_ahcip($n) if chance(0.8);
		push @details, insert_wcb($n) if chance(0.25);
		push @details, insert_line($n) if chance(0.25);
		push @details, insert_line($n) if chance(0.1);
	}
	my $claim = insert_claims(@numbers);
	return chance(0.3) ? (@details, $claim) : ($claim, @details);
}

sub copy_claims
{
	my @rows;
	for (1 .. number(1, 12))
	{
		push @rows, join("\t", map { $_ // '\N' }
			id('claim', ++$claims), provider(), patient(), claim_type(),
			claim_state(), service_date()) . "\n";
	}
	return 'COPY claims (claim_id, physician_id, patient_id, claim_type,'
	  . " state, date_of_service) FROM stdin;\n" . join('', @rows) . '\.';
}

sub update_claim
{
	my %set = (
		state => \&claim_state,
		date_of_service => \&service_date,
		physician_id => \&provider,
		claim_type => \&claim_type,
		patient_id => \&patient,
		submission_deadline => \&deadline,
		validation_result => sub { pick(@validation_results) },
		created_at => sub { instant(40) },
		updated_at => sub { instant(10) },
		deleted_at => sub { chance(0.5) ? undef : instant(5) },
		notes => sub { 'seen' });
	my @columns = weighted(
		state => 40, date_of_service => 14, physician_id => 7,
		claim_type => 5, patient_id => 5, submission_deadline => 3,
		validation_result => 4, created_at => 3, updated_at => 3,
		deleted_at => 12, notes => 4);
	push @columns, 'updated_at' if $columns[0] eq 'state' && chance(0.5);
	return 'UPDATE claims SET '
	  . join(', ', map { "$_ = " . quote($set{$_}->()) } @columns)
	  . ' WHERE claim_id = ' . claim();
}

# The way a claim is assessed: its state and its detail together.
sub assess_claim
{
	my $id = claim();
	my @statements = (
		"UPDATE claims SET state = '"
		  . pick('ASSESSED', 'PAID', 'PAID', 'REJECTED', 'ADJUSTED')
		  . "', updated_at = now() WHERE claim_id = $id",
		'UPDATE ahcip_claim_details SET assessed_fee = ' . quote(fee())
		  . ', assessment_explanatory_codes = '
		  . quote(pick(@explanatory_codes)) . " WHERE claim_id = $id",
		'INSERT INTO claim_audit_history (claim_id, new_state) SELECT'
		  . " claim_id, state FROM claims WHERE claim_id = $id");
	return chance(0.5) ? @statements : reverse @statements;
}

sub update_many
{
	my $set = pick(
		'state = ' . quote(claim_state()),
		"state = CASE state WHEN 'SUBMITTED' THEN 'PAID'"
		  . " WHEN 'QUEUED' THEN 'SUBMITTED' ELSE state END",
		"date_of_service = date_of_service + " . number(-40, 40),
		'physician_id = ' . quote(provider()),
		'deleted_at = ' . pick('now()', 'NULL', 'NULL'));
	my $where = pick(
		'physician_id = ' . quote(pick(@billing)),
		'state = ' . quote(claim_state()),
		'date_of_service >= ' . quote(day(-number(0, 60))));
	return "UPDATE claims SET $set WHERE $where AND isfinite(date_of_service)"
	  . " AND claim_id::text < '" . pick('4', '8', 'g') . "'";
}

sub delete_claim
{
	my $id = claim();
	my @statements = ("DELETE FROM claims WHERE claim_id = $id");
	push @statements, "DELETE FROM ahcip_claim_details WHERE claim_id = $id"
	  if chance(0.6);
	push @statements, "DELETE FROM wcb_claim_details WHERE claim_id = $id"
	  if chance(0.6);
	return chance(0.5) ? @statements : reverse @statements;
}

# The same claim again, in the same transaction or much later.
sub replace_claim
{
	my $n = claim_number();
	return ('DELETE FROM claims WHERE claim_id = ' . quote(id('claim', $n)),
		insert_claims($n), chance(0.5) ? insert_ahcip($n) : ());
}

# Another key: the details stay behind.
sub rename_claim
{
	return 'UPDATE claims SET claim_id = ' . quote(id('claim', ++$claims))
	  . ' WHERE claim_id = ' . claim();
}

sub update_ahcip
{
	my %set = (
		ba_number => sub { pick(@ba_numbers) },
		functional_centre => sub { pick(@functional_centres) },
		health_service_code => sub { pick(@hsc_codes) },
		shadow_billing_flag => sub { pick('t', 'f', undef) },
		time_spent => sub { pick(undef, 0 .. 4) },
		submitted_fee => \&fee,
		assessed_fee => \&fee,
		assessment_explanatory_codes => sub { pick(@explanatory_codes) },
		diagnostic_code => sub { '250' });
	my $column = weighted(
		ba_number => 8, functional_centre => 10, health_service_code => 8,
		shadow_billing_flag => 5, time_spent => 4, submitted_fee => 8,
		assessed_fee => 12, assessment_explanatory_codes => 8,
		diagnostic_code => 3);
	return "UPDATE ahcip_claim_details SET $column = "
	  . quote($set{$column}->()) . ' WHERE claim_id = ' . claim();
}

sub change_ahcip
{
	my $id = claim();
	return pick(
		"DELETE FROM ahcip_claim_details WHERE claim_id = $id",
		insert_ahcip(claim_number()),
		insert_ahcip(claim_number()),
		# a detail given to another claim that has none
		'UPDATE ahcip_claim_details SET claim_id = ' . $id
		  . ' WHERE claim_id = ' . claim() . ' AND NOT EXISTS (SELECT FROM'
		  . " ahcip_claim_details WHERE claim_id = $id)");
}

sub change_wcb
{
	my $id = claim();
	my $detail = quote(id('wcb', claim_number()));
	return pick(
		insert_wcb(claim_number()),
		insert_wcb(claim_number()),
		insert_line(claim_number()),
		insert_line(claim_number()),
		"DELETE FROM wcb_claim_details WHERE claim_id = $id",
		'UPDATE wcb_claim_details SET form_id = '
		  . quote(pick('C050E', 'C570', undef)) . " WHERE claim_id = $id",
		'UPDATE wcb_claim_details SET claim_id = ' . $id
		  . ' WHERE claim_id = ' . claim() . ' AND NOT EXISTS (SELECT FROM'
		  . " wcb_claim_details WHERE claim_id = $id)",
		'UPDATE wcb_invoice_lines SET amount = ' . quote(fee())
		  . " WHERE wcb_claim_detail_id = $detail",
		'UPDATE wcb_invoice_lines SET wcb_claim_detail_id = '
		  . quote(id('wcb', claim_number()))
		  . " WHERE wcb_claim_detail_id = $detail",
		"DELETE FROM wcb_invoice_lines WHERE wcb_claim_detail_id = $detail");
}

sub add_history
{
	return 'INSERT INTO claim_audit_history (claim_id, new_state) VALUES ('
	  . claim() . ', '
	  . quote(pick('REJECTED', 'REJECTED', 'rejected', 'PAID', undef)) . ')';
}

sub change_patient
{
	my $id = quote(pick(@patients, id('patient', 99)));
	my $province = quote(pick('AB', 'AB', 'BC', 'SK', 'ab', '', undef));
	return weighted(
		"UPDATE patients SET phn_province = $province WHERE patient_id = $id"
		  => 6,
		"UPDATE patients SET phone = '403' WHERE patient_id = $id" => 1,
		"DELETE FROM patients WHERE patient_id = $id" => 1,
		'INSERT INTO patients (patient_id, phn_province) VALUES'
		  . " ($id, $province) ON CONFLICT (patient_id) DO UPDATE"
		  . ' SET phn_province = EXCLUDED.phn_province' => 2);
}

sub change_location
{
	my $id = quote(id('location', number(1, $locations || 1)));
	my $set = pick(
		'name = ' . quote(pick(@names)),
		'functional_centre = ' . quote(pick(@functional_centres)),
		'rrnp_rate = ' . quote(pick(undef, '0', '5', '12.5', '100.00')),
		'is_active = NOT is_active',
		'is_active = NOT is_active',
		"city = 'Banff'",
		'provider_id = ' . quote(pick(@providers)));
	return insert_location(pick(@providers))
	  if $locations < 25 && chance(0.2);
	return weighted(
		"UPDATE practice_locations SET $set WHERE location_id = $id" => 7,
		"DELETE FROM practice_locations WHERE location_id = $id" => 1);
}

sub insert_location
{
	my ($provider) = @_;
	return 'INSERT INTO practice_locations (location_id, provider_id, name,'
	  . ' functional_centre, rrnp_rate, is_active) VALUES ('
	  . join(', ', map { quote($_) }
		id('location', ++$locations), $provider, pick(@names),
		pick(@functional_centres), pick(undef, '0', '5', '12.5'),
		pick('t', 't', 't', 'f'))
	  . ')';
}

sub insert_event
{
	return 'INSERT INTO ai_suggestion_events (event_id, provider_id, rule_id,'
	  . ' event_type, category, revenue_impact, created_at) VALUES ('
	  . join(', ', map { quote($_) }
		id('event', ++$events), pick(@providers),
		pick(@rules, id('rule', 99), undef),
		pick('generated', 'accepted', 'accepted', 'dismissed'),
		pick('MODIFIER', 'modifier', "\x{c3}\x{89}", undef), fee() // 1,
		instant(pick(40, 400)))
	  . ')';
}

sub change_ai
{
	my $event = quote(id('event', number(1, $events || 1)));
	my $provider = quote(pick(@providers));
	my $rule = quote(pick(@rules));
	my $suppressed = pick('true', 'true', 'false');
	return insert_event() if chance(0.45);
	return weighted(
		'UPDATE ai_suggestion_events SET event_type = '
		  . quote(pick('accepted', 'dismissed', 'generated'))
		  . " WHERE event_id = $event" => 2,
		'UPDATE ai_suggestion_events SET '
		  . pick('revenue_impact = NULL', "category = 'NEW'",
			"rule_id = $rule", "provider_id = $provider",
			'created_at = ' . quote(instant(400)))
		  . " WHERE event_id = $event" => 3,
		"DELETE FROM ai_suggestion_events WHERE event_id = $event" => 1,
		'INSERT INTO ai_provider_learning (provider_id, rule_id,'
		  . " is_suppressed) VALUES ($provider, $rule, $suppressed)"
		  . ' ON CONFLICT (provider_id, rule_id) DO UPDATE SET'
		  . ' is_suppressed = EXCLUDED.is_suppressed' => 3,
		"DELETE FROM ai_provider_learning WHERE provider_id = $provider" => 0.5,
		'INSERT INTO ai_rules (rule_id, name) VALUES ('
		  . "$rule, " . quote(pick(@names)) . ') ON CONFLICT (rule_id)'
		  . ' DO UPDATE SET name = EXCLUDED.name' => 3,
		"DELETE FROM ai_rules WHERE rule_id = $rule" => 1);
}

sub change_provider
{
	my $id = quote(pick(@providers));
	return weighted(
		'UPDATE providers SET status = '
		  . quote(pick('ACTIVE', 'ACTIVE', 'SUSPENDED', 'active'))
		  . " WHERE provider_id = $id" => 3,
		"INSERT INTO providers (provider_id) VALUES ($id)"
		  . " ON CONFLICT (provider_id) DO UPDATE SET status = 'ACTIVE'" => 4,
		"DELETE FROM providers WHERE provider_id = $id" => 1);
}

sub truncate_table
{
	return 'TRUNCATE '
	  . weighted(
		claim_audit_history => 3, wcb_invoice_lines => 3,
		ai_suggestion_events => 3, ai_provider_learning => 2,
		'wcb_claim_details, wcb_invoice_lines' => 1, ai_rules => 1,
		practice_locations => 1, patients => 1, ahcip_claim_details => 0.3);
}

# A reader among the writes, who must not disturb what follows.
sub read_metrics
{
	return 'DO $$BEGIN PERFORM meritum_get_metrics(' . quote(pick(@billing))
	  . ', ARRAY(SELECT metric_key FROM oracle.all_keys()), '
	  . quote(month_start(-number(0, 14))) . ', ' . quote(month_start(1, -1))
	  . '); END$$';
}

my @kinds = (
	\&new_claims => 18, \&copy_claims => 1.5, \&update_claim => 30,
	\&assess_claim => 12, \&update_many => 2, \&delete_claim => 3,
	\&replace_claim => 2, \&rename_claim => 0.7, \&update_ahcip => 16,
	\&change_ahcip => 6, \&change_wcb => 9, \&add_history => 5,
	\&change_patient => 3, \&change_location => 4, \&change_ai => 7,
	\&change_provider => 1.5, \&truncate_table => 0.3,
	\&read_metrics => 1);

# One or a few statements that belong together, each with its terminator.
sub statements
{
	return map { /^COPY/ ? $_ : "$_;" } weighted(@kinds)->();
}

# A statement whose effect is undone by an error caught in a block.
sub undone
{
	my ($statement) = @_;
	return "DO \$undo\$BEGIN $statement RAISE 'undo';"
	  . ' EXCEPTION WHEN raise_exception THEN NULL; END$undo$;';
}

sub transaction
{
	my ($n) = @_;

	# now and then single statements, each a transaction of its own
	return statements() if chance(0.15);

	my @sql = 'BEGIN'
	  . weighted(
		'' => 70, ' ISOLATION LEVEL REPEATABLE READ' => 22,
		' ISOLATION LEVEL SERIALIZABLE' => 8) . ';';
	my $depth = 0;
	for (1 .. number(1, 8))
	{
		push @sql, 'SAVEPOINT s' . ++$depth . ';' if chance(0.12);
		push @sql,
		  map { !/^(COPY|DO)/ && chance(0.02) ? undone($_) : $_ } statements();
		next unless $depth && chance(0.25);
		my $to = number(1, $depth);
		if (chance(0.7))
		{
			push @sql, "ROLLBACK TO s$to;";
			$depth = $to;
		}
		else
		{
			push @sql, "RELEASE s$to;";
			$depth = $to - 1;
		}
	}
	push @sql, weighted(
		'COMMIT;' => 90, 'ROLLBACK;' => 6,
		"PREPARE TRANSACTION 'p$n'; COMMIT PREPARED 'p$n';" => 3,
		"PREPARE TRANSACTION 'p$n'; ROLLBACK PREPARED 'p$n';" => 1);
	return @sql;
}

# ----------------------------------------------------------------------
# Checks
# ----------------------------------------------------------------------

# Each check returns lines that begin with "wrong", or nothing.

sub check_existing
{
	my ($n) = @_;
	return "SELECT 'wrong', $n, d.* FROM oracle.existing_diff($everyone,"
	  . " NULL, $now, '$zone', oracle.all_tables(), $keys) AS d LIMIT 40;\n"
	  . "SELECT 'wrong', $n, 'pending', count(*) FROM"
	  . " meritum_cache.pending_refresh WHERE provider_id"
	  . " IN (SELECT provider_id FROM providers) HAVING count(*) > 0;\n"
	  . "SELECT 'wrong', $n, 'failed', count(*) FROM"
	  . " meritum_cache.failed_refresh HAVING count(*) > 0;\n"
	  . "SELECT 'wrong', $n, 'unknown provider', count(*) FROM"
	  . " meritum_cache.analytics_cache WHERE provider_id NOT IN"
	  . " (SELECT provider_id FROM providers) HAVING count(*) > 0;\n";
}

sub check_full
{
	my ($n, $condition) = @_;
	return "SELECT 'wrong', $n, 'full', d.* FROM oracle.diff(ARRAY(SELECT"
	  . " provider_id FROM providers WHERE $condition),"
	  . " oracle.months($now), $now, '$zone', oracle.all_tables(), $keys)"
	  . " AS d LIMIT 40;\n";
}

# Reads everything there is or could be of every provider that is known, or
# was until a change that is still pending.
sub read_everything
{
	my ($from) = @_;
	return 'DO $$BEGIN PERFORM count(*) FROM (SELECT provider_id FROM providers'
	  . ' UNION SELECT provider_id FROM meritum_cache.pending_refresh'
	  . ' WHERE provider_id IS NOT NULL) AS p,'
	  . ' meritum_get_metrics(p.provider_id,'
	  . ' ARRAY(SELECT metric_key FROM oracle.all_keys()),'
	  . " '$from', '" . month_start(1, -1) . "'); END\$\$;\n";
}

# Runs one session; returns what is wrong, in words, or an empty string.
sub run
{
	my ($sql) = @_;
	my ($code, $out, $err) = $node->psql('platform', $sql,
		extra_params => [ '-F', ' | ' ]);
	my @wrong = grep { /^wrong/ } split /\n/, $out;
	push @wrong, "psql returned $code" if $code;
	push @wrong, $err if $err =~ /\b(WARNING|ERROR|FATAL|PANIC):/;
	return join("\n", @wrong);
}

# ----------------------------------------------------------------------
# The run
# ----------------------------------------------------------------------

my @setup = (
	(map { "INSERT INTO providers (provider_id) VALUES ('$_')" } @providers),
	(map {
		'INSERT INTO patients (patient_id, phn_province) VALUES ('
		  . quote($patients[$_]) . ', '
		  . quote(('AB', 'AB', 'AB', 'BC', 'BC', 'SK', '', undef)[$_]) . ')'
	} 0 .. $#patients),
	(map { insert_location($_) } @providers, @providers, @billing[ 0, 1 ]),
	(map {
		"INSERT INTO ai_rules (rule_id, name) VALUES ('$rules[$_]', "
		  . quote($names[$_]) . ')'
	} 0 .. 5),
	(map { insert_event() } 1 .. 60),
	(map { new_claims() } 1 .. 150),
	(map { add_history() } 1 .. 30));
$node->safe_psql('platform', join(";\n", @setup));
$node->safe_psql('platform', 'SELECT * FROM meritum_attach()');

my $nightly = "CALL meritum_refresh_all_providers() \\gset\n"
  . "SELECT 'wrong', 'nightly batch', :'errors' WHERE :'errors' <> '[]';\n";

my $wrong =
  run($nightly . check_existing(0) . check_full(0, "status = 'ACTIVE'"));
is($wrong, '', 'the cache is right after attach and the first nightly batch');

my $done = 0;
while ($wrong eq '' && $done < $transactions)
{
	# A session of a few transactions, with settings of its own that must
	# change no figure.
	my $session = "SET timezone = '"
	  . pick($zone, 'UTC', 'Asia/Tokyo', 'Pacific/Honolulu') . "';\n"
	  . "SET datestyle = '" . pick('ISO', 'ISO', 'SQL, DMY', 'German') . "';\n";
	my $from = $done + 1;
	for (1 .. number(1, 5))
	{
		$done++;
		my $sql = join("\n", transaction($done)) . "\n";
		$session .= "-- transaction $done\n$sql";
		# a serializable transaction leaves its refresh to the next reader
		$session .= read_everything(month_start(-60))
		  if $mode eq 'async' || $sql =~ /SERIALIZABLE/;
		$session .= check_existing($done)
		  if $done % $check_every == 0 || $done == $transactions;
		if ($done % ($full_check_every * $check_every) == 0
			|| $done == $transactions)
		{
			$session .= chance(0.5)
			  ? $nightly . check_full($done, "status = 'ACTIVE'")
			  : read_everything(month_start(-11)) . check_full($done, 'true');
		}
		last if $done == $transactions;
	}
	$wrong = run($session);
	diag("SEED=$seed: wrong after a transaction of this session:\n"
		  . "$session\nWhat is wrong:\n$wrong\n") if $wrong ne '';
}
is($wrong, '', "the cache is right after each of $done transactions");

$node->stop;
done_testing();
