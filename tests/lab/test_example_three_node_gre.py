"""The example three-node-gre, booted: its flows one by one, its traffic, who sees it on the underlay, its services."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.lab import service
from tests.lab.cluster import Cluster, Node
from tests.lab.examples import ALL, TREE, installed, settled
from tests.lab.holder import ToolFailedError

EXAMPLE = ALL["three-node-gre"]
LAYOUT = "layout: single-table"
MULTICAST = "01:00:00:00:00:00/01:00:00:00:00:00"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with installed(EXAMPLE.name) as cluster:
        yield cluster


def flows(node: Node, bridge: str) -> set[str]:
    """What Open vSwitch has, in the words of the example: names of ports, mod_vlan_vid, set_tunnel."""
    found = node.run("ovs-ofctl", "--no-stats", "--names", "dump-flows", bridge).splitlines()
    return {_plain(line) for line in found}


def _plain(line: str) -> str:
    line = re.sub(r"cookie=\w+, |table=0, |\"", "", line).strip().replace(" actions=", ",actions=")
    line = re.sub(
        r"load:0x(\w+)->NXM_OF_VLAN_TCI\[0\.\.12\]", lambda tag: f"mod_vlan_vid:{int(tag[1], 16) - 0x1000}", line
    )
    line = re.sub(r"load:0x(\w+)->NXM_NX_TUN_ID\[\]", lambda key: f"set_tunnel:{int(key[1], 16)}", line)
    line = re.sub(r"tun_id=0x(\w+)", lambda key: f"tun_id={int(key[1], 16)}", line)
    return line.replace("vlan_tci=0x0000/0x1fff", "dl_vlan=0xffff")


def inside(node: Node, namespace: str, *argv: str) -> str:
    return node.run("ip", "netns", "exec", namespace, *argv)


def mac(node: Node, namespace: str, device: str = "eth0") -> str:
    return inside(node, namespace, "cat", f"/sys/class/net/{device}/address").strip()


def spaces(node: Node, prefix: str) -> list[str]:
    return [word for word in node.run("ip", "netns", "list").split() if word.startswith(prefix)]


def of_network(node: Node, key: int) -> str:
    """The local VLAN of the network with this key."""
    rows = node.run("ovs-vsctl", "--bare", "--columns=tag", "find", "port", f"other_config:segmentation_id={key}")
    return rows.split()[0]


def macs_of_network(node: Node, key: int) -> set[str]:
    names = node.run("ovs-vsctl", "--bare", "--columns=name", "find", "port", f"other_config:segmentation_id={key}")
    return {node.run("ovs-vsctl", "get", "interface", name, "mac").strip().strip('"') for name in names.split()}


def test_the_flows_of_the_network_node_are_those_of_the_release(cluster: Cluster) -> None:
    node = cluster.nodes["network"]
    outside = node.run("ovs-vsctl", "--bare", "--columns=tag", "find", "port", "other_config:network_type=flat").strip()
    assert flows(node, "br-int") == {
        "priority=1,actions=NORMAL",
        "priority=2,in_port=int-br-ex,actions=drop",
        f"priority=3,in_port=int-br-ex,dl_vlan=0xffff,actions=mod_vlan_vid:{outside},NORMAL",
    }
    assert flows(node, "br-ex") == {
        "priority=1,actions=NORMAL",
        "priority=2,in_port=phy-br-ex,actions=drop",
        f"priority=4,in_port=phy-br-ex,dl_vlan={outside},actions=strip_vlan,NORMAL",
    }
    expected = {"priority=1,actions=drop"}
    for key, ports in ((1, 2), (999, 1)):  # tenant one: DHCP and router; tenant two: DHCP
        vlan, macs = of_network(node, key), macs_of_network(node, key)
        assert len(macs) == ports
        expected |= {
            f"priority=4,in_port=patch-int,dl_vlan={vlan},actions=set_tunnel:{key},NORMAL",
            f"priority=3,tun_id={key},dl_dst={MULTICAST},actions=mod_vlan_vid:{vlan},output:patch-int",
            *(f"priority=3,tun_id={key},dl_dst={mac},actions=mod_vlan_vid:{vlan},NORMAL" for mac in macs),
        }
    assert flows(node, "br-tun") == expected


@pytest.mark.parametrize(
    ("node", "namespace", "to"),
    [
        ("compute", "qvm-one-a", "172.16.1.6"),
        ("controller", "qvm-one-b", "172.16.1.5"),
        ("controller", "qvm-one-b", "172.16.1.1"),
        ("controller", "qvm-one-b", "10.6.0.1"),
        ("compute", "qvm-two-a", "169.254.1.6"),
    ],
)
def test_hosts_of_a_tenant_reach_one_another_their_router_and_the_outside(
    cluster: Cluster, node: str, namespace: str, to: str
) -> None:
    assert cluster.ping(cluster.nodes[node], namespace, to)


def test_a_floating_ip_is_reached_from_outside(cluster: Cluster) -> None:
    assert cluster.outside.reaches("10.6.0.21")


def test_two_tenants_may_have_the_same_addresses(cluster: Cluster) -> None:
    """172.16.1.6 is, for each tenant, the tenant's own host."""
    compute, controller = cluster.nodes["compute"], cluster.nodes["controller"]
    for tenant in ("one", "two"):
        assert cluster.ping(compute, f"qvm-{tenant}-a", "172.16.1.6")
        seen = inside(compute, f"qvm-{tenant}-a", "ip", "neigh", "show", "172.16.1.6")
        assert mac(controller, f"qvm-{tenant}-b") in seen
    with pytest.raises(ToolFailedError, match="100% packet loss"):  # tenant one's router is not tenant two's
        inside(compute, "qvm-two-a", "ping", "-c2", "-i0.2", "-W0.5", "172.16.1.1")


