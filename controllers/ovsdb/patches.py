"""A patch pair never makes a loop (LP#1514056), and what belongs together becomes one transaction.

Between two bridges that are not both `fail_mode: secure`, frames would be flooded round before any flow stops them.
Such a pair is made with a dead peer; when the flows of both bridges are settled the real peer is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from controllers.drivers.ovsdb.replica import Replica
from controllers.drivers.ovsdb.rows import InterfaceRow
from controllers.ovsdb.draft import Draft
from controllers.ovsdb.state import CreateBridge, CreatePort
from desired.kinds.ovs import BridgeSpec, PortSpec
from desired.resource import Mode, ResourceId, Resources
from reconciler.contract import Change, Group, Scope


def loop_guards(draft: Draft, spec: PortSpec) -> tuple[Scope, ...]:
    """The flow scopes that must be settled before this patch port may carry traffic; empty: it may."""
    if spec.type != "patch" or spec.peer is None:
        return ()
    peer = draft.view.resources.get(ResourceId("port", spec.peer))
    other = peer.spec.bridge if peer is not None and isinstance(peer.spec, PortSpec) else None
    other = other or draft.replica.bridge_of_port(spec.peer)
    bridges = [name for name in (spec.bridge, other) if name is not None]
    if all(_is_secure(draft, name) for name in bridges):
        return ()
    guards = [Scope("flow", name) for name in bridges if _has_flows(draft, name)]
    return tuple(guard for guard in guards if guard not in draft.view.settled)


def usable_peer(replica: Replica, name: str, interface: InterfaceRow) -> InterfaceRow | None:
    """The peer of a patch port that names this port as its own, in the same datapath, and has its number."""
    peer = interface.options.get("peer", "")
    other = replica.interfaces.get(peer)
    if interface.type != "patch" or other is None or other.type != "patch" or other.options.get("peer") != name:
        return None
    bridges = [replica.bridges.get(replica.bridge_of_port(port) or "") for port in (name, peer)]
    same = len({bridge.datapath_type for bridge in bridges if bridge is not None}) == 1
    return other if same and (other.ofport or 0) > 0 else None


def peers_of(action: CreatePort) -> set[str]:
    """What the ports of this action name as their other ends."""
    options = [interface.get("options") for interface in action.interfaces.values()]
    return {str(one["peer"]) for one in options if isinstance(one, Mapping) and "peer" in one}


def _is_secure(draft: Draft, bridge: str) -> bool:
    declared = draft.view.resources.get(ResourceId("bridge", bridge))
    if declared is not None and isinstance(declared.spec, BridgeSpec):
        return declared.spec.fail_mode == "secure"
    row = draft.replica.bridges.get(bridge)
    return row is not None and row.fail_mode == "secure"


def _has_flows(draft: Draft, bridge: str) -> bool:
    return any(rid.kind == "flow" for rid in draft.view.of(Scope("flow", bridge)))


def groups(changes: Iterable[Change], resources: Resources) -> Iterator[Group]:
    """Connected changes are one indivisible group each; all the rest is one divisible group (and one transaction).

    What is only observed is connected with nothing: it must not hold up what is enforced.
    """
    joining: dict[ResourceId, Change] = {}
    single: list[Change] = []
    for change in changes:
        new = isinstance(change.action, CreateBridge | CreatePort)
        if new and resources[change.resource].spec.mode is Mode.ENFORCE:
            joining[change.resource] = change
        else:
            single.append(change)
    for members in _sets(joining):
        if len(members) == 1:
            single.extend(members)
        else:
            yield Group(tuple(sorted(members, key=_bridges_first)))
    if single:
        yield Group(tuple(single), divisible=True)


def _sets(every: Mapping[ResourceId, Change]) -> Iterable[Sequence[Change]]:
    """The connected sets."""
    parent = {resource: resource for resource in every}

    def root(rid: ResourceId) -> ResourceId:
        while parent[rid] != rid:
            rid = parent[rid]
        return rid

    for change in every.values():
        for other in _connected(change, every):
            parent[root(change.resource)] = root(other)
    connected: dict[ResourceId, list[Change]] = {}
    for change in every.values():
        connected.setdefault(root(change.resource), []).append(change)
    return connected.values()


def _connected(change: Change, every: Mapping[ResourceId, Change]) -> Iterator[ResourceId]:
    """What a new port has to appear together with: its new bridge, its new peer."""
    if not isinstance(change.action, CreatePort):
        return
    bridge = every.get(ResourceId("bridge", change.action.bridge))
    if bridge is not None and isinstance(bridge.action, CreateBridge):
        yield bridge.resource
    for name in sorted(peers_of(change.action)):
        peer = every.get(ResourceId("port", name))
        if peer is not None and isinstance(peer.action, CreatePort):
            yield peer.resource


def _bridges_first(change: Change) -> tuple[bool, ResourceId]:
    return (change.resource.kind != "bridge", change.resource)
