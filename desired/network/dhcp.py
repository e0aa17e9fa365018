"""DHCP and DNS of a network on one node: the namespace, its port, dnsmasq as a service, and metadata if it is isolated.

`fragment` is called by the compiler for each network and each node that serves it. What dnsmasq reads is in `dnsmasq`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from desired.kinds.namespace import AddressSpec, NamespaceSpec, RouteSpec
from desired.kinds.rules import RawRuleSpec
from desired.kinds.service import ServiceSpec
from desired.network import dnsmasq, metadata
from desired.network.draft import made
from desired.network.model import Owner
from desired.network.plugs import first_gateways, isolated, moved_in, router_addresses, unadvertised
from desired.network.topology import Network, Port, Topology
from desired.network.units import file, path, unit
from desired.resource import Resource

PREFIX = "qdhcp-"
_CAPABILITIES = (
    "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID CAP_CHOWN CAP_DAC_OVERRIDE CAP_SETPCAP"
)
_CLIENT_PORTS = {"ipv4": 68, "ipv6": 546}


def fragment(topology: Topology, network: Network, node: str, vlan: int) -> Iterable[Resource]:
    """What serves DHCP for the network on the node; nothing when the node has no DHCP port of it."""
    port = next((port for port in network.ports if port.owner is Owner.DHCP and port.node == node), None)
    if port is None:
        return
    name = f"{PREFIX}{network.id}"
    device = port.device_name("tap")
    # Addresses are exclusive, so that one that is declared no longer goes also where the kernel keeps no marks of them.
    yield made(NamespaceSpec(exclusive=("addresses",)), network.origin, name)
    yield from moved_in(topology, port, device, vlan, name)
    yield from _surroundings(network, port, name)
    yield from _dnsmasq(topology, network, port, name)
    if topology.options.metadata is not None and any(
        subnet.spec.version == 4 and isolated(network, subnet) for subnet in dnsmasq.served(network)
    ):
        address = AddressSpec(namespace=name, dev=device, address=f"{dnsmasq.METADATA}/32")
        yield made(address, network.origin)
        yield from metadata.proxy(topology, name, metadata.Serves.NETWORK, network.id, network.origin)


def _surroundings(network: Network, port: Port, name: str) -> Iterator[Resource]:
    """Addresses by nobody else, routes, and checksums that old clients of a virtual NIC insist on."""
    device = port.device_name("tap")
    yield made(unadvertised(name, device), network.origin)
    for subnet, gateway in first_gateways(network, port, router_addresses(network)):
        to = "default" if subnet.spec.version == 4 else "::/0"
        route = RouteSpec(namespace=name, to=to, via=gateway, dev=device)
        yield made(route, subnet.origin)
    # In the order in which they are rendered, so that YAML which was rendered declares the same.
    families = sorted({"ipv6" if ":" in address.ip else "ipv4" for address in port.addresses}, reverse=True)
    for order, family in enumerate(families):
        rule = f"-p udp -m udp --dport {_CLIENT_PORTS[family]} -j CHECKSUM --checksum-fill"
        spec = RawRuleSpec.model_validate(
            {
                "namespace": name,
                "table": "mangle",
                "chain": "POSTROUTING",
                "rule": rule,
                "family": family,
                "order": order,
            }
        )
        yield made(spec, network.origin)


def _dnsmasq(topology: Topology, network: Network, port: Port, name: str) -> Iterator[Resource]:
    if not dnsmasq.served(network):
        return
    config = dnsmasq.configuration(topology, network, port.device_name("tap"), name)
    yield file(f"{name}.conf", config, network.origin, name)
    again = {
        f"{name}.hosts": dnsmasq.hosts(topology, network),
        f"{name}.names": dnsmasq.names(topology, network),
        f"{name}.options": dnsmasq.options(topology, network, port),
    }
    for filename, lines in again.items():
        yield file(filename, lines, network.origin, name)
    start = f"/usr/sbin/dnsmasq --keep-in-foreground --conf-file={path(f'{name}.conf')}"
    text = unit(f"DHCP and DNS of network {network.id}", start, _CAPABILITIES, namespace=name, hangup=True)
    service = ServiceSpec(
        name=f"{name}.service",
        unit=text,
        namespace=name,
        restart_on=(path(f"{name}.conf"),),
        reload_on=tuple(path(filename) for filename in again),
    )
    yield made(service, network.origin)
