# session-memory.pl: how much memory a session takes that changes many claims
# in one transaction.
#
# A: one UPDATE of 500,000 claims; the tables are not attached
# B: the same on attached tables in commit mode
#
# What counts is the memory that the session's process shares with nobody
# (RssAnon), at its most above its start.

use strict;
use warnings FATAL => 'all';
use Bench;

row('session-memory' => {
	what => 'memory of a session that updates 500,000 claims in one transaction',
	against => 'the same without the extension',
	unit => 'MB' });

my ($plain, $attached) = reference();
setup(databases => { plain => $plain, attached => $attached });

sub memory
{
	my ($database) = @_;
	my $session = session($database);
	my $pid = $session->ask('SELECT pg_backend_pid()');
	my $before = anonymous_kb($pid);
	my $most = $before;
	$session->start(<<~'SQL');
		UPDATE claims SET state = CASE state WHEN 'PAID' THEN 'ASSESSED' ELSE 'PAID' END
		WHERE claim_id IN (SELECT claim_id FROM claims LIMIT 500000);
		SELECT count(*) FROM (SELECT FROM claims LIMIT 500000) AS c;
		SQL
	until ($session->ready)
	{
		$most = max($most, anonymous_kb($pid));
		sleep 0.002;
	}
	note('claims', $session->finish);
	$most = max($most, anonymous_kb($pid));
	$session->close;
	return ($most - $before) / 1024;
}

compare('session-memory',
	cold => 1,
	repetitions => 1,
	A => sub { memory('plain') },
	B => sub { memory('attached') });
