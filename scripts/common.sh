# shellcheck shell=bash disable=SC2034 # some variables are for the caller
#
# common.sh: what scripts/check and scripts/demo share.  Sourced, not run.
#
# Finds a server's files, installs the packages that are missing, builds the
# extension in a copy of the tree, and starts servers of its own.
#
# Nothing of this touches a server, a cluster or a file of the machine: the
# extension is installed into a private copy of the PostgreSQL installation
# (a few real programs, the rest are links), which is found through its own
# path, as PostgreSQL allows.  So root is needed for missing packages only,
# and any number of these scripts may run at once.
#
# The layout of the temporary folder:
#
#   $work              the caller's; everything is in here
#   $work/log          the caller's; what the programs said
#   $work/source       the caller's; copy of the source tree, as it was
#   $work/run          the one that runs servers owns the rest
#   $work/run/server   private copy of the PostgreSQL installation
#   $work/run/tree     copy of the source tree, built
#   $work/run/tmp      TMPDIR
#
# PostgreSQL refuses to run as root, so root hands the work to an
# unprivileged user ($run_user); otherwise $run_user is empty.

# Sockets must have short names and messages one language.  C.UTF-8 exists on
# every Debian and Ubuntu; elsewhere plain C must do.
LC_ALL=C
if locale -a 2>/dev/null | grep -qixF -e C.utf8 -e C.UTF-8; then
    LC_ALL=C.UTF-8
fi
export LC_ALL

# Nobody's own settings of clients or of make may get in the way.
for variable in "${!PG@}" "${!PSQL@}"; do
    [[ $variable == PG_TEST_* ]] || unset "$variable"
done
unset LANGUAGE MAKEFLAGS MAKELEVEL CDPATH variable

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
oldest_major=15

work=
run_dir=
run_user=

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() { warn "${0##*/}: $*"; exit 1; }

# The text of a script's header comment, from its second line on.
header() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

# Milliseconds since some time in the past.
now_ms() {
    local ns
    ns=$(date +%s%N)
    echo $((ns / 1000000))
}

### Finding the server

# Whether a --server option makes sense; says so if not.
check_major() {
    if [[ -n $1 ]] && ! [[ $1 =~ ^[0-9]+$ && $1 -ge $oldest_major ]]; then
        warn "--server: a major version from $oldest_major on, not $1"
        return 1
    fi
}

# Majors whose server or development files are installed, newest first.
installed_majors() {
    local dir
    for dir in /usr/lib/postgresql/*/bin; do
        [[ -x $dir/postgres || -x $dir/pg_config ]] || continue
        dir=${dir%/bin}
        dir=${dir##*/}
        if [[ $dir =~ ^[0-9]+$ && $dir -ge $oldest_major ]]; then
            echo "$dir"
        fi
    done | sort -rn
}

# The newest major that can be installed from the distribution's packages.
available_major() {
    apt-cache search --names-only '^postgresql-server-dev-[0-9]+$' 2>/dev/null |
        sed -n 's/^postgresql-server-dev-\([0-9]*\) .*/\1/p' | sort -rn |
        while read -r major; do
            if [[ $major -ge $oldest_major ]] && is_available "postgresql-$major"
            then
                echo "$major"
                break
            fi
        done
}

is_available() {
    [[ $(apt-cache policy "$1" 2>/dev/null |
        sed -n 's/^ *Candidate: //p') =~ [0-9] ]]
}

