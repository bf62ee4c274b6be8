"""Asks the process backend for things, as the hub's account, and prints JSON.

usage: try_backend.py REQUEST

REQUEST is JSON: config (options of ProcessBackend), and steps, a list of pairs:
  check, nothing                   the findings of `doctor`
  start, what the server is to be  the handle, or the error; the server goes on
  poll, usage or stop, a handle    what the backend says; without a handle that of the start
The answers are a list.
"""

import asyncio
import dataclasses
import json
import sys
from pathlib import Path

from traitlets.config import Config

from workshop_hub.backends.base import LaunchSpec, Listening, Owner
from workshop_hub.backends.process import ProcessBackend
from workshop_hub.errors import WorkshopError
from workshop_hub.policy.limits import Limits
from workshop_hub.system import accounts

HUB_ID = "0123456789ab"


def spec_of(asked):
    account = accounts.find(asked.pop("user"))
    limits = Limits(**asked.pop("limits", {}))
    given = {
        "owner": Owner(HUB_ID, account.name),
        "account": account,
        "limits": limits,
        "limits_policy": "enforce",
        "notebook_dir": "",
        "create_notebook_dir": False,
        "allowed_roots": (account.home,),
        "start_timeout": 30.0,
        **asked,
    }
    return LaunchSpec(**{**given, "cmd": tuple(given["cmd"])})


async def start(backend, spec):
    address = await backend.prepare(spec)
    url = f"http://{address.ip}:{address.port}/"
    spec = dataclasses.replace(spec, env={"JUPYTERHUB_SERVICE_URL": url})
    async for event in backend.start(spec, address):
        if isinstance(event, Listening):
            return event.handle
    raise AssertionError("no end of the start")


async def step(backend, verb, subject):
    if verb == "start":
        return await start(backend, spec_of(subject))
    if verb == "check":
        return [dataclasses.asdict(each) for each in await backend.check()]
    if verb == "stop":
        return await backend.stop(subject, now=True)
    return dataclasses.asdict(await getattr(backend, verb)(subject))


async def answers(config, steps):
    backend = ProcessBackend(
        config=Config(ProcessBackend=config),
        hub_id=HUB_ID,
        log_dir=str(Path("tried-logs").resolve()),
    )
    handle = None
    for verb, subject in steps:
        try:
            found = await step(backend, verb, subject or handle)
        except WorkshopError as error:
            kind = type(error).__name__
            found = {"error": kind, "message": error.message, "remedy": error.remedy}
        if verb == "start":
            handle = found
        yield found


async def main():
    request = json.loads(sys.argv[1])
    print(json.dumps([found async for found in answers(request["config"], request["steps"])]))


asyncio.run(main())
