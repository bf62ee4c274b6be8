"""`workshop-hub demo`: a hub to look at, without any set-up."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import click
from rich.markup import escape
from rich.panel import Panel
from traitlets.config import Config

from workshop_hub.backends.base import Backend, Finding
from workshop_hub.backends.docker import DockerBackend, hub_address
from workshop_hub.cli.demo_account import DemoAccount, demo_account
from workshop_hub.cli.demo_cgroup import demo_cgroup
from workshop_hub.cli.demo_check import Expected, await_end, check
from workshop_hub.cli.demo_hub import DemoHub, check_port, free_ports
from workshop_hub.cli.demo_options import LIMITS, Plan, authenticator_options, spawner_options
from workshop_hub.cli.output import fail, show_findings, wide_console
from workshop_hub.errors import WorkshopError
from workshop_hub.roster import hub_id
from workshop_hub.spawner import WorkshopSpawner

IMAGES = ("workshop-hub/singleuser", "workshop-hub/singleuser:test")
"""The default image, and the one that the tests make without a registry."""

console = wide_console()


@click.command()
@click.option(
    "--backend",
    type=click.Choice(list(WorkshopSpawner.backends)),
    default="process",
    show_default=True,
    help="Start servers as local processes, or as containers.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port of 127.0.0.1 to listen at; 0 picks a free one.",
)
@click.option("--image", default="", help="Image of the containers, with --backend docker.")
@click.option(
    "--check",
    is_flag=True,
    help="Log in, start a server, run a cell, stop everything; exit code 0 if all of it works.",
)
def demo(backend: str, port: int, image: str, check: bool) -> None:
    """Start a hub on this machine only, to look at.

    Needs no set-up and leaves nothing behind; Ctrl-C ends it. As root, servers run as an account
    that is made for the demo and removed afterwards; else as you. Never as root.
    """
    try:
        ended = asyncio.run(_interruptible(Plan(backend, port or free_ports(1)[0], image, check)))
    except WorkshopError as exc:
        fail(exc)
    sys.exit(0 if ended or not check else 1)


async def _interruptible(plan: Plan) -> bool:
    """Run the demo; False where a signal ended it. Everything is put back first."""
    task = asyncio.ensure_future(_run(plan))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _cancel_once, task, number)
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True


def _cancel_once(task: asyncio.Task[None], number: signal.Signals) -> None:
    """End the demo; more signals while it puts things back do nothing."""
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(each, lambda: None)
    console.print(f"\n{number.name}: ending the servers and the hub ...")
    task.cancel()


async def _run(plan: Plan) -> None:
    check_port(plan.port)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="workshop-demo-")))
        options = spawner_options(plan, folder)
        if plan.backend == "process":
            options["ProcessBackend.cgroup_parent"] = stack.enter_context(demo_cgroup())
        hub = DemoHub(folder, plan.port, options)
        backend = make_backend(plan.backend, hub, options)
        findings = await look(backend, options)
        account = stack.enter_context(demo_account())
        options |= authenticator_options(account)
        async with running(hub, backend):
            announce(plan, hub, account, findings)
            if plan.check:
                enforced = any(each.subject == "limits" and each.level == "ok" for each in findings)
                await checked(hub, account, backend, Expected(LIMITS, enforced))
            else:
                await hub.wait()
                raise WorkshopError("The hub has ended.", log=hub.log_tail())
    if plan.check:
        console.print("stopped the hub and its proxy\n[bold green]The demo works.[/]")


def make_backend(name: str, hub: DemoHub, options: dict[str, object]) -> Backend:
    """Make the backend that the hub will make too, to look at the machine with it."""
    config = Config()
    for option, value in options.items():
        section, _, trait = option.partition(".")
        config[section][trait] = value
    return WorkshopSpawner.backends[name](
        config=config, hub_id=hub_id(hub.secret), log_dir=str(hub.server_logs)
    )


async def look(backend: Backend, options: dict[str, object]) -> list[Finding]:
    """Return what there is to say of the machine; add to the options what depends on it.

    Raises WorkshopError where no server would start.
    """
    findings = await backend.check()
    if isinstance(backend, DockerBackend) and not fatal(findings):
        findings.append(await prepare_docker(backend, options))
    if fatal(findings):
        show_findings(console, fatal(findings))
        raise WorkshopError("No server would start here.", remedy="See the finding above.")
    return findings


def fatal(findings: list[Finding]) -> list[Finding]:
    """Return the errors, but for those about limits, which a demo does without."""
    return [
        finding
        for finding in findings
        if finding.level == "error" and not finding.subject.startswith("limit")
    ]


async def prepare_docker(backend: DockerBackend, options: dict[str, object]) -> Finding:
    """Have the hub listen where containers reach it, and choose the image that is there."""
    network = await backend.engine.network(backend.network_name)
    options["JupyterHub.hub_ip"] = hub_address.gateway(network) if network else ""
    options["WorkshopSpawner.pull_policy"] = "never"
    wanted = options.get("WorkshopSpawner.image")
    for image in [str(wanted)] if wanted else IMAGES:
        finding = await backend.check_image(image, "never")
        if finding.level != "error":
            options["WorkshopSpawner.image"] = image
            break
    else:
        remedy = (
            "Build it: docker build -t workshop-hub/singleuser image (or: make demo BACKEND=docker)"
        )
        finding = replace(finding, remedy=remedy)
    return finding


@contextlib.asynccontextmanager
async def running(hub: DemoHub, backend: Backend) -> AsyncIterator[None]:
    """Start the hub; afterwards end it, and every server that it leaves."""
    try:
        await hub.start()
        yield
    except BaseException:
        try:
            await put_back(hub, backend)
        except WorkshopError as exc:
            console.print(f"Moreover: {exc}", markup=False)
        raise
    await put_back(hub, backend)


async def put_back(hub: DemoHub, backend: Backend) -> None:
    """End the hub, and what it did not end."""
    try:
        await hub.stop()
    finally:
        for left in await backend.list_owned():
            await backend.stop(left.handle, now=True)
        await await_end(backend)


async def checked(hub: DemoHub, account: DemoAccount, backend: Backend, expected: Expected) -> None:
    """Check the hub; show the end of its log where something fails."""
    try:
        await check(hub, account, backend, expected, console.print)
    except WorkshopError:
        console.print(f"The end of {hub.log}:\n{hub.log_tail()}", markup=False, style="dim")
        raise


def announce(plan: Plan, hub: DemoHub, account: DemoAccount, findings: list[Finding]) -> None:
    """Say where the hub is, how to log in, and what of the limits does not hold here."""
    lines = (
        f"Address    [bold]{hub.url}[/]",
        f"User       [bold]{escape(account.name)}[/]",
        f"Password   [bold]{escape(account.password)}[/]",
        f"Servers    {plan.backend} backend, {LIMITS}",
    )
    console.print(Panel.fit("\n".join(lines), title="workshop-hub demo"))
    remarks = [finding for finding in findings if finding.level != "ok"]
    if remarks:
        show_findings(console, remarks)
    if not plan.check:
        console.print(f"The hub's log: {hub.log}\nCtrl-C ends the hub and removes all it made.")
