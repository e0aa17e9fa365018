"""Following OpenStack: notices into the mirror, the mirror into the store, then the acknowledgement. One task of each.

The mirror is taken further at once (`on_change`), whatever the store does. A batch is acknowledged when the store has
it; while the store is known to be away (its writer's `problem` says so in `status`) without it: the broker would keep
what nobody can store, and a full read brings what a crash meanwhile would lose. Made by the composition root.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing

from desired.network.mirror import Changed, Mirror
from desired.network.openstack import Body
from desired.sources.amqp import AmqpSource, Batch
from desired.store import StoreError
from reconciler.logs import get_logger
from reconciler.writer import StoreWriter

log = get_logger("openstack")

STORE_SECONDS = 5.0
"""How long one wait for the store lasts before its problem is looked at."""

_FREEZE = 2000
"""Notices after which their objects are left out of garbage collections; a full one over 20,000 ports takes 60 ms."""


class Following:
    """Keeps `mirror` true. `on_change` hears of every change; `want_read` is told why the API should be read now."""

    def __init__(
        self,
        source: AmqpSource | None,
        mirror: Mirror,
        writer: StoreWriter,
        on_change: Callable[[Changed], None],
        want_read: Callable[[str], None],
    ) -> None:
        self._source, self._writer = source, writer
        self.mirror = mirror
        self._on_change, self._want_read = on_change, want_read
        self._stored: asyncio.Queue[Batch] = asyncio.Queue()
        self._young = 0

    async def recall(self, within: float = 10.0) -> str:
        """Start from what the store remembers. Returns why that is not known; empty when it is."""
        try:
            rows = await self._writer.load_mirror(self.mirror.source, within)
        except StoreError as error:
            return str(error)
        except TimeoutError:
            return f"the store has not told the mirror within {within:.0f} s"
        self._tell(self.mirror.restore(rows))
        return ""

    async def run(self) -> None:
        """Follow the notifications until cancelled."""
        assert self._source is not None
        async with asyncio.TaskGroup() as group, aclosing(self._source.watch()) as batches:
            settling = group.create_task(self._settle(self._source), name="notifications stored")
            async for batch in batches:
                self._keep(self.mirror.take(batch.notices))
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

    def read(self, started_at: float, objects: Mapping[str, Iterable[Body]]) -> None:
        """A complete read of the API that began then."""
        self._keep(self.mirror.full_read(started_at, objects))

    def _keep(self, changed: Changed) -> None:
        if changed:
            self._writer.mirror(self.mirror.source, changed.rows, changed.forgotten)
        self._tell(changed)

    def _tell(self, changed: Changed) -> None:
        if changed.resources:
            self._on_change(changed)
        if changed.wants_read:
            self._want_read(changed.wants_read)
        for problem in changed.problems:
            log.warning("object_left_out", problem=problem)

    async def _settle(self, source: AmqpSource) -> None:
        """Acknowledge what the store has, many batches by one write."""
        while True:
            batch = await self._stored.get()
            while not self._stored.empty():
                batch = self._stored.get_nowait()
            while not await self._writer.flush(STORE_SECONDS) and not self._writer.problem:
                await asyncio.sleep(0)
            source.ack(batch)