@pytest.mark.parametrize(("namespace", "address"), [("qvm-one-a", "172.16.1.5"), ("qvm-two-a", "169.254.1.5")])
def test_dhcp_answers_through_the_tunnel(cluster: Cluster, namespace: str, address: str) -> None:
    ask = "udhcpc -i eth0 -n -q -f -t 20 -T 1 -s /bin/true 2>&1"
    said = cluster.nodes["compute"].run("ip", "netns", "exec", namespace, "sh", "-c", ask, timeout=40)
    assert f"lease of {address} obtained" in said


def test_a_broken_service_of_the_controller_works_again(cluster: Cluster) -> None:
    node = cluster.nodes["controller"]
    node.run("rabbitmqctl", "authenticate_user", "guest", "guest", timeout=60)
    node.run("systemctl", "stop", "mosquitto")
    assert node.eventually(lambda: "172.31.0.10:1883" in node.run("ss", "-Htln"))
    settled(cluster)


def test_all_nodes_are_seen_from_the_controller(cluster: Cluster) -> None:
    node = cluster.nodes["controller"]

    def all_told() -> bool:
        said = node.run("reconcile", "fleet", "--once")
        return all(re.search(rf"^{name} +converged", said, re.MULTILINE) for name in EXAMPLE.nodes)

    assert node.eventually(all_told, within=30), node.try_run("reconcile", "fleet", "--once")


def test_what_is_broken_comes_back_while_pings_run(cluster: Cluster) -> None:
    node = cluster.nodes["network"]
    before = {bridge: flows(node, bridge) for bridge in ("br-int", "br-tun", "br-ex")}
    router = spaces(node, "qrouter-")[0]
    with cluster.outside.pinging("10.6.0.21") as ping:
        node.run("ovs-ofctl", "del-flows", "br-tun")
        node.run("ovs-vsctl", "del-port", "patch-tun")
        node.run("ip", "netns", "exec", router, "iptables", "-t", "nat", "-F")
        time.sleep(0.5)
        assert cluster.outside.reaches("10.6.0.21", within=30)
    print(f"lost {len(ping.lost)} of {ping.sent} pings, one every 10 ms")
    settled(cluster)
    assert {bridge: flows(node, bridge) for bridge in before} == before


def captured(cluster: Cluster, node: Node, *, key: int, destination: str, send: tuple[Node, str, str]) -> int:
    """Frames for `destination` in tunnels with this key that node sees on its underlay NIC while a host pings."""
    sender, namespace, to = send
    look = ("tcpdump", "-i", "eth1", "-n", "-e", "-l", "-Q", "in", f"proto gre and src host {sender.underlay}")
    capture = node.spawn(*look)
    try:
        assert node.eventually(lambda: "listening on" in capture.text())
        for _ in range(10):
            inside(sender, namespace, "ping", "-n", "-c1", "-W2", to)
        time.sleep(0.5)
        return sum(f"key=0x{key:x}" in line and f"> {destination}" in line for line in capture.text().splitlines())
    finally:
        node.run("sh", "-c", "kill $(pidof tcpdump)")
        capture.wait()


def test_in_the_multi_table_layout_unicast_goes_only_where_the_mac_is(cluster: Cluster) -> None:
    """With single-table it goes wherever NORMAL has not learned better; here the model says it."""
    compute, controller, network = (cluster.nodes[name] for name in ("compute", "controller", "network"))
    _layout(cluster, "layout: multi-table")
    try:
        there = mac(controller, "qvm-one-b")
        assert cluster.ping(compute, "qvm-one-a", "172.16.1.6")
        send = (compute, "qvm-one-a", "172.16.1.6")
        assert captured(cluster, controller, key=1, destination=there, send=send) >= 10
        assert captured(cluster, network, key=1, destination=there, send=send) == 0
        assert cluster.outside.reaches("10.6.0.21")
        assert cluster.ping(compute, "qvm-two-a", "169.254.1.6")
    finally:
        _layout(cluster, LAYOUT)
    assert cluster.ping(compute, "qvm-one-a", "172.16.1.6")


def _layout(cluster: Cluster, layout: str) -> None:
    text = (EXAMPLE.directory / "cluster.yaml").read_text(encoding="utf-8")
    assert LAYOUT in text
    for node in cluster.nodes.values():
        before = service.status(node).revision
        node.write(f"{TREE}/cluster.yaml", text.replace(LAYOUT, layout))
        assert node.eventually(lambda node=node, before=before: service.status(node).revision != before)
    for node in cluster.nodes.values():
        assert node.eventually(lambda node=node: _approved(node, multi=layout != LAYOUT), within=30), node.try_run(
            "reconcile", "status"
        )


def _approved(node: Node, *, multi: bool) -> bool:
    """Most flows are others now, which is more than may go without being asked; whether all is as declared.

    What is taken away settles longer than what is added, so that between the two the node is as declared as well.
    """
    if service.converged(node) and ("table=22," in node.run("ovs-ofctl", "dump-flows", "br-tun")) == multi:
        return True
    node.reconcile("approve", expect=(0, 3))
    return False


def test_the_network_node_serves_again_after_a_power_cut(cluster: Cluster) -> None:
    cluster.nodes["network"].reboot()
    assert cluster.outside.reaches("10.6.0.21", within=30)
    settled(cluster)
