"""The bridges of a node with what joins them, its tunnels, and its ports on br-int that no other part makes."""

from __future__ import annotations

from collections.abc import Iterator

from desired.kinds.namespace import AddressSpec, LinkSpec, NamespaceSpec, RouteSpec
from desired.kinds.ovs import BridgeSpec, HeldPortSpec, PortSpec
from desired.network.draft import made
from desired.network.here import PATCH_INT, PATCH_TUN, Here, patch_name, tunnel_name
from desired.network.model import Layout, Owner
from desired.network.topology import Network, Port
from desired.resource import Resource

PLUGGED = frozenset({Owner.INSTANCE, Owner.OTHER})
"""Owners of the ports made here; DHCP servers and routers bring their own."""


def bridges(here: Here) -> Iterator[Resource]:
    """Bridges, patch pairs and NICs."""
    options, origin = here.options, here.node.origin
    yield made(BridgeSpec(), origin, options.integration_bridge)
    if here.tunnels:
        yield made(BridgeSpec(), origin, options.tunnel_bridge)
        yield from _patch(here, PATCH_TUN, options.tunnel_bridge, PATCH_INT)
    for bridge in here.physical_bridges:
        yield made(BridgeSpec(), origin, bridge)
        yield from _patch(here, patch_name("int-", bridge), bridge, patch_name("phy-", bridge))
    for bridge, nic in here.node.spec.bridge_interfaces.items():
        yield made(PortSpec(bridge=bridge, type="system"), origin, nic)


def _patch(here: Here, inner: str, bridge: str, outer: str) -> Iterator[Resource]:
    integration = here.options.integration_bridge
    yield made(PortSpec(bridge=integration, type="patch", peer=outer), here.node.origin, inner)
    yield made(PortSpec(bridge=bridge, type="patch", peer=inner), here.node.origin, outer)


def tunnels(here: Here) -> Iterator[Resource]:
    """A port of br-tun for each peer and each tunnel type in use."""
    if not here.tunnels:
        return
    options = {"in_key": "flow", "out_key": "flow"}
    if here.options.layout is Layout.MULTI_TABLE:
        options["df_default"] = "true"
    for tunnel_type in here.types:
        more = {"dst_port": str(here.options.vxlan_port)} if tunnel_type == "vxlan" and (
            here.options.vxlan_port != 4789
        ) else {}  # fmt: skip
        whole = dict(sorted((options | more).items()))
        for ip in here.peers.values():
            spec = PortSpec.model_validate(
                {
                    "bridge": here.options.tunnel_bridge,
                    "type": tunnel_type,
                    "local_ip": here.node.spec.tunnel_ip,
                    "remote_ip": ip,
                    "options": whole,
                }
            )
            yield made(spec, here.node.origin, tunnel_name(tunnel_type, ip))


def other_config(network: Network, vlan: int) -> dict[str, str]:
    """What says of which network a port is, in Neutron's words: found again by whoever takes the node over."""
    spec = network.spec
    known = {
        "net_uuid": network.id,
        "network_type": spec.type,
        "physical_network": str(spec.physical_network),
        "tag": str(vlan),
    }
    if spec.segmentation_id is not None:
        known["segmentation_id"] = str(spec.segmentation_id)
    return dict(sorted(known.items()))


def interface_ids(port: Port) -> dict[str, str]:
    """Interface.external_ids of a port of ours."""
    return {"attached-mac": port.mac, "iface-id": port.id, "iface-status": "active"}


def port(here: Here, network: Network, port: Port, vlan: int) -> Iterator[Resource]:
    """A port of an instance: held where others plug it, else made, and put into a namespace if it says so."""
    config = other_config(network, vlan)
    if port.plug == "held":
        yield made(HeldPortSpec(tag=vlan, other_config=config), port.origin, port.id)
        return
    device = port.device_name("tap")
    spec = PortSpec(
        bridge=here.options.integration_bridge,
        tag=vlan,
        mac=port.mac,
        mtu=network.spec.mtu if port.plug == "internal" else None,
        other_config=config,
        interface_external_ids=interface_ids(port),
    )
    yield made(spec, port.origin, device)
    if port.plug == "namespace":
        yield from _inside(network, port, device)


def namespace_of(port: Port) -> str:
    """The namespace of a port that has one of its own."""
    return f"port-{port.id}"


def _inside(network: Network, port: Port, device: str) -> Iterator[Resource]:
    space = namespace_of(port)
    yield made(NamespaceSpec(), port.origin, space)
    yield made(LinkSpec(namespace=space, dev="lo", up=True), port.origin)
    yield made(LinkSpec(namespace=space, dev=device, type="ovs", mtu=network.spec.mtu), port.origin)
    subnets = {subnet.id: subnet.spec for subnet in network.subnets}
    ways: dict[int, str] = {}
    for address in port.addresses:
        yield made(AddressSpec(namespace=space, dev=device, address=str(address)), port.origin)
        gateway = subnets[address.subnet].gateway_ip
        if gateway is not None and gateway != address.ip:
            ways.setdefault(subnets[address.subnet].version, gateway)
    for version, gateway in sorted(ways.items()):
        yield made(
            RouteSpec.model_validate(
                {"namespace": space, "to": "0.0.0.0/0" if version == 4 else "::/0", "via": gateway, "dev": device}
            ),
            port.origin,
        )
