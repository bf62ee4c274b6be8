"""Who the server is inside of its container, what it may do there, and what it is given."""

from __future__ import annotations

import asyncio
import os
import ssl
import stat
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from docker_harness import DockerHarness, Started, ask

from support import eventually
from workshop_hub.backends.base import Certificates
from workshop_hub.backends.docker import DockerBackend
from workshop_hub.errors import ConfigError, DirectoryRefused


async def status_of(harness: DockerHarness, server: Started) -> dict[str, str]:
    """Return /proc/PID/status of the server's first process, as the host's kernel has it."""
    pid = harness.inspect(server.id)["State"]["Pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


async def test_it_is_the_user_with_her_groups_and_home(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    account = harness.account("alice")
    server = await harness.start(backend, harness.make_spec())
    answer = await ask(server.url)
    assert (answer["uid"], answer["gid"]) == (account.uid, account.gid)
    assert set(answer["groups"]) == set(account.groups)
    assert answer["cwd"] == answer["env"]["HOME"] == account.home
    assert answer["env"]["USER"] == answer["env"]["NB_USER"] == "alice"
    await harness.run(server.id, "sh", "-c", "echo hi >~/made")
    made = (Path(account.home) / "made").stat()
    assert (made.st_uid, made.st_gid) == (account.uid, account.gid)


async def test_she_has_her_name_inside_and_cannot_change_it(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    account = harness.account("alice")
    for _ in range(2):  # the second time from what was remembered of the image
        server = await harness.start(backend, harness.make_spec())
        assert await harness.run(server.id, "whoami") == (0, "alice\n")
        code, output = await harness.run(server.id, "sh", "-c", "eval echo ~alice; id -Gn")
        assert (code, output.split("\n")[0]) == (0, account.home)
        assert (await harness.run(server.id, "getent", "passwd", "root"))[0] == 0
        for file in ("/etc/passwd", "/etc/group"):
            assert (await harness.run(server.id, "test", "-w", file))[0] == 1
            _, mode = await harness.run(server.id, "stat", "-c", "%u %a", file)
            assert mode == "0 644\n"
        await backend.stop(server.handle, now=True)


async def test_the_kernel_says_it_has_no_privileges(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec())
    status = await status_of(harness, server)
    assert status["Uid"].split() == [str(harness.account("alice").uid)] * 4
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0


async def test_no_program_of_root_can_be_left_on_the_machine(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec())
    script = "cp /bin/cat ~/tool; chmod 4755 ~/tool; chown 0 ~/tool; su -c true; ~/tool /etc/shadow"
    code, output = await harness.run(server.id, "sh", "-c", script)
    assert code != 0
    assert "Operation not permitted" in output
    tool = (Path(harness.account("alice").home) / "tool").stat()
    assert tool.st_uid == harness.account("alice").uid


async def test_root_by_the_extras_is_refused(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    for options in (
        {"extra_create_kwargs": {"user": "root"}},
        {"extra_host_config": {"privileged": True}},
        {"extra_host_config": {"security_opt": ["no-new-privileges:false"]}},
    ):
        with pytest.raises(ConfigError):
            await backend.prepare(harness.make_spec(container=options))
    assert harness.containers() == []


async def test_extras_reach_the_container(harness: DockerHarness, backend: DockerBackend) -> None:
    options = {
        "extra_create_kwargs": {"hostname": "course"},
        "extra_host_config": {"shm_size": "128m", "group_add": [100]},
    }
    server = await harness.start(backend, harness.make_spec(container=options))
    assert await harness.run(server.id, "hostname") == (0, "course\n")
    assert 100 in (await ask(server.url))["groups"]
    _, size = await harness.run(server.id, "df", "-m", "--output=size", "/dev/shm")
    assert size.split()[-1] == "128"


async def test_an_unknown_extra_is_refused_in_words(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    spec = harness.make_spec(container={"extra_host_config": {"shm_sise": "1g"}})
    with pytest.raises(ConfigError, match="shm_sise"):
        await harness.start(backend, spec)


async def test_the_environment_arrives_as_it_is(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    env = {"LINES_OF": "one\ntwo", "QUOTED": "a'b\"c $HOME `id`", "EMPTY": "", "TEXT": "ä=ö"}
    server = await harness.start(backend, harness.make_spec(env=env))
    found = (await ask(server.url))["env"]
    assert {key: found[key] for key in env} == env
    assert "python" in found["PATH"] or found["PATH"].startswith("/opt/jupyter/bin:")


async def test_volumes_are_writable_or_not(harness: DockerHarness, backend: DockerBackend) -> None:
    shared, course = harness.folder / "shared", harness.folder / "course"
    for folder in (shared, course):
        folder.mkdir()
        folder.chmod(0o777)
    options = {"volumes": {str(shared): "/shared"}, "read_only_volumes": {str(course): "/course"}}
    spec = harness.make_spec(cmd=("/bin/sh", "-c", SERVE), container=options)
    server = await harness.start(backend, spec)
    assert (await harness.run(server.id, "touch", "/shared/x"))[0] == 0
    assert (shared / "x").exists()
    code, output = await harness.run(server.id, "touch", "/course/x")
    assert code != 0
    assert "Read-only file system" in output


SERVE = "exec python3 -m http.server 8888 --directory /tmp"


async def test_what_compiles_in_tmp_can_run_there(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec())
    script = "cp /bin/true /tmp/x && /tmp/x && findmnt -no FSTYPE,OPTIONS /tmp"
    code, output = await harness.run(server.id, "sh", "-c", script)
    assert code == 0
    assert output.startswith("tmpfs")
    assert "nosuid" in output


async def test_a_read_only_container_runs_and_stays_read_only(harness: DockerHarness) -> None:
    server = await harness.start(harness.backend(read_only=True), harness.make_spec())
    code, output = await harness.run(server.id, "sh", "-c", "echo x >/tmp/x; mkdir /opt/x")
    assert code != 0
    assert "Read-only file system" in output
    assert "/tmp" not in output


# -- notebook_dir --------------------------------------------------------------------------------


async def test_the_notebook_directory_is_made_as_the_user(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    account = harness.account("alice")
    folder = f"{account.home}/my notebooks/deep"
    spec = harness.make_spec(notebook_dir=folder, create_notebook_dir=True)
    server = await harness.start(backend, spec)
    assert (await ask(server.url))["cwd"] == folder
    made = Path(folder).stat()
    assert (made.st_uid, made.st_gid) == (account.uid, account.gid)


async def test_a_missing_notebook_directory_says_so(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    spec = harness.make_spec(notebook_dir=f"{harness.account('alice').home}/none")
    with pytest.raises(DirectoryRefused, match="none does not exist in the container"):
        await harness.start(backend, spec)
    assert harness.containers() == []


async def test_a_notebook_directory_that_leads_outside_is_refused(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    home = Path(harness.account("alice").home)
    (home / "out").symlink_to("/etc")
    with pytest.raises(DirectoryRefused, match="leads to /etc, outside"):
        await harness.start(backend, harness.make_spec(notebook_dir=str(home / "out")))


async def test_a_full_or_foreign_home_says_so(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    account = harness.account("alice")
    os.chown(account.home, 0, 0)
    Path(account.home).chmod(0o755)
    spec = harness.make_spec(notebook_dir=f"{account.home}/new", create_notebook_dir=True)
    with pytest.raises(DirectoryRefused, match="could not be made: Permission denied"):
        await harness.start(backend, spec)


# -- internal_ssl --------------------------------------------------------------------------------

TLS_SERVER = """
import http.server, os, ssl
server = http.server.HTTPServer(("", 8888), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
folder = "/run/workshop-hub/"
context.load_cert_chain(folder + "cert.pem", folder + "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
assert not any("WORKSHOP_HUB" in name for name in os.environ)
server.serve_forever()
"""


def certificates() -> Certificates:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Certificates(private.decode(), certificate, certificate)


@pytest.mark.parametrize("read_only", [False, True])
async def test_certificates_are_the_users_alone_and_serve(
    harness: DockerHarness, read_only: bool
) -> None:
    backend = harness.backend(read_only=read_only)
    given = certificates()
    spec = harness.make_spec(("/usr/bin/python3", "-c", TLS_SERVER), certificates=given)
    address = await backend.prepare(spec)
    assert address.hub_url == f"https://{harness.hub_ip}:{harness.hub.port}"
    assert address.certificates is not None
    server = await harness.launch(backend, spec, address)
    assert server.ip == "127.0.0.1"  # what the certificate is made for

    context = ssl.create_default_context(cadata=given.authority)

    def fetch() -> int:
        url = f"https://localhost:{server.port}/"
        with urllib.request.urlopen(url, timeout=60, context=context) as answer:
            return int(answer.status)

    assert await asyncio.to_thread(fetch) == 200

    pid = harness.inspect(server.id)["State"]["Pid"]
    key = Path(f"/proc/{pid}/root{address.certificates['keyfile']}")
    assert key.read_text() == given.key
    assert stat.S_IMODE(key.stat().st_mode) == 0o400
    assert key.stat().st_uid == harness.account("alice").uid
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    code, _ = await harness.run(
        server.id, "cat", str(address.certificates["keyfile"]), user="65534"
    )
    assert code != 0


# -- the real server -----------------------------------------------------------------------------


async def test_the_real_single_user_server_starts_in_its_image(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    account = harness.account("alice")
    folder = f"{account.home}/notebooks"
    env = {
        "JUPYTERHUB_API_TOKEN": "a" * 32,
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-alice",
        "JUPYTERHUB_USER": "alice",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/x/",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/x/oauth_callback",
        "JUPYTERHUB_ROOT_DIR": folder,
    }
    spec = harness.make_spec(
        ("/opt/jupyter/bin/jupyterhub-singleuser",),
        env=env,
        notebook_dir=folder,
        create_notebook_dir=True,
    )
    server = await harness.start(backend, spec)

    def version() -> str:
        with urllib.request.urlopen(f"{server.url}/user/x/api", timeout=60) as answer:
            return str(answer.headers["X-JupyterHub-Version"])

    async def answers() -> str:
        try:
            return await asyncio.to_thread(version)
        except OSError:
            return ""

    assert await eventually(answers, "the server answers")
    log = await backend.log_tail(server.handle)
    assert "Permission denied" not in log
    await backend.stop(server.handle)
    assert (Path(account.home) / "notebooks").is_dir()
