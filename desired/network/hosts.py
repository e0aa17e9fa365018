"""Ports that we plug ourselves: bare (`plug: internal`), or in a namespace of their own (`plug: namespace`). Pure.

The second is a *virtual host*: a stand-in for an instance, in tests and examples, or a real service that is to be in a
tenant's network. Its namespace is called ``qvm-`` and the port's name, its device there ``eth0``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from desired.kinds.namespace import NamespaceSpec, RouteSpec
from desired.network import dnsmasq
from desired.network.bridges import PLUGGED
from desired.network.draft import made
from desired.network.model import Owner
from desired.network.plugs import (
    first_gateways,
    moved_in,
    mtu_of,
    plugged,
    router_addresses,
    subnet_of,
    unadvertised,
)
from desired.network.topology import Network, Port, Topology
from desired.resource import Resource

PREFIX = "qvm-"
DEVICE = "eth0"
_OTHERS = frozenset({Owner.DHCP, Owner.ROUTER_INTERFACE, Owner.ROUTER_GATEWAY})
"""Their ports are plugged by `dhcp` and `routers`."""
_PLAIN = re.compile(r"[A-Za-z0-9_.@+-]{1,100}")


def namespace_of(port: Port) -> str:
    """The namespace of a virtual host: by the name of its port, or by its id when that is no name for a namespace."""
    return f"{PREFIX}{port.name if _PLAIN.fullmatch(port.name) else port.id}"


def fragment(topology: Topology, network: Network, port: Port, vlan: int) -> Iterable[Resource]:
    """The port as its `plug` says; nothing for one that others plug, or that is a server's or a router's."""
    if port.owner in _OTHERS:
        return
    device = port.device_name("tap")
    if port.plug == "internal":
        resource = plugged(topology, port, device, vlan)
        yield made(resource.spec.model_copy(update={"mtu": mtu_of(topology, network)}), port.origin, device)
    elif port.plug == "namespace":
        name = namespace_of(port)
        yield made(NamespaceSpec(), port.origin, name)
        yield made(unadvertised(name, DEVICE), port.origin)
        yield from moved_in(topology, port, device, vlan, name, dev=DEVICE)


def routes(topology: Topology, network: Network, node: str) -> Iterator[Resource]:
    """The routes of all virtual hosts of a network on a node: they depend on its routers and DHCP servers as well."""
    mine = [p for p in network.ports if p.plug == "namespace" and p.node == node and p.owner in PLUGGED]
    if mine:
        routers = router_addresses(network)
        servers = {each.id: dnsmasq.metadata_server(topology, network, each) for each in network.subnets}
        for port in mine:
            yield from _routes(network, port, routers, servers)


def _routes(
    network: Network, port: Port, routers: frozenset[str], servers: Mapping[str, str | None]
) -> Iterator[Resource]:
    """What its DHCP server would tell it: the default route, the routes of its subnets, and the way to metadata."""
    name = namespace_of(port)
    for subnet, gateway in first_gateways(network, port, routers):
        to = "default" if subnet.spec.version == 4 else "::/0"
        yield made(RouteSpec(namespace=name, to=to, via=gateway, dev=DEVICE), subnet.origin)
    seen: set[str] = set()
    for address in port.addresses:
        its = subnet_of(network, address)
        for route in () if its is None else its.spec.host_routes:
            if route.to not in seen and route.to not in {"0.0.0.0/0", "::/0"}:
                seen.add(route.to)
                yield made(RouteSpec(namespace=name, to=route.to, via=route.via, dev=DEVICE), port.origin)
    server = next(filter(None, (servers.get(address.subnet) for address in port.addresses)), None)
    to = f"{dnsmasq.METADATA}/32"
    if server is not None and to not in seen:
        yield made(RouteSpec(namespace=name, to=to, via=server, dev=DEVICE), port.origin)
