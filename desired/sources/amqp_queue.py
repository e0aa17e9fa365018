"""This node's own queue at the broker, and what it is bound to. Blocking, in the thread of `desired.sources.amqp_link`.

An exchange is its publisher's: it is looked for and not made, because a declaration that differs from the publisher's
would be refused (406), or make the publisher's be refused. The queue is ours. It lives as long as the broker (unless
it is to be durable), so that one that is still there proves that our bindings are, and that nothing was missed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from desired.sources.broker import RefusedError, Wire, failures
from reconciler.settings_sections import AmqpSettings


@dataclass(frozen=True, slots=True)
class Declared:
    """Where the queue hangs. `gap` says why messages may have been missed, `problem` why none can come."""

    exchanges: tuple[str, ...]
    problem: str = ""
    gap: str = ""


def declare(wire: Wire, settings: AmqpSettings, on_message: Callable[[Any], None], *, known: bool) -> Declared:
    """Make sure of the queue, bind it, consume. `known`: this process has consumed it before. Raises RefusedError."""
    gap = _queue(wire, settings)
    if not known:
        gap = gap or "this process has just begun to listen"
    elif settings.queue_durable:
        gap = gap or "the queue is durable: whether its bindings were there all the time is unknown"
    _made_missing(wire, settings)
    found = _bound(wire, settings)
    with wire.asking("to limit what is sent ahead"):
        wire.channel.basic_qos(0, settings.prefetch, a_global=False)
    _consume(wire, settings, on_message)
    return Declared(found, _missing(wire, settings, found), gap)


def rebind(wire: Wire, settings: AmqpSettings, before: Declared) -> Declared:
    """Look again: an exchange that appeared is bound, one that is gone is named. Binding twice changes nothing.

    One that was deleted and made again since the last look takes our bindings with it unseen: the periodic read of
    the model finds what that hid.
    """
    made = _made_missing(wire, settings)
    found = _bound(wire, settings)
    appeared = sorted({*made, *found} - ({*before.exchanges} - {*made}))
    gap = f"exchange {appeared[0]} was not there" if appeared else ""
    return Declared(found, _missing(wire, settings, found), gap)


def exchanges(wire: Wire, settings: AmqpSettings) -> tuple[str, ...]:
    """Which of the exchanges exist."""
    return tuple(name for name in settings.exchanges if _exists(wire, name))


def _made_missing(wire: Wire, settings: AmqpSettings) -> tuple[str, ...]:
    """Make the exchanges that are not there, if that is wanted."""
    if not settings.declare_exchanges:
        return ()
    made = tuple(name for name in settings.exchanges if not _exists(wire, name))
    for name in made:
        with wire.asking(f"to make exchange {name}"):
            wire.channel.exchange_declare(name, "topic", durable=settings.durable_exchanges, auto_delete=False)
    return made


def _bound(wire: Wire, settings: AmqpSettings) -> tuple[str, ...]:
    """Bind the queue to the exchanges that exist; which these are."""
    found = exchanges(wire, settings)
    for name in found:
        for topic in settings.topics:
            with wire.asking(f"to bind queue {settings.queue} to exchange {name}"):
                wire.channel.queue_bind(settings.queue, name, f"{topic}.*")
    return found


def _missing(wire: Wire, settings: AmqpSettings, found: tuple[str, ...]) -> str:
    """A list of exchanges may name those of several releases: one that is there is enough."""
    if found:
        return ""
    names = " nor ".join(settings.exchanges)
    return (
        f"{wire.place} has no exchange {names} in vhost {wire.place.vhost!r}, so no notification can come: it is there "
        "once a publisher has sent one (control_exchange of Neutron, with driver = messagingv2), or with "
        "amqp.declare_exchanges"
    )


def _exists(wire: Wire, exchange: str) -> bool:
    with _scratch(wire, f"for exchange {exchange}") as channel:
        from amqp.exceptions import NotFound  # noqa: PLC0415 - loaded with kombu

        try:
            channel.exchange_declare(exchange, "topic", passive=True)
        except NotFound:
            return False
    return True


def _queue(wire: Wire, settings: AmqpSettings) -> str:
    """Find the queue or make it; the reason for a gap, '' when it was there and lost nothing."""
    from amqp.exceptions import NotFound, PreconditionFailed  # noqa: PLC0415 - loaded with kombu

    held: int | None = None
    with _scratch(wire, f"for queue {settings.queue}") as channel, contextlib.suppress(NotFound):
        held = channel.queue_declare(settings.queue, passive=True).message_count
    with _scratch(wire, f"to make queue {settings.queue}") as channel:
        try:
            _make(channel, settings)
        except PreconditionFailed:
            held = None
            _replace(wire, settings)
    if held is None:
        return f"queue {settings.queue} was not there"
    if held >= settings.queue_length:
        return f"queue {settings.queue} was full: the oldest of its messages were dropped"
    return ""


def _make(channel: Any, settings: AmqpSettings) -> None:
    arguments = {"x-expires": int(settings.queue_expires * 1000), "x-max-length": settings.queue_length}
    channel.queue_declare(
        settings.queue, durable=settings.queue_durable, exclusive=False, auto_delete=False, arguments=arguments
    )


def _replace(wire: Wire, settings: AmqpSettings) -> None:
    """The queue was made with other settings: ours by its name, so it is made anew, unless somebody consumes it."""
    with _scratch(wire, f"to replace queue {settings.queue}, which was made with other settings") as channel:
        channel.queue_delete(settings.queue, if_unused=True)
    with _scratch(wire, f"to make queue {settings.queue}") as channel:
        _make(channel, settings)


def _consume(wire: Wire, settings: AmqpSettings, on_message: Callable[[Any], None]) -> None:
    try:
        with wire.asking(f"to consume queue {settings.queue}"):
            wire.channel.basic_consume(settings.queue, exclusive=True, callback=on_message)
    except RefusedError as error:
        if "exclusive" not in str(error):
            raise
        message = (
            f"{wire.place}: somebody else consumes queue {settings.queue}: another node with this node's name, or this "
            "node's last connection, until its heartbeats are missed"
        )
        raise RefusedError(message) from error


@contextlib.contextmanager
def _scratch(wire: Wire, what: str) -> Iterator[Any]:
    """A channel of its own for a question whose refusal closes the channel."""
    channel = wire.scratch()
    with wire.asking(what):
        yield channel
        if channel.is_open:
            with contextlib.suppress(*failures()):
                channel.close()
