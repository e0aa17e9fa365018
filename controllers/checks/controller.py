"""The controller of checks: asks each at its interval; a bad answer is a finding, and there is never an action."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from controllers.drivers.probes.ask import Answer, Asker, ask
from desired.kinds.check import CheckSpec
from desired.resource import Resource, ResourceId, Spec
from reconciler.clock import Clock, SystemClock
from reconciler.contract import Change, Event, Finding, Focus, Group, GroupResult, Outcome, Plan, Scope, View
from reconciler.errors import NotReady

NAME = "check"
AGAIN = 0.05
"""A failing check is asked again after this share of its interval, so that its end is seen sooner."""


class Gauge(Protocol):
    """Told what a check answered: a metric. `ok` None: nothing is known of it (any more)."""

    def __call__(self, name: str, *, ok: bool | None, value: float | None, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Observed:
    """The verdict on one check. `ok` None: not answered yet, or it cannot be asked (`words` says why)."""

    ok: bool | None = None
    words: str = ""
    failed: int = 0


@dataclass(slots=True)
class _Kept:
    spec: CheckSpec
    verdict: Observed = field(default_factory=Observed)
    task: asyncio.Task[None] | None = None
    sizes: tuple[float, float] | None = None
    """Of a directory whose growth is measured: when it was first looked at in this hour, and how large it was."""


class ChecksController:
    """One scope per check. `asker` asks, within so many seconds."""

    name = NAME
    specs: tuple[type[Spec], ...] = (CheckSpec,)

    def __init__(self, asker: Asker = ask, clock: Clock | None = None) -> None:
        self._asker = asker
        self._clock = clock or SystemClock()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._kept: dict[str, _Kept] = {}
        self._group: asyncio.TaskGroup | None = None
        self.gauge: Gauge | None = None

    def scope(self, resource: Resource) -> Scope:
        return Scope(NAME, resource.id.name)

    def scopes(self) -> Sequence[Scope]:
        return ()

    async def observe(self, view: View, focus: Focus) -> Observed:
        """What was answered last; a check is asked by its own task, never by a pass, except for the first time."""
        name = view.scope.name
        resource = view.resources.get(ResourceId(CheckSpec.kind, name))
        if resource is None:
            self._forget(name)
            return Observed(ok=True)
        spec = resource.spec
        assert isinstance(spec, CheckSpec)
        kept = self._kept.get(name)
        if kept is None or kept.spec != spec:
            self._forget(name)
            kept = self._kept[name] = _Kept(spec)
            self._start(name, kept)
        return kept.verdict

    def diff(self, view: View, observed: Any) -> Plan:
        findings = []
        for resource in view.resources.values():
            spec = resource.spec
            assert isinstance(spec, CheckSpec)
            if observed.ok is None:
                reason = observed.words or "has not been answered yet"
                findings.append(Finding(resource.id, Outcome.PENDING, reason, recheck=spec.timeout + 1.0))
            elif not observed.ok and observed.failed >= spec.failures:
                findings.append(Finding(resource.id, Outcome.FAILED, observed.words))
        return Plan(findings=tuple(findings))

    def focus_on(self, scope: Scope, resources: Collection[ResourceId]) -> Focus:
        return None

    def focus(self, changes: Sequence[Change]) -> Focus:
        return None

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        """Nothing is ever planned."""
        return ()

    async def prove(self, scope: Scope) -> None:
        """Ask now, and wait for the answer: what `--once` says is not an hour old."""
        kept = self._kept.get(scope.name)
        if kept is not None:
            await self._ask(scope.name, kept)

    async def watch(self) -> AsyncIterator[Event]:
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name, kept in self._kept.items():
                self._start(name, kept)
            try:
                while True:
                    yield await self._events.get()
            finally:
                self._group = None
                for kept in self._kept.values():
                    _end(kept)

    def _start(self, name: str, kept: _Kept) -> None:
        if self._group is not None and kept.task is None:
            kept.task = self._group.create_task(self._attend(name, kept), name=f"check-{name}")

    def _forget(self, name: str) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            _end(kept)
            if self.gauge is not None:
                self.gauge(name, ok=None, value=None, seconds=0.0)

    async def _attend(self, name: str, kept: _Kept) -> None:
        while True:
            await self._ask(name, kept)
            share = 1.0 if kept.verdict.ok else AGAIN
            await asyncio.sleep(max(min(1.0, kept.spec.interval), kept.spec.interval * share))

    async def _ask(self, name: str, kept: _Kept) -> None:
        before, spec = kept.verdict, kept.spec
        started, value = self._clock.now(), None
        try:
            answer = self._grown(kept, await self._asker(spec, spec.timeout))
        except NotReady as error:
            kept.verdict = Observed(words=f"cannot be asked: {error}")
        else:
            failed, value = 0 if answer.ok else before.failed + 1, answer.value
            kept.verdict = Observed(answer.ok, answer.words, failed)
        if self.gauge is not None and self._kept.get(name) is kept:
            self.gauge(name, ok=_good(kept.verdict, spec), value=value, seconds=self._clock.now() - started)
        if _told(kept.verdict, spec) != _told(before, spec):
            self._events.put_nowait(Event(Scope(NAME, name), None, "a check answers otherwise"))

    def _grown(self, kept: _Kept, answer: Answer) -> Answer:
        """Judge the growth of a directory over the last hour, or since it is looked at."""
        limit, now = kept.spec.max_growth, self._clock.now()
        if limit is None or answer.value is None:
            return answer
        if kept.sizes is None or now - kept.sizes[0] > 3600.0:
            kept.sizes = (now, answer.value)
        grown = answer.value - kept.sizes[1]
        if grown <= limit:
            return answer
        minutes = max(1.0, (now - kept.sizes[0]) / 60)
        return replace(answer, ok=False, words=f"{answer.words}; {grown:,.0f} more than {minutes:.0f} min ago")


def _end(kept: _Kept) -> None:
    if kept.task is not None:
        kept.task.cancel()
        kept.task = None


def _told(verdict: Observed, spec: CheckSpec) -> tuple[bool | None, str]:
    """What a status says of a verdict; a count below the threshold, or another number in a good answer, is no news."""
    good = _good(verdict, spec)
    return (good, verdict.words if good is False else "")


def _good(verdict: Observed, spec: CheckSpec) -> bool | None:
    """False only when it has failed often enough."""
    return None if verdict.ok is None else not (verdict.ok is False and verdict.failed >= spec.failures)
