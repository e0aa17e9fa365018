"""A small world for the laws of the engine: places with things, a controller that interprets, a clock in virtual time.

The world refuses what it is told to refuse, loses a stream, hangs, crashes, and lets a rival in; tests look at
`World.places`, never at calls. `Lab` joins a world with an engine; `virtually` runs a coroutine in virtual time where
Hypothesis needs it (other tests use the mark ``looptime``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import looptime

from desired.resource import Mode, Origin, Resource, ResourceId, Spec
from desired.snapshot import Snapshot
from reconciler.contract import (
    ActionRecord,
    Change,
    Controller,
    Event,
    Finding,
    Focus,
    Group,
    GroupResult,
    Outcome,
    PassRecord,
    Plan,
    Scope,
    Verb,
    View,
)
from reconciler.engine import Engine
from reconciler.errors import DriverError, NotReady, ReconcilerError, TerminalError
from reconciler.gates.budget import removed
from reconciler.metrics import Metrics
from reconciler.settings import Settings

WALL = 1_780_000_000.0
HERE = Scope("world", "here")


class VirtualClock:
    """The loop's time; people's time runs along from WALL. `chance` is what `dice` says."""

    def __init__(self, dice: Callable[[], float] = lambda: 0.5) -> None:
        self.chance = dice

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return WALL + self.now()


def virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` to its end in virtual time."""
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(main())


class ThingSpec(Spec):
    """A thing at a place. `needs` are things (KIND/NAME) or scopes that must be settled first."""

    kind: ClassVar[str] = "thing"

    value: str = "v"
    place: str = "here"
    needs: tuple[str, ...] = ()
    together: str = ""
    inside: str = ""

    def refs(self) -> tuple[ResourceId, ...]:
        named = [*self.needs, *([self.inside] if self.inside else [])]
        return tuple(ResourceId.parse(name) for name in named if not name.startswith("world/"))


class BoxSpec(ThingSpec):
    """A thing of another kind, that others may be inside of."""

    kind: ClassVar[str] = "box"


def thing(name: str, value: str = "v", *, spec: type[ThingSpec] = ThingSpec, **fields: Any) -> Resource:
    """A declared thing."""
    source = fields.pop("source", "files")
    made = spec(value=value, **fields)
    return Resource(ResourceId(spec.kind, name), made, Origin(source), made.generation())


def observed_only(name: str, value: str = "v", **fields: Any) -> Resource:
    return thing(name, value, mode=Mode.OBSERVE, **fields)


@dataclass(frozen=True, slots=True)
class Held:
    """What the world has: `ours` is the mark."""

    value: str
    ours: bool = True
    inside: str = ""


@dataclass(frozen=True, slots=True)
class Put:
    place: str
    value: str
    inside: str = ""


@dataclass(frozen=True, slots=True)
class Remove:
    place: str


@dataclass(slots=True)
class World:
    """The outside. `places[place][id]` is what is there."""

    places: dict[str, dict[ResourceId, Held]] = field(default_factory=dict)
    refuses: set[ResourceId] = field(default_factory=set)
    lies_about: set[ResourceId] = field(default_factory=set)
    """Accepted and not done."""
    away: set[str] = field(default_factory=set)
    mute: set[str] = field(default_factory=set)
    writes: list[tuple[float, ResourceId, Verb]] = field(default_factory=list)
    looks: list[tuple[float, Scope, Focus]] = field(default_factory=list)
    proofs: list[tuple[float, Scope]] = field(default_factory=list)
    listeners: list[Callable[[Event], None]] = field(default_factory=list)
    before_acting: Callable[[], None] = lambda: None
    after_writing: Callable[[ResourceId], None] = lambda _: None
    act_seconds: float = 0.0
    take_up_seconds: float = 0.0
    """What was made is there at once, and not usable before."""
    usable_from: dict[ResourceId, float] = field(default_factory=dict)
    look_seconds: float = 0.0
    slow: dict[str, float] = field(default_factory=dict)
    unsatisfied: set[ResourceId] = field(default_factory=set)
    """These wait for what they need whatever it says: a finding instead of a change."""
    crashes: int = 0
    """So many observations end in a defect of the controller."""
    watch_dies: asyncio.Event | None = None

    def at(self, place: str = "here") -> dict[ResourceId, Held]:
        return self.places.setdefault(place, {})

    def has(self, name: str, place: str = "here", kind: str = "thing") -> str | None:
        held = self.at(place).get(ResourceId(kind, name))
        return None if held is None else held.value

    def tell(self, place: str = "here", focus: Focus = None, reason: str = "changed") -> None:
        for listener in self.listeners:
            listener(Event(Scope("world", place), focus, reason))

    def set(self, name: str, value: str, *, place: str = "here", ours: bool = True, quietly: bool = False) -> None:
        """Somebody sets a thing; the stream says so."""
        rid = ResourceId("thing", name)
        self.at(place)[rid] = Held(value, ours)
        if not quietly:
            self.tell(place, frozenset([rid]))

    def lose(self, name: str, *, place: str = "here", quietly: bool = False) -> None:
        """Somebody removes a thing; the stream says so."""
        rid = ResourceId("thing", name)
        self.at(place).pop(rid, None)
        if not quietly:
            self.tell(place, frozenset([rid]))

    def write(self, rid: ResourceId, action: Put | Remove, now: float, verb: Verb) -> None:
        if rid in self.lies_about:
            return
        self.writes.append((now, rid, verb))
        if isinstance(action, Put):
            self.usable_from[rid] = now + self.take_up_seconds
            self.at(action.place)[rid] = Held(action.value, inside=action.inside)
        else:
            self.at(action.place).pop(rid, None)
        self.after_writing(rid)


