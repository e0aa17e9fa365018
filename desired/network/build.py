"""From a model to its topology: references resolved, implied ports added, what did not change taken from before.

`build` is pure. A change of ports and floating IPs alone is followed through the index; any other change reads the
model again, and still takes over every network and router whose parts are the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from desired.network.following import Touched, with_changes
from desired.network.index import Index, declared_node, indexed
from desired.network.legs import Leg, Legs
from desired.network.model import (
    Model,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    OptionsSpec,
    Owner,
)
from desired.network.ports import Bound, Made, Parts, made_network
from desired.network.resolver import EMPTY, Resolver
from desired.network.topology import Address, FloatingIp, Network, Port, Problem, Router, Topology
from desired.resource import Resource, ResourceId

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Memory:
    """What a build leaves for the next one."""

    index: Index
    networks: Mapping[str, Made]
    legs: Mapping[str, tuple[Leg, ...]]
    served: Mapping[ResourceId, tuple[str, FloatingIp]]
    """The router of each floating IP that has one, by the floating IP."""
    faults: Mapping[ResourceId, str]
    """Floating IPs that lead nowhere."""


def build(model: Model, previous: Topology | None = None, changed: Iterable[ResourceId] | None = None) -> Topology:
    """The topology of `model`. `changed` names what differs from the previous model; None: find out."""
    before = None if previous is None else previous.memory
    if previous is None or before is None:
        return _whole(model, None)
    rids = differing(before.index.model, model, changed)
    if not rids:
        return previous
    followed = with_changes(before.index, model, rids)
    if followed is None:
        return _whole(model, previous)
    return _partly(previous, before, rids, *followed)


def differing(old: Model, new: Model, among: Iterable[ResourceId] | None = None) -> tuple[ResourceId, ...]:
    """What is not the same in two models. An object read anew that says the same at the same place is."""
    if among is not None:
        return tuple(sorted({rid for rid in among if not _same(old.objects.get(rid), new.objects.get(rid))}))
    aligned = _aligned(old, new)
    if aligned is not None:
        return aligned
    found, known = [], 0
    was = old.objects.get
    for rid, resource in new.objects.items():
        before = was(rid)
        if before is not None:
            known += 1
        if before is not resource and not _same(before, resource):
            found.append(rid)
    if known != len(old.objects):
        found += [rid for rid in old.objects if rid not in new.objects]
    return tuple(found)


def _aligned(old: Model, new: Model) -> tuple[ResourceId, ...] | None:
    """What differs, if the new model has the objects of the old one in their order, and then perhaps more.

    That is how a model looks that was copied with changes, and no name has to be looked up then.
    """
    pairs = [(o, n) for o, n in zip(old.objects.values(), new.objects.values(), strict=False) if o is not n]
    if len(old.objects) > len(new.objects) or any(o.id != n.id for o, n in pairs):
        return None
    return (*(n.id for o, n in pairs if not _same(o, n)), *islice(new.objects, len(old.objects), None))


def _same(one: Resource | None, other: Resource | None) -> bool:
    if one is other:
        return True
    return one is not None and other is not None and one.generation == other.generation and one.origin == other.origin


def _whole(model: Model, previous: Topology | None) -> Topology:
    before = None if previous is None else previous.memory
    index = indexed(model, None if before is None else before.index)
    legs = index.legs_on()
    known = {} if before is None else before.networks
    same_world = (
        previous is not None
        and before is not None
        and previous.options == model.options
        and before.index.network_nodes == index.network_nodes
    )
    networks: dict[str, Made] = {}
    resolver = index.resolver
    for resource in model.all(NetworkSpec):
        if resource.id not in index.ids.doubled:
            own = index.ids.own[resource.id]
            parts = _parts(index, resolver, own, resource, legs.get(own, ()))
            old = known.get(own)
            if old is not None and same_world and old.parts == parts:
                networks[own] = old
            else:
                networks[own] = made_network(parts, model.options, index.network_nodes, old)
    served: dict[ResourceId, tuple[str, FloatingIp]] = {}
    faults: dict[ResourceId, str] = {}
    choosing = _Choosing(index, resolver, networks)
    for resource in model.all(NeutronFloatingIpSpec):
        if resource.id not in index.ids.doubled:
            choosing.serve(resource, served, faults)
    routers = _routers(index.routers.values(), networks.values(), served, {} if previous is None else previous.routers)
    return _topology(model.options, Memory(index, networks, legs, served, faults), routers, previous)


def _partly(
    previous: Topology, before: Memory, rids: Collection[ResourceId], index: Index, touched: Touched
) -> Topology:
    networks, served, faults = dict(before.networks), dict(before.served), dict(before.faults)
    resolver = index.resolver
    routers, floats = set(touched.routers), touched.floats | faults.keys()
    legs = index.legs_on() if routers else before.legs
    alone = not routers and all(rid.kind == NeutronPortSpec.kind for rid in rids)
    for own in touched.networks:
        old = networks.get(own)
        resource = index.model.objects[index.ids.by_id[NetworkSpec.kind, own]]
        if alone and old is not None and old.parts.resource is resource:
            parts = _with_ports(old.parts, before.index, index, resolver, rids)
        else:
            parts = _parts(index, resolver, own, resource, legs.get(own, ()))
        made = networks[own] = made_network(parts, previous.options, index.network_nodes, old)
        for port in _other_ports(() if old is None else old.network.ports, made.network.ports):
            routers |= {port.device} if port.device else set()
            floats |= index.float_refs.get(port.name, EMPTY) | index.float_refs.get(port.id, EMPTY)
    choosing = _Choosing(index, resolver, networks)
    for rid in floats | (served.keys() if routers else EMPTY):
        gone = served.pop(rid, None)
        faults.pop(rid, None)
        if rid in index.model.objects:
            choosing.serve(index.model.objects[rid], served, faults)
        routers |= {found[0] for found in (gone, served.get(rid)) if found is not None}
    some = [index.routers[own] for own in sorted(routers) if own in index.routers]
    near = {leg.network for legs in some for leg in legs.implied}
    near |= {network for legs in some for network in _networks_of(index, resolver, legs)}
    again = _routers(some, [networks[own] for own in near], served, previous.routers)
    memory = Memory(index, networks, legs, served, faults)
    return _topology(previous.options, memory, {**previous.routers, **again}, previous)


def _parts(index: Index, resolver: Resolver, own: str, resource: Resource, legs: tuple[Leg, ...]) -> Parts:
    objects = index.model.objects
    subnets = sorted((index.ids.own[rid], objects[rid]) for rid in index.subnets.get(own, EMPTY))
    ports = sorted(_bound(index, resolver, objects[rid]) for rid in index.ports.get(own, EMPTY))
    floats = []
    for rid in index.floats.get(own, EMPTY):
        spec = objects[rid].spec
        assert isinstance(spec, NeutronFloatingIpSpec)
        floats.append(spec.floating)
    names: dict[str, str] = {}
    bounds = [bound for each in ports if (bound := _usable(index, resolver, each, names)) is not None]
    return Parts(own, resource, tuple(subnets), tuple(bounds), legs, tuple(sorted(floats)), names)


def _with_ports(old: Parts, before: Index, index: Index, resolver: Resolver, rids: Collection[ResourceId]) -> Parts:
    """The parts of a network of which only these ports are other than before."""
    bounds, names = list(old.ports), dict(old.subnet_names)
    for rid in rids:
        was, now = before.ids.own.get(rid), index.ids.own.get(rid)
        if was is not None and rid in before.ports.get(old.id, EMPTY):
            at = bisect_left(bounds, was, key=lambda bound: bound.id)
            if at < len(bounds) and bounds[at].id == was:
                del bounds[at]
        if now is not None and rid in index.ports.get(old.id, EMPTY):
            bound = _usable(index, resolver, _bound(index, resolver, index.model.objects[rid]), names)
            if bound is not None:
                bounds.insert(bisect_left(bounds, now, key=lambda bound: bound.id), bound)
    return replace(old, ports=tuple(bounds), subnet_names=names)


def _usable(
    index: Index, resolver: Resolver, found: tuple[str, ResourceId, str, str], names: dict[str, str]
) -> Bound | None:
    """A port to be made, unless it is one of no known router. The subnets that it names are entered in `names`."""
    own, at, router, node = found
    resource = index.model.objects[at]
    assert isinstance(resource.spec, NeutronPortSpec)
    if resource.spec.owner in {Owner.ROUTER_GATEWAY, Owner.ROUTER_INTERFACE} and not router:
        return None
    for fixed in resource.spec.fixed_ips:
        if fixed.subnet is not None and fixed.subnet not in names:
            subnet = resolver.subnet(fixed.subnet)
            names[fixed.subnet] = "" if subnet is None else index.ids.own[subnet.id]
    return Bound(own, resource, router, node)


def _other_ports(old: tuple[Port, ...], new: tuple[Port, ...]) -> list[Port]:
    """What is only in one of both. (A port that did not change is the same object.)"""
    was = {id(port): port for port in old}
    come = [port for port in new if was.pop(id(port), None) is None]
    return [*come, *was.values()]


def _bound(index: Index, resolver: Resolver, resource: Resource) -> tuple[str, ResourceId, str, str]:
    spec = resource.spec
    assert isinstance(spec, NeutronPortSpec)
    node = declared_node(spec, index.nodes)
    router = ""
    if spec.owner in {Owner.ROUTER_GATEWAY, Owner.ROUTER_INTERFACE}:
        router = resolver.router(spec.device) or ""
        if router:
            node = index.routers[router].node
    return index.ids.own[resource.id], resource.id, router, node


class _Choosing:
    """Which router serves a floating IP: the one that is named, or the one between both of its networks."""

    def __init__(self, index: Index, resolver: Resolver, networks: Mapping[str, Made]) -> None:
        self._index = index
        self._resolver = resolver
        self._networks = networks
        self._known: dict[tuple[str, Owner, str], frozenset[str]] = {}

    def serve(
        self,
        resource: Resource,
        served: dict[ResourceId, tuple[str, FloatingIp]],
        faults: dict[ResourceId, str],
    ) -> None:
        """Enter a floating IP in `served` or, when it should lead somewhere and does not, in `faults`."""
        spec = resource.spec
        assert isinstance(spec, NeutronFloatingIpSpec)
        if spec.port is None:
            return
        found = self._found(spec)
        if isinstance(found, str):
            faults[resource.id] = found
        else:
            router, fixed = found
            own = self._index.ids.own[resource.id]
            served[resource.id] = router, FloatingIp(own, spec.floating, fixed, resource.origin)

    def _found(self, spec: NeutronFloatingIpSpec) -> tuple[str, str] | str:
        """The router's id and the fixed address, or why there is none."""
        inside = self._inside(spec)
        outside = self._resolver.float_network(spec)
        if isinstance(inside, str):
            return inside
        if outside is None:
            return f"no external network has {spec.floating}"
        if spec.router is not None:
            named = self._resolver.router(spec.router)
            return f"there is no router {spec.router!r}" if named is None else (named, inside[1].ip)
        network, address = inside
        routers = self._devices(network, Owner.ROUTER_INTERFACE, address.subnet)
        between = sorted(routers & self._devices(outside, Owner.ROUTER_GATEWAY, ""))
        if not between:
            return f"no router has an interface with {address.ip} and a gateway to the network of {spec.floating}"
        return between[0], address.ip

    def _inside(self, spec: NeutronFloatingIpSpec) -> tuple[str, Address] | str:
        """The network and the address that a floating IP leads to, or why there is none."""
        declared = self._resolver.port(spec.port or "")
        if declared is None:
            return f"there is no port {spec.port!r}"
        assert isinstance(declared.spec, NeutronPortSpec)
        network = self._resolver.network(declared.spec.network)
        port = None if network is None else _port(self._networks[network].network, self._resolver.own(declared))
        if network is None or port is None:
            return f"its port {spec.port!r} is in no network"
        for address in port.addresses:
            if address.ip == spec.fixed or (spec.fixed is None and ":" not in address.ip):
                return network, address
        return f"its port {spec.port!r} does not have {spec.fixed or 'an IPv4 address'}"

    def _devices(self, network: str, owner: Owner, subnet: str) -> frozenset[str]:
        key = network, owner, subnet
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = frozenset(
                port.device
                for port in self._networks[network].network.ports
                if port.owner is owner and (not subnet or any(a.subnet == subnet for a in port.addresses))
            )
        return found


