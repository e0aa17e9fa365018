"""From the broker into mirror and store: acknowledged when it is kept, kept when everything else is gone."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from desired.network.mirror import Changed, Mirror
from desired.network.openstack import NOTIFIED, Kind
from desired.resource import ResourceId
from desired.sources.amqp import AmqpSource
from desired.sources.following import Following
from desired.sql import SqlStore
from desired.store import Store
from reconciler.clock import SystemClock
from reconciler.settings_sections import AmqpSettings
from reconciler.writer import Pace, StoreWriter
from tests.desired.network.neutron import message, network, uid
from tests.desired.sources.broker import publish, queued, told, until

QUICK = Pace(gather=0.01, retry_first=0.02, retry_most=0.1)


class Node:
    """What a daemon has between the broker and the compiler."""

    def __init__(self, settings: AmqpSettings | None, factory: Callable[[], Store]) -> None:
        clock = SystemClock()
        self.changes: list[Changed] = []
        self.asked: list[str] = []
        self.source = settings and AmqpSource(settings, "node-1", clock=clock, on_gap=self.asked.append)
        self.writer = StoreWriter(factory, wall=clock.wall, pace=QUICK)
        self.following = Following(self.source, Mirror(), self.writer, self.changes.append, self.asked.append)

    @property
    def names(self) -> set[str]:
        """What the networks are called."""
        return {resource.spec.display for resource in self.following.mirror.resources.values()}  # type: ignore[attr-defined]

    @property
    def acknowledged(self) -> int:
        return 0 if self.source is None else self.source.acknowledged

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.writer.start()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.following.run())
            source = self.source
            assert source is not None
            await until(lambda: source.ready)
            yield
            task.cancel()
        await self.writer.close(10.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def store_of(path: Path) -> Callable[[], Store]:
    return lambda: SqlStore(f"sqlite:///{path}", "node-1")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


async def test_what_was_heard_is_there_when_broker_and_api_are_gone(settings: AmqpSettings, path: Path) -> None:
    node = Node(settings, store_of(path))
    async with node.running():
        await asyncio.to_thread(publish, settings.url, told("one"), told("two", number=2))
        await until(lambda: node.names == {"one", "two"} and node.acknowledged >= 2)
        await node.following.read(
            1e10, {kind: [network(2, name="read")] if kind is Kind.NETWORK else [] for kind in NOTIFIED}
        )
        assert node.names == {"read"}
    assert queued(settings.url) == 0
    alone = Node(None, store_of(path))
    alone.writer.start()
    assert await alone.following.recall() == ""
    assert set(alone.following.mirror.resources) == {ResourceId("network", uid(2))}
    assert alone.following.mirror.problem == ""
    assert [changed.resources for changed in alone.changes] == [{ResourceId("network", uid(2))}]
    await alone.writer.close(10.0)


async def test_nothing_is_acknowledged_before_the_store_has_it(
    settings: AmqpSettings, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("desired.sources.following.STORE_SECONDS", 0.1)
    opened = threading.Event()

    def slow() -> Store:
        opened.wait(60.0)
        return store_of(path)()

    node = Node(settings, slow)
    async with node.running():
        await asyncio.to_thread(publish, settings.url, told("one"))
        await until(lambda: node.names == {"one"})
        await asyncio.sleep(0.5)
        assert node.acknowledged == 0
        opened.set()
        await until(lambda: node.acknowledged == 1)
    assert queued(settings.url) == 0
    with contextlib.closing(SqlStore(f"sqlite:///{path}", "node-1")) as store:
        assert [row.name for row in store.mirror("openstack")] == [uid(1)]


async def test_a_store_that_is_away_holds_nothing_up_and_gets_all_of_it_later(
    settings: AmqpSettings, path: Path
) -> None:
    with contextlib.closing(SqlStore(f"sqlite:///{path}", "node-1")) as store:
        store.open()
    node = Node(settings, store_of(path))
    async with node.running():
        with locked(path):
            await asyncio.to_thread(publish, settings.url, told("one"))
            await until(lambda: node.names == {"one"} and "locked" in node.writer.problem)
            await until(lambda: node.acknowledged == 1)
    with contextlib.closing(SqlStore(f"sqlite:///{path}", "node-1")) as store:
        assert [row.name for row in store.mirror("openstack")] == [uid(1)]


async def test_a_read_that_changes_no_object_still_says_that_the_source_is_in_sync(path: Path) -> None:
    node = Node(None, store_of(path))
    seen = [network(1)]
    await node.following.read(1.0, {Kind.NETWORK: seen})
    assert "never read whole" in node.following.mirror.problem
    await node.following.read(9.0, {kind: seen if kind is Kind.NETWORK else [] for kind in NOTIFIED})
    assert [bool(changed.resources) for changed in node.changes] == [True, False]
    assert node.following.mirror.problem == ""
    await node.following.read(20.0, {kind: seen if kind is Kind.NETWORK else [] for kind in NOTIFIED})
    assert len(node.changes) == 2


async def test_a_store_that_cannot_tell_is_a_reason_and_no_end(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("no database at all, whatever its name says" * 100)
    node = Node(None, store_of(tmp_path / "store.db"))
    node.writer.start()
    assert "not an SQLite database" in await node.following.recall()
    await node.writer.close(10.0)


async def test_gaps_and_what_notices_lack_ask_for_a_read(
    settings: AmqpSettings, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = Node(settings, store_of(path))
    seen = {name: value for name, value in network(1).items() if not name.startswith("provider:")}
    async with node.running():
        assert node.asked == ["queue reconciler.node-1 was not there"]
        for at in (1.0, 2.0):
            body = message("network.update.end", {"network": seen}, at)
            await asyncio.to_thread(publish, settings.url, body)
        await until(lambda: node.following.mirror.counts["taken"] == 2)
    assert len(node.asked) == 2, "what says nothing new asks for nothing"
    assert "provider:network_type" in node.asked[1]
    assert capsys.readouterr().out.count("object_left_out") == 1
