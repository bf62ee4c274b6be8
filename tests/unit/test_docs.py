"""The documentation fits the program: commands, options, links, pages made from help texts."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from jupyterhub.app import JupyterHub
from traitlets import Bool, Enum, HasTraits
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from workshop_hub import WorkshopAuthenticator, WorkshopSpawner, spec
from workshop_hub.backends.docker import DockerBackend
from workshop_hub.backends.process import ProcessBackend
from workshop_hub.cli import main
from workshop_hub.startup import check_options

ROOT = Path(__file__).parents[2]
TEXTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
EXAMPLE = ROOT / "jupyterhub_config.example.py"
OURS = (WorkshopSpawner, ProcessBackend, DockerBackend, WorkshopAuthenticator)

SYSTEM_COMMANDS = {
    "ln",
    "apt-get",
    "cat",
    "cd",
    "chpasswd",
    "docker",
    "echo",
    "faillock",
    "getent",
    "groupadd",
    "id",
    "mkdir",
    "npm",
    "passwd",
    "pip",
    "python",
    "python3",
    "stat",
    "systemctl",
    "ufw",
    "useradd",
    "usermod",
    "visudo",
}
"""What the pages show beside our own commands; programs of the system, which others test."""

OTHERS_OPTIONS = re.compile(r"c\.(SudoSpawner|DockerSpawner|SystemUserSpawner|SystemdSpawner)\.")


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the blocks of code of all pages, each with the name of its page."""
    pattern = rf"^```{language}\n(.*?)^```"
    return [
        (str(path.relative_to(ROOT)), block)
        for path in TEXTS
        for block in re.findall(pattern, path.read_text(), re.MULTILINE | re.DOTALL)
    ]


def commands() -> Iterator[tuple[str, list[str]]]:
    for page, block in blocks("sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            while words and ("=" in words[0] or words[0] in ("env", "sudo", "-u", "jupyterhub")):
                if words[0] == "jupyterhub" and words[1:2] == ["-f"]:
                    break
                words.pop(0)
            if words:
                yield page, words


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


@pytest.mark.parametrize(("page", "words"), list(commands()), ids=str)
def test_every_command_exists(page: str, words: list[str]) -> None:
    name = Path(words[0]).name
    if name == "make":
        targets = [word for word in words[1:] if "=" not in word]
        assert set(targets) <= make_targets()
    elif name == "workshop-hub":
        whole = click.Context(main, **main.context_settings)
        command = main.get_command(whole, words[1])
        assert command
        command.make_context(words[1], words[2:], whole)
    elif name == "jupyterhub":
        assert words[1] == "-f"
    else:
        assert name in SYSTEM_COMMANDS, f"{page} shows {words}"


def test_every_make_target_of_the_text_exists() -> None:
    shown = set()
    for path in TEXTS:
        shown |= set(re.findall(r"`make ([a-z0-9-]+)", path.read_text()))
    assert shown - {"test-unit"} <= make_targets()
    assert "demo" in shown


def config_of(file: Path) -> Config:
    return PyFileConfigLoader(str(file)).load_config()


def classes_of(section: str) -> list[type[HasTraits]]:
    """Return the classes that read a section of the configuration, in a hub with ours."""
    known: list[type[HasTraits]] = [JupyterHub, *OURS]
    return [cls for cls in known if any(base.__name__ == section for base in cls.__mro__)]


def check_sections(config: Config) -> None:
    assert config
    for section, options in config.items():
        classes = classes_of(section)
        assert classes, f"no class reads c.{section}"
        for name, value in options.items():
            found = [cls for cls in classes if name in cls.class_trait_names(config=True)]
            assert found, f"c.{section}.{name} does not exist"
            found[0].class_traits()[name]._validate(found[0].__new__(found[0]), value)


@pytest.mark.parametrize(
    ("page", "block"),
    [(page, block) for page, block in blocks("python") if "c." in block],
    ids=str,
)
def test_every_option_in_the_pages_exists_and_takes_its_value(
    page: str, block: str, tmp_path: Path
) -> None:
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(block)
    check_sections(config_of(file))


def test_every_option_named_in_the_text_exists() -> None:
    for path in TEXTS:
        text = OTHERS_OPTIONS.sub("", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL))
        for section, name in re.findall(r"\bc\.([A-Z]\w+)\.([a-z]\w+)", text):
            classes = classes_of(section)
            assert any(name in cls.class_trait_names(config=True) for cls in classes), (
                f"{path.name}: c.{section}.{name}"
            )


def test_every_option_of_the_example_exists_and_takes_its_value() -> None:
    check_sections(config_of(EXAMPLE))


def test_the_example_is_sound_and_uses_both_backends_in_two_groups() -> None:
    app = JupyterHub(config=config_of(EXAMPLE))
    probe = check_options(app, app.spawner_class)
    assert isinstance(probe, WorkshopSpawner)
    assert spec.backends_in_use(probe) == {"process", "docker"}
    assert len(probe.group_overrides) == 2
    assert app.authenticator_class is WorkshopAuthenticator


@pytest.mark.parametrize("cls", OURS)
def test_every_option_of_ours_is_explained(cls: type[HasTraits]) -> None:
    for name, trait in cls.class_traits(config=True).items():
        defined_in = next(base for base in cls.__mro__ if name in vars(base)).__module__
        if not defined_in.startswith("workshop_hub."):
            continue
        help_text = str(trait.help)
        where = f"{cls.__name__}.{name}"
        assert len(help_text) > 30, f"{where} has no help"
        if trait.allow_none and cls is not WorkshopAuthenticator:
            assert "None" in help_text, f"{where}: what does None mean?"
        if isinstance(trait, Enum):
            assert all(f'"{value}"' in help_text for value in trait.values), where
        elif not isinstance(trait, Bool):
            assert re.search(r"[Ee]xample", help_text), f"{where} has no example"


def test_the_pages_made_from_help_texts_are_up_to_date() -> None:
    assert reference().outdated() == [], "run: make docs"


def reference() -> Any:
    place = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert place
    assert place.loader
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def anchors(path: Path) -> set[str]:
    """Return the names of a page's headings, as they are linked to."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), target
        if anchor:
            assert anchor in anchors(page), target


def test_the_commands_are_documented() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text()
    assert isinstance(main, click.Group)
    for name in main.list_commands(click.Context(main)):
        assert f"## `workshop-hub {name}`" in page
