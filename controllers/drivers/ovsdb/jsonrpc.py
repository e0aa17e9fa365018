"""JSON-RPC 1.0 as OVSDB speaks it (RFC 7047, 4): JSON objects one after the other, without anything between them.

`Framer` cuts the byte stream into objects; `Link` is an asyncio protocol for one connection: it matches replies with
requests, answers the server's echo, hands notifications on, and fails what is outstanding when the connection ends.
Everything is handled where it arrives, without a task in between: an update is applied in the loop iteration that
read it. It knows nothing of databases. Used by `client` alone; whoever awaits a reply brings the timeout.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import Callable
from typing import Any, Protocol

from reconciler.errors import DriverError

Message = dict[str, Any]


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class ProtocolError(DriverError):
    """What arrived is not JSON-RPC."""


class LinkLostError(DriverError):
    """The connection ended before the reply; whether the request was carried out is unknown."""


class RefusedError(DriverError):
    """The server answered the request with an error."""


class Framer:
    """Cuts a stream into JSON objects, however it was split on its way.

    An object can only be complete where the text ends with "}", and a server that is done writing has ended there; so
    the text is tried only then. One object of megabytes (the initial contents) is parsed once, not once per read.
    """

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._parts: list[str] = []
        self._decode = json.JSONDecoder().raw_decode

    def feed(self, data: bytes) -> list[Message]:
        """The objects that are complete with `data`. Raises ProtocolError when it cannot be JSON objects."""
        try:
            part = self._utf8.decode(data)
        except UnicodeDecodeError as error:
            raise ProtocolError(f"OVSDB sent what is not UTF-8 ({error})") from error
        self._parts.append(part)
        if not part.rstrip().endswith("}"):
            return []
        text = "".join(self._parts)
        messages, at = self._cut(text)
        self._parts = [text[at:]] if at < len(text) else []
        return messages

    def _cut(self, text: str) -> tuple[list[Message], int]:
        """The objects at the front of `text`, and where the incomplete rest begins."""
        messages: list[Message] = []
        at = _skip_blank(text, 0)
        while at < len(text):
            try:
                message, end = self._decode(text, at)
            except json.JSONDecodeError as error:
                # Text that is only incomplete is wrong at its end, or in the string that has no end yet.
                if error.pos < len(text) and not error.msg.startswith("Unterminated string"):
                    raise ProtocolError(f"OVSDB sent what is not JSON ({error})") from error
                break
            if not isinstance(message, dict):
                raise ProtocolError(f"OVSDB sent {text[at:end][:40]!r} where a JSON-RPC message belongs")
            messages.append(message)
            at = _skip_blank(text, end)
        return messages, at


def _skip_blank(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


class Owner(Protocol):
    """Whom a link tells, at once and in order."""

    def notified(self, method: str, params: list[Any]) -> None:
        """A notification arrived. A DriverError from here ends the link."""
        ...

    def lost(self, reason: str) -> None:
        """The link ended, and not by `close`. Called once, before outstanding requests fail."""
        ...


class _Request:
    __slots__ = ("convert", "future")

    def __init__(self, future: asyncio.Future[Any], convert: Callable[[Any], Any]) -> None:
        self.future = future
        self.convert = convert


class Link(asyncio.Protocol):
    """One connection. `heard` is the loop time at which the last whole message arrived."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._framer = Framer()
        self._requests: dict[int, _Request] = {}
        self._last_id = 0
        self._transport: asyncio.Transport | None = None
        self.heard = self._loop.time()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Done when the link has ended; the result says why."""

    def request(self, method: str, params: list[Any], convert: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """Send a request. The future gets ``convert(result)``, called at the reply's place in the stream.

        The future fails with RefusedError (the server's own words), LinkLostError, or the DriverError of `convert`.
        """
        if self._transport is None or self.ended.done():
            raise LinkLostError(f"{method} was not sent: the connection has ended")
        self._last_id += 1
        future: asyncio.Future[Any] = self._loop.create_future()
        self._requests[self._last_id] = _Request(future, convert)
        self._send({"method": method, "params": params, "id": self._last_id})
        return future

    def drop(self, reason: str) -> None:
        """End the link because it cannot be trusted any more: the owner is told."""
        if not self.ended.done():
            self._end(reason)
            self._owner.lost(reason)
            self._fail_requests(reason)

    def close(self) -> None:
        """End the link because it is not wanted any more."""
        if not self.ended.done():
            self._end("closed")
            self._fail_requests("it was closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(str(exc) if exc is not None else "ovsdb-server closed it")

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        try:
            for message in self._framer.feed(data):
                self.heard = self._loop.time()
                self._handle(message)
                if self.ended.done():
                    return
        except DriverError as error:
            self.drop(str(error))

    def _handle(self, message: Message) -> None:
        method, ident = message.get("method"), message.get("id")
        if method is None:
            self._reply(message, ident)
        elif method == "echo":
            self._send({"id": ident, "result": message.get("params"), "error": None})
        elif ident is None and isinstance(message.get("params"), list):
            self._owner.notified(method, message["params"])
        else:
            raise ProtocolError(f"OVSDB sent the request {method!r}, which no client answers")

    def _reply(self, message: Message, ident: Any) -> None:
        request = self._requests.pop(ident, None) if isinstance(ident, int) else None
        if request is None:
            raise ProtocolError(f"OVSDB replied to request {ident!r}, which was not made")
        if request.future.done():
            return
        if message.get("error") is not None:
            request.future.set_exception(RefusedError(words(message["error"])))
            return
        try:
            request.future.set_result(request.convert(message.get("result")))
        except DriverError as error:
            request.future.set_exception(error)

    def _send(self, message: Message) -> None:
        assert self._transport is not None
        self._transport.write(_encode(message).encode())

    def _end(self, reason: str) -> None:
        self.ended.set_result(reason)
        if self._transport is not None:
            self._transport.abort()

    def _fail_requests(self, reason: str) -> None:
        requests, self._requests = self._requests, {}
        for request in requests.values():
            if not request.future.done():
                request.future.set_exception(LinkLostError(reason))


def words(error: Any) -> str:
    """OVSDB's error object (RFC 7047, 3.1) in its own words: ``constraint violation: Transaction causes …``."""
    if not isinstance(error, dict):
        return str(error)
    said = [str(error[key]) for key in ("error", "details") if error.get(key)]
    return ": ".join(said) or json.dumps(error)
