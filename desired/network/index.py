"""What refers to what in a model: names and ids resolved, objects sorted to the network and router they belong to.

`indexed` reads a whole model; `following` keeps an index up to date while a few objects change. Neither looks at
addresses; `build` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from desired.network.legs import Leg, Legs, Places, legs_of
from desired.network.model import (
    KINDS,
    Model,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    NodeSpec,
    ObjectSpec,
    Owner,
    RouterSpec,
    SubnetSpec,
    object_id,
)
from desired.network.resolver import Faults, Ids, Resolver
from desired.network.topology import Node
from desired.resource import Mode, Resource, ResourceId

ROUTER_OWNERS = frozenset({Owner.ROUTER_INTERFACE, Owner.ROUTER_GATEWAY})
_NOT_ALONE = SubnetSpec, NeutronPortSpec, NeutronFloatingIpSpec
"""What is part of a network's or router's share of a node, and is held as the whole of it is."""

WITH_ID = frozenset(kind.kind for kind in KINDS if issubclass(kind, ObjectSpec))

Rids = frozenset[ResourceId]


@dataclass(frozen=True, slots=True)
class Index:
    """The model in groups. Networks and routers are named by id, everything else by resource id."""

    model: Model
    ids: Ids
    nodes: Mapping[str, Node]
    network_nodes: tuple[str, ...]
    subnets: Mapping[str, Rids]
    ports: Mapping[str, Rids]
    floats: Mapping[str, Rids]
    """Floating IPs by the network that their address is of."""
    float_refs: Mapping[str, Rids]
    """Floating IPs by what they say their port is."""
    routers: Mapping[str, Legs]
    faults: Faults

    @property
    def resolver(self) -> Resolver:
        return Resolver(self.model, self.ids)

    def legs_on(self) -> Mapping[str, tuple[Leg, ...]]:
        """Implied router ports by network."""
        found: dict[str, list[Leg]] = defaultdict(list)
        for legs in self.routers.values():
            for leg in legs.implied:
                found[leg.network].append(leg)
        return {name: tuple(sorted(legs, key=lambda leg: (leg.router, leg.subnet))) for name, legs in found.items()}


def indexed(model: Model, before: Index | None = None) -> Index:
    """Read a whole model. Objects that are the same in `before` have the ids that they have there."""
    faults: dict[ResourceId, tuple[str, ...]] = {}
    ids = _ids(model, before, faults)
    resolver = Resolver(model, ids)
    nodes = {r.id.name: Node(r.id.name, r.spec, r.origin) for r in model.all(NodeSpec) if isinstance(r.spec, NodeSpec)}
    network_nodes = tuple(sorted(name for name, node in nodes.items() if "network" in node.spec.roles))
    places = Places(nodes, network_nodes)
    subnets: dict[str, set[ResourceId]] = defaultdict(set)
    ports: dict[str, set[ResourceId]] = defaultdict(set)
    floats: dict[str, set[ResourceId]] = defaultdict(set)
    refs: dict[str, set[ResourceId]] = defaultdict(set)
    routed: dict[str, set[ResourceId]] = defaultdict(set)
    for resource in _usable(model, ids):
        if isinstance(resource.spec, _NOT_ALONE) and (resource.spec.adopt or resource.spec.mode is Mode.OBSERVE):
            note(faults, resource.id, "adopt and mode are for its network or router, its node, or the options")
        match resource.spec:
            case SubnetSpec() as spec:
                group = subnets
                network = resolver.network(spec.network)
            case NeutronPortSpec() as spec:
                group = ports
                network = port_network(resolver, nodes, resource, spec, faults)
                if spec.owner in ROUTER_OWNERS and network is not None:
                    routed[resolver.router(spec.device) or ""].add(resource.id)
            case NeutronFloatingIpSpec() as spec:
                group = floats
                network = resolver.float_network(spec)
                if spec.port is not None:
                    refs[spec.port].add(resource.id)
            case _:
                continue
        if network is not None:
            group[network].add(resource.id)
        elif not isinstance(spec, NeutronPortSpec):
            note(faults, resource.id, no_network(spec))
    routers = {
        own: legs_of(resolver, resource, frozenset(routed.get(own, ())), places, faults)
        for resource in _usable(model, ids)
        if isinstance(resource.spec, RouterSpec)
        for own in (ids.own[resource.id],)
    }
    groups = _frozen(subnets), _frozen(ports), _frozen(floats), _frozen(refs)
    return Index(model, ids, nodes, network_nodes, *groups, routers, faults)


def _usable(model: Model, ids: Ids) -> Iterable[Resource]:
    return (r for rid, r in model.objects.items() if rid in ids.own and rid not in ids.doubled)


def _ids(model: Model, before: Index | None, faults: dict[ResourceId, tuple[str, ...]]) -> Ids:
    own: dict[ResourceId, str] = {}
    by_id: dict[tuple[str, str], ResourceId] = {}
    doubled: set[ResourceId] = set()
    known = {} if before is None else before.ids.own
    old = {} if before is None else before.model.objects
    for rid, resource in model.objects.items():
        if rid.kind not in WITH_ID:
            continue
        own[rid] = known[rid] if old.get(rid) is resource else object_id(resource)
        key = rid.kind, own[rid]
        other = by_id.get(key)
        if other is None or rid < other:
            by_id[key] = rid
        if other is not None:
            doubled.add(max(rid, other))
    for rid in doubled:
        note(faults, rid, f"its id {own[rid]} is that of {by_id[rid.kind, own[rid]]} as well")
    return Ids(own, by_id, frozenset(doubled))


def port_network(
    resolver: Resolver,
    nodes: Mapping[str, Node],
    resource: Resource,
    spec: NeutronPortSpec,
    faults: dict[ResourceId, tuple[str, ...]],
) -> str | None:
    network = resolver.network(spec.network)
    if network is None:
        note(faults, resource.id, f"there is no network {spec.network!r}")
    elif spec.owner in ROUTER_OWNERS and resolver.router(spec.device) is None:
        note(faults, resource.id, f"its device {spec.device!r} is no router")
    if spec.node is not None and spec.node not in nodes:
        note(faults, resource.id, f"there is no node {spec.node!r}; the port is taken to be nowhere")
    return network


def no_network(spec: SubnetSpec | NeutronFloatingIpSpec) -> str:
    if isinstance(spec, NeutronFloatingIpSpec) and spec.network is None:
        return f"no external network has a subnet with {spec.floating}"
    return f"there is no network {spec.network!r}"


def note(faults: dict[ResourceId, tuple[str, ...]], rid: ResourceId, message: str) -> None:
    faults[rid] = (*faults.get(rid, ()), message)


def _frozen(groups: Mapping[str, set[ResourceId]]) -> dict[str, Rids]:
    return {name: frozenset(group) for name, group in groups.items()}


def declared_node(spec: NeutronPortSpec, nodes: Mapping[str, Node]) -> str:
    """Where a port is bound, '' when nowhere."""
    return spec.node if spec.node is not None and spec.node in nodes else ""
