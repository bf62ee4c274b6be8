"""An address that anybody can make up is not believed."""

from __future__ import annotations

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from workshop_hub import client


class Where(RequestHandler):
    """Says where a request comes from, by tornado and by us."""

    def get(self) -> None:
        self.write(f"{self.request.remote_ip} {client.address(self.request)}")


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("", "127.0.0.1"),
        ("192.0.2.7", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7, 10.0.0.1", "192.0.2.7"),
        ("6.6.6.6,,  2001:db8::7 ,", "2001:db8::7"),
        ("10.0.0.1", "127.0.0.1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, ::ffff:10.0.0.1", "192.0.2.7"),
        ("192.0.2.7, evil.example, 999.1.1.1", "192.0.2.7"),
        ("evil.example", "127.0.0.1"),
    ],
)
async def test_the_last_hop_that_is_no_trusted_proxy_counts(forwarded: str, address: str) -> None:
    listener, port = bind_unused_port()
    # as JupyterHub makes its own
    server = HTTPServer(Application([("/", Where)]), xheaders=True, trusted_downstream=["10.0.0.1"])
    server.add_socket(listener)
    headers = {"X-Real-Ip": "6.6.6.6", "X-Forwarded-For": forwarded}
    said = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/", headers=headers)
    assert said.body.decode().split() == ["6.6.6.6", address]
    server.stop()
    await server.close_all_connections()
