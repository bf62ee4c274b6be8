"""What a server in a container does without, in our image and in others."""

from __future__ import annotations

import pytest
from docker_harness import DockerHarness, ask

from workshop_hub.backends.docker import DockerBackend
from workshop_hub.backends.docker.prelude import STARTER

SINGLEUSER = "/opt/jupyter/bin/jupyterhub-singleuser"
ENVIRONMENT = {
    "JUPYTERHUB_API_TOKEN": "a" * 32,
    "JUPYTERHUB_BASE_URL": "/",
    "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-alice",
    "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/alice/oauth_callback",
    "JUPYTERHUB_SERVICE_PREFIX": "/user/alice/",
    "JUPYTERHUB_USER": "alice",
}


async def test_a_server_pays_for_no_check_of_iris(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    """What is not in the image cannot have been loaded; the server serves without it."""
    spec = harness.make_spec((SINGLEUSER,), env=ENVIRONMENT, start_timeout=60.0)
    server = await harness.start(backend, spec)
    assert "version" in await ask(f"{server.url}/user/alice/api")
    code, said = await harness.run(server.id, "python3", "-c", "import rfc3987_syntax")
    assert (code, said.splitlines()[-1]) == (
        1,
        "ModuleNotFoundError: No module named 'rfc3987_syntax'",
    )
    code, said = await harness.run(server.id, "python3", "-c", "import lark")
    assert (code, said.splitlines()[-1]) == (1, "ModuleNotFoundError: No module named 'lark'")


async def test_no_package_misses_another(harness: DockerHarness, backend: DockerBackend) -> None:
    server = await harness.start(backend, harness.make_spec())
    assert await harness.run(server.id, "pip", "check") == (0, "No broken requirements found.\n")


async def test_a_check_of_an_iri_is_passed_over(
    harness: DockerHarness, backend: DockerBackend
) -> None:
    server = await harness.start(backend, harness.make_spec())
    code = """
from jsonschema import Draft7Validator as v
for format, text in [("iri", "no iri"), ("uri", "no uri"), ("email", "no email")]:
    checked = v({"format": format}, format_checker=v.FORMAT_CHECKER)
    print(format, checked.is_valid(text))
"""
    said = await harness.run(server.id, "python3", "-c", code)
    assert said == (0, "iri True\nuri False\nemail False\n")


LOOK = """
for process in /proc/[0-9]*; do
    tr '\\0' '\\n' <$process/cmdline | grep -q ^/opt/jupyter/bin/python || continue
    tr '\\0' ' ' <$process/cmdline; echo
    grep -q /sqlalchemy/ $process/maps && echo with the database
done
ls -ln /usr/local/lib/workshop-hub
"""
"""What the processes of Python in a container are, and whether they have loaded SQLAlchemy."""


@pytest.mark.parametrize(
    ("options", "is_fast"),
    [({}, True), ({"fast_start": False}, False), ({"read_only": True}, False)],
)
async def test_a_server_is_started_without_the_hubs_part(
    harness: DockerHarness, options: dict[str, bool], is_fast: bool
) -> None:
    cmd = (SINGLEUSER, "--ServerApp.log_level=INFO")
    spec = harness.make_spec(cmd, env=ENVIRONMENT, start_timeout=60.0)
    server = await harness.start(harness.backend(**options), spec)
    assert "version" in await ask(f"{server.url}/user/alice/api")
    _, said = await harness.run(server.id, "sh", "-c", LOOK)
    started = [STARTER] if is_fast else []
    command = ["/opt/jupyter/bin/python3", *started, *cmd]
    assert said.splitlines()[0].split() == command
    assert ("with the database" in said) is not is_fast
    assert ("-rw-r--r-- 1 0 0" in said) is is_fast  # nobody else's to change
