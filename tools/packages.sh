#!/bin/sh
# Install the Debian or Ubuntu packages that are named and missing.
#
#   tools/packages.sh PACKAGE...
#
# Does nothing where all are there. Otherwise needs root, and says what to type where it has not.
set -eu

missing=
for package in "$@"; do
    state=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    case $state in ii*) ;; *) missing="$missing $package" ;; esac
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "This machine has no apt-get; install what corresponds to Debian's:$missing" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "Missing Debian packages. Run: sudo apt-get install$missing" >&2
    exit 1
fi
echo "Installing Debian packages:$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# The lists of a fresh machine or container are empty or old: refresh them and try once more.
# shellcheck disable=SC2086  # a list of words
apt-get install -y --no-install-recommends $missing >"$log" 2>&1 </dev/null || {
    apt-get update >>"$log" 2>&1 </dev/null || true
    apt-get install -y --no-install-recommends $missing >>"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        exit 1
    }
}
