"""Orders and history without a daemon: written to and read from the store directly, for the next one to heed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from desired.snapshot import Snapshot
from desired.store import HistoryQuery, PauseRow, Store
from reconciler.contract import PassRecord
from reconciler.doors.journal import pass_record
from reconciler.doors.session import Session, caller, now
from reconciler.errors import ConfigError
from reconciler.report import Pause, Problem


class TreeError(ConfigError):
    """The desired state has mistakes; `problems` are all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"the desired state has {len(problems)} mistake{'s' if len(problems) > 1 else ''}")
        self.problems = tuple(problems)


@contextlib.contextmanager
def opened(session: Session) -> Iterator[Store]:
    """The node's store, open. Raises StoreError."""
    store = session.here().open_store(session.settings)
    store.open()
    try:
        yield store
    finally:
        store.close()


def approve(session: Session, revision: str | None) -> str:
    """Approve the deletes of `revision` (default: what is declared now); returns it. Raises TreeError, StoreError."""
    chosen = revision or declared_revision(session)
    with opened(session) as store:
        store.save_approval(chosen, now(), caller())
    return chosen


def declared_revision(session: Session) -> str:
    settings = session.settings
    loaded = session.here().load_desired(settings, settings.node, settings.roles)
    if loaded.problems:
        raise TreeError(as_problems(loaded.problems))
    return Snapshot.of(loaded.resources).revision


def as_problems(found: Sequence[object]) -> Sequence[Problem]:
    """The schema's problems, which have the same fields, as the doors print them."""
    names = ("message", "file", "line", "column", "path", "hint")
    return tuple(Problem(*(getattr(each, name) for name in names)) for each in found)


def pause(session: Session, what: str, reason: str, seconds: float | None) -> Pause:
    _check(what)
    at = now()
    made = Pause(what, reason, at, None if seconds is None else at + seconds, caller())
    with opened(session) as store:
        store.save_pause(PauseRow(made.what, made.reason, made.at, made.until, made.by))
    return made


def resume(session: Session, what: str) -> Sequence[Pause]:
    """Ends the pauses of `what` ("all" = every one); returns those that were there."""
    with opened(session) as store:
        rows = [row for row in store.pauses() if what in ("all", row.what)]
        for row in rows:
            store.delete_pause(row.what)
    return tuple(Pause(row.what, row.reason, row.at, row.until, row.by) for row in rows)


def history(session: Session, resource: str | None, since: float | None, limit: int) -> Sequence[PassRecord]:
    """Newest first."""
    with opened(session) as store:
        return tuple(pass_record(row) for row in store.history(HistoryQuery(resource, since, limit)))


def _check(what: str) -> None:
    from controllers.catalog import SECTIONS  # noqa: PLC0415 (every kind there is)

    kinds = sorted({spec.kind for section in SECTIONS for spec in section.specs})
    if what != "node" and what.partition("/")[0] not in kinds:
        raise ConfigError(f"there is no kind {what.partition('/')[0]!r}; WHAT is node, or one of {', '.join(kinds)}")
