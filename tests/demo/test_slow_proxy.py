"""A proxy that is slow the first time, as Node is on a slow disk, does not end a demo."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import pytest

from support import eventually_sync
from workshop_hub.cli.demo_hub import DemoHub, free_ports
from workshop_hub.errors import WorkshopError

SLOW = """#!/bin/sh
echo $$ >>"{folder}/proxies"
[ $(wc -l <"{folder}/proxies") -gt {failing} ] && exec configurable-http-proxy "$@"
exec sleep 300
"""


def hub_with_slow_proxy(folder: Path, *, failing: int) -> DemoHub:
    """Make a hub whose proxy listens only after it has been started `failing` times in vain."""
    proxy = folder / "slow-proxy"
    proxy.write_text(SLOW.format(folder=folder, failing=failing))
    proxy.chmod(0o755)
    options = {
        "ConfigurableHTTPProxy.command": [str(proxy)],
        "JupyterHub.authenticator_class": "null",
    }
    return DemoHub(folder, free_ports(1)[0], options)


def proxies(folder: Path) -> list[str]:
    return (folder / "proxies").read_text().split()


def living(folder: Path) -> list[str]:
    return [pid for pid in proxies(folder) if Path(f"/proc/{pid}").exists()]


async def test_the_hub_is_started_again_and_the_first_proxy_is_ended(tmp_path: Path) -> None:
    hub = hub_with_slow_proxy(tmp_path, failing=1)
    await hub.start()
    try:
        answer = await asyncio.to_thread(urllib.request.urlopen, f"{hub.url}/hub/api", timeout=60)
        assert answer.status == 200
        assert len(proxies(tmp_path)) == 2
        assert living(tmp_path) == proxies(tmp_path)[1:]
    finally:
        await hub.stop()
    assert living(tmp_path) == []


async def test_a_proxy_that_never_listens_is_told_and_none_is_left(tmp_path: Path) -> None:
    hub = hub_with_slow_proxy(tmp_path, failing=9)
    with pytest.raises(WorkshopError, match="The hub did not start") as told:
        await hub.start()
    await hub.stop()
    assert "Failed to start proxy" in told.value.log
    assert len(proxies(tmp_path)) == 2
    eventually_sync(lambda: not living(tmp_path), "the killed proxy is gone")


async def test_a_demo_that_is_ended_while_its_proxy_starts_leaves_none(tmp_path: Path) -> None:
    hub = hub_with_slow_proxy(tmp_path, failing=9)
    start = asyncio.ensure_future(hub.start())
    await asyncio.to_thread(eventually_sync, (tmp_path / "proxies").exists, "the proxy starts")
    start.cancel()
    await hub.stop()
    eventually_sync(lambda: not living(tmp_path), "the killed proxy is gone")
