"""What can be configured of the process backend: facts of the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from traitlets import Enum, Float, Integer, List, Tuple, Unicode, validate

from workshop_hub.backends.base import Backend
from workshop_hub.errors import ConfigError
from workshop_hub.launch import become
from workshop_hub.system import ports


class ProcessOptions(Backend):
    """The options of ProcessBackend; written as `c.ProcessBackend.NAME`."""

    launcher = Enum(
        ["sudo", "sudospawner"],
        default_value="sudo",
        help="""What starts servers: "sudo", our launcher; or "sudospawner", the mediator of the
        package of that name, for sites whose sudoers file allows it already. The mediator can
        neither make a notebook_dir nor start anything but jupyterhub-singleuser.""",
    ).tag(config=True)

    launcher_command = List(
        Unicode(),
        default_value=[
            str(Path(sys.executable).resolve()),  # the same by whatever name the hub was started
            "-I",
            "-S",
            str(Path(become.__file__).resolve()),
        ],
        minlen=1,
        help="""The launcher, as the sudoers file allows it. All of it must be readable by every
        user and writable by root alone. Example: ["/opt/workshop-hub/bin/python", "-I", "-S",
        "/opt/workshop-hub/lib/python3.12/site-packages/workshop_hub/launch/become.py"].""",
    ).tag(config=True)

    sudo_command = List(
        Unicode(),
        default_value=["sudo"],
        minlen=1,
        help="""sudo, and options for it in addition to `-n -H -u NAME`.
        Example: ["/usr/local/bin/sudo"].""",
    ).tag(config=True)

    sudospawner_path = Unicode(
        str(Path(sys.executable).with_name("sudospawner")),
        help="""The mediator, where launcher is "sudospawner".
        Example: "/opt/jupyterhub/bin/sudospawner".""",
    ).tag(config=True)

    run_as = Enum(
        ["user", "hub"],
        default_value="user",
        help="""Whose processes servers are: "user", the account of that name; "hub", the hub's
        own account for everybody, for a demonstration on a laptop: no user is protected from
        another then. "hub" is refused where the hub is root.""",
    ).tag(config=True)

    cgroup_parent = Unicode(
        help="""The cgroup, below the mount of cgroup v2, that is delegated to the hub for its
        servers. Empty to use workshop.slice/workshop-users.service where that exists, else, for a
        hub that is root, workshop-hub. Example: "jupyter.slice/jupyter-users.service".""",
    ).tag(config=True)

    port_range = Tuple(
        Integer(),
        Integer(),
        default_value=(20000, 29999),
        help="""First and last port for servers. It must lie outside of
        net.ipv4.ip_local_port_range, or outgoing connections take ports away between their choice
        and their use. Example: (20000, 20999).""",
    ).tag(config=True)

    log_max_bytes = Integer(
        1024**2,
        min=4096,
        help="Bytes above which a server's log is cut to its last half. Example: 10485760.",
    ).tag(config=True)

    term_timeout = Float(
        10.0,
        min=0.0,
        help="""Seconds that a server is given to save its work after it was asked to end (SIGTERM),
        before it is killed. 0 to kill at once. Example: 30.""",
    ).tag(config=True)

    kill_timeout = Float(
        5.0,
        min=0.1,
        help="Seconds that killed processes may take to be gone. Example: 20.",
    ).tag(config=True)

    @validate("port_range")
    def _valid_port_range(self, proposal: dict[str, tuple[int, int]]) -> tuple[int, int]:
        ports.check_range(*proposal["value"])
        return proposal["value"]

    @validate("run_as")
    def _valid_run_as(self, proposal: dict[str, str]) -> str:
        if proposal["value"] == "hub" and os.geteuid() == 0:
            raise ConfigError(
                'run_as is "hub" and the hub is root: every user would be root.',
                remedy='Set c.ProcessBackend.run_as = "user", or run the hub as another account.',
            )
        return proposal["value"]
