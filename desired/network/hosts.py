"""Ports that we plug ourselves: bare (`plug: internal`), or in a namespace of their own (`plug: namespace`). Pure.

The second is a *virtual host*: a stand-in for an instance, in tests and examples, or a real service that is to be in a
tenant's network. Its namespace is called ``qvm-`` and the port's name, its device there ``eth0``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from desired.kinds.namespace import NamespaceSpec, RouteSpec
from desired.network.draft import made
from desired.network.model import Owner
from desired.network.plugs import first_gateways, moved_in, mtu_of, plugged, subnet_of, unadvertised
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
        yield from _routes(network, port, name)


def _routes(network: Network, port: Port, name: str) -> Iterator[Resource]:
    """What its DHCP server would tell it: the default route, and the routes of its subnets."""
    for subnet, gateway in first_gateways(network, port):
        to = "default" if subnet.spec.version == 4 else "::/0"
        yield made(RouteSpec(namespace=name, to=to, via=gateway, dev=DEVICE), subnet.origin)
    seen: set[str] = set()
    for address in port.addresses:
        its = subnet_of(network, address)
        for route in () if its is None else its.spec.host_routes:
            if route.to not in seen and route.to not in {"0.0.0.0/0", "::/0"}:
                seen.add(route.to)
                yield made(RouteSpec(namespace=name, to=route.to, via=route.via, dev=DEVICE), port.origin)
