"""`SqlStore`: one node's rows in a database, as `desired.store.Store` asks for them.

Every method is one transaction (trimming: several small ones). After any error the connection is given up, and the
next call connects and looks at the schema again: a store that was away, full, replaced or deleted heals by itself.
Called by the writer's thread, or directly by a command-line verb; one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, Table, delete, func, insert, select, update

from desired.sql import engine as engines
from desired.sql.migrate import ensure_schema
from desired.sql.rows import SHOWN_LINES, fit, journal_row, journal_values, line_values, mirror_values, resource_values
from desired.sql.tables import (
    approval,
    journal,
    journal_line,
    mirror,
    pause,
    resource,
    resource_key,
    status,
    text_key,
)
from desired.sql.tables import revision as revision_table
from desired.sql.trim import trim
from desired.store import (
    HistoryQuery,
    JournalRow,
    MirrorRow,
    PauseRow,
    ResourceRow,
    Retention,
    RevisionRow,
    StatusRow,
    StoreError,
)

_CHUNK = 500

T = TypeVar("T")


class SqlStore:
    """The store of `node` at `url` (SQLAlchemy's form). `self.url` is the same without the password.

    Raises StoreError for a URL that cannot be read, or whose driver is missing; connects in `open` or when first used.
    """

    def __init__(self, url: str, node: str) -> None:
        self._url = engines.parse_url(url)
        self._node = fit(node, 255)
        self._file = engines.sqlite_file(self._url)
        self._identity: tuple[int, int] | None = None
        self._engine: Engine | None = None
        self.url = engines.shown(self._url)

    def open(self) -> None:
        """Connect; create or upgrade the schema when needed. Does nothing when it is open already."""
        if self._engine is not None:
            return
        try:
            if self._file is not None:
                engines.prepare_file(self._file)
            engine = self._engine = engines.build_engine(self._url)
            if self._file is not None:
                engines.use_wal(engine)
                self._identity = _identity(self._file)
            ensure_schema(engine, self.url)
        except StoreError:
            self.close()
            raise
        except engines.ERRORS as error:
            self.close()
            raise engines.store_error(error, "opening it", self.url) from error

    def close(self) -> None:
        """Give the connection up; the next call connects again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def save_revision(self, row: RevisionRow, resources: Sequence[ResourceRow]) -> None:
        """Remember a revision and its resources, and that it is the current one.

        Only the difference to the resources before is written. The same revision again updates `at`, and where
        things are declared if that moved.
        """
        wanted = {values["digest"]: values for values in (resource_values(self._node, each) for each in resources)}
        with self._writing("remembering a revision") as connection:
            seq = self._make_current(connection, row, len(resources))
            current = select(resource.c.digest, resource.c.id).where(*self._declared())
            before = {row.digest: row.id for row in connection.execute(current)}
            gone = [row_id for digest, row_id in before.items() if digest not in wanted]
            for chunk in _chunks(gone):
                connection.execute(update(resource).where(resource.c.id.in_(chunk)).values(until=seq))
            fresh = [values | {"since": seq} for digest, values in wanted.items() if digest not in before]
            for rows in _chunks(fresh):
                connection.execute(insert(resource), rows)

    def mark_applied(self, revision: str, at: float) -> None:
        """Remember when this node first converged on a revision; the first time stays."""
        with self._writing("marking a revision applied") as connection:
            mine = (
                revision_table.c.node == self._node,
                revision_table.c.revision == revision,
                revision_table.c.applied.is_(None),
            )
            connection.execute(update(revision_table).where(*mine).values(applied=at))

    def last_revision(self) -> tuple[RevisionRow, Sequence[ResourceRow]] | None:
        """The current revision with its resources, sorted by kind and name."""
        with self._reading("reading the last revision") as connection:
            row = connection.execute(self._revisions().limit(1)).first()
            if row is None:
                return None
            names = ("kind", "name", "spec", "source", "file", "line", "column", "path")
            declared = select(*(resource.c[name] for name in names)).where(*self._declared())
            rows = [ResourceRow(*each) for each in connection.execute(declared)]
        return RevisionRow(*row), sorted(rows, key=lambda each: (each.kind, each.name))

    def revisions(self, limit: int = 20) -> Sequence[RevisionRow]:
        """The newest first."""
        with self._reading("reading revisions") as connection:
            return [RevisionRow(*row) for row in connection.execute(self._revisions().limit(limit))]

    def append_journal(self, rows: Sequence[JournalRow]) -> None:
        """Add passes. One that is there already (same number and time) is left out: a batch may be sent twice."""
        with self._writing("appending to the journal") as connection:
            for chunk in _chunks(rows):
                self._append(connection, chunk)

    def history(self, query: HistoryQuery) -> Sequence[JournalRow]:
        """Newest first. Of one resource: only its own lines of each pass.

        Without one, at most SHOWN_LINES actions and findings of a pass, and a last one that says how many are left out.
        """
        wanted = select(journal).where(journal.c.node == self._node).order_by(journal.c.id.desc()).limit(query.limit)
        lines = select(journal_line).order_by(journal_line.c.journal_id, journal_line.c.part, journal_line.c.position)
        if query.since is not None:
            wanted = wanted.where(journal.c.at >= query.since)
        if query.outcomes:
            wanted = wanted.where(journal.c.outcome.in_(query.outcomes))
        if query.resource is None:
            lines = lines.where(journal_line.c.position < SHOWN_LINES)
        else:
            key = resource_key(self._node, query.resource)
            mine = (journal_line.c.resource_key == key, journal_line.c.resource == query.resource)
            wanted = wanted.where(journal.c.id.in_(select(journal_line.c.journal_id).where(*mine)))
            lines = lines.where(*mine)
        with self._reading("reading the journal") as connection:
            passes = connection.execute(wanted).all()
            found: dict[int, list[Any]] = {}
            for chunk in _chunks([row.id for row in passes]):
                rows = connection.execute(lines.where(journal_line.c.journal_id.in_(chunk)))
                found.update((key, list(group)) for key, group in groupby(rows, key=lambda row: row.journal_id))
        return [journal_row(row, found.get(row.id, []), whole=query.resource is not None) for row in passes]

    def last_pass_id(self) -> int:
        """The highest number of a pass in the journal; 0 when it is empty."""
        with self._reading("reading the journal") as connection:
            return connection.scalar(select(func.max(journal.c.pass_id)).where(journal.c.node == self._node)) or 0

    def save_statuses(self, rows: Sequence[StatusRow]) -> None:
        """Replace all statuses of this node with these."""
        values = [
            {
                "node": self._node,
                "position": position,
                "resource": fit(row.resource),
                "outcome": fit(row.outcome, 32),
                "reason": fit(row.reason),
                "since": row.since,
                "gate": fit(row.gate, 64),
            }
            for position, row in enumerate(rows)
        ]
        with self._writing("saving statuses") as connection:
            connection.execute(delete(status).where(status.c.node == self._node))
            for chunk in _chunks(values):
                connection.execute(insert(status), chunk)

    def statuses(self) -> Sequence[StatusRow]:
        """As they were saved, in that order."""
        columns = (status.c.resource, status.c.outcome, status.c.reason, status.c.since, status.c.gate)
        with self._reading("reading statuses") as connection:
            found = connection.execute(select(*columns).where(status.c.node == self._node).order_by(status.c.position))
            return [StatusRow(*row) for row in found]

    def save_pause(self, row: PauseRow) -> None:
        """Remember a pause; an earlier one of the same thing is replaced."""
        key = {"node": self._node, "what_key": text_key(row.what)}
        values = {"what": fit(row.what), "reason": fit(row.reason), "at": row.at, "until": row.until, "by": fit(row.by)}
        with self._writing("saving a pause") as connection:
            _replace(connection, pause, key, values)

    def delete_pause(self, what: str) -> None:
        with self._writing("ending a pause") as connection:
            connection.execute(delete(pause).where(pause.c.node == self._node, pause.c.what_key == text_key(what)))

    def pauses(self) -> Sequence[PauseRow]:
        """Oldest first, those included whose end has passed."""
        columns = (pause.c.what, pause.c.reason, pause.c.at, pause.c.until, pause.c.by)
        with self._reading("reading pauses") as connection:
            found = connection.execute(select(*columns).where(pause.c.node == self._node).order_by(pause.c.at))
            return [PauseRow(*row) for row in found]

    def save_approval(self, revision: str, at: float, by: str) -> None:
        key = {"node": self._node, "revision": fit(revision, 64)}
        with self._writing("saving an approval") as connection:
            _replace(connection, approval, key, {"at": at, "by": fit(by)})

    def approvals(self) -> Sequence[str]:
        """The revisions whose deletes were approved, oldest approval first."""
        with self._reading("reading approvals") as connection:
            mine = select(approval.c.revision).where(approval.c.node == self._node).order_by(approval.c.at)
            return connection.scalars(mine).all()

    def save_mirror(self, source: str, rows: Sequence[MirrorRow], forgotten: Sequence[tuple[str, str]]) -> None:
        """Remember these objects of a source, each in place of what was known of it, and forget others."""
        mine = (mirror.c.node == self._node, mirror.c.source == fit(source, 64))
        by_kind: dict[str, list[str]] = {}
        for kind, name in (*forgotten, *((row.kind, row.name) for row in rows)):
            by_kind.setdefault(fit(kind, 64), []).append(fit(name, 64))
        values = [mirror_values(self._node, source, row) for row in rows]
        with self._writing("remembering the mirror") as connection:
            for kind, names in by_kind.items():
                for chunk in _chunks(names):
                    connection.execute(delete(mirror).where(*mine, mirror.c.kind == kind, mirror.c.name.in_(chunk)))
            for fresh in _chunks(values):
                connection.execute(insert(mirror), fresh)

    def mirror(self, source: str) -> Sequence[MirrorRow]:
        """All that is remembered of a source, in no particular order."""
        columns = (mirror.c[name] for name in ("kind", "name", "body", "at", "revision", "more"))
        mine = select(*columns).where(mirror.c.node == self._node, mirror.c.source == source)
        with self._reading("reading the mirror") as connection:
            return [
                MirrorRow(row.kind, row.name, row.body, row.at, row.revision, row.more or {})
                for row in connection.execute(mine)
            ]

    def trim(self, retention: Retention, now: float) -> int:
        """Delete what is older than the retention, in small transactions; returns how many rows went.

        `journal_rows` counts passes and their lines. The newest pass stays, so that numbers are not given twice.
        """
        return trim(lambda: self._writing("deleting what is too old"), self._node, retention, now)

    def _revisions(self) -> Any:
        names = ("revision", "at", "author", "message", "applied", "resources")
        columns = (revision_table.c[name] for name in names)
        return select(*columns).where(revision_table.c.node == self._node).order_by(revision_table.c.seq.desc())

    def _declared(self) -> tuple[ColumnElement[bool], ...]:
        return resource.c.node == self._node, resource.c.until.is_(None)

    def _make_current(self, connection: Connection, row: RevisionRow, count: int) -> int:
        """Insert the revision, or make it the current one again. Returns its place in the order."""
        query = select(revision_table.c.revision, revision_table.c.seq).where(revision_table.c.node == self._node)
        last = connection.execute(query.order_by(revision_table.c.seq.desc()).limit(1)).first()
        name = fit(row.revision, 64)
        same = last is not None and last.revision == name
        seq = 1 if last is None else int(last.seq) + (not same)
        mine = (revision_table.c.node == self._node, revision_table.c.revision == name)
        if connection.execute(update(revision_table).where(*mine).values(at=row.at, seq=seq)).rowcount == 0:
            texts = {"author": fit(row.author), "message": fit(row.message), "applied": row.applied}
            numbers = {"seq": seq, "at": row.at, "resources": row.resources or count}
            connection.execute(insert(revision_table).values(node=self._node, revision=name, **texts, **numbers))
        return seq

    def _append(self, connection: Connection, rows: Sequence[JournalRow]) -> None:
        mine = (journal.c.node == self._node, journal.c.pass_id.in_([row.pass_id for row in rows]))
        known = {tuple(row) for row in connection.execute(select(journal.c.pass_id, journal.c.at).where(*mine))}
        fresh = [row for row in rows if (row.pass_id, row.at) not in known]
        if not fresh:
            return
        numbered = insert(journal).returning(journal.c.id, sort_by_parameter_order=True)
        ids = connection.scalars(numbered, [journal_values(self._node, row) for row in fresh]).all()
        lines = (line for key, row in zip(ids, fresh, strict=True) for line in line_values(self._node, key, row))
        while batch := list(islice(lines, _CHUNK)):
            connection.execute(insert(journal_line), batch)

    @contextmanager
    def _writing(self, doing: str) -> Iterator[Connection]:
        if self._file is not None and self._engine is not None and _identity(self._file) != self._identity:
            self.close()  # the file was deleted or replaced: what is written to the old one nobody reads
        with self._transaction(doing, lambda engine: engine) as connection:
            yield connection

    @contextmanager
    def _reading(self, doing: str) -> Iterator[Connection]:
        with self._transaction(doing, engines.reading) as connection:
            yield connection

    @contextmanager
    def _transaction(self, doing: str, way: Callable[[Engine], Engine]) -> Iterator[Connection]:
        self.open()
        assert self._engine is not None
        try:
            with way(self._engine).begin() as connection:
                yield connection
        except engines.ERRORS as error:
            self.close()
            raise engines.store_error(error, doing, self.url) from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _replace(connection: Connection, into: Table, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    connection.execute(delete(into).where(*(into.c[name] == value for name, value in key.items())))
    connection.execute(insert(into).values(**key, **values))


def _chunks(rows: Sequence[T]) -> Iterable[Sequence[T]]:
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
