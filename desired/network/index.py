"""What refers to what in a model: names and ids resolved, objects sorted to the network and router they belong to.

`indexed` reads a whole model. `with_changes` follows a few changed ports and floating IPs, which is what changes all
the time, and says which networks and routers that touches. Neither looks at addresses; `build` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


from desired.network.legs import Leg, Legs, legs_of
from desired.network.model import (
    Model,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    NodeSpec,
    Owner,
    RouterSpec,
    SubnetSpec,
    object_id,
)
from desired.network.resolver import EMPTY, Faults, Ids, Resolver
from desired.network.topology import Node
from desired.resource import Resource, ResourceId

ROUTER_OWNERS = frozenset({Owner.ROUTER_INTERFACE, Owner.ROUTER_GATEWAY})
QUICK = frozenset({NeutronPortSpec.kind, NeutronFloatingIpSpec.kind})
"""Kinds whose changes can be followed without reading the whole model again."""

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


@dataclass(slots=True)
class Touched:
    """What a change concerns: networks by id, and floating IPs."""

    networks: set[str] = field(default_factory=set)
    floats: set[ResourceId] = field(default_factory=set)


def indexed(model: Model) -> Index:
    """Read a whole model."""
    faults: dict[ResourceId, tuple[str, ...]] = {}
    ids = _ids(model, faults)
    resolver = Resolver(model, ids)
    nodes = {r.id.name: Node(r.id.name, r.spec, r.origin) for r in model.all(NodeSpec) if isinstance(r.spec, NodeSpec)}
    network_nodes = tuple(sorted(name for name, node in nodes.items() if "network" in node.spec.roles))
    subnets: dict[str, set[ResourceId]] = defaultdict(set)
    ports: dict[str, set[ResourceId]] = defaultdict(set)
    floats: dict[str, set[ResourceId]] = defaultdict(set)
    refs: dict[str, set[ResourceId]] = defaultdict(set)
    routed: dict[str, set[ResourceId]] = defaultdict(set)
    for resource in _usable(model, ids):
        match resource.spec:
            case SubnetSpec() as spec:
                group = subnets
                network = resolver.network(spec.network)
            case NeutronPortSpec() as spec:
                group = ports
                network = _port_network(resolver, nodes, resource, spec, faults)
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
            _note(faults, resource.id, _no_network(spec))
    routers = {
        own: legs_of(resolver, resource, frozenset(routed.get(own, ())), nodes, network_nodes, faults)
        for resource in _usable(model, ids)
        if isinstance(resource.spec, RouterSpec)
        for own in (ids.own[resource.id],)
    }
    groups = [_frozen(group) for group in (subnets, ports, floats, refs)]
    return Index(model, ids, nodes, network_nodes, *groups, routers, faults)


def with_changes(index: Index, model: Model, changed: Iterable[ResourceId]) -> tuple[Index, Touched] | None:
    """Follow changed ports and floating IPs. None when the whole model has to be read: the change reaches further."""
    changed = tuple(changed)
    ids = index.ids
    if ids.doubled or any(rid.kind not in QUICK for rid in changed):
        return None
    own, by_id, faults = dict(ids.own), dict(ids.by_id), dict(index.faults)
    old, new = index.resolver, Resolver(model, Ids(own, by_id, EMPTY))
    ports, floats, refs = _Groups(index.ports), _Groups(index.floats), _Groups(index.float_refs)
    touched = Touched()
    for rid in changed:
        before, after = index.model.objects.get(rid), model.objects.get(rid)
        if before is not None:
            by_id.pop((rid.kind, own.pop(rid)), None)
        faults.pop(rid, None)
        for resource, resolver in ((before, old), (after, new)):
            spec = None if resource is None else resource.spec
            if isinstance(spec, NeutronPortSpec) and spec.owner in ROUTER_OWNERS:
                return None
            if resource is not None and resource is after:
                key = (rid.kind, object_id(resource))
                if key in by_id:
                    return None
                own[rid], by_id[key] = key[1], rid
            network = None
            if isinstance(spec, NeutronPortSpec) and resource is not None:
                noted = faults if resource is after else {}
                network = _port_network(resolver, index.nodes, resource, spec, noted)
                ports.move(rid, network, add=resource is after)
            elif isinstance(spec, NeutronFloatingIpSpec):
                network = resolver.float_network(spec)
                floats.move(rid, network, add=resource is after)
                refs.move(rid, spec.port, add=resource is after)
                touched.floats.add(rid)
                if network is None and resource is after:
                    _note(faults, rid, _no_network(spec))
            if network is not None:
                touched.networks.add(network)
    for rid in changed:
        if rid.kind == NeutronPortSpec.kind:
            for name in {rid.name, ids.own.get(rid), own.get(rid)} - {None}:
                touched.floats |= refs.groups.get(str(name), EMPTY)
    made = replace(
        index, model=model, ids=Ids(own, by_id, EMPTY), ports=ports.groups, floats=floats.groups,
        float_refs=refs.groups, faults=faults,
    )  # fmt: skip
    return made, touched


class _Groups:
    """Groups of resource ids, of which a few change."""

    def __init__(self, groups: Mapping[str, Rids]) -> None:
        self.groups = dict(groups)

    def move(self, rid: ResourceId, group: str | None, *, add: bool) -> None:
        if group is None:
            return
        rest = self.groups.get(group, EMPTY) - {rid}
        if add:
            rest |= {rid}
        if rest:
            self.groups[group] = rest
        else:
            self.groups.pop(group, None)


def _usable(model: Model, ids: Ids) -> Iterable[Resource]:
    return (r for rid, r in model.objects.items() if rid in ids.own and rid not in ids.doubled)


def _ids(model: Model, faults: dict[ResourceId, tuple[str, ...]]) -> Ids:
    own: dict[ResourceId, str] = {}
    by_id: dict[tuple[str, str], ResourceId] = {}
    doubled: set[ResourceId] = set()
    for rid, resource in model.objects.items():
        if not hasattr(resource.spec, "id"):
            continue
        own[rid] = object_id(resource)
        key = rid.kind, own[rid]
        other = by_id.get(key)
        if other is None or rid < other:
            by_id[key] = rid
        if other is not None:
            doubled.add(max(rid, other))
    for rid in doubled:
        _note(faults, rid, f"its id {own[rid]} is that of {by_id[rid.kind, own[rid]]} as well")
    return Ids(own, by_id, frozenset(doubled))


def _port_network(
    resolver: Resolver,
    nodes: Mapping[str, Node],
    resource: Resource,
    spec: NeutronPortSpec,
    faults: dict[ResourceId, tuple[str, ...]],
) -> str | None:
    network = resolver.network(spec.network)
    if network is None:
        _note(faults, resource.id, f"there is no network {spec.network!r}")
    elif spec.owner in ROUTER_OWNERS and resolver.router(spec.device) is None:
        _note(faults, resource.id, f"its device {spec.device!r} is no router")
    if spec.node is not None and spec.node not in nodes:
        _note(faults, resource.id, f"there is no node {spec.node!r}; the port is taken to be nowhere")
    return network


def _no_network(spec: SubnetSpec | NeutronFloatingIpSpec) -> str:
    if isinstance(spec, NeutronFloatingIpSpec) and spec.network is None:
        return f"no external network has a subnet with {spec.floating}"
    return f"there is no network {spec.network!r}"


def _note(faults: dict[ResourceId, tuple[str, ...]], rid: ResourceId, message: str) -> None:
    faults[rid] = (*faults.get(rid, ()), message)


def _frozen(groups: Mapping[str, set[ResourceId]]) -> dict[str, Rids]:
    return {name: frozenset(group) for name, group in groups.items()}


def declared_node(spec: NeutronPortSpec, nodes: Mapping[str, Node]) -> str:
    """Where a port is bound, '' when nowhere."""
    return spec.node if spec.node is not None and spec.node in nodes else ""
