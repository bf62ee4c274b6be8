"""What one fresh single-user server costs until its JupyterLab page is served.

    python tests/bench/fresh.py [--rounds N] [WAY...]

Starts the jupyterhub-singleuser beside this interpreter, by turns in each WAY (all of them if none
is named), with a stand-in for the hub. Prints the CPU seconds of the server's process until it has
served the page, the least (what others do on the machine only adds to it) and the median, its
private memory (MiB) by then, and the least CPU seconds that it takes to end when it is asked to.
Standard library only, so that it runs in an image too:
docker run --rm -v "$PWD:/w:ro" IMAGE python3 /w/tests/bench/fresh.py plain
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SINGLEUSER = Path(sys.executable).with_name("jupyterhub-singleuser")
STARTER = Path(__file__).resolve().parents[2] / "src/workshop_hub/launch/start.py"

WAYS = {
    "plain": "",
    "no-iri": "leave_out(['rfc3987_syntax'])",
    "leave-out": "leave_out()",
    "no-hub": "leave_out(); start.leave_hub_out()",
    "postpone": "postpone_collection()",
    "start.py": "",
}
"""Ways to start a server, and which part of start.py each is, where it is one."""

DEADLINE = 60.0
"""Seconds for a server to serve its page."""

ONE_PART = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
import start
start.{part}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(way: str) -> list[str]:
    """Return a command, to which the server's arguments are added."""
    if way == "plain":
        return [sys.executable, str(SINGLEUSER)]
    if way == "start.py":
        return [sys.executable, str(STARTER), str(SINGLEUSER)]
    code = ONE_PART.format(part=WAYS[way])
    return [sys.executable, "-c", code, str(STARTER.parent), str(SINGLEUSER)]


class Hub(BaseHTTPRequestHandler):
    """Knows one user, who may do everything with her server."""

    def do_GET(self) -> None:
        scopes = ["access:servers!user=ana", "read:users!user=ana"]
        user = {"kind": "user", "name": "ana", "admin": False, "groups": [], "scopes": scopes}
        body = json.dumps({"version": "6.0.0"} if self.path.endswith("/api/") else user).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-JupyterHub-Version", "6.0.0")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def answer(url: str) -> int:
    """Return the status of what is answered; 0 where nothing is."""
    request = urllib.request.Request(url, headers={"Authorization": "token t"})
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as exc:
        return exc.code
    except OSError:
        return 0


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def private(pid: int) -> float:
    """Return a process's own memory, in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def environment(hub: int, port: int, home: str) -> dict[str, str]:
    """Return what a hub at port `hub` gives to a server that is to listen at `port`."""
    return {
        "HOME": home,
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "JUPYTERHUB_API_TOKEN": "t",
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub}/hub/api",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-ana",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/ana/oauth_callback",
        "JUPYTERHUB_OAUTH_SCOPES": '["access:servers!user=ana"]',
        "JUPYTERHUB_SERVICE_PREFIX": "/user/ana/",
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/ana/",
        "JUPYTERHUB_USER": "ana",
    }


def ended(process: subprocess.Popen[bytes]) -> float:
    """Ask a server to end; return the CPU seconds that it has had when it has ended."""
    process.terminate()
    late = threading.Timer(DEADLINE, process.kill)
    late.start()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    late.cancel()
    return cpu(process.pid)


def measure(way: str, hub: int, home: str) -> tuple[float, float, float]:
    """Start one server and end it; return its CPU seconds, its memory, and CPU seconds to end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as free:
        port = free.server_address[1]
    env = environment(hub, port, home)
    argv = [*command(way), *(["--allow-root"] if os.getuid() == 0 else [])]
    with (Path(home) / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=env, cwd=home, stdout=log, stderr=log, start_new_session=True
        )
    server = env["JUPYTERHUB_SERVICE_URL"]
    end = time.monotonic() + DEADLINE
    try:
        while not answer(f"{server}api"):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{way} does not listen: {(Path(home) / 'log').read_text()}")
            time.sleep(0.02)
        status = answer(f"{server}lab")
        if status != 200:
            raise SystemExit(f"{way}: /lab was answered with {status}")
        begun, memory = cpu(process.pid), private(process.pid)
        return begun, memory, ended(process) - begun
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("ways", nargs="*", default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    asked = parser.parse_args()
    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in asked.ways}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        measure("plain", hub.server_address[1], home)  # fills the caches
        for _ in range(asked.rounds):
            for way, rounds in found.items():
                rounds.append(measure(way, hub.server_address[1], home))
    print(f"{'':10}{'CPU s':>8}{'median':>8}{'MiB':>8}{'end':>8}   of {asked.rounds}")
    for way, rounds in found.items():
        seconds, memory, end = zip(*rounds, strict=True)
        least, median = min(seconds), statistics.median(seconds)
        print(f"{way:10}{least:8.2f}{median:8.2f}{statistics.median(memory):8.1f}{min(end):8.2f}")


if __name__ == "__main__":
    main()
