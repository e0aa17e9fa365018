"""What is wrong with a model as a whole: what no object can see of itself. Pure; every fault has the object it is in.

References that lead nowhere, addresses outside their subnets, things that are there twice, nodes that lack what their
networks need. Faults of YAML refuse the revision; of objects from OpenStack only the object at fault is left out
(`desired.network.model` says where each came from). Called by the composition of a node's desired state and by
`reconcile validate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
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
from desired.resource import Resource, Spec
from desired.schema.problem import Problem, did_you_mean

S = TypeVar("S", bound=Spec)

Prefix = IPv4Network | IPv6Network
WORDS = {
    "node": "node", "network": "network", "subnet": "subnet", "neutron_port": "port", "router": "router",
    "neutron_floating_ip": "floating IP", "model_options": "options",
}  # fmt: skip
"""What an operator calls an object of each kind."""


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

    def problem(self) -> Problem:
        at = self.resource.origin
        return Problem(self.message, at.file, at.line, at.column, f"{at.path}{self.inside}", self.hint)


def faults(model: Model) -> tuple[Fault, ...]:
    """Every fault of the model, in the order of files and lines."""
    index = _Index(model)
    checks = (_ids, _nodes, _networks, _subnets, _ports, _macs_and_addresses, _routers, _floating_ips, _conflicts)
    return tuple(sorted((fault for check in checks for fault in check(index)), key=_place)) if model else ()


def _place(fault: Fault) -> tuple[str, int, int, str, str]:
    at = fault.resource.origin
    return at.file, at.line, at.column, at.path + fault.inside, fault.message


def _said(resource: Resource) -> str:
    return f"{WORDS[resource.id.kind]} {resource.id.name!r}"


class _Index:
    """The objects by name and by id, and what is in what."""

    def __init__(self, model: Model) -> None:
        self.model = model
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

    def all(self, kind: type[Spec]) -> Iterator[Resource]:
        return self.model.all(kind)

    def find(self, kind: type[Spec], reference: str) -> Resource | None:
        return self._known.get(kind.kind, {}).get(reference)

    def missing(self, holder: Resource, kind: type[Spec], reference: str | None, inside: str) -> Iterator[Fault]:
        """A fault when there is no such object."""
        if reference is not None and self.find(kind, reference) is None:
            names = [rid.name for rid in self.model.objects if rid.kind == kind.kind]
            few = f"known here: {', '.join(sorted(names))}" if 0 < len(names) <= 10 else ""
            word = WORDS[kind.kind]
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
    for resource in sorted(index.model.objects.values(), key=lambda each: each.id):
        if isinstance(resource.spec, NodeSpec):
            continue
        first = seen.setdefault((resource.id.kind, object_id(resource)), resource)
        if first is not resource:
            message = f"{_said(resource)} has the id {object_id(resource)} of {_said(first)} ({first.origin})"
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
    mapped = {name for node in index.all(NodeSpec) for name in _spec(node, NodeSpec).bridge_mappings}
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
            yield Fault(resource, f"{what} twice, also by {_said(first)} ({first.origin})", inside, "give each its own")
        if spec.physical_network is not None and spec.physical_network not in mapped and any(index.all(NodeSpec)):
            message = f"no node maps physical network {spec.physical_network!r} to a bridge"
            hint = did_you_mean(spec.physical_network, mapped) or (
                f"add bridge_mappings: {{{spec.physical_network}: br-ex}} to the nodes that reach it"
            )
            yield Fault(resource, message, ".physical_network", hint)


def _subnets(index: _Index) -> Iterator[Fault]:
    for resource in index.all(SubnetSpec):
        yield from index.missing(resource, NetworkSpec, _spec(resource, SubnetSpec).network, ".network")
    for members in index.subnets.values():
        for first, second in _overlapping(members):
            message = (
                f"{_cidr(second)} of {_said(second)} overlaps {_cidr(first)} of {_said(first)} ({first.origin})"
                " in the same network"
            )
            yield Fault(second, message, ".cidr", "subnets of one network share no address")


def _ports(index: _Index) -> Iterator[Fault]:
    for resource in index.all(NeutronPortSpec):
        spec = _spec(resource, NeutronPortSpec)
        yield from index.missing(resource, NetworkSpec, spec.network, ".network")
        yield from index.missing(resource, NodeSpec, spec.node, ".node")
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
                message = f"{_said(named)} is not of network {spec.network!r}, on which this port is"
                yield Fault(resource, message, f"{inside}.subnet", _are(subnets))
            elif not _in_one_of(fixed.ip, subnets if named is None else [named]):
                where = f"in {_cidr(named)}" if named is not None else f"in a subnet of network {spec.network!r}"
                yield Fault(resource, f"{fixed.ip} is not {where}", inside, _are(subnets))


def _reaches(index: _Index, port: Resource, network: Resource) -> Iterator[Fault]:
    """A port's node must have the bridge of its network."""
    physical = _spec(network, NetworkSpec).physical_network
    name = _spec(port, NeutronPortSpec).node
    node = None if name is None else index.find(NodeSpec, name)
    if physical is None or node is None or physical in _spec(node, NodeSpec).bridge_mappings:
        return
    message = f"node {name!r} has no bridge for physical network {physical!r} of {_said(network)}"
    yield Fault(port, message, ".node", f"add {physical}: BRIDGE to its bridge_mappings, or choose another node")