@dataclass(frozen=True, slots=True)
class Seen:
    things: dict[ResourceId, Held]
    focus: frozenset[ResourceId] | None


class WorldController:
    """Holds things in a `World`; what it is told to do happens there or is refused there."""

    name = "world"
    specs: tuple[type[Spec], ...] = (ThingSpec, BoxSpec)

    def __init__(self, world: World) -> None:
        self.world = world

    def scope(self, resource: Resource) -> Scope:
        assert isinstance(resource.spec, ThingSpec)
        return Scope(self.name, resource.spec.place)

    def scopes(self) -> Sequence[Scope]:
        left = (place for place, held in self.world.places.items() if any(h.ours for h in held.values()))
        return [Scope(self.name, place) for place in left]

    async def observe(self, view: View, focus: Focus) -> Seen:
        world, place = self.world, view.scope.name
        world.looks.append((asyncio.get_running_loop().time(), view.scope, focus))
        if seconds := world.slow.get(place, world.look_seconds):
            await asyncio.sleep(seconds)
        if world.crashes:
            world.crashes -= 1
            raise ZeroDivisionError("a defect of the controller")
        if place in world.away:
            raise NotReady(f"{place} is away")
        if place in world.mute:
            raise DriverError(f"{place} does not answer")
        narrowed = None if focus is None else frozenset(rid for rid in focus if isinstance(rid, ResourceId))
        return Seen(dict(world.at(place)), narrowed)

    def diff(self, view: View, observed: Seen) -> Plan:
        groups: dict[str, list[Change]] = {}
        waiting: list[Group] = []
        findings: list[Finding] = []
        names = view.resources.keys() | observed.things.keys() if observed.focus is None else observed.focus
        for rid in sorted(names):
            resource, held = view.resources.get(rid), observed.things.get(rid)
            if resource is None:
                if held is not None and held.ours:
                    inside = ResourceId.parse(held.inside) if held.inside else None
                    gone = inside is not None and inside not in view.resources and inside in observed.things
                    remove, container = Remove(view.scope.name), inside if gone else None
                    change = Change(
                        rid, Verb.DELETE, remove, "no longer declared", held.value, prune=True, inside=container
                    )
                    groups.setdefault("", []).append(change)
                continue
            spec = resource.spec
            assert isinstance(spec, ThingSpec)
            if held == Held(spec.value, inside=spec.inside):
                left = self.world.usable_from.get(rid, 0.0) - asyncio.get_running_loop().time()
                if left > 0:
                    findings.append(Finding(rid, Outcome.PENDING, "not taken up yet", recheck=left))
                continue
            if held is not None and not held.ours and not spec.adopt:
                findings.append(Finding(rid, Outcome.CONFLICT, f"{rid} is not ours"))
                continue
            verb, why = (Verb.CREATE, "missing") if held is None else (Verb.UPDATE, "value differs")
            put = Put(view.scope.name, spec.value, spec.inside)
            change = Change(rid, verb, put, why, held.value if held else "", spec.value)
            if rid in self.world.unsatisfied:
                waits_for = tuple(map(_ref, spec.needs))
                findings.append(Finding(rid, Outcome.PENDING, f"waits for {spec.needs}", waits_for))
            elif spec.needs:
                waiting.append(Group((change,), after=tuple(map(_ref, spec.needs))))
            else:
                groups.setdefault(spec.together, []).append(change)
        owned: dict[str, int] = {}
        for rid, held in observed.things.items():
            if held.ours:
                owned[rid.kind] = owned.get(rid.kind, 0) + 1
        made = [Group(tuple(changes), divisible=not name) for name, changes in sorted(groups.items())]
        looked_at = observed.focus
        return Plan((*made, *waiting), tuple(findings), {} if looked_at is not None else owned, looked_at)

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        return [await self._act(group) for group in groups]

    async def _act(self, group: Group) -> GroupResult:
        world = self.world
        world.before_acting()
        if world.act_seconds:
            await asyncio.sleep(world.act_seconds)
        place = group.changes[0].action.place
        error: ReconcilerError | None = None
        if place in world.away:
            error = NotReady(f"{place} is away")
        elif refused := [c.resource for c in group.changes if c.resource in world.refuses]:
            error = TerminalError(f"refused: {refused[0]}")
        if error is None:
            for change in group.changes:
                world.write(change.resource, change.action, asyncio.get_running_loop().time(), change.verb)
        return GroupResult(group, error)

    def focus_on(self, scope: Scope, resources: Collection[ResourceId]) -> Focus:
        return frozenset(resources)

    def focus(self, changes: Sequence[Change]) -> Focus:
        return frozenset(change.resource for change in changes)

    async def prove(self, scope: Scope) -> None:
        self.world.proofs.append((asyncio.get_running_loop().time(), scope))

    async def watch(self) -> AsyncIterator[Event]:
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.world.watch_dies = dies = asyncio.Event()
        self.world.listeners.append(events.put_nowait)
        try:
            async with asyncio.TaskGroup() as group:
                death = group.create_task(_then(dies, events), name="death")
                try:
                    while (event := await events.get()) is not None:
                        yield event
                    raise DriverError("the stream broke off")
                finally:
                    death.cancel()
        finally:
            self.world.listeners.remove(events.put_nowait)


