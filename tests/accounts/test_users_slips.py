"""Slips as a browser shows them: what can be in one line is, and every field is all there."""

from __future__ import annotations

from pathlib import Path

from accounts.browser import PHONE, Chromium, picture, too_wide

from workshop_hub.people import slips
from workshop_hub.people.sheet import Row

LINES = """
return [...document.querySelectorAll("section")].map(section => Object.fromEntries(
  [...section.querySelectorAll("dt")].map(dt => {
    const dd = dt.nextElementSibling, range = document.createRange();
    range.selectNodeContents(dd);
    const tops = new Set([...range.getClientRects()].map(each => Math.round(each.top)));
    return [dt.textContent, [dd.textContent, tops.size]];
  })))
"""

LONG = "https://workshop-hub.physics.university.example.org/"

ROWS = [
    Row("training01", "tidal-onion-brave-mango", "", "https://hub.example.org/", 1),
    Row("mary-somerville-1780", "stream-stream-stream-stream", "Mary Somerville", LONG, 2),
    Row("emmy", "", "Emmy Noether", "https://workshop.example.org/", 3),
]


def test_an_address_is_in_one_line_where_that_has_room(chromium: Chromium, tmp_path: Path) -> None:
    file = tmp_path / "sheet.html"
    file.write_text(slips.page(ROWS))
    for width in (1280, PHONE):
        browser = chromium(width)
        browser.get(file.as_uri())
        picture(browser, f"slips-{width}")
        assert too_wide(browser) == 0
        one, two, three = browser.execute_script(LINES)
        assert one == {
            "Address": ["https://hub.example.org/", 1],
            "Username": ["training01", 1],
            "Password": ["tidal-onion-brave-mango", 1],
        }
        assert two["Address"][0] == LONG
        assert two["Username"] == ["mary-somerville-1780", 1]
        assert two["Password"] == ["stream-stream-stream-stream", 1]
        assert three["Address"] == ["https://workshop.example.org/", 1]
        assert three["Password"] == [slips.UNKNOWN, 1]
