"""The bridges of a node with what joins them, its tunnels, and its ports on br-int that no other part makes."""

from __future__ import annotations

from collections.abc import Iterator

from desired.kinds.ovs import BridgeSpec, HeldPortSpec, PortSpec
from desired.network.draft import made
from desired.network.here import PATCH_INT, PATCH_TUN, Here, patch_name, tunnel_name
from desired.network.model import Layout, Owner
from desired.network.plugs import network_config
from desired.network.topology import Network, Port
from desired.resource import Resource

PLUGGED = frozenset({Owner.INSTANCE, Owner.OTHER})
"""Owners of ports that are plugged by instances or as virtual hosts; DHCP servers and routers bring their own."""


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


def held(network: Network, port: Port, vlan: int) -> Iterator[Resource]:
    """The port of an instance, which others plug: it gets its network's VLAN, and says whose that is."""
    if port.plug == "held":
        held = HeldPortSpec(tag=vlan, other_config=network_config(network), awaited=False)
        yield made(held, port.origin, port.id)
