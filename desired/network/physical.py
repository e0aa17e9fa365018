"""Flows between br-int and the bridges of physical networks: the same in both layouts.

Nothing passes but what is translated: the network's tag outside (or none) to the local VLAN inside, and back.
"""

from __future__ import annotations

from collections.abc import Iterator

from desired.network.draft import flow
from desired.network.here import Here, patch_name
from desired.network.topology import Network
from desired.resource import Resource


def base(here: Here) -> Iterator[Resource]:
    """Switching on br-int and on each physical bridge, and the wall between them."""
    options, origin = here.options, here.node.origin
    yield flow(options.integration_bridge, "priority=1,actions=NORMAL", origin)
    for bridge in here.physical_bridges:
        inner, outer = patch_name("int-", bridge), patch_name("phy-", bridge)
        yield flow(options.integration_bridge, f"priority=2,in_port={inner},actions=drop", origin)
        yield flow(bridge, "priority=1,actions=NORMAL", origin)
        yield flow(bridge, f"priority=2,in_port={outer},actions=drop", origin)


def network(here: Here, network: Network, vlan: int) -> Iterator[Resource]:
    """The gate of a vlan or flat network."""
    spec = network.spec
    bridge = here.bridge_of(spec)
    if bridge is None:
        return
    inner, outer = patch_name("int-", bridge), patch_name("phy-", bridge)
    flat = spec.segmentation_id is None
    tag = "0xffff" if flat else str(spec.segmentation_id)
    translated = "strip_vlan" if flat else f"mod_vlan_vid:{spec.segmentation_id}"
    yield flow(
        here.options.integration_bridge,
        f"priority=3,in_port={inner},dl_vlan={tag},actions=mod_vlan_vid:{vlan},NORMAL",
        network.origin,
    )
    yield flow(bridge, f"priority=4,in_port={outer},dl_vlan={vlan},actions={translated},NORMAL", network.origin)
