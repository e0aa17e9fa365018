"""An index that follows what changes all the time, without reading the model again, and says what that touches.

Followed are ports and floating IPs, networks and subnets that come, routers that come or are changed. Everything else
(nodes, options, what goes and others may refer to) reaches further, and so does what a reference may have waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from desired.network.index import ROUTER_OWNERS, Index, Rids, no_network, note, port_network
from desired.network.legs import Places, legs_of
from desired.network.model import (
    Model,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    RouterSpec,
    SubnetSpec,
    object_id,
)
from desired.network.resolver import EMPTY, Ids, Resolver
from desired.resource import Mode, Resource, ResourceId

_ALWAYS = frozenset({NeutronPortSpec.kind, NeutronFloatingIpSpec.kind})
_IF_NEW = frozenset({NetworkSpec.kind, SubnetSpec.kind})


@dataclass(slots=True)
class Touched:
    """What a change concerns: networks and routers by id, and floating IPs."""

    networks: set[str] = field(default_factory=set)
    routers: set[str] = field(default_factory=set)
    floats: set[ResourceId] = field(default_factory=set)


def with_changes(index: Index, model: Model, changed: Iterable[ResourceId]) -> tuple[Index, Touched] | None:
    """The index of `model`, which differs in `changed`. None when the whole model has to be read."""
    changed = tuple(changed)
    if index.ids.doubled or not all(_followed(index, model, rid) for rid in changed):
        return None
    following = _Following(index, model)
    if not all(following.rename(rid) for rid in changed):
        return None
    if not all(following.follow(rid) for rid in changed):
        return None
    return following.result(changed)


def _followed(index: Index, model: Model, rid: ResourceId) -> bool:
    """Whether a change of this object can concern no more than what is looked at here."""
    if rid.kind in _ALWAYS:
        return True
    before, after = index.model.objects.get(rid), model.objects.get(rid)
    if after is None or index.faults:
        return False
    if rid.kind in _IF_NEW:
        return before is None and (rid.kind, rid.name) not in index.ids.by_id
    if rid.kind != RouterSpec.kind:
        return False
    if before is None:
        return (rid.kind, rid.name) not in index.ids.by_id
    return object_id(before) == object_id(after)


class _Following:
    """A copy of an index while a few objects of it change."""

    def __init__(self, index: Index, model: Model) -> None:
        self.before = index
        self.model = model
        self.own, self.by_id = dict(index.ids.own), dict(index.ids.by_id)
        self.ids = Ids(self.own, self.by_id, EMPTY)
        self.faults = dict(index.faults)
        self.ports, self.floats = _Groups(index.ports), _Groups(index.floats)
        self.refs, self.subnets = _Groups(index.float_refs), _Groups(index.subnets)
        self.declared = _Groups({own: frozenset(legs.declared) for own, legs in index.routers.items()})
        self.old, self.new = index.resolver, Resolver(model, self.ids)
        self.touched = Touched()

    def rename(self, rid: ResourceId) -> bool:
        """Enter the object's id of now in the place of its old one. False when another object has it."""
        self.faults.pop(rid, None)
        if rid in self.own:
            self.by_id.pop((rid.kind, self.own.pop(rid)), None)
        after = self.model.objects.get(rid)
        if after is None:
            return True
        own = object_id(after)
        if (rid.kind, own) in self.by_id:
            return False
        self.own[rid], self.by_id[rid.kind, own] = own, rid
        return not (after.spec.adopt or after.spec.mode is Mode.OBSERVE)

    def follow(self, rid: ResourceId) -> bool:
        """Take one change over. False when it cannot be followed."""
        before, after = self.before.model.objects.get(rid), self.model.objects.get(rid)
        if before is not None and not self._enter(before, self.old, {}, add=False):
            return False
        return after is None or self._enter(after, self.new, self.faults, add=True)

    def _enter(
        self, resource: Resource, resolver: Resolver, faults: dict[ResourceId, tuple[str, ...]], *, add: bool
    ) -> bool:
        spec = resource.spec
        network = None
        match spec:
            case NeutronPortSpec():
                network = port_network(resolver, self.before.nodes, resource, spec, faults)
                self._port(resource, spec, network, resolver, add=add)
            case NeutronFloatingIpSpec():
                network = resolver.float_network(spec)
                self._floating(resource, spec, network, faults, add=add)
            case SubnetSpec():
                network = resolver.network(spec.network)
                found = resolver.find(NetworkSpec, spec.network)
                if network is None or found is None or not isinstance(found.spec, NetworkSpec) or found.spec.external:
                    return False
                self.subnets.move(resource.id, network, add=add)
            case NetworkSpec():
                network = resolver.own(resource)
            case RouterSpec():
                self.touched.routers.add(resolver.own(resource))
        if network is not None:
            self.touched.networks.add(network)
        return True

    def _port(
        self, resource: Resource, spec: NeutronPortSpec, network: str | None, resolver: Resolver, *, add: bool
    ) -> None:
        self.ports.move(resource.id, network, add=add)
        router = resolver.router(spec.device) if spec.owner in ROUTER_OWNERS else None
        if router is not None and network is not None:
            self.declared.move(resource.id, router, add=add)
            self.touched.routers.add(router)

    def _floating(
        self,
        resource: Resource,
        spec: NeutronFloatingIpSpec,
        network: str | None,
        faults: dict[ResourceId, tuple[str, ...]],
        *,
        add: bool,
    ) -> None:
        self.floats.move(resource.id, network, add=add)
        self.refs.move(resource.id, spec.port, add=add)
        self.touched.floats.add(resource.id)
        if network is None:
            note(faults, resource.id, no_network(spec))

    def result(self, changed: Iterable[ResourceId]) -> tuple[Index, Touched]:
        """The index as it is now."""
        for rid in changed:
            if rid.kind == NeutronPortSpec.kind:
                for name in (rid.name, self.before.ids.own.get(rid, ""), self.own.get(rid, "")):
                    self.touched.floats |= self.refs.groups.get(name, EMPTY)
        routers = dict(self.before.routers)
        places = Places(self.before.nodes, self.before.network_nodes)
        for own in self.touched.routers:
            resource = self.model.objects[self.by_id[RouterSpec.kind, own]]
            self.faults.pop(resource.id, None)
            old = routers.get(own)
            legs = legs_of(self.new, resource, self.declared.groups.get(own, EMPTY), places, self.faults)
            routers[own] = legs
            for each, resolver, model in ((old, self.old, self.before.model), (legs, self.new, self.model)):
                if each is not None:
                    self.touched.networks |= {leg.network for leg in each.implied}
                    self.touched.networks |= _networks_of(each.declared, resolver, model)
        index = replace(
            self.before, model=self.model, ids=self.ids, subnets=self.subnets.groups, ports=self.ports.groups,
            floats=self.floats.groups, float_refs=self.refs.groups, routers=routers, faults=self.faults,
        )  # fmt: skip
        return index, self.touched


def _networks_of(ports: Iterable[ResourceId], resolver: Resolver, model: Model) -> set[str]:
    """The networks of declared ports."""
    specs = (model.objects[rid].spec for rid in ports)
    found = {resolver.network(spec.network) for spec in specs if isinstance(spec, NeutronPortSpec)}
    return {network for network in found if network is not None}


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
