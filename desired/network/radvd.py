"""Router advertisements for the IPv6 subnets of a router: radvd's configuration and service, as Neutron's. Pure.

A subnet whose `ipv6_mode` is unset is not advertised: its hosts are given address and gateway by other means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from desired.kinds.service import ServiceSpec
from desired.network.draft import made
from desired.network.plugs import mtu_of, subnet_of
from desired.network.topology import Port, Router, Subnet, Topology
from desired.network.units import file, path, unit
from desired.resource import Resource

_CAPABILITIES = "CAP_NET_ADMIN CAP_NET_RAW CAP_SETUID CAP_SETGID CAP_DAC_OVERRIDE"
_FLAGS = {
    "slaac": (),
    "dhcpv6-stateless": ("AdvOtherConfigFlag on;",),
    "dhcpv6-stateful": ("AdvManagedFlag on;", "AdvOtherConfigFlag on;"),
}


def fragment(topology: Topology, router: Router, namespace: str) -> Iterator[Resource]:
    """The service for the router; nothing when none of its subnets is advertised."""
    lines: list[str] = []
    for port in router.interfaces:
        subnets = _advertised(topology, port)
        if subnets:
            lines += _interface(topology, port, subnets)
    if not lines:
        return
    name = f"{namespace}-radvd"
    yield file(f"{name}.conf", lines, router.origin, name)
    start = f"/usr/sbin/radvd --nodaemon --logmethod stderr --config {path(f'{name}.conf')} --pidfile /tmp/radvd.pid"
    text = unit(f"Router advertisements of router {router.id}", start, _CAPABILITIES, namespace=namespace, hangup=True)
    service = ServiceSpec(name=f"{name}.service", unit=text, namespace=namespace, reload_on=(path(f"{name}.conf"),))
    yield made(service, router.origin)


def _advertised(topology: Topology, port: Port) -> Sequence[Subnet]:
    network = topology.networks[port.network]
    found = (subnet_of(network, address) for address in port.addresses)
    return [subnet for subnet in found if subnet is not None and subnet.spec.ipv6_mode is not None]


def _interface(topology: Topology, port: Port, subnets: Sequence[Subnet]) -> Iterator[str]:
    yield f"interface {port.device_name('qr-')}"
    yield "{"
    yield "    AdvSendAdvert on;"
    yield "    MinRtrAdvInterval 30;"
    yield "    MaxRtrAdvInterval 100;"
    yield f"    AdvLinkMTU {mtu_of(topology, topology.networks[port.network])};"
    for flag in sorted({flag for subnet in subnets for flag in _FLAGS[str(subnet.spec.ipv6_mode)]}):
        yield f"    {flag}"
    servers = [ip for subnet in subnets if subnet.spec.ipv6_mode == "slaac" for ip in subnet.spec.dns]
    if servers:
        yield f"    RDNSS {' '.join(dict.fromkeys(servers))} {{}};"
    for subnet in subnets:
        autonomous = "off" if subnet.spec.ipv6_mode == "dhcpv6-stateful" else "on"
        yield f"    prefix {subnet.spec.cidr}"
        yield "    {"
        yield "        AdvOnLink on;"
        yield f"        AdvAutonomous {autonomous};"
        yield "    };"
    yield "};"