def _port(network: Network, own: str) -> Port | None:
    at = bisect_left(network.ports, own, key=lambda port: port.id)
    return network.ports[at] if at < len(network.ports) and network.ports[at].id == own else None


def _networks_of(index: Index, resolver: Resolver, legs: Legs) -> Iterator[str]:
    for rid in legs.declared:
        spec = index.model.objects[rid].spec
        network = resolver.network(spec.network) if isinstance(spec, NeutronPortSpec) else None
        if network is not None:
            yield network


def _routers(
    some: Collection[Legs],
    networks: Iterable[Made],
    served: Mapping[ResourceId, tuple[str, FloatingIp]],
    before: Mapping[str, Router],
) -> dict[str, Router]:
    wanted = {legs.id for legs in some}
    floating: dict[str, list[FloatingIp]] = defaultdict(list)
    for own, one in served.values():
        if own in wanted:
            floating[own].append(one)
    ports: dict[str, list[Port]] = defaultdict(list)
    for made in networks:
        for port in made.network.ports:
            if port.device in wanted:
                ports[port.device].append(port)
    found = {}
    for legs in some:
        mine = sorted(ports.get(legs.id, ()), key=lambda port: port.id)
        gateway = next((port for port in mine if port.owner is Owner.ROUTER_GATEWAY), None)
        router = Router(
            legs.id,
            legs.resource.id.name,
            legs.spec,
            legs.resource.origin,
            legs.node,
            tuple(port for port in mine if port.owner is Owner.ROUTER_INTERFACE),
            gateway,
            tuple(sorted(floating.get(legs.id, ()), key=lambda one: (one.floating, one.id))),
        )
        old = before.get(legs.id)
        found[legs.id] = old if old is not None and old == router else router
    return found


def _topology(
    options: OptionsSpec, memory: Memory, routers: Mapping[str, Router], previous: Topology | None
) -> Topology:
    nodes = memory.index.nodes
    if previous is not None:
        nodes = {name: _same_of(previous.nodes.get(name), node) for name, node in nodes.items()}
        options = _same_of(previous.options, options)
    networks = {own: made.network for own, made in memory.networks.items()}
    return Topology(options, nodes, networks, routers, tuple(_problems(memory)), memory)


def _same_of(old: T | None, new: T) -> T:
    return old if old is not None and old == new else new


def _problems(memory: Memory) -> Iterator[Problem]:
    objects = memory.index.model.objects
    for rid in sorted(memory.index.faults):
        for message in memory.index.faults[rid]:
            yield objects[rid], message
    for rid in sorted(memory.faults):
        yield objects[rid], memory.faults[rid]
    for own in sorted(memory.networks):
        yield from memory.networks[own].problems
