"""A script that start.py runs can tell by nothing that Python did not run it by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import jupyterhub
import pytest

from workshop_hub.launch import start

ABOUT = """
import __main__, gc, os, sys
print(sorted((key, value) for key, value in vars(__main__).items() if key != "__loader__"))
print(type(__loader__), vars(__loader__), len(__loader__.get_source("__main__")))
print(sys.argv, sys.orig_argv, sys.path, sys.flags, sys.executable, sys.warnoptions, __name__)
print(gc.isenabled(), sorted(os.environ), os.getcwd(), sys.excepthook is sys.__excepthook__)
"""

PROGRAMS = {
    "about itself": ABOUT,
    "documented": '"""Says what it is."""\nprint(__doc__, __annotations__)\n',
    "annotated": "count: int = 3\nprint(__annotations__)\n",
    "exits with a number": "raise SystemExit(7)",
    "exits with words": "raise SystemExit('no')",
    "exits with nothing": "import sys; sys.exit()",
    "exits deep down": "import os\ndef main(): os._exit(9)\nmain()",
    "fails": "def f():\n    raise ValueError('no')\nf()",
    "fails twice": "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e",
    "fails in a library": "import json\njson.loads('{')",
    "is interrupted": "raise KeyboardInterrupt",
    "is interrupted with something to do": """
import atexit
atexit.register(print, "done")
raise KeyboardInterrupt
""",
    "exits with a large number": "raise SystemExit(70000)",
    "exits with less than nothing": "raise SystemExit(-1)",
    "exits with yes": "raise SystemExit(True)",
    "cannot write": "print('x' * 100)\nimport os\nos.close(1)",
    "leaves a thread": """
import threading, time
def work(): time.sleep(0.2); print("done")
threading.Thread(target=work).start()
threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
raise SystemExit(5)
""",
    "leaves work": """
from concurrent.futures import ThreadPoolExecutor
import time
pool = ThreadPoolExecutor(1)
for number in range(3):
    pool.submit(lambda number=number: (time.sleep(0.05), print(number)))
""",
    "leaves files open": """
import os
text, raw = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(1), "wb")
both = open("both", "w+b")
raw.write(b"raw\\n")
raw.flush()
text.write("text\\n")
both.write(b"both")
closed = open("both")
closed.close()
""",
    "exits as if interrupted": "raise SystemExit(130)",
    "leaves files of many kinds open": """
import gzip, io, shelve, tempfile
text = io.TextIOWrapper(open("text", "wb"))
class Own(io.TextIOWrapper): pass
own = Own(open("own", "wb"))
zipped = gzip.GzipFile("zipped", "wb", mtime=0)
shelf = shelve.open("shelf", writeback=True)
shelf["a"] = []
shelf["a"].append(1)
temporary = tempfile.NamedTemporaryFile(dir=".", prefix="temporary-")
text.write("text"), own.write("own"), zipped.write(b"zipped"), temporary.write(b"temporary")
""",
    "says the last word": """
class Last:
    def __del__(self): print("the last word", flush=True)
last = Last()
""",
    "has a stream that only writes": """
import sys
class Tee:
    said = ""
    def write(self, text): self.said += text
    def flush(self): sys.__stdout__.write(self.said.title()); self.said = ""
sys.stdout = Tee()
print("a word")
""",
    "has odd classes": """
class Odd(type):
    def __eq__(cls, other): raise ValueError("no")
    __hash__ = None
class Thing(metaclass=Odd): pass
thing = Thing()
file = open("file", "w")
file.write("a word")
""",
    "writes with C": """
import ctypes
libc = ctypes.CDLL(None)
libc.printf(b"a word of C's\\n")
""",
    "leaves a folder to be removed": """
import tempfile, warnings
warnings.simplefilter("ignore")
folder = tempfile.TemporaryDirectory(dir=".", prefix="left-")
""",
    "has no streams": "import sys\nsys.stdout = None\nsys.stderr = None",
    "has streams of its own": """
import io, sys
class Log(io.StringIO):
    def flush(self):
        sys.__stdout__.write(self.getvalue().title())
        self.seek(0)
        self.truncate()
sys.stdout = Log()
print("a word")
""",
    "is ended": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "shows errors itself": """
import sys, traceback
def show(kind, error, trace):
    print("".join(traceback.format_exception(kind, error, trace)), end="")
    print(sys.excepthook is show, sys.last_traceback is trace, error.__traceback__ is trace)
sys.excepthook = show
1 / 0
""",
    "looks back at exit": """
import atexit, sys
atexit.register(lambda: print(sys.excepthook is sys.__excepthook__, sys.last_value))
1 / 0
""",
    "is pickled": """
