# memory.pl: how much memory the nightly batch takes.
#
# The batch is run as a job.  The worker and the processes of the job are
# looked at some hundred times a second; what counts is the memory that a
# process shares with nobody (RssAnon), at its most above its start.

use strict;
use warnings FATAL => 'all';
use Bench;

my $many = option('SMOKE') ? 50 : 25 * option('PROVIDERS');

row(
	'memory' => {
		what => 'memory of the worker and of the job during the nightly batch, reference data',
		unit => 'MB',
		goal => '<= 64 MB' },
	'memory-many' => {
		what => "the same with $many providers that have few claims",
		unit => 'MB',
		goal => '<= 64 MB' });

my (undef, $reference) = reference();
my $wide = wide($many);

foreach ([ 'memory', $reference ], [ 'memory-many', $wide ])
{
	my ($name, $template) = @$_;
	setup(
		databases => { attached => $template },
		settings => { 'meritum_cache.databases' => 'attached' });
	value($name, cold => 1, repetitions => 1, B => sub { job_memory('attached') / 1024 });
}

sub job_memory
{
	my ($database) = @_;
	my $session = session($database);
	my (%first, %most);
	my $worker = worker_pid($database);
	my $look = sub {
		foreach my $pid (@_)
		{
			my $kb = anonymous_kb($pid) // next;
			$first{$pid} //= $kb;
			$most{$pid} = max($most{$pid} // 0, $kb);
		}
	};

	$look->($worker);
	my $run = $session->ask("SELECT meritum_run_job('nightly_refresh')");
	my $status;
	do
	{
		$look->(split /\n/, $session->ask("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'meritum_cache%'"));
		sleep 0.002;
		$status = $session->ask("SELECT status FROM meritum_cache.job_run WHERE run_id = $run");
	} while $status =~ /queued|running/;
	die "the batch $status\n" if $status ne 'succeeded';
	note('providers', $session->ask("SELECT providers_done FROM meritum_cache.job_run WHERE run_id = $run"));
	note('kB of each process, at its start and at most',
		join ', ', map { ($_ == $worker ? 'worker' : 'job') . " $first{$_} $most{$_}" } sort keys %most);
	return max(map { $most{$_} - $first{$_} } keys %most);
}
