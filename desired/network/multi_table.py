"""br-tun in many tables, as Neutron has it from 2014.2 on, and the tables of br-int that came with it.

| table | what is in it |
|---|---|
| 0 | by where it comes from: br-int to 2, a tunnel to the table of its type |
| 2 | from br-int: ARP broadcasts to 21, unicast to 20, the rest to 22 |
| 3, 4, 6 | from gre, vxlan, geneve: the network's key to its local VLAN, then 10 |
| 10 | learn where the sender is (the switch's own flows in 20, for 300 s), then to br-int |
| 20 | unicast to the node that has the MAC: those of the model, then the learned ones; unknown to 22 |
| 21 | ARP requests for addresses of the model that are on other nodes are answered here; others to 22 |
| 22 | flood to the nodes where the network is, and to no others |

On br-int, 23 is Neutron's canary, 24 its ARP spoofing table, 60 its transient one: they hold what it leaves there.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from desired.network.draft import flow
from desired.network.here import PATCH_INT, Here, tunnel_name
from desired.network.model import NetworkSpec
from desired.network.topology import Network, Port
from desired.resource import Resource

FROM_TUNNEL = {"gre": 3, "vxlan": 4, "geneve": 6}
"""The table for what comes out of a tunnel, by its type."""

_LEARN = (
    "learn(table=20,priority=1,hard_timeout=300,NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],"
    "load:0->NXM_OF_VLAN_TCI[],load:NXM_NX_TUN_ID[]->NXM_NX_TUN_ID[],output:NXM_OF_IN_PORT[])"
)
_TUNNEL_BRIDGE = (
    f"table=0,priority=1,in_port={PATCH_INT},actions=resubmit(,2)",
    "table=0,priority=0,actions=drop",
    "table=2,priority=1,arp,dl_dst=ff:ff:ff:ff:ff:ff,actions=resubmit(,21)",
    "table=2,priority=0,dl_dst=00:00:00:00:00:00/01:00:00:00:00:00,actions=resubmit(,20)",
    "table=2,priority=0,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=resubmit(,22)",
    *(f"table={table},priority=0,actions=drop" for table in FROM_TUNNEL.values()),
    f"table=10,priority=1,actions={_LEARN},output:{PATCH_INT}",
    "table=20,priority=0,actions=resubmit(,22)",
    "table=21,priority=0,actions=resubmit(,22)",
    "table=22,priority=0,actions=drop",
)
_INTEGRATION_BRIDGE = (
    "table=23,priority=0,actions=drop",
    "table=24,priority=0,actions=drop",
    "table=60,priority=3,actions=NORMAL",
)


def base_integration(here: Here) -> Iterator[Resource]:
    """The tables that br-int has besides the first."""
    for text in _INTEGRATION_BRIDGE:
        yield flow(here.options.integration_bridge, text, here.node.origin)


def base(here: Here) -> Iterator[Resource]:
    """What br-tun does whatever networks there are."""
    for text in _TUNNEL_BRIDGE:
        yield flow(here.options.tunnel_bridge, text, here.node.origin)


def tunnels(here: Here) -> Iterator[Resource]:
    """The table for what comes out of each tunnel."""
    for tunnel_type in here.types:
        table = FROM_TUNNEL[tunnel_type]
        for ip in here.peers.values():
            name = tunnel_name(tunnel_type, ip)
            text = f"table=0,priority=1,in_port={name},actions=resubmit(,{table})"
            yield flow(here.options.tunnel_bridge, text, here.node.origin)


def network(here: Here, network: Network, vlan: int) -> Iterator[Resource]:
    """A tunnelled network that is on this node."""
    bridge, key, origin = here.options.tunnel_bridge, network.spec.segmentation_id, network.origin
    table = FROM_TUNNEL[network.spec.type]
    yield flow(bridge, f"table={table},priority=1,tun_id={key},actions=mod_vlan_vid:{vlan},resubmit(,10)", origin)
    tunnel = {
        node: tunnel_name(network.spec.type, here.peers[node]) for node in sorted(network.nodes) if node in here.peers
    }
    if tunnel:
        out = ",".join(f"output:{name}" for name in tunnel.values())
        text = f"table=22,priority=1,dl_vlan={vlan},actions=strip_vlan,set_tunnel:{key},{out}"
        yield flow(bridge, text, origin)


def port(here: Here, network: NetworkSpec, port: Port, vlan: int) -> Iterator[Resource]:
    """The way to a port on another node."""
    if port.node in here.peers:
        bridge, peer = here.options.tunnel_bridge, here.peers[port.node]
        out = f"strip_vlan,set_tunnel:{network.segmentation_id},output:{tunnel_name(network.type, peer)}"
        text = f"table=20,priority=2,dl_vlan={vlan},dl_dst={port.mac},actions={out}"
        yield flow(bridge, text, port.origin)
        yield from _answers(bridge, port, vlan)


def _answers(bridge: str, port: Port, vlan: int) -> Iterator[Resource]:
    """ARP replies in the name of a port that is elsewhere."""
    mac = f"{int(port.mac.replace(':', ''), 16):#x}"
    for address in port.addresses:
        if ":" in address.ip:
            continue
        reply = (
            f"move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:{port.mac},load:0x2->NXM_OF_ARP_OP[],"
            f"move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],"
            f"load:{mac}->NXM_NX_ARP_SHA[],load:{int(ip_address(address.ip)):#x}->NXM_OF_ARP_SPA[],in_port"
        )
        text = f"table=21,priority=1,arp,dl_vlan={vlan},arp_tpa={address.ip},actions={reply}"
        yield flow(bridge, text, port.origin)
