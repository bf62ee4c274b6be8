"""What can be configured of the process backend: facts of the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from traitlets import Bool, Enum, Float, Integer, List, Tuple, Unicode, default, validate

from workshop_hub.backends.base import Backend
from workshop_hub.errors import ConfigError
from workshop_hub.launch import become, forkserver
from workshop_hub.system import accounts, ports


class ProcessOptions(Backend):
    """The options of ProcessBackend; written as `c.ProcessBackend.NAME`."""

    launcher = Enum(
        ["sudo", "warm", "sudospawner"],
        default_value="sudo",
        help="""What starts servers: "sudo", our launcher; "warm", a launcher that has imported the
        single-user server once and forks for each user; or "sudospawner", the mediator of the
        package of that name, for sites whose sudoers file allows it already. What cannot be
        started warm is left to "sudo". The mediator can neither make a notebook_dir nor start
        anything but jupyterhub-singleuser.""",
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

    fast_start = Bool(
        True,
        help="""Whether a jupyterhub-singleuser does without what no server uses: most of its start,
        and nearly half of its memory. The server's process, not its kernels, then cannot import
        rfc3987_syntax, and jsonschema there passes over the formats iri and iri-reference.
        Example: False, for a server extension that needs either of them.""",
    ).tag(config=True)

    warm_command = List(
        Unicode(),
        default_value=[
            str(Path(sys.executable).resolve()),
            "-I",
            str(Path(forkserver.__file__).resolve()),
        ],
        minlen=1,
        help="""The warm launcher, as the sudoers file allows it to a hub that is not root. Who may
        change it may run what he likes as root. Example: ["/opt/workshop-hub/bin/python", "-I",
        "/opt/workshop-hub/lib/python3.12/site-packages/workshop_hub/launch/forkserver.py"].""",
    ).tag(config=True)

    warm_program = Unicode(
        str(Path(sys.executable).with_name("jupyterhub-singleuser")),
        help="""The single-user server's script that the warm launcher imports for, in the
        environment of the users' servers; by default the one beside the hub. Servers whose `cmd`
        is run by another Python are left to sudo. Example: "/opt/users/bin/jupyterhub-singleuser".
        """,
    ).tag(config=True)

    warm_uids = Tuple(
        Integer(),
        Integer(),
        help="""First and last uid that the warm launcher may become, fixed when it starts.
        By default from UID_MIN of /etc/login.defs to 59999. Example: (2000, 2999).""",
    ).tag(config=True)

    warm_group = Unicode(
        help="""Group whose members alone the warm launcher may become, fixed when it starts; empty
        for everybody in warm_uids. Example: "workshop".""",
    ).tag(config=True)

    warm_socket = Unicode(
        help="""Socket of a warm launcher that somebody else has started, such as systemd. Empty to
        start it here, and listen in the folder of logs.
        Example: "/run/workshop-hub/launcher.sock".""",
    ).tag(config=True)

    sudo_command = List(
        Unicode(),
        default_value=["sudo"],
        minlen=1,
        help="""sudo, and options for it in addition to `-n -H -u NAME`.
        Example: ["/usr/local/bin/sudo"].""",
    ).tag(config=True)

    no_new_privileges = Bool(
        False,
        help="""Whether no process of a server may gain rights: then sudo, ping and the like do not
        work in terminals. Not possible where launcher is "sudospawner". Example: True.""",
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

    @property
    def launcher_socket(self) -> Path:
        """Where the warm launcher listens."""
        if self.warm_socket:
            return Path(self.warm_socket)
        return Path(self.log_dir).absolute() / "launcher.sock"

    @default("warm_uids")
    def _default_warm_uids(self) -> tuple[int, int]:
        if self.run_as == "hub":
            return (os.geteuid(), os.geteuid())
        return (accounts.uid_min(), 59999)

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
