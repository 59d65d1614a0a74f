# Bench.pm: what the benchmarks in bench/rows share.
#
# A row of the table of goals is one script.  It says what it measures with
# row(), gets databases and a server with setup(), and measures with compare()
# or value().  bench/run starts the scripts, one after the other, on a server
# that is theirs: they restart it with the settings that they name.  What a
# row does not name has PostgreSQL's default.
#
# The baseline is always A and what is measured against it is B; the ratio is
# the median of B over the median of A, repetitions being interleaved (A B A B
# ...), so that a machine that gets slower meets both.

package Bench;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use FindBin;
use IO::Select;
use IPC::Open2;
use JSON::PP;
use List::Util qw(max min sum0);
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  row setup compare value series not_available note option append
  reference plain attached wide wide_update peers_sql
  sql session pgbench claim_update random_provider provider_id dashboard group_by nightly
  wait_settled worker_pid anonymous_kb read_file write_file
  median percentile max min sum0 sleep time);

$| = 1;

my $top = "$FindBin::Bin/../..";
my $scratch = $ENV{TMPDIR} // '/tmp';
my $json = JSON::PP->new->canonical;

# ----------------------------------------------------------------------
# Options, which bench/run passes in the environment
# ----------------------------------------------------------------------

my %default = (
	SEED => 42,
	PROVIDERS => 200,
	MONTHS => 12,
	SCALE => 1,
	SECONDS => 5,    # that a run of pgbench takes
	SMOKE => 0);

sub option
{
	my ($name) = @_;
	return $ENV{"BENCH_$name"} // $default{$name} // die "no option $name\n";
}

# ----------------------------------------------------------------------
# What a row measures
# ----------------------------------------------------------------------

my %figures;
my $warming = 0;
my %notes;

# Declare the figures of a row: name => { what, against, unit, goal }.  With a
# goal such as '>= 0.90' it is for the ratio of B to A, with one such as
# '<= 64 MB' for B itself.  Only lists them if that is all that is wanted.
sub row
{
	my @list = @_;
	%figures = @list;
	return unless $ENV{BENCH_LIST};
	while (my ($name, $figure) = splice @list, 0, 2)
	{
		printf "%-22s %-10s %s\n", $name, $figure->{goal} // '-', $figure->{what};
		printf "%-22s %-10s against %s\n", '', '', $figure->{against} if $figure->{against};
	}
	exit 0;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	die "nothing was measured\n" unless @sorted;
	return ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2;
}

