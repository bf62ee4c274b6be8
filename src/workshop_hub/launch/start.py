"""Runs a server's script as `PYTHON SCRIPT ARGUMENTS...` does, without what no server uses.

    PYTHON start.py SCRIPT ARGUMENTS...

Four things differ for the script: optional modules that are slow to import are not found
(UNUSED), the server's part of JupyterHub is imported without the hub's (HUBS), the garbage
collector waits until the server is up (YOUNG), and memory is not taken apart at the end (`leave`).
Else it can tell only by the frames below its own that it was started this way; see
docs/explanation/faster-start.md. Nothing of this reaches what the server starts.

Standard library only, and of that little: it is run by the script's own interpreter, which may
be another than the hub's, and every start pays for it.
"""

import builtins
import gc
import io
import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.machinery import SourceFileLoader

TYPE_CHECKING = False  # importing typing would take longer than the rest
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType, TracebackType
    from typing import NoReturn

UNUSED = ("rfc3987_syntax", "httpx._main")
"""Modules that a server does without; whatever imports them on the way does without them, too.

rfc3987_syntax: jsonschema's check of the formats iri and iri-reference. It makes a parser for
each rule of its grammar when it is imported, which takes as long as the rest of a start.
httpx._main: httpx as a command. It brings rich and pygments along where they are installed.
"""

HUBS: "dict[str, dict[str, type | None]]" = {
    "sqlalchemy": {"func": None},
    "sqlalchemy.exc": {"SQLAlchemyError": Exception},
    "jupyterhub.orm": {},
    "jupyterhub.handlers": {},
    "jupyterhub.handlers.pages": {"HealthCheckHandler": object},
}
"""Modules that are the hub's, with what a server's modules take from them when they are imported: a
class of that base, or anything. With what these import in turn they are a third of all that a
server imports; none of it is called in a server (JupyterHub 5.3 to 6.1)."""

SERVERS = ("log", "metrics", "roles", "scopes", "utils", "services.auth")
"""Modules of JupyterHub that a server imports, and that import some of HUBS."""

ONCE = "jupyterhub.metrics"
"""The one of them that cannot be imported twice: Prometheus knows its metrics from then on."""

YOUNG = 300_000
"""New objects that the collector waits for at first: more than a JupyterLab server has when it is
up. Python's own figure, 700, has it look through the modules while they load, again and again."""

ANY_FILE = io.IOBase.__mro__[1]
"""What all files are, in C."""

FINISH_TIMEOUT = 2.0
"""Seconds for what still exists to finish its work."""

INTERRUPTED = -2
"""Stands for an end by SIGINT, and is nobody's exit code."""

NOT_FLUSHED = 120
"""Exit code of the interpreter where it cannot flush its streams (sys.exit's documentation)."""


def leave_out(modules: "Sequence[str]" = UNUSED) -> None:
    """Have an import of any of `modules` raise ModuleNotFoundError, unless it is loaded already."""
    for name in modules:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # documented for this use


def leave_hub_out() -> None:
    """Have the server's part of JupyterHub imported without HUBS, once a server wants it."""
    sys.meta_path.insert(0, _BeforeServer())


