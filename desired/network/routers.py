"""A router on its node: the namespace with its ports and addresses, routes, NAT, and the services in it. Pure.

`fragment` is called by the compiler for each router that is on the node. IPv4 only is translated; IPv6 is routed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network

from desired.kinds.namespace import AddressSpec, NamespaceSpec, RouteSpec, SysctlSpec
from desired.kinds.rules import FloatingIpSpec, RawRuleSpec, RedirectSpec, SnatSpec
from desired.network import metadata, radvd
from desired.network.draft import made
from desired.network.plugs import first_gateways, moved_in, router_addresses, subnet_of
from desired.network.topology import Port, Router, Topology
from desired.resource import Resource

PREFIX = "qrouter-"
_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    # A router has an address in each of several networks, and answers for each where it is (Neutron does the same).
    "net.ipv4.conf.all.arp_ignore": "1",
    "net.ipv4.conf.all.arp_announce": "2",
    # Loose: what a host in one of two external networks sends may be answered through the other.
    "net.ipv4.conf.all.rp_filter": "2",
}


def fragment(topology: Topology, router: Router, node: str, vlans: Mapping[str, int]) -> Iterable[Resource]:
    """All of the router, if it is on the node. `vlans` are the local VLANs by network id."""
    if router.node != node:
        return
    name = f"{PREFIX}{router.id}"
    # Addresses are exclusive, so that one that is declared no longer goes also where the kernel keeps no marks of them.
    yield made(NamespaceSpec(exclusive=("addresses",)), router.origin, name)
    for key, value in _SYSCTLS.items():
        yield made(SysctlSpec(namespace=name, key=key, value=value), router.origin)
    for port in router.interfaces:
        yield from moved_in(topology, port, port.device_name("qr-"), vlans[port.network], name, announce=True)
    if router.gateway is not None:
        yield from _gateway(topology, router, router.gateway, vlans, name)
    yield from _static_routes(router, name)
    if topology.options.metadata is not None:
        redirect = RedirectSpec(
            namespace=name, destination=metadata.ADDRESS, port=metadata.PORT, to_port=topology.options.metadata.port
        )
        yield made(redirect, router.origin)
        yield from metadata.proxy(topology, name, metadata.Serves.ROUTER, router.id, router.origin)
    yield from radvd.fragment(topology, router, name)


def _gateway(
    topology: Topology, router: Router, gateway: Port, vlans: Mapping[str, int], name: str
) -> Iterator[Resource]:
    device = gateway.device_name("qg-")
    yield from moved_in(topology, gateway, device, vlans[gateway.network], name, announce=True)
    for floating in router.floating:
        address = f"{floating.floating}/{ip_address(floating.floating).max_prefixlen}"
        yield made(AddressSpec(namespace=name, dev=device, address=address, announce=True), floating.origin)
    yield from _ways_out(topology, gateway, name)
    yield from _translation(topology, router, gateway, name)


def _ways_out(topology: Topology, gateway: Port, name: str) -> Iterator[Resource]:
    """The default routes, and other subnets of the external network, which are on the same wire."""
    device, external = gateway.device_name("qg-"), topology.networks[gateway.network]
    for subnet, via in first_gateways(external, gateway, router_addresses(external)):
        inside = ip_address(via) in ip_network(subnet.spec.cidr) or ip_address(via).is_link_local
        to = "default" if subnet.spec.version == 4 else "::/0"
        yield made(RouteSpec(namespace=name, to=to, via=via, dev=device, onlink=not inside), subnet.origin)
    own = {address.subnet for address in gateway.addresses}
    for subnet in external.subnets:
        if subnet.id not in own:
            yield made(RouteSpec(namespace=name, to=subnet.spec.cidr, dev=device), subnet.origin)


def _translation(topology: Topology, router: Router, gateway: Port, name: str) -> Iterator[Resource]:
    """NAT as in Neutron's routers. The kinds of rules say in which order they stand: floating IPs before the rest."""
    device = gateway.device_name("qg-")
    for floating in router.floating:
        spec = FloatingIpSpec(namespace=name, floating=floating.floating, fixed=floating.fixed)
        yield made(spec, floating.origin)
    # What stays inside keeps its source. (Older routers say `! -i qg-…` as well, which iptables refuses in this chain.)
    inside = f"! -o {device} -m conntrack ! --ctstate DNAT -j ACCEPT"
    yield _raw(router, name, "nat", "POSTROUTING", inside)
    own = next((address.ip for address in gateway.addresses if ":" not in address.ip), None)
    if own is not None and router.spec.gateway is not None and router.spec.gateway.snat:
        # By subnet: also what goes to a floating IP of the same router, so that its answer comes back this way.
        for port, cidr in _subnets(topology, router):
            yield made(SnatSpec(namespace=name, source=cidr, to=own), port.origin)
        # By device: what comes from behind other routers inside.
        yield made(SnatSpec(namespace=name, out=device, to=own), gateway.origin)
    if topology.options.metadata is not None:
        blocked = f"-i {device} -p tcp --dport {topology.options.metadata.port} -j DROP"
        yield _raw(router, name, "filter", "INPUT", blocked)


def _raw(router: Router, name: str, table: str, chain: str, rule: str) -> Resource:
    spec = RawRuleSpec.model_validate({"namespace": name, "table": table, "chain": chain, "rule": rule})
    return made(spec, router.origin)


def _subnets(topology: Topology, router: Router) -> Iterator[tuple[Port, str]]:
    """The IPv4 subnets inside, each once."""
    seen: set[str] = set()
    for port in router.interfaces:
        network = topology.networks[port.network]
        for address in port.addresses:
            subnet = subnet_of(network, address)
            if subnet is not None and subnet.spec.version == 4 and subnet.id not in seen:
                seen.add(subnet.id)
                yield port, subnet.spec.cidr


def _static_routes(router: Router, name: str) -> Iterator[Resource]:
    """The declared routes, by the device in whose network the next hop is."""
    for route in router.spec.routes:
        spec = RouteSpec(namespace=name, to=_default(route.to), via=route.via, dev=_towards(router, route.via))
        yield made(spec, router.origin)


def _default(to: str) -> str:
    return "default" if to == "0.0.0.0/0" else to


def _towards(router: Router, via: str) -> str | None:
    devices = [(port, port.device_name("qr-")) for port in router.interfaces]
    if router.gateway is not None:
        devices.append((router.gateway, router.gateway.device_name("qg-")))
    for port, device in devices:
        for address in port.addresses:
            if ip_address(via) in ip_network(str(address), strict=False):
                return device
    return None
