"""The few lines of shell that run in the container, as the user, before the server.

They write the certificates, make the notebook directory, and look whether it truly lies inside
the allowed roots: only in the container and as the user do links lead where the server will go.
Then they start the server, by way of launch/start.py where that is in the container and the
server is a script whose first line is the path of a Python.
"""

from __future__ import annotations

from pathlib import Path, PurePath

from workshop_hub.backends.base import LaunchSpec
from workshop_hub.launch import start

REFUSED = 97
"""Exit code with which the prelude refuses to start the server; its last line says why."""

MARK = "workshop-hub: "
"""How that line begins."""

CERTIFICATE_DIR = "/run/workshop-hub"
"""A tmpfs of the user's own, so that the key is never on a disk, and a read-only root is no bar."""

NAMES = ("key.pem", "cert.pem", "ca.pem")
_VARIABLES = ("WORKSHOP_HUB_KEY", "WORKSHOP_HUB_CERT", "WORKSHOP_HUB_CA")

STARTER = "/usr/local/lib/workshop-hub/start.py"
"""Where launch/start.py is in the container."""

SINGLEUSER = "jupyterhub-singleuser"
"""Name of the only program that is started by way of it."""

_SCRIPT = "WORKSHOP_HUB_START"
"""The script's own variable: entrypoints like docker-stacks' start.sh log the whole command."""

# $1 notebook directory or empty, $2 "create" or empty, $3 number of roots, roots, command
SCRIPT = f"""
refuse() {{ echo "{MARK}$1" >&2; exit {REFUSED}; }}
if [ -n "${{{_VARIABLES[0]}:-}}" ]; then
    mask=$(umask)
    umask 0377
    printf %s "${_VARIABLES[0]}" >{CERTIFICATE_DIR}/{NAMES[0]} &&
    printf %s "${_VARIABLES[1]}" >{CERTIFICATE_DIR}/{NAMES[1]} &&
    printf %s "${_VARIABLES[2]}" >{CERTIFICATE_DIR}/{NAMES[2]} ||
        refuse "The certificates of internal_ssl could not be written to {CERTIFICATE_DIR}."
    umask "$mask"
fi
unset {_SCRIPT} {" ".join(_VARIABLES)}
dir=$1 create=$2 roots=$3
shift 3
if [ -n "$dir" ]; then
    if [ ! -d "$dir" ] && [ -n "$create" ]; then
        error=$(mkdir -p -- "$dir" 2>&1) ||
            refuse "The notebook directory $dir could not be made: ${{error##*: }}."
    fi
    [ -d "$dir" ] || refuse "The notebook directory $dir does not exist in the container."
    cd -- "$dir" 2>/dev/null || refuse "The notebook directory $dir may not be entered."
    real=$(pwd -P)
    inside=
    while [ "$roots" -gt 0 ]; do
        if root=$(cd -- "$1" 2>/dev/null && pwd -P); then
            [ "$root" != / ] || root=
            case $real/ in "$root"/*) inside=1 ;; esac
        fi
        roots=$((roots - 1))
        shift
    done
    [ -n "$inside" ] ||
        refuse "The notebook directory $dir leads to $real, outside of the allowed folders."
else
    shift "$roots"
fi
if [ "${{1##*/}}" = {SINGLEUSER} ] && [ -r {STARTER} ]; then
    script=$(command -v -- "$1") && IFS= read -r line <"$script" || line=
    python=${{line#??}}
    case $line in
        *[!A-Za-z0-9_./+#!-]*) ;;
        "#!"/*/python | "#!"/*/python[0-9]*)
            shift
            exec "$python" {STARTER} "$script" "$@" ;;
    esac
fi
exec "$@"
"""


def starter() -> dict[str, str]:
    """Return launch/start.py as a file of the container."""
    return {STARTER: Path(start.__file__).read_text(encoding="utf-8")}


def command(spec: LaunchSpec, *, fast: bool = False) -> tuple[str, ...]:
    """Return the container's command: the server's own, with the prelude only where it is needed.

    So an image without a shell can run a server that has neither directory nor certificates, and
    is not to start fast.
    """
    if not _is_needed(spec, fast=fast):
        return spec.cmd
    roots = spec.allowed_roots if spec.notebook_dir else ()
    create = "create" if spec.create_notebook_dir else ""
    numbers = (spec.notebook_dir, create, str(len(roots)))
    return ("/bin/sh", "-c", f'eval "${_SCRIPT}"', "workshop-hub", *numbers, *roots, *spec.cmd)


def environment(spec: LaunchSpec, *, fast: bool = False) -> dict[str, str]:
    """Return what the prelude reads, and removes before the server starts."""
    if not _is_needed(spec, fast=fast):
        return {}
    given = {_SCRIPT: SCRIPT}
    if spec.certificates is not None:
        pems = (
            spec.certificates.key,
            spec.certificates.certificate,
            spec.certificates.authority,
        )
        given.update(zip(_VARIABLES, pems, strict=True))
    return given


def _is_needed(spec: LaunchSpec, *, fast: bool) -> bool:
    fast = fast and PurePath(spec.cmd[0]).name == SINGLEUSER
    return fast or bool(spec.notebook_dir) or spec.certificates is not None


def refusal(exit_code: int | None, log: str) -> str:
    """Return why the prelude refused to start the server; empty where it did not."""
    if exit_code != REFUSED:
        return ""
    lines = [line for line in log.splitlines() if line.startswith(MARK)]
    return lines[-1].removeprefix(MARK) if lines else ""