import pickle
class Thing: pass
print(type(pickle.loads(pickle.dumps(Thing()))) is Thing, Thing.__module__)
""",
    "starts processes": """
import multiprocessing, sys
def work(said): said.put((__name__, __file__, "rfc3987_syntax" in sys.modules))
if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    said = spawn.Queue()
    process = spawn.Process(target=work, args=(said,))
    process.start()
    print(said.get())
    process.join()
    print(process.exitcode)
""",
    "imports its neighbour": "import neighbour\nprint(neighbour.__file__)",
    "latin": "# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))",
    "does not parse": "x = (\n",
    "has another encoding": "# -*- coding: no-such-thing -*-\n",
    "has a NUL": "print(1)\0",
    "is empty": "",
}


PLAIN = {
    name: text
    for name, text in os.environ.items()
    if name != "PYTHONUNBUFFERED" and not name.startswith("COVERAGE_")
}
"""Has streams keep something to be written at the end, and Python end by itself: measured by
coverage, it loses what other streams than its own leave to be written."""


@dataclass
class Scripts:
    """A folder of scripts, which are run plainly and by start.py."""

    folder: Path

    def run(self, script: str, *arguments: str, flags: tuple[str, ...] = ()) -> None:
        """Run a script in both ways, and compare."""
        plain = [sys.executable, *flags, script, *arguments]
        started = [sys.executable, *flags, start.__file__, script, *arguments]
        outcome, left = self.outcome(started), self.left()
        assert outcome == self.outcome(plain)
        assert left == self.left()

    def outcome(self, command: list[str]) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            check=False,
            env=PLAIN,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    def left(self) -> dict[str, bytes]:
        """Return what is in the folder."""
        there = sorted(self.folder.rglob("*"))
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in there}

    def says(self, code: str) -> list[str]:
        """Return the lines that a script prints that start.py runs."""
        script = self.folder / "script"
        script.write_text(code)
        status, said, errors = self.outcome([sys.executable, start.__file__, str(script)])
        assert (status, errors) == (0, b"")
        return said.decode().splitlines()


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    (tmp_path / "neighbour.py").write_text("")
    return Scripts(tmp_path)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_script_does_as_it_would_by_itself(scripts: Scripts, name: str) -> None:
    script = scripts.folder / "jupyterhub-singleuser"
    script.write_bytes(PROGRAMS[name].encode("latin-1"))
    scripts.run(str(script))


def test_what_fails_at_exit_is_told_and_the_rest_goes_on(scripts: Scripts) -> None:
    script = scripts.folder / "script"
    script.write_text("import atexit, sys\natexit.register(print, 1)\natexit.register(sys.exit, 3)")
    plain = scripts.outcome([sys.executable, str(script)])
    status, said, errors = scripts.outcome([sys.executable, start.__file__, str(script)])
    assert (status, said) == plain[:2]
    # between these are the frames below the script's
    for line in (0, -1):
        assert errors.splitlines()[line] == plain[2].splitlines()[line]


def test_a_file_whose_reader_does_not_read_keeps_nobody_waiting(scripts: Scripts) -> None:
    script = scripts.folder / "script"
    script.write_text("""
import os, threading
reader, writer = os.pipe()
file = os.fdopen(writer, "wb")
threading.Thread(target=file.write, args=(b"x" * 10_000_000,), daemon=True).start()
import select
select.select([reader], [], [])  # it writes, and waits
print("said")
""")
    command = [sys.executable, start.__file__, str(script)]
    assert scripts.outcome(command) == (0, b"said\n", b"")


def test_standard_output_that_cannot_be_written_is_told_with_pythons_exit_code(
    scripts: Scripts,
) -> None:
    script = scripts.folder / "script"
    script.write_text("print('a word')\nraise SystemExit(3)")
    for command in ([str(script)], [start.__file__, str(script)]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [sys.executable, *command],
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
                env=PLAIN,
            )
        assert done.returncode == start.NOT_FLUSHED
        assert b"No space left on device" in done.stderr


FLAGS = ["-I", "-s", "-E", "-O", "-OO", "-Wd", "-Xutf8", "-uBsE"]
FLAGS += ["-P"] if sys.version_info >= (3, 11) else []


@pytest.mark.parametrize("flags", [(), *((flag,) for flag in FLAGS)])
def test_flags_of_the_interpreter_hold(scripts: Scripts, flags: tuple[str, ...]) -> None:
    script = scripts.folder / "script"
    script.write_text(f"#!/no/such\n'Says what it is.'\n{ABOUT}")
    scripts.run(str(script), "--ip=::1", "-x", "", "a b", flags=flags)


def test_a_script_is_found_and_named_in_every_way(scripts: Scripts) -> None:
    below = scripts.folder / "below"
    below.mkdir()
    (below / "script").write_text(ABOUT)
    (scripts.folder / "link").symlink_to("below/script")
    (scripts.folder / "folder").symlink_to("below")
    for way in ("link", "./below/script", "folder/script", "below/../link", f"{below}/script"):
        scripts.run(way)


def test_what_cannot_be_run_here_is_left_to_python(scripts: Scripts) -> None:
    with zipfile.ZipFile(scripts.folder / "archive", "w") as archive:
        archive.writestr("__main__.py", "import sys; print(sys.argv, sys.orig_argv, __file__)")
    (scripts.folder / "program").mkdir()
    (scripts.folder / "program" / "__main__.py").write_text("print(__file__)")
    for script in ("archive", "program", "absent"):
        scripts.run(script, "an argument", flags=("-s",))


def test_what_a_server_does_without_is_not_found(scripts: Scripts) -> None:
    said = scripts.says("""
