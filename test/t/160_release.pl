# What a release says of itself in several places is the same everywhere.

use strict;
use warnings FATAL => 'all';

use FindBin;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::Bin/../..";
my ($version) =
  slurp_file("$top/meritum_cache.control") =~ /^default_version = '(.*)'$/m;

# Update scripts lead from the oldest version to that of the control file.

my %next;
my $at;
foreach my $script (map { s/.*\///r } glob("$top/sql/meritum_cache--*.sql"))
{
	if ($script =~ /^meritum_cache--(.+)--(.+)\.sql$/)
	{
		$next{$1} = $2;
	}
	elsif ($script =~ /^meritum_cache--(.+)\.sql$/)
	{
		is($at, undef, "$script is the only script that installs");
		$at = $1;
	}
}
my $file = "sql/meritum_cache--$at.sql";
$at = $next{$at} while defined $next{$at};
is($at, $version, 'the scripts lead to the default version');

# META.json, by the specification that it names

my $meta = decode_json(slurp_file("$top/META.json"));
foreach my $key (qw(name version abstract maintainer license provides meta-spec))
{
	ok($meta->{$key}, "META.json has $key");
}
is($meta->{'meta-spec'}{version}, '1.0.0', 'version of the specification');
like($meta->{name}, qr/^[^\s\/\\[:cntrl:]]{2,}$/, 'name of the distribution');
is($meta->{license}, 'postgresql', 'a license that the specification knows');
like($_, qr/^[^\/\\[:cntrl:]]{1,255}$/, "tag $_") foreach @{ $meta->{tags} };
is($meta->{version}, "$version.0", 'version of the distribution');
is_deeply([ keys %{ $meta->{provides} } ], ['meritum_cache'], 'it provides one extension');
my $provided = $meta->{provides}{meritum_cache};
is($provided->{version}, "$version.0", 'version of the extension');
is($provided->{file}, $file, 'the script that installs it');
ok(-f "$top/$provided->{docfile}", 'its documentation');
like($meta->{prereqs}{runtime}{requires}{PostgreSQL}, qr/^\d+\.\d+\.\d+$/,
	'the oldest server');

# Debian's package

SKIP:
{
	skip 'no folder debian', 2 unless -d "$top/debian";
	like((split /\n/, slurp_file("$top/debian/changelog"))[0],
		qr/^meritum-cache \(\Q$meta->{version}\E-\d/, 'version of the package');
	like(slurp_file("$top/debian/pgversions"),
		qr/^\Q@{[ $meta->{prereqs}{runtime}{requires}{PostgreSQL} =~ s|\..*||r ]}\E\+$/m,
		'the oldest server');
}

done_testing();
