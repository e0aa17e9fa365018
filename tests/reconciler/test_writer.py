"""The write-behind: the loop never waits for the store, and what the store missed it gets when it is back."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from desired.kinds.ovs import BridgeSpec
from desired.resource import Origin, Resource, ResourceId
from desired.sql import SqlStore
from desired.store import (
    HistoryQuery,
    MirrorRow,
    PauseRow,
    ResourceRow,
    Retention,
    RevisionRow,
    StatusRow,
    Store,
    StoreError,
)
from reconciler.backlog import RECENT_LINES, JournalQueue
from reconciler.contract import ActionRecord, Finding, Outcome, PassRecord, ResourceStatus, Scope, Verb
from reconciler.writer import Pace, Remembered, StoreWriter, journal_row
from tests.postgres import PostgresServer

QUICK = Pace(gather=0.01, retry_first=0.02, retry_most=0.1)
SOON = 10.0
FLOW = ResourceId("flow", "br-tun/table=0")

Make = Callable[..., StoreWriter]


def passed(pass_id: int, *resources: ResourceId, at: float | None = None) -> PassRecord:
    actions = tuple(ActionRecord(each, Verb.CREATE, "missing", "", "x", "done") for each in resources)
    finding = Finding(ResourceId("port", "p"), Outcome.PENDING, "waits", (ResourceId("bridge", "b"), Scope("ovsdb")))
    at = float(pass_id) if at is None else at
    return PassRecord(pass_id, at, Scope("flow", "b"), "event", "r", Outcome.CONVERGED, 0.1, 0.2, actions, (finding,))


def bridge(name: str) -> Resource:
    return Resource(ResourceId("bridge", name), BridgeSpec(), Origin("files", "a.yaml", 1, 2), 1)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds the database for itself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def stored(path: Path) -> Iterator[SqlStore]:
    """The same database, as another process sees it."""
    store = SqlStore(f"sqlite:///{path}", "n")
    yield store
    store.close()


@pytest.fixture
async def make(path: Path) -> AsyncIterator[Make]:
    made: list[StoreWriter] = []

    def build(factory: Callable[[], Store] | None = None, pace: Pace = QUICK, **options: object) -> StoreWriter:
        options.setdefault("wall", time.time)
        writer = StoreWriter(factory or (lambda: SqlStore(f"sqlite:///{path}", "n")), pace=pace, **options)  # type: ignore[arg-type]
        made.append(writer)
        return writer

    yield build
    for writer in made:
        await writer.close(SOON)


async def test_everything_that_is_handed_over_is_written(make: Make, stored: SqlStore) -> None:
    writer = make()
    writer.record(passed(1, FLOW))
    writer.start()
    assert await writer.opened(SOON)
    writer.record(passed(2))
    writer.revision(RevisionRow("r", 5.0), {ResourceId("bridge", "b"): bridge("b")}.values())
    writer.applied("r", 6.0)
    writer.applied("r", 9.0)
    writer.statuses([ResourceStatus(FLOW, Outcome.PENDING, "old", 1.0)])
    writer.statuses([ResourceStatus(FLOW, Outcome.FAILED, "refused", 1.0, gate="backoff", retry_at=3.0)])
    writer.pause(PauseRow("node", "work", 1.0))
    writer.pause(PauseRow("flow", "work", 1.0))
    writer.unpause("node")
    writer.approval("r", 7.0, "eva")
    assert await writer.flush(SOON)
    assert (writer.written, writer.queued, writer.dropped, writer.problem, writer.available) == (2, 0, 0, "", True)
    assert stored.history(HistoryQuery()) == [journal_row(passed(2)), journal_row(passed(1, FLOW))]
    assert stored.statuses() == [StatusRow(str(FLOW), "failed", "refused", 1.0, "backoff")]
    assert stored.pauses() == [PauseRow("flow", "work", 1.0)]
    assert stored.approvals() == ["r"]
    last = stored.last_revision()
    assert last is not None
    assert (last[0].applied, [row.name for row in last[1]]) == (6.0, ["b"])


async def test_who_waits_for_the_store_and_is_cancelled_when_it_answers_is_cancelled(make: Make) -> None:
    writer = make()
    writer.start()
    await writer.opened(SOON)
    writer.mirror("openstack", [MirrorRow("port", "a", {"id": "a"}, 1.0)], [])
    waiting = asyncio.create_task(writer.flush(SOON))
    await asyncio.sleep(0)
    time.sleep(0.5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_is_recorded_is_written_without_being_asked_to(make: Make, stored: SqlStore) -> None:
    writer = make(pace=Pace())
    writer.start()
    await writer.opened(SOON)
    begun = time.monotonic()
    writer.record(passed(1))
    await until(lambda: writer.written == 1)
    assert time.monotonic() - begun < 2.0
    assert stored.last_pass_id() == 1


async def test_a_start_finds_what_the_last_run_remembered(make: Make) -> None:
    first = make()
    first.start()
    first.pause(PauseRow("flow", "work", 1.0))
    first.approval("r", 7.0, "eva")
    first.revision(RevisionRow("r", 5.0, resources=1), [bridge("b")])
    first.record(passed(41))
    assert await first.close(SOON)
    second = make()
    second.start()
    known = await second.load()
    assert known.pauses == [PauseRow("flow", "work", 1.0)]
    assert known.approvals == ["r"]
    assert known.last_pass_id == 41
    assert known.revision is not None
    assert known.revision[0] == RevisionRow("r", 5.0, resources=1)
    assert await make(lambda: SqlStore("sqlite://", "n")).close(0) is True
    with pytest.raises(StoreError, match="it is closed"):
        await first.load()


async def test_a_mirror_is_kept_behind_and_loaded_again(make: Make, stored: SqlStore) -> None:
    writer = make()
    first = [MirrorRow("port", name, {"id": name}, 1.0) for name in ("a", "b", "c")]
    writer.mirror("openstack", first, [])
    writer.mirror("openstack", [MirrorRow("port", "a", None, 2.0)], [("port", "b")])
    writer.start()
    assert await writer.flush(10)
    kept = {row.name: row.body for row in stored.mirror("openstack")}
    assert kept == {"a": None, "c": {"id": "c"}}
    assert {row.name for row in await writer.load_mirror("openstack")} == {"a", "c"}
    assert await writer.load_mirror("elsewhere") == []


async def test_a_mirror_waits_for_a_locked_store_and_newer_words_replace_older(
    make: Make, path: Path, stored: SqlStore
) -> None:
    writer = make()
    writer.start()
    assert await writer.flush(10)
    with locked(path):
        for number in range(50):
            writer.mirror("openstack", [MirrorRow("port", "a", {"number": number}, float(number))], [])
        assert not await writer.flush(10)
        assert "locked" in writer.problem
    await until(lambda: writer.available)
    assert await writer.flush(10)
    assert [row.body for row in stored.mirror("openstack")] == [{"number": 49}]


async def test_an_empty_store_remembers_nothing(make: Make) -> None:
    writer = make()
    writer.start()
    assert await writer.load() == Remembered([], [], None, 0)


async def test_a_locked_store_makes_nobody_wait_and_gets_everything_afterwards(
    make: Make, path: Path, stored: SqlStore
) -> None:
    changes: list[str] = []
    writer = make(on_change=lambda: changes.append(writer.problem))
    writer.start()
    await writer.flush(SOON)
    with locked(path):
        costs = []
        for number in range(1, 1001):
            begun = time.perf_counter()
            writer.record(passed(number, FLOW))
            costs.append(time.perf_counter() - begun)
        writer.pause(PauseRow("node", "work", 1.0))
        writer.approval("r", 7.0, "eva")
        assert sorted(costs)[500] < 0.001
        await until(lambda: "locked by another process" in writer.problem)
        assert not writer.available
        assert not await writer.flush(SOON)
        assert [row.pass_id for row in await writer.history(HistoryQuery(limit=2))] == [1000, 999]
    await until(lambda: writer.written == 1000)
    await until(lambda: writer.available)
    assert writer.problem == ""
    assert stored.last_pass_id() == 1000
    assert len(stored.history(HistoryQuery(limit=2000))) == 1000
    assert [row.what for row in stored.pauses()] == ["node"]
    assert stored.approvals() == ["r"]
    assert changes[0] == ""
    assert "locked" in changes[1]
    assert changes[-1] == ""


async def test_a_store_locked_from_the_start_is_opened_later(make: Make, path: Path) -> None:
    with locked(path):
        writer = make()
        writer.start()
        assert not await writer.opened(SOON)
        with pytest.raises(StoreError, match="locked by another process"):
            await writer.load()
        writer.record(passed(1))
    await until(lambda: writer.available)
    assert (await writer.load()).last_pass_id == 1


async def test_a_damaged_store_is_named_and_kept_and_one_in_its_place_gets_all(
    make: Make, path: Path, stored: SqlStore
) -> None:
    path.write_bytes(b"no database\n" * 1000)
    writer = make()
    writer.start()
    assert not await writer.opened(SOON)
    assert "is not an SQLite database; it is left as it is" in writer.problem
    writer.record(passed(1, FLOW))
    assert await writer.history(HistoryQuery(str(FLOW)))
    assert path.read_bytes() == b"no database\n" * 1000
    path.unlink()
    await until(lambda: writer.written == 1)
    assert stored.last_pass_id() == 1


async def test_a_newer_schema_is_named_and_left_alone(make: Make, path: Path, stored: SqlStore) -> None:
    stored.open()
    with closing(sqlite3.connect(path)) as other:
        other.execute("update alembic_version set version_num='0999'")
        other.commit()
    writer = make()
    writer.start()
    writer.record(passed(1))
    assert not await writer.opened(SOON)
    assert "a newer version made it" in writer.problem
    assert not await writer.close(SOON)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("select count(*) from journal").fetchone() == (0,)


async def test_a_url_that_cannot_be_read_is_a_problem_and_no_end(make: Make) -> None:
    writer = make(lambda: SqlStore("no url", "n"))
    writer.start()
    assert not await writer.opened(SOON)
    assert "the store's URL cannot be read" in writer.problem


async def test_an_error_that_is_no_store_error_ends_the_thread_visibly_and_nothing_else(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def broken() -> Store:
        raise ZeroDivisionError("a mistake of ours")

    writer = make(broken)
    writer.start()
    assert not await writer.opened(SOON)
    assert "its thread ended with an error" in writer.problem
    writer.record(passed(1))
    assert [row.pass_id for row in await writer.history(HistoryQuery())] == [1]
    assert not await writer.flush(SOON)
    assert not await writer.close(SOON)
    await until(lambda: bool(told))
    assert told[0].exc_type is ZeroDivisionError


async def test_a_server_that_is_killed_and_comes_back_gets_what_it_missed(make: Make) -> None:
    server = await asyncio.to_thread(PostgresServer)
    try:
        url = server.url(server.create_database())
        writer = make(lambda: SqlStore(url, "n"))
        writer.start()
        writer.record(passed(1))
        assert await writer.flush(SOON)
        await asyncio.to_thread(server.kill)
        writer.record(passed(2))
        writer.pause(PauseRow("node", "work", 1.0))
        await until(lambda: "no connection to the server" in writer.problem)
        assert [row.pass_id for row in await writer.history(HistoryQuery())] == [2, 1]
        await asyncio.to_thread(server.start)
        await until(lambda: writer.written == 2)
        assert [row.pass_id for row in await writer.history(HistoryQuery())] == [2, 1]
        assert [row.what for row in (await writer.load()).pauses] == ["node"]
        assert await writer.close(SOON)
    finally:
        await asyncio.to_thread(server.close)


async def test_the_memory_answers_as_the_store_would(make: Make) -> None:
    entries = [passed(1, FLOW), passed(2), passed(3, FLOW, FLOW)]
    queries = [
        HistoryQuery(),
        HistoryQuery(limit=1),
        HistoryQuery(str(FLOW)),
        HistoryQuery("port/p", since=2.0),
        HistoryQuery("port/none"),
        HistoryQuery(outcomes=("failed",)),
        HistoryQuery(outcomes=("converged",), limit=2),
    ]
    with_store, without = make(), make(lambda: SqlStore("no url", "n"))
    for writer in (with_store, without):
        writer.start()
        for entry in entries:
            writer.record(entry)
    assert await with_store.flush(SOON)
    for query in queries:
        assert list(await with_store.history(query)) == list(await without.history(query))


async def test_what_cannot_be_written_is_in_the_history_beside_what_was(make: Make, path: Path) -> None:
    writer = make()
    writer.start()
    writer.record(passed(1))
    assert await writer.flush(SOON)
    with locked(path):
        writer.record(passed(2))
        await until(lambda: writer.problem != "")
        assert [row.pass_id for row in await writer.history(HistoryQuery())] == [2, 1]
        assert [row.pass_id for row in await writer.history(HistoryQuery(limit=1))] == [2]


async def test_the_queue_is_bounded_and_drops_the_oldest(make: Make, path: Path, stored: SqlStore) -> None:
    stored.open()
    writer = make(pace=Pace(gather=0.01, retry_first=0.02, retry_most=0.1, queue=20))
    with locked(path):
        writer.start()
        await writer.opened(SOON)
        for number in range(1, 101):
            writer.record(passed(number))
        assert (writer.dropped, writer.queued) == (90, 10)
    await until(lambda: writer.written == 10)
    assert [row.pass_id for row in stored.history(HistoryQuery())] == list(range(100, 90, -1))


async def test_closing_writes_what_waits_and_gives_up_on_a_store_that_hangs(make: Make, stored: SqlStore) -> None:
    writer = make(pace=Pace(gather=60.0))
    writer.start()
    for number in range(1, 3001):
        writer.record(passed(number))
    assert await writer.close(SOON)
    assert stored.last_pass_id() == 3000
    release = threading.Event()

    def hang() -> Store:
        release.wait(SOON)
        raise StoreError("hung")

    hanging = make(hang)
    hanging.start()
    begun = time.monotonic()
    assert not await hanging.opened(0.05)
    assert await hanging.history(HistoryQuery(), within=0.05) == []
    assert not await hanging.flush(0.05)
    with pytest.raises(TimeoutError):
        await hanging.load(0.05)
    hanging.record(passed(1))
    assert not await hanging.close(0.05)
    assert time.monotonic() - begun < 2.0
    release.set()


async def test_what_is_too_old_is_deleted_now_and_then(make: Make, stored: SqlStore) -> None:
    now = 1000.0
    pace = Pace(gather=0.01, trim_first=60.0, trim_every=3600.0)
    writer = make(wall=lambda: now, pace=pace, retention=Retention(journal_seconds=100.0))
    writer.start()
    for number in range(1, 11):
        writer.record(passed(number, at=now - 10))
    assert await writer.flush(SOON)
    now = 1200.0
    assert await writer.flush(SOON)
    assert [row.pass_id for row in stored.history(HistoryQuery())] == [10]


async def test_statuses_that_stay_the_same_are_not_written_again(make: Make, stored: SqlStore) -> None:
    writer = make()
    writer.start()
    writer.statuses([ResourceStatus(FLOW, Outcome.PENDING, "waits", 1.0)])
    await writer.flush(SOON)
    stored.save_statuses([])
    writer.statuses([ResourceStatus(FLOW, Outcome.PENDING, "waits", 1.0)])
    await writer.flush(SOON)
    assert stored.statuses() == []
    writer.statuses([ResourceStatus(FLOW, Outcome.PENDING, "waits longer", 1.0)])
    await writer.flush(SOON)
    assert len(stored.statuses()) == 1


async def test_revisions_between_are_forgotten_when_too_many_wait(make: Make, stored: SqlStore) -> None:
    writer = make()
    for number in range(20):
        writer.revision(RevisionRow(f"r{number}", float(number)), [bridge("b")])
    writer.start()
    assert await writer.flush(SOON)
    assert [row.revision for row in stored.revisions()] == ["r19", "r18", "r17", "r16", "r15"]


async def test_of_passing_revisions_the_newest_is_remembered_and_what_people_wrote_stays(
    make: Make, stored: SqlStore
) -> None:
    writer = make()
    for number in range(6):
        writer.revision(RevisionRow(f"r{number}", float(number)), [bridge("b")], passing=number not in {1, 3})
    writer.start()
    assert await writer.flush(SOON)
    assert [row.revision for row in stored.revisions()] == ["r5", "r3", "r1"]


def test_a_pass_dropped_while_it_was_being_written_is_not_counted_as_lost() -> None:
    queue = JournalQueue(limit=20)
    for number in range(10):
        queue.add(passed(number))
    first, batch = queue.oldest(rows=8)
    assert (first, [entry.pass_id for entry in batch]) == (0, [0, 1, 2, 3])
    for number in range(10, 16):
        queue.add(passed(number))
    assert queue.dropped == 6
    queue.settle(first, len(batch))
    assert queue.dropped == 2
    assert [entry.pass_id for entry in queue.entries] == list(range(6, 16))
    first, batch = queue.oldest(rows=4)
    queue.settle(first, len(batch))
    assert queue.dropped == 2
    assert [entry.pass_id for entry in queue.entries] == list(range(8, 16))


def test_the_memory_is_bounded_in_passes_and_in_lines() -> None:
    queue = JournalQueue(limit=10)
    for number in range(3000):
        queue.add(passed(number))
    assert len(queue.recent) == 1000
    huge = passed(1, *[FLOW] * (2 * RECENT_LINES))
    queue.add(huge)
    assert list(queue.recent) == [huge]
    assert list(queue.entries) == [huge]


def test_neither_the_writer_nor_its_neighbours_import_sqlalchemy() -> None:
    code = "import sys, reconciler.writer, desired.store; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


async def test_states_that_change_all_the_time_rest_and_are_all_there_when_asked_for(
    make: Make, path: Path, stored: SqlStore
) -> None:
    clock = [1000.0]

    class Slow(SqlStore):
        def save_revision(self, row: RevisionRow, resources: Sequence[ResourceRow]) -> None:
            clock[0] += 1.0
            super().save_revision(row, resources)

    writer = make(lambda: Slow(f"sqlite:///{path}", "n"), wall=lambda: clock[0], pace=Pace(gather=0.01, rest_most=1e3))
    writer.start()
    assert await writer.opened(SOON)
    for number in range(3):
        writer.revision(RevisionRow(f"r{number}", float(number), resources=1), [bridge(f"b{number}")])
        writer.applied(f"r{number}", 5.0 + number)
        if number == 0:
            await until(lambda: bool(stored.revisions()))
    await asyncio.sleep(0.1)
    assert [row.revision for row in stored.revisions()] == ["r0"]
    assert await writer.flush(SOON)
    assert [(row.revision, row.applied) for row in stored.revisions()] == [("r2", 7.0), ("r1", 6.0), ("r0", 5.0)]
