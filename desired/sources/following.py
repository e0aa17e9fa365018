"""Following OpenStack: notices into the mirror, the mirror into the store, then the acknowledgement. One task of each.

The mirror is taken further at once (`on_change`), whatever the store does. A batch is acknowledged when the store has
it; while the store is known to be away (its writer's `problem` says so in `status`) without it: the broker would keep
what nobody can store, and a full read brings what a crash meanwhile would lose. Made by the composition root.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

from desired.network.mirror import PIECE, Changed, Mirror
from desired.network.openstack import Body
from desired.sources.amqp import AmqpSource, Batch
from desired.store import StoreError
from reconciler.logs import get_logger
from reconciler.writer import StoreWriter

log = get_logger("openstack")

STORE_SECONDS = 5.0
"""How long one wait for the store lasts before its problem is looked at."""

_FREEZE = 2000
"""Notices or listed objects, after which what they left is kept out of garbage collections (60 ms for 20,000)."""


class Following:
    """Keeps `mirror` true. `want_read` is told why the API should be read now.

    `on_change` hears of every change of the objects, and of `mirror.problem`: whether they may be deleted. `on_taken`
    hears of every batch of notifications, after what it changed.
    """

    def __init__(
        self,
        source: AmqpSource | None,
        mirror: Mirror,
        writer: StoreWriter,
        on_change: Callable[[Changed], None],
        want_read: Callable[[str], None],
    ) -> None:
        self.on_taken: Callable[[Batch], None] = lambda _batch: None
        self._source, self._writer = source, writer
        self.mirror = mirror
        self._on_change, self._want_read = on_change, want_read
        self._stored: asyncio.Queue[Batch] = asyncio.Queue()
        self._young = 0
        self._problem = mirror.problem

    async def recall(self, within: float = 10.0) -> str:
        """Start from what the store remembers. Returns why that is not known; empty when it is."""
        try:
            rows = await self._writer.load_mirror(self.mirror.source, within)
        except StoreError as error:
            return str(error)
        except TimeoutError:
            return f"the store has not told the mirror within {within:.0f} s"
        pieces = []
        for piece in self.mirror.restoring(rows):
            pieces.append(piece)
            self._settle_memory(PIECE)
            await asyncio.sleep(0)
        self._tell(Changed.together(pieces))
        return ""

    async def run(self) -> None:
        """Follow the notifications until cancelled."""
        assert self._source is not None
        async with asyncio.TaskGroup() as group, aclosing(self._source.watch()) as batches:
            settling = group.create_task(self._settle(self._source), name="notifications stored")
            async for batch in batches:
                self._keep(self.mirror.take(batch.notices))
                self.on_taken(batch)
                self._stored.put_nowait(batch)
                self._settle_memory(batch.size)
                await asyncio.sleep(0)  # others first: a flood is many batches
            settling.cancel()

    def _settle_memory(self, taken: int) -> None:
        """What a flood brought lives long. Looking through all of it again and again would stall the loop."""
        self._young += taken
        if self._young >= _FREEZE:
            self._young = 0
            gc.collect(0)
            gc.freeze()

    async def read(self, started_at: float, objects: Mapping[str, Sequence[Body]]) -> None:
        """A complete read of the API that began then. In pieces: others go on, and hear of it when all is there."""
        reading = self.mirror.reading(started_at)
        pieces = []
        for kind, bodies in objects.items():
            reading.add(kind, ())
            for first in range(0, len(bodies), PIECE):
                reading.add(kind, bodies[first : first + PIECE])
                pieces.append(self._store(reading.settle()))
                self._settle_memory(PIECE)
                await asyncio.sleep(0)
        reading.complete()
        pieces.append(self._store(reading.settle()))
        self._tell(Changed.together(pieces))

    def _keep(self, changed: Changed) -> None:
        self._tell(self._store(changed))

    def _store(self, changed: Changed) -> Changed:
        if changed:
            self._writer.mirror(self.mirror.source, changed.rows, changed.forgotten)
        for problem in changed.problems:
            log.warning("object_left_out", problem=problem)
        return changed

    def _tell(self, changed: Changed) -> None:
        problem, self._problem = self._problem, self.mirror.problem
        if changed.resources or problem != self._problem:
            self._on_change(changed)
        if changed.wants_read:
            self._want_read(changed.wants_read)

    async def _settle(self, source: AmqpSource) -> None:
        """Acknowledge what the store has, many batches by one write."""
        while True:
            batch = await self._stored.get()
            while not self._stored.empty():
                batch = self._stored.get_nowait()
            while not await self._writer.flush(STORE_SECONDS) and not self._writer.problem:
                await asyncio.sleep(0)
            source.ack(batch)
