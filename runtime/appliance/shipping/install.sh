#!/bin/sh
# Installs this release of spinescore beside earlier ones, tries it, and only then makes it the current one.
# It needs no network, and changes nothing outside of the prefix.
#
#   sh install.sh [--prefix DIR] [--key FILE | --unsigned] [--python PROGRAM]
#   sh install.sh [--prefix DIR] --back
#
#   DIR/current          link to the release that runs
#   DIR/<version>        a release; `previous` in it names the release before it
set -eu
umask 022
LC_ALL=C
export LC_ALL
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP CDPATH

prefix=/opt/spinescore
key=/etc/spinescore/release.pub
signed=yes
python=
back=no
gate_s=1800 # the longest that each step of the trial may take
work=       # the folder of this installation
release=    # the folder that gets the release
told=       # yes after a message that names the fault

# Run the pip of a wheel, the first argument, without installing it.
run_pip='import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module("pip", run_name="__main__", alter_sys=True)'

say() {
    printf 'install.sh: %s\n' "$1" >&2
}

fail() {
    say "$1"
    say "$prefix/current was not changed"
    told=yes
    exit 1
}

# Half of a release would only fill the disk. A killed installation leaves it to the next one.
end() {
    status=$?
    rm -rf "$work"
    [ -z "$release" ] || [ -f "$release/installed" ] || rm -rf "$release"
    [ "$status" -eq 0 ] || [ -n "$told" ] || say "it was stopped, or could not write; $prefix/current is $(current)"
}

usage() {
    say "$1"
    say "usage: sh install.sh [--prefix DIR] [--key FILE | --unsigned] [--python PROGRAM] [--back]"
    exit 2
}

# The release of DIR/current; nothing if there is none.
current() {
    readlink "$prefix/current" || true
}

# Two installations at a time would remove each other's files. The system releases the lock when this script ends.
lock() {
    command -v flock >/dev/null || fail "flock is missing; install util-linux"
    exec 9>"$prefix/.lock"
    flock -n 9 || fail "another installation into $prefix is under way; wait until it has ended"
    rm -rf "$prefix"/.install.* "$prefix/.current.new"
}

verify_signature() {
    if [ "$signed" = no ]; then
        say "NO SIGNATURE IS CHECKED, because of --unsigned"
        return
    fi
    [ -f "$key" ] || fail "there is no key $key; name the public key of the release with --key FILE"
    [ -f SHA256SUMS.minisig ] || fail "the release is not signed; get a signed one, or accept this one with --unsigned"
    if command -v minisign >/dev/null; then
        minisign -V -H -m SHA256SUMS -p "$key" >"$work/log" 2>&1 || fail_signature
    elif openssl version 2>/dev/null | grep -q '^OpenSSL [3-9]'; then
        verify_by_openssl || fail_signature
    else
        fail "neither minisign nor OpenSSL 3 is installed; install one to check the signature"
    fi
    say "the signature is that of $key: $(sed -n '3s/^trusted comment: //p' SHA256SUMS.minisig)"
}

fail_signature() {
    fail "the signature of the release is not that of $key: the release was changed, or the key is another one"
}

# The formats are those of minisign: "Ed" or "ED", eight bytes of the key's number, then the key or the signature.
verify_by_openssl() {
    sed -n 2p "$key" | base64 -d >"$work/key" 2>/dev/null || return 1
    sed -n 2p SHA256SUMS.minisig | base64 -d >"$work/signature" 2>/dev/null || return 1
    sed -n 4p SHA256SUMS.minisig | base64 -d >"$work/whole.sig" 2>/dev/null || return 1
    [ "$(wc -c <"$work/key")" -eq 42 ] && [ "$(wc -c <"$work/signature")" -eq 74 ] || return 1
    [ "$(head -c 2 "$work/key")" = Ed ] && [ "$(head -c 2 "$work/signature")" = ED ] || return 1
    { printf '\060\052\060\005\006\003\053\145\160\003\041\000' && tail -c 32 "$work/key"; } >"$work/key.der"
    tail -c 64 "$work/signature" >"$work/own.sig"
    openssl dgst -blake2b512 -binary -out "$work/own" SHA256SUMS || return 1
    { cat "$work/own.sig" && sed -n '3s/^trusted comment: //p' SHA256SUMS.minisig | tr -d '\n'; } >"$work/whole"
    for part in own whole; do
        openssl pkeyutl -verify -pubin -keyform DER -inkey "$work/key.der" -rawin -in "$work/$part" \
            -sigfile "$work/$part.sig" >"$work/log" 2>&1 || return 1
    done
}

