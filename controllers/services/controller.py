"""The controller of services: joins the pure diff with systemd, the unit files on disk, and the checks.

What is kept between passes is in `kept`, what concerns files in `files`, how a step is taken in `perform`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from controllers.drivers import tools
from controllers.drivers.netlink.whereabouts import place_of
from controllers.drivers.probes.ask import Asker, ask
from controllers.drivers.systemd.bus import Systemd
from controllers.services import files
from controllers.services.diff import diff, scope_of
from controllers.services.files import UnitFiles
from controllers.services.health import Healths
from controllers.services.kept import Kept
from controllers.services.perform import perform
from controllers.services.state import (
    NAME,
    Apply,
    Fitness,
    Health,
    Observed,
    ReloadUnit,
    Restart,
    Start,
    Step,
    Tries,
)
from desired.kinds.service import ServiceSpec
from desired.resource import Resource, ResourceId, Spec
from reconciler.clock import Clock, SystemClock
from reconciler.contract import Change, Event, Focus, Group, GroupResult, Plan, Scope, View
from reconciler.errors import DriverError, ReconcilerError
from reconciler.stream import EventStream

LINES = 5


class ServicesController:
    """One scope per unit. `owner` is the owner string of this node; `asker` asks the checks."""

    name = NAME
    specs: tuple[type[Spec], ...] = (ServiceSpec,)

    def __init__(self, owner: str, *, timeout: float, asker: Asker = ask, clock: Clock | None = None) -> None:
        self._owner = f"{owner}/service"
        self._timeout = timeout
        self._clock = clock or SystemClock()
        self.events = EventStream()
        self.driver = Systemd(self._changed, timeout=timeout)
        self._files = UnitFiles(self._owner, self._tell)
        self._healths = Healths(lambda name: self._changed(frozenset({name}), "a check answers otherwise"), asker)
        self._units: dict[str, Kept] = {}

    def scope(self, resource: Resource) -> Scope:
        assert isinstance(resource.spec, ServiceSpec)
        return scope_of(resource.spec.name)

    def scopes(self) -> Sequence[Scope]:
        """Units of which a file is ours."""
        return [scope_of(name) for name in self._files.left()]

    def namespace_made(self, name: str) -> None:
        """The namespace of this name was made, perhaps in place of another, which a unit may still be in."""
        for unit, kept in list(self._units.items()):
            if kept.namespace == name:
                self._tell(unit, "its namespace was made")

    # -- the pass ---------------------------------------------------------------------------------------------------

    async def observe(self, view: View, focus: Focus) -> Observed:
        name = view.scope.name
        unit = await self.driver.unit(name)
        resource = view.resources.get(ResourceId(ServiceSpec.kind, name))
        spec = resource.spec if resource is not None else None
        assert spec is None or isinstance(spec, ServiceSpec)
        kept = self._units.setdefault(name, Kept())
        self._files.track(name, kept, spec)
        found = self._files.read(name, spec)
        now, wall = self._clock.now(), self._clock.wall()
        if spec is None:
            self._healths.forget(name)
            if kept.generation:
                kept.generation = 0
                self._changed(frozenset({name}), f"{name} is no longer declared")
            if not any(self._files.is_ours(state) for state in found.values()):
                self._files.forget(name, self._units.pop(name))
            return Observed(unit, self._owner, now, wall, found, namespace=kept.namespace)
        assert resource is not None
        if kept.generation != resource.generation:
            kept.generation = resource.generation
            kept.forgive()
            for member in () if spec.group is None else _members(view, spec.group):
                if member != name:
                    self._tell(member, f"{name} of its group is declared otherwise")
        health = self._healths.follow(name, spec, unit.started if unit.runs else 0.0) if spec.checks else Health()
        kept.judge(spec, unit, health, wall)
        if kept.vain >= spec.restarts and not kept.said and not unit.runs:
            kept.said = await asyncio.to_thread(_last_lines, name, self._timeout)
        before = self._before(spec, view)
        kept.others = frozenset({*spec.after, *spec.requires, *before})
        kept.namespace = spec.namespace or ""
        pid = unit.main_pid if unit.runs else 0
        return Observed(
            unit,
            self._owner,
            now,
            wall,
            found,
            files.newest(kept, unit),
            files.unread(kept, unit) if unit.runs else ("", ""),
            place_of(pid, spec.namespace, timeout=self._timeout) if spec.namespace else None,
            {other: await self._fitness(other, view) for other in sorted(kept.others)},
            health,
            Tries(kept.vain, kept.next_at),
            self._chosen(spec, view),
            before,
            kept.said,
        )

    async def _fitness(self, name: str, view: View) -> Fitness:
        """Does another unit work? Declared ones by their checks as well."""
        unit = await self.driver.unit(name)
        resource = view.everything.get(ResourceId(ServiceSpec.kind, name))
        spec = resource.spec if resource is not None else None
        kept = self._units.get(name, Kept())
        hopeless = isinstance(spec, ServiceSpec) and kept.vain >= spec.restarts
        if not unit.runs:
            return Fitness(works=False, why=f"is {unit.active or 'not installed'}", hopeless=hopeless)
        if isinstance(spec, ServiceSpec) and spec.checks:
            health = self._healths.follow(name, spec, unit.started)
            if not health.ok:
                return Fitness(works=False, why=health.words or "has not answered its checks yet", hopeless=hopeless)
        return Fitness(works=True)

    def _chosen(self, spec: ServiceSpec, view: View) -> str:
        """Of all services with the same `one_of`, in order of name, the first that was not given up."""
        if spec.one_of is None:
            return ""
        members = sorted(
            (r.spec.name, r.spec.restarts)
            for r in view.everything.values()
            if isinstance(r.spec, ServiceSpec) and r.spec.one_of == spec.one_of and r.spec.wanted == "running"
        )
        good = [name for name, restarts in members if self._units.get(name, Kept()).vain < restarts]
        return good[0] if good else members[0][0] if members else ""

    def _before(self, spec: ServiceSpec, view: View) -> tuple[str, ...]:
        """What comes before it in its group; of a `one_of` in the group only the one that is to run."""
        if spec.group is None:
            return ()
        members = _members(view, spec.group)
        names = list(members)
        earlier = (members[name] for name in names[: names.index(spec.name)])
        return tuple(other.name for other in earlier if self._chosen(other, view) in {"", other.name})

    def diff(self, view: View, observed: Any) -> Plan:
        return diff(view, observed)

    def focus_on(self, scope: Scope, resources: Collection[ResourceId]) -> Focus:
        return None

    def focus(self, changes: Sequence[Change]) -> Focus:
        return None

    # -- acting -----------------------------------------------------------------------------------------------------

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        results = []
        for group in groups:
            started = self._clock.now()
            error: ReconcilerError | None = None
            try:
                for change in group.changes:
                    await self._apply(change.action)
            except ReconcilerError as refused:
                error = refused
            results.append(GroupResult(group, error, seconds=self._clock.now() - started))
        return results

    async def _apply(self, action: Apply) -> None:
        try:
            for step in action.steps:
                await self._take(action.unit, step)
        finally:
            if self.driver.ready:
                await self.driver.read_again(action.unit)

    async def _take(self, name: str, step: Step) -> None:
        """Take it, and keep what it means for later passes."""
        if isinstance(step, Start) or (isinstance(step, Restart) and step.fault):
            self._count(name)
        await perform(self.driver, name, step)
        if isinstance(step, ReloadUnit):
            files.has_read(self._units.setdefault(name, Kept()), await self.driver.unit(name), step.digest)

    def _count(self, name: str) -> None:
        kept = self._units.setdefault(name, Kept())
        kept.count(self._clock.now())
        if kept.vain > 1:  # it may be given up now, which others wait for
            self._changed(None, f"{name} was started in vain")

    async def prove(self, scope: Scope) -> None:
        if scope.name in self._units:
            await self.driver.read_again(scope.name)

    # -- the streams ------------------------------------------------------------------------------------------------

    async def watch(self) -> AsyncIterator[Event]:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.driver.run(), name="systemd-driver")
            self._healths.open(group)
            self._files.listen()
            try:
                while True:
                    yield await self.events.get()
            finally:
                running.cancel()
                self._healths.close()
                self._files.close()

    def _changed(self, names: frozenset[str] | None, why: str) -> None:
        for name, kept in list(self._units.items()):
            if names is None or name in names or not names.isdisjoint(kept.others):
                self._tell(name, why)

    def _tell(self, name: str, why: str) -> None:
        self.events.put_nowait(Event(scope_of(name), None, why))


def _members(view: View, group: str) -> dict[str, ServiceSpec]:
    """The declared members of a group, in its order."""
    found = (r.spec for r in view.everything.values() if isinstance(r.spec, ServiceSpec) and r.spec.group == group)
    return {spec.name: spec for spec in sorted(found, key=lambda spec: (spec.order, spec.name))}


def _last_lines(name: str, timeout: float) -> str:
    """What the unit said last, in one line; '' when the journal cannot be read."""
    argv = ["journalctl", f"--unit={name}", f"--lines={LINES}", "--output=cat", "--no-pager", "--quiet"]
    try:
        said = tools.run(argv, timeout=timeout, check=False)
    except DriverError:
        return ""
    return " | ".join(line.strip() for line in said.out.splitlines() if line.strip())