def _macs_and_addresses(index: _Index) -> Iterator[Fault]:
    """On one network no MAC and no address is there twice."""
    for ports in index.ports.values():
        macs: dict[str, Resource] = {}
        ips: dict[str, Resource] = {}
        for port in sorted(ports, key=lambda each: each.id):
            spec = _spec(port, NeutronPortSpec)
            mac = spec.mac or derived_mac(object_id(port))
            first = macs.setdefault(mac, port)
            if first is not port:
                message = f"MAC {mac} is also that of {_said(first)} ({first.origin}) on network {spec.network!r}"
                yield Fault(port, message, ".mac", "give each its own, or leave mac out")
            for number, fixed in enumerate(spec.fixed_ips):
                first = ips.setdefault(fixed.ip, port)
                if first is not port:
                    message = f"{fixed.ip} is also the address of {_said(first)} ({first.origin})"
                    yield Fault(port, message, f".fixed_ips[{number}]", "give each its own")


def _routers(index: _Index) -> Iterator[Fault]:
    for resource in index.all(RouterSpec):
        spec = _spec(resource, RouterSpec)
        yield from index.missing(resource, NodeSpec, spec.node, ".node")
        node = None if spec.node is None else index.find(NodeSpec, spec.node)
        if node is not None and "network" not in _spec(node, NodeSpec).roles:
            yield Fault(resource, f"node {spec.node!r} has not the role network", ".node", "choose a network node")
        served: list[Resource] = []
        for number, interface in enumerate(spec.interfaces):
            inside = f".interfaces[{number}]"
            yield from index.missing(resource, SubnetSpec, interface.subnet, f"{inside}.subnet")
            subnet = index.find(SubnetSpec, interface.subnet)
            if subnet is None:
                continue
            served.append(subnet)
            if interface.ip is not None and not _in_one_of(interface.ip, [subnet]):
                yield Fault(resource, f"{interface.ip} is not in {_cidr(subnet)}", f"{inside}.ip", _are([subnet]))
            elif interface.ip is None and _spec(subnet, SubnetSpec).gateway_ip is None:
                message = f"{_said(subnet)} has no gateway, so the router's address there is unknown"
                yield Fault(resource, message, inside, f"write {{subnet: {interface.subnet}, ip: ADDRESS}}")
        for first, second in _overlapping(served):
            if first is second:
                yield Fault(resource, f"{_said(second)} is there twice", ".interfaces", "name it once")
                continue
            message = f"{_said(second)} ({_cidr(second)}) overlaps {_said(first)} ({_cidr(first)}) on this router"
            yield Fault(resource, message, ".interfaces", "a router can serve only one of them")
        yield from _gateway(index, resource, spec)


def _gateway(index: _Index, resource: Resource, spec: RouterSpec) -> Iterator[Fault]:
    if spec.gateway is None:
        return
    yield from index.missing(resource, NetworkSpec, spec.gateway.network, ".gateway.network")
    network = index.find(NetworkSpec, spec.gateway.network)
    if network is None:
        return
    if not _spec(network, NetworkSpec).external:
        yield Fault(resource, f"{_said(network)} is not external", ".gateway", "add external: true to it")
    subnets = index.subnets.get(network.id.name, [])
    if not subnets:
        yield Fault(resource, f"{_said(network)} has no subnet, so the router's address there is unknown", ".gateway")
    for number, ip in enumerate(spec.gateway.ips):
        if subnets and not _in_one_of(ip, subnets):
            yield Fault(resource, f"{ip} is not in {_said(network)}", f".gateway.ips[{number}]", _are(subnets))


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
        if (networks or spec.network is None) and not _in_one_of(spec.floating, subnets):
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
        yield Fault(resource, f"{_said(port)} has no address for {spec.floating} to stand for", ".port")
    elif spec.fixed is not None and spec.fixed not in own:
        yield Fault(resource, f"{spec.fixed} is no address of {_said(port)}", ".fixed", f"it has {', '.join(own)}")


def _conflicts(index: _Index) -> Iterator[Fault]:
    for finding in conflicts(World(index.model, index.find, index.subnets)):
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
