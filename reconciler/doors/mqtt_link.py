"""A connection to the MQTT broker that the settings name, and what went wrong with one in words. aiomqtt stays in here.

`connection` is had by the publisher, the view of the fleet and the doctor, each under an identifier of its own. Every
failure comes out as a DriverError that names host and user, never the password; `broken` does the same for calls on a
client that is connected. The library is imported when a connection is wanted, and not before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.errors import DriverError
from reconciler.settings_sections import Mqtt
from reconciler.settings_values import mqtt_broker

if TYPE_CHECKING:
    from aiomqtt import Client

ANSWER_SECONDS = 5.0
"""How long the broker may take for one answer."""

QUEUED = 1000
"""Messages that wait to be read at most; more than that is a flood, and what is left out of it was a trigger only."""

_REFUSED = {0x84: "does not speak MQTT 3.1.1", 0x85: "does not accept this client's identifier", 0x88: "is not ready"}
_CREDENTIALS = {0x86, 0x87}
_SUBSCRIPTION_REFUSED = 0x80


class BrokerError(DriverError):
    """The broker does not answer, or refuses."""


@dataclass(frozen=True, slots=True)
class LastWill:
    """What the broker publishes, retained, when the connection breaks off."""

    topic: str
    payload: str


@contextlib.asynccontextmanager
async def connection(
    mqtt: Mqtt, identifier: str, will: LastWill | None = None, *, queued: int = QUEUED, patience: float | None = None
) -> AsyncIterator[Client]:
    """A connected client; disconnected in good order at the end. Raises BrokerError.

    `queued` messages wait to be read at most; `patience` is how many seconds the broker may take for one answer.
    """
    import aiomqtt  # noqa: PLC0415 (only where a broker is configured)

    broker = mqtt_broker(mqtt.url)
    context = await asyncio.to_thread(_tls, mqtt) if broker.tls else None
    client = aiomqtt.Client(
        broker.host,
        broker.port,
        username=broker.user or None,
        password=mqtt.password or None,
        identifier=identifier,
        will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=True) if will else None,
        keepalive=mqtt.keepalive,
        timeout=patience or ANSWER_SECONDS,
        tls_context=context,
        max_queued_incoming_messages=queued,
        logger=_quiet(),
    )
    with broken(mqtt):
        try:
            async with client:
                yield client
        finally:
            heed_loss(client)


def heed_loss(client: Client) -> None:
    """Whoever used the client knows that the connection broke off; the library would have the loop complain of it."""
    lost = client._disconnected  # noqa: SLF001 (aiomqtt 2.5 returns early from `__aexit__` and never looks at it)
    if lost.done() and not lost.cancelled():
        lost.exception()


@contextlib.contextmanager
def broken(mqtt: Mqtt) -> Iterator[None]:
    """Turns what the library raises into a BrokerError."""
    import aiomqtt  # noqa: PLC0415

    try:
        yield
    except aiomqtt.MqttError as error:
        raise BrokerError(_told(mqtt, error)) from error


async def subscribe(client: Client, mqtt: Mqtt, topic: str) -> str:
    """A sentence when the broker's access list refuses, else "". Raises BrokerError."""
    with broken(mqtt):
        granted = await client.subscribe(topic, qos=0)
    codes = [code if isinstance(code, int) else code.value for code in granted]
    if all(code < _SUBSCRIPTION_REFUSED for code in codes):
        return ""
    broker = mqtt_broker(mqtt.url)
    who = f"user {broker.user!r}" if broker.user else "a client without a user"
    return f"the MQTT broker {broker} does not let {who} read {topic}: its access list forbids it"


def identifier(mqtt: Mqtt, role: str) -> str:
    """The name of a client. Two with the same name push each other out: `role` has the node in it, or the process."""
    return f"{mqtt.prefix}-{role}".replace("/", "-")


def passing(mqtt: Mqtt, role: str) -> str:
    """The name of a client that is there for a moment."""
    return identifier(mqtt, f"{role}-{os.uname().nodename}-{os.getpid()}")


def _told(mqtt: Mqtt, error: Exception) -> str:
    broker = mqtt_broker(mqtt.url)
    code = getattr(getattr(error, "rc", None), "value", None)
    if code in _CREDENTIALS:
        who = f"user {broker.user!r} with this password" if broker.user else "a client without user and password"
        return f"the MQTT broker {broker} refuses {who}: wrong credentials, or not allowed"
    if code in _REFUSED:
        return f"the MQTT broker {broker} {_REFUSED[code]}"
    text = str(error)
    if text.startswith("Disconnected"):
        return f"the connection to the MQTT broker {broker} broke off"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("verify failed: ")[2].partition(" (_ssl")[0] or text
        trust = f"mqtt.ca {mqtt.ca}" if mqtt.ca else "the system's authorities (mqtt.ca is not set)"
        return f"the MQTT broker {broker} is not trusted by {trust}: {reason}"
    return f"the MQTT broker {broker} does not answer: {text}"


def _tls(mqtt: Mqtt) -> ssl.SSLContext:
    """Read anew for each connection: certificates are renewed while the daemon runs."""
    try:
        context = ssl.create_default_context(cafile=mqtt.ca)
    except OSError as error:  # ssl.SSLError is one
        raise BrokerError(f"mqtt.ca {mqtt.ca} cannot be used: {error.strerror or error}") from error
    if mqtt.cert and mqtt.key:
        try:
            context.load_cert_chain(mqtt.cert, mqtt.key)
        except OSError as error:
            what = f"mqtt.cert {mqtt.cert} with mqtt.key {mqtt.key}"
            raise BrokerError(f"{what} cannot be used: {error.strerror or error}") from error
    return context


def _quiet() -> logging.Logger:
    """The library logs what it also raises, and each message of a flood that it leaves out."""
    logger = logging.getLogger("reconciler.mqtt.library")
    logger.disabled = True
    return logger
