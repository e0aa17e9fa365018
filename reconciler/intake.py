"""From what a source says to what the engine enforces: nothing is removed in haste, and a mistake changes nothing.

Additions and changes take effect at once (the source has waited for quiet). Removals wait `settle_remove` seconds
longer: a checkout in flight is not a deletion. While what is on disk is wrong, the last good state stays, and the
source counts as not in sync, so that nothing is deleted on its word.

A whole state makes every removal wait anew, for it may be one of several. A `Difference`, which is what OpenStack's
notifications make of the state before, postpones nothing: they may keep coming for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from desired.resource import Difference, ResourceId
from desired.schema import Loaded
from desired.snapshot import Snapshot
from reconciler.engine import Engine
from reconciler.gates.budget import exchanged, removed
from reconciler.logs import get_logger
from reconciler.report import Problem

log = get_logger("intake")

TOGETHER = 0.5
"""Seconds between two removals at least, so that what leaves one by one goes in few steps."""


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
        self._target: Snapshot | None = None
        """All that the source says; None when it has not said anything good yet."""
        self._leaving: dict[ResourceId, float] = {}
        """What is to be removed, and when."""
        self.problems: Sequence[Problem] = ()
        self.warnings: Sequence[Problem] = ()

    @property
    def problem(self) -> str:
        """The first mistake of what was taken last; empty when there is none."""
        return _one_line(self.problems[0]) if self.problems else ""

    def source(self, name: str, problem: str) -> None:
        """Another source, whose part is in what `take` is given next, is in sync (no `problem`), or is not."""
        self._engine.gates.in_sync.source(name, problem)

    def take(self, loaded: Loaded, step: Difference | None = None, *, despite: Loaded | None = None) -> None:
        """A new state of the source, good or not. `step`: how it came from that of the call before, if it is known.

        `despite` is what the source says now, and is wrong: it is told, and `loaded`, its last good state with what
        others say since, is enforced.
        """
        said = loaded if despite is None else despite
        known, self.warnings = self.warnings, tuple(_problem(warning) for warning in said.warnings)
        told, self.problems = self.problems, tuple(_problem(problem) for problem in said.problems)
        self._engine.metrics.set_config(len(self.problems))
        self._engine.config_valid = not self.problems
        for warning in self.warnings:
            if warning not in known:
                log.warning("config_warning", problem=str(_one_line(warning)))
        self._engine.gates.in_sync.source(self._source, self.problem)
        for problem in self.problems:
            if problem not in told:
                log.error("config_invalid", problem=_one_line(problem))
        if self.problems and despite is None:
            self._cancel()
            self._target = None
            return
        if step is None or self._target is None:
            self._accept(Snapshot.of(loaded.resources, self._engine.book.snapshot))
        else:
            self._follow(self._target, step)

    def restore(self, snapshot: Snapshot, problem: str) -> None:
        """Start from what the store remembers because the source says nothing usable: `problem` says what."""
        self._engine.gates.in_sync.source(self._source, problem)
        self._cancel()
        self._settled, self._target = snapshot, None
        self._publish(snapshot)

    def _accept(self, target: Snapshot) -> None:
        """A whole state."""
        self._cancel()
        self._target = target
        current = self._engine.book.snapshot
        differing = target.differing(current)
        due = asyncio.get_running_loop().time() + self._settle_remove
        self._leaving = {rid: due for rid in differing if rid not in target.resources}
        if not self._leaving:
            self._settle(target)
            return
        news = (*differing, *target.moved(current))
        between = current.changed(target.resources[rid] for rid in news if rid in target.resources)
        if between.revision != current.revision:
            self._publish(between)
        self._wait()

    def _follow(self, before: Snapshot, step: Difference) -> None:
        """The state of before with some things put into it and taken out of it."""
        self._target = before.changed(step.put, step.gone)
        for resource in step.put:
            self._leaving.pop(resource.id, None)
        if not (self._leaving or step.gone):
            self._cancel()
            self._settle(self._target)
            return
        current = self._engine.book.snapshot
        due = asyncio.get_running_loop().time() + self._settle_remove
        for rid in step.gone:
            if rid in current.resources:
                self._leaving.setdefault(rid, due)
        between = current.changed(step.put)
        if between.revision != current.revision:
            self._publish(between)
        if self._timer is None:
            self._wait()

    def _wait(self) -> None:
        """Until the first of what leaves may go."""
        if self._leaving:
            loop = asyncio.get_running_loop()
            due = max(min(self._leaving.values()), loop.time() + TOGETHER)
            log.info("removals_wait", resources=len(self._leaving), seconds=round(due - loop.time(), 1))
            self._timer = loop.call_at(due, self._let_go)

    def _let_go(self) -> None:
        self._timer = None
        assert self._target is not None
        now = asyncio.get_running_loop().time()
        gone = [rid for rid, due in self._leaving.items() if due <= now]
        for rid in gone:
            del self._leaving[rid]
        self._settle(self._engine.book.snapshot.changed((), gone) if self._leaving else self._target)
        self._wait()

    def _settle(self, target: Snapshot) -> None:
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
        self._leaving = {}
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
