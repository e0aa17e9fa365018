"""What is wrong with a model's addresses beyond one object: who else has them, and ways that lead nowhere. Pure.

The other half of `desired.network.check`, which calls `conflicts`. A router's interface, the outer address of a router,
a DHCP server's written address and a floating IP are claims as a port's address is; an address has one owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from desired.network.model import (
    Model,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    NodeSpec,
    OptionsSpec,
    Owner,
    RouterSpec,
    SubnetSpec,
)
from desired.resource import Resource, Spec

Find = Callable[[type[Spec], str], Resource | None]
Finding = tuple[Resource, str, str, str]
"""The object at fault, the message, the place inside it, and what would be right."""

_SMALLEST_FOR_IPV6 = 1280
_OTHERS = frozenset({Owner.INSTANCE, Owner.OTHER})
"""Ports that never stand for what a router or a DHCP server has."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who has an address of a network, and where in the object that is written."""

    network: str
    ip: str
    holder: Resource
    inside: str
    what: str


@dataclass(frozen=True, slots=True)
class World:
    """A model, how its references are resolved, and its subnets by the name of their network.

    `more`: whether there may be others of a kind, or others of it in a network, that could not be read.
    """

    model: Model
    find: Find
    subnets: Mapping[str, list[Resource]]
    more: Callable[..., bool]


def conflicts(world: World) -> Iterator[Finding]:
    """Every fault of this kind, in no particular order."""
    claims = list(_claims(world))
    yield from _twice(claims)
    for claim in claims:
        yield from _unusable(world, claim)
    yield from _doubled_floating(world)
    for router in world.model.all(RouterSpec):
        yield from _next_hops(world, router)
    for node in world.model.all(NodeSpec):
        yield from _bridges(world, node)
    for members in world.subnets.values():
        for subnet in members:
            yield from _too_small(world, subnet)
        yield from _host_routes(world, members)


# -- who has an address -------------------------------------------------------------------------------------------


def _claims(world: World) -> Iterator[Claim]:
    """Routers first: of two that claim an address, the port is told."""
    for router in sorted(world.model.all(RouterSpec), key=lambda each: each.id):
        yield from _of_router(world, router)
    for members in world.subnets.values():
        for subnet in members:
            spec = _subnet(subnet)
            network = world.find(NetworkSpec, spec.network)
            for number, ip in enumerate(spec.dhcp_addresses if network else ()):
                yield Claim(_name(network), ip, subnet, f".dhcp_addresses[{number}]", "a DHCP server of subnet")
    for floating in sorted(world.model.all(NeutronFloatingIpSpec), key=lambda each: each.id):
        assert isinstance(floating.spec, NeutronFloatingIpSpec)
        outside = _outside(world, floating.spec)
        if outside is not None:
            yield Claim(outside, floating.spec.floating, floating, "", "floating IP")
    for port in sorted(world.model.all(NeutronPortSpec), key=lambda each: each.id):
        assert isinstance(port.spec, NeutronPortSpec)
        network = world.find(NetworkSpec, port.spec.network)
        for number, fixed in enumerate(port.spec.fixed_ips if network and port.spec.owner in _OTHERS else ()):
            yield Claim(_name(network), fixed.ip, port, f".fixed_ips[{number}].ip", "port")


def _of_router(world: World, router: Resource) -> Iterator[Claim]:
    spec = router.spec
    assert isinstance(spec, RouterSpec)
    for number, interface in enumerate(spec.interfaces):
        subnet = world.find(SubnetSpec, interface.subnet)
        network = None if subnet is None else world.find(NetworkSpec, _subnet(subnet).network)
        ip = interface.ip or (None if subnet is None else _subnet(subnet).gateway_ip)
        if network is not None and ip is not None:
            yield Claim(_name(network), ip, router, f".interfaces[{number}]", "router")
    outside = None if spec.gateway is None else world.find(NetworkSpec, spec.gateway.network)
    for number, ip in enumerate(spec.gateway.ips if outside and spec.gateway else ()):
        yield Claim(_name(outside), ip, router, f".gateway.ips[{number}]", "router")


def _twice(claims: list[Claim]) -> Iterator[Finding]:
    first: dict[tuple[str, str], Claim] = {}
    for claim in claims:
        other = first.setdefault((claim.network, claim.ip), claim)
        if other is claim or other.what == claim.what == "port" or other.holder is claim.holder:
            continue  # two ports are told by their own check, and a subnet twice on a router by that of routers
        owner = f"{other.what} {other.holder.id.name!r} ({other.holder.origin})"
        yield claim.holder, f"{claim.ip} is also the address of {owner}", claim.inside, _another(claim)


def _another(claim: Claim) -> str:
    if claim.what == "router" and claim.inside.startswith(".interfaces"):
        return "a subnet's gateway address is of one router; give the other one as {subnet: NAME, ip: ADDRESS}"
    return "give one of them another address"


