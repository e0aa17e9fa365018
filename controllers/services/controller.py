"""The controller of services: joins the pure diff with systemd, the unit files on disk, and the checks."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controllers.drivers import tools
from controllers.drivers.files import disk, marks
from controllers.drivers.files.disk import FileState, Kind, Wanted
from controllers.drivers.files.watcher import PathWatcher
from controllers.drivers.netlink.whereabouts import place_of
from controllers.drivers.probes.ask import Asker, ask
from controllers.drivers.systemd import runs
from controllers.drivers.systemd.bus import Systemd
from controllers.drivers.systemd.runs import Reading
from controllers.drivers.systemd.units import UnitState
from controllers.services.diff import diff, scope_of
from controllers.services.health import Healths
from controllers.services.state import (
    NAME,
    UNITS,
    Apply,
    Disable,
    Enable,
    Fitness,
    Health,
    Load,
    Mask,
    Observed,
    Reload,
    ReloadUnit,
    RemoveFile,
    Restart,
    Start,
    Step,
    Stop,
    Tries,
    Unmask,
    WriteFile,
)
from desired.kinds.service import ServiceSpec
from desired.resource import Resource, ResourceId, Spec
from reconciler.clock import Clock, SystemClock
from reconciler.contract import Change, Event, Focus, Group, GroupResult, Plan, Scope, View
from reconciler.errors import DriverError, ReconcilerError
from reconciler.stream import EventStream

PATIENCE = 1.0
"""Seconds that a pass waits for a job of systemd's; a unit that takes longer is heard of when it is there."""
STEADY = 2.0
"""Seconds a unit must have run (and its checks succeeded) for its start not to have been in vain."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
LINES = 5


@dataclass(slots=True)
class _Unit:
    """What is kept of a declared unit between passes."""

    paths: frozenset[str] = frozenset()
    """Files of which a change is heard."""
    depends: frozenset[str] = frozenset()
    """Files that a restart depends on."""
    others: frozenset[str] = frozenset()
    generation: int = 0
    vain: int = 0
    next_at: float = 0.0
    judged: float = 0.0
    """The start (wall clock) of the last run whose end was seen."""
    worked: bool = False
    loaded: tuple[float, str] = (0.0, "")
    """Start of a run, and the digest of the files it was started with."""
    reloads: frozenset[str] = frozenset()
    """Files that a reload reads again."""
    reloaded: tuple[float, str] = (0.0, "")
    """Start of a run, and the digest of those files when it read them last."""
    namespace: str = ""
    said: str = ""


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
        self._watcher = PathWatcher(self._file_changed)
        self._healths = Healths(lambda name: self._changed(frozenset({name}), "a check answers otherwise"), asker)
        self._units: dict[str, _Unit] = {}
        self._users: dict[str, set[str]] = {}
        self._left: set[str] | None = None

    def scope(self, resource: Resource) -> Scope:
        assert isinstance(resource.spec, ServiceSpec)
        return scope_of(resource.spec.name)

    def scopes(self) -> Sequence[Scope]:
        """Units of which a file is ours. Looked for once; afterwards they are known."""
        if self._left is None:
            self._left = {_unit_of(path) for path in marks.find(self._owner, UNITS)}
        return [scope_of(name) for name in sorted(self._left)]

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
        kept = self._units.setdefault(name, _Unit())
        self._track(name, kept, spec)
        files = self._files(name, spec)
        now, wall = self._clock.now(), self._clock.wall()
        if spec is None:
            self._healths.forget(name)
            if kept.generation:
                kept.generation = 0
                self._changed(frozenset({name}), f"{name} is no longer declared")
            if not any(marks.is_ours(state, self._owner) for state in files.values()):
                self._forget(name)
            return Observed(unit, self._owner, now, wall, files, namespace=kept.namespace)
        assert resource is not None
        if kept.generation != resource.generation:
            kept.generation, kept.vain, kept.next_at, kept.said = resource.generation, 0, 0.0, ""
            for member in () if spec.group is None else _members(view, spec.group):
                if member != name:
                    self._tell(member, f"{name} of its group is declared otherwise")
        runs = unit.active in {"active", "reloading", "refreshing"}
        health = self._healths.follow(name, spec, unit.started if runs else 0.0) if spec.checks else Health()
        self._judge(kept, spec, unit, health, wall)
        if kept.vain >= spec.restarts and not kept.said and not runs:
            kept.said = await asyncio.to_thread(_last_lines, name, self._timeout)
        before = self._before(spec, view)
        kept.others = frozenset({*spec.after, *spec.requires, *before})
        kept.namespace = spec.namespace or ""
        return Observed(
            unit,
            self._owner,
            now,
            wall,
            files,
            self._newest(kept, unit),
            self._unread(kept, unit) if runs else ("", ""),
            place_of(unit.main_pid if runs else 0, spec.namespace, timeout=self._timeout) if spec.namespace else None,
            {other: await self._fitness(other, view) for other in sorted(kept.others)},
            health,
            Tries(kept.vain, kept.next_at),
            self._chosen(spec, view),
            before,
            kept.said,
        )

    @staticmethod
    def _judge(kept: _Unit, spec: ServiceSpec, unit: UnitState, health: Health, wall: float) -> None:
        """Was the last start in vain? Not when it has run for a while, and worked."""
        runs = unit.active in {"active", "reloading", "refreshing"}
        if runs:
            kept.worked = health.passed or not spec.checks
        elif unit.started == kept.judged:
            return  # its end was seen before: how long ago it began says nothing any more
        else:
            kept.judged = unit.started
            if unit.killed and kept.vain:  # by somebody, which says nothing against it; contention is the gate for that
                kept.vain, kept.next_at = kept.vain - 1, 0.0
        if kept.worked and wall - unit.started >= STEADY:
            kept.vain, kept.next_at, kept.said = 0, 0.0, ""

    async def _fitness(self, name: str, view: View) -> Fitness:
        """Does another unit work? Declared ones by their checks as well."""
        unit = await self.driver.unit(name)
        resource = view.everything.get(ResourceId(ServiceSpec.kind, name))
        spec = resource.spec if resource is not None else None
        kept = self._units.get(name, _Unit())
        hopeless = isinstance(spec, ServiceSpec) and kept.vain >= spec.restarts
        if unit.active not in {"active", "reloading", "refreshing"}:
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
        good = [name for name, restarts in members if self._units.get(name, _Unit()).vain < restarts]
        return good[0] if good else members[0][0] if members else ""

    def _before(self, spec: ServiceSpec, view: View) -> tuple[str, ...]:
        """What comes before it in its group; of a `one_of` in the group only the one that is to run."""
        if spec.group is None:
            return ()
        members = _members(view, spec.group)
        names = list(members)
        earlier = (members[name] for name in names[: names.index(spec.name)])
        return tuple(other.name for other in earlier if self._chosen(other, view) in {"", other.name})

    def _track(self, name: str, kept: _Unit, spec: ServiceSpec | None) -> None:
        """Hear of our unit files and of what the unit restarts with."""
        wanted = {f"{UNITS}/{name}", f"{UNITS}/{name}.d"}
        if spec is not None:
            dropins = (f"{UNITS}/{name}.d/{dropin}.conf" for dropin in spec.dropins)
            kept.depends = frozenset({*spec.restart_on, *dropins, *([f"{UNITS}/{name}"] if spec.unit else [])})
            kept.reloads = frozenset(spec.reload_on)
            wanted |= kept.depends | kept.reloads
        for path in wanted - kept.paths:
            self._users.setdefault(path, set()).add(name)
        for path in wanted:
            self._watcher.track(path)
        for path in kept.paths - wanted:
            self._unuse(path, name)
        kept.paths = frozenset(wanted)

    def _unuse(self, path: str, name: str) -> None:
        users = self._users.get(path, set())
        users.discard(name)
        if not users:
            self._users.pop(path, None)
            self._watcher.forget(path)

    def _forget(self, name: str) -> None:
        kept = self._units.pop(name, None)
        for path in kept.paths if kept is not None else ():
            self._unuse(path, name)
        if self._left is not None:
            self._left.discard(name)

    def _files(self, name: str, spec: ServiceSpec | None) -> dict[str, FileState]:
        """Our unit file and drop-ins, those declared and those that are left."""
        paths = {f"{UNITS}/{name}"}
        directory = Path(f"{UNITS}/{name}.d")
        if directory.is_dir():
            paths |= {str(path) for path in directory.iterdir() if path.suffix == ".conf"}
        declared = {f"{directory}/{dropin}.conf" for dropin in spec.dropins} if spec is not None else set()
        found = {path: disk.read(path, follow=False) for path in paths | declared}
        if self._left is not None and any(marks.is_ours(state, self._owner) for state in found.values()):
            self._left.add(name)
        return {path: state for path, state in found.items() if state.kind is not Kind.MISSING}

    @staticmethod
    def _newest(kept: _Unit, unit: UnitState) -> tuple[float, str]:
        """The latest time of change of what a restart depends on; what is again as this run has read it is none."""
        newest, now = _read(kept.depends)
        if not unit.started or not kept.depends:
            return newest
        if newest[0] <= unit.started:
            if kept.loaded != (unit.started, now):
                kept.loaded = (unit.started, now)
                runs.remember(unit.control_group, unit.started, now)
            return newest
        known = kept.loaded[1] if kept.loaded[0] == unit.started else runs.recall(unit.control_group, unit.started)
        return (0.0, "") if known == now else newest

    @staticmethod
    def _unread(kept: _Unit, unit: UnitState) -> tuple[str, str]:
        """A file of `reload_on` that this run has not read as it is now, and the digest of all of them."""
        if not kept.reloads:
            return "", ""
        (changed, path), now = _read(kept.reloads)
        known = kept.reloaded[1] if kept.reloaded[0] == unit.started else ""
        known = known or runs.recall(unit.control_group, unit.started, Reading.AT_RELOAD)
        if known != now and changed > unit.started:
            return path, now
        if kept.reloaded != (unit.started, now):
            _remember(kept, unit, now)
        return "", ""

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
                await self._step(action.unit, step)
        finally:
            if self.driver.ready:
                await self.driver.read_again(action.unit)

    async def _step(self, name: str, step: Step) -> None:
        driver = self.driver
        match step:
            case WriteFile():
                await asyncio.to_thread(_write, step)
            case RemoveFile():
                await asyncio.to_thread(_remove, step.path)
            case Start():
                self._count(name)
                await driver.reset_failed(name)
                await driver.start(name, PATIENCE)
            case Restart():
                if step.fault:
                    self._count(name)
                await driver.restart(name, PATIENCE)
            case Stop():
                await driver.stop(name, PATIENCE)
            case ReloadUnit():
                await self._reload_unit(name, step.digest)
            case Load() | Reload() | Mask() | Unmask() | Enable() | Disable():
                await self._install(name, step)

    async def _reload_unit(self, name: str, digest: str) -> None:
        result = await self.driver.reload_unit(name, PATIENCE)
        if result not in {"done", ""}:
            raise DriverError(f"reloading {name}: {result}; its journal says why (ExecReload); tried again")
        _remember(self._units.setdefault(name, _Unit()), await self.driver.unit(name), digest)

    async def _install(self, name: str, step: Load | Reload | Mask | Unmask | Enable | Disable) -> None:
        driver = self.driver
        match step:
            case Load():
                unit = await driver.read_again(name)
                if not unit.installed or unit.need_reload:
                    await driver.reload()
            case Reload():
                await driver.reload()
            case Mask():
                await driver.mask(name)
            case Unmask():
                await driver.unmask(name)
            case Enable():
                await driver.enable(name)
            case Disable():
                await driver.disable(name)

    def _count(self, name: str) -> None:
        """One more start; in vain until it has run for a while."""
        kept = self._units.setdefault(name, _Unit())
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (kept.vain - 1)) if kept.vain else 0.0
        kept.vain += 1
        kept.next_at = self._clock.now() + delay
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
            self._watcher.listen()
            try:
                while True:
                    yield await self.events.get()
            finally:
                running.cancel()
                self._healths.close()
                self._watcher.close()

    def _changed(self, names: frozenset[str] | None, why: str) -> None:
        for name, kept in list(self._units.items()):
            if names is None or name in names or not names.isdisjoint(kept.others):
                self._tell(name, why)

    def _file_changed(self, path: str, why: str) -> None:
        names = self._users.get(path, set()) if path else self._units
        for name in sorted(names):
            self._tell(name, why)

    def _tell(self, name: str, why: str) -> None:
        self.events.put_nowait(Event(scope_of(name), None, why))


def _read(paths: frozenset[str]) -> tuple[tuple[float, str], str]:
    """The latest time of change of files, with its path, and a digest of them all."""
    newest, digest = (0.0, ""), hashlib.blake2b(digest_size=12)
    for path in sorted(paths):
        try:
            state = disk.read(path, follow=True)
        except DriverError:
            continue  # what cannot be read is no reason for a restart; the kind that holds it says so
        digest.update(f"{path}\0{len(state.content)}\0".encode() + state.content)
        if state.signature is not None:
            newest = max(newest, (state.signature.mtime_ns / 1e9, path))
    return newest, digest.hexdigest()


def _remember(kept: _Unit, unit: UnitState, digest: str) -> None:
    kept.reloaded = (unit.started, digest)
    runs.remember(unit.control_group, unit.started, digest, Reading.AT_RELOAD)


def _members(view: View, group: str) -> dict[str, ServiceSpec]:
    """The declared members of a group, in its order."""
    found = (r.spec for r in view.everything.values() if isinstance(r.spec, ServiceSpec) and r.spec.group == group)
    return {spec.name: spec for spec in sorted(found, key=lambda spec: (spec.order, spec.name))}


def _unit_of(path: str) -> str:
    """The unit that a unit file or drop-in is of."""
    parent = Path(path).parent
    return parent.name.removesuffix(".d") if parent.suffix == ".d" else Path(path).name


def _write(step: WriteFile) -> None:
    state = disk.read(step.path, follow=False)
    disk.replace(state, Wanted(step.content, 0, 0, 0o644, step.mark))


def _remove(path: str) -> None:
    disk.delete(disk.read(path, follow=False))
    directory = Path(path).parent
    if directory.suffix == ".d" and not any(directory.iterdir()):
        directory.rmdir()


def _last_lines(name: str, timeout: float) -> str:
    """What the unit said last, in one line; '' when the journal cannot be read."""
    argv = ["journalctl", f"--unit={name}", f"--lines={LINES}", "--output=cat", "--no-pager", "--quiet"]
    try:
        said = tools.run(argv, timeout=timeout, check=False)
    except DriverError:
        return ""
    return " | ".join(line.strip() for line in said.out.splitlines() if line.strip())
