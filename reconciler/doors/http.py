"""The TCP listener: metrics, health, the read-only API and a status page. Nothing can be changed through it.

Off when the setting `listen` is empty. TLS and basic auth as `web_config` says; without either, on an address others
can reach, it works and `notices` says what that means. The composition root opens and closes it.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime

from aiohttp import web

from reconciler.doors.api import Api, Handler, errors_as_json
from reconciler.doors.page import page
from reconciler.doors.webconfig import BasicAuth, WebConfig
from reconciler.errors import DriverError
from reconciler.metrics import Metrics
from reconciler.report import Node
from reconciler.settings import Settings
from reconciler.settings_values import listen_address

STOP_SECONDS = 1.0
PAGE_PASSES = 20
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class HttpServer:
    """`start` listens, `close` stops. Building it reads the web config and raises ConfigError for mistakes in it."""

    def __init__(self, settings: Settings, node: Node, metrics: Metrics) -> None:
        self._address = listen_address(settings.listen)
        self._config = WebConfig.load(settings.web_config) if settings.web_config else WebConfig()
        self._context: ssl.SSLContext | None = self._config.ssl_context()
        self._auth = BasicAuth(self._config.basic_auth_users) if self._config.basic_auth_users else None
        self._node = node
        self._api = Api(node, metrics)
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port in use, once started (it differs from the setting when that is 0)."""
        return int(self._runner.addresses[0][1]) if self._runner and self._runner.addresses else 0

    @property
    def notices(self) -> Sequence[str]:
        """Sentences for `status` and the log about how open this is."""
        if self._address is None or _loopback(self._address[0]):
            return ()
        lacking = [name for name, got in (("TLS", self._context), ("passwords", self._auth)) if not got]
        if not lacking:
            return ()
        host, port = self._address
        where = f"HTTP on {host or 'every address'}:{port} is open to others without {' and without '.join(lacking)}"
        return (f"{where}; set web_config, or listen on 127.0.0.1",)

    async def start(self) -> None:
        """Raises DriverError when the address cannot be had; nothing else of the daemon depends on it."""
        if self._address is None:
            return
        guards = [self._guard] if self._auth else []
        app = web.Application(middlewares=[*guards, errors_as_json], client_max_size=1024)
        app.on_response_prepare.append(_harden)
        app.add_routes([*self._api.read_routes(), web.get("/", self._page)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
        await runner.setup()
        host, port = self._address
        try:
            await web.TCPSite(runner, host or None, port, ssl_context=self._context).start()
        except OSError as error:
            await runner.cleanup()
            raise DriverError(
                f"listening on {host}:{port}: {error.strerror or error}; metrics are not served"
            ) from error
        self._runner = runner

    async def close(self) -> None:
        self._api.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _page(self, _request: web.Request) -> web.Response:
        passes = await self._node.history(resource=None, since=None, limit=PAGE_PASSES)
        text = page(self._node.status(), passes, datetime.now(UTC).timestamp())
        return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store"})

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        assert self._auth is not None
        if not await self._auth.allows(request.headers.get("Authorization", "")):
            challenge = {"WWW-Authenticate": 'Basic realm="reconciler", charset="UTF-8"'}
            return web.Response(status=401, text="this needs a user and a password\n", headers=challenge)
        return await handler(request)


async def _harden(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
