"""Write the reference pages that are made from the program's own help.

    tools/reference.py            write docs/reference/*.md
    tools/reference.py --check    exit code 1 where a page is not up to date

To be run by the Python of the project's environment.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from traitlets import HasTraits, TraitType

from workshop_hub.authenticator import WorkshopAuthenticator
from workshop_hub.backends.docker import DockerBackend
from workshop_hub.backends.process import ProcessBackend
from workshop_hub.cli import main as command
from workshop_hub.spawner import WorkshopSpawner

PAGES = Path(__file__).parents[1] / "docs" / "reference"
NOTE = "<!-- Made by tools/reference.py from the program's own help; edit that. -->"

OURS = "workshop_hub."

WIDTH = 92
"""Columns of help texts."""

SPAWNER = """\
Options of the spawner, `c.WorkshopSpawner.NAME`. All of them can differ by group
(`group_overrides`) and by user (`apply_user_options`).

JupyterHub's own options work as
[its documentation](https://jupyterhub.readthedocs.io/en/stable/reference/api/spawner.html) says,
among them `cmd`, `args`, `environment`, `env_keep`, `notebook_dir`, `default_url`, `ip`, `port`,
`start_timeout`, `http_timeout` and `poll_interval`. `notebook_dir` and `default_url` are templates
with the fields `{username}`, `{servername}`, `{home}` and `{uid}`, and mean the same on both
backends.
"""

PROCESS = """\
Facts of the machine for servers that are local processes, `c.ProcessBackend.NAME`.
[How it works](../explanation/architecture.md#a-server-as-a-process);
[how to set it up](../howto/unprivileged-hub.md).
"""

DOCKER = """\
Facts of the machine for servers that are containers, `c.DockerBackend.NAME`.
[How it works](../explanation/architecture.md#a-server-as-a-container);
[how to set it up](../howto/docker.md).
"""

AUTHENTICATOR = """\
Options that `WorkshopAuthenticator` adds to those of
[PAMAuthenticator](https://jupyterhub.readthedocs.io/en/stable/reference/api/auth.html), which all
work: `allowed_groups`, `admin_groups`, `create_system_users`, `add_user_cmd` and the others.
[How to use them](../howto/accounts.md).
"""

CLI = """\
The command `workshop-hub` comes with the package, into the environment that the hub runs in.
"""


def options_of(*classes: type[HasTraits]) -> Iterator[tuple[str, TraitType[object, object]]]:
    """Yield the options that our own classes among the bases of `classes` define."""
    for name, trait in sorted(classes[0].class_traits(config=True).items()):
        defined_in = next(
            (each for each in classes[0].__mro__ if name in vars(each)), classes[0]
        ).__module__
        if defined_in.startswith(OURS):
            yield name, trait


def option_text(cls: type[HasTraits], name: str, trait: TraitType[object, object]) -> str:
    """Return one option's section."""
    return f"""\
## `{name}`

`c.{cls.__name__}.{name}`, {kind(trait)}; default {default(trait)}

{inspect.cleandoc(trait.help)}
"""


def kind(trait: TraitType[object, object]) -> str:
    """Return what sort of value an option takes."""
    words = {
        "Bool": "true or false",
        "Callable": "function",
        "Command": "list",
        "Cores": "number",
        "Dict": "dictionary",
        "Enum": "one of several texts",
        "Float": "number",
        "Int": "whole number",
        "Integer": "whole number",
        "List": "list",
        "Memory": "bytes",
        "Tuple": "tuple",
        "Unicode": "text",
    }
    inner = getattr(trait, "trait_types", None) or [trait]
    return " or ".join(words.get(type(each).__name__, type(each).__name__) for each in inner)


def default(trait: TraitType[object, object]) -> str:
    """Return an option's default, with the folders of the environment left out."""
    value = trait.default()
    text = repr(value)
    python = str(Path(sys.executable).resolve())
    package = str(Path(inspect.getfile(WorkshopSpawner)).resolve().parent)
    for path, short in ((python, ".../python"), (package, ".../workshop_hub")):
        text = text.replace(path, short)
    return f"`{text.replace(sys.prefix, '...')}`"


def options_page(title: str, cls: type[HasTraits], introduction: str) -> str:
    """Return the page of one class's options."""
    parts = [f"# {title}\n", f"{NOTE}\n", introduction]
    parts += [option_text(cls, name, trait) for name, trait in options_of(cls)]
    return "\n".join(parts)


def cli_page() -> str:
    """Return the page of the command's help texts."""
    parts = ["# The command `workshop-hub`\n", f"{NOTE}\n", CLI]
    whole = click.Context(
        command, info_name="workshop-hub", terminal_width=WIDTH, **command.context_settings
    )
    parts += help_texts(command, whole, "##")
    return "\n".join(parts)


def help_texts(group: click.Group, context: click.Context, heading: str) -> Iterator[str]:
    """Yield a section for each command of a group, and for those of the groups in it."""
    for name in sorted(group.list_commands(context)):
        sub = group.get_command(context, name)
        if sub is None:
            continue
        own = click.Context(sub, parent=context, info_name=name)
        yield f"{heading} `{own.command_path}`\n\n```text\n{sub.get_help(own)}\n```\n"
        if isinstance(sub, click.Group):
            yield from help_texts(sub, own, f"{heading}#")


def pages() -> dict[str, str]:
    """Return the text of every page that is made here."""
    return {
        "spawner.md": options_page("Options of the spawner", WorkshopSpawner, SPAWNER),
        "process-backend.md": options_page("The process backend", ProcessBackend, PROCESS),
        "docker-backend.md": options_page("The Docker backend", DockerBackend, DOCKER),
        "authenticator.md": options_page(
            "Options of the authenticator", WorkshopAuthenticator, AUTHENTICATOR
        ),
        "cli.md": cli_page(),
    }


def outdated() -> list[str]:
    """Return the names of the pages that differ from what they should be."""
    return [
        name
        for name, text in pages().items()
        if not (PAGES / name).exists() or (PAGES / name).read_text(encoding="utf-8") != text
    ]


def main(words: list[str]) -> int:
    """Write the pages, or check them; return the exit code."""
    if words == ["--check"]:
        old = outdated()
        for name in old:
            print(f"docs/reference/{name} is not up to date; run: make docs")
        return 1 if old else 0
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
