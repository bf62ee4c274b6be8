"""Tells of the process that it runs in what could tell one way to start it from another.

As a server extension it answers `GET PREFIX/probe` with the JSON of `look`; as a program, in a
kernel or in a terminal, it is asked by `outline`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import json
import locale
import logging
import os
import random
import re
import resource
import signal
import site
import socket
import stat
import sys
import sysconfig
import tempfile
import threading
import time
import uuid
import warnings
import weakref
from pathlib import Path

# weakref has one thing to do at exit, once anything has used it: what does may be left out
weakref.finalize(logging.Logger, len, ()).atexit = False

STATUS = ("CapAmb", "CapBnd", "CapEff", "CapInh", "CapPrm", "NoNewPrivs", "Seccomp")
SIGNALS = ("SigBlk", "SigCgt", "SigIgn", "ShdPnd", "SigPnd")


def status(names):
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {name: found[name] for name in names}


def umask():
    value = os.umask(0o777)
    os.umask(value)
    return oct(value)


def stream(file):
    traits = ("name", "mode", "encoding", "errors", "line_buffering", "write_through", "newlines")
    found = {name: getattr(file, name) for name in traits}
    buffer = file.buffer
    kinds = [
        type(file).__name__,
        type(buffer).__name__,
        type(getattr(buffer, "raw", None)).__name__,
    ]
    return {**found, "fileno": file.fileno(), "tty": file.isatty(), "kinds": kinds}


def descriptor(number):
    """Say what is open there, how, and whether programs that are started get it."""
    target = str(Path(f"/proc/self/fd/{number}").readlink())
    kind = os.fstat(number).st_mode
    if stat.S_ISSOCK(kind):
        with socket.socket(fileno=os.dup(number)) as same:
            name = same.getsockname() if same.family == socket.AF_INET else ""
            waits = same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            reuse = same.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            target = f"socket {same.family.name} {same.type.name} {name if waits else ''} {reuse}"
    elif stat.S_ISFIFO(kind):
        target = "pipe"
    flags = re.search(r"flags:\t(\d+)", Path(f"/proc/self/fdinfo/{number}").read_text())[1]
    return [target, flags, os.get_inheritable(number)]


def descriptors():
    found = {}
    for place in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            found[place.name] = descriptor(int(place.name))
    return found


def shown(value):
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def handlers():
    """Return who writes to which stream, of all loggers."""
    loggers = {"": logging.getLogger(), **logging.root.manager.loggerDict}
    return {
        name: [logger.level, logger.propagate, logger.disabled]
        + [
            [
                type(each).__name__,
                each.level,
                shown(each.formatter),
                shown(vars(each).get("stream")),
            ]
            for each in logger.handlers
        ]
        for name, logger in loggers.items()
        if isinstance(logger, logging.Logger) and (logger.handlers or logger.level)
    }


def main_module():
    main = sys.modules["__main__"]
    return {name: shown(value) for name, value in vars(main).items() if name.startswith("__")}


def openable(path):
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as exc:
        return exc.strerror
    return "opened"


def jupyter():
    """Return what Jupyter has made of the home, as classes keep it and as new objects do."""
    from jupyter_client.session import Session
    from jupyter_core import paths
    from jupyterlab.labapp import LabApp
    from nbconvert.exporters import HTMLExporter
    from send2trash import plat_other

    return {
        "config": paths.jupyter_config_path(),
        "data": paths.jupyter_path(),
        "runtime": paths.jupyter_runtime_dir(),
        "templates": HTMLExporter().template_paths,
        "username": [Session.username.default_value, Session().username],
        "settings": [LabApp.user_settings_dir.default_value, LabApp.workspaces_dir.default_value],
        "trash": [str(v) for k, v in sorted(vars(plat_other).items()) if k.isupper() or k == "uid"],
    }


def packages():
    return {
        "path": sys.path,
        "meta_path": [shown(each) for each in sys.meta_path],
        "path_hooks": [shown(each) for each in sys.path_hooks],
        "site": [site.ENABLE_USER_SITE, site.USER_BASE, site.USER_SITE, site.PREFIXES],
        "sysconfig": [sysconfig.get_config_var("userbase"), sysconfig.get_paths()],
        "ours": sorted(name for name in sys.modules if name.startswith("workshop_hub")),
        "main": main_module(),
    }


def interpreter():
    return {
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "executable": [sys.executable, sys._base_executable, sys.prefix, sys.base_prefix],
        "exec_prefix": [sys.exec_prefix, sys.base_exec_prefix],
        "flags": list(sys.flags),
        "options": [sys.warnoptions, sys._xoptions, sys.dont_write_bytecode, sys.pycache_prefix],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits()],
        "hooks": [shown(getattr(sys, name)) for name in dir(sys) if name.endswith("hook")],
        "traced": [shown(sys.gettrace()), shown(sys.getprofile()), shown(threading.excepthook)],
        "asyncgen": shown(type(asyncio.get_event_loop_policy())),
        "methods": [
            "bind" in vars(socket.socket),
            asyncio.BaseEventLoop.run_forever.__module__,
            os.environ.__class__.__getitem__.__module__,
        ],
        "atexit": atexit._ncallbacks(),
        "uuid": shown(uuid._node),
    }


def collector():
    gc.collect()  # the first one ends what a start has postponed
    return [gc.isenabled(), gc.get_threshold(), gc.get_debug(), len(gc.callbacks)]


def kernel_facts():
    return {
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "limits": {
            name: resource.getrlimit(getattr(resource, name))
            for name in dir(resource)
            if name.startswith("RLIMIT_")
        },
        "nice": [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)],
        "cpus": sorted(os.sched_getaffinity(0)),
        "readable": os.access("/proc/self/environ", os.R_OK),
        "tty": openable("/dev/tty"),
        "group": os.getpgrp() == os.getsid(0),
        "rights": status(STATUS),
        "threads": [
            threading.main_thread() is threading.current_thread(),
            threading.main_thread().native_id == os.getpid(),
            threading.main_thread().name,
        ],
    }


def look():
    return {
        "environment": dict(os.environ),
        "folder": [str(Path.cwd()), umask(), tempfile.gettempdir()],
        "interpreter": interpreter(),
        "packages": packages(),
        "streams": [stream(each) for each in (sys.stdin, sys.stdout, sys.stderr)],
        "originals": [
            getattr(sys, name) is getattr(sys, f"__{name}__")
            for name in ("stdin", "stdout", "stderr")
        ],
        "descriptors": descriptors(),
        "signals": {
            **status(SIGNALS),
            **{int(n): shown(signal.getsignal(n)) for n in signal.valid_signals()},
        },
        "locale": [locale.setlocale(n) for n in range(7)]
        + [locale.getpreferredencoding(), time.tzname, time.timezone],
        "jupyter": jupyter() if "jupyterlab" in sys.modules else {},
        "logging": handlers(),
        "kernel": kernel_facts(),
        "collector": collector(),
        "warnings": [shown(each) for each in warnings.filters],
    }


def outline():
    """Return what what was started from a server has of it."""
    return {
        "environment": dict(os.environ),
        "folder": [str(Path.cwd()), umask()],
        "descriptors": {
            number: found
            for number, found in descriptors().items()
            if not found[0].startswith(("socket", "pipe", "anon_inode"))
        },
        "kernel": kernel_facts(),
        "signals": status(SIGNALS),
        "parent": Path(f"/proc/{os.getppid()}/comm").read_text(),
    }


def chances():
    """Return what no two processes may have alike."""
    import multiprocessing.process

    return {
        "random": random.random(),
        "uuid": str(uuid.uuid1()),
        "authkey": multiprocessing.process.current_process().authkey.hex(),
        "tempfile": next(tempfile._get_candidate_names()),
    }


def _load_jupyter_server_extension(app):
    from jupyter_server.base.handlers import JupyterHandler

    class Probe(JupyterHandler):
        def get(self):
            asked = self.get_argument("what", "look")
            self.finish(json.dumps(globals()[asked]()))

    prefix = app.web_app.settings["base_url"]
    app.web_app.add_handlers(".*$", [(f"{prefix}probe", Probe)])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(outline()))
