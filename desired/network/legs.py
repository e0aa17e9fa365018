"""A router without its addresses: on which node it is, which declared ports are its own, and which must be added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from desired.network.addresses import number
from desired.network.model import NetworkSpec, NeutronPortSpec, Owner, RouterSpec, SubnetSpec
from desired.network.placing import placed
from desired.network.resolver import Resolver
from desired.network.topology import Node
from desired.resource import Origin, Resource, ResourceId


@dataclass(frozen=True, slots=True)
class Leg:
    """A port of a router that follows from its declaration. `subnet` '' is its gateway's port; no `ips`: choose."""

    router: str
    node: str
    network: str
    subnet: str
    ips: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Legs:
    """A router with its legs; `declared` are ports that say that they are its."""

    id: str
    resource: Resource
    spec: RouterSpec
    node: str
    declared: tuple[ResourceId, ...]
    implied: tuple[Leg, ...]


def legs_of(
    resolver: Resolver,
    resource: Resource,
    declared: frozenset[ResourceId],
    nodes: Mapping[str, Node],
    network_nodes: tuple[str, ...],
    faults: dict[ResourceId, tuple[str, ...]],
) -> Legs:
    """The legs of a router. What it names and is not there is noted in `faults`, and the rest stands."""
    spec = resource.spec
    assert isinstance(spec, RouterSpec)
    own = resolver.own(resource)
    ports = sorted(declared)
    specs = [found.spec for found in map(resolver.port, (rid.name for rid in ports)) if found is not None]
    declared_specs = [port for port in specs if isinstance(port, NeutronPortSpec)]
    wrong: list[str] = []
    if spec.node is not None and spec.node not in nodes:
        wrong.append(f"there is no node {spec.node!r}; one of the network nodes serves it")
    node = _bound(declared_specs, nodes) or (spec.node if spec.node in nodes else None) or placed(own, network_nodes)
    if not node:
        wrong.append("no node has the role 'network', so that it is served by none")
    legs = tuple(_implied(resolver, resource, spec, declared_specs, node, wrong))
    if wrong:
        faults[resource.id] = tuple(wrong)
    return Legs(own, resource, spec, node, tuple(ports), legs)


def _bound(ports: list[NeutronPortSpec], nodes: Mapping[str, Node]) -> str | None:
    """Where its ports say that it is, its gateway's first."""
    for owner in (Owner.ROUTER_GATEWAY, Owner.ROUTER_INTERFACE):
        for port in ports:
            if port.owner is owner and port.node in nodes:
                return port.node
    return None


def _implied(
    resolver: Resolver,
    resource: Resource,
    spec: RouterSpec,
    declared: list[NeutronPortSpec],
    node: str,
    wrong: list[str],
) -> Iterator[Leg]:
    own = resolver.own(resource)
    for interface in spec.interfaces:
        subnet = resolver.subnet(interface.subnet)
        if subnet is None:
            wrong.append(f"there is no subnet {interface.subnet!r}")
            continue
        assert isinstance(subnet.spec, SubnetSpec)
        network = resolver.network(subnet.spec.network)
        if network is None or _covered(resolver, subnet, declared):
            continue
        ip = interface.ip or subnet.spec.gateway_ip
        yield Leg(own, node, network, resolver.own(subnet), (ip,) if ip else (), resource.origin)
    if spec.gateway is None or any(port.owner is Owner.ROUTER_GATEWAY for port in declared):
        return
    outside = resolver.find(NetworkSpec, spec.gateway.network)
    if outside is None:
        wrong.append(f"there is no network {spec.gateway.network!r}")
    else:
        yield Leg(own, node, resolver.own(outside), "", spec.gateway.ips, resource.origin)


def _covered(resolver: Resolver, subnet: Resource, declared: list[NeutronPortSpec]) -> bool:
    """Whether a declared port is this interface already."""
    assert isinstance(subnet.spec, SubnetSpec)
    first, last = subnet.spec.bounds
    for port in declared:
        if port.owner is not Owner.ROUTER_INTERFACE:
            continue
        if resolver.network(port.network) != resolver.network(subnet.spec.network):
            continue
        for fixed in port.fixed_ips:
            version, value = number(fixed.ip)
            if version == subnet.spec.version and first <= value <= last:
                return True
    return False
