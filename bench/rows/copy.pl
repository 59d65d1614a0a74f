# copy.pl: a bulk load, as a migration does it.
#
# A: one transaction that copies 200,000 claims with their details and invoice
#    lines, of all providers in the order of their creation, into tables that
#    are not attached
# B: the same into attached tables in commit mode; what is too much for the
#    commit is left to the worker, whose time from the commit on is the second
#    figure
#
# Each load is into a fresh copy of the database.

use strict;
use warnings FATAL => 'all';
use Bench;

row(
	'copy' => {
		what => 'COPY of 200,000 claims with details',
		against => 'the same without the extension',
		unit => 'ms',
		goal => '<= 1.2' },
	'copy-settled' => {
		what => 'from its commit until no note is pending',
		against => 'COPY without the extension',
		unit => 'ms',
		goal => '<= 1.0' });

my ($plain, $attached) = reference();
my $files = "$ENV{TMPDIR}/copy";
my @tables = qw(claims ahcip_claim_details wcb_claim_details wcb_invoice_lines);

# The rows to load are those of existing claims under new ids.
setup(databases => { plain => $plain });
my $claims = sql('plain', <<~SQL);
	CREATE FUNCTION renamed(id uuid) RETURNS uuid LANGUAGE sql IMMUTABLE
	RETURN md5('copy' || id)::uuid;
	CREATE TABLE picked AS
	SELECT claim_id FROM claims ORDER BY md5(claim_id::text) LIMIT 200000;
	ANALYZE picked;
	CREATE TABLE new_claims AS
	SELECT * FROM claims JOIN picked USING (claim_id) ORDER BY created_at, claim_id;
	CREATE TABLE new_ahcip_claim_details AS
	SELECT d.* FROM ahcip_claim_details d JOIN new_claims c USING (claim_id) ORDER BY c.created_at, claim_id;
	CREATE TABLE new_wcb_claim_details AS
	SELECT d.* FROM wcb_claim_details d JOIN new_claims c USING (claim_id) ORDER BY c.created_at, claim_id;
	CREATE TABLE new_wcb_invoice_lines AS
	SELECT l.* FROM wcb_invoice_lines l JOIN new_wcb_claim_details USING (wcb_claim_detail_id);
	UPDATE new_claims SET claim_id = renamed(claim_id);
	UPDATE new_ahcip_claim_details SET claim_id = renamed(claim_id), ahcip_detail_id = renamed(ahcip_detail_id);
	UPDATE new_wcb_claim_details SET claim_id = renamed(claim_id), wcb_claim_detail_id = renamed(wcb_claim_detail_id);
	UPDATE new_wcb_invoice_lines SET wcb_invoice_line_id = renamed(wcb_invoice_line_id), wcb_claim_detail_id = renamed(wcb_claim_detail_id);
	SELECT count(*) FROM new_claims;
	SQL
mkdir $files;
sql('plain', "COPY new_$_ TO '$files/$_'") foreach @tables;

sub load
{
	my ($database) = @_;
	my $session = session($database);
	my $ms = 0;
	$ms += $session->time($_) foreach 'BEGIN', (map { "COPY $_ FROM '$files/$_'" } @tables), 'COMMIT';
	$session->close;
	return $ms;
}

my (@alone, @settled);
compare('copy',
	cold => 1,
	A => sub {
		setup(databases => { plain => $plain });
		push @alone, load('plain');
		return $alone[-1];
	},
	B => sub {
		setup(
			databases => { attached => $attached },
			settings => { 'meritum_cache.databases' => 'attached' });
		my $ms = load('attached');
		push @settled, 1000 * wait_settled('attached');
		return $ms;
	});

note('claims', $claims);
compare('copy-settled',
	cold => 1,
	repetitions => scalar @settled,
	A => sub { shift @alone },
	B => sub { shift @settled });
