# many-clients.pl: whether writers on different providers get in each other's
# way.
#
# A: 16 clients, each on one provider of its own, update claims in async mode
# B: the same in commit mode
#
# Ungranted locks are looked for some hundred times a second meanwhile.  Those
# of the extension (objects of provider_state) must not occur.

use strict;
use warnings FATAL => 'all';
use Bench;

row('many-clients' => {
	what => '16 clients on distinct providers, commit mode',
	against => 'the same in async mode, worker running, synchronous_commit off',
	unit => 'transactions/s',
	goal => '>= 0.5' },
	'many-clients-waits' => {
	what => 'waits for locks of the extension that were seen meanwhile',
	unit => 'waits',
	goal => '<= 0' });

my (undef, $attached) = reference();
setup(
	databases => { attached => $attached },
	settings => { 'meritum_cache.databases' => 'attached', synchronous_commit => 'off' });

my $clients = min(16, 5 * int(option('PROVIDERS') / 10));
my %load = (
	clients => $clients,
	script => claim_update(150, provider => '10 * (:client_id / 5) + 4 + :client_id % 5'),
	rows_of => 'claims');
my $observer = session('attached');
my ($looks, %waits) = (0);

sub look
{
	$looks++;
	$waits{$_}++ foreach split /\n/, $observer->ask(<<~'SQL');
		SELECT CASE WHEN classid = 'meritum_cache.provider_state'::regclass THEN 'provider' ELSE locktype END
		FROM pg_locks WHERE NOT granted
		SQL
	sleep 0.003;
	return;
}

compare('many-clients',
	A => sub {
		my $run = pgbench('attached', %load, settings => { 'meritum_cache.refresh_mode' => 'async' });
		wait_settled('attached');
		return $run->{tps};
	},
	B => sub { pgbench('attached', %load, beside => \&look)->{tps} });

note('times looked', $looks);
note('all waits seen', join(', ', map { "$_ $waits{$_}" } sort keys %waits) || 'none');
value('many-clients-waits', cold => 1, repetitions => 1, B => sub { $waits{provider} // 0 });