sub percentile
{
	my ($percent, @values) = @_;
	my @sorted = sort { $a <=> $b } @values;
	die "nothing was measured\n" unless @sorted;
	return $sorted[ min($#sorted, int($percent / 100 * @sorted)) ];
}

# Something to be told with the row's next figure.
sub note
{
	my ($name, $text) = @_;
	$notes{$name} = $text;
	return;
}

# Four significant digits.
sub short
{
	my ($number) = @_;
	return sprintf('%.0f', $number) if abs $number >= 1000;
	return sprintf('%.4g', $number);
}

# How busy the machine is with other things than this, in percent.
sub busy_percent
{
	my @before = cpu_times();
	sleep 0.5;
	my @after = cpu_times();
	my $total = sum0(@after) - sum0(@before);
	return $total ? sprintf('%.0f', 100 * (1 - ($after[3] + $after[4] - $before[3] - $before[4]) / $total)) + 0 : 0;
}

sub cpu_times
{
	open(my $fh, '<', '/proc/stat') or return (0) x 5;
	my (undef, @times) = split ' ', scalar <$fh>;
	return @times[ 0 .. 7 ];
}

# Measure a figure: interleaved repetitions of A and B, two functions that
# return a number.  Each runs once before that to warm up.
sub compare
{
	my ($name, %arg) = @_;
	my $repetitions = option_or('REPETITIONS', $arg{repetitions} // 3);
	my $busy = busy_percent();
	my (@a, @b);

	unless (option('SMOKE') || $arg{cold})
	{
		$warming = 1;
		$arg{A}->();
		$arg{B}->();
		$warming = 0;
	}
	foreach (1 .. $repetitions)
	{
		push @a, $arg{A}->();
		push @b, $arg{B}->();
	}
	return emit($name, kind => 'ratio', busy => $busy, a => \@a, b => \@b);
}

# Measure a figure that is compared with nothing.
sub value
{
	my ($name, %arg) = @_;
	my $repetitions = option_or('REPETITIONS', $arg{repetitions} // 3);
	my $busy = busy_percent();
	my @b;

	unless (option('SMOKE') || $arg{cold})
	{
		$warming = 1;
		$arg{B}->();
		$warming = 0;
	}
	push @b, $arg{B}->() foreach 1 .. $repetitions;
	return emit($name, kind => 'value', busy => $busy, b => \@b);
}

# A curve: points [x, y].
sub series
{
	my ($name, @points) = @_;
	return emit($name, kind => 'series', points => \@points);
}

# A figure that this version of the extension cannot give.
sub not_available
{
	my ($name, $why) = @_;
	print "$name: not available: $why\n";
	append({ %{ $figures{$name} }, kind => 'missing', name => $name, why => $why });
	return;
}

sub append
{
	my ($line) = @_;
	my $file = $ENV{BENCH_RESULTS} // die "run this by bench/run\n";
	open(my $fh, '>>', $file) or die "$file: $!\n";
	print $fh $json->encode($line), "\n";
	close $fh or die "$file: $!\n";
	return;
}

sub option_or
{
	my ($name, $default) = @_;
	my $value = $ENV{"BENCH_$name"} // '';
	return $value eq '' ? $default : $value;
}

# Print a figure and append it to the results.
sub emit
{
	my ($name, %result) = @_;
	my $figure = $figures{$name} // die "row() does not declare $name\n";
	my %line = (%$figure, %result, name => $name);
	my $unit = $figure->{unit} // '';

	print "$name: $figure->{what}\n";
	print "    against $figure->{against}\n" if $figure->{against};
	foreach my $side (qw(a b))
	{
		my $values = $result{$side} or next;
		$line{"median_$side"} = median(@$values);
		printf "    %s %10s %-16s %s\n", uc $side, short($line{"median_$side"}), $unit,
		  @$values > 1 ? '(' . join(' ', map { short($_) } @$values) . ')' : '';
	}
	if ($result{kind} eq 'ratio')
	{
		$line{figure} = $line{median_a} ? $line{median_b} / $line{median_a} : undef;
	}
	elsif ($result{kind} eq 'value')
	{
		$line{figure} = $line{median_b};
	}
	else
	{
		printf "    %10s %10s %s\n", $_->[0], short($_->[1]), $unit foreach @{ $result{points} };
	}
	if (defined $line{figure})
	{
		my $verdict = '';
		# a smoke test measures nothing
		if (!option('SMOKE') && ($figure->{goal} // '') =~ /^([<>])= ([\d.]+)/)
		{
			$line{met} = ($1 eq '<' ? $line{figure} <= $2 : $line{figure} >= $2) ? \1 : \0;
			$verdict = "goal $figure->{goal}: " . (${ $line{met} } ? 'met' : 'MISSED');
		}
		printf "    %s %10s %s\n", $result{kind} eq 'ratio' ? 'ratio B/A' : 'figure   ', short($line{figure}), $verdict;
	}
	$notes{'percent of the machine that was busy before it began'} = $result{busy}
	  if ($result{busy} // 0) > 15;
	print "    $_: $notes{$_}\n" foreach sort keys %notes;
	$line{notes} = {%notes};
	%notes = ();

	append(\%line);
	return $line{figure};
}

# ----------------------------------------------------------------------
# Talking to the server
# ----------------------------------------------------------------------

# Run commands in a database and return what they print.
sub sql
{
	my ($database, $sql) = @_;
	my $file = "$scratch/bench.$$.sql";
	write_file($file, "SET client_min_messages = warning;\n$sql\n");
	my $out = `psql -XAtq -v ON_ERROR_STOP=1 -d $database -f $file 2>&1`;
	die "in $database: $sql\n$out" if $?;
	unlink $file;
	chomp $out;
	return $out;
}

sub write_file
{
	my ($file, $text) = @_;
	open(my $fh, '>', $file) or die "$file: $!\n";
	print $fh $text;
	close $fh or die "$file: $!\n";
	return;
}

sub read_file
{
	my ($file) = @_;
	open(my $fh, '<', $file) or die "$file: $!\n";
	local $/;
	return <$fh> // '';
}

# A session that stays open; settings are for its start.
sub session
{
	my ($database, %settings) = @_;
	return Bench::Session->new($database, %settings);
}

# Load from pgbench: clients, script, settings of the sessions, and perhaps
# rate (transactions a second in all) and seconds.  Returns transactions a
# second, their mean latency, and with latencies => 1 all of them, in
# milliseconds.
#
# rows_of names a table of which each transaction updates one row: then it is
# checked that they did.  beside is a function that is called again and again
# as long as the load goes on.
sub pgbench
{
	my ($database, %arg) = @_;
	my $clients = $arg{clients} // 1;
	my $seconds = max(1, int(($arg{seconds} // option('SECONDS')) / ($warming ? 3 : 1)));
	my $file = "$scratch/bench.$$.pgbench";
	my $log = "$scratch/bench.$$.log";
	my %settings = %{ $arg{settings} // {} };
	local $ENV{PGOPTIONS} = join ' ', map { "-c $_=$settings{$_}" } sort keys %settings;
	my $updated = $arg{rows_of} && rows_updated($database, $arg{rows_of});

	write_file($file, $arg{script});
	sql('postgres', 'CHECKPOINT') unless option('SMOKE');
	my @command = ('pgbench', '-n', '-M', 'prepared', '-f', $file, '-c', $clients,
		'-j', min($clients, 2), '--random-seed=1',
		option('SMOKE') ? ('-t', 10) : ('-T', $seconds));
	push @command, '-R', $arg{rate} if $arg{rate};
	push @command, '-l', "--log-prefix=$log" if $arg{latencies};

	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		open(STDOUT, '>', "$file.out") && open(STDERR, '>&', \*STDOUT)
		  && exec(@command, $database);
		POSIX::_exit(127);
	}
	if ($arg{beside})
	{
		delete local $ENV{PGOPTIONS};
		$arg{beside}->() while waitpid($pid, WNOHANG) == 0;
	}
	else
	{
		waitpid $pid, 0;
	}
	my $failed = $?;
	my $out = read_file("$file.out");
	die "@command: $out" if $failed || $out =~ /aborted/;

	my %result;
	($result{transactions}) = $out =~ /transactions actually processed: (\d+)/;
	($result{tps}) = $out =~ /^tps = ([\d.]+)/m or die "pgbench: $out";
	# pgbench prints three decimals only
	($result{latency}) = $arg{rate} ? $out =~ /^latency average = ([\d.]+) ms/m
	  : 1000 * $clients / $result{tps};
	if ($arg{rows_of})
	{
		my $rows = rows_updated($database, $arg{rows_of}) - $updated;
		die "$result{transactions} transactions updated $rows rows of $arg{rows_of}\n"
		  if $rows != $result{transactions};
	}
	foreach my $part (glob "$log.*")
	{
		push @{ $result{latencies} },
		  map { (split ' ')[2] / 1000 } split /\n/, read_file($part);
		unlink $part;
	}
	unlink $file, "$file.out";
	return \%result;
}

# Sessions count when they end, which pgbench does not wait for.
sub rows_updated
{
	my ($database, $table) = @_;
	my $before = -1;
	while (1)
	{
		my $rows = sql($database, "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relid = '$table'::regclass");
		my $others = sql($database, "SELECT count(*) FROM pg_stat_activity"
			  . " WHERE datname = current_database() AND application_name = 'pgbench'");
		return $rows if $rows == $before && $others == 0;
		$before = $others == 0 ? $rows : -1;
		sleep 0.02;
	}
}

# Wait until nothing is pending; returns the seconds that took.
sub wait_settled
{
	my ($database) = @_;
	my $start = time;
	my $session = session($database);
	while ($session->ask('SELECT EXISTS (SELECT FROM meritum_cache.pending_refresh)') eq 't')
	{
		die "notes are still pending after 10 minutes\n" if time - $start > 600;
		sleep 0.01;
	}
	$session->close;
	return time - $start;
}

# The worker of a database, once it is there.
sub worker_pid
{
	my ($database) = @_;
	foreach (1 .. 200)
	{
		my $pid = sql('postgres', "SELECT pid FROM pg_stat_activity"
			  . " WHERE backend_type = 'meritum_cache worker' AND datname = '$database'");
		return $pid if $pid ne '';
		sleep 0.05;
	}
	die "no worker for $database\n";
}

# Memory of a process that it shares with nobody, in kB; undef if it is gone.
sub anonymous_kb
{
	my ($pid) = @_;
	my $status = eval { read_file("/proc/$pid/status") } // '';
	return $status =~ /^RssAnon:\s+(\d+)/m ? $1 : undef;
}

# ----------------------------------------------------------------------
# Server and databases
# ----------------------------------------------------------------------

# A server with the given settings and databases, name => the one that it is
# a copy of.
sub setup
{
	my (%arg) = @_;
	my %settings = (
		shared_preload_libraries => 'meritum_cache',
		'meritum_cache.databases' => '',
		%{ $arg{settings} // {} });

	# a worker would be in the way of copying
	start_server(%settings, 'meritum_cache.databases' => '');
	foreach my $name (sort keys %{ $arg{databases} // {} })
	{
		sql('postgres', "DROP DATABASE IF EXISTS $name WITH (FORCE)");
		copy_database($arg{databases}{$name}, $name);
	}
	start_server(%settings);
	my $workers = $settings{'meritum_cache.databases'};
	worker_pid($_) foreach split /, */, $workers;
	return;
}

sub copy_database
{
	my ($from, $to) = @_;
	sql('postgres', "CREATE DATABASE $to TEMPLATE $from STRATEGY file_copy");
	return;
}

# Restart the server if its settings are not these.
sub start_server
{
	my (%settings) = @_;
	my $file = "$ENV{BENCH_DATA}/bench.conf";
	my $wanted = join '', map { "$_ = '$settings{$_}'\n" } sort keys %settings;
	return if -e $file && read_file($file) eq $wanted;
	write_file($file, $wanted);
	my $out = `pg_ctl -D $ENV{BENCH_DATA} -l $ENV{BENCH_DATA}/../log -s -w -m fast restart 2>&1`;
	die "the server does not start: $out" if $?;
	return;
}

# The name of a database that functions like the ones below fill once, and
# that rows copy.
sub template
{
	my ($name, $from, $fill) = @_;
	return $name if sql('postgres', "SELECT 1 FROM pg_database WHERE datname = '$name'") ne '';
	my $start = time;
	# a worker would be in the way of copying
	start_server(shared_preload_libraries => 'meritum_cache', 'meritum_cache.databases' => '');
	sql('postgres', "DROP DATABASE IF EXISTS ${name}_new WITH (FORCE)");
	copy_database($from, "${name}_new");
	my $what = $fill->("${name}_new");
	sql("${name}_new", 'VACUUM (ANALYZE)');
	sql('postgres', "ALTER DATABASE ${name}_new RENAME TO $name");
	printf "(%s: %s, %.1f s)\n", $name, $what, time - $start;
	return $name;
}

# The platform's tables with data: parts are the seed, number of providers,
# months and scale of gen.platform().
sub plain
{
	my ($name, @parts) = @_;
	return template($name, 'template0', sub { fill($_[0], @parts) });
}

# The same with the extension, attached and after one nightly batch.
sub attached
{
	my ($name, $from) = @_;
	return template($name, $from, \&attach);
}

# Attached as well, with many providers that have few claims each: 6, 12 or 48
# in two months.
sub wide
{
	my ($providers) = @_;
	return template("wide_$providers", 'template0',
		sub {
			my ($database) = @_;
			fill($database, [ option('SEED'), $providers, 2, 0.02 ]);
			return attach($database);
		});
}

# A script of pgbench that updates a claim of one of its first ten providers.
sub wide_update
{
	return claim_update(150, provider => 'random(1, 10)', months => 2, claims => 2);
}

sub fill
{
	my ($database, @parts) = @_;
	foreach my $file ('test/support/platform.sql', 'bench/generate.sql')
	{
		my $out = `psql -Xq -v ON_ERROR_STOP=1 -d $database -f $top/$file 2>&1`;
		die "$file: $out" if $?;
	}
	sql($database, sprintf("SELECT gen.platform(%d, %d, %d, '%s', %s)",
		@$_[ 0 .. 2 ], $ENV{BENCH_AS_OF}, $_->[3])) foreach @parts;
	return sql($database, 'SELECT count(*) FROM claims') . ' claims of '
	  . sql($database, 'SELECT count(*) FROM providers') . ' providers';
}

sub attach
{
	my ($database) = @_;
	sql($database, 'CREATE EXTENSION meritum_cache');
	# runs that rows do not ask for would disturb
	sql($database, 'UPDATE meritum_cache.job SET enabled = false');
	sql($database, 'SELECT FROM meritum_attach()');
	my ($done, $cells, $errors) = split /\|/, sql($database, 'CALL meritum_refresh_all_providers()');
	die "nightly batch: $errors\n" if $errors ne '[]';
	return "attached, $cells figures of $done providers";
}

# The reference data: its two databases, without and with the extension.
sub reference
{
	my $plain = plain('reference_plain',
		[ option('SEED'), option('PROVIDERS'), option('MONTHS'), option('SCALE') ]);
	return ($plain, attached('reference_attached', $plain));
}

# A part of peers.sql.
sub peers_sql
{
	my ($part) = @_;
	my %parts = read_file("$top/bench/peers.sql") =~ /^-- part (\w+)\n(.*?)(?=^-- part|\z)/msg;
	return $parts{$part} // die "peers.sql has no part $part\n";
}

# ----------------------------------------------------------------------
# Load
# ----------------------------------------------------------------------

# See bench/generate.sql: provider n has 1,200 claims a month if n % 10 = 0,
# 300 if it is 1 to 3, else 150; a claim's number is made of the provider's,
# how many months ago it was, and its own.  Those of the form n % 50 = 49 are
# not active.

# Expressions of pgbench for the number of a random provider of the reference
# data with so many claims a month.
sub random_provider
{
	my ($per_month) = @_;
	my $tens = int(option('PROVIDERS') / 10) - 1;
	return {
		150 => "10 * random(0, $tens) + random(4, 8)",
		300 => "10 * random(0, $tens) + random(1, 3)",
		1200 => "10 * random(0, $tens) + 10" }->{$per_month};
}

# SQL for the id of a provider.
sub provider_id
{
	my ($number, $seed) = @_;
	return sprintf q(md5('%dprovider' || %s)::uuid), $seed // option('SEED'), $number;
}

# A script of pgbench that updates one random claim of a provider with about
# so many claims a month.  It gets one of the four states that most claims go
# through, always another one than it had; set names other changes, provider,
# seed, months and claims other choices.
sub claim_update
{
	my ($per_month, %arg) = @_;
	my $provider = $arg{provider} // random_provider($per_month);
	my $last = ($arg{months} // option('MONTHS')) - 1;
	my $claims = $arg{claims} // max(1, int($per_month * option('SCALE') * 0.9));
	my $seed = $arg{seed} // option('SEED');
	my $set = $arg{set} // <<~'SQL';
		state = CASE WHEN state = (ARRAY['SUBMITTED', 'ASSESSED', 'PAID', 'REJECTED'])[:state]
		             THEN (ARRAY['ASSESSED', 'PAID', 'REJECTED', 'SUBMITTED'])[:state]
		             ELSE (ARRAY['SUBMITTED', 'ASSESSED', 'PAID', 'REJECTED'])[:state] END,
		updated_at = now()
		SQL
	chomp $set;
	return <<~SQL;
		\\set provider $provider
		\\set month random(0, $last)
		\\set state random(1, 4)
		\\set claim (:provider * 1000 + :month) * 100000 + random(1, $claims)
		UPDATE claims SET $set
		WHERE claim_id = md5('${seed}claim' || :claim)::uuid;
		SQL
}

# The dashboard: metrics as an array, and the period of a year, for queries.
sub dashboard
{
	my $keys = join ',', qw(revenue_monthly revenue_by_ba revenue_by_location
	  revenue_by_hsc top_hsc_codes claims_submitted claims_assessed claims_paid
	  claims_rejected claims_adjusted rejection_rate_monthly rejection_by_code
	  rejection_by_hsc pending_pipeline);
	my ($year, $month) = split /-/, $ENV{BENCH_AS_OF};
	my $start = $month == 12 ? "$year-01-01" : sprintf '%d-%02d-01', $year - 1, $month + 1;
	return ("'{$keys}'", "'$start'", "'$ENV{BENCH_AS_OF}'");
}

# What the nightly batch is compared with.
sub group_by
{
	return <<~'SQL';
		SELECT sum(n), sum(submitted), sum(assessed) FROM (
			SELECT physician_id, date_trunc('month', date_of_service), claim_type, state,
			       ba_number, functional_centre, health_service_code,
			       count(*) AS n, sum(submitted_fee) AS submitted, sum(assessed_fee) AS assessed
			FROM claims LEFT JOIN ahcip_claim_details USING (claim_id)
			GROUP BY 1, 2, 3, 4, 5, 6, 7) AS g
		SQL
}

# Milliseconds that a nightly batch takes in a session.  It must have computed
# every figure that there is.
sub nightly
{
	my ($session) = @_;
	my $ms = $session->time('CALL meritum_refresh_all_providers()');
	my ($errors, $entries, $left) = split /\|/, $session->ask(<<~'SQL');
		SELECT coalesce(errors, '[]'), entries,
		       (SELECT count(*) FROM meritum_cache.analytics_cache WHERE computed_at < r.started_at)
		FROM meritum_cache.job_run AS r ORDER BY run_id DESC LIMIT 1
		SQL
	die "nightly batch: $errors\n" unless $errors eq '[]';
	die "the nightly batch left $left figures as they were\n" if $left;
	note('figures written', $entries);
	return $ms;
}

# ----------------------------------------------------------------------

package Bench::Session;

use strict;
use warnings FATAL => 'all';

my $mark = 0;

sub new
{
	my ($class, $database, %settings) = @_;
	my %self = (database => $database);
	local $ENV{PGOPTIONS} = join ' ', map { "-c $_=$settings{$_}" } sort keys %settings;
	$self{pid} = IPC::Open2::open2($self{out}, $self{in},
		"exec psql -XAtq -v ON_ERROR_STOP=1 -d $database 2>&1");
	$self{in}->autoflush(1);
	return bless \%self, $class;
}

# Send commands without waiting for their end.
sub start
{
	my ($self, $sql) = @_;
	$self->{mark} = 'mark ' . ++$mark;
	print { $self->{in} } "$sql\n\\echo $self->{mark}\n";
	return;
}

# Whether what was started has printed something, as it does at its end.
sub ready { return IO::Select->new($_[0]{out})->can_read(0); }

# Wait for what was started; returns what it printed.
sub finish
{
	my ($self) = @_;
	my $text = '';
	while (1)
	{
		my $line = readline $self->{out};
		die "in $self->{database}: $text\n" unless defined $line;
		last if $line eq "$self->{mark}\n";
		$text .= $line;
	}
	chomp $text;
	return $text;
}

sub ask
{
	my ($self, $sql) = @_;
	$self->start("$sql;");
	return $self->finish;
}

# Milliseconds that a command takes.
sub time
{
	my ($self, $sql) = @_;
	$self->start("\\timing on\n$sql;\n\\timing off");
	my ($ms) = $self->finish =~ /^Time: ([\d.]+) ms/m or die "no time of $sql\n";
	return $ms;
}

sub backend_pid { return $_[0]->ask('SELECT pg_backend_pid()'); }

sub close
{
	my ($self) = @_;
	close $self->{in};
	my @rest = readline $self->{out};
	waitpid $self->{pid}, 0;
	return;
}

1;