# Sets $major and $pg_config for the wanted major (empty: the newest one that
# is installed whole, else the newest one that is installed, else the newest
# one that the distribution has).  An own build can be named by the variable
# MERITUM_PG_CONFIG.
choose_server() {
    local wanted=$1 m majors

    if [[ -n ${MERITUM_PG_CONFIG-} ]]; then
        pg_config=$MERITUM_PG_CONFIG
        [[ -x $pg_config ]] || die "MERITUM_PG_CONFIG: no program $pg_config"
        major=$("$pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
        return
    fi

    major=$wanted
    if [[ -z $major ]]; then
        majors=$(installed_majors)
        major=${majors%%$'\n'*}
        for m in $majors; do
            if [[ -x /usr/lib/postgresql/$m/bin/postgres &&
                  -x /usr/lib/postgresql/$m/bin/pg_config ]]; then
                major=$m
                break
            fi
        done
    fi
    if [[ -z $major ]]; then
        have_apt || die "no PostgreSQL $oldest_major or newer is installed in" \
            "/usr/lib/postgresql, and this is no Debian or Ubuntu where it" \
            "could be installed; MERITUM_PG_CONFIG=/path/to/pg_config names" \
            "another place"
        major=$(available_major)
        if [[ -z $major ]]; then
            update_packages
            major=$(available_major)
        fi
        [[ -n $major ]] || die "the packages of this distribution have no" \
            "PostgreSQL $oldest_major or newer; the PostgreSQL project's own" \
            "package archive has one for every supported distribution"
    fi
    pg_config=/usr/lib/postgresql/$major/bin/pg_config
}

### Packages

missing_packages=()

have_apt() { command -v apt-get >/dev/null && command -v dpkg >/dev/null; }

# need PACKAGE WHY COMMAND...: the package is missing if the command fails.
need() {
    local package=$1 why=$2
    shift 2
    if ! "$@" >/dev/null 2>&1; then
        missing_packages+=("$package")
        missing_reasons+="    $(printf '%-40s %s' "$package" "$why")"$'\n'
    fi
}

# What it takes to build the extension and to run a server.
need_build_and_server() {
    local compiler=gcc

    missing_packages=()
    missing_reasons=
    if [[ -n ${MERITUM_PG_CONFIG-} ]]; then
        compiler=$("$pg_config" --cc)
        compiler=${compiler%% *}
    else
        need "postgresql-$major" "the server" \
            test -x "/usr/lib/postgresql/$major/bin/postgres"
        need "postgresql-server-dev-$major" "its headers and build rules" \
            test -r "/usr/lib/postgresql/$major/lib/pgxs/src/makefiles/pgxs.mk" \
            -a -r "/usr/include/postgresql/$major/server/postgres.h" \
            -a -x "$pg_config"
    fi
    need make "runs the build" command -v make
    need gcc "compiles the extension" command -v "$compiler"
    need libc6-dev "headers of the C library" test -r /usr/include/stdio.h
}

# Runs a command as root.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    else
        sudo ${sudo_option:+"$sudo_option"} -- "$@"
    fi
}

# apt-get with sensible patience and no questions.
apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@"
}

may_become_root() {
    [[ $EUID -eq 0 ]] && return
    command -v sudo >/dev/null || return
    if [[ ! -t 0 ]]; then
        sudo_option=-n
        sudo -n true 2>/dev/null || return
    fi
}

update_packages() {
    local try

    [[ -z ${packages_updated-} ]] || return 0
    packages_updated=1
    may_become_root || return 0
    say "Reading the lists of packages (apt-get update)"
    for try in 1 2 3; do
        if apt_get update >/dev/null 2>&1; then
            return
        fi
        if [[ $try -lt 3 ]]; then
            sleep $((try * 5))
        fi
    done
    warn "apt-get update failed; trying with the lists that are there"
}

