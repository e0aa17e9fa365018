"""OpenStack's notifications as batches of notices: the event loop's side of the connection to RabbitMQ.

At most once is all that the publishers promise, so whenever something may have been missed `on_gap` says so, and
somebody reads the model whole. A batch is acknowledged when the mirror has taken it and the store has it
(`desired.sources.following`). Made by the composition root; the mirror is `desired.network.mirror`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from desired.network.openstack import SOURCE
from desired.sources.amqp_link import BATCH, Batch, Handlers, Link, State
from reconciler.clock import Clock
from reconciler.settings_sections import AmqpSettings

__all__ = ["AmqpSource", "Batch"]

STOP_SECONDS = 5.0

T = TypeVar("T")


class AmqpSource:
    """One broker's notifications for one node.

    To show: `ready`, `problem` (words, empty when all is well), `last_event` (of `clock.now`, 0.0 for never),
    `lost_count` (how often the stream broke off), `received` (messages), `acknowledged` (of this connection's),
    `garbage` (messages by what was wrong).
    """

    name = SOURCE

    def __init__(self, settings: AmqpSettings, node: str, *, clock: Clock, on_gap: Callable[[str], None]) -> None:
        self._settings, self._node, self._clock, self._on_gap = settings, node, clock, on_gap
        self._arrived: asyncio.Queue[Batch] = asyncio.Queue()
        self._link: Link | None = None
        self._full = False
        self.ready = False
        self.problem = "not connected yet"
        self.last_event = 0.0
        self.lost_count = 0
        self.received = 0
        self.acknowledged = 0
        self.garbage: Counter[str] = Counter()

    @property
    def flooded(self) -> bool:
        """More than was taken last is about to come: it was a full batch, or others wait behind it."""
        return self._full or not self._arrived.empty()

    @property
    def waiting(self) -> int:
        """How many batches arrived and were not taken; `prefetch` bounds their messages."""
        return self._arrived.qsize()

    async def watch(self) -> AsyncGenerator[Batch, None]:
        """Connect, and yield what comes, for ever. Close the iterator (`contextlib.aclosing`) to disconnect."""
        loop = asyncio.get_running_loop()
        handlers = Handlers(
            hand_over=lambda batch: _in_loop(loop, self._arrived.put_nowait, batch),
            report=lambda state: _in_loop(loop, self._report, state),
            wall=self._clock.wall,
            chance=self._clock.chance,
        )
        link = self._link = Link(self._settings, f"reconciler {self._node}", handlers)
        link.start()
        try:
            while True:
                batch = await self._arrived.get()
                link.taken(batch)
                self.last_event = self._clock.now()
                self.received += batch.size
                self.garbage.update(batch.garbage)
                self._full = batch.size >= BATCH
                yield batch
        finally:
            self._link = None
            self.ready, self.problem = False, "stopped"
            await asyncio.to_thread(link.stop, STOP_SECONDS)

    def ack(self, batch: Batch) -> None:
        """This batch and all before it need not be sent again."""
        if self._link is not None:
            self._link.ack(batch)
            self.acknowledged = batch.tag

    def _report(self, state: State) -> None:
        if self._link is None:
            return
        if self.ready and not state.ready:
            self.lost_count += 1
        self.ready, self.problem = state.ready, state.problem
        if state.gap:
            self._on_gap(state.gap)


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[T], object], value: T) -> None:
    """From the thread into the loop; when that has ended meanwhile, there is nobody to tell."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, value)
