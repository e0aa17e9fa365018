"""What refers to what in a model: names and ids resolved, objects sorted to the network and router they belong to.

`indexed` reads a whole model. `with_changes` follows a few changed ports and floating IPs, which is what changes all
the time, and says which networks and routers that touches. Neither looks at addresses; `build` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

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
from desired.network.resolver import EMPTY, Faults, Ids, Resolver
from desired.network.topology import Node
from desired.resource import Resource, ResourceId

ROUTER_OWNERS = frozenset({Owner.ROUTER_INTERFACE, Owner.ROUTER_GATEWAY})
QUICK = frozenset({NeutronPortSpec.kind, NeutronFloatingIpSpec.kind})
"""Kinds whose changes can be followed without reading the whole model again."""

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


@dataclass(slots=True)
class Touched:
    """What a change concerns: networks by id, and floating IPs."""

    networks: set[str] = field(default_factory=set)
    floats: set[ResourceId] = field(default_factory=set)


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
        own: legs_of(resolver, resource, frozenset(routed.get(own, ())), places, faults)
        for resource in _usable(model, ids)
        if isinstance(resource.spec, RouterSpec)
        for own in (ids.own[resource.id],)
    }
    groups = _frozen(subnets), _frozen(ports), _frozen(floats), _frozen(refs)
    return Index(model, ids, nodes, network_nodes, *groups, routers, faults)


def with_changes(index: Index, model: Model, changed: Iterable[ResourceId]) -> tuple[Index, Touched] | None:
    """Follow changed ports and floating IPs. None when the whole model has to be read: the change reaches further."""
    changed = tuple(changed)
    if index.ids.doubled or any(rid.kind not in QUICK for rid in changed):
        return None
    following = _Following(index, model)
    if not all(following.follow(rid) for rid in changed):
        return None
    return following.result(changed)


class _Following:
    """A copy of an index while a few objects of it change."""

    def __init__(self, index: Index, model: Model) -> None:
        self.before = index
        self.model = model
        self.own, self.by_id = dict(index.ids.own), dict(index.ids.by_id)
        self.ids = Ids(self.own, self.by_id, EMPTY)
        self.faults = dict(index.faults)
        self.ports, self.floats = _Groups(index.ports), _Groups(index.floats)
        self.refs = _Groups(index.float_refs)
        self.old, self.new = index.resolver, Resolver(model, self.ids)
        self.touched = Touched()

    def follow(self, rid: ResourceId) -> bool:
        """Take one change over. False when it cannot be followed."""
        before, after = self.before.model.objects.get(rid), self.model.objects.get(rid)
        self.faults.pop(rid, None)
        if before is not None:
            self.by_id.pop((rid.kind, self.own.pop(rid)), None)
            if not self._enter(before, self.old, {}, add=False):
                return False
        if after is None:
            return True
        own = object_id(after)
        if (rid.kind, own) in self.by_id:
            return False
        self.own[rid], self.by_id[rid.kind, own] = own, rid
        return self._enter(after, self.new, self.faults, add=True)

    def _enter(
        self, resource: Resource, resolver: Resolver, faults: dict[ResourceId, tuple[str, ...]], *, add: bool
    ) -> bool:
        spec, rid = resource.spec, resource.id
        network = None
        if isinstance(spec, NeutronPortSpec):
            if spec.owner in ROUTER_OWNERS:
                return False
            network = _port_network(resolver, self.before.nodes, resource, spec, faults)
            self.ports.move(rid, network, add=add)
        elif isinstance(spec, NeutronFloatingIpSpec):
            network = resolver.float_network(spec)
            self.floats.move(rid, network, add=add)
            self.refs.move(rid, spec.port, add=add)
            self.touched.floats.add(rid)
            if network is None:
                _note(faults, rid, _no_network(spec))
        if network is not None:
            self.touched.networks.add(network)
        return True

    def result(self, changed: Iterable[ResourceId]) -> tuple[Index, Touched]:
        for rid in changed:
            if rid.kind == NeutronPortSpec.kind:
                for name in (rid.name, self.before.ids.own.get(rid, ""), self.own.get(rid, "")):
                    self.touched.floats |= self.refs.groups.get(name, EMPTY)
        index = replace(
            self.before, model=self.model, ids=self.ids, ports=self.ports.groups, floats=self.floats.groups,
            float_refs=self.refs.groups, faults=self.faults,
        )  # fmt: skip
        return index, self.touched


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
