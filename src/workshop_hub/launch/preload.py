"""What the warm launcher imports before it forks, and whether that is fit to be shared by users.

A module may keep what belongs to whoever imports it: a path below the home, a variable's value, a
thread. So the launcher imports with a home and a name that nobody has (HOME, USER), notes which
variables are read meanwhile, and looks for what was kept. What is known is mended in each child
(`forked`), what an extension keeps makes the launcher do without that extension, and a child whose
environment has other values than those that were read becomes no warm server.

Standard library only; it runs in the interpreter of the users' servers, which may be another
than the hub's.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType

from workshop_hub.launch import answers
from workshop_hub.launch.answers import Answers
from workshop_hub.launch.stamps import Stamps

HOME = "/nonexistent/workshop-hub-launcher"
USER = "workshop-hub-launcher"
"""What the launcher has in the place of a home and a name, so that they can be found again."""

ROOTS = (
    "jupyter_server.serverapp",
    "jupyterlab_server",
    "jupyterlab",
    "jupyterlab.labapp",
    "jupyterhub.singleuser.extension",
    "jupyterlab.commands",
    "jupyterlab.debuglog",
    "jupyterlab.extensions",
    "jupyterlab_pygments",
    "jupyter_core.migrate",
    "jupyter_lsp.serverextension",
    "jupyter_lsp.virtual_documents_shadow",
    "jupyter_server_terminals",
    "notebook_shim.nbserver",
    *(
        f"jupyter_server.{name}.handlers"
        for name in (
            "kernelspecs",
            "nbconvert",
            "services.api",
            "services.config",
            "services.contents",
            "services.events",
            "services.kernels",
            "services.nbconvert",
            "services.security",
            "services.sessions",
            "view",
        )
    ),
    "jupyter_server.services.shutdown",
    "anyio._backends._asyncio",
    "babel.dates",
    "babel.numbers",
    "defusedxml",
    "encodings.idna",
    "encodings.unicode_escape",
    "IPython",
    "httpcore",
    "httpx",
    "ipykernel.kernelspec",
    "jinja2.ext",
    "nbconvert.exporters",
    "psutil",
    "sqlite3",
    "tornado.platform.asyncio",
    "webbrowser",
)
"""What a JupyterLab session has imported by the end of its first minute, and what begins it: the
rest of about 1,400 modules follows from these. What is not installed is passed over."""

HUB_AUTH = {
    "api_url": ("JUPYTERHUB_API_URL", "http://127.0.0.1:8081/hub/api"),
    "base_url": ("JUPYTERHUB_SERVICE_PREFIX", "/"),
    "certfile": ("JUPYTERHUB_SSL_CERTFILE", ""),
    "client_ca": ("JUPYTERHUB_SSL_CLIENT_CA", ""),
    "keyfile": ("JUPYTERHUB_SSL_KEYFILE", ""),
}
"""Traits of jupyterhub.services.auth.HubAuth that take their defaults from a variable when the
module is imported, and what they are without it (JupyterHub 5 and 6)."""

HUB_MODULES = ("jupyterhub.services.auth", "jupyterhub.singleuser")
"""With what is below them, they are taken out again where HUB_AUTH is not all of it."""

MENDED: dict[str, tuple[str, ...]] = {
    "jupyter_client.session": ("USER",),
    "jupyterhub.services.auth": tuple(variable for variable, _ in HUB_AUTH.values()),
    "jupyterlab.labapp": (
        "HOME",
        "JUPYTERLAB_SETTINGS_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_NO_CONFIG",
        "PATH",
    ),
    "nbconvert.exporters.templateexporter": (
        "HOME",
        "JUPYTER_DATA_DIR",
        "JUPYTER_PATH",
        "JUPYTER_PREFER_ENV_PATH",
        "XDG_DATA_HOME",
    ),
    "send2trash.plat_other": ("HOME", "XDG_DATA_HOME"),
    "sysconfig": ("HOME",),
    "wsgiref.handlers": ("HOME", "LANG", "PATH", "USER"),
}
"""Modules that keep a little of these variables, which `forked` puts right in each child."""

READ_BY_LIBRARIES = ("OPENSSL_CONF", "SSL_CERT_DIR", "SSL_CERT_FILE")
"""Variables that compiled libraries have read by the time all is imported, as nobody can see."""

PERSONAL = ("HOME", "LOGNAME", "SHELL", "USER")
"""Variables whose values differ between users; whoever reads them may not be shared."""


@dataclass
class Preloaded:
    """What was imported.

    reads: the variables that decided something, with their values. trouble: why something cannot
    be shared. files: what was imported, as it was then. answers: see there.
    """

    reads: dict[str, str | None] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)
    files: Stamps = field(default_factory=Stamps)
    answers: Answers = field(default_factory=Answers)

    def differs(self, env: dict[str, str]) -> str:
        """Name a variable of which `env` has another value than was read; or ""."""
        return next((name for name, value in self.reads.items() if env.get(name) != value), "")


def preload(without: Iterable[str] = ()) -> Preloaded:
    """Import what servers import, but for the extensions in `without`.

    `trouble` of what is returned names the extensions, or "" for the rest, that cannot be shared,
    and why; the process is of no use then.
    """
    found = Preloaded()
    gc.disable()  # what it would free leaves holes, in which a child's own objects cost a page each
    with traced_reads() as reads:
        for root in ROOTS:
            _import(root)
        _judge("", reads, found)
        for extension in enabled_extensions():
            if extension not in without and extension not in sys.modules:
                _import(extension)
                _judge(extension, reads, found)
    found.reads = dict.fromkeys(READ_BY_LIBRARIES)
    hub_is_shared = hub_auth_is_known()
    if not hub_is_shared:
        _take_out()
    for module, variables in reads.items():
        if hub_is_shared or not is_hubs(module):
            mended = MENDED.get(module, ())
            found.reads.update({n: value for n, value in variables.items() if n not in mended})
    for kept in holders_of((HOME, USER)):
        found.trouble.setdefault("", f"{kept} keeps a path or name of whoever imports it")
    found.answers = answers.ask()
    found.files.add({*files_of_modules(), *found.answers.files})
    gc.freeze()
    gc.enable()
    return found


def is_hubs(module: str) -> bool:
    """Say whether children may have to import the module themselves."""
    return any(module == name or module.startswith(f"{name}.") for name in HUB_MODULES)


def hub_auth_is_known() -> bool:
    """Say whether this version of JupyterHub keeps of its importer just what HUB_AUTH says."""
    module = sys.modules.get("jupyterhub.services.auth")
    traits = vars(getattr(module, "HubAuth", object))
    found = {name: getattr(traits.get(name), "default_value", None) for name in HUB_AUTH}
    return found == {name: default for name, (_, default) in HUB_AUTH.items()}


@contextmanager
def traced_reads() -> Iterator[dict[str, dict[str, str | None]]]:
    """Note which variables are read, by the module that is being imported when they are."""
    reads: dict[str, dict[str, str | None]] = {}
    environ = type(os.environ)
    read = environ.__getitem__

    def noted(self: os._Environ[str], name: str) -> str:
        value = None
        try:
            value = read(self, name)
            return value
        finally:
            if self is os.environ:
                reads.setdefault(_importing(), {})[name] = value

    environ.__getitem__ = noted  # type: ignore[method-assign]
    try:
        yield reads
    finally:
        environ.__getitem__ = read  # type: ignore[method-assign]


def _importing() -> str:
    """Return the innermost module whose body is being run; "" where there is none.

    A module that is mended answers for what its functions read, whoever calls them.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "<module>" or name in MENDED:
            return name
        frame = frame.f_back
    return ""


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # not installed, or of another version; a server that needs it says so itself
    except Exception as exc:  # an extension may raise anything; servers survive that, and say so
        print(f"{name} cannot be imported: {exc!r}", file=sys.stderr)


