# not-attached.pl: what the extension costs where it is installed and does
# nothing.
#
# A: updates of claims on a server that does not preload the library
# B: the same on one that does, in a database with the extension, with a
#    worker, and without a table attached

use strict;
use warnings FATAL => 'all';
use Bench;

row('not-attached' => {
	what => 'single-claim state update, installed and not attached',
	against => 'the same not installed, 2 clients, synchronous_commit off',
	unit => 'transactions/s',
	goal => '>= 0.99' });

my ($plain) = reference();
setup(databases => { plain => $plain, installed => $plain });
sql('installed', 'CREATE EXTENSION meritum_cache');

my %load = (clients => 2, script => claim_update(150), rows_of => 'claims');

# Each time on a server just started, after a second to fill its buffers.
sub on
{
	my ($database, %settings) = @_;
	setup(settings => { %settings, synchronous_commit => 'off' });
	pgbench($database, %load, seconds => 1);
	return pgbench($database, %load)->{tps};
}

compare('not-attached',
	repetitions => 5,
	A => sub { on('plain', shared_preload_libraries => '') },
	B => sub { on('installed', 'meritum_cache.databases' => 'installed') });
