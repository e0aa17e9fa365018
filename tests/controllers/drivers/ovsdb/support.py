"""What the tests of the OVSDB driver share: a followed database that remembers what it was told, and patience."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from controllers.drivers.ovsdb.client import Ovsdb

PATIENCE = 40.0

Event = tuple[frozenset[str] | None, str]


async def until(true: Callable[[], object], *, what: str = "it did not come true") -> None:
    """Wait until `true()`; fails after PATIENCE seconds."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not true():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.001)


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
    async with running(followed):
        await until(lambda: followed.ovsdb.ready, what="not ready")
        followed.events.clear()
        yield followed


@contextlib.asynccontextmanager
async def running(followed: Followed) -> AsyncIterator[None]:
    """Run it within this block."""
    task = asyncio.create_task(followed.ovsdb.run(), name="ovsdb")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
