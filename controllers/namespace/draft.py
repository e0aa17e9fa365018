"""A plan in the making: what was found so far of one namespace, and what will be there once the plan is carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controllers.drivers.netlink.inside import HOST
from controllers.drivers.netlink.replica import Space
from controllers.drivers.netlink.rows import Link
from controllers.namespace.state import Action, Observed
from controllers.namespace.wanted import Wanted
from desired.resource import Resource, ResourceId
from reconciler.contract import Change, Disruption, Finding, Outcome, Verb, View

_NO_LINKS: Mapping[str, Link] = {}


@dataclass(slots=True)
class Draft:
    """`changes` and `deletes` are in the order in which they are carried out, deletes first."""

    view: View
    observed: Observed
    changes: list[Change] = field(default_factory=list)
    deletes: list[Change] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)
    """Devices that the plan makes or moves in: nothing is on them yet."""
    raised: set[str] = field(default_factory=set)
    going: set[str] = field(default_factory=set)
    """Devices that the plan deletes: what is on them goes with them."""
    new: bool = False
    """The plan makes the namespace itself."""
    ours: bool = False
    """The namespace carries our mark (the host never does)."""

    @property
    def name(self) -> str:
        return self.observed.name

    @property
    def wanted(self) -> Wanted:
        return self.observed.wanted

    @property
    def space(self) -> Space | None:
        return None if self.new else self.observed.space

    @property
    def host(self) -> Space:
        return self.observed.spaces[HOST]

    def links(self) -> Mapping[str, Link]:
        space = self.space
        return _NO_LINKS if space is None else space.by_name()

    def here(self, dev: str) -> Link | None:
        """The device as it will stay: None for one that is missing, made anew or going."""
        if dev in self.fresh or dev in self.going:
            return None
        return self.links().get(dev)

    def change(  # noqa: PLR0913 - what a Change has
        self,
        resource: Resource,
        action: Action,
        why: str,
        *,
        verb: Verb = Verb.CREATE,
        before: str = "",
        after: str = "",
        disruption: Disruption = Disruption.NONE,
    ) -> None:
        self.changes.append(Change(resource.id, verb, action, why, before, after, disruption))

    def delete(self, rid: ResourceId, action: Action, *, ours: bool, before: str = "") -> None:
        why = "no longer declared" if ours else "not declared, and declared exclusive here"
        self.deletes.append(Change(rid, Verb.DELETE, action, why, before, "", Disruption.OUTAGE, prune=ours))

    def delete_moved(self, rid: ResourceId, action: Action, *, to: str, before: str) -> None:
        """Take away from a NIC what is on the bridge that it was moved into."""
        why = f"it is on {to} now, of which the device has become a port"
        self.deletes.append(Change(rid, Verb.DELETE, action, why, before, f"on {to}", Disruption.NONE))

    def find(
        self,
        resource: Resource,
        outcome: Outcome,
        reason: str,
        waits_for: Iterable[ResourceId] = (),
        recheck: float | None = None,
    ) -> None:
        self.findings.append(Finding(resource.id, outcome, reason, tuple(waits_for), recheck))

    def pending(self, resource: Resource, reason: str) -> None:
        self.find(resource, Outcome.PENDING, reason)

    def find_id(self, rid: ResourceId, reason: str) -> None:
        """Say why something that is not declared is still there."""
        self.findings.append(Finding(rid, Outcome.PENDING, reason))

    def conflict(self, resource: Resource, what: str) -> None:
        reason = f"{what} is there and is not ours; 'adopt: true' at {resource.origin} takes it over"
        self.find(resource, Outcome.CONFLICT, reason)
