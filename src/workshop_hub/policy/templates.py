"""Fill in `{username}` and its like: the same on every backend, and never more than that."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

from workshop_hub.errors import ConfigError, choices


def render(option: str, template: str, namespace: Mapping[str, str]) -> str:
    """Fill `template` with the values of `namespace`.

    option: name of the option, for the message. Plain fields only: no attributes, no indexes, no
    format specifications. Raises ConfigError, which lists the fields that there are.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as exc:
        raise ConfigError(
            f'{option} is "{template}": {exc}.',
            remedy="Write a literal brace twice: {{ or }}.",
        ) from exc
    rendered = []
    for text, field, spec, conversion in parts:
        rendered.append(text)
        if field is None:
            continue
        if field not in namespace or spec or conversion:
            raise ConfigError(
                f'{option} is "{template}"; "{{{field}}}" stands for nothing.',
                remedy=f"The fields are: {choices(namespace)}.",
            )
        rendered.append(namespace[field])
    return "".join(rendered)
