#!/bin/sh
# Lock the versions of everything that development and the tests need, with hashes.
#
#   tools/lock.sh            keep what is locked, add what is new
#   tools/lock.sh --upgrade  take the newest of everything
#
# Writes requirements/lock.txt, hub5.txt and bench.txt, good for plain pip on every Python that we
# support, and requirements/proxy/package-lock.json for npm.
# Needs uv and npm (`pip install uv`; npm comes with the environment), and the network.
set -eu
cd "$(dirname "$0")/.."

lock() {
    # Only PyPI is asked: a hash from someone's own index would be of no use to others.
    env -u PIP_FIND_LINKS -u UV_FIND_LINKS -u UV_INDEX -u UV_EXTRA_INDEX_URL \
        uv --no-config pip compile --quiet --universal --generate-hashes --no-header \
        --python-version 3.10 --default-index https://pypi.org/simple "$@"
}

lock "$@" --all-extras --output-file requirements/lock.txt pyproject.toml requirements/build.in
for variant in hub5 bench; do
    lock "$@" --no-deps --output-file "requirements/$variant.txt" "requirements/$variant.in"
done
[ $# = 0 ] || (cd requirements/proxy && npm install --package-lock-only --save configurable-http-proxy@latest)
(cd requirements/proxy && npm install --package-lock-only)
