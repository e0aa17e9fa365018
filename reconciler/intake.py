"""From what a source says to what the engine enforces: nothing is removed in haste, and a mistake changes nothing.

Additions and changes take effect at once (the source has waited for quiet). Removals wait `settle_remove` seconds
longer: a checkout in flight is not a deletion. While what is on disk is wrong, the last good state stays, and the
source counts as not in sync, so that nothing is deleted on its word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from desired.schema import Loaded
from desired.snapshot import Snapshot
from reconciler.engine import Engine
from reconciler.gates.budget import exchanged, removed
from reconciler.logs import get_logger
from reconciler.report import Problem

log = get_logger("intake")


class Intake:
    """Takes what one source loads. `on_revision` hears of every state that becomes the desired one."""

    def __init__(
        self, engine: Engine, source: str, settle_remove: float, on_revision: Callable[[Snapshot], None]
    ) -> None:
        self._engine = engine
        self._source = source
        self._settle_remove = settle_remove
        self._on_revision = on_revision
        self._timer: asyncio.TimerHandle | None = None
        self._settled = Snapshot()
        self.problems: Sequence[Problem] = ()
        self.warnings: Sequence[Problem] = ()

    @property
    def problem(self) -> str:
        """The first mistake of what was taken last; empty when there is none."""
        return _one_line(self.problems[0]) if self.problems else ""

    def source(self, name: str, problem: str) -> None:
        """Another source, whose part is in what `take` is given next, is in sync (no `problem`), or is not."""
        self._engine.gates.in_sync.source(name, problem)

    def take(self, loaded: Loaded) -> None:
        """A new state of the source, good or not."""
        self.warnings = tuple(_problem(warning) for warning in loaded.warnings)
        self.problems = tuple(_problem(problem) for problem in loaded.problems)
        self._engine.metrics.set_config(len(self.problems))
        self._engine.config_valid = not self.problems
        for warning in self.warnings:
            log.warning("config_warning", problem=str(_one_line(warning)))
        if self.problems:
            self._cancel()
            self._engine.gates.in_sync.source(self._source, self.problem)
            for problem in self.problems:
                log.error("config_invalid", problem=_one_line(problem))
            return
        self._engine.gates.in_sync.source(self._source, "")
        self._accept(Snapshot.of(loaded.resources, self._engine.book.snapshot))

    def restore(self, snapshot: Snapshot, problem: str) -> None:
        """Start from what the store remembers because the source says nothing usable: `problem` says what."""
        self._engine.gates.in_sync.source(self._source, problem)
        self._settled = snapshot
        self._publish(snapshot)

    def _accept(self, target: Snapshot) -> None:
        self._cancel()
        current = self._engine.book.snapshot
        differing = target.differing(current)
        kept = sum(rid not in target.resources for rid in differing)
        if not kept:
            self._settle(target)
            return
        news = (*differing, *target.moved(current))
        between = current.changed(target.resources[rid] for rid in news if rid in target.resources)
        if between.revision != current.revision:
            self._publish(between)
        log.info("removals_wait", resources=kept, seconds=self._settle_remove)
        self._timer = asyncio.get_running_loop().call_later(self._settle_remove, self._settle, target)

    def _settle(self, target: Snapshot) -> None:
        self._timer = None
        before, self._settled = self._settled, target
        self._publish(target, before)

    def _publish(self, snapshot: Snapshot, before: Snapshot | None = None) -> None:
        """`before` is the state whose removals are settled with this one."""
        if snapshot.revision != self._engine.book.snapshot.revision:
            log.info("desired_state", revision=snapshot.revision, resources=len(snapshot.resources))
            self._on_revision(snapshot)
        if before is None:
            self._engine.desire(snapshot)
            return
        differing = snapshot.differing(before)
        gone = removed(before.resources, snapshot.resources, differing)
        swapped = exchanged(before.resources, snapshot.resources, differing)
        self._engine.desire(snapshot, gone, swapped)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _problem(problem: object) -> Problem:
    names = ("message", "file", "line", "column", "path", "hint")
    return Problem(**{name: getattr(problem, name) for name in names})


def _one_line(problem: Problem) -> str:
    place = f"{problem.file}:{problem.line}:{problem.column}: " if problem.file else ""
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"{place}{problem.message}{hint}"
