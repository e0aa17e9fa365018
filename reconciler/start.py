"""How a process comes to know what should be: what the store remembers, then what the files say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from controllers.catalog import spec_classes
from desired.resource import ResourceId
from desired.snapshot import Snapshot
from desired.store import ResourceRow, StoreError
from reconciler.assembly import Assembly
from reconciler.declared import resource_of
from reconciler.logs import get_logger
from reconciler.report import Pause
from reconciler.writer import Remembered

log = get_logger("start")

STORE_PATIENCE = 5.0
"""Seconds that a start waits for the store to say what was paused and approved."""


async def recall(parts: Assembly) -> Remembered | None:
    """What the store knows of before this start. A store that does not answer is reported and done without."""
    try:
        remembered = await parts.writer.load(STORE_PATIENCE)
    except (StoreError, TimeoutError) as error:
        reason = str(error) or f"it did not answer within {STORE_PATIENCE:g} s"
        log.warning("store_not_available", reason=reason)
        return None
    take_over(parts, remembered)
    return remembered


def take_over(parts: Assembly, remembered: Remembered) -> None:
    """Put the pauses and approvals of before into force."""
    gates, engine = parts.engine.gates, parts.engine
    known = {pause.what for pause in gates.paused.all()}
    for row in remembered.pauses:
        if row.what not in known and (row.until is None or row.until > engine.clock.wall()):
            gates.paused.pause(Pause(row.what, row.reason, row.at, row.until, row.by))
    for revision in remembered.approvals:
        gates.budget.approve(revision)
    engine.first_pass_id(remembered.last_pass_id)
    parts.metrics.paused.set(len(gates.paused.all()))


async def recall_late(parts: Assembly) -> None:
    """The store was away at the start: what it remembers is put into force when it is back."""
    while not parts.writer.available:
        await asyncio.sleep(1.0)
    await recall(parts)


def _restored(rows: Sequence[ResourceRow]) -> Snapshot:
    """A snapshot of what the store remembers."""
    specs = spec_classes()
    return Snapshot.of(resource_of(ResourceId(row.kind, row.name), row.spec, row, specs) for row in rows)


async def follow_files(parts: Assembly, remembered: Remembered | None) -> None:
    """Feed the intake. A start whose YAML is unusable goes on with what the store remembers."""
    _know_again(parts, remembered)
    async with contextlib.aclosing(parts.source.watch()) as trees:
        async for loaded in trees:
            first = not parts.engine.book.snapshot.revision
            parts.cluster.take_files(loaded)
            await parts.cluster.compose()
            nothing_yet = not parts.engine.book.snapshot.revision
            if first and not nothing_yet:
                _compare_with_before(parts, remembered)
            problem = parts.cluster.waits or parts.intake.problem
            if problem and nothing_yet and remembered is not None and remembered.revision is not None:
                row, resources = remembered.revision
                try:
                    snapshot = _restored(resources)
                except (KeyError, ValueError) as error:
                    log.error("last_revision_unusable", revision=row.revision, error=str(error))
                    continue
                log.warning("started_from_store", revision=row.revision, resources=len(resources))
                parts.intake.restore(snapshot, problem)


def _know_again(parts: Assembly, remembered: Remembered | None) -> None:
    """Namespaces of a state that was reached carried our mark then: one that comes back bare is taken again."""
    if remembered is not None and remembered.revision is not None and remembered.revision[0].applied is not None:
        parts.catalog.namespaces.knew(row.name for row in remembered.revision[1] if row.kind == "namespace")


def _compare_with_before(parts: Assembly, remembered: Remembered | None) -> None:
    """When the node had reached this very revision before, whatever differs now is drift and is called so."""
    before = remembered.revision[0] if remembered is not None and remembered.revision is not None else None
    current = parts.engine.book.snapshot.revision
    if before is not None and before.applied is not None and before.revision == current:
        parts.engine.experience.was_converged()