verify_files() {
    [ -f SHA256SUMS ] || fail "$here has no list SHA256SUMS; get the release again"
    sha256sum --check --strict --quiet SHA256SUMS >"$work/log" 2>/dev/null || {
        sed 's/^/    /' "$work/log" >&2
        fail "files of the release are missing or were changed; get the release again"
    }
    cut -c 67- SHA256SUMS | sort >"$work/listed"
    find . ! -type d ! -path ./SHA256SUMS ! -path ./SHA256SUMS.minisig | cut -c 3- | sort >"$work/there"
    cmp -s "$work/listed" "$work/there" || fail "the release has files that its list lacks; get the release again"
}

value_of() {
    sed -n "s/^$1=//p" release
}

is_python() {
    code='import sys; sys.exit(sys.implementation.name != "cpython" or "%d.%d" % sys.version_info[:2] != sys.argv[1])'
    "$1" -I -c "$code" "$2" >/dev/null 2>&1
}

find_python() {
    needed=$(value_of python)
    if [ -z "$python" ]; then
        for python in "python$needed" python3 ""; do
            [ -z "$python" ] || ! is_python "$python" "$needed" || break
        done
        [ -n "$python" ] || fail "the release needs Python $needed, which is not here; install it, or name it with --python"
    fi
    is_python "$python" "$needed" || fail "the release needs Python $needed, and $python is not that"
    # shellcheck disable=SC2016  # Python's code
    runs_here='import os, platform, sys; _, minor, machine = sys.argv[1].removeprefix("manylinux_").split("_", 2)
system, version = os.confstr("CS_GNU_LIBC_VERSION").split()
sys.exit(platform.machine() != machine or int(version.split(".")[1]) < int(minor))'
    "$python" -I -c "$runs_here" "$(value_of platform)" >/dev/null 2>&1 ||
        fail "the release is for $(value_of platform), but this is $(uname -m) with $(getconf GNU_LIBC_VERSION || echo another C library)"
}

# Wheels unpack to three or four times their size.
check_room() {
    needed=$(($(du -sk . | cut -f 1) * 4))
    free=$(df -k --output=avail . | tail -n 1)
    [ "$free" -ge "$needed" ] ||
        fail "$prefix has $((free / 1024)) MiB free, and the release needs about $((needed / 1024)); free space there"
}

install_packages() {
    check_room
    say "installing spinescore $version into $release"
    rm -rf "$release"
    "$python" -I -m venv --without-pip "$release" >"$work/log" 2>&1 || fail_log "the environment could not be made"
    TMPDIR=$work PIP_CONFIG_FILE=/dev/null "$release/bin/python" -I -c "$run_pip" pip/pip-*.whl --isolated --disable-pip-version-check \
        --no-input --no-cache-dir install --quiet --no-index --find-links wheels --only-binary :all: --require-hashes \
        -r requirements.txt >"$work/log" 2>&1 || fail_log "the packages could not be installed"
    mkdir "$release/release"
    cp -R install.sh appliance.toml systemd release requirements.txt sbom.cdx.json SHA256SUMS* "$release/release/"
    chmod -R u=rwX,go=rX "$release/release" # a folder that was unpacked with another umask has other permissions
}

fail_log() {
    tail -n 5 "$work/log" | sed 's/^/    /' >&2
    fail "$1"
}

