"""What is wrong with a model as a whole: what no object can see of itself. Pure; every fault has the object it is in.

References that lead nowhere, addresses outside their subnets, things that are there twice, nodes that lack what their
networks need. What could not be read may be what something refers to, or the subnet that has an address: while it is
`unread`, only what is wrong whatever it says is a fault. Faults of YAML refuse the revision; of objects from OpenStack
only the object at fault is left out (`desired.network.model` says where each came from). Called by the composition of
a node's desired state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from types import MappingProxyType
from typing import TypeVar

from desired.network.conflicts import World, conflicts
from desired.network.model import (
    TUNNELLED,
    Model,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    NodeSpec,
    RouterSpec,
    SubnetSpec,
    derived_mac,
    object_id,
)
from desired.resource import Resource, ResourceId, Spec
from desired.schema.check import Places
from desired.schema.problem import Problem, did_you_mean
from desired.schema.reading import Unread

S = TypeVar("S", bound=Spec)
_NOTHING: Unread = MappingProxyType({})

Prefix = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake. `inside` is the place in the object, as in ``.fixed_ips[0]``; `dangling` when a reference leads
    nowhere, which another source may mend.
    """

    resource: Resource
    message: str
    inside: str = ""
    hint: str = ""
    dangling: bool = False

    def problem(self, places: Places) -> Problem:
        """At the field, or at the nearest thing around it that is written; `places` are those of the object."""
        at, inside = self.resource.origin, self.inside
        while inside and inside not in places:
            inside = inside[: max(inside.rfind("."), inside.rfind("["))]
        line, column = places.get(inside, (at.line, at.column))
        return Problem(self.message, at.file, line, column, f"{at.path}{inside}", self.hint)


def faults(model: Model, unread: Unread = _NOTHING, *, hiding: bool = False) -> tuple[Fault, ...]:
    """Every fault of the model, in the order of files and lines.

    `unread` are objects that are not in the model because of mistakes in them; with `hiding` there may be any others.
    """
    index = _Index(model, unread, hiding=hiding)
    checks = (_ids, _nodes, _networks, _subnets, _ports, _macs_and_addresses, _routers, _floating_ips, _conflicts)
    return tuple(sorted((fault for check in checks for fault in check(index)), key=_place)) if model else ()


def _place(fault: Fault) -> tuple[str, int, int, str, str]:
    at = fault.resource.origin
    return at.file, at.line, at.column, at.path + fault.inside, fault.message


def _written(resource: Resource) -> tuple[str, int, int, ResourceId]:
    at = resource.origin
    return at.file, at.line, at.column, resource.id


class _Index:
    """The objects by name and by id, and what is in what."""

    def __init__(self, model: Model, unread: Unread, *, hiding: bool) -> None:
        self.model = model
        self._unread = unread
        self._hiding = hiding
        self._known: dict[str, dict[str, Resource]] = {}
        for resource in model.objects.values():
            if not isinstance(resource.spec, NodeSpec):
                self._known.setdefault(resource.id.kind, {}).setdefault(object_id(resource), resource)
        for rid, resource in model.objects.items():
            self._known.setdefault(rid.kind, {})[rid.name] = resource  # a name wins over an id
        self.subnets: dict[str, list[Resource]] = {}
        for resource in self.all(SubnetSpec):
            network = self.find(NetworkSpec, _spec(resource, SubnetSpec).network)
            if network is not None:
                self.subnets.setdefault(network.id.name, []).append(resource)
        self.ports: dict[str, list[Resource]] = {}
        for resource in self.all(NeutronPortSpec):
            network = self.find(NetworkSpec, _spec(resource, NeutronPortSpec).network)
            if network is not None:
                self.ports.setdefault(network.id.name, []).append(resource)

    def all(self, kind: type[Spec]) -> Sequence[Resource]:
        """In the order in which they are written: of two that contradict each other the later one is told."""
        return sorted(self.model.all(kind), key=_written)

    def find(self, kind: type[Spec], reference: str) -> Resource | None:
        return self._known.get(kind.kind, {}).get(reference)

    def more(self, kind: type[Spec], network: str | None = None) -> bool:
        """Whether there may be others that could not be read; `network`: of this network, by its name."""
        if network is None:
            return self._hiding or any(rid.kind == kind.kind for rid in self._unread)
        found = self.find(NetworkSpec, network)
        own = {network, *(() if found is None else (object_id(found),))}
        texts = [texts for rid, texts in self._unread.items() if rid.kind == kind.kind]
        return self._hiding or any(each.get("network", network) in own for each in texts)

    def _may_be(self, kind: type[Spec], reference: str) -> bool:
        """Whether it is something that could not be read."""
        known = ResourceId(kind.kind, reference) in self._unread
        return known or self._hiding or any(texts.get("id") == reference for texts in self._unread.values())

    def missing(self, holder: Resource, kind: type[Spec], reference: str | None, inside: str) -> Iterator[Fault]:
        """A fault when there is no such object."""
        if reference is not None and self.find(kind, reference) is None and not self._may_be(kind, reference):
            names = [rid.name for rid in self.model.objects if rid.kind == kind.kind]
            few = f"known here: {', '.join(sorted(names))}" if 0 < len(names) <= 10 else ""
            word = kind.called()
            hint = did_you_mean(reference, names) or few or f"declare it under model.{_section(kind)}"
            yield Fault(holder, f"there is no {word} {reference!r}", inside, hint, dangling=True)


