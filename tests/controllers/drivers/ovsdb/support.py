"""What the tests of the OVSDB driver share: a followed database that remembers what it was told, and patience."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from controllers.drivers.ovsdb.client import Ovsdb
from tests.controllers.drivers.patience import running, until

Event = tuple[frozenset[str] | None, str]


class Followed:
    """An `Ovsdb` with all the events it reported, in order."""

    def __init__(self, remote: str, **options: float) -> None:
        self.events: list[Event] = []
        self.ovsdb = Ovsdb(remote, on_change=lambda names, why: self.events.append((names, why)), **options)

    def named(self) -> set[str]:
        """All names in events so far."""
        return {name for names, _ in self.events for name in names or ()}

    async def sees(self, *names: str) -> None:
        """Wait until events have named all of these; then forget all events."""
        await until(lambda: set(names) <= self.named(), what=f"{set(names) - self.named()} was not reported")
        self.events.clear()

    async def settled(self, seconds: float = 0.05) -> None:
        """Wait until nothing was reported for so long; then forget all events."""
        count = -1
        while count != len(self.events):
            count = len(self.events)
            await asyncio.sleep(seconds)
        self.events.clear()


@contextlib.asynccontextmanager
async def following(remote: str, **options: float) -> AsyncIterator[Followed]:
    """Follow the database at `remote` within this block; it is ready, and the first event is forgotten."""
    followed = Followed(remote, **options)
    async with running(followed.ovsdb):
        await until(lambda: followed.ovsdb.ready, what="not ready")
        followed.events.clear()
        yield followed
