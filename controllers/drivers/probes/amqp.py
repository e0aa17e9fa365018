"""Does a broker accept these credentials? The opening of AMQP 0-9-1, up to the virtual host, and no further.

By hand, not by kombu: it is four frames, and a node that only asks whether its broker lets it in needs no client.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from reconciler.errors import DriverError

_FRAME = struct.Struct(">BHI")
_HELLO = b"AMQP\x00\x00\x09\x01"
_START, _TUNE, _OPEN_OK, _CLOSE = (10, 10), (10, 30), (10, 41), (10, 50)
_LONGEST = 128 * 1024


@dataclass(frozen=True, slots=True)
class Login:
    """Whom to log in where."""

    host: str
    port: int
    user: str
    password: str
    vhost: str
    tls: bool


class RefusedError(DriverError):
    """The broker answered, and said no."""


def parse(url: str) -> Login:
    """Read a URL as kombu and oslo.messaging write it; of several hosts the first. Raises DriverError."""
    scheme, _, rest = url.partition("://")
    places, slash, path = rest.partition("/")
    first = places.split(",")[0]
    try:
        parts = urlsplit(f"amqp://{first}")
        port = parts.port
    except ValueError as error:
        raise DriverError("the URL of the broker cannot be read") from error
    if not parts.hostname:
        raise DriverError("the URL of the broker names no host")
    tls = scheme.endswith(("amqps", "+ssl"))
    vhost = unquote(path.partition("?")[0]) if slash else "/"
    return Login(
        parts.hostname,
        port or (5671 if tls else 5672),
        unquote(parts.username or "guest"),
        unquote(parts.password or "guest"),
        vhost or "/",
        tls,
    )


async def log_in(login: Login) -> None:
    """Log in and go away. Raises OSError without a connection, RefusedError when the broker says no."""
    context = ssl.create_default_context() if login.tls else None
    reader, writer = await asyncio.open_connection(login.host, login.port, ssl=context)
    try:
        writer.write(_HELLO)
        await _expect(reader, _START, login)
        answer = f"\0{login.user}\0{login.password}".encode()
        flags = _text("authentication_failure_close") + b"t\x01"
        capabilities = _text("capabilities") + b"F" + struct.pack(">I", len(flags)) + flags
        arguments = struct.pack(">I", len(capabilities)) + capabilities
        writer.write(_method(11, arguments + _text("PLAIN") + struct.pack(">I", len(answer)) + answer + _text("en_US")))
        tune = await _expect(reader, _TUNE, login)
        writer.write(_method(31, tune[:8]) + _method(40, _text(login.vhost) + _text("") + b"\0"))
        await _expect(reader, _OPEN_OK, login)
        writer.write(_method(50, struct.pack(">H", 200) + _text("bye") + struct.pack(">HH", 0, 0)))
        await writer.drain()
    except asyncio.IncompleteReadError as error:
        # Old brokers close the connection instead of saying that a login is refused.
        raise RefusedError(f"the broker closed the connection of user {login.user}") from error
    finally:
        writer.close()


async def _expect(reader: asyncio.StreamReader, wanted: tuple[int, int], login: Login) -> bytes:
    """The arguments of the method that is waited for; heartbeats are skipped."""
    while True:
        head = await reader.readexactly(_FRAME.size)
        if head[:4] == b"AMQP":
            raise RefusedError("this broker speaks another version of AMQP")
        kind, _, length = _FRAME.unpack(head)
        if length > _LONGEST:
            raise RefusedError("what answers there is no broker")
        payload = (await reader.readexactly(length + 1))[:-1]
        if kind != 1 or len(payload) < 4:
            continue
        method = struct.unpack_from(">HH", payload)
        if method == wanted:
            return payload[4:]
        if method == _CLOSE:
            (code,) = struct.unpack_from(">H", payload, 4)
            said = payload[7 : 7 + payload[6]].decode(errors="replace")
            refused = f"user {login.user}" if code == 403 else f"vhost {login.vhost}"
            what = f"the broker refuses {refused} at {login.host}:{login.port}"
            raise RefusedError(f"{what}: {said.splitlines()[0] if said else code}")


def _method(number: int, arguments: bytes) -> bytes:
    payload = struct.pack(">HH", 10, number) + arguments
    return _FRAME.pack(1, 0, len(payload)) + payload + b"\xce"


def _text(text: str) -> bytes:
    raw = text.encode()[:255]
    return bytes([len(raw)]) + raw
