"""Compare the declared bridges, ports and held attributes with the rows. Pure; the result is a plan.

What belongs together is one transaction: `patches.groups`. Ports are deleted before bridges, and what goes with its
bridge counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from controllers.ovsdb import bridges, ports
from controllers.ovsdb.draft import Draft
from controllers.ovsdb.patches import groups
from controllers.ovsdb.state import DeleteBridge, DeletePort, Observed
from desired.kinds.ovs import BondSpec, HeldPortSpec, PortSpec
from desired.resource import Resource, ResourceId
from reconciler.contract import Group, Plan, View


def diff(view: View, observed: Observed) -> Plan:
    """The plan for OVSDB, or for the part of it that `observed.names` narrows to."""
    draft = Draft(view, observed)
    bridge_names, port_names = _names(draft)
    for name in bridge_names:
        bridges.look(draft, name)
    for name in port_names:
        ports.look(draft, name)
    for resource in _held(draft):
        ports.held(draft, resource)
    whole = observed.names is None
    return Plan(
        (*groups(draft.changes, view.resources), *_deletes(draft)),
        tuple(draft.findings),
        _owned(draft) if whole else {},
        None if whole else frozenset(draft.looked_at),
    )


def _names(draft: Draft) -> tuple[list[str], list[str]]:
    """Names of bridges and of ports to look at. A bridge's own LOCAL port is not a port of its own here."""
    names, declared, replica = draft.observed.names, draft.view.resources, draft.replica
    if names is None:
        every_bridge = {rid.name for rid in declared if rid.kind == "bridge"} | replica.bridges.keys()
        every_port = {rid.name for rid in declared if rid.kind in {"port", "bond"}} | replica.ports.keys()
        return sorted(every_bridge), sorted(every_port - every_bridge)
    some = {name for name in names if name in replica.bridges or ResourceId("bridge", name) in declared}
    return sorted(some), sorted((names - some) | _ports_of_changed(draft, some))


def _ports_of_changed(draft: Draft, names: set[str]) -> set[str]:
    """A bridge that is gone took its ports along; they come back in its transaction. One of others may have come."""
    changed = {
        name
        for name in names
        if name not in draft.replica.bridges or ResourceId("bridge", name) not in draft.view.resources
    }
    if not changed:
        return set()
    return {
        rid.name
        for rid, resource in draft.view.resources.items()
        if isinstance(resource.spec, PortSpec | BondSpec) and resource.spec.bridge in changed
    }


def _held(draft: Draft) -> Iterator[Resource]:
    """Held ports to look at. A narrowed pass finds them by the port's iface-id; one just unplugged, by all."""
    names = draft.observed.names
    for rid in draft.observed.held:
        resource = draft.view.resources[rid]
        assert isinstance(resource.spec, HeldPortSpec)
        if names is None:
            yield resource
            continue
        plugged = draft.replica.ports_by_iface_id(resource.id.name)
        if not plugged or not names.isdisjoint(plugged):
            yield resource


def _deletes(draft: Draft) -> Iterator[Group]:
    gone = {c.resource.name: c.resource for c in draft.deletes if isinstance(c.action, DeleteBridge)}
    changes = []
    for change in sorted(draft.deletes, key=lambda c: (isinstance(c.action, DeleteBridge), c.resource)):
        inside = gone.get(change.action.bridge) if isinstance(change.action, DeletePort) else None
        changes.append(replace(change, inside=inside) if inside is not None else change)
    if changes:
        yield Group(tuple(changes), divisible=True)


def _owned(draft: Draft) -> dict[str, int]:
    counts = Counter({"bridge": sum(draft.owns(row) for row in draft.replica.bridges.values())})
    for row in draft.replica.ports.values():
        if draft.owns(row):
            counts["bond" if len(row.interfaces) > 1 else "port"] += 1
    return dict(counts)