try:
    import rfc3987_syntax
except ModuleNotFoundError as error:
    print(error)
""")
    assert said == ["import of rfc3987_syntax halted; None in sys.modules"]


def test_what_imports_it_on_the_way_works_without(scripts: Scripts) -> None:
    said = scripts.says("""
import sys
from jsonschema import Draft7Validator as v
for format, text in [("iri", "no iri"), ("uri", "no uri"), ("email", "no email")]:
    checked = v({"format": format}, format_checker=v.FORMAT_CHECKER)
    print(format, checked.is_valid(text))
import httpx
print(httpx.Client, {"lark", "rich"} & set(sys.modules))
""")
    assert said == ["iri True", "uri False", "email False", "<class 'httpx.Client'> set()"]


def test_other_programs_find_it(scripts: Scripts) -> None:
    (scripts.folder / "rfc3987_syntax.py").write_text("print('found')")
    said = scripts.says("""
import os, subprocess, sys
subprocess.run([sys.executable, "-c", "import rfc3987_syntax"], check=True, cwd=sys.path[0])
""")
    assert said == ["found"]


SERVER = "import sys, jupyterhub.singleuser.extension\nfrom jupyterhub import roles, scopes\n"
LOADED = "print([name for name in sys.modules if name.startswith(('sqlalchemy', 'jupyterhub'))])\n"


def test_a_server_imports_nothing_of_the_hub(scripts: Scripts) -> None:
    (loaded,) = scripts.says(SERVER + LOADED)
    assert "'jupyterhub.services.auth'" in loaded
    for left_out in ("sqlalchemy", "jupyterhub.orm", "jupyterhub.handlers"):
        assert f"'{left_out}" not in loaded


@pytest.mark.parametrize(
    "wants",
    [
        "import jupyterhub.app as app; print(app.JupyterHub.__module__)",
        "from jupyterhub import orm; print(scopes.orm.User is roles.orm.User is orm.User)",
        "from jupyterhub.handlers.pages import HealthCheckHandler as h; print(h.__mro__[1])",
        "import sqlalchemy; print(scopes.sa.select is sqlalchemy.select)",
        "from sqlalchemy.orm import Session; print(Session)",
        "import sqlalchemy; print(roles.func.count is not None, type(roles.func.count()))",
        "print(scopes.orm.Group.name, 'jupyterhub.orm' in sys.modules)",
        "from jupyterhub.utils import SQLAlchemyError as e; print(e.__module__, e.__name__)",
        "s = jupyterhub.singleuser; print(type(s.__loader__), s.__spec__.loader is s.__loader__)",
        "print([type(finder) for finder in sys.meta_path])",
    ],
)
def test_whoever_wants_the_hubs_modules_gets_them(scripts: Scripts, wants: str) -> None:
    script = scripts.folder / "script"
    script.write_text(SERVER + wants)
    scripts.run(str(script))


ANOTHER_FINDER = """
class Finder:
    def find_spec(self, name, *more):
        if name == "jupyterhub.singleuser":
            print("asked")
