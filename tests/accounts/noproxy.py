"""A proxy that is none: the tests ask the hub at its own port."""

from __future__ import annotations

from typing import Any

from jupyterhub.proxy import Proxy


class NoProxy(Proxy):
    """Remembers routes, and does nothing with them."""

    should_start = False
    routes: dict[str, Any] = {}  # noqa: RUF012 -- one object per process

    async def add_route(self, routespec: str, target: str, data: Any) -> None:
        self.routes[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec: str) -> None:
        self.routes.pop(routespec, None)

    async def get_all_routes(self) -> dict[str, Any]:
        return self.routes
