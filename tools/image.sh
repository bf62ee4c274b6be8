#!/bin/sh
# Make sure that there is an image for `make demo BACKEND=docker`, and print its name.
#
#   tools/image.sh [NAME]     NAME: an image to use as it is
#
# Takes workshop-hub/singleuser, or the tests' image, if the engine has one of them; else builds
# it from image/Dockerfile. Where no registry can be reached, root on Debian builds it from
# packages alone. Prints nothing where no engine answers: the demo says that better.
set -eu
cd "$(dirname "$0")/.."

if [ -n "${1:-}" ]; then echo "$1"; exit; fi
docker version >/dev/null 2>&1 || exit 0

for image in workshop-hub/singleuser workshop-hub/singleuser:test; do
    if docker image inspect "$image" >/dev/null 2>&1; then echo "$image"; exit; fi
done

image=workshop-hub/singleuser
echo "Building the image $image; this takes a few minutes." >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if docker build --tag "$image" image >"$log" 2>&1; then echo "$image"; exit; fi
tail -n 5 "$log" >&2
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then exit 1; fi
echo "No image from a registry; building one from Debian's packages." >&2
tools/packages.sh debootstrap debian-archive-keyring
EXTRA_CA=${EXTRA_CA:-${PIP_CERT:-}} tests/machine/image.sh
