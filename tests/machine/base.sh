#!/bin/sh
# Make a minimal Debian tree as a tarball and print the tarball's path.
#
#   tests/machine/base.sh [SUITE]          SUITE: bookworm (default), trixie, ...
#
# The image of the Docker tests and the guest of the systemd tests both start from it.
# It is kept in the cache folder under the hash of everything that it is made from.
#
#   WORKSHOP_CACHE   cache folder, /var/cache/workshop-hub by default
#   MIRROR           Debian mirror, http://deb.debian.org/debian by default
#   BASE_MAX_DAYS    age at which it is made anew, for security updates; 30 by default
#
# Needs root and debootstrap. Only the path goes to standard output.
set -eu

suite=${1:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
cache=${WORKSHOP_CACHE:-/var/cache/workshop-hub}
max_days=${BASE_MAX_DAYS:-30}

die() { echo "base.sh: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "must run as root"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"

arch=$(dpkg --print-architecture)
hash=$( { cat "$0"; echo "$suite $mirror $arch"; } | sha256sum | cut -c1-12)
tarball=$cache/base/debian-$suite-$arch-$hash.tar

mkdir -p "$cache/base"
exec 9>"$cache/base/lock"
flock 9  # a second caller waits here and then finds the tarball

if [ -s "$tarball" ] && [ -z "$(find "$tarball" -mtime "+$max_days")" ]; then
    echo "$tarball"
    exit 0
fi

work=$(mktemp -d "$cache/base/work.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM
tree=$work/tree

# The keyring is named because a Debian derivative would check with its own.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || die "$keyring is missing: apt-get install debian-archive-keyring"
include=
case $mirror in https:*) include=--include=ca-certificates ;; esac

debootstrap --variant=minbase --keyring="$keyring" $include "$suite" "$tree" "$mirror" \
    >"$work/log" 2>&1 9>&- || {
    tail -n 20 "$work/log" "$tree/debootstrap/debootstrap.log" >&2 || true
    die "debootstrap of $suite from $mirror failed"
}

{
    echo "deb $mirror $suite main"
    case $suite in
        sid | unstable) ;;
        *) echo "deb $mirror $suite-updates main" ;;
    esac
    case $mirror-$suite in
        *-sid | *-unstable) ;;
        http://deb.debian.org/debian-*)
            echo "deb http://deb.debian.org/debian-security $suite-security main" ;;
    esac
} >"$tree/etc/apt/sources.list"

rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
rm -f "$tree/etc/resolv.conf" "$tree/etc/hostname"
tar --numeric-owner --one-file-system -C "$tree" -cf "$work/base.tar" .
mv "$work/base.tar" "$tarball"
find "$cache/base" -maxdepth 1 -name "debian-$suite-$arch-*.tar" ! -path "$tarball" -mtime +7 -delete
echo "$tarball"