def _section(kind: type[Spec]) -> str:
    return {"neutron_port": "ports", "neutron_floating_ip": "floating_ips"}.get(kind.kind, f"{kind.kind}s")


def _spec(resource: Resource, kind: type[S]) -> S:
    assert isinstance(resource.spec, kind)
    return resource.spec


# -- each kind ----------------------------------------------------------------------------------------------------


def _ids(index: _Index) -> Iterator[Fault]:
    """No two objects of a kind have one id."""
    seen: dict[tuple[str, str], Resource] = {}
    for resource in sorted(index.model.objects.values(), key=_written):
        if isinstance(resource.spec, NodeSpec):
            continue
        first = seen.setdefault((resource.id.kind, object_id(resource)), resource)
        if first is not resource:
            message = f"{resource.called} has the id {object_id(resource)} of {first.called} ({first.origin})"
            yield Fault(resource, message, ".id", "give each its own")


def _nodes(index: _Index) -> Iterator[Fault]:
    tunnels = sorted(
        resource.id.name for resource in index.all(NetworkSpec) if _spec(resource, NetworkSpec).type in TUNNELLED
    )
    addresses: dict[str, Resource] = {}
    for resource in index.all(NodeSpec):
        spec = _spec(resource, NodeSpec)
        if spec.tunnel_ip is None:
            if tunnels and {"network", "compute"} & set(spec.roles):
                message = f"node {resource.id.name!r} has no tunnel_ip, and network {tunnels[0]!r} needs tunnels"
                yield Fault(resource, message, hint="add its address on the underlay, like tunnel_ip: 10.10.10.11")
            continue
        first = addresses.setdefault(spec.tunnel_ip, resource)
        if first is not resource:
            message = f"tunnel_ip {spec.tunnel_ip} is also that of node {first.id.name!r} ({first.origin})"
            yield Fault(resource, message, ".tunnel_ip", "give each node its own")


def _networks(index: _Index) -> Iterator[Fault]:
    segments: dict[tuple[str, str | None, int | None], Resource] = {}
    nodes = index.all(NodeSpec)
    mapped = {name for node in nodes for name in _spec(node, NodeSpec).bridge_mappings}
    for resource in index.all(NetworkSpec):
        spec = _spec(resource, NetworkSpec)
        if spec.type == "local":
            continue
        first = segments.setdefault((spec.type, spec.physical_network, spec.segmentation_id), resource)
        if first is not resource:
            what = (
                f"physical network {spec.physical_network!r} carries a flat network"
                if spec.segmentation_id is None
                else f"{spec.type} segmentation_id {spec.segmentation_id} is used"
            )
            inside = ".physical_network" if spec.segmentation_id is None else ".segmentation_id"
            yield Fault(resource, f"{what} twice, also by {first.called} ({first.origin})", inside, "give each its own")
        known = bool(nodes) and not index.more(NodeSpec)
        if spec.physical_network is not None and spec.physical_network not in mapped and known:
            message = f"no node maps physical network {spec.physical_network!r} to a bridge"
            hint = did_you_mean(spec.physical_network, mapped) or (
                f"add bridge_mappings: {{{spec.physical_network}: br-ex}} to the nodes that reach it"
            )
            yield Fault(resource, message, ".physical_network", hint)


def _subnets(index: _Index) -> Iterator[Fault]:
    for resource in index.all(SubnetSpec):
        yield from index.missing(resource, NetworkSpec, _spec(resource, SubnetSpec).network, ".network")
    for members in index.subnets.values():
        for pair in _overlapping(members):
            first, second = sorted(pair, key=_written)
            message = (
                f"{_cidr(second)} of {second.called} overlaps {_cidr(first)} of {first.called} ({first.origin})"
                " in the same network"
            )
            yield Fault(second, message, ".cidr", "subnets of one network share no address")


