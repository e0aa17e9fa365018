"""Retention: deleting what is too old, a few thousand rows at a time, so that nobody waits for the lock for long."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import Connection, and_, delete, exists, func, or_, select

from desired.sql.tables import approval, journal, journal_line, pause, resource, revision
from desired.store import Retention

BATCH = 1000
"""Rows in one transaction, about."""

GRACE_SECONDS = 86400.0
"""How long a pause is kept after its end: a clock that jumps must not end one."""

Begin = Callable[[], AbstractContextManager[Connection]]


def trim(begin: Begin, node: str, retention: Retention, now: float) -> int:
    """Delete until nothing of `node` is older than the retention. Returns the number of rows deleted."""
    gone = _conditions(begin, node, retention, now)
    steps = (_journal(begin, node, retention, now), _revisions(begin, node, retention.revisions))
    for step in steps:
        while deleted := step():
            gone += deleted
    return gone


def _journal(begin: Begin, node: str, retention: Retention, now: float) -> Callable[[], int]:
    mine = journal.c.node == node
    with begin() as connection:
        newest = connection.scalar(select(func.max(journal.c.id)).where(mine))
        size = 1 + journal.c.actions + journal.c.findings
        total = func.sum(size).over(order_by=journal.c.id.desc()).label("total")
        counted = select(journal.c.id, total).where(mine).subquery()
        last_over = select(func.max(counted.c.id)).where(counted.c.total > retention.journal_rows)
        boundary = connection.scalar(last_over) or 0
    too_old = or_(journal.c.at < now - retention.journal_seconds, journal.c.id <= boundary)
    batch = select(journal.c.id, size.label("size")).where(mine, too_old, journal.c.id != newest)
    batch = batch.order_by(journal.c.id).limit(BATCH)

    def step() -> int:
        ids: list[int] = []
        rows = 0
        with begin() as connection:
            for row in connection.execute(batch).all():
                if ids and rows + row.size > BATCH:
                    break
                ids.append(row.id)
                rows += row.size
            connection.execute(delete(journal_line).where(journal_line.c.journal_id.in_(ids)))
            connection.execute(delete(journal).where(journal.c.id.in_(ids)))
        return rows

    return step


def _revisions(begin: Begin, node: str, keep: int) -> Callable[[], int]:
    mine = revision.c.node == node
    kept = select(revision.c.seq).where(mine).order_by(revision.c.seq.desc()).limit(max(keep, 1)).subquery()
    with begin() as connection:
        floor = connection.scalar(select(func.min(kept.c.seq))) or 0
    batch = select(resource.c.id).where(resource.c.node == node, resource.c.until <= floor).limit(BATCH)

    def step() -> int:
        with begin() as connection:
            ids = connection.scalars(batch).all()
            connection.execute(delete(resource).where(resource.c.id.in_(ids)))
            old = connection.execute(delete(revision).where(mine, revision.c.seq < floor)).rowcount
        return len(ids) + old

    return step


def _conditions(begin: Begin, node: str, retention: Retention, now: float) -> int:
    """Pauses that ended, and approvals of revisions that are no longer remembered."""
    ended = and_(pause.c.node == node, pause.c.until < now - GRACE_SECONDS)
    remembered = exists().where(revision.c.node == approval.c.node, revision.c.revision == approval.c.revision)
    old = and_(approval.c.node == node, approval.c.at < now - retention.journal_seconds, ~remembered)
    with begin() as connection:
        return connection.execute(delete(pause).where(ended)).rowcount + (
            connection.execute(delete(approval).where(old)).rowcount
        )
