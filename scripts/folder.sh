# shellcheck shell=bash disable=SC2154 # top is of common.sh
#
# folder.sh: what scripts/check-folder and scripts/check-package share.
# Sourced after common.sh, not run.
#
# Makes a throwaway root file system of a Debian release, and runs a script of
# the project in it.  What is mounted and started there is in namespaces of
# its own, and so gone when the script ends, however that happens.
#
# In the folder, beside what Debian puts there:
#
#   $folder/meritum/source      copy of the source tree
#   $folder/meritum/simulator   the simulator's data, if they are here

folder=
keep_folder=
folder_for=

# Ends the script: what it is for cannot be done here.
skip() {
    say "skipped  $folder_for: $*"
    exit 77
}

finish_folder() {
    local status=$?

    trap '' INT TERM HUP
    if [[ -n $folder && -n $keep_folder ]]; then
        say "Kept: $folder"
    elif [[ -n $folder ]]; then
        # nothing is mounted here but by mistake; what is, must not be removed
        rm -rf --one-file-system "$folder" "$folder.log"
    fi
    exit "$status"
}

# Sets $suite and $sources to where a major is from, and $folder_for.
choose_suite() {
    sources=()
    folder_for="PostgreSQL $1"
    case $1 in
        15) suite=bookworm ;;
        17) suite=trixie ;;
        18) suite=sid ;;
        19)
            suite=sid
            # Nothing else from experimental: it need not fit together.  pgTAP
            # is not there, but it is SQL, and that for 18 will do.
            # shellcheck disable=SC2016 # the dollars are for the hooks
            sources=(--setup-hook='printf "%s\n" \
                    "Package: postgresql*19* libpq*" \
                    "Pin: release a=experimental" "Pin-Priority: 990" \
                    >"$1/etc/apt/preferences.d/experimental"'
                --customize-hook='chroot "$1" sh -ec "
                    cd /tmp
                    apt-get -q download postgresql-18-pgtap
                    dpkg-deb -x postgresql-18-pgtap_*.deb pgtap
                    cp pgtap/usr/share/postgresql/18/extension/pgtap* \
                        /usr/share/postgresql/19/extension/
                    rm -r pgtap postgresql-18-pgtap_*.deb"'
                "deb http://deb.debian.org/debian sid main"
                "deb http://deb.debian.org/debian experimental main")
            ;;
        *) warn "${0##*/}: 15, 17, 18 or 19, not \"$1\""; exit 2 ;;
    esac
}

# make_folder MEGABYTES PACKAGE...: makes $folder, of $suite, with packages.
make_folder() {
    local base data packages megabytes=$1
    shift
    packages=$(IFS=,; echo "$*")

    exec 2>&1
    trap finish_folder EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP

    [[ $EUID -eq 0 ]] || skip "making a root file system needs root"
    unshare --mount --pid --fork true 2>/dev/null ||
        skip "namespaces are not permitted here"
    if ! command -v mmdebstrap >/dev/null; then
        have_apt || skip "mmdebstrap is not installed"
        say "Installing mmdebstrap"
        apt_get install -y --no-install-recommends mmdebstrap \
            >/dev/null 2>&1 </dev/null ||
            skip "mmdebstrap cannot be installed"
    fi

    for base in "${TMPDIR:-/var/tmp}" /var/tmp /tmp; do
        [[ $(df -Pm "$base" 2>/dev/null | awk 'NR == 2 { print $4 }') -gt $megabytes ]] &&
            folder=$(mktemp -d "$base/meritum-folder.XXXXXX") && break
    done
    [[ -n $folder ]] || skip "less than $megabytes MB are free in /var/tmp"

    # A mirror's copy of sid may be past its date; its signature is still
    # checked.
    timeout -k 60 "${MERITUM_FOLDER_TIMEOUT:-1500}" \
        mmdebstrap --variant=apt --include="$packages" \
        --aptopt='Acquire::Check-Valid-Until "false"' \
        --aptopt='Acquire::Retries "3"' \
        "$suite" "$folder" ${sources[@]+"${sources[@]}"} \
        >"$folder.log" 2>&1 </dev/null || {
        tail -n 15 "$folder.log" | sed 's/^/    | /'
        skip "mmdebstrap could not make the root file system"
    }

    mkdir -p "$folder/meritum/source" "$folder/meritum/simulator"
    # with .gitignore and .gitattributes, which say what a release has
    tar -C "$top" --exclude=./.git --exclude='*.o' --exclude='*.so' \
        --exclude=tmp_check --exclude=log -cf - . |
        tar -C "$folder/meritum/source" --no-same-owner -xf - ||
        skip "cannot copy $top"
    data=${MERITUM_SIMULATOR_DATA:-$top/../shared/data/synthea}
    if [[ -d $data ]]; then
        cp -R "$data/." "$folder/meritum/simulator/"
    fi
}

# run_in_folder SCRIPT [ARGUMENT...]: the name is relative to the source tree.
run_in_folder() {
    local status

    # Arguments: the folder, the script and its arguments.
    # shellcheck disable=SC2016 # the dollars are for the shell that runs it
    local inside='
        folder=$1
        script=/meritum/source/$2
        shift 2
        mount --rbind /dev "$folder/dev" &&
            mount -t proc proc "$folder/proc" || exit 77
        data=
        if [ -n "$(ls "$folder/meritum/simulator")" ]; then
            data=/meritum/simulator
        fi
        chroot "$folder" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
            HOME=/root LC_ALL=C.UTF-8 ${data:+MERITUM_SIMULATOR_DATA=$data} \
            ${MERITUM_CHECK_JOBS:+MERITUM_CHECK_JOBS=$MERITUM_CHECK_JOBS} \
            ${MERITUM_CHECK_TIMEOUT:+MERITUM_CHECK_TIMEOUT=$MERITUM_CHECK_TIMEOUT} \
            "$script" "$@"
    '

    timeout -k 60 "${MERITUM_FOLDER_TIMEOUT:-3000}" \
        unshare --mount --propagation private --pid --fork \
        --kill-child=KILL sh -c "$inside" sh "$folder" "$@" </dev/null
    status=$?
    [[ $status -ne 77 ]] || skip "nothing can be mounted here"
    return "$status"
}