# The gate of the shipped bundle, then a synthetic study through the whole service, in a folder of their own.
try_release() {
    say "trying it on a synthetic study"
    mkdir "$work/try"
    cd "$work/try"
    for step in "bundle verify phantom-reference --device cpu" "serve --demo --until-idle"; do
        # shellcheck disable=SC2086  # $step is several words
        SPINESCORE_CACHE=$work/try/cache HOME=$work/try timeout --foreground -k 30 "$gate_s" "$release/bin/spinescore" $step \
            >"$work/log" 2>&1 || fail_log "spinescore $step failed, so $version is not used"
    done
    "$release/bin/spinescore" study list --config appliance-demo/appliance.toml --state delivered --json >"$work/log" 2>&1 &&
        grep -q '"delivered"' "$work/log" &&
        [ -n "$(find appliance-demo/results -name report.json)" ] ||
        fail_log "the synthetic study was not scored and delivered, so $version is not used"
    cd "$work/release"
}

# Everything is on the disk before the link changes, in one step: whoever follows it finds one release or the other.
point_to() {
    sync -f "$prefix"
    ln -s "$1" "$prefix/.current.new"
    mv -fT "$prefix/.current.new" "$prefix/current"
    sync -f "$prefix"
}

install() {
    work=$(mktemp -d "$prefix/.install.XXXXXX")
    trap end EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # What is verified is a copy, which nobody can change between its check and its use.
    cp -R "$here" "$work/release" || fail "the release could not be copied; free space in $prefix"
    cd "$work/release"
    [ -z "$(find . ! -type f ! -type d)" ] || fail "the release has links or devices in it; get the release again"
    verify_signature
    verify_files
    version=$(value_of version)
    case $version in
    "" | [!0-9]* | *[!0-9A-Za-z.+]*) fail "$here is no release of spinescore" ;;
    esac
    release=$prefix/$version
    find_python
    if [ ! -f "$release/installed" ]; then
        install_packages
    elif ! cmp -s SHA256SUMS "$release/release/SHA256SUMS"; then
        fail "another build of $version is installed; give this one another version, or remove $release if it is not in use"
    fi
    try_release
    before=$(current)
    sync -f "$prefix" # before the mark: a release with it is never installed again
    : >"$release/installed"
    if [ -n "$before" ] && [ "$before" != "$version" ]; then
        printf '%s\n' "$before" >"$release/.previous" && mv -f "$release/.previous" "$release/previous"
    fi
    point_to "$version"
    say "spinescore $version is current now; before: ${before:-none}. Restart the service: systemctl restart spinescore"
}

go_back() {
    before=$(current)
    [ -n "$before" ] || fail "no release is current in $prefix"
    [ -f "$prefix/$before/previous" ] || fail "there is no release before $before"
    previous=$(cat "$prefix/$before/previous")
    [ -f "$prefix/$previous/installed" ] || fail "the release $previous before $before is not in $prefix any more"
    point_to "$previous"
    say "spinescore $previous is current again; before: $before. Restart the service: systemctl restart spinescore"
}

while [ $# -gt 0 ]; do
    case $1 in
    --prefix | --key | --python)
        [ $# -ge 2 ] || usage "$1 needs a value"
        case $1 in
        --prefix) prefix=$2 ;;
        --key) key=$2 ;;
        --python) python=$2 ;;
        esac
        shift
        ;;
    --unsigned) signed=no ;;
    --back) back=yes ;;
    *) usage "there is no option $1" ;;
    esac
    shift
done
here=$(cd "$(dirname "$0")" && pwd -P)
case $key in /*) ;; *) key=$PWD/$key ;; esac
mkdir -p "$prefix" 2>/dev/null && [ -w "$prefix" ] || fail "$prefix cannot be written; run this as root, or name a --prefix"
prefix=$(cd "$prefix" && pwd -P)
lock
if [ "$back" = yes ]; then go_back; else install; fi
