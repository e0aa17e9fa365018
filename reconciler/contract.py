"""What the engine and a controller say to each other. The engine knows nothing else of any kind.

A *scope* is a natural unit of observation and the key of the queue: OVSDB, one bridge's flow table. A pass over a
scope observes it (read-only), diffs it (pure) into a *plan* of *groups*, and hands the groups that the gates admit
back to the controller to act on. Everything here is data that the doors can print.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

from desired.resource import Resource, ResourceId, Resources, Spec
from reconciler.errors import ReconcilerError


class Scope(NamedTuple):
    """A unit of observation, e.g. ``Scope("flow", "br-int")`` or ``Scope("ovsdb", "")``."""

    controller: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.controller}/{self.name}" if self.name else self.controller


Focus = frozenset[Hashable] | None
"""Where in a scope to look, in the controller's own terms (port names, flow keys). None means everywhere."""


class Event(NamedTuple):
    """Look at `scope` again. `focus` narrows where; it is never needed for correctness."""

    scope: Scope
    focus: Focus = None
    reason: str = ""


class Verb(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Disruption(StrEnum):
    """What traffic notices of an action: `none`, `brief` (milliseconds), `outage` (until something is rebuilt)."""

    NONE = "none"
    BRIEF = "brief"
    OUTAGE = "outage"


class Later:
    """A text for people that is made when it is read: no repair waits for words."""

    __slots__ = ("_make", "_text")

    def __init__(self, make: Callable[[], str]) -> None:
        self._make: Callable[[], str] | None = make
        self._text = ""

    def __str__(self) -> str:
        if self._make is not None:
            self._text, self._make = self._make(), None
        return self._text

    def __repr__(self) -> str:
        return repr(str(self))

    def __bool__(self) -> bool:
        return bool(str(self))

    def __contains__(self, part: str) -> bool:
        return part in str(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str | Later) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


@dataclass(frozen=True, slots=True)
class Change:
    """One planned action on one resource. `before`/`after` are short human texts; `action` is the controller's own."""

    resource: ResourceId
    verb: Verb
    action: Any
    why: str
    before: str | Later = ""
    after: str | Later = ""
    disruption: Disruption = Disruption.NONE
    prune: bool = False
    """True when it deletes something of ours because it is no longer declared: the budget counts it."""
    inside: ResourceId | None = None
    """A contained thing that goes with its container's deletion; the budget counts the container once."""


@dataclass(frozen=True, slots=True)
class Group:
    """Changes that are one transaction. Gates admit or withhold it whole.

    `after` names what must be settled first: a resource that must be converged, or a scope whose last pass left
    nothing to do. `divisible` groups may be split freely (a bundle of flows); others only to find a culprit.
    """

    changes: tuple[Change, ...]
    after: tuple[ResourceId | Scope, ...] = ()
    divisible: bool = False


class Outcome(StrEnum):
    CONVERGED = "converged"
    PENDING = "pending"
    FAILED = "failed"
    CONFLICT = "conflict"
    CONTENDED = "contended"


@dataclass(frozen=True, slots=True)
class Finding:
    """A resource that is not as declared and for which there is no action now: it waits, conflicts or is invalid."""

    resource: ResourceId
    outcome: Outcome
    reason: str
    waits_for: tuple[ResourceId | Scope, ...] = ()
    recheck: float | None = None
    """Seconds after which to look again although no event came (a deadline)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a diff found. `owned` counts marked things per kind in the scope (for the budget)."""

    groups: tuple[Group, ...] = ()
    findings: tuple[Finding, ...] = ()
    owned: Mapping[str, int] = field(default_factory=dict)
    looked_at: frozenset[ResourceId] | None = None
    """Which resources a narrowed pass looked at; None when it looked at all of the scope."""

    def __bool__(self) -> bool:
        return bool(self.groups or self.findings)


_UNDECLARED: Resources = {}


@dataclass(frozen=True, slots=True)
class View:
    """The desired side of one scope in one pass. `settled` are the scopes whose last pass left nothing to do."""

    scope: Scope
    resources: Resources
    revision: str = ""
    settled: AbstractSet[Scope] = frozenset()
    everything: Resources = field(default_factory=dict)
    """All resources of the node: for looking at the spec of a ref, never for planning."""
    scopes: Mapping[Scope, Resources] = field(default_factory=dict)
    """The same by scope; that of a scope is the same object until something declared for it changes."""

    news: AbstractSet[ResourceId] = frozenset()
    """What of the scope is declared otherwise than when it was last looked at."""

    def of(self, scope: Scope) -> Resources:
        """What is declared for another scope."""
        return self.scopes.get(scope, _UNDECLARED)


@dataclass(frozen=True, slots=True)
class GroupResult:
    """What became of one group. `culprits` are the resources the target blamed, when it said so."""

    group: Group
    error: ReconcilerError | None = None
    culprits: frozenset[ResourceId] = frozenset()
    seconds: float = 0.0


class Controller(Protocol):
    """One family of kinds. Its replica lives in a driver; `observe` reads it and canonicalises, and writes nothing."""

    name: str
    specs: tuple[type[Spec], ...]

    def scope(self, resource: Resource) -> Scope:
        """The scope in which `resource` is observed and held."""
        ...

    def scopes(self) -> Sequence[Scope]:
        """Scopes where something of ours may be although nothing is declared there (for prune)."""
        ...

    async def observe(self, view: View, focus: Focus) -> Any:
        """Read the replica. Raises NotReady when the target is not there, DriverError when it does not answer."""
        ...

    def diff(self, view: View, observed: Any) -> Plan:
        """Compare, purely. Called again on a fresh observation for verification."""
        ...

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        """Carry out whole groups, in order; one result for each. Never raises for a group that the target refused."""
        ...

    def focus(self, changes: Sequence[Change]) -> Focus:
        """Where to look to verify these changes."""
        ...

    def focus_on(self, scope: Scope, resources: Collection[ResourceId]) -> Focus:
        """Where to look when only these resources of the scope are declared otherwise than before (None: everywhere).

        Such a look must find them in `looked_at`, also those that are declared no longer.
        """
        ...

    async def prove(self, scope: Scope) -> None:
        """Prove the replica by a dump (at resync). Raises as `observe` does."""
        ...

    def watch(self) -> AsyncIterator[Event]:
        """Report scopes to look at: each once *after* it is listening, again whenever something may have changed.

        It may be spurious and must never miss; after a lost stream it reports every scope the stream covered.
        """
        ...


@runtime_checkable
class Prover(Protocol):
    """A controller of many scopes that proves them in bulk."""

    async def unchanged(self, views: Sequence[View]) -> Collection[Scope]:
        """Prove the replicas of these scopes, and say in which of them a pass would find what the last one found.

        That one looked at all of the scope and found nothing to do. Where this is in doubt, or cannot be read, the
        scope is not among them, and its pass says why. Raises nothing a target may cause.
        """
        ...


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """A line of the journal: one change and what became of it (`done`, `failed`, `withheld`, `planned`)."""

    resource: ResourceId
    verb: Verb
    why: str
    before: str
    after: str
    result: str
    detail: str = ""
    gate: str = ""
    drift: bool = False
    """True when the world changed and not what was declared."""
    disruption: Disruption = Disruption.NONE


@dataclass(frozen=True, slots=True)
class PassRecord:
    """One pass that found something. Times: `at` is wall-clock seconds, durations are seconds.

    `since_event` is from the first event that asked for the pass to its verification.
    """

    pass_id: int
    at: float
    scope: Scope
    trigger: str
    revision: str
    outcome: Outcome
    seconds: float
    since_event: float
    actions: tuple[ActionRecord, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class ResourceStatus:
    """Why a resource is not right. `gate` names the gate that withholds its action, if one does."""

    resource: ResourceId
    outcome: Outcome
    reason: str
    since: float
    gate: str = ""
    retry_at: float | None = None
    origin: str = ""


class Sink(Protocol):
    """Takes what the engine records: the store's writer, the live stream, the log, the metrics."""

    def record(self, entry: PassRecord) -> None: ...
