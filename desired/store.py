"""What the daemon wants from a store, as a Protocol; `desired.sql` is the one implementation.

The in-memory snapshot is the truth of a pass; the store remembers. All methods are synchronous and are called from
one writer thread (`reconciler.writer`), or directly by a command-line verb. Rows in and out are plain data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from desired.resource import Resource


class StoreError(Exception):
    """The store cannot do what was asked now: locked, full, unreadable, unmigratable. The message says which."""


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """A desired state that was once loaded: content hash, who, when (wall seconds), and in whose words."""

    revision: str
    at: float
    author: str = ""
    message: str = ""
    applied: float | None = None
    """When this node first converged on it."""
    resources: int = 0


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One pass. `actions` and `findings` are JSON-ready lists of mappings."""

    pass_id: int
    at: float
    scope: str
    trigger: str
    revision: str
    outcome: str
    seconds: float
    since_event: float
    actions: Sequence[Mapping[str, Any]] = ()
    findings: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class StatusRow:
    resource: str
    outcome: str
    reason: str
    since: float
    gate: str = ""


@dataclass(frozen=True, slots=True)
class PauseRow:
    what: str
    reason: str
    at: float
    until: float | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class ResourceRow:
    """A declared resource as remembered for a start without its source: `spec` is JSON-ready."""

    kind: str
    name: str
    spec: Mapping[str, Any]
    source: str
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""

    @classmethod
    def of(cls, resource: Resource) -> ResourceRow:
        origin = resource.origin
        spec = resource.spec.model_dump(mode="json", exclude_defaults=True)
        place = (origin.source, origin.file, origin.line, origin.column, origin.path)
        return cls(resource.id.kind, resource.id.name, spec, *place)


@dataclass(frozen=True, slots=True)
class MirrorRow:
    """What is known of one object of another system: `body` is JSON-ready, None for a tombstone.

    `at` (seconds since 1970, by the other system's clock) and `revision` are its version; `more` is the mirror's own.
    """

    kind: str
    name: str
    body: Mapping[str, Any] | None
    at: float
    revision: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: seconds of age and rows, whichever is reached first; revisions by number."""

    journal_seconds: float = 30 * 86400.0
    journal_rows: int = 200_000
    revisions: int = 50


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which journal rows: of one resource (``KIND/NAME``), since a wall-clock second, the newest `limit`."""

    resource: str | None = None
    since: float | None = None
    limit: int = 50
    outcomes: Sequence[str] = field(default_factory=tuple)


class Store(Protocol):
    """One node's part of the store. Every method may raise StoreError; none leaves a half-written state."""

    url: str

    def open(self) -> None:
        """Connect; create or migrate the schema when needed."""
        ...

    def save_revision(self, row: RevisionRow, resources: Sequence[ResourceRow]) -> None:
        """Remember a revision and its resources; the same revision again only updates `at`."""
        ...

    def mark_applied(self, revision: str, at: float) -> None: ...

    def last_revision(self) -> tuple[RevisionRow, Sequence[ResourceRow]] | None: ...

    def revisions(self, limit: int = 20) -> Sequence[RevisionRow]: ...

    def append_journal(self, rows: Sequence[JournalRow]) -> None: ...

    def history(self, query: HistoryQuery) -> Sequence[JournalRow]:
        """Newest first."""
        ...

    def last_pass_id(self) -> int: ...

    def save_statuses(self, rows: Sequence[StatusRow]) -> None:
        """Replace all statuses of this node with these (only what is not converged is kept)."""
        ...

    def statuses(self) -> Sequence[StatusRow]: ...

    def save_pause(self, row: PauseRow) -> None: ...

    def delete_pause(self, what: str) -> None: ...

    def pauses(self) -> Sequence[PauseRow]: ...

    def save_approval(self, revision: str, at: float, by: str) -> None: ...

    def approvals(self) -> Sequence[str]: ...

    def save_mirror(self, source: str, rows: Sequence[MirrorRow], forgotten: Sequence[tuple[str, str]]) -> None:
        """Remember these objects of a source, and no longer know the forgotten ones (kind and name of each)."""
        ...

    def mirror(self, source: str) -> Sequence[MirrorRow]:
        """All objects of a source that this node remembers, in no particular order."""
        ...

    def trim(self, retention: Retention, now: float) -> int:
        """Delete what is older than the retention; returns how many rows went."""
        ...

    def close(self) -> None: ...
