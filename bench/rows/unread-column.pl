# unread-column.pl: what a change pays that no metric reads.
#
# A: claims get a note and a new row_version; the tables are not attached
# B: the same on attached tables in commit mode

use strict;
use warnings FATAL => 'all';
use Bench;

row('unread-column' => {
	what => 'change to a column no metric reads, commit mode',
	against => 'the same without the extension, 2 clients, synchronous_commit off',
	unit => 'transactions/s',
	goal => '>= 0.97' });

my ($plain, $attached) = reference();
setup(
	databases => { plain => $plain, attached => $attached },
	settings => { synchronous_commit => 'off' });

my %load = (
	clients => 2,
	script => claim_update(150, set => "notes = 'seen', row_version = row_version + 1"),
	rows_of => 'claims');

compare('unread-column',
	repetitions => 5,
	A => sub { pgbench('plain', %load)->{tps} },
	B => sub { pgbench('attached', %load)->{tps} });
