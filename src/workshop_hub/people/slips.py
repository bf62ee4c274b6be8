"""A page of slips to print and cut, one for each person: address, name, password, QR code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from html import escape
from typing import Protocol

import segno

MARK = '<meta name="generator" content="workshop-hub users">'
"""By which a page is known to be one of ours."""

UNKNOWN = "the one you were given, or have chosen"
"""In the place of a password that is not known any more: changed since, or renewed elsewhere."""

ONE_LINE, BESIDE = 32, 20
"""Letters that fit in a line, and in one beside the QR code."""

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{mark}
<meta name="viewport" content="width=device-width">
<title>Accounts</title>
<style>
@page {{ margin: 10mm; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; color: #000; background: #fff; font: 10pt/1.3 sans-serif; }}
main {{ display: grid; grid-template-columns: 1fr 1fr; max-width: 190mm; margin: auto;
  padding-right: 0.3mm; }}
section {{ display: grid; grid-template-columns: 1fr 28mm; gap: 1mm 3mm; align-content: center;
  min-height: 51mm; padding: 4mm 5mm; margin: 0 -0.3mm -0.3mm 0;
  border: 0.3mm dashed #888; break-inside: avoid; }}
h1 {{ font-size: 11pt; line-height: 1.2; margin: 0 0 1.5mm; overflow-wrap: anywhere; }}
dl {{ margin: 0; min-width: 0; }}
dl.below {{ grid-column: 1 / 3; }}
dt {{ font-size: 8pt; color: #444; }}
dd {{ margin: 0 0 1mm; font: 11pt/1.25 "DejaVu Sans Mono", Consolas, monospace;
  overflow-wrap: anywhere; white-space: pre-wrap; }}
dd.whole {{ white-space: pre; }}
svg {{ width: 28mm; height: 28mm; align-self: center; }}
@media screen and (max-width: 40em) {{ main {{ grid-template-columns: 1fr; }} }}
</style>
</head>
<body>
<main>
{slips}
</main>
</body>
</html>
"""


class Slip(Protocol):
    """What is on a slip; an empty text is left out, or said in words."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def password(self) -> str: ...  # noqa: D102
    @property
    def full_name(self) -> str: ...  # noqa: D102
    @property
    def address(self) -> str: ...  # noqa: D102


def page(slips: Iterable[Slip]) -> str:
    """Return the whole page: ten slips on a sheet of A4 or Letter."""
    return PAGE.format(mark=MARK, slips="\n".join(_slip(each) for each in slips))


def _slip(slip: Slip) -> str:
    title = f"<h1>{escape(slip.full_name)}</h1>" if slip.full_name else ""
    # an address may be broken where it cannot be misread
    address = re.sub(r"([/.])", r"\1<wbr>", escape(slip.address))
    name = _field("Name", escape(slip.name), slip.name)
    password = escape(slip.password) if slip.password else f"<em>{UNKNOWN}</em>"
    beside = [_field("Address", address, "")] if address else []
    below = [_field("Password", password, slip.password)]
    if len(slip.name) <= BESIDE:
        beside.append(name)
    else:
        below.insert(0, name)
    code = qr_code(slip.address) if slip.address else ""
    return (
        f"<section>\n<div>{title}<dl>{''.join(beside)}</dl></div>\n{code}\n"
        f'<dl class="below">{"".join(below)}</dl>\n</section>'
    )


def _field(label: str, html: str, text: str) -> str:
    """Return a field. A line that ends in a hyphen would leave open whether that belongs to it."""
    whole = ' class="whole"' if 0 < len(text) <= ONE_LINE else ""
    return f"<dt>{label}</dt><dd{whole}>{html}</dd>"


@cache
def qr_code(address: str) -> str:
    """Return the address as an SVG element, with the quiet zone that readers need."""
    return str(segno.make(address, error="m", micro=False).svg_inline(border=2, omitsize=True))
