"""One network with all its ports: the declared ones, and those that follow from its DHCP and from routers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from desired.network.addresses import EUI64_MODES, Addresses
from desired.network.legs import Leg
from desired.network.model import (
    NetworkSpec,
    NeutronPortSpec,
    OptionsSpec,
    Owner,
    SubnetSpec,
    derived_id,
    derived_mac,
)
from desired.network.placing import ranked
from desired.network.topology import Address, Network, Port, Problem, Subnet
from desired.resource import Resource

_KIND = NeutronPortSpec.kind


@dataclass(frozen=True, slots=True)
class Bound:
    """A declared port with what its references lead to: the router's id, and the node it is on."""

    id: str
    resource: Resource
    router: str
    node: str


@dataclass(frozen=True, slots=True)
class Parts:
    """All that a network is made of. Equal parts make an equal network."""

    id: str
    resource: Resource
    subnets: tuple[tuple[str, Resource], ...]
    ports: tuple[Bound, ...]
    legs: tuple[Leg, ...]
    floating: tuple[str, ...]
    subnet_names: Mapping[str, str]
    """Ids of the subnets that fixed addresses name, by what they are named by."""


@dataclass(frozen=True, slots=True)
class Made:
    """A network, what it was made of, and what could not be used of that."""

    parts: Parts
    network: Network
    problems: tuple[Problem, ...]


def made_network(parts: Parts, options: OptionsSpec, network_nodes: tuple[str, ...], before: Made | None) -> Made:
    """The network of `parts`; whatever is equal in `before` is taken from there, so that it is the same object."""
    return _Maker(parts, options, network_nodes, before).made(None if before is None else before.network)


class _Maker:
    def __init__(self, parts: Parts, options: OptionsSpec, network_nodes: tuple[str, ...], before: Made | None) -> None:
        self.known = _known(parts, before)
        self.parts = parts
        self.options = options
        self.network_nodes = network_nodes
        self.subnets = tuple(_subnets(parts.subnets))
        self.addresses = Addresses(self.subnets)
        self.problems: list[Problem] = []

    def made(self, before: Network | None) -> Made:
        parts = self.parts
        spec = parts.resource.spec
        assert isinstance(spec, NetworkSpec)
        declared = [self._declared(bound) for bound in parts.ports]
        servers = [port for port in declared if port.owner is Owner.DHCP]
        dhcp = [subnet for subnet in self.subnets if subnet.spec.dhcp]
        wanted = bool(dhcp) and not servers and not spec.external
        places = ranked(parts.id, self.network_nodes) if wanted or any(not port.node for port in servers) else []
        ports = {port.id: port for port in declared}
        if wanted or parts.legs or any(not p.addresses and p.owner is not Owner.INSTANCE for p in declared):
            self._reserve(declared)
        for at, port in enumerate(servers):
            node = port.node or (places[at % len(places)] if places else "")
            ports[port.id] = replace(
                port, node=node, addresses=port.addresses or self._server_addresses(port, at, dhcp)
            )
        if wanted:
            if not places:
                self.problems.append(
                    (parts.resource, "no node has the role 'network', so that nothing serves its DHCP")
                )
            for at, node in enumerate(places[: self.options.dhcp_servers]):
                port = self._implied_server(node)
                ports[port.id] = replace(port, addresses=self._server_addresses(port, at, dhcp))
        for leg in sorted(parts.legs, key=_leg_id):
            port = self._leg(leg)
            ports[port.id] = port
        every = tuple(ports[name] for name in sorted(ports))
        on = tuple(sorted({port.node for port in every if port.owner is Owner.DHCP and port.node}))
        network = Network(parts.id, parts.resource.id.name, spec, parts.resource.origin, self.subnets, every, on)
        return Made(parts, _kept(network, before), tuple(self.problems))

    def _declared(self, bound: Bound) -> Port:
        spec = bound.resource.spec
        assert isinstance(spec, NeutronPortSpec)
        old = self.known.get(bound.id)
        if old is not None and old[0].resource is bound.resource and (old[0].router, old[0].node) == (
            bound.router, bound.node
        ):  # fmt: skip
            return old[1]
        addresses = []
        for fixed in spec.fixed_ips:
            subnet = None if fixed.subnet is None else self.parts.subnet_names.get(fixed.subnet, "")
            found = self.addresses.find(fixed.ip, subnet)
            if found is None:
                where = f"subnet {fixed.subnet!r}" if fixed.subnet else "no subnet"
                problem = f"{fixed.ip} is not in {where} of its network" if fixed.subnet else (
                    f"{fixed.ip} is in {where} of its network"
                )  # fmt: skip
                self.problems.append((bound.resource, problem))
            else:
                addresses.append(found)
        mac = spec.mac or derived_mac(bound.id)
        return Port(
            bound.id, bound.resource.id.name, self.parts.id, mac, tuple(addresses), bound.node, spec.owner,
            bound.router, spec.plug, bound.resource.origin,
        )  # fmt: skip

    def _reserve(self, declared: Iterable[Port]) -> None:
        self.addresses.reserve_gateways()
        self.addresses.take(self.parts.floating)
        for port in declared:
            self.addresses.take(address.ip for address in port.addresses)
        for leg in self.parts.legs:
            self.addresses.take(leg.ips)

    def _implied_server(self, node: str) -> Port:
        own = derived_id(_KIND, "dhcp", self.parts.id, node)
        name = f"dhcp of {self.parts.resource.id.name}"
        return Port(
            own, name, self.parts.id, derived_mac(own), (), node, Owner.DHCP, "", "internal", self.parts.resource.origin
        )

    def _server_addresses(self, port: Port, at: int, dhcp: list[Subnet]) -> tuple[Address, ...]:
        found = []
        for subnet in dhcp:
            written = subnet.spec.dhcp_addresses
            if at < len(written):
                address = self.addresses.find(written[at], subnet.id)
            elif subnet.spec.ipv6_mode in EUI64_MODES:
                address = self.addresses.from_mac(subnet.id, port.mac)
            else:
                address = self.addresses.last_free(subnet.id)
            if address is None:
                self.problems.append(
                    (self.parts.resource, f"{subnet.spec.cidr} has no free address for its DHCP server")
                )
            else:
                found.append(address)
        return tuple(found)

    def _leg(self, leg: Leg) -> Port:
        own = _leg_id(leg)
        owner = Owner.ROUTER_INTERFACE if leg.subnet else Owner.ROUTER_GATEWAY
        addresses = []
        for ip in leg.ips:
            address = self.addresses.find(ip, leg.subnet or None)
            if address is None:
                self.problems.append((self.parts.resource, f"{ip}, a router's address, is in no subnet of it"))
            else:
                addresses.append(address)
        if not leg.ips:
            addresses = self._chosen(leg, own)
        name = f"{owner.value.replace('_', ' ')} on {self.parts.resource.id.name}"
        return Port(
            own,
            name,
            self.parts.id,
            derived_mac(own),
            tuple(addresses),
            leg.node,
            owner,
            leg.router,
            "internal",
            leg.origin,
        )

    def _chosen(self, leg: Leg, own: str) -> list[Address]:
        subnets = [subnet for subnet in self.subnets if subnet.id == leg.subnet]
        if not leg.subnet:
            by_version: dict[int, Subnet] = {}
            for subnet in sorted(self.subnets, key=lambda subnet: (subnet.name, subnet.id)):
                by_version.setdefault(subnet.spec.version, subnet)
            subnets = [by_version[version] for version in sorted(by_version)]
        found = []
        for subnet in subnets:
            address = self.addresses.spread_free(subnet.id, own)
            if address is None:
                self.problems.append((self.parts.resource, f"{subnet.spec.cidr} has no free address for a router"))
            else:
                found.append(address)
        return found


