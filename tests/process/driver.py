"""A hub without rights: does with the process backend what its one argument says, as JSON.

{"hub", "options", "user", "changes", "tiny", "do": [...]}; prints one JSON object a line for each
step of `start`, and for each of `prepare`, `poll`, `stop`, `list`, `check`, `usage`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import sys
from typing import Any

from harness import spec_for, with_url

from workshop_hub.backends.base import Address, Backend, LaunchSpec
from workshop_hub.backends.process import ProcessBackend
from workshop_hub.errors import WorkshopError


def say(kind: str, **what: Any) -> None:
    print(json.dumps({"kind": kind, **what}), flush=True)


async def start(backend: Backend, spec: LaunchSpec, address: Address) -> dict[str, Any]:
    handle = {}
    async for step in backend.start(with_url(spec, address), address):
        handle = step.handle or handle
        say(type(step).__name__, handle=handle, port=address.port)
        await asyncio.sleep(0)
    return handle


async def carry_out(asked: dict[str, Any]) -> None:
    backend = ProcessBackend(hub_id=asked["hub"], **asked["options"])
    account = await backend.account(asked["user"])
    spec = spec_for(account, asked["hub"], *asked["tiny"])
    spec = dataclasses.replace(spec, **asked["changes"])
    handle = asked["handle"]
    address = None
    for step in asked["do"]:
        if step == "start":
            address = await backend.prepare(spec)
            say("prepared", port=address.port)
            handle = await start(backend, spec, address)
        elif step == "poll":
            say("poll", **dataclasses.asdict(await backend.poll(handle)))
        elif step == "stop":
            await backend.stop(handle)
            say("stopped")
        elif step == "list":
            owned = await backend.list_owned()
            say("list", handles=[one.handle for one in owned])
        elif step == "check":
            for finding in await backend.check():
                say("finding", **dataclasses.asdict(finding))


def main() -> None:
    logging.basicConfig(stream=sys.stderr)
    try:
        asyncio.run(carry_out(json.loads(sys.argv[1])))
    except WorkshopError as exc:
        say("error", label=exc.label, message=str(exc))


if __name__ == "__main__":
    main()
