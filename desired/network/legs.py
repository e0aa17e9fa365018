"""A router without its addresses: on which node it is, which declared ports are its own, and which must be added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from desired.network.addresses import number
from desired.network.model import NeutronPortSpec, Owner, RouterSpec, SubnetSpec
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


@dataclass(frozen=True, slots=True)
class Places:
    """All nodes, and the names of those that serve routers which are put on none."""

    nodes: Mapping[str, Node]
    network_nodes: tuple[str, ...]


def legs_of(
    resolver: Resolver,
    resource: Resource,
    declared: frozenset[ResourceId],
    places: Places,
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
    nodes = places.nodes
    if spec.node is not None and spec.node not in nodes:
        wrong.append(f"there is no node {spec.node!r}; one of the network nodes serves it")
    written = spec.node if spec.node in nodes else None
    node = _bound(declared_specs, nodes) or written or placed(own, places.network_nodes)
    if not node:
        wrong.append("no node has the role 'network', so that it is served by none")
    legs = _Implied(resolver, resource, declared_specs, node, wrong)
    implied = (*legs.interfaces(spec), *legs.gateway(spec))
    if wrong:
        faults[resource.id] = tuple(wrong)
    return Legs(own, resource, spec, node, tuple(ports), implied)


def _bound(ports: list[NeutronPortSpec], nodes: Mapping[str, Node]) -> str | None:
    """Where its ports say that it is, its gateway's first."""
    for owner in (Owner.ROUTER_GATEWAY, Owner.ROUTER_INTERFACE):
        for port in ports:
            if port.owner is owner and port.node in nodes:
                return port.node
    return None


@dataclass(frozen=True, slots=True)
class _Implied:
    """The legs of a router that none of its `declared` ports stands for; what is `wrong` is added there."""

    resolver: Resolver
    resource: Resource
    declared: list[NeutronPortSpec]
    node: str
    wrong: list[str]

    def interfaces(self, spec: RouterSpec) -> Iterator[Leg]:
        resolver = self.resolver
        for interface in spec.interfaces:
            subnet = resolver.subnet(interface.subnet)
            if subnet is None:
                self.wrong.append(f"there is no subnet {interface.subnet!r}")
                continue
            assert isinstance(subnet.spec, SubnetSpec)
            network = resolver.network(subnet.spec.network)
            if network is not None and not self._covered(subnet.spec, network):
                ip = interface.ip or subnet.spec.gateway_ip
                yield self._leg(network, resolver.own(subnet), (ip,) if ip else ())

    def gateway(self, spec: RouterSpec) -> Iterator[Leg]:
        if spec.gateway is None or any(port.owner is Owner.ROUTER_GATEWAY for port in self.declared):
            return
        outside = self.resolver.network(spec.gateway.network)
        if outside is None:
            self.wrong.append(f"there is no network {spec.gateway.network!r}")
        else:
            yield self._leg(outside, "", spec.gateway.ips)

    def _leg(self, network: str, subnet: str, ips: tuple[str, ...]) -> Leg:
        return Leg(self.resolver.own(self.resource), self.node, network, subnet, ips, self.resource.origin)

    def _covered(self, subnet: SubnetSpec, network: str) -> bool:
        """Whether a declared port is the interface already."""
        first, last = subnet.bounds
        return any(
            version == subnet.version and first <= value <= last
            for port in self.declared
            if port.owner is Owner.ROUTER_INTERFACE and self.resolver.network(port.network) == network
            for version, value in (number(fixed.ip) for fixed in port.fixed_ips)
        )
