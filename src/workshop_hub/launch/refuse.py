"""Turns those away who ask for a warm launcher that could not be started: they do without it.

    python -I -S refuse.py SECONDS

Its standard input is the launcher's socket, whose queue would keep them waiting. Standard library
only.
"""

import socket
import sys
import time
from contextlib import suppress


def refuse(listener: socket.socket, seconds: float) -> None:
    """Close every connection for so long."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        listener.settimeout(left)
        with suppress(OSError):
            listener.accept()[0].close()


if __name__ == "__main__":
    refuse(socket.socket(fileno=0), float(sys.argv[1]))
