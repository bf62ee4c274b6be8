"""A server of a few milliseconds that behaves as `jupyterhub-singleuser` does towards the hub.

usage: tiny_server.py [exit:CODE | silent | stubborn | child | print:TEXT ...]

exit:CODE  end at once with CODE      silent    never listen
stubborn   ignore SIGTERM             child     start a grandchild in a session of its own
print:TEXT write TEXT to the log
Answers every path with a JSON of its arguments, environment, ids and working directory.
`/exit/CODE` below its prefix ends it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        parts = self.path.rstrip("/").split("/")
        if len(parts) > 1 and parts[-2] == "exit":
            os._exit(int(parts[-1]))
        body = json.dumps(
            {
                "argv": sys.argv[1:],
                "env": dict(os.environ),
                "uid": os.getuid(),
                "gid": os.getgid(),
                "groups": os.getgroups(),
                "cwd": str(Path.cwd()),
                "pid": os.getpid(),
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-JupyterHub-Version", os.environ.get("TINY_VERSION", ""))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def main(options):
    for option in options:
        name, _, value = option.partition(":")
        if name == "print":
            print(value, flush=True)
        elif name == "exit":
            sys.exit(int(value))
        elif name == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif name == "child":
            subprocess.Popen(["sleep", "3600"], start_new_session=True)
        elif name == "silent":
            while True:
                time.sleep(3600)
    url = urlparse(os.environ["JUPYTERHUB_SERVICE_URL"])
    ThreadingHTTPServer.daemon_threads = True
    serve(ThreadingHTTPServer((url.hostname or "", url.port), Handler))


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
