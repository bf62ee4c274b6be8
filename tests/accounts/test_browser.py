"""The browser of the other tests is what they take it for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from accounts.browser import PHONE, Chromium, too_wide
from selenium.webdriver.common.by import By

from support import eventually_sync

PAGE = b"""<!doctype html>
<meta name="viewport" content="width=device-width, initial-scale=1">
<p>plain</p>
<div style="width: 400px">wide</div>
<script>document.querySelector("p").textContent = "scripted"</script>
"""


class OnePage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), OnePage) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize(("width", "excess"), [(1280, 0), (PHONE, 40)])
@pytest.mark.parametrize(("javascript", "text"), [(True, "scripted"), (False, "plain")])
def test_width_and_scripts(
    chromium: Chromium, address: str, width: int, excess: int, javascript: bool, text: str
) -> None:
    browser = chromium(width, javascript)
    browser.get(address)
    assert browser.find_element(By.TAG_NAME, "p").text == text
    wanted = excess + 8 if excess else 0  # a margin of 8 pixels is on the left
    eventually_sync(lambda: too_wide(browser) == wanted, "the page, laid out")
