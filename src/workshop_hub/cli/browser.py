"""As much of a web browser as it takes to log in to a hub and to use a server."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.websocket import WebSocketClientConnection, websocket_connect

from workshop_hub.errors import WorkshopError

REDIRECTS = 20


class Browser:
    """Keeps cookies and follows redirects; `url` is the page that it shows.

    timeout: seconds for one request.
    """

    def __init__(self, *, timeout: float = 60.0) -> None:
        self.url = ""
        self._cookies: dict[tuple[str, str], str] = {}
        self._timeout = timeout

    def cookie(self, name: str, url: str) -> str:
        """Return the value of the cookie that would be sent to `url`; empty for none."""
        return self._cookies_for(url).get(name, "")

    async def get(self, url: str) -> str:
        """Show a page, after redirects; return its text."""
        return await self._request("GET", url)

    async def submit(self, url: str, fields: dict[str, str]) -> str:
        """Send a form with the page's own `_xsrf`; return the page that it leads to."""
        fields = {"_xsrf": self.cookie("_xsrf", url), **fields}
        return await self._request("POST", url, urlencode(fields))

    async def call(self, method: str, url: str, body: object = None) -> Any:
        """Call an API as the page's scripts do; return what its JSON says."""
        text = await self._request(
            method, url, None if body is None else json.dumps(body), from_script=True
        )
        return json.loads(text) if text else None

    async def events(self, url: str) -> AsyncIterator[dict[str, Any]]:
        """Yield what an EventSource of the page gets, until the server ends it."""
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        request = HTTPRequest(
            url,
            headers={**self._headers(url), "Accept": "text/event-stream"},
            streaming_callback=chunks.put_nowait,
            request_timeout=self._timeout,
        )
        fetch = asyncio.ensure_future(AsyncHTTPClient().fetch(request, raise_error=False))
        fetch.add_done_callback(lambda _: chunks.put_nowait(None))
        pending = b""
        while (chunk := await chunks.get()) is not None:
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    yield json.loads(line.removeprefix(b"data:"))
        (await fetch).rethrow()

    async def web_socket(self, url: str) -> WebSocketClientConnection:
        """Open a WebSocket, given by its http URL."""
        request = HTTPRequest(
            "ws" + url.removeprefix("http"),
            headers=self._headers(url),
            request_timeout=self._timeout,
        )
        return await websocket_connect(request)

    async def _request(
        self, method: str, url: str, body: str | None = None, *, from_script: bool = False
    ) -> str:
        for _ in range(REDIRECTS):
            response = await self._fetch(method, url, body, from_script=from_script)
            self._remember_cookies(url, response)
            if response.code not in (301, 302, 303, 307):
                break
            url = urljoin(url, response.headers["Location"])
            method, body = "GET", None
        else:
            raise WorkshopError(f"Endless redirects at {url}.")
        self.url = url if not from_script else self.url
        text = response.body.decode("utf-8", "replace") if response.body else ""
        if response.code >= 400:
            raise WorkshopError(
                f"{method} {url} was answered with {response.code}.", log=error_text(text)
            )
        return text

    async def _fetch(
        self, method: str, url: str, body: str | None, *, from_script: bool
    ) -> HTTPResponse:
        headers = self._headers(url)
        if from_script:
            headers |= {"X-XSRFToken": self.cookie("_xsrf", url), "Accept": "application/json"}
        return await AsyncHTTPClient().fetch(
            HTTPRequest(
                url,
                method,
                headers=headers,
                body=body,
                follow_redirects=False,
                request_timeout=self._timeout,
                allow_nonstandard_methods=True,
            ),
            raise_error=False,
        )

    def _headers(self, url: str) -> dict[str, str]:
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies_for(url).items())
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        return {"Cookie": cookies, "Origin": origin, "Referer": self.url or origin}

    def _cookies_for(self, url: str) -> dict[str, str]:
        """Return the cookies for a path; of those with one name, the one of the longest path."""
        path = urlsplit(url).path
        fitting = [key for key in self._cookies if path.startswith(key[1])]
        return {key[0]: self._cookies[key] for key in sorted(fitting, key=lambda key: len(key[1]))}

    def _remember_cookies(self, url: str, response: HTTPResponse) -> None:
        for line in response.headers.get_list("Set-Cookie"):
            for name, morsel in SimpleCookie(line).items():
                key = (name, morsel["path"] or "/")
                if morsel.value and morsel["max-age"] != "0":
                    self._cookies[key] = morsel.coded_value
                else:
                    self._cookies.pop(key, None)


def error_text(page: str) -> str:
    """Return what an error page of the hub, or an API's answer, says in words."""
    found = re.search(r'<div class="error">(.*?)</div>', page, re.DOTALL)
    words = re.sub(r"<[^>]*>", " ", found[1]) if found else page
    return " ".join(html.unescape(words).split())[:2000]