class _BeforeServer:
    """Finds what the other finders find, to be there before it is run."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name != "jupyterhub.singleuser":
            return None
        for finder in [each for each in sys.meta_path if each is not self]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                loader = spec.loader and _Before(spec.loader, self)
                spec.loader = loader  # type: ignore[assignment] # abc would have to be imported
                return spec
        return None


class _Before:
    """A loader that does something before the loader that it stands for.

    Not the finder, during whose work no other thread can import anything.
    """

    def __init__(self, loader: "Loader", finder: _BeforeServer) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
            import_servers_part()
        self._loader.exec_module(module)


def import_servers_part() -> None:
    """Import SERVERS, for which something stands in for HUBS meanwhile.

    Whatever imports one of HUBS afterwards gets the module itself. Does nothing where any of them
    is loaded. Where a version of JupyterHub wants more of HUBS than is known, it is left to be
    imported as usual.
    """
    servers = [f"jupyterhub.{name}" for name in SERVERS]
    before = set(sys.modules)
    if not before.isdisjoint([*HUBS, *servers]):
        return
    stand_ins = {name: _Later(name) for name in HUBS}
    for name, taken in HUBS.items():
        for label, base in taken.items():
            own = {"__module__": name}
            thing = type(label, (base,), own) if base else _Later(f"{name}.{label}")
            setattr(stand_ins[name], label, thing)
    sys.modules.update(stand_ins)
    try:
        for name in servers:
            import_module(name)
    except Exception:  # whatever it is, the server meets it again, or it is for us alone
        for name in set(sys.modules) - before - {ONCE}:
            if name.startswith("jupyterhub."):
                _unload(name)
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                _unload(name)


def _unload(name: str) -> None:
    module = sys.modules.pop(name)
    parent, _, label = name.rpartition(".")
    names = vars(sys.modules.get(parent, builtins))
    if names.get(label) is module:
        del names[label]


class _Later(type(sys)):  # type: ignore[misc]
    """Stands in for a module, or for something in one, until any of it is wanted."""

    def __getattr__(self, label: str) -> object:
        name = str(self.__name__)
        if label.startswith("__") or sys.modules.get(name) is self:
            raise AttributeError(f"module {name!r} has no attribute {label!r}")
        if name in HUBS:
            return getattr(import_module(name), label)
        module, _, own = name.rpartition(".")
        return getattr(getattr(import_module(module), own), label)


def postpone_collection(objects: int = YOUNG) -> None:
    """Let the garbage collector first look when there are `objects` new ones; then as usual.

    Nothing needs to happen for it to be as usual again: whatever the program does, garbage cannot
    fill its memory.
    """
    usual = gc.get_threshold()
    patient = (objects, *usual[1:])
    if not gc.isenabled() or not 0 < usual[0] < objects:
        return

    def be_usual(phase: str, info: "dict[str, int]") -> None:
        if gc.get_threshold() == patient:  # else the program has chosen its own meanwhile
            gc.set_threshold(*usual)
        if gc.callbacks[-1] is be_usual:  # removed before another, it would have that left out
            gc.callbacks.pop()

    gc.callbacks.append(be_usual)
    gc.set_threshold(*patient)


class NotAScript(Exception):
    """The file is none that can be run here; nothing has been changed."""


def run_script(
    script: str, arguments: "Sequence[str]", *, python: "Sequence[str]", folder_first: bool = True
) -> None:
    """Run a Python script as the module `__main__`; what it raises, SystemExit too, goes through.

    python: the interpreter's part of the command line, which sys.orig_argv begins with.
    folder_first: whether modules are looked for in the script's folder first, as they are without
    -I and -P. The traceback that the interpreter, or whoever calls sys.excepthook, then shows
    begins in the script. Raises NotAScript.
    """
    code = load_script(script)
    sys.argv[:] = [script, *arguments]
    if hasattr(sys, "orig_argv"):  # since Python 3.10
        sys.orig_argv[:] = [*python, script, *arguments]
    if folder_first:
        sys.path.insert(0, os.path.dirname(os.path.realpath(script)))
    sys.modules["__main__"] = main = new_main(code.co_filename)
    try:
        exec(code, vars(main))  # noqa: S102 - that is what a script is for
    except SystemExit:
        raise
    except BaseException:
        begin_traceback_at(code)
        raise


def load_script(script: str) -> "CodeType":
    """Return the code of a Python script. Raises NotAScript."""
    path = os.path.join(os.getcwd(), script)  # as the interpreter does it for `__file__`
    try:
        with open(path, "rb") as file:
            return compile(file.read(), path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError) as exc:
        raise NotAScript(script) from exc


def new_main(path: str) -> "ModuleType":
    """Return the module `__main__` as the interpreter makes it for the script at `path`."""
    made = type(sys)("__main__")
    made.__loader__ = SourceFileLoader("__main__", path)
    made.__file__ = path
    names = vars(made)
    names["__builtins__"] = builtins
    has = vars(sys.modules["__main__"])  # it depends on Python's version
    names.update({"__annotations__": {}} if "__annotations__" in has else {})
    names.update({"__cached__": None} if "__cached__" in has else {})
    return made


def begin_traceback_at(code: "CodeType") -> None:
    """Have the next traceback that is shown begin where `code` is run."""
    show = sys.excepthook

    def hook(
        kind: "type[BaseException]", error: BaseException, trace: "TracebackType | None"
    ) -> None:
        sys.excepthook = show
        begin = trace
        while begin is not None and begin.tb_frame.f_code is not code:
            begin = begin.tb_next
        if begin is not None:
            trace = error.__traceback__ = sys.last_traceback = begin
        show(kind, error, trace)

    sys.excepthook = hook


def run(
    script: str, arguments: "Sequence[str]", *, python: "Sequence[str]", folder_first: bool = True
) -> int:
    """Run a script as `run_script` does, and show what it raises; return what to `leave` with."""
    try:
        run_script(script, arguments, python=python, folder_first=folder_first)
    except NotAScript:
        raise
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return (exc.code or 0) & 0xFF
        print(exc.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
        return 1
    except BaseException as exc:
        sys.last_type, sys.last_value, sys.last_traceback = sys.exc_info()
        if sys.version_info >= (3, 12):
            sys.last_exc = exc
        try:
            sys.excepthook(type(exc), exc, exc.__traceback__)
        except BaseException:
            sys.__excepthook__(*sys.exc_info())
        return INTERRUPTED if isinstance(exc, KeyboardInterrupt) else 1
    return 0


def leave(code: int) -> "NoReturn":
    """End the process as the interpreter does, but for taking apart its memory.

    That takes most of the CPU time of a JupyterLab server's end. What has something to do at its
    own end (`finish`) does it all the same.
    code: what `run` returned, or any other exit code.
    """
    import atexit
    import signal
    import threading

    try:
        try:
            threading._shutdown()  # type: ignore[attr-defined]
        except BaseException:
            sys.excepthook(*sys.exc_info())
        atexit._run_exitfuncs()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not _flushed() and code != INTERRUPTED:
            code = NOT_FLUSHED
        # whoever holds a file's lock, and waits for a reader, would be waited for
        last = threading.Thread(target=finish, daemon=True)
        last.start()
        last.join(FINISH_TIMEOUT)
        if code == INTERRUPTED:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        os._exit(code & 0xFF)


def finish() -> None:
    """Have what still exists do what it does when it is taken apart: `__del__`, or write its rest.

    Objects that were frozen (gc.freeze) are passed over: in a fork they are the parent's.
    """
    kinds: dict[int, str] = {}  # by id: a class may compare in its own way
    found: dict[str, list[object]] = {"": [], "__del__": [], "close": [], "flush": []}
    for each in gc.get_objects():
        cls = type(each)
        kind = kinds.get(id(cls))
        if kind is None:
            kind = kinds[id(cls)] = _last_deed(cls)
        if kind:
            found[kind].append(each)
    for kind, objects in found.items():
        for each in objects:
            with suppress(BaseException):
                getattr(each, kind)()
    if ctypes := sys.modules.get("ctypes"):
        ctypes.CDLL(None).fflush(None)


def _last_deed(cls: type) -> str:
    """Name the method that does what objects of a class do at their end; "" where that is nothing.

    A file closes what it is made of: others' files come before Python's own, which write alone.
    """
    bases = type.mro(cls)
    last = next((vars(base)["__del__"] for base in bases if "__del__" in vars(base)), None)
    if isinstance(last, type(finish)):
        return "__del__"
    if not any(base is ANY_FILE for base in bases):
        return ""
    return "flush" if cls.__module__ == ANY_FILE.__module__ else "close"


def _flushed() -> bool:
    """Write what is left in the standard streams; say whether all could be."""
    done = True
    for file in (sys.stdout, sys.stderr):
        try:
            if file is not None and not getattr(file, "closed", False):
                file.flush()
        except BaseException as exc:  # a full disk, a closed pipe, or what a file's stand-in raises
            done = False
            told = f"Exception ignored in: {file!r}\n{type(exc).__name__}: {exc}"
            with suppress(BaseException):
                print(told, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return done


def main() -> None:
    """Run the script that the command line names."""
    if len(sys.argv) < 2:
        sys.exit("usage: PYTHON start.py SCRIPT ARGUMENTS...")
    script, *arguments = sys.argv[1:]
    words = getattr(sys, "orig_argv", [sys.executable, *sys.argv])
    python = words[: -len(sys.argv)]
    folder_first = not (sys.flags.isolated or getattr(sys.flags, "safe_path", False))
    if folder_first:
        del sys.path[0]  # the folder of this file
    leave_out()
    leave_hub_out()
    postpone_collection()
    try:
        code = run(script, arguments, python=python, folder_first=folder_first)
    except NotAScript:  # an archive, perhaps; Python itself knows what to do, or to say
        os.execv(sys.executable, [*python, script, *arguments])  # noqa: S606
    leave(code)


if __name__ == "__main__":
    main()
