# examples/franchise: what its README says, and which figures each event
# recomputes, of whom, in either mode.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../support";
use Platform;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $example = "$FindBin::Bin/../../examples/franchise";
my $node = PostgreSQL::Test::Cluster->new('main');
my $north = 'a0000000-0000-4000-8000-000000000001';
my $south = 'a0000000-0000-4000-8000-000000000002';

$node->init;
$node->append_conf('postgresql.conf', platform_conf());
# the example's dates are those of the session
$node->append_conf('postgresql.conf', "meritum_cache.timezone = 'UTC'");
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql('CREATE EXTENSION meritum_cache');
sql(slurp_file("$example/franchise.sql"));
is(sql('SELECT count(*) FROM meritum_cache.source_table'), 0, 'no claims are attached');

my $everything = join("\n",
	'1|fr:budgets|6', '1|fr:forecast|3', '1|fr:overview|12', '1|fr:rankings|36',
	'2|fr:budgets|6', '2|fr:forecast|3', '2|fr:overview|12', '2|fr:rankings|36');
is( sql(q(SELECT right(provider_id::text, 1), metric_key, count(*)
			FROM meritum_cache.analytics_cache GROUP BY 1, 2 ORDER BY 1, 2)),
	$everything,
	'loading the data has filled the dashboards of both');

# Whose metrics were written since the last call.
sql('CREATE TABLE seen AS SELECT * FROM meritum_cache.analytics_cache');

sub written
{
	my $written = sql(q(
		SELECT coalesce(string_agg(DISTINCT right(c.provider_id::text, 1) || ' ' || c.metric_key, ', '), '')
		  FROM meritum_cache.analytics_cache c LEFT JOIN seen s USING (cache_id)
		 WHERE s.computed_at IS DISTINCT FROM c.computed_at));
	sql('TRUNCATE seen; INSERT INTO seen SELECT * FROM meritum_cache.analytics_cache');
	return $written;
}

sub wrong_figures
{
	return sql(qq(SELECT v FROM (VALUES ('$north'::uuid), ('$south')) AS o (id), meritum_verify(id) v));
}

# What the README says

my @blocks = slurp_file("$example/README.md") =~ /```sql\n(.*?)```/sg;
is(scalar @blocks, 4, 'the README has four steps');
my @rows = split /\n/, sql($blocks[0]);
is(scalar @rows, 8, 'the dashboard of the running month');
written();
my @order = split /\n/, sql($blocks[1]);
like($order[0], qr/^1\|fr:budgets\|/, 'the budget is recomputed last');
is(written(), '1 fr:budgets', 'and nothing else, of nobody else');
is(sql($blocks[2]), '', 'all is right after an order, a transfer and a count');
is( written(),
	'1 fr:budgets, 1 fr:forecast, 1 fr:overview, 1 fr:rankings',
	'of the other organisation nothing has been recomputed');
is(sql($blocks[3]), "6\n57", 'events by hand say how many figures they hit');
is(written(), '2 fr:budgets, 2 fr:forecast, 2 fr:overview, 2 fr:rankings', 'of one organisation');

# Each event alone; # is another number in each mode

my $month = q(date_trunc('month', now())::date);
my @cases = (
	[ 'a budget for another month', "INSERT INTO franchise.budget VALUES ('$north', $month - interval '9 months' + interval '# months', 10)",
	  '1 fr:budgets' ],
	[ 'a budget that is taken away', "DELETE FROM franchise.budget WHERE org_id = '$south' AND month = $month - interval '# months'", '2 fr:budgets' ],
	[ 'an order on its way', "INSERT INTO franchise.purchase_order VALUES (200#, '$south', 3, 10, NULL)",
	  '2 fr:budgets, 2 fr:forecast, 2 fr:overview, 2 fr:rankings' ],
	[ 'its receipt', 'UPDATE franchise.purchase_order SET received_on = current_date WHERE po_id = 200#',
	  '2 fr:budgets, 2 fr:forecast, 2 fr:overview, 2 fr:rankings' ],
	[ 'a transfer', "INSERT INTO franchise.transfer VALUES (200#, '$north', 1, 2, current_date, 5)",
	  '1 fr:overview, 1 fr:rankings' ],
	[ 'a transfer that is undone', 'DELETE FROM franchise.transfer WHERE transfer_id = 200#', '1 fr:overview, 1 fr:rankings' ],
	[ 'a count', "UPDATE franchise.inventory SET on_hand = on_hand + 1 WHERE store_id = 3", '2 fr:forecast' ],
	[ 'counts of both', 'UPDATE franchise.inventory SET on_hand = on_hand + 1', '1 fr:forecast, 2 fr:forecast' ],
	[ 'what is no event', "UPDATE franchise.store SET name = name", '' ],
	[ 'a change that is rolled back', 'BEGIN; DELETE FROM franchise.budget; ROLLBACK', '' ]);

foreach my $mode ('commit', 'async')
{
	foreach my $case (@cases)
	{
		my ($what, $change, $expected) = @$case;

		my $n = $mode eq 'commit' ? 0 : 1;
		$change =~ s/#/$n/g;
		sql("SET meritum_cache.refresh_mode = $mode; $change");
		wait_for($node, 'SELECT NOT EXISTS (SELECT FROM meritum_cache.pending_refresh)',
			"$mode: $what is settled");
		is(written(), $expected, "$mode: $what");
	}
	is(wrong_figures(), '', "$mode: all figures are right");
}

# Many sessions at once on one organisation and on the other

sql('CREATE SEQUENCE orders');
{
	# a commit that waits for too long leaves a note, and says so
	local $ENV{PGOPTIONS} = '-c client_min_messages=error';
	$node->pgbench(
		'--no-vacuum --client=6 --jobs=2 --transactions=25', 0,
		[qr{150/150}], [qr{^$}], 'six sessions raise events',
		{
			'events@1' => qq(
				\\set s random(1, 4)
				\\set o 1 + (:s - 1) / 2
				INSERT INTO franchise.purchase_order
				SELECT 10000 + nextval('orders'), org_id, store_id, 1, current_date FROM franchise.store WHERE store_id = :s;
				UPDATE franchise.budget SET amount = amount + 1
				 WHERE org_id = ('a0000000-0000-4000-8000-00000000000' || :o)::uuid AND month = (SELECT max(month) FROM franchise.budget))
		});
}
drained($node, 'what waited is settled');
is(wrong_figures(), '', 'all figures are right');

# The night, a restart, and the end

sql('CALL meritum_refresh_all_providers()');
is(sql(q(SELECT count(DISTINCT provider_id) FROM meritum_cache.provider_state WHERE refresh_cause = 'nightly')),
	2, 'the nightly batch walks the organisations');
is(wrong_figures(), '', 'all figures are right');
$node->restart;
written();
sql('UPDATE franchise.inventory SET on_hand = on_hand + 1 WHERE store_id = 1');
is(written(), '1 fr:forecast', 'the triggers are there after a restart');
my ($removal) = slurp_file("$example/franchise.sql") =~ /^--\s+(SELECT meritum_drop_metric.*?;)$/m;
sql($removal);
sql('DROP SCHEMA franchise CASCADE');
is( sql(q(SELECT (SELECT count(*) FROM meritum_cache.analytics_cache),
				 (SELECT count(*) FROM meritum_cache.metric_state),
				 (SELECT count(*) FROM meritum_cache.event_metric WHERE metric_key LIKE 'fr:%'))),
	'0|0|0',
	'removed as the script says, nothing is left');

done_testing();
