"""Which image a container is made from, and what the user may choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from workshop_hub.errors import OptionRefused, choices


def offered(allowed: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Return the images that may be chosen, by the name under which they are offered."""
    if isinstance(allowed, Mapping):
        return dict(allowed)
    return {image: image for image in allowed}


def choose(configured: str, allowed: Mapping[str, str], wanted: object) -> str:
    """Return the image to use.

    allowed: as from `offered`; empty where users have no choice. wanted: what the user asked for,
    None for nothing. Raises OptionRefused, listing the choices.
    """
    if wanted is None:
        return configured
    if isinstance(wanted, str) and wanted in allowed:
        return allowed[wanted]
    if not allowed:
        raise OptionRefused(
            f"The image {wanted!r} was asked for, but here users do not choose an image.",
            remedy="Start the server without that option.",
        )
    raise OptionRefused(
        f"The image {wanted!r} is not offered.", remedy=f"Choose one of: {choices(allowed)}."
    )


def form(allowed: Mapping[str, str], configured: str) -> str:
    """Return the HTML of the choice, for the hub's start page."""
    options = "".join(
        f'<option value="{escape(name)}"{" selected" if image == configured else ""}>'
        f"{escape(name)}</option>"
        for name, image in allowed.items()
    )
    return (
        '<label for="image">Image</label>'
        f'<select class="form-control" name="image" id="image">{options}</select>'
    )