def _ports(index: _Index) -> Iterator[Fault]:
    for resource in index.all(NeutronPortSpec):
        spec = _spec(resource, NeutronPortSpec)
        yield from index.missing(resource, NetworkSpec, spec.network, ".network")
        yield from index.missing(resource, NodeSpec, spec.node, ".node")
        if spec.plug != "held" and spec.node is None:
            message = f"plug {spec.plug} needs node: where we make the port"
            yield Fault(resource, message, ".plug", "add node: NAME, or leave plug out")
        network = index.find(NetworkSpec, spec.network)
        if network is None:
            continue
        yield from _reaches(index, resource, network)
        subnets = index.subnets.get(network.id.name, [])
        for number, fixed in enumerate(spec.fixed_ips):
            inside = f".fixed_ips[{number}]"
            yield from index.missing(resource, SubnetSpec, fixed.subnet, f"{inside}.subnet")
            named = None if fixed.subnet is None else index.find(SubnetSpec, fixed.subnet)
            if fixed.subnet is not None and named is None:
                continue
            if named is not None and named not in subnets:
                message = f"{named.called} is not of network {spec.network!r}, on which this port is"
                yield Fault(resource, message, f"{inside}.subnet", _are(subnets))
            elif named is not None and not _in_one_of(fixed.ip, [named]):
                yield Fault(resource, f"{fixed.ip} is not in {_cidr(named)}", f"{inside}.ip", _are([named]))
            elif named is None and not _in_one_of(fixed.ip, subnets) and not index.more(SubnetSpec, network.id.name):
                message = f"{fixed.ip} is not in a subnet of network {spec.network!r}"
                yield Fault(resource, message, f"{inside}.ip", _are(subnets))


def _reaches(index: _Index, port: Resource, network: Resource) -> Iterator[Fault]:
    """A port's node must have the bridge of its network."""
    physical = _spec(network, NetworkSpec).physical_network
    name = _spec(port, NeutronPortSpec).node
    node = None if name is None else index.find(NodeSpec, name)
    if physical is None or node is None or physical in _spec(node, NodeSpec).bridge_mappings:
        return
    message = f"node {name!r} has no bridge for physical network {physical!r} of {network.called}"
    yield Fault(port, message, ".node", f"add {physical}: BRIDGE to its bridge_mappings, or choose another node")


def _macs_and_addresses(index: _Index) -> Iterator[Fault]:
    """On one network no MAC and no address is there twice."""
    for ports in index.ports.values():
        macs: dict[str, Resource] = {}
        ips: dict[str, Resource] = {}
        for port in ports:
            spec = _spec(port, NeutronPortSpec)
            mac = spec.mac or derived_mac(object_id(port))
            first = macs.setdefault(mac, port)
            if first is not port:
                message = f"MAC {mac} is also that of {first.called} ({first.origin}) on network {spec.network!r}"
                yield Fault(port, message, ".mac", "give each its own, or leave mac out")
            for number, fixed in enumerate(spec.fixed_ips):
                first = ips.setdefault(fixed.ip, port)
                if first is not port:
                    message = f"{fixed.ip} is also the address of {first.called} ({first.origin})"
                    yield Fault(port, message, f".fixed_ips[{number}].ip", "give each its own")


def _routers(index: _Index) -> Iterator[Fault]:
    for resource in index.all(RouterSpec):
        spec = _spec(resource, RouterSpec)
        yield from index.missing(resource, NodeSpec, spec.node, ".node")
        node = None if spec.node is None else index.find(NodeSpec, spec.node)
        if node is not None and "network" not in _spec(node, NodeSpec).roles:
            yield Fault(resource, f"node {spec.node!r} has not the role network", ".node", "choose a network node")
        served: list[Resource] = []
        last: dict[ResourceId, int] = {}
        for number, interface in enumerate(spec.interfaces):
            inside = f".interfaces[{number}]"
            yield from index.missing(resource, SubnetSpec, interface.subnet, f"{inside}.subnet")
            subnet = index.find(SubnetSpec, interface.subnet)
            if subnet is None:
                continue
            served.append(subnet)
            last[subnet.id] = number
            if interface.ip is not None and not _in_one_of(interface.ip, [subnet]):
                yield Fault(resource, f"{interface.ip} is not in {_cidr(subnet)}", f"{inside}.ip", _are([subnet]))
            elif interface.ip is None and _spec(subnet, SubnetSpec).gateway_ip is None:
                message = f"{subnet.called} has no gateway, so the router's address there is unknown"
                yield Fault(resource, message, inside, f"write {{subnet: {interface.subnet}, ip: ADDRESS}}")
        for first, second in _overlapping(served):
            inside = f".interfaces[{max(last[first.id], last[second.id])}]"
            if first is second:
                yield Fault(resource, f"{second.called} is there twice", inside, "name it once")
                continue
            message = f"{second.called} ({_cidr(second)}) overlaps {first.called} ({_cidr(first)}) on this router"
            yield Fault(resource, message, inside, "a router can serve only one of them")
        yield from _gateway(index, resource, spec)


