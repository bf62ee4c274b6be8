"""A user's server that breaks its limits when asked to, over HTTP.

usage: breaker.py [silent | need:MB ...]

silent   never listen        need:MB   use that much memory before it listens

The last two parts of a path below its prefix are what to do, and with how much:

eat/MB     start a child that uses MB of memory; tell how it ended, 0 if it got them
bloat/MB   use MB of memory in this process itself
spin/N     start N children that only compute
fork/N     start up to N children that only wait; tell how many it were
escape/N   start N processes that leave session, parent and environment behind
cache/MB   write a file of MB into the home, and read it once
free/0     end all children
leave/N    end with exit code N
me/0       tell who this is
"""

import errno
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlparse

MB = 1024 * 1024
children = []
held = []


def child(work):
    """Run `work` in a child; return its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def eat(amount):
    pid = child(lambda: fill(amount))
    return {"exit": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "pid": pid}


def fill(amount):
    for _ in range(amount):
        held.append(b"x" * MB)


def bloat(amount):
    fill(amount)
    return {}


def spin(amount):
    def work():
        while True:
            pass

    children.extend(child(work) for _ in range(amount))
    return {"pids": children}


def fork(amount):
    reason = ""
    started = 0
    try:
        while started < amount:
            children.append(child(signal.pause))
            started += 1
    except OSError as exc:
        reason = errno.errorcode[exc.errno]
    return {"started": started, "reason": reason}


def escape(amount):
    """Start daemons, which a stop by process group, session or environment would miss."""
    reader, writer = os.pipe()

    def first():
        os.setsid()
        child(second)

    def second():
        # As a program of its own: the kernel shows the environment that exec gave it.
        os.set_inheritable(writer, True)
        program = f"echo $$ >&{writer}; exec sleep 3600"
        os.execve("/bin/sh", ["sh", "-c", program], {})

    for _ in range(amount):
        os.waitpid(child(first), 0)
    os.close(writer)
    text = ""
    while text.count("\n") < amount:
        text += os.read(reader, 1000).decode()
    os.close(reader)
    return {"pids": [int(line) for line in text.splitlines()]}


def cache(amount):
    path = Path.home() / f"cache-{os.getpid()}"
    with path.open("wb") as file:
        for _ in range(amount):
            file.write(b"x" * MB)
        file.flush()
        os.fsync(file.fileno())  # what is not yet on the disk cannot be taken away
    with path.open("rb") as file:
        while file.read(MB):
            pass
    return {"path": str(path)}


def free(_amount):
    while children:
        pid = children.pop()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {}


def leave(amount):
    os._exit(amount)


def me(_amount):
    return {"pid": os.getpid(), "uid": os.getuid(), "env": dict(os.environ)}


WORK = {each.__name__: each for each in (eat, bloat, spin, fork, escape, cache, free, leave, me)}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        verb, _, amount = self.path.rpartition("/")
        work = WORK.get(verb.rpartition("/")[2], me)
        body = json.dumps(work(int(amount) if amount.isdecimal() else 0)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def main(options):
    for option in options:
        name, _, amount = option.partition(":")
        if name == "need":
            fill(int(amount))
        elif name == "silent":
            while True:
                time.sleep(3600)
    url = urlparse(os.environ["JUPYTERHUB_SERVICE_URL"])
    # One request at a time: where no thread can be started, this still answers.
    serve(HTTPServer((url.hostname or "", url.port), Handler))


def serve(server):
    """Serve for ever; in an event loop where there is one, as Jupyter does."""
    if "asyncio" not in sys.modules:
        server.serve_forever()
    import asyncio

    loop = asyncio.new_event_loop()
    loop.add_reader(server.fileno(), server.handle_request)
    loop.run_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
