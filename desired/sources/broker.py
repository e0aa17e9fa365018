"""How a RabbitMQ broker is spoken to: where it is, a connection that cannot hang, and its refusals in our words.

Blocking, for a thread (`desired.sources.amqp_link`) and for `reconcile doctor`. Kombu is imported when it is used.
A password is in no message here: what a broker says back is shown, what it was sent is not.
"""

from __future__ import annotations

import contextlib
import select
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from reconciler.errors import ConfigError, DriverError
from reconciler.settings_sections import AmqpSettings

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
"""How long an answer to a question (a declare, a bind) may take, and a write."""

_LOG_IN = "to be let in"


@dataclass(frozen=True, slots=True)
class Place:
    """One broker of a URL, and as whom to log in there."""

    host: str
    port: int
    user: str
    vhost: str
    tls: bool
    password: str = field(repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"broker {host}:{self.port}"


class RefusedError(DriverError):
    """The broker does not do what it was asked, or is not there; in words for `status`."""


def places(url: str) -> tuple[Place, ...]:
    """The brokers of ``amqp://user:password@host:port,host/vhost``; as oslo.messaging, the path is the vhost.

    Raises ConfigError without repeating the URL: it may hold a password.
    """
    scheme, _, rest = url.partition("://")
    netloc, _, path = rest.partition("/")
    userinfo, _, hosts = netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    tls = scheme == "amqps"
    vhost = unquote(path) or "/"
    secret = unquote(password) or ("" if user else "guest")
    try:
        found = tuple(
            Place(*_host_port(one, 5671 if tls else 5672), unquote(user) or "guest", vhost, tls, secret)
            for one in hosts.split(",")
        )
    except ValueError:
        found = ()
    if scheme not in {"amqp", "amqps"} or not found or not all(place.host for place in found):
        raise ConfigError(
            "amqp.url cannot be read; right would be like amqp://user@10.0.0.11:5672/vhost, or amqps://… for TLS"
        )
    return found


def _host_port(text: str, default: int) -> tuple[str, int]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    number = int(port) if port else default
    if not 0 < number < 65536:
        raise ValueError(text)
    return host, number


class Wire:
    """A connection that is logged in, and its one channel. Raises RefusedError for all that goes wrong, in words."""

    def __init__(self, place: Place, settings: AmqpSettings, name: str) -> None:
        self.place = place
        self._silent = False
        with self.asking(_LOG_IN):
            self._client = _client(place, settings, name)
            self._connection: Any = self._client.transport.establish_connection()
        with self.asking("for a channel"):
            self.channel: Any = self._connection.channel()

    @property
    def sock(self) -> Any:
        """To wait for: there is something to read when it is readable, or `pending` says so."""
        return self._connection.sock

    def pending(self) -> bool:
        """Whether something is to be read now."""
        sock = self.sock
        if sock is None:
            raise RefusedError(f"{self.place} has closed the connection")
        return bool(self.place.tls and sock.pending()) or bool(select.select([sock], [], [], 0)[0])

    def read(self) -> None:
        """Read one frame, of which the beginning is there; what it is for is called back."""
        with self.asking("for messages"), contextlib.suppress(TimeoutError):
            self._connection.blocking_read(ANSWER_SECONDS)

    def beat(self) -> None:
        """Send a heartbeat when it is time. Raises RefusedError when the broker has sent none for too long."""
        with self.asking("for a sign of life"):
            self._connection.heartbeat_tick()

    def scratch(self) -> Any:
        """A second channel, for a question whose refusal closes the channel."""
        with self.asking("for a channel"):
            return self._connection.channel()

    def close(self) -> None:
        """Say good-bye if somebody listens. Raises nothing that concerns the connection."""
        if not self._silent:  # its answer would be waited for, and the loss told only then
            with contextlib.suppress(*failures()):
                self._connection.close()
        with contextlib.suppress(*failures()):
            self._connection.collect()

    @contextlib.contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """What the library raises meanwhile becomes a RefusedError that says what was asked."""
        try:
            yield
        except failures() as error:
            self._silent = silent(error)
            raise RefusedError(words(error, what, self.place)) from error


def _client(place: Place, settings: AmqpSettings, name: str) -> Any:
    import kombu  # noqa: PLC0415 - 5 MiB that a node without OpenStack does not need

    return kombu.Connection(
        hostname=place.host,
        port=place.port,
        userid=place.user,
        password=place.password,
        virtual_host=place.vhost,
        transport="pyamqp",
        connect_timeout=CONNECT_SECONDS,
        heartbeat=settings.heartbeat,
        ssl=_tls(place, settings) if place.tls else False,
        transport_options={
            "read_timeout": ANSWER_SECONDS,
            "write_timeout": ANSWER_SECONDS,
            "client_properties": {"connection_name": name},
        },
    )


def _tls(place: Place, settings: AmqpSettings) -> dict[str, Any]:
    def text(path: object) -> str | None:
        return None if path is None else str(path)

    return {
        "ca_certs": text(settings.ca),
        "certfile": text(settings.cert),
        "keyfile": text(settings.key),
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": place.host,
    }


def failures() -> tuple[type[Exception], ...]:
    """What the library raises when the other side is not as it should be: its own errors, the system's, and those of
    a decoder that trips over what no broker sends.
    """
    from amqp.exceptions import AMQPError  # noqa: PLC0415 - as above

    return AMQPError, OSError, EOFError, struct.error, ValueError, LookupError, TypeError, AttributeError


def silent(error: Exception) -> bool:
    """Whether nobody is there to say good-bye to: no answer came, or no heartbeat (which the library calls forced)."""
    from amqp.exceptions import ConnectionForced  # noqa: PLC0415 - as above

    return isinstance(error, TimeoutError | BlockingIOError | ConnectionForced)


def words(error: Exception, what: str, place: Place) -> str:
    """What was asked of whom, and why it was refused."""
    from amqp import exceptions  # noqa: PLC0415 - as above

    said = _reply(error)
    who = f"user {place.user!r} and vhost {place.vhost!r}"
    entering = what == _LOG_IN
    match error:
        case exceptions.AccessRefused() if not entering:
            text = f"refuses what {who} asks, {what}: {said}"
        case exceptions.AccessRefused() | exceptions.NotAllowed() | exceptions.InvalidPath():
            text = f"refuses {who}: {said}"
        case exceptions.ConsumerCancelled():
            text = "has deleted the queue, or moved it"
        case exceptions.ConnectionForced():
            text = f"closes the connection: {said}"
        case ssl.SSLCertVerificationError():
            text = f"shows a certificate that is not trusted: {error.verify_message}"
        case TimeoutError() | BlockingIOError():
            text = f"does not answer when asked {what}"
        case OSError() if entering and error.errno is None and not isinstance(error, ssl.SSLError):
            text = f"closed the connection when {who} logged in (older brokers refuse a password so): {said}"
        case OSError():
            text = f"cannot be reached: {error.strerror or said}"
        case _:
            text = f"breaks off when asked {what}: {said}"
    return f"{place} {text}"


def _reply(error: Exception) -> str:
    text = getattr(error, "reply_text", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