sys.meta_path.insert(1, Finder())
"""


@pytest.mark.parametrize(
    "first",
    [
        "import sqlalchemy",
        "import jupyterhub.orm",
        "import jupyterhub.utils",
        "import jupyterhub.services.auth",
        "import jupyterhub.app",
        "import importlib.util; importlib.util.find_spec('jupyterhub.singleuser')",
        ANOTHER_FINDER,
    ],
)
def test_what_came_before_the_server_stays(scripts: Scripts, first: str) -> None:
    look = "print([n for n in sys.modules if n.startswith('jupyterhub')])\n"
    use = "import sqlalchemy; print(sqlalchemy.create_engine('sqlite://'))\n"
    use += "from jupyterhub import orm; print(scopes.orm.User is orm.User)\n"
    use += "print(sqlalchemy.exc.SQLAlchemyError.__mro__)\n"
    looks = look if "importlib" in first else ""
    script = scripts.folder / "script"
    script.write_text(f"import sys\n{first}\n{looks}{SERVER}{use}")
    scripts.run(str(script))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("utils.py", "from sqlalchemy import text"),
        ("scopes.py", "from sqlalchemy import text"),
        ("services/auth.py", "from ..orm import User"),
        ("log.py", "from .handlers.pages import HomeHandler"),
        ("singleuser/__init__.py", "from ..orm import User"),
    ],
)
def test_another_jupyterhub_is_imported_as_it_is(scripts: Scripts, file: str, line: str) -> None:
    """It wants more of the hub's than the one that is known."""
    package = scripts.folder / "jupyterhub"
    shutil.copytree(Path(jupyterhub.__file__).parent, package)
    changed = package / file
    changed.write_text(f"{changed.read_text()}\n{line}\n")
    script = scripts.folder / "script"
    use = "import jupyterhub.orm; print(jupyterhub.__file__, scopes.orm.User, roles.orm.User)\n"
    use += "from sqlalchemy import create_engine; print(create_engine('sqlite://'))\n"
    script.write_text(SERVER + use)
    scripts.run(str(script))
    assert scripts.says(script.read_text())[0].startswith(str(package))


def test_a_thread_that_imports_meanwhile_is_waited_for(scripts: Scripts) -> None:
    """Each waits for the other: the server's part for the thread's module, which imports more."""
    files = {
        "slow.py": "inside.set(); log_begins.wait(30); import colorsys",
        "jupyterhub/log.py": "log_begins.set(); import slow",
        "jupyterhub/singleuser.py": "from . import log",
    }
    names = ("__init__", "metrics", "roles", "scopes", "utils", "services/__init__")
    files.update(dict.fromkeys((f"jupyterhub/{name}.py" for name in names), ""))
    for name, text in {**files, "jupyterhub/services/auth.py": ""}.items():
        (scripts.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (scripts.folder / name).write_text(text)
    script = scripts.folder / "script"
    script.write_text("""
import builtins, threading
builtins.inside, builtins.log_begins = threading.Event(), threading.Event()
thread = threading.Thread(target=__import__, args=("slow",))
thread.start()
print(builtins.inside.wait(30))
import jupyterhub.singleuser
thread.join()
print(jupyterhub.singleuser.log.slow.colorsys.__name__)
""")
    scripts.run(str(script))


def test_what_is_loaded_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "absent_module", raising=False)
    start.leave_out(["sys", "absent_module"])
    assert sys.modules["sys"] is sys
    with pytest.raises(ModuleNotFoundError):
        __import__("absent_module")


COLLECTIONS = """
import gc
seen, usual = [], {usual}
gc.callbacks.append(lambda phase, info: phase == "stop" and seen.append(info["generation"]))
kept = [[] for _ in range({young} // 2)]
print(len(seen), gc.get_threshold() == usual)
kept += [[] for _ in range({young})]
print(len(seen) > 0, gc.get_threshold() == usual, len(gc.callbacks))
"""


def test_the_collector_waits_and_is_then_as_usual(scripts: Scripts) -> None:
    usual = subprocess.check_output(
        [sys.executable, "-c", "import gc; print(gc.get_threshold())"], text=True
    ).strip()
    said = scripts.says(COLLECTIONS.format(usual=usual, young=start.YOUNG))
    assert said[0] == "0 False"
    assert said[1].startswith("True True")


def test_a_program_that_sets_the_collector_itself_has_its_way(scripts: Scripts) -> None:
    said = scripts.says("""
import gc
gc.set_threshold(901, 7, 5)
gc.collect()
print(gc.get_threshold(), gc.callbacks)
gc.disable()
gc.set_threshold(0)
print(gc.isenabled(), gc.get_threshold()[0])
""")
    assert said == ["(901, 7, 5) []", "False 0"]


def test_cyclic_garbage_is_collected_all_the_same(scripts: Scripts) -> None:
    said = scripts.says(f"""
import weakref
class Ring: pass
first = Ring()
first.itself = first
watch = weakref.ref(first)
del first
for _ in range({start.YOUNG}):
    ring = []
    ring.append(ring)
print(watch())
""")
    assert said == ["None"]


def test_without_a_script_it_says_what_it_wants(scripts: Scripts) -> None:
    status, _, words = scripts.outcome([sys.executable, start.__file__])
    assert (status, words.decode()) == (1, "usage: PYTHON start.py SCRIPT ARGUMENTS...\n")