def _unusable(world: World, claim: Claim) -> Iterator[Finding]:
    """IPv4 keeps a subnet's first and last address for itself."""
    address = ip_address(claim.ip)
    for subnet in world.subnets.get(claim.network, ()):
        net = ip_network(_subnet(subnet).cidr)
        if net.version == 6 or net.prefixlen >= 31 or address not in net:
            continue  # a /31 is two hosts (RFC 3021)
        if address in {net.network_address, net.broadcast_address}:
            word = "first" if address == net.network_address else "last"
            hint = f"right would be {net[1]} to {net[-2]}"
            yield claim.holder, f"{claim.ip} is the {word} address of {net}, which no host can have", claim.inside, hint


def _doubled_floating(world: World) -> Iterator[Finding]:
    """What leaves an address can have one floating IP of a network as its source."""
    first: dict[tuple[str, str, str], Resource] = {}
    for floating in sorted(world.model.all(NeutronFloatingIpSpec), key=lambda each: each.id):
        spec = floating.spec
        assert isinstance(spec, NeutronFloatingIpSpec)
        port = None if spec.port is None else world.find(NeutronPortSpec, spec.port)
        outside = _outside(world, spec)
        if port is None or outside is None:
            continue
        assert isinstance(port.spec, NeutronPortSpec)
        fixed = spec.fixed or next((each.ip for each in port.spec.fixed_ips), "")
        other = first.setdefault((outside, port.id.name, fixed), floating)
        if other is not floating:
            message = f"{fixed} of port {port.id.name!r} has floating IP {other.id.name!r} ({other.origin}) already"
            yield floating, message, ".port", "an address has one floating IP of a network; name another one as fixed"


def _outside(world: World, spec: NeutronFloatingIpSpec) -> str | None:
    """The network that a floating IP is of."""
    if spec.network is not None:
        found = world.find(NetworkSpec, spec.network)
        return None if found is None else found.id.name
    address = ip_address(spec.floating)
    for network in sorted(world.model.all(NetworkSpec), key=lambda each: each.id):
        assert isinstance(network.spec, NetworkSpec)
        members = world.subnets.get(network.id.name, ())
        if network.spec.external and any(address in ip_network(_subnet(each).cidr) for each in members):
            return network.id.name
    return None


# -- ways, bridges, sizes -----------------------------------------------------------------------------------------


def _next_hops(world: World, router: Resource) -> Iterator[Finding]:
    """A static route's next hop is on one of the router's own wires, or the kernel refuses the route."""
    spec = router.spec
    assert isinstance(spec, RouterSpec)
    inside = [world.find(SubnetSpec, each.subnet) for each in spec.interfaces]
    outside = None if spec.gateway is None else world.find(NetworkSpec, spec.gateway.network)
    near = [_subnet(each).cidr for each in inside if each is not None]
    near += [_subnet(each).cidr for each in (world.subnets.get(outside.id.name, ()) if outside else ())]
    unsure = outside is not None and world.more(SubnetSpec, outside.id.name)
    if None in inside or (spec.gateway is not None and outside is None) or unsure:
        return  # told already, and what is missing may be where the next hop is
    for number, route in enumerate(spec.routes):
        if not any(ip_address(route.via) in ip_network(cidr) for cidr in near):
            hint = f"it is on {', '.join(near)}" if near else "give it an interface"
            yield router, f"{route.via} is on no subnet of this router", f".routes[{number}].via", hint


def _host_routes(world: World, members: list[Resource]) -> Iterator[Finding]:
    """The next hop of a host route is on the wire of the network, or no host takes the route."""
    cidrs = [_subnet(each).cidr for each in members]
    for subnet in members:
        network = world.find(NetworkSpec, _subnet(subnet).network)
        if network is None or world.more(SubnetSpec, network.id.name):
            continue
        for number, route in enumerate(_subnet(subnet).host_routes):
            via = ip_address(route.via)
            if not via.is_link_local and not any(via in ip_network(cidr) for cidr in cidrs):
                message = f"{route.via} is in no subnet of network {network.id.name!r}, so no host can reach it"
                yield subnet, message, f".host_routes[{number}].via", f"it is {', '.join(cidrs)}"


def _bridges(world: World, node: Resource) -> Iterator[Finding]:
    assert isinstance(node.spec, NodeSpec)
    if world.more(OptionsSpec):
        return
    options = world.model.options
    own = {options.integration_bridge: "integration", options.tunnel_bridge: "tunnel"}
    for physical, bridge in node.spec.bridge_mappings.items():
        if bridge in own:
            message = f"{bridge} is the {own[bridge]} bridge, and cannot be that of physical network {physical!r}"
            yield node, message, f".bridge_mappings.{physical}", "choose a bridge of its own, like br-ex"


def _too_small(world: World, subnet: Resource) -> Iterator[Finding]:
    network = world.find(NetworkSpec, _subnet(subnet).network)
    if network is None or _subnet(subnet).version == 4:
        return
    assert isinstance(network.spec, NetworkSpec)
    if network.spec.mtu is not None and network.spec.mtu < _SMALLEST_FOR_IPV6:
        message = f"mtu {network.spec.mtu} is too small for IPv6, which subnet {subnet.id.name!r} is"
        yield network, message, ".mtu", f"{_SMALLEST_FOR_IPV6} or more"


def _subnet(resource: Resource) -> SubnetSpec:
    assert isinstance(resource.spec, SubnetSpec)
    return resource.spec


def _name(resource: Resource | None) -> str:
    return "" if resource is None else resource.id.name
