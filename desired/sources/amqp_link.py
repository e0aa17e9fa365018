"""The thread that holds the connection to the broker: declares, receives, decodes, acknowledges, and connects again.

Everything of the library happens here, so that the event loop never waits for a broker and never decodes JSON. What
was received goes out in batches by `hand_over`, which must not block; at most `prefetch` messages are out and not
acknowledged, whatever waits at the broker, and a new connection receives nothing before all of the last one's were
taken. Which queue, exchange and binding: `desired.sources.amqp_queue`. Used by `desired.sources.amqp` alone.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from desired.network.notice import Garbage, Notice, parse
from desired.sources.amqp_queue import Declared, declare, rebind
from desired.sources.broker import Place, RefusedError, Wire, places
from reconciler.errors import ConfigError
from reconciler.logs import get_logger
from reconciler.settings_sections import AmqpSettings

log = get_logger("amqp")

BATCH = 50
"""Messages handed over at once: the mirror takes them in a few milliseconds."""

AHEAD = 2 * BATCH
"""Messages decoded and not taken yet at most: more would only compete with the loop that is to take them."""

RECHECK = 30.0
"""Seconds after which the exchanges and bindings are looked at again: nobody tells when an exchange is deleted."""

RETRY_FIRST = 1.0
_TICK = 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages in the order in which they came: what they say, and how many were garbage of which kind.

    `session` and `tag` are for the acknowledgement; tags count the messages of a session from 1.
    """

    notices: tuple[Notice, ...]
    size: int
    session: int
    tag: int
    garbage: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """How the connection is. `problem` is empty when all is well; `gap` says why something may have been missed."""

    ready: bool
    problem: str = ""
    gap: str = ""


@dataclass(frozen=True, slots=True)
class Handlers:
    """Called in the thread; none of them may block. `wall` gives seconds since 1970, `chance` a number in [0, 1)."""

    hand_over: Callable[[Batch], None]
    report: Callable[[State], None]
    wall: Callable[[], float]
    chance: Callable[[], float]