def _judge(root: str, reads: dict[str, dict[str, str | None]], found: Preloaded) -> None:
    """Note why what `root` has brought in cannot be shared."""
    reasons = [
        f"{module} reads {name} when it is imported"
        for module, variables in reads.items()
        for name in variables
        if name in PERSONAL and name not in MENDED.get(module, ())
    ]
    if threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1:
        reasons.append("it starts a thread when it is imported")
    if reasons and not found.trouble:
        found.trouble[root] = reasons[0]


def enabled_extensions() -> list[str]:
    """Return the server extensions that the machine's configuration enables for everybody."""
    try:
        from jupyter_core.paths import ENV_CONFIG_PATH, SYSTEM_CONFIG_PATH
    except ImportError:
        return []
    enabled: dict[str, bool] = {}
    for folder in [*reversed(SYSTEM_CONFIG_PATH), *reversed(ENV_CONFIG_PATH)]:
        places = [Path(folder, "jupyter_server_config.json")]
        places += sorted(Path(folder, "jupyter_server_config.d").glob("*.json"))
        for place in places:
            enabled.update(_extensions_in(place))
    return sorted(name for name, on in enabled.items() if on)


def _extensions_in(file: Path) -> dict[str, bool]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["ServerApp"]["jpserver_extensions"]
        return {str(name): on is True for name, on in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _take_out() -> None:
    """Unload what is left to the children; all that it imports stays, so that theirs is short."""
    for name in [name for name in sys.modules if is_hubs(name)]:
        module = sys.modules.pop(name)
        parent, _, last = name.rpartition(".")
        if vars(sys.modules.get(parent, sys)).get(last) is module:
            delattr(sys.modules[parent], last)


def holders_of(kept: tuple[str, ...]) -> Iterator[str]:
    """Name what modules and classes hold that has any of the texts in it."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and name not in (*MENDED, __name__, "os", "posix"):
            for label, value in list(vars(module).items()):
                if _has(value, kept):
                    yield f"{name}.{label}"
                elif isinstance(value, type) and value.__module__ == name:
                    yield from _held_by(value, kept)


def _held_by(cls: type, kept: tuple[str, ...]) -> Iterator[str]:
    trait = getattr(sys.modules.get("traitlets"), "TraitType", type(None))
    for label, value in list(vars(cls).items()):
        # of the type alone: asked for an attribute, some objects import a module
        held = list(vars(value).values()) if issubclass(type(value), trait) else value
        if _has(held, kept):
            yield f"{cls.__module__}.{cls.__qualname__}.{label}"


def _has(value: object, kept: tuple[str, ...], depth: int = 3) -> bool:
    """Say whether any of the texts is in the value, or in what a collection holds."""
    if isinstance(value, bytes):
        return any(os.fsencode(text) in value for text in kept)
    if isinstance(value, str | Path):
        return any(text in str(value) for text in kept)
    if type(value) is dict:
        value = list(value.values())
    if depth and type(value) in (list, tuple, set, frozenset):
        return any(_has(each, kept, depth - 1) for each in list(value))  # type: ignore[call-overload]
    return False


def files_of_modules() -> set[str]:
    """Return the imported files, and the folders that modules are looked for in."""
    paths = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    paths.update(path for path in sys.path if path)
    return {path for path in paths if isinstance(path, str)}
