#!/bin/sh
# Build the image of the Docker tests from a debootstrapped base, without any registry, and
# print its name. Built again only when something that goes into it has changed.
#
#   tests/machine/image.sh [FOLDER TAG]     FOLDER: with a Dockerfile; image/ by default
#
#   DOCKER_HOST          the engine to build on
#   PYTHON               interpreter whose jupyterhub and jupyterlab versions the image gets,
#                        python3 by default; the newest where it has none
#   EXTRA_CA             certificates to trust inside; those that pip is told to trust here by
#                        PIP_CERT or SSL_CERT_FILE, if it is; else none
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, http_proxy, https_proxy, no_proxy   handed on if set
#
# Needs root, debootstrap (see base.sh) and docker.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
image=${1:-$here/../../image}
cache=${WORKSHOP_CACHE:-/var/cache/workshop-hub}
tag=${2:-workshop-hub/singleuser:test}
suite=${SUITE:-bookworm}

base=$("$here/base.sh" "$suite")
mkdir -p "$cache/image"
exec 9>"$cache/image/lock"
flock 9

version_of() {
    "${PYTHON:-python3}" -c 'import sys
from importlib.metadata import version
print("==" + version(sys.argv[1]))' "$1" 2>/dev/null || true
}
hub=$(version_of jupyterhub)
lab=$(version_of jupyterlab)

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
trap 'exit 130' INT TERM
cp -R "$image/." "$context/"
mkdir -p "$context/ca"
ca=${EXTRA_CA:-${PIP_CERT:-${SSL_CERT_FILE:-}}}
if [ -n "$ca" ]; then cp "$ca" "$context/ca/extra.crt"; fi

inputs=$( {
    cat "$0"
    echo "$(basename "$base") $hub $lab ${PIP_INDEX_URL:-} ${PIP_EXTRA_INDEX_URL:-}"
    cd "$context" && find . -type f -print0 | sort -z | xargs -0 sha256sum
} | sha256sum | cut -c1-16)
label=workshop-hub.inputs
if [ "$(docker image inspect -f "{{index .Config.Labels \"$label\"}}" "$tag" 2>/dev/null)" = "$inputs" ]
then
    echo "$tag"
    exit 0
fi

base_tag=workshop-hub/base:$(basename "$base" .tar)
docker image inspect "$base_tag" >/dev/null 2>&1 || docker import "$base" "$base_tag" >/dev/null

set -- --build-arg "BASE=$base_tag" --label "$label=$inputs" --tag "$tag"
[ -z "$hub" ] || set -- "$@" --build-arg "JUPYTERHUB_VERSION=$hub"
[ -z "$lab" ] || set -- "$@" --build-arg "JUPYTERLAB_VERSION=$lab"
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL http_proxy https_proxy no_proxy; do
    eval "value=\${$name:-}"
    [ -z "$value" ] || set -- "$@" --build-arg "$name"
done

# The classic builder, which every engine has; on the host's network, where a proxy or a name
# server that only the host reaches works too.
if ! DOCKER_BUILDKIT=0 docker build --network=host "$@" "$context" >"$cache/image/log" 2>&1; then
    tail -n 40 "$cache/image/log" >&2
    echo "image.sh: the build failed; all of its output is in $cache/image/log" >&2
    exit 1
fi
docker image prune -f --filter "label=$label" >/dev/null
for old in $(docker image ls --format '{{.Repository}}:{{.Tag}}' workshop-hub/base); do
    [ "$old" = "$base_tag" ] || docker image rm "$old" >/dev/null 2>&1 || true
done
echo "$tag"
