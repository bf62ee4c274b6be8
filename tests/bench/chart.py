"""Bar charts as SVG that can be read on light and on dark pages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
LABELS = 250
"""Pixels for the names at the left; the longest bar ends VALUES before the right."""

VALUES = 70
ROW = 26
BAR = 16
TITLE = 34
GAP = 18

STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 14px; }
.value { font-variant-numeric: tabular-nums; }
.ours { fill: #0b6e4f; }
.peer { fill: #8c959f; }
.floor { fill: #c5cbd3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .ours { fill: #3fb68b; }
  .peer { fill: #7d8590; }
  .floor { fill: #484f58; }
}"""


@dataclass(frozen=True)
class Bar:
    """One bar. kind: "ours", "peer" or "floor", which only the colour depends on."""

    label: str
    value: float
    kind: str = "peer"


@dataclass(frozen=True)
class Panel:
    """Bars of one unit below a title."""

    title: str
    unit: str
    bars: tuple[Bar, ...]


def chart(panels: Sequence[Panel], description: str) -> str:
    """Return an SVG document with one panel below the other; panels without bars are left out."""
    parts: list[str] = []
    top = 0
    shown = [panel for panel in panels if panel.bars]
    for panel in shown:
        parts += _panel(panel, top)
        top += TITLE + ROW * len(panel.bars) + GAP
    height = max(top - GAP, 0) + 8
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(description)}</title>",
            f"<style>\n{STYLE}\n</style>",
            *parts,
            "</svg>\n",
        ]
    )


def _panel(panel: Panel, top: int) -> list[str]:
    longest = max(bar.value for bar in panel.bars) or 1.0
    lines = [f'<text class="title" x="0" y="{top + 20}">{escape(panel.title)}</text>']
    for number, bar in enumerate(panel.bars):
        y = top + TITLE + ROW * number
        length = max(1.0, bar.value / longest * (WIDTH - LABELS - VALUES))
        middle = y + BAR - 3
        size = f'x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}"'
        value = f"{short(bar.value)} {escape(panel.unit)}"
        lines += [
            f'<text x="{LABELS - 10}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{escape(bar.kind)}" {size} rx="2"/>',
            f'<text class="value" x="{LABELS + length + 8:.1f}" y="{middle}">{value}</text>',
        ]
    return lines


def short(value: float) -> str:
    """Return a value with as many digits as mean something: 0.32, 2.1, 19, 161."""
    if value >= 9.95 or value == 0:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"
