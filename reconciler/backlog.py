"""What waits for the store: the bounded queue of passes, what else is to be written, and both as rows.

Plain data without a lock or a thread: `reconciler.writer` owns one of each and holds its lock around every call. The
turning of records into rows happens in the writer's thread, never on the event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from desired.resource import Resource
from desired.store import HistoryQuery, JournalRow, MirrorRow, PauseRow, RevisionRow
from reconciler.contract import ActionRecord, Finding, PassRecord, ResourceStatus

RECENT_PASSES = 1000
RECENT_LINES = 5000
"""How much is kept in memory for a history without a store; a pass over ten thousand flows alone is several MiB."""

WAITING_REVISIONS = 5
"""How many revisions may wait; when more come while the store is away, the ones between are not remembered."""

WAITING_OBJECTS = 200_000
"""How many objects of a mirror may wait; of more that change while the store is away, it misses the oldest."""


@dataclass(slots=True)
class Waiting:
    """What waits to be written besides the journal. Newer replaces older, so it cannot grow for ever."""

    revisions: dict[str, tuple[RevisionRow, Iterable[Resource]]] = field(default_factory=dict)
    passing: str = ""
    """The last of them, if it is not remembered once there is a newer one."""
    applied: dict[str, float] = field(default_factory=dict)
    statuses: Sequence[ResourceStatus] | None = None
    pauses: dict[str, PauseRow | None] = field(default_factory=dict)
    approvals: dict[str, tuple[float, str]] = field(default_factory=dict)
    mirror: dict[tuple[str, str, str], MirrorRow | None] = field(default_factory=dict)
    """By source, kind and name; None is an object to be forgotten."""

    def add_revision(self, row: RevisionRow, resources: Iterable[Resource], *, passing: bool = False) -> None:
        """It becomes the last in the order, also when it waits already. A `passing` one waits for nothing newer."""
        self.revisions.pop(self.passing, None)
        self.passing = row.revision if passing else ""
        self.revisions.pop(row.revision, None)
        self.revisions[row.revision] = (row, resources)
        while len(self.revisions) > WAITING_REVISIONS:
            del self.revisions[next(iter(self.revisions))]

    def add_mirror(self, source: str, rows: Iterable[MirrorRow], forgotten: Iterable[tuple[str, str]]) -> None:
        for kind, name in forgotten:
            self.mirror[source, kind, name] = None
        for row in rows:
            self.mirror[source, row.kind, row.name] = row
        while len(self.mirror) > WAITING_OBJECTS:
            del self.mirror[next(iter(self.mirror))]

    def __bool__(self) -> bool:
        ordered = self.pauses or self.approvals or self.statuses is not None
        return bool(ordered or self.revisions or self.applied or self.mirror)


class JournalQueue:
    """The passes that wait, oldest first, and the recent ones, both bounded by rows. Callers hold the lock."""

    def __init__(self, limit: int) -> None:
        self.entries: deque[PassRecord] = deque()
        self.recent: deque[PassRecord] = deque()
        self.dropped = 0
        self._limit = limit
        self._rows = self._recent_rows = 0
        self._head = 0  # the number, counted from the start, of the oldest that waits

    def add(self, entry: PassRecord) -> None:
        rows = _rows(entry)
        self._rows += rows
        self.entries.append(entry)
        while self._rows > self._limit and len(self.entries) > 1:
            self._pop()
            self.dropped += 1
        self._recent_rows += rows
        self.recent.append(entry)
        while len(self.recent) > RECENT_PASSES or (self._recent_rows > RECENT_LINES and len(self.recent) > 1):
            self._recent_rows -= _rows(self.recent.popleft())

    def oldest(self, rows: int) -> tuple[int, list[PassRecord]]:
        """Up to `rows` rows (one pass at least), which stay here, and the number of the first of them."""
        batch: list[PassRecord] = []
        for entry in self.entries:
            rows -= _rows(entry)
            if batch and rows < 0:
                break
            batch.append(entry)
        return self._head, batch

    def settle(self, first: int, count: int) -> None:
        """`count` passes from number `first` are written; those dropped while being written were not lost."""
        self.dropped -= min(self._head - first, count)
        while self._head < first + count:
            self._pop()

    def _pop(self) -> None:
        self._rows -= _rows(self.entries.popleft())
        self._head += 1


def _rows(entry: PassRecord) -> int:
    return 1 + len(entry.actions) + len(entry.findings)


def journal_row(entry: PassRecord) -> JournalRow:
    """One pass as the journal keeps it: its actions and findings as JSON-ready mappings of texts."""
    return JournalRow(
        entry.pass_id,
        entry.at,
        str(entry.scope),
        entry.trigger,
        entry.revision,
        entry.outcome.value,
        entry.seconds,
        entry.since_event,
        tuple(_action(action) for action in entry.actions),
        tuple(_finding(finding) for finding in entry.findings),
    )


def _action(action: ActionRecord) -> dict[str, Any]:
    return {
        "resource": str(action.resource),
        "verb": action.verb.value,
        "why": action.why,
        "before": action.before,
        "after": action.after,
        "result": action.result,
        "detail": action.detail,
        "gate": action.gate,
        "drift": action.drift,
        "disruption": action.disruption.value,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "resource": str(finding.resource),
        "outcome": finding.outcome.value,
        "reason": finding.reason,
        "waits_for": [str(thing) for thing in finding.waits_for],
    }


def select(entries: Sequence[PassRecord], query: HistoryQuery) -> list[JournalRow]:
    """What the store would answer if these passes, oldest first, were all it had."""
    found: list[JournalRow] = []
    for entry in reversed(entries):
        if len(found) >= query.limit:
            break
        if query.since is not None and entry.at < query.since:
            continue
        if query.outcomes and entry.outcome not in query.outcomes:
            continue
        if query.resource is not None:
            actions = tuple(line for line in entry.actions if str(line.resource) == query.resource)
            findings = tuple(line for line in entry.findings if str(line.resource) == query.resource)
            if not (actions or findings):
                continue
            entry = replace(entry, actions=actions, findings=findings)  # noqa: PLW2901  narrowed to what was asked for
        found.append(journal_row(entry))
    return found
