# settle-latency.pl: how long figures lag behind a commit in async mode.
#
# A session updates a claim in async mode, commits, and looks every
# millisecond whether a note of that provider is left: once alone, and once
# while two other clients make 200 updates a second of other providers.

use strict;
use warnings FATAL => 'all';
use Bench;

row(
	'settle-latency' => {
		what => 'async mode, from commit to settled, 95th percentile',
		unit => 'ms',
		goal => '<= 1000 ms' },
	'settle-latency-busy' => {
		what => 'the same beside 200 other updates a second',
		unit => 'ms',
		goal => '<= 1000 ms' });

my (undef, $attached) = reference();
setup(
	databases => { attached => $attached },
	settings => { 'meritum_cache.databases' => 'attached', 'meritum_cache.refresh_mode' => 'async' });
my $claims = max(1, int(270 * option('SCALE')));
my $seed = option('SEED');
sql('attached', <<~SQL);
	CREATE TABLE latency (ms float8);
	CREATE PROCEDURE measure(times integer) LANGUAGE plpgsql AS \$\$
	DECLARE
		v_provider integer;
		v_claim uuid;
		v_start timestamptz;
	BEGIN
		FOR i IN 1 .. times LOOP
			v_provider := 1 + (random() * 2)::integer;
			v_claim := md5('${seed}claim' || ((v_provider * 1000) * 100000
			               + 1 + (random() * ($claims - 1))::integer))::uuid;
			UPDATE claims SET state = CASE state WHEN 'PAID' THEN 'ASSESSED' ELSE 'PAID' END
			WHERE claim_id = v_claim;
			ASSERT FOUND;
			COMMIT;
			v_start := clock_timestamp();
			WHILE EXISTS (SELECT FROM meritum_cache.pending_refresh
			              WHERE provider_id = @{[provider_id('v_provider')]}) LOOP
				PERFORM pg_sleep(0.001);
			END LOOP;
			INSERT INTO latency VALUES (extract(epoch FROM clock_timestamp() - v_start) * 1000);
			COMMIT;
			-- not in step with the worker
			PERFORM pg_sleep(random() * 0.02);
		END LOOP;
	END \$\$;
	SQL

my $session = session('attached');
sub result
{
	my ($n, $p50, $p95, $most) = split /\|/, $session->ask(<<~'SQL');
		SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY ms),
		       percentile_cont(0.95) WITHIN GROUP (ORDER BY ms), max(ms) FROM latency
		SQL
	note('ms', sprintf '%d commits, median %.1f, most %.1f', $n, $p50, $most);
	$session->ask('TRUNCATE latency');
	return $p95;
}

# The worker is to sleep when there is nothing to do.
sub switches
{
	my ($pid) = @_;
	my ($voluntary) = read_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
	return $voluntary;
}
wait_settled('attached');
sleep 1;
my $worker = worker_pid('attached');
my $before = switches($worker);
sleep(option('SMOKE') ? 0.1 : 5);
note('times that the idle worker woke up in 5 s', switches($worker) - $before);

value('settle-latency', cold => 1, repetitions => 1, B => sub {
	$session->ask(sprintf 'CALL measure(%d)', option('SMOKE') ? 5 : 200);
	return result();
});
value('settle-latency-busy', cold => 1, repetitions => 1, B => sub {
	pgbench('attached', clients => 2, rate => 200, script => claim_update(150),
		beside => sub { $session->ask('CALL measure(5)') });
	return result();
});
