"""br-tun in one table, as Quantum of 2012.2 and 2013.1 has it.

What leaves a local VLAN is given its network's key and switched by MAC learning (NORMAL, over all tunnels); what comes
out of a tunnel is let in if it is a broadcast or for a port that is here.
"""

from __future__ import annotations

from collections.abc import Iterator

from desired.network.draft import flow
from desired.network.here import PATCH_INT, Here
from desired.network.model import NetworkSpec
from desired.network.topology import Network, Port
from desired.resource import Resource

_MULTICAST = "01:00:00:00:00:00/01:00:00:00:00:00"


def base(here: Here) -> Iterator[Resource]:
    """What br-tun does with what nobody is known to want."""
    yield flow(here.options.tunnel_bridge, "priority=1,actions=drop", here.node.origin)


def network(here: Here, network: Network, vlan: int) -> Iterator[Resource]:
    """A tunnelled network that is on this node."""
    bridge, key = here.options.tunnel_bridge, network.spec.segmentation_id
    yield flow(bridge, f"priority=4,in_port={PATCH_INT},dl_vlan={vlan},actions=set_tunnel:{key},NORMAL", network.origin)
    yield flow(
        bridge,
        f"priority=3,tun_id={key},dl_dst={_MULTICAST},actions=mod_vlan_vid:{vlan},output:{PATCH_INT}",
        network.origin,
    )


def port(here: Here, network: NetworkSpec, port: Port, vlan: int) -> Iterator[Resource]:
    """The way to a port that is here."""
    if port.node == here.name:
        match = f"priority=3,tun_id={network.segmentation_id},dl_dst={port.mac}"
        yield flow(here.options.tunnel_bridge, f"{match},actions=mod_vlan_vid:{vlan},NORMAL", port.origin)
