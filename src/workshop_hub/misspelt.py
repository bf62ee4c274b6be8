"""Options and sections of the configuration that nothing reads, because they are misspelt.

traitlets logs an option that a class does not have once it makes an object of that class, which for
a spawner is when the first server starts. Of a section whose class there is not it says nothing:
it could be another program's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING

from traitlets.config import Config, Configurable

from workshop_hub.errors import ConfigError

if TYPE_CHECKING:
    from jupyterhub.app import JupyterHub

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]+")
"""A word of a class's name: JupyterHub has two, LDAPAuthenticator too."""

ALIKE = 0.7
"""From which ratio of difflib's two words are taken for the same: Spwner for Spawner, but neither
LDAP nor CAS for PAM."""


def options(app: JupyterHub) -> list[ConfigError]:
    """Return what is wrong with the options of the classes that this hub uses."""
    return list(_unknown_options(app.config, _in_use(app)))


def sections(app: JupyterHub) -> list[ConfigError]:
    """Return what is wrong with the names of classes: those that nearly are those of others."""
    in_use = _in_use(app)
    known = {name for cls in in_use for name in _section_names(cls)}
    elsewhere = {cls.__name__ for cls in _loaded(Configurable)}
    return list(_unknown_sections(app.config, known, known | elsewhere))


def _in_use(app: JupyterHub) -> set[type[Configurable]]:
    chosen = {type(app), app.spawner_class, app.authenticator_class, app.proxy_class}
    return {*chosen, *app.classes, *getattr(app.spawner_class, "backends", {}).values()}


def _unknown_options(config: Config, in_use: Iterable[type[Configurable]]) -> Iterator[ConfigError]:
    for section, values in _sections(config):
        readers = [cls for cls in in_use if section in _section_names(cls)]
        has = {name for cls in readers for name in cls.class_trait_names(config=True)}
        for option in values if readers else ():
            # sections may hold sections: c.JupyterHub.Spawner
            if option not in has and not isinstance(values[option], Config):
                yield ConfigError(
                    f"There is no option c.{section}.{option}: nothing reads it.",
                    remedy=_meant(f"c.{section}.", get_close_matches(option, has, 1)),
                )


def _unknown_sections(config: Config, known: set[str], exists: set[str]) -> Iterator[ConfigError]:
    for section, values in _sections(config):
        if section not in exists and (nearest := _nearest(section, known)):
            yield ConfigError(
                f"There is no class {section}: nothing reads "
                f"{', '.join(f'c.{section}.{option}' for option in values)}.",
                remedy=_meant("c.", [nearest]),
            )


def _sections(config: Config) -> list[tuple[str, Config]]:
    return [(name, each) for name, each in config.items() if isinstance(each, Config) and each]


def _section_names(cls: type[Configurable]) -> set[str]:
    return {base.__name__ for base in cls.__mro__ if issubclass(base, Configurable)}


def _loaded(cls: type[Configurable]) -> Iterator[type[Configurable]]:
    for each in cls.__subclasses__():
        yield each
        yield from _loaded(each)


def _nearest(section: str, known: set[str]) -> str:
    """Return the name that was meant; "" where it may be another class's, made elsewhere."""
    for name in sorted(known):
        if name.lower() == section.lower():
            return name
    close = get_close_matches(section, sorted(known), len(known))
    return next((name for name in close if _has_the_same_words(section, name)), "")


def _has_the_same_words(one: str, other: str) -> bool:
    ours, theirs = WORD.findall(one), WORD.findall(other)
    return len(ours) == len(theirs) and all(
        get_close_matches(word, [wanted], cutoff=ALIKE)
        for word, wanted in zip(ours, theirs, strict=True)
    )


def _meant(prefix: str, names: list[str]) -> str:
    if not names:
        return "Look for a typing error; docs/reference lists our options."
    return f"Did you mean {prefix}{names[0]}?"
