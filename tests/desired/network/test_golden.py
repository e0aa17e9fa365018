"""The flows of three nodes with two tenants, written by hand from what the releases do, one by one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from desired.kinds.openflow import FlowSpec
from desired.kinds.ovs import PortSpec
from desired.network.allocations import Allocations
from desired.network.build import build
from desired.network.compiler import Compiled, compile_node
from tests.desired.network.support import MACS, three_nodes

CONTROLLER, NETWORK, COMPUTE = "gre-0a0a0a0a", "gre-0a0a0a14", "gre-0a0a0a1e"
MULTICAST = "01:00:00:00:00:00/01:00:00:00:00:00"
UNICAST = "00:00:00:00:00:00/01:00:00:00:00:00"

OUTSIDE_INT = [
    "priority=2,in_port=int-br-ex,actions=drop",
    "priority=3,in_port=int-br-ex,dl_vlan=0xffff,actions=mod_vlan_vid:3,NORMAL",
]
OUTSIDE_EX = [
    "priority=1,actions=NORMAL",
    "priority=2,in_port=phy-br-ex,actions=drop",
    "priority=4,in_port=phy-br-ex,dl_vlan=3,actions=strip_vlan,NORMAL",
]


def single(vlan: int, key: int, *local: str) -> list[str]:
    """What 2012.2 and 2013.1 have for one network, with the MACs of its ports on the node."""
    return [
        f"priority=4,in_port=patch-int,dl_vlan={vlan},actions=set_tunnel:{key},NORMAL",
        f"priority=3,tun_id={key},dl_dst={MULTICAST},actions=mod_vlan_vid:{vlan},output:patch-int",
        *(f"priority=3,tun_id={key},dl_dst={MACS[port]},actions=mod_vlan_vid:{vlan},NORMAL" for port in local),
    ]


SINGLE = {
    "controller": {"br-int": ["priority=1,actions=NORMAL"], "br-tun": ["priority=1,actions=drop"]},
    "network": {
        "br-int": ["priority=1,actions=NORMAL", *OUTSIDE_INT],
        "br-ex": OUTSIDE_EX,
        "br-tun": ["priority=1,actions=drop", *single(1, 1, "dhcp1", "qr1"), *single(2, 999, "dhcp2")],
    },
    "compute": {
        "br-int": ["priority=1,actions=NORMAL"],
        "br-tun": ["priority=1,actions=drop", *single(1, 1, "vm1"), *single(2, 999, "vm2")],
    },
}

INT = [
    "priority=1,actions=NORMAL",
    "table=23,priority=0,actions=drop",
    "table=24,priority=0,actions=drop",
    "table=60,priority=3,actions=NORMAL",
]
LEARN = (
    "table=10,priority=1,actions=learn(table=20,priority=1,hard_timeout=300,NXM_OF_VLAN_TCI[0..11],"
    "NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0->NXM_OF_VLAN_TCI[],load:NXM_NX_TUN_ID[]->NXM_NX_TUN_ID[],"
    "output:NXM_OF_IN_PORT[]),output:patch-int"
)
TUN = [
    "table=0,priority=1,in_port=patch-int,actions=resubmit(,2)",
    "table=0,priority=0,actions=drop",
    "table=2,priority=1,arp,dl_dst=ff:ff:ff:ff:ff:ff,actions=resubmit(,21)",
    f"table=2,priority=0,dl_dst={UNICAST},actions=resubmit(,20)",
    f"table=2,priority=0,dl_dst={MULTICAST},actions=resubmit(,22)",
    "table=3,priority=0,actions=drop",
    "table=4,priority=0,actions=drop",
    "table=6,priority=0,actions=drop",
    LEARN,
    "table=20,priority=0,actions=resubmit(,22)",
    "table=21,priority=0,actions=resubmit(,22)",
    "table=22,priority=0,actions=drop",
]


def tunnels(*names: str) -> list[str]:
    return [f"table=0,priority=1,in_port={name},actions=resubmit(,3)" for name in names]


def multi(vlan: int, key: int, tunnel: str, *remote: tuple[str, str, str, str]) -> list[str]:
    """What 2014.2 and later have for one network whose other ports are behind one tunnel.

    Of each of these: its name, its address, its MAC in hex, its address in hex.
    """
    return [
        f"table=3,priority=1,tun_id={key},actions=mod_vlan_vid:{vlan},resubmit(,10)",
        f"table=22,priority=1,dl_vlan={vlan},actions=strip_vlan,set_tunnel:{key},output:{tunnel}",
        *(
            f"table=20,priority=2,dl_vlan={vlan},dl_dst={MACS[name]},"
            f"actions=strip_vlan,set_tunnel:{key},output:{tunnel}"
            for name, *_ in remote
        ),
        *(
            f"table=21,priority=1,arp,dl_vlan={vlan},arp_tpa={ip},actions="
            f"move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:{MACS[name]},load:0x2->NXM_OF_ARP_OP[],"
            "move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],"
            f"load:{mac}->NXM_NX_ARP_SHA[],load:{number}->NXM_OF_ARP_SPA[],in_port"
            for name, ip, mac, number in remote
        ),
    ]


MULTI = {
    "controller": {"br-int": INT, "br-tun": [*TUN, *tunnels(NETWORK, COMPUTE)]},
    "network": {
        "br-int": [*INT, *OUTSIDE_INT],
        "br-ex": OUTSIDE_EX,
        "br-tun": [
            *TUN,
            *tunnels(CONTROLLER, COMPUTE),
            *multi(1, 1, COMPUTE, ("vm1", "172.16.1.10", "0xfa163e000003", "0xac10010a")),
            *multi(2, 999, COMPUTE, ("vm2", "169.254.1.10", "0xfa163e000005", "0xa9fe010a")),
        ],
    },
    "compute": {
        "br-int": INT,
        "br-tun": [
            *TUN,
            *tunnels(CONTROLLER, NETWORK),
            *multi(
                1, 1, NETWORK,
                ("dhcp1", "172.16.1.2", "0xfa163e000001", "0xac100102"),
                ("qr1", "172.16.1.1", "0xfa163e000002", "0xac100101"),
            ),
            *multi(2, 999, NETWORK, ("dhcp2", "169.254.1.2", "0xfa163e000004", "0xa9fe0102")),
        ],
    },
}  # fmt: skip


def compiled(layout: str, node: str) -> Compiled:
    model = three_nodes(layout)
    ids = {network.name: own for own, network in build(model).networks.items()}
    return compile_node(model, node, Allocations({ids["one"]: 1, ids["two"]: 2, ids["outside"]: 3}))


def flows(found: Compiled) -> Mapping[str, list[str]]:
    bridges: dict[str, list[str]] = {}
    for resource in found.resources.values():
        if isinstance(resource.spec, FlowSpec):
            bridges.setdefault(resource.spec.bridge, []).append(resource.spec.flow)
    return {bridge: sorted(texts) for bridge, texts in bridges.items()}


@pytest.mark.parametrize(
    ("layout", "node", "expected"),
    [
        *(("single-table", node, expected) for node, expected in SINGLE.items()),
        *(("multi-table", node, expected) for node, expected in MULTI.items()),
    ],
)
def test_flows_are_those_of_the_release(layout: str, node: str, expected: Mapping[str, list[str]]) -> None:
    found = compiled(layout, node)
    assert flows(found) == {bridge: sorted(texts) for bridge, texts in expected.items()}
    assert found.problems == ()


def test_bridges_patches_tunnels_and_nics_of_the_network_node() -> None:
    found = compiled("single-table", "network").resources
    assert {rid.name for rid in found if rid.kind == "bridge"} == {"br-int", "br-tun", "br-ex"}
    ports = {rid.name: r.spec for rid, r in found.items() if isinstance(r.spec, PortSpec) and rid.kind == "port"}
    patches = {name: (spec.bridge, spec.peer) for name, spec in ports.items() if spec.type == "patch"}
    assert patches == {
        "patch-tun": ("br-int", "patch-int"),
        "patch-int": ("br-tun", "patch-tun"),
        "int-br-ex": ("br-int", "phy-br-ex"),
        "phy-br-ex": ("br-ex", "int-br-ex"),
    }
    assert (ports["eth2"].bridge, ports["eth2"].type) == ("br-ex", "system")
    tunnels = {name: (spec.local_ip, spec.remote_ip) for name, spec in ports.items() if spec.type == "gre"}
    assert tunnels == {CONTROLLER: ("10.10.10.20", "10.10.10.10"), COMPUTE: ("10.10.10.20", "10.10.10.30")}
    assert ports[COMPUTE].options == {"in_key": "flow", "out_key": "flow"}


def test_ports_of_the_network_node_have_the_vlan_of_their_network() -> None:
    found = compiled("single-table", "network").resources
    tags = {}
    for resource in found.values():
        if isinstance(resource.spec, PortSpec) and resource.spec.tag is not None:
            tags[resource.spec.mac] = resource.spec.tag
    assert tags == {MACS["dhcp1"]: 1, MACS["qr1"]: 1, MACS["dhcp2"]: 2, MACS["qg"]: 3}