# Installs what need() found missing, as root; says what, and why.
install_missing() {
    local package command

    [[ ${#missing_packages[@]} -gt 0 ]] || return 0
    say "Missing on this machine:"
    say
    printf '%s\n' "$missing_reasons"
    have_apt || die "this is no Debian or Ubuntu: install them by hand"

    command="apt-get install --no-install-recommends ${missing_packages[*]}"
    if ! may_become_root; then
        die "installing packages needs root, and this user cannot become" \
            "root here; as root run:"$'\n\n'"    $command"$'\n'
    fi
    update_packages
    for package in "${missing_packages[@]}"; do
        is_available "$package" || die "the packages of this distribution" \
            "have no $package; choose another server with --server," \
            "or add the PostgreSQL project's own package archive"
    done
    say "Installing them$([[ $EUID -eq 0 ]] || echo ' as root (sudo)')"
    if ! apt_get install -y --no-install-recommends \
        "${missing_packages[@]}" >"$work/log/packages" 2>&1; then
        tail -n 30 "$work/log/packages" >&2
        die "$command: failed"
    fi
    say
}

### The temporary folder

# Makes $work, in TMPDIR if that is a fit place: short enough for the name of
# a socket, and open to the user that runs the servers.
make_work() {
    local base

    for base in "${TMPDIR:-/tmp}" /tmp /var/tmp; do
        base=$(cd "$base" 2>/dev/null && pwd -P) || continue
        [[ ${#base} -le 45 ]] || continue
        work=$(mktemp -d "$base/meritum-${0##*/}.XXXXXX" 2>/dev/null) || continue
        chmod 711 "$work"
        if [[ $EUID -ne 0 ]] || runuser -u nobody -- test -x "$work"; then
            break
        fi
        rmdir "$work"
        work=
    done
    [[ -n $work ]] || die "cannot make a temporary folder in ${TMPDIR:-/tmp}"
    mkdir -m 700 "$work/log"
}

# Makes $run_dir and chooses $run_user.  After the packages are installed,
# since these bring the user postgres.
make_run_dir() {
    run_dir=$work/run
    mkdir -m 700 "$run_dir" "$run_dir/tmp"
    if [[ $EUID -eq 0 ]]; then
        for run_user in postgres nobody; do
            if id -u "$run_user" >/dev/null 2>&1; then
                break
            fi
        done
        chown -R "$run_user:" "$run_dir"
        say "PostgreSQL refuses to run as root: running as user $run_user"
    fi
}

# Runs a command in $run_dir as the user that runs the servers.
as_user() {
    (
        cd "$run_dir" || exit
        export HOME=$run_dir TMPDIR=$run_dir/tmp
        if [[ -n $run_user ]]; then
            exec runuser -u "$run_user" -- "$@"
        fi
        exec "$@"
    )
}

# Processes, other than this shell, that work in the temporary folder.
processes_in_work() {
    find /proc/[0-9]*/cwd -maxdepth 0 \
        \( -lname "$work" -o -lname "$work/*" \) 2>/dev/null |
        sed -n 's|^/proc/\([0-9]*\)/cwd$|\1|p' | grep -vx -e "$$" -e "$BASHPID"
}

# Stops what still runs in the temporary folder and removes it.
remove_work() {
    local pid pids try

    [[ -n $work && -d $work ]] || return 0
    cd /
    for try in {1..100}; do
        pids=$(processes_in_work)
        [[ -n $pids ]] || break
        for pid in $pids; do
            case $try:$(cat "/proc/$pid/comm" 2>/dev/null) in
                # an immediate shutdown; the data are going to be removed
                1:postgres* | 50:postgres* | 1:memcheck*)
                    kill -QUIT "$pid" 2>/dev/null
                    ;;
                1:*) kill -TERM "$pid" 2>/dev/null ;;
                90:*) kill -KILL "$pid" 2>/dev/null ;;
            esac
        done
        sleep 0.1
    done
    rm -rf "$work" || { sleep 1; rm -rf "$work"; }
    work=
}

### Building

# Copies the source tree, without what a build or a test leaves behind: once
# for the caller, so that all that follows is about the same sources, and from
# there for the one that builds and runs.
copy_tree() {
    mkdir "$work/source"
    tar -C "$top" --exclude-vcs --exclude='*.o' --exclude='*.bc' \
        --exclude='*.so' --exclude=tmp_check --exclude=tmp_check_iso \
        --exclude=results --exclude=output_iso --exclude=log \
        --exclude='regression.*' -cf - . |
        tar -C "$work/source" --no-same-owner -xf - &&
        as_user mkdir tree &&
        tar -C "$work/source" -cf - . |
        as_user tar -C tree --no-same-owner -xf - ||
        die "cannot copy $top"
}

# A copy of the PostgreSQL installation in $run_dir/server: programs are
# copied, since they find everything else relative to where they are, and all
# else is linked.  Sets $server_bin.
copy_server() {
    local dir option

    server_bin=$run_dir/server$("$pg_config" --bindir)
    as_user mkdir -p "$server_bin"
    as_user cp -RL "$("$pg_config" --bindir)/." "$server_bin/"
    for option in --sharedir --pkglibdir --includedir --includedir-server; do
        dir=$("$pg_config" "$option")
        [[ -d $dir ]] || die "$pg_config $option: no folder $dir"
        if [[ ! -e $run_dir/server$dir ]]; then
            as_user mkdir -p "$run_dir/server$dir"
            as_user cp -Rs "$dir/." "$run_dir/server$dir/"
        fi
    done
    [[ $(as_user "$server_bin/pg_config" --sharedir) == "$run_dir"/* ]] ||
        die "$server_bin/pg_config does not find its files;" \
            "is ${work%/*} mounted noexec? (TMPDIR names another place)"
}

# wrap_server COMMAND...: from here on all servers of the copy are run by that
# command.  Not what makes a cluster: it loads no extension and would be slow.
# shellcheck disable=SC2016 # the dollars are the wrapper's
wrap_server() {
    as_user mv "$server_bin/postgres" "$server_bin/postgres-wrapped"
    {
        say '#!/bin/sh'
        say 'case ${1-} in'
        say '    --boot | --check | --single | -V | --version | -C | --describe-config)'
        say "        exec '$server_bin/postgres-wrapped' \"\$@\" ;;"
        say 'esac'
        say "exec$(printf " '%s'" "$@" "$server_bin/postgres-wrapped") \"\$@\""
    } | as_user tee "$server_bin/postgres" >/dev/null
    as_user chmod 755 "$server_bin/postgres"
}

# Builds the extension in $run_dir/$tree, with the given settings of make, and
# installs it into the copy of the server.
tree=tree
build_and_install() {
    local jobs

    jobs=$(nproc 2>/dev/null || echo 2)
    # bitcode for the JIT compiler is neither needed nor wanted here
    as_user make -s -C "$tree" -j "$jobs" PG_CONFIG="$server_bin/pg_config" \
        with_llvm=no "$@" all >"$work/log/build${tree#tree}" 2>&1 &&
        as_user make -s -C "$tree" PG_CONFIG="$server_bin/pg_config" \
            with_llvm=no "$@" install >>"$work/log/build${tree#tree}" 2>&1
}

### Servers

# start_server NAME [SETTING...]: a server in $run_dir/NAME, reached through
# a socket in that folder only; its superuser is postgres.  If
# $initial_database is set, that database exists from the first start on.
start_server() {
    local name=$1 setting
    shift

    as_user mkdir -m 700 "$name" || return
    if ! as_user "$server_bin/initdb" -D "$name/data" -U postgres -A trust -N \
        -E UTF8 >"$work/log/$name.initdb" 2>&1; then
        cat "$work/log/$name.initdb" >&2
        return 1
    fi
    {
        say "listen_addresses = ''"
        say "unix_socket_directories = '$run_dir/$name'"
        say "port = 5432"
        say "fsync = off"
        for setting; do
            say "$setting"
        done
    } | as_user tee -a "$name/data/postgresql.conf" >/dev/null
    if [[ -n ${initial_database-} ]]; then
        as_user "$server_bin/postgres" --single -D "$name/data" postgres \
            <<<"CREATE DATABASE $initial_database" \
            >"$work/log/$name.single" 2>&1
    fi
    if ! as_user "$server_bin/pg_ctl" -D "$name/data" -l "$name/log" -s -w \
        -t 60 start >"$work/log/$name.start" 2>&1; then
        cat "$work/log/$name.start" >&2
        as_user tail -n 30 "$name/log" >&2
        return 1
    fi
}

# stop_server NAME
stop_server() {
    as_user "$server_bin/pg_ctl" -D "$1/data" -s -w -m fast stop >/dev/null 2>&1
}