async def _then(event: asyncio.Event, events: asyncio.Queue[Event | None]) -> None:
    await event.wait()
    events.put_nowait(None)


def _ref(name: str) -> ResourceId | Scope:
    return Scope(*name.split("/", 1)) if name.startswith("world/") else ResourceId.parse(name)


class Journal:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.entries: list[PassRecord] = []

    def record(self, entry: PassRecord) -> None:
        self.entries.append(entry)

    def actions(self, result: str = "") -> list[ActionRecord]:
        return [a for entry in self.entries for a in entry.actions if result in {"", a.result}]


class Lab:
    """A world, an engine over it, and a journal. Pass `controllers` for another engine than the world's."""

    def __init__(
        self,
        *,
        dice: Callable[[], float] = lambda: 0.5,
        started: bool = True,
        controller: Callable[[World], Controller] = WorldController,
        **settings: Any,
    ) -> None:
        self.world = World()
        self.controller = controller(self.world)
        self.journal = Journal()
        self.settings = Settings(node="n", **settings)
        self.metrics = Metrics(controllers=["world"], kinds=["thing", "box"])
        self.engine = Engine(
            [self.controller],
            settings=self.settings,
            clock=VirtualClock(dice),
            metrics=self.metrics,
            sinks=[self.journal],
        )
        if started:
            self.engine.gates.in_sync.started()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Lab]:
        """The engine works within this block."""
        task = asyncio.create_task(self.engine.run(), name="engine")
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def desire(self, *resources: Resource) -> None:
        """Make these, and nothing else, what should be."""
        snapshot = Snapshot.of(resources)
        self.engine.desire(snapshot, removed(self.engine.book.snapshot.resources, snapshot.resources))

    async def settle(self, seconds: float = 0.05) -> None:
        """Let virtual time go on."""
        await asyncio.sleep(seconds)

    def status(self, name: str, kind: str = "thing") -> Outcome:
        return self.told(name, kind)[0]

    def told(self, name: str, kind: str = "thing") -> tuple[Outcome, str, str]:
        """Outcome, gate and reason of a resource."""
        for status in self.engine.statuses.not_right():
            if status.resource == ResourceId(kind, name):
                return status.outcome, status.gate, status.reason
        return Outcome.CONVERGED, "", ""

    def things(self, place: str = "here") -> dict[str, str]:
        """What is at a place, by name."""
        return {rid.name: held.value for rid, held in self.world.at(place).items()}


def many(count: int, prefix: str = "t", **fields: Any) -> Iterable[Resource]:
    return [thing(f"{prefix}{number:03}", **fields) for number in range(count)]
