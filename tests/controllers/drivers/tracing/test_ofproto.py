"""What Open vSwitch's tools print, read: traces of both layouts, of the userspace and of the kernel's datapath."""

from __future__ import annotations

import json

import pytest

from controllers.drivers.tracing.ofproto import read_switch, read_trace
from desired.network.trace.questions import Tunnelled

FLOODED = """\
Flow: icmp,in_port=5,vlan_tci=0x0000,dl_src=fa:16:3e:15:f5:9f,dl_dst=fa:16:3e:00:00:06,nw_src=172.16.1.5

bridge("br-int")
----------------
 0. priority 1, cookie 0x5ec071de6a48f7b0
    NORMAL
     -> no learned MAC for destination, flooding

    bridge("br-tun")
    ----------------
         0. in_port=1, priority 1, cookie 0x5ec071de76675726
            resubmit(,2)
         2. dl_dst=00:00:00:00:00:00/01:00:00:00:00:00, priority 0, cookie 0x5ec071defc128a37
            resubmit(,20)
        20. dl_vlan=2,dl_dst=fa:16:3e:00:00:06, priority 2, cookie 0x5ec071de35a8cd2a
            pop_vlan
            set_field:0x1->tun_id
            output:2
             -> output to native tunnel
             -> tunneling to 10.10.10.30 via br-phy
             -> neighbor cache miss for 10.10.10.30 on bridge br-phy, sending ARP request

bridge("br-ex")
---------------
 0. in_port=1, priority 2, cookie 0x5ec071dead24089d
    drop

Final flow: unchanged
Megaflow: recirc_id=0,eth,ip,in_port=5,dl_src=fa:16:3e:15:f5:9f,dl_dst=fa:16:3e:00:00:06,nw_ecn=0,nw_frag=no
Datapath actions: 2,push_vlan(vid=2,pcp=0),1
"""
PUSHED = (
    "Datapath actions: clone(tnl_push(tnl_port(6),header(size=42,type=3,eth(dst=02:00:00:00:00:30,"
    "src=62:0a:2a:7a:46:4b,dl_type=0x0800),ipv4(src=10.10.10.20,dst=10.10.10.30,proto=47,tos=0,ttl=64,frag=0x4000),"
    "gre((flags=0x2000,proto=0x6558),key=0x1)),out_port(8)),9),2,push_vlan(vid=2,pcp=0),1\n"
)
VXLAN = (
    "Datapath actions: tnl_push(tnl_port(6),header(size=50,type=4,eth(dst=02:00:00:00:00:30,src=62:0a:2a:7a:46:4b,"
    "dl_type=0x0800),ipv4(src=10.0.0.2,dst=10.0.0.3,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=4789,csum=0x0),"
    "vxlan(flags=0x8000000,vni=0x3e7)),out_port(8)),9\n"
)
KERNEL = (
    "Datapath actions: set(tunnel(tun_id=0x1,src=10.0.0.2,dst=10.0.0.3,ttl=64,tp_dst=4789,flags(df|key))),3,"
    "set(tunnel(tun_id=0x1,src=10.0.0.2,dst=10.0.0.4,ttl=64,tp_dst=4789,flags(df|key))),3,push_vlan(vid=1,pcp=0),5\n"
)


def test_every_flow_is_a_step_of_its_bridge_with_its_actions_and_remarks() -> None:
    read = read_trace(FLOODED)
    assert [(step.bridge, step.table, step.priority) for step in read.steps] == [
        ("br-int", "0", 1),
        ("br-tun", "0", 1),
        ("br-tun", "2", 0),
        ("br-tun", "20", 2),
        ("br-ex", "0", 2),
    ]
    unicast = read.steps[3]
    assert unicast.match == "dl_vlan=2,dl_dst=fa:16:3e:00:00:06"
    assert unicast.actions == ("pop_vlan", "set_field:0x1->tun_id", "output:2")
    assert read.steps[0].notes == ("no learned MAC for destination, flooding",)
    assert str(read.steps[2]).startswith("table=2,priority=0,dl_dst=00:00:00:00:00:00/01:")


def test_a_tunnel_whose_end_is_not_resolved_is_known_by_the_remarks() -> None:
    read = read_trace(FLOODED)
    assert read.tunnels == (Tunnelled("10.10.10.30", 1),)
    assert read.unresolved == ("10.10.10.30",)
    assert read.ports == (2, 1)


