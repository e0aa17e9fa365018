"""Write-behind: the store runs in one thread of its own, and nothing on the event loop ever waits for it.

The loop hands over what it records (microseconds, never blocking); the thread turns it into rows and writes what has
gathered, some hundred milliseconds later. When the store fails, what is waiting stays in a bounded queue, `problem`
says in words what is wrong, and the thread tries again, ever more slowly, until it is well. The node is repaired all
the same: the store remembers, it does not decide. The factory is called in the thread, so that importing the store's
library costs the loop nothing. Made by the composition root; the engine knows it as a `Sink`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from desired.resource import Resource
from desired.store import (
    HistoryQuery,
    JournalRow,
    MirrorRow,
    PauseRow,
    ResourceRow,
    Retention,
    RevisionRow,
    StatusRow,
    Store,
    StoreError,
)
from reconciler.backlog import JournalQueue, Waiting, journal_row, select
from reconciler.contract import PassRecord, ResourceStatus

_REST = 20.0
"""So many times as long as it took to write revisions, none is written."""

T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast, in seconds, and how much, in rows: a pass counts one, and one for each action and finding."""

    gather: float = 0.1
    retry_first: float = 0.5
    retry_most: float = 30.0
    trim_first: float = 60.0
    trim_every: float = 3600.0
    rest_most: float = 10.0
    queue: int = 50_000
    batch: int = 2_000


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the store knew at the start. `revision` is the current one, with its resources."""

    pauses: Sequence[PauseRow] = ()
    approvals: Sequence[str] = ()
    revision: tuple[RevisionRow, Sequence[ResourceRow]] | None = None
    last_pass_id: int = 0


class StoreWriter:
    """The loop's side and the thread's side of the store.

    `factory` makes the store, in the thread; `wall` gives wall-clock seconds. `on_change` is called *in the thread*
    when `problem` or `available` changed. Attributes to show: `problem` (words; empty when the store is well),
    `available`, `dropped` (passes lost to a full queue), `written` (passes), `recent` (the last passes, in memory).
    """

    def __init__(
        self,
        factory: Callable[[], Store],
        *,
        wall: Callable[[], float],
        retention: Retention | None = None,
        on_change: Callable[[], None] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._factory = factory
        self._wall = wall
        self._retention = retention or Retention()
        self._on_change = on_change or (lambda: None)
        self._pace = pace or Pace()
        self.problem = ""
        self.available = False
        self.written = 0
        self._journal = JournalQueue(self._pace.queue)
        self._waiting = Waiting()
        self._requests: list[_Request] = []
        self._news = threading.Condition(threading.Lock())
        self._idle = self._closing = self._ended = False
        self._store: Store | None = None
        self._delay = 0.0
        self._trim_at = 0.0
        self._revisions_at = 0.0
        self._statuses: list[StatusRow] | None = None
        self._first = _uncancellable()
        self._last = _uncancellable()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    # The loop's side: none of these blocks.

    def start(self) -> None:
        """Start the thread, which makes and opens the store. What is recorded before waits for it."""
        self._thread.start()

    @property
    def recent(self) -> deque[PassRecord]:
        """The last passes, oldest first, whether they are written or not."""
        return self._journal.recent

    @property
    def dropped(self) -> int:
        """How many passes were never written because the queue was full."""
        return self._journal.dropped

    @property
    def queued(self) -> int:
        """How many passes wait to be written."""
        return len(self._journal.entries)

    def record(self, entry: PassRecord) -> None:
        """Take one pass for the journal; the oldest waiting ones go when the queue is full."""
        with self._news:
            self._journal.add(entry)
            self._wake()

    def revision(self, row: RevisionRow, resources: Iterable[Resource], *, passing: bool = False) -> None:
        """Remember a revision as the current one. `resources` is read in the thread and must not change.

        A `passing` one, which no person has written, is left out when a newer one comes before it is written.
        """
        with self._news:
            self._waiting.add_revision(row, resources, passing=passing)
            self._wake()

    def applied(self, revision: str, at: float) -> None:
        with self._news:
            self._waiting.applied.setdefault(revision, at)
            self._wake()

    def statuses(self, rows: Sequence[ResourceStatus]) -> None:
        """All that is not right now; only the last call counts. What equals the last is not written again."""
        with self._news:
            self._waiting.statuses = rows
            self._wake()

    def pause(self, row: PauseRow) -> None:
        with self._news:
            self._waiting.pauses[row.what] = row
            self._wake()

    def unpause(self, what: str) -> None:
        with self._news:
            self._waiting.pauses[what] = None
            self._wake()

    def approval(self, revision: str, at: float, by: str) -> None:
        with self._news:
            self._waiting.approvals[revision] = (at, by)
            self._wake()

    def mirror(self, source: str, rows: Iterable[MirrorRow], forgotten: Iterable[tuple[str, str]]) -> None:
        """Remember these objects of another system, and forget those; `flush` tells when the store has them."""
        with self._news:
            self._waiting.add_mirror(source, rows, forgotten)
            self._wake()

    async def opened(self, within: float) -> bool:
        """Wait until the store was tried for the first time, `within` seconds at most. True when it is well."""
        try:
            async with asyncio.timeout(within):
                await asyncio.wrap_future(self._first)
        except TimeoutError:
            return False
        return self.available

    async def load(self, within: float = 5.0) -> Remembered:
        """What the store knows of before this start. Raises StoreError when it cannot say, TimeoutError when late."""
        return await self._ask(_load, within)

    async def load_mirror(self, source: str, within: float = 10.0) -> Sequence[MirrorRow]:
        """The objects of another system as last known. Raises StoreError when it cannot say, TimeoutError when late."""
        return await self._ask(lambda store: store.mirror(source), within)

    async def history(self, query: HistoryQuery, within: float = 5.0) -> Sequence[JournalRow]:
        """Newest first, what is not yet written included. From memory when the store does not answer in time."""
        try:
            return await self._ask(lambda store: self._history(store, query), within)
        except (StoreError, TimeoutError):
            with self._news:
                recent = list(self.recent)
            return select(recent, query)

    async def flush(self, within: float) -> bool:
        """Write all that was handed over until now. False when the store refuses or takes longer."""
        try:
            return await self._ask(lambda _store: not self.problem, within)
        except (StoreError, TimeoutError):
            return False

    async def close(self, within: float) -> bool:
        """Write what waits, once, and end the thread. False when something stayed unwritten, or the store hangs.

        A thread that hangs is left behind; it does not keep the process from ending.
        """
        if not self._thread.ident:
            return True
        with self._news:
            self._closing = True
            self._news.notify()
        try:
            async with asyncio.timeout(within):
                await asyncio.wrap_future(self._last)
        except TimeoutError:
            return False
        return not self._behind()

    async def _ask(self, ask: Callable[[Store], T], within: float) -> T:
        answer: Future[T] = Future()
        with self._news:
            if self._ended:
                raise StoreError(self.problem)
            self._requests.append(_Request(ask, answer))
            self._news.notify()
        async with asyncio.timeout(within):  # asyncio.wait_for loses a cancellation that meets the answer (until 3.12)
            return await asyncio.wrap_future(answer)

    def _wake(self) -> None:
        if self._idle:  # it gathers or writes otherwise, and looks again afterwards
            self._idle = False
            self._news.notify()

    # The thread's side.

    def _run(self) -> None:
        try:
            while True:
                closing = self._closing
                self._round()
                if closing:
                    return
                self._sleep()
        finally:
            self._end()

    def _sleep(self) -> None:
        """Until there is something to write (and a little longer, to gather), or the time for another try has come."""
        with self._news:
            if self._delay:
                self._news.wait_for(self._urgent, self._delay)
                return
            self._idle = True
            self._news.wait_for(lambda: not self._idle or self._urgent() or self._behind(), self._until_trim())
            self._idle = False
            self._news.wait_for(self._urgent, self._pace.gather)

    def _behind(self) -> bool:
        return bool(self._journal.entries or self._waiting)

    def _urgent(self) -> bool:
        return bool(self._closing or self._requests)

    def _round(self) -> None:
        """Write everything that waits, then answer what was asked: answers know what was recorded before."""
        with self._news:
            requests, self._requests = self._requests, []
        usable: Store | None = None
        try:
            store = self._store = self._store or self._factory()
            store.open()
            usable = store
            self._write(store, everything=self._closing or bool(requests))
            self._trim(store)
        except StoreError as error:
            self._failed(error)
        else:
            self._well()
        if not self._first.done():
            self._first.set_result(None)
        for request in requests:
            self._answer(request, usable)

    def _write(self, store: Store, *, everything: bool) -> None:
        """What a person ordered first, then what is declared, then what happened; `everything`: resting or not."""
        waiting = self._waiting
        for what, row in self._items(waiting.pauses):
            if row is None:
                store.delete_pause(what)
            else:
                store.save_pause(row)
            self._settle(waiting.pauses, what, row)
        for revision, approval in self._items(waiting.approvals):
            store.save_approval(revision, *approval)
            self._settle(waiting.approvals, revision, approval)
        self._write_mirror(store)
        if everything or not self._resting():
            self._write_revisions(store)
        for revision, at in self._items(waiting.applied):
            if revision in waiting.revisions:
                continue  # it rests; there is nothing yet that could be marked
            store.mark_applied(revision, at)
            self._settle(waiting.applied, revision, at)
        self._write_statuses(store)
        self._write_journal(store)

    def _resting(self) -> bool:
        """Ten thousand resources take a tenth of a second: when they change all the time, few states are written."""
        return self._revisions_at - self._pace.rest_most <= self._wall() < self._revisions_at

    def _write_revisions(self, store: Store) -> None:
        started = self._wall()
        waiting = self._items(self._waiting.revisions)
        for revision, content in waiting:
            store.save_revision(content[0], [ResourceRow.of(resource) for resource in content[1]])
            self._settle(self._waiting.revisions, revision, content)
        if waiting:
            ended = self._wall()
            self._revisions_at = ended + min(self._pace.rest_most, _REST * max(0.0, ended - started))

    def _write_statuses(self, store: Store) -> None:
        statuses = self._waiting.statuses
        if statuses is None:
            return
        rows = [StatusRow(str(row.resource), row.outcome, row.reason, row.since, row.gate) for row in statuses]
        if rows != self._statuses:
            store.save_statuses(rows)
            self._statuses = rows
        with self._news:
            if self._waiting.statuses is statuses:
                self._waiting.statuses = None

    def _write_mirror(self, store: Store) -> None:
        waiting = self._waiting.mirror
        for source in {key[0] for key, _ in self._items(waiting)}:
            items = [(key, row) for key, row in self._items(waiting) if key[0] == source]
            for start in range(0, len(items), self._pace.batch):
                batch = items[start : start + self._pace.batch]
                forgotten = [(kind, name) for (_, kind, name), row in batch if row is None]
                store.save_mirror(source, [row for _, row in batch if row is not None], forgotten)
                for key, row in batch:
                    self._settle(waiting, key, row)

    def _write_journal(self, store: Store) -> None:
        while True:
            with self._news:
                first, batch = self._journal.oldest(self._pace.batch)
            if not batch:
                return
            store.append_journal([journal_row(entry) for entry in batch])
            with self._news:
                self._journal.settle(first, len(batch))
            self.written += len(batch)

    def _trim(self, store: Store) -> None:
        now = self._wall()
        if not self._trim_at or self._trim_at > now + self._pace.trim_every:  # at the start; or the clock went back
            self._trim_at = now + self._pace.trim_first
        elif now >= self._trim_at:
            self._trim_at = now + self._pace.trim_every
            store.trim(self._retention, now)

    def _until_trim(self) -> float:
        return min(max(self._trim_at - self._wall(), 1.0), self._pace.trim_every)

    def _history(self, store: Store, query: HistoryQuery) -> Sequence[JournalRow]:
        """Only this thread writes: what waits now is not in what the store answers."""
        with self._news:
            waiting = list(self._journal.entries)
        return [*select(waiting, query), *store.history(query)][: query.limit]

    def _answer(self, request: _Request, store: Store | None) -> None:
        if not request.answer.set_running_or_notify_cancel():
            return
        if store is None:
            request.answer.set_exception(StoreError(self.problem))
            return
        try:
            request.answer.set_result(request.ask(store))
        except StoreError as error:
            self._failed(error)
            request.answer.set_exception(error)

    def _failed(self, error: StoreError) -> None:
        self._delay = min(self._delay * 2 or self._pace.retry_first, self._pace.retry_most)
        self._statuses = None  # it may come back another one
        self._say(str(error), available=False)

    def _well(self) -> None:
        self._delay = 0.0
        self._say("", available=True)

    def _say(self, problem: str, *, available: bool) -> None:
        if (self.problem, self.available) != (problem, available):
            self.problem, self.available = problem, available
            self._on_change()

    def _end(self) -> None:
        with self._news:
            self._ended = True
            requests, self._requests = self._requests, []
            self.available = False
            ended = "it is closed" if self._closing else "its thread ended with an error that is no StoreError"
            self.problem = self.problem or f"store: {ended}"
        for request in requests:
            self._answer(request, None)
        if self._store is not None:
            self._store.close()
        if not self._first.done():
            self._first.set_result(None)
        self._last.set_result(None)

    def _items(self, waiting: dict[K, T]) -> list[tuple[K, T]]:
        with self._news:
            return list(waiting.items())

    def _settle(self, waiting: dict[K, T], key: K, value: T) -> None:
        """Forget what is written, unless something newer took its place meanwhile."""
        with self._news:
            if waiting.get(key) is value:
                waiting.pop(key, None)


def _load(store: Store) -> Remembered:
    return Remembered(store.pauses(), store.approvals(), store.last_revision(), store.last_pass_id())


def _uncancellable() -> Future[None]:
    """A future whose waiters may give up without taking it away from the others."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(frozen=True, slots=True)
class _Request:
    ask: Callable[[Store], Any]
    answer: Future[Any]
