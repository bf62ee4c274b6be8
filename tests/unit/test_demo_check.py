"""The demo's check, beside servers that are sooner or stranger than usual."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from workshop_hub.cli.browser import Browser
from workshop_hub.cli.demo_check import start_server
from workshop_hub.errors import WorkshopError


class Page(RequestHandler):
    def get(self, name: str) -> None:
        self.write("<script id='jupyter-config-data'>{}</script>" if name == "lab" else name)


@asynccontextmanager
async def pages() -> AsyncIterator[str]:
    listener, port = bind_unused_port()
    server = HTTPServer(Application([(r"/(?:hub|user/ada)/(.*)", Page)]))
    server.add_socket(listener)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()
        await server.close_all_connections()


async def test_a_server_that_is_there_at_once_needs_no_page_that_waits() -> None:
    said: list[str] = []
    async with pages() as url:
        browser = Browser(timeout=10)
        page = await browser.get(f"{url}/user/ada/tree")  # where the hub leads to
        await start_server(browser, page, f"{url}/user/ada/", said.append)
    assert said[-1] == f"JupyterLab answers at {url}/user/ada/lab"


async def test_a_page_of_the_hub_that_waits_for_nothing_is_told_of() -> None:
    async with pages() as url:
        browser = Browser(timeout=10)
        page = await browser.get(f"{url}/hub/home")
        with pytest.raises(WorkshopError, match="/hub/home is not the page that waits"):
            await start_server(browser, page, f"{url}/user/ada/", print)
