"""The HTTP handlers over a `Node`, shared by the control socket and the TCP listener. They only translate.

`Api.read_routes` looks and changes nothing; `Api.control_routes` is mounted on the unix socket only. Errors of the
taxonomy become ``{"error": sentence, "type": class name}`` with a status: 400 for what the caller got wrong, 503 for
what does not answer now. The live stream is one JSON object a line; an empty line every `HEARTBEAT` seconds says that
the daemon is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from desired.store import StoreError
from reconciler.contract import PassRecord
from reconciler.doors import wire
from reconciler.errors import ConfigError, ReconcilerError, TransientError
from reconciler.metrics import CONTENT_TYPE, Metrics
from reconciler.report import Budget, Node, Pause

HEARTBEAT = 15.0
MAX_STREAMS = 32
MAX_HISTORY = 10_000
MAX_ONCE_SECONDS = 3600.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """Handlers for one node. `close` ends the live streams so that a server can stop at once."""

    def __init__(self, node: Node, metrics: Metrics) -> None:
        self._node = node
        self._metrics = metrics
        self._closing = asyncio.Event()
        self._streams = 0

    def read_routes(self) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self._get_metrics),
            web.get("/healthz", self._get_healthz),
            web.get("/readyz", self._get_readyz),
            web.get("/api/v1/status", self._get_status),
            web.get("/api/v1/history", self._get_history),
            web.get("/api/v1/events", self._get_events, allow_head=False),
        ]

    def control_routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/v1/declared", self._get_declared),
            web.post("/api/v1/once", self._once),
            web.post("/api/v1/approve", self._approve),
            web.post("/api/v1/pause", self._pause),
            web.post("/api/v1/resume", self._resume),
            web.post("/api/v1/log-level", self._log_level),
        ]

    def close(self) -> None:
        self._closing.set()

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _get_healthz(self, _request: web.Request) -> web.Response:
        return _verdict(*self._node.healthy())

    async def _get_readyz(self, _request: web.Request) -> web.Response:
        return _verdict(*self._node.ready())

    async def _get_status(self, _request: web.Request) -> web.Response:
        return web.json_response(text=wire.dumps(self._node.status()))

    async def _get_declared(self, _request: web.Request) -> web.Response:
        return web.json_response(text=await asyncio.to_thread(wire.dumps, self._node.declared()))

    async def _get_history(self, request: web.Request) -> web.Response:
        query = request.query
        limit = int(_number(query.get("limit", "50"), "limit"))
        if not 1 <= limit <= MAX_HISTORY:
            raise ConfigError(f"limit={limit} is not between 1 and {MAX_HISTORY}")
        since = _number(query["since"], "since") if "since" in query else None
        records = await self._node.history(resource=query.get("resource"), since=since, limit=limit)
        return web.json_response(text=wire.dumps(records, Sequence[PassRecord]))

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        if self._streams >= MAX_STREAMS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_STREAMS} live streams are open already\n")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        self._streams += 1
        try:
            await response.prepare(request)
            await self._stream(response)
        except ConnectionResetError:
            pass  # the reader went away, which is how a live stream ends
        finally:
            self._streams -= 1
        return response

    async def _stream(self, response: web.StreamResponse) -> None:
        await response.write(b"\n")
        events = self._node.events()
        try:
            async with _task(self._closing.wait(), "stream-closing") as closed:
                while not closed.done() and (record := await self._next(events, response, closed)):
                    await response.write(wire.dumps(record).encode() + b"\n")
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    async def _next(
        self, events: AsyncIterator[PassRecord], response: web.StreamResponse, closed: asyncio.Task[Any]
    ) -> PassRecord | None:
        """The next record; None when the stream or the server ends. Heartbeats meanwhile."""
        async with _task(_anext(events), "stream-next") as upcoming:
            while True:
                await asyncio.wait({upcoming, closed}, timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
                if upcoming.done():
                    record: PassRecord | None = upcoming.result()
                    return record
                if closed.done():
                    return None
                await response.write(b"\n")

    async def _once(self, request: web.Request) -> web.Response:
        body = await _body(request, {"only", "dry_run", "timeout"})
        timeout = _number(body.get("timeout", 60), "timeout")
        if not 0 < timeout <= MAX_ONCE_SECONDS:
            raise ConfigError(f"timeout={timeout:g} is not between 0 and {MAX_ONCE_SECONDS:g} seconds")
        dry_run = body.get("dry_run", False)
        if not isinstance(dry_run, bool):
            raise ConfigError("dry_run must be true or false")
        result = await self._node.once(only=_text(body, "only"), dry_run=dry_run, timeout=timeout)
        return web.json_response(text=wire.dumps(result))

    async def _approve(self, request: web.Request) -> web.Response:
        body = await _body(request, {"revision"})
        through = await self._node.approve(_text(body, "revision"))
        return web.json_response(text=wire.dumps(through, Sequence[Budget]))

    async def _pause(self, request: web.Request) -> web.Response:
        body = await _body(request, {"what", "reason", "seconds", "by"})
        what, reason = _text(body, "what"), _text(body, "reason")
        if not what or not reason:
            raise ConfigError("a pause needs 'what' (node, KIND or KIND/NAME) and 'reason'")
        seconds = None if body.get("seconds") is None else _number(body["seconds"], "seconds")
        if seconds is not None and seconds <= 0:
            raise ConfigError(f"seconds={seconds:g} must be more than 0")
        pause = await self._node.pause(what, reason=reason, seconds=seconds, by=_text(body, "by") or "")
        return web.json_response(text=wire.dumps(pause))

    async def _resume(self, request: web.Request) -> web.Response:
        body = await _body(request, {"what", "by"})
        what = _text(body, "what")
        if not what:
            raise ConfigError("resume needs 'what' (all, node, KIND or KIND/NAME)")
        ended = await self._node.resume(what, by=_text(body, "by") or "")
        return web.json_response(text=wire.dumps(ended, Sequence[Pause]))

    async def _log_level(self, request: web.Request) -> web.Response:
        body = await _body(request, {"level"})
        before = self._node.set_log_level(_text(body, "level") or "")
        return web.json_response({"before": before})


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors of the taxonomy, and aiohttp's own refusals, into a JSON sentence."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        refusal.content_type = "application/json"
        refusal.text = json.dumps(
            {"error": f"{request.method} {request.path}: {refusal.reason}", "type": "DriverError"}
        )
        raise
    except ConfigError as error:
        return _failure(400, error)
    except (TransientError, StoreError) as error:
        return _failure(503, error)
    except ReconcilerError as error:
        return _failure(500, error)


def _failure(status: int, error: Exception) -> web.Response:
    return web.json_response({"error": str(error), "type": type(error).__name__}, status=status)


def _verdict(good: bool, detail: str) -> web.Response:  # noqa: FBT001 (the pair a Node gives)
    return web.Response(text="ok\n" if good else f"{detail}\n", status=200 if good else 503)


async def _body(request: web.Request, known: set[str]) -> Mapping[str, Any]:
    try:
        body = await request.json()
    except ValueError as error:
        raise ConfigError(f"the request is not JSON: {error}") from error
    if not isinstance(body, dict) or not body.keys() <= known:
        raise ConfigError(f"the request must be an object with {', '.join(sorted(known))}")
    return body


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not (isinstance(value, str) and value.isprintable()):
        raise ConfigError(f"{name} must be one printable line")
    return value


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name}={value!r} is no number")
    return number


async def _anext(events: AsyncIterator[PassRecord]) -> PassRecord | None:
    return await anext(events, None)


@contextlib.asynccontextmanager
async def _task(awaitable: Any, name: str) -> AsyncIterator[asyncio.Task[Any]]:
    """A named task that does not outlive the block."""
    task = asyncio.create_task(awaitable, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=HEARTBEAT)
