"""What dnsmasq is told of a network: its configuration, the hosts that it serves, and the options they get. Pure.

The configuration is read at the start only. Hosts, names and options are read again at SIGHUP, so that a new instance
interrupts nobody: they are files of their own. Used by `dhcp`. As Neutron's DHCP agent writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from desired.network.model import Owner
from desired.network.plugs import isolated, mtu_of
from desired.network.topology import Network, Port, Subnet, Topology
from desired.network.units import STATE, path

METADATA = "169.254.169.254"
LARGEST = 16777216
"""Leases that dnsmasq will give at most; its own limit is 1000."""
_MICROSOFT_ROUTES = 249
_WITHOUT_HOSTS = frozenset({Owner.DHCP, Owner.FLOATING_IP})


def served(network: Network) -> tuple[Subnet, ...]:
    """The subnets whose addresses dnsmasq gives out. With SLAAC, and nothing else, there is nothing to ask for."""
    return tuple(subnet for subnet in network.subnets if subnet.spec.dhcp and subnet.spec.ipv6_mode != "slaac")


def metadata_server(topology: Topology, network: Network, subnet: Subnet) -> str | None:
    """The DHCP server's address through which the subnet's hosts reach metadata; None if not by a DHCP server."""
    if topology.options.metadata is None or subnet.spec.version != 4:
        return None
    servers = _servers(network, subnet) if subnet in served(network) and isolated(network, subnet) else ()
    return next(iter(servers), None)


def configuration(topology: Topology, network: Network, device: str, name: str) -> list[str]:
    """The configuration file. `name` is that of the namespace, and of the other files."""
    options = topology.options
    lines = [
        "no-hosts",
        "no-resolv",
        "bind-dynamic",
        f"interface={device}",
        "except-interface=lo",
        "pid-file=",
        "log-facility=-",
        f"domain={options.dns_domain}",
        f"dhcp-hostsfile={path(f'{name}.hosts')}",
        f"dhcp-optsfile={path(f'{name}.options')}",
        f"addn-hosts={path(f'{name}.names')}",
        f"dhcp-leasefile=/var/lib/{STATE}/{name}.leases",
        f"dhcp-option-force=option:mtu,{mtu_of(topology, network)}",
    ]
    if len(network.dhcp_nodes) == 1:  # the only one may speak for the network, also after it lost its leases
        lines.append("dhcp-authoritative")
    size = 0
    for subnet in served(network):
        cidr = ip_network(subnet.spec.cidr)
        mask = str(cidr.netmask) if cidr.version == 4 else str(cidr.prefixlen)
        lines.append(f"dhcp-range={_set(subnet)},{cidr.network_address},static,{mask},{options.dhcp_lease}s")
        size += cidr.num_addresses
    lines.append(f"dhcp-lease-max={min(size, LARGEST)}")
    return lines


def hosts(topology: Topology, network: Network) -> list[str]:
    """One line for each address that is given out: ``MAC,NAME,ADDRESS``."""
    return [f"{port.mac},{name},{shown}" for port, name, _, shown in _hosts(topology, network, of_dhcp=True)]


def names(topology: Topology, network: Network) -> list[str]:
    """What DNS knows, before anybody has asked for a lease: ``ADDRESS NAME ALIAS``."""
    return [f"{ip} {name} {name.partition('.')[0]}" for _, name, ip, _ in _hosts(topology, network, of_dhcp=False)]


def _hosts(topology: Topology, network: Network, *, of_dhcp: bool) -> Iterator[tuple[Port, str, str, str]]:
    """Ports of the network with each address: port, host name, address, and the address as a host's line has it.

    `of_dhcp` leaves out what is not given out: a stateless host makes its own, and servers ask nobody.
    """
    subnets = {subnet.id: subnet for subnet in network.subnets}
    given = {subnet.id for subnet in served(network) if subnet.spec.ipv6_mode != "dhcpv6-stateless"}
    for port in network.ports:
        if of_dhcp and port.owner in _WITHOUT_HOSTS:
            continue
        for address in port.addresses:
            if address.subnet not in (given if of_dhcp else subnets):
                continue
            name = f"host-{address.ip.replace('.', '-').replace(':', '-').strip('-')}.{topology.options.dns_domain}"
            yield port, name, address.ip, f"[{address.ip}]" if ":" in address.ip else address.ip


def options(topology: Topology, network: Network, server: Port) -> list[str]:
    """The options of each subnet, for those who are served by `server`."""
    lines: list[str] = []
    for subnet in served(network):
        addresses = {address.subnet: address.ip for address in server.addresses}
        if subnet.spec.version == 4:
            lines += _ipv4(topology, network, subnet, addresses.get(subnet.id))
        else:
            lines += _ipv6(topology, network, subnet)
    return lines


def _ipv4(topology: Topology, network: Network, subnet: Subnet, server: str | None) -> Iterator[str]:
    tag, gateway = _tag(subnet), subnet.spec.gateway_ip
    dns = subnet.spec.dns or _servers(network, subnet)
    if dns:
        yield f"{tag},option:dns-server,{','.join(dns)}"
    routes = [f"{other.spec.cidr},0.0.0.0" for other in network.subnets if _beside(other, subnet)]
    routes += [f"{route.to},{route.via}" for route in subnet.spec.host_routes]
    if topology.options.metadata is not None and server is not None and isolated(network, subnet):
        routes.append(f"{METADATA}/32,{server}")
    if routes:  # who takes these ignores the router option
        routes += [f"0.0.0.0/0,{gateway}"] if gateway is not None else []
        for option in ("option:classless-static-route", str(_MICROSOFT_ROUTES)):
            yield f"{tag},{option},{','.join(routes)}"
    yield f"{tag},option:router" + ("" if gateway is None else f",{gateway}")


def _beside(other: Subnet, subnet: Subnet) -> bool:
    return other.spec.version == 4 and other.id != subnet.id


def _ipv6(topology: Topology, network: Network, subnet: Subnet) -> Iterator[str]:
    tag = _tag(subnet)
    dns = subnet.spec.dns or _servers(network, subnet)
    if dns:
        yield f"{tag},option6:dns-server,{','.join(f'[{ip}]' for ip in dns)}"
    yield f"{tag},option6:domain-search,{topology.options.dns_domain}"


def _servers(network: Network, subnet: Subnet) -> tuple[str, ...]:
    """The addresses of the network's DHCP servers in the subnet: each is also a name server."""
    return tuple(
        address.ip
        for port in network.ports
        if port.owner is Owner.DHCP
        for address in port.addresses
        if address.subnet == subnet.id
    )


def _set(subnet: Subnet) -> str:
    return f"set:subnet-{subnet.id}"


def _tag(subnet: Subnet) -> str:
    return f"tag:subnet-{subnet.id}"
