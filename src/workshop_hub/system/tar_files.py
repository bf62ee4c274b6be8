"""Small text files into and out of a container: the engine takes and gives them as tar archives."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import APIClient

MAX_BYTES = 1 << 20
"""Above this a file is not the small text that it is taken for."""


def fetch(client: APIClient, container: str, path: str) -> str:
    """Return the text of a file; empty where there is none, or no plain one. Blocks."""
    import docker.errors

    try:
        chunks, _ = client.get_archive(container, path)
    except docker.errors.NotFound:
        return ""
    data = b""
    for chunk in chunks:
        data += chunk
        if len(data) > MAX_BYTES:
            return ""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.next()
        file = archive.extractfile(member) if member is not None and member.isfile() else None
        return file.read().decode("utf-8", errors="surrogateescape") if file else ""


def store(client: APIClient, container: str, files: Mapping[str, str]) -> None:
    """Write the files, by absolute path, owned by root and with mode 0644. Blocks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in files.items():
            data = text.encode("utf-8", errors="surrogateescape")
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode, member.mtime = len(data), 0o644, int(time.time())
            archive.addfile(member, io.BytesIO(data))
    client.put_archive(container, "/", buffer.getvalue())