class Link:
    """The thread and its two inputs from the event loop: `ack` and `taken`."""

    def __init__(self, settings: AmqpSettings, name: str, handlers: Handlers) -> None:
        self._settings, self._name, self._handlers = settings, name, handlers
        self._stopping = threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._session = 0
        self._handed = self._taken = 0
        self._acked: tuple[int, int] = (0, 0)
        self._messages: list[Any] = []
        self._failures = 0
        self._queue_known = False
        self._garbage_logged: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="amqp", daemon=True)

    # -- the loop's side ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def taken(self, batch: Batch) -> None:
        """Somebody has the batch now: it no longer waits in memory."""
        self._taken += batch.size
        self._poke()

    def ack(self, batch: Batch) -> None:
        """Acknowledge this batch and all before it. Of a connection that is gone: nothing, the broker sends again."""
        self._acked = max(self._acked, (batch.session, batch.tag))
        self._poke()

    def stop(self, within: float) -> bool:
        """End the thread; blocks. False when it hangs in the library and is left behind."""
        self._stopping.set()
        self._poke()
        if self._thread.ident is not None:
            self._thread.join(within)
        if self._thread.is_alive():
            return False
        self._wake.close()
        self._woken.close()
        return True

    def _poke(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: it is over
            self._wake.send(b"\0", socket.MSG_DONTWAIT)

    # -- the thread's side --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        problem = "the thread that listens has ended with an error of its own; restarting the daemon starts it again"
        try:
            problem = self._listen(places(self._settings.url))
        except ConfigError as error:
            problem = str(error)
        finally:
            self._handlers.report(State(ready=False, problem=problem))

    def _listen(self, brokers: Sequence[Place]) -> str:
        """Until it is stopped."""
        while not self._stopping.is_set():
            place = brokers[self._failures % len(brokers)]
            problem = self._hold(place)
            if self._stopping.is_set():
                break
            self._failures += 1
            delay = self._delay()
            log.warning("amqp_lost", problem=problem, seconds=round(delay, 1))
            self._handlers.report(State(ready=False, problem=f"{problem}; tried again in {delay:.0f} s"))
            self._stopping.wait(delay)
        return "stopped"

    def _delay(self) -> float:
        """Doubling, and never the same for two nodes: they all lose the broker at the same moment."""
        longest = min(self._settings.retry_max, RETRY_FIRST * 2.0 ** min(self._failures - 1, 16))
        return longest * (0.25 + 0.75 * self._handlers.chance())

    def _hold(self, place: Place) -> str:
        """Connect and stay connected. Returns why it is over."""
        wire: Wire | None = None
        try:
            wire = Wire(place, self._settings, self._name)
            self._wait_until_taken()
            self._receive(wire)
        except RefusedError as error:
            return str(error)
        finally:
            self._messages.clear()
            if wire is not None:
                wire.close()
        return "stopped"

    def _wait_until_taken(self) -> None:
        while self._handed > self._taken and not self._stopping.is_set():
            self._stopping.wait(0.05)

    def _receive(self, wire: Wire) -> None:
        declared = declare(wire, self._settings, self._messages.append, known=self._queue_known)
        self._queue_known = not declared.problem
        self._session += 1
        self._tell(declared)
        checked = self._handlers.wall()
        while not self._stopping.is_set():
            wire.beat()
            self._send_acks(wire)
            reading = self._handed - self._taken < AHEAD
            full = reading and self._read(wire)
            if self._messages:
                self._failures = 0
                self._hand_over()
            if not full:
                self._sleep([self._woken, wire.sock] if reading else [self._woken])
            if not 0 <= self._handlers.wall() - checked < RECHECK:
                checked, before = self._handlers.wall(), declared
                declared = rebind(wire, self._settings, before)
                if declared.problem != before.problem or declared.gap:
                    self._tell(declared)
        self._send_acks(wire)

    def _tell(self, declared: Declared) -> None:
        if not declared.problem:
            log.info("amqp_ready", queue=self._settings.queue, exchanges=declared.exchanges)
        self._handlers.report(State(ready=not declared.problem, problem=declared.problem, gap=declared.gap))

    def _read(self, wire: Wire) -> bool:
        """Read what is there, up to a batch. True when there may be more."""
        while len(self._messages) < BATCH:
            if not wire.pending():
                return False
            wire.read()
        return True

    def _sleep(self, until: Sequence[Any]) -> None:
        """Until something is to be read, was taken or is to be acknowledged, or a heartbeat may be due."""
        readable, _, _ = select.select(until, [], [], min(_TICK, self._settings.heartbeat / 4))
        if self._woken in readable:
            self._woken.recv(4096)

    def _hand_over(self) -> None:
        messages, heard = list(self._messages), self._handlers.wall()
        self._messages.clear()
        notices: list[Notice] = []
        garbage: Counter[str] = Counter()
        for message in messages:
            try:
                notices.append(parse(message.body, heard))
            except Garbage as error:
                garbage[error.what] += 1
                self._log_once(error.what, message)
        self._handed += len(messages)
        tag = messages[-1].delivery_info["delivery_tag"]
        self._handlers.hand_over(Batch(tuple(notices), len(messages), self._session, tag, garbage))

    def _log_once(self, what: str, message: Any) -> None:
        if what not in self._garbage_logged:
            self._garbage_logged.add(what)
            begin = repr(message.body[:80])
            log.warning("amqp_garbage", what=what, begin=begin, exchange=message.delivery_info.get("exchange"))

    def _send_acks(self, wire: Wire) -> None:
        session, tag = self._acked
        if session == self._session and tag:
            self._acked = (session, 0)
            with wire.asking("to take an acknowledgement"):
                wire.channel.basic_ack(tag, multiple=True)