@pytest.mark.parametrize(
    ("text", "ports", "tunnels"),
    [
        (PUSHED, (2, 1), (Tunnelled("10.10.10.30", 1),)),
        (VXLAN, (), (Tunnelled("10.0.0.3", 999),)),
        (KERNEL, (5,), (Tunnelled("10.0.0.3", 1), Tunnelled("10.0.0.4", 1))),
        ("Datapath actions: drop\n", (), ()),
        ("Datapath actions: 4\nDatapath actions: ct(zone=1),recirc(0x3)\n", (4,), ()),
    ],
    ids=["gre", "vxlan", "kernel", "drop", "recirculated"],
)
def test_the_port_that_carries_a_tunnel_is_no_receiver(
    text: str, ports: tuple[int, ...], tunnels: tuple[Tunnelled, ...]
) -> None:
    read = read_trace(text)
    assert (read.ports, read.tunnels) == (ports, tunnels)


@pytest.mark.parametrize("line", [" 0. No match.\n    drop", " 0. reg0=0x2, priority 0, cookie 0x0\n    drop"])
def test_no_flow_is_told_from_a_flow_that_drops(line: str) -> None:
    (step,) = read_trace(f'bridge("br0")\n-------------\n{line}\n\nDatapath actions: drop\n').steps
    assert (step.priority, str(step)) == (-1, "table 0: no flow matches")
    (drop,) = read_trace('bridge("br0")\n 7. priority 0, cookie 0x1\n    drop\n').steps
    assert (drop.priority, drop.actions) == (0, ("drop",))


def test_a_tunnel_without_a_route_is_known() -> None:
    text = """\
bridge("br-tun")
----------------
 0. priority 1
    set_field:0x1->tun_id
    output:2
     -> output to native tunnel
     -> native tunnel routing failed
Datapath actions: drop
"""
    assert read_trace(text).unrouted


def test_the_tables_of_the_database_and_the_datapath_are_one_switch() -> None:
    def table(headings: list[str], *rows: list[object]) -> str:
        return json.dumps({"headings": headings, "data": list(rows)})

    empty: list[object] = ["set", []]
    interfaces = table(
        ["_uuid", "name", "ofport", "type", "options", "external_ids", "error"],
        [["uuid", "i1"], "tap1", 5, "", ["map", []], ["map", [["iface-id", "p1"]]], empty],
        [["uuid", "i2"], "gre-1", 2, "gre", ["map", [["remote_ip", "10.0.0.3"]]], ["map", []], empty],
        [["uuid", "i3"], "dead", empty, "internal", ["map", []], ["map", []], "could not open network device"],
    )
    ports = table(
        ["_uuid", "name", "tag", "interfaces"],
        [["uuid", "p1"], "tap1", 3, ["uuid", "i1"]],
        [["uuid", "p2"], "gre-1", empty, ["uuid", "i2"]],
        [["uuid", "p3"], "dead", empty, ["uuid", "i3"]],
    )
    bridges = table(
        ["_uuid", "name", "ports"],
        [["uuid", "b1"], "br-int", ["set", [["uuid", "p1"], ["uuid", "p3"]]]],
        [["uuid", "b2"], "br-tun", ["uuid", "p2"]],
    )
    dpif = """\
netdev@ovs-netdev: hit:6 missed:14
  br-int:
    br-int 65534/1: (tap)
    tap1 5/4: (system)
  br-tun:
    gre-1 2/6: (gre: key=flow, local_ip=10.10.10.20, remote_ip=10.0.0.3)
    patch-int 1/none: (patch: peer=patch-tun)
"""
    switch = read_switch(interfaces, ports, bridges, dpif)
    tap = switch.of_port("p1")
    assert tap is not None
    assert (tap.name, tap.bridge, tap.ofport, tap.tag, tap.odp, tap.works) == ("tap1", "br-int", 5, 3, 4, True)
    assert switch.devices["gre-1"].remote_ip == "10.0.0.3"
    assert not switch.devices["dead"].works
    assert switch.at("br-tun", 2) is switch.devices["gre-1"]
    assert switch.numbered(4) is tap
    assert switch.bridges == {"br-int", "br-tun"}