def _gateway(index: _Index, resource: Resource, spec: RouterSpec) -> Iterator[Fault]:
    if spec.gateway is None:
        return
    yield from index.missing(resource, NetworkSpec, spec.gateway.network, ".gateway.network")
    network = index.find(NetworkSpec, spec.gateway.network)
    if network is None:
        return
    if not _spec(network, NetworkSpec).external:
        yield Fault(resource, f"{network.called} is not external", ".gateway", "add external: true to it")
    subnets = index.subnets.get(network.id.name, [])
    if index.more(SubnetSpec, network.id.name):
        return
    if not subnets:
        yield Fault(resource, f"{network.called} has no subnet, so the router's address there is unknown", ".gateway")
    for number, ip in enumerate(spec.gateway.ips):
        if subnets and not _in_one_of(ip, subnets):
            yield Fault(resource, f"{ip} is not in {network.called}", f".gateway.ips[{number}]", _are(subnets))


def _floating_ips(index: _Index) -> Iterator[Fault]:
    external = [resource for resource in index.all(NetworkSpec) if _spec(resource, NetworkSpec).external]
    for resource in index.all(NeutronFloatingIpSpec):
        spec = _spec(resource, NeutronFloatingIpSpec)
        yield from index.missing(resource, NetworkSpec, spec.network, ".network")
        yield from index.missing(resource, NeutronPortSpec, spec.port, ".port")
        yield from index.missing(resource, RouterSpec, spec.router, ".router")
        networks = external
        if spec.network is not None:
            found = index.find(NetworkSpec, spec.network)
            networks = [] if found is None else [found]
        subnets = [subnet for network in networks for subnet in index.subnets.get(network.id.name, [])]
        unsure = spec.network is None and index.more(NetworkSpec)
        unsure = unsure or any(index.more(SubnetSpec, network.id.name) for network in networks)
        if (networks or spec.network is None) and not unsure and not _in_one_of(spec.floating, subnets):
            where = f"network {spec.network!r}" if spec.network is not None else "any external network"
            yield Fault(resource, f"floating IP {spec.floating} is in no subnet of {where}", "", _are(subnets))
        yield from _fixed(index, resource, spec)


def _fixed(index: _Index, resource: Resource, spec: NeutronFloatingIpSpec) -> Iterator[Fault]:
    port = None if spec.port is None else index.find(NeutronPortSpec, spec.port)
    if port is None:
        if spec.fixed is not None and spec.port is None:
            yield Fault(resource, "fixed needs port: it is one of the port's addresses", ".fixed")
        return
    own = [fixed.ip for fixed in _spec(port, NeutronPortSpec).fixed_ips]
    if not own:
        yield Fault(resource, f"{port.called} has no address for {spec.floating} to stand for", ".port")
    elif spec.fixed is not None and spec.fixed not in own:
        yield Fault(resource, f"{spec.fixed} is no address of {port.called}", ".fixed", f"it has {', '.join(own)}")


def _conflicts(index: _Index) -> Iterator[Fault]:
    for finding in conflicts(World(index.model, index.find, index.subnets, index.more)):
        yield Fault(*finding)


# -- addresses ----------------------------------------------------------------------------------------------------


def _prefix(subnet: Resource) -> Prefix:
    return ip_network(_cidr(subnet))


def _cidr(subnet: Resource) -> str:
    return _spec(subnet, SubnetSpec).cidr


def _in_one_of(ip: str, subnets: Iterable[Resource]) -> bool:
    address = ip_address(ip)
    return any(address in _prefix(subnet) for subnet in subnets)


def _overlapping(subnets: Iterable[Resource]) -> Iterator[tuple[Resource, Resource]]:
    """Pairs of subnets that share addresses, found by sorting: few are looked at twice."""
    ordered = sorted(subnets, key=lambda each: (_prefix(each).version, int(_prefix(each).network_address), each.id))
    for number, first in enumerate(ordered):
        for second in ordered[number + 1 :]:
            if not _overlap(_prefix(first), _prefix(second)):
                break
            yield first, second


def _overlap(one: Prefix, other: Prefix) -> bool:
    return one.version == other.version and one.overlaps(other)


def _are(subnets: Iterable[Resource]) -> str:
    known = [f"{subnet.id.name} is {_cidr(subnet)}" for subnet in subnets]
    return "; ".join(known[:5])
