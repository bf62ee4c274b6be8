"""A page of slips to print and cut, one for each person: address, name, password, QR code."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from html import escape
from typing import Protocol

import segno

MARK = '<meta name="generator" content="workshop-hub users">'
"""By which a page is known to be one of ours."""

CHOSEN = "the one you have chosen"
"""In the place of a password that is not known any more."""

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
main {{ display: grid; grid-template-columns: 1fr 1fr; max-width: 190mm; margin: auto; }}
section {{ display: flex; gap: 4mm; align-items: center; min-height: 54mm; padding: 5mm;
  outline: 0.3mm dashed #888; break-inside: avoid; }}
h1 {{ font-size: 12pt; margin: 0 0 2mm; overflow-wrap: anywhere; }}
section > div {{ flex: 1; min-width: 0; }}
dl {{ margin: 0; }}
dt {{ font-size: 8pt; color: #444; }}
dd {{ margin: 0 0 1.5mm; font: 11pt/1.25 "DejaVu Sans Mono", Consolas, monospace;
  overflow-wrap: anywhere; }}
svg {{ flex: none; width: 30mm; height: 30mm; }}
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
    """Return the whole page: ten slips on a sheet of A4."""
    return PAGE.format(mark=MARK, slips="\n".join(_slip(each) for each in slips))


def _slip(slip: Slip) -> str:
    title = f"<h1>{escape(slip.full_name)}</h1>\n" if slip.full_name else ""
    password = escape(slip.password) if slip.password else f"<em>{CHOSEN}</em>"
    rows = [("Address", escape(slip.address))] if slip.address else []
    rows += [("Name", escape(slip.name)), ("Password", password)]
    fields = "".join(f"<dt>{label}</dt><dd>{value}</dd>" for label, value in rows)
    code = qr_code(slip.address) if slip.address else ""
    return f"<section>\n<div>\n{title}<dl>{fields}</dl>\n</div>\n{code}\n</section>"


@cache
def qr_code(address: str) -> str:
    """Return the address as an SVG element, with the quiet zone that readers need."""
    return str(segno.make(address, error="m", micro=False).svg_inline(border=2, omitsize=True))