def _leg_id(leg: Leg) -> str:
    if leg.subnet:
        return derived_id(_KIND, "router_interface", leg.router, leg.subnet)
    return derived_id(_KIND, "router_gateway", leg.router, leg.network)


def _subnets(declared: Iterable[tuple[str, Resource]]) -> Iterator[Subnet]:
    for own, resource in sorted(declared, key=lambda pair: pair[0]):
        assert isinstance(resource.spec, SubnetSpec)
        yield Subnet(own, resource.id.name, resource.spec, resource.origin)


def _known(parts: Parts, before: Made | None) -> Mapping[str, tuple[Bound, Port]]:
    """The declared ports of before that would be made alike, if what they are made of is the same, by id."""
    if before is None or before.parts.subnets != parts.subnets:
        return {}
    names = parts.subnet_names
    if any(names.get(name, own) != own for name, own in before.parts.subnet_names.items()):
        return {}
    at_fault = {resource.id for resource, _ in before.problems}
    ports = {port.id: port for port in before.network.ports if port.owner is not Owner.DHCP}
    return {
        bound.id: (bound, ports[bound.id])
        for bound in before.parts.ports
        if bound.id in ports and bound.resource.id not in at_fault
    }


def _kept(new: Network, old: Network | None) -> Network:
    """The old network if it is equal, else the new one with its equal parts from the old one."""
    if old is None:
        return new
    if new == old:
        return old
    subnets = old.subnets if new.subnets == old.subnets else new.subnets
    known = {port.id: port for port in old.ports}
    ports = tuple(_old_if_equal(known.get(port.id), port) for port in new.ports)
    return replace(new, subnets=subnets, ports=ports)


def _old_if_equal(old: Port | None, new: Port) -> Port:
    return old if old is not None and (old is new or old == new) else new
