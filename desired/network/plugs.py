"""Ports of the integration bridge that we make ourselves, and what Open vSwitch is told of them. Pure.

Used by `dhcp`, `routers` and `hosts`. The keys are Neutron's, so that its agents and its operators know such a port.
"""

from __future__ import annotations

from collections.abc import Iterator

from desired.kinds.namespace import AddressSpec, LinkSpec, SysctlSpec
from desired.kinds.ovs import PortSpec
from desired.network.draft import made
from desired.network.model import Owner
from desired.network.topology import Address, Network, Port, Subnet, Topology
from desired.resource import Resource

UNDERLAY_MTU = 1500
_OVERHEAD = {"gre": 42, "vxlan": 50, "geneve": 58}
_IPV6_HEADER_IS_LONGER = 20


def mtu_of(topology: Topology, network: Network) -> int:
    """What fits into the network: as declared, else what an underlay of 1500 bytes leaves, counted as Neutron does."""
    if network.spec.mtu is not None:
        return network.spec.mtu
    overhead = _OVERHEAD.get(network.spec.type, 0)
    if overhead and any(":" in (node.spec.tunnel_ip or "") for node in topology.nodes.values()):
        overhead += _IPV6_HEADER_IS_LONGER
    return UNDERLAY_MTU - overhead


def network_config(network: Network) -> dict[str, str]:
    """Port.other_config, by which a local VLAN is known again (Neutron's `provision_local_vlan`)."""
    config = {"net_uuid": network.id, "network_type": network.spec.type}
    if network.spec.physical_network is not None:
        config["physical_network"] = network.spec.physical_network
    if network.spec.segmentation_id is not None:
        config["segmentation_id"] = str(network.spec.segmentation_id)
    return config


def plugged(topology: Topology, port: Port, device: str, vlan: int) -> Resource:
    """The port on the integration bridge, named `device`."""
    spec = PortSpec(
        bridge=topology.options.integration_bridge,
        tag=vlan,
        mac=port.mac,
        other_config=network_config(topology.networks[port.network]),
        interface_external_ids={"iface-id": port.id, "attached-mac": port.mac, "iface-status": "active"},
    )
    return made(spec, port.origin, device)


def moved_in(  # noqa: PLR0913 - a port, its two names, and where it goes
    topology: Topology, port: Port, device: str, vlan: int, namespace: str, *, dev: str = "", announce: bool = False
) -> Iterator[Resource]:
    """The port, its device in the namespace (`dev` there, if that is another name), and its addresses."""
    yield plugged(topology, port, device, vlan)
    dev = dev or device
    link = LinkSpec(
        namespace=namespace,
        dev=dev,
        type="ovs",
        device=None if dev == device else device,
        mac=port.mac,
        mtu=mtu_of(topology, topology.networks[port.network]),
    )
    yield made(link, port.origin)
    for address in port.addresses:
        spec = AddressSpec(namespace=namespace, dev=dev, address=str(address), announce=announce)
        yield made(spec, port.origin)


def unadvertised(namespace: str, dev: str) -> SysctlSpec:
    """Addresses and routes of the device are declared; router advertisements add none. (A router ignores them.)"""
    return SysctlSpec(namespace=namespace, key=f"net/ipv6/conf/{dev}/accept_ra", value="0")


def subnet_of(network: Network, address: Address) -> Subnet | None:
    """The subnet that an address of a port is of."""
    return next((subnet for subnet in network.subnets if subnet.id == address.subnet), None)


def isolated(network: Network, subnet: Subnet) -> bool:
    """Is there no router behind the subnet's gateway? Then metadata is served where its DHCP is."""
    return subnet.spec.gateway_ip not in router_addresses(network)


def router_addresses(network: Network) -> frozenset[str]:
    """The addresses of the routers that serve the network."""
    legs = (port for port in network.ports if port.owner is Owner.ROUTER_INTERFACE)
    return frozenset(address.ip for port in legs for address in port.addresses)


def first_gateways(network: Network, port: Port, routers: frozenset[str]) -> Iterator[tuple[Subnet, str]]:
    """For each IP version, one of the port's subnets with a gateway (not itself), and that gateway's address.

    The first whose gateway is one of the `routers` (their addresses); if there is none, the first.
    """
    own = {address.ip for address in port.addresses}
    choice: dict[int, tuple[Subnet, str]] = {}
    routed: set[int] = set()
    for address in port.addresses:
        subnet = subnet_of(network, address)
        gateway = None if subnet is None else subnet.spec.gateway_ip
        if subnet is None or gateway is None or gateway in own or subnet.spec.version in routed:
            continue
        if gateway in routers:
            routed.add(subnet.spec.version)
        elif subnet.spec.version in choice:
            continue
        choice[subnet.spec.version] = subnet, gateway
    yield from choice.values()
