"""`reconcile trace` on a node that is made from a model: a packet's way, and what is missing when something is broken.

outside ── nic, br-ex ── qg [qrouter] qr ── br-int ── here (a virtual host), vm (an instance)      n2: there
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.functional.daemon import Node, Said
from tests.ovs import PrivateOvs

VM = "ffb50184-9506-538c-b2e8-dbb7fe5a4844"
THERE = "fa:16:3e:00:00:06"
MODEL = f"""
model:
  options: {{layout: LAYOUT}}
  nodes:
    n1: {{roles: [network, compute], tunnel_ip: 10.10.10.20, bridge_mappings: {{physnet1: br-ex}},
         bridge_interfaces: {{br-ex: nic}}}}
    n2: {{roles: [compute], tunnel_ip: 10.10.10.30}}
  networks:
    one: {{type: gre, segmentation_id: 77}}
    public: {{type: flat, physical_network: physnet1, external: true}}
  subnets:
    one: {{network: one, cidr: 172.16.1.0/24, dhcp: false}}
    six: {{network: one, cidr: "fd00:1::/64", dhcp: false}}
    public: {{network: public, cidr: 10.6.0.0/15, dhcp: false}}
  ports:
    here: {{network: one, node: n1, plug: namespace, fixed_ips: [172.16.1.5, "fd00:1::5"]}}
    vm: {{network: one, node: n1, id: {VM}, fixed_ips: [172.16.1.9, "fd00:1::9"]}}
    there: {{network: one, node: n2, mac: "{THERE}", fixed_ips: [172.16.1.6]}}
  routers:
    edge: {{interfaces: [one, six], gateway: {{network: public, ips: [10.6.0.9]}},
           id: 4de5ca59-2709-54b2-a890-a8c386a7389e}}
  floating_ips:
    10.6.0.21: here
rules:
  qrouter-4de5ca59-2709-54b2-a890-a8c386a7389e:
    port_forwards: [{{address: 10.6.0.9, port: 8080, to: 172.16.1.5, to_port: 80}}]
"""
QROUTER = "qrouter-4de5ca59-2709-54b2-a890-a8c386a7389e"


@pytest.fixture(scope="module", params=["multi-table", "single-table"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with PrivateOvs(tmp_path_factory.mktemp("ovs")) as ovs:
        node = Node(ovs)
        for name in ("nic", "tapvm"):
            ovs.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-end")
            ovs.run("ip", "link", "set", name, "up")
            ovs.run("ip", "link", "set", f"{name}-end", "up")
        node.write(MODEL.replace("LAYOUT", request.param))
        node.start(converged=False)
        node.until(lambda: "br-int" in ovs.vsctl("list-br").split(), "br-int is there")
        ovs.vsctl("add-port", "br-int", "tapvm", "--", "set", "interface", "tapvm", f"external_ids:iface-id={VM}")
        ovs.add_bridge("br-phy")
        ovs.run("ip", "addr", "add", "10.10.10.20/24", "dev", "br-phy")
        ovs.run("ip", "link", "set", "br-phy", "up")
        node.converged()
        yield node
        assert node.stop() == 0
        assert node.crashes() == []


@pytest.fixture
def node(made: Node) -> Iterator[Node]:
    """As declared before, and paused: what is broken stays broken until the end."""
    made.client.pause("node", reason="a test breaks it", seconds=None, by="test")
    yield made
    made.client.resume("node", by="test")
    made.converged()


one_layout = pytest.mark.parametrize("made", ["multi-table"], indirect=True)
"""For what does not cross the bridges on which the layouts differ in more than their order."""


def trace(node: Node, source: str, to: str, *more: str) -> Said:
    return node.cli("trace", "--from", source, "--to", to, *more)


def told(node: Node, source: str, to: str, *more: str) -> Any:
    """The same as data; its exit code says the same as `arrives`."""
    said = trace(node, source, to, "--output", "json", *more)
    assert said.code == (0 if said.json["arrives"] else 2), said.text
    return said.json


def evidence(found: Any) -> list[dict[str, str]]:
    return [one for hop in found["hops"] for one in hop["evidence"]]


def test_to_a_port_of_another_node_it_leaves_in_the_tunnel(node: Node) -> None:
    found = told(node, "here", "172.16.1.6")
    assert (found["arrives"], found["node"]) == (True, "n2")
    assert "goes into the tunnel to n2" in found["hops"][-1]["sentence"]
    assert found["command"] == "reconcile trace --from here --to 172.16.1.6 --via n1"
    flows = [one for one in evidence(found) if one["resource"].startswith("flow/br-tun/")]
    assert flows, "the flows of br-tun that decided are named"
    assert all(one["origin"].endswith(":5") and "node.yaml" in one["origin"] for one in flows)


def test_what_comes_out_of_the_tunnel_reaches_its_port(node: Node) -> None:
    found = told(node, "there", "172.16.1.9", "--via", "n2")
    assert found["arrives"]
    assert found["end"] == "it arrives: at port vm, here"
    assert "comes out at tapvm" in found["hops"][-1]["sentence"]


def test_an_instance_goes_outside_by_router_and_snat(node: Node) -> None:
    said = trace(node, VM, "8.8.8.8")
    assert said.code == 0, said.text
    assert "its gateway is 172.16.1.1" in said.out
    assert "route: default via 10.6.0.1" in said.out
    assert "-s 172.16.1.0/24 -j SNAT" in said.out
    assert "it leaves by nic to the outside" in said.out


def test_a_floating_ip_is_reached_from_outside_and_from_inside(node: Node) -> None:
    outside = told(node, "nic", "10.6.0.21")
    inside = told(node, "here", "10.6.0.21")
    for found in (outside, inside):
        assert found["end"] == "it arrives: at port here, here"
        dnat = next(one for one in evidence(found) if "DNAT" in one["text"])
        assert dnat["resource"] == f"floating_ip/{QROUTER}/10.6.0.21"
        assert "node.yaml" in dnat["origin"]
    assert any("SNAT --to-source 10.6.0.21" in one["text"] for one in evidence(inside))


@one_layout
def test_a_router_answers_itself(node: Node) -> None:
    assert told(node, "vm", "172.16.1.1")["end"] == "it arrives: at router edge"
    assert told(node, "here", "172.16.1.1", "--tcp", "22")["end"].endswith(
        f"nobody listens at tcp port 22 in {QROUTER}"
    )


LISTEN = "import socket, time; s = socket.create_server(('', 80)); print('listens', flush=True); time.sleep(60)"


@one_layout
def test_a_port_forward_arrives_where_somebody_listens(node: Node) -> None:
    silent = told(node, "nic", "10.6.0.9", "--tcp", "8080")
    assert silent["end"] == "it does not arrive: nobody listens at tcp port 80 in qvm-here"
    log = node.directory / "listens"
    listener = node.ovs.spawn(["ip", "netns", "exec", "qvm-here", sys.executable, "-c", LISTEN], log)
    try:
        node.until(lambda: log.exists() and "listens" in log.read_text(), "somebody listens")
        found = told(node, "nic", "10.6.0.9", "--tcp", "8080")
    finally:
        listener.end(signal.SIGKILL)
    assert found["end"] == "it arrives: at port here, here"
    dnat = next(one for one in evidence(found) if "--to-destination 172.16.1.5:80" in one["text"])
    assert dnat["resource"] == f"port_forward/{QROUTER}/10.6.0.9 tcp 8080"


@one_layout
def test_ipv6_is_followed_as_well(node: Node) -> None:
    assert told(node, "vm", "fd00:1::5")["end"] == "it arrives: at port here, here"
    assert told(node, "here", "fd00:1::1")["end"] == "it arrives: at router edge"
    assert "no route to 2001:db8::1" in told(node, "vm", "2001:db8::1")["end"]


@dataclass(frozen=True)
class Break:
    """A script that breaks something, a way that leads through there, and what is said of it (`wrong`: by the daemon).

    `undo` is for what is not the daemon's to repair.
    """

    script: str
    source: str
    to: str
    missing: str
    wrong: str = ""
    undo: str = ""


INSIDE = f"ip netns exec {QROUTER}"
BREAKS = {
    "patch port gone": Break(
        "ovs-vsctl del-port patch-tun",
        "here", "172.16.1.6", "patch port patch-tun of br-int is missing", "port/patch-tun: port is missing",
    ),
    "flows of the tunnel bridge gone": Break(
        "ovs-ofctl -OOpenFlow14 del-flows br-tun",
        "here", "172.16.1.6", "dropped on br-tun: table 0, where no flow matches", "flow/br-tun/",
    ),
    "tunnel gone": Break(
        "ovs-vsctl del-port gre-0a0a0a1e",
        "here", "172.16.1.6", "there is no tunnel to n2 (10.10.10.30)", "port/gre-0a0a0a1e: port is missing",
    ),
    "no route to the end of the tunnel": Break(
        "ip addr flush dev br-phy",
        "here", "172.16.1.6", "Open vSwitch knows no route to 10.10.10.30, the other end of the tunnel",
        undo="ip addr add 10.10.10.20/24 dev br-phy",
    ),
    "tag changed": Break(
        "ovs-vsctl set port tapvm tag=42",
        "here", "172.16.1.9", "tapvm has tag 42; its network is local VLAN",
    ),
    "tag of the sender changed": Break(
        "ovs-vsctl set port tapvm tag=42",
        "vm", "172.16.1.5", "tapvm has tag 42; network one is local VLAN",
    ),
    "instance not plugged": Break(
        "ovs-vsctl remove interface tapvm external_ids iface-id",
        "here", "172.16.1.9", "port vm, here is not plugged",
        undo=f"ovs-vsctl set interface tapvm external_ids:iface-id={VM}",
    ),
    "NAT flushed, from outside": Break(
        f"{INSIDE} iptables -t nat -F",
        "nic", "10.6.0.21", "no rule translates floating IP 10.6.0.21 to 172.16.1.5",
        f"floating_ip/{QROUTER}/10.6.0.21: ",
    ),
    "NAT flushed, from inside": Break(
        f"{INSIDE} iptables -t nat -F",
        "vm", "8.8.8.8", "no rule translates 172.16.1.9 to the router's address outside", "snat",
    ),
    "a rule that drops": Break(
        f"{INSIDE} iptables -I FORWARD -d 8.8.8.8 -j DROP",
        "vm", "8.8.8.8", "filter FORWARD drops it",
        undo=f"{INSIDE} iptables -D FORWARD -d 8.8.8.8 -j DROP",
    ),
    "no route": Break(
        f"ip -n {QROUTER} route del default",
        "vm", "8.8.8.8", f"no route to 8.8.8.8 in {QROUTER}", f"route/{QROUTER}/default: route is missing",
    ),
    "no forwarding": Break(
        f"{INSIDE} sysctl -qw net.ipv4.ip_forward=0",
        "vm", "8.8.8.8", "does not forward: ip_forward is 0", f"sysctl/{QROUTER}/net.ipv4.ip_forward: ",
    ),
    "NIC gone": Break(
        "ovs-vsctl del-port nic", "vm", "8.8.8.8", "no NIC is a port of br-ex", "port/nic: port is missing",
    ),
    "device of the sender down": Break(
        "ip -n qvm-here link set eth0 down", "here", "172.16.1.9", "device eth0 is down in qvm-here",
    ),
    "address of the receiver gone": Break(
        "ip -n qvm-here addr flush dev eth0", "vm", "172.16.1.5", "172.16.1.5 is not on eth0 in qvm-here",
    ),
    "namespace gone": Break(
        f"ip netns del {QROUTER}",
        "vm", "8.8.8.8", f"namespace {QROUTER} is gone", f"namespace/{QROUTER}: namespace is missing",
    ),
    "nobody has it": Break("true", "vm", "172.16.1.77", "nobody in network one has 172.16.1.77"),
}  # fmt: skip


@one_layout
@pytest.mark.parametrize("name", BREAKS)
def test_what_is_missing_is_named(node: Node, name: str) -> None:
    broken = BREAKS[name]
    node.ovs.run("sh", "-ec", broken.script)
    try:
        if broken.wrong:
            known = broken.wrong.partition(":")[0]
            node.until(lambda: any(known in str(s.resource) for s in node.status().not_right), "the daemon sees it")
        found = told(node, broken.source, broken.to)
    finally:
        if broken.undo:
            node.ovs.run("sh", "-ec", broken.undo)
    said = [one for hop in found["hops"] for one in hop["missing"]]
    assert not found["arrives"]
    assert any(broken.wrong in one for one in said), said
    assert broken.missing in found["end"], (found["end"], said)


def test_without_the_arp_flow_nobody_would_answer(node: Node) -> None:
    """The unicast flow alone is no way: the sender has to learn the MAC first."""
    if "table=21" not in "\n".join(node.ovs.flows("br-tun")):
        node.ovs.ofctl("add-flow", "br-tun", "priority=100,arp,actions=drop")
    else:
        node.ovs.ofctl("del-flows", "br-tun", "table=21")
    found = told(node, "here", "172.16.1.6")
    assert "nobody would answer the ARP request for 172.16.1.6" in found["end"]


@one_layout
def test_who_asks_for_what_is_elsewhere_or_nowhere_is_told_where_to_ask(node: Node) -> None:
    there = trace(node, "there", "8.8.8.8")
    assert (there.code, "ask there, on n2: reconcile trace --from there --to 8.8.8.8" in there.err) == (1, True), (
        there.text
    )
    nobody = trace(node, "hre", "8.8.8.8")
    assert (nobody.code, "did you mean 'here'?" in nobody.err) == (1, True), nobody.text
    both = trace(node, "here", "8.8.8.8", "--tcp", "80", "--udp", "80")
    assert both.code == 64, both.text


def test_a_trace_changes_nothing(node: Node) -> None:
    """The instance behind port vm is not there and sends nothing: the switch would know its MAC by the trace alone."""
    node.ovs.appctl("fdb/flush", "br-int")
    before = node.ovs.flows("br-tun")
    told(node, "here", "172.16.1.6")
    told(node, "vm", "8.8.8.8")
    assert node.ovs.flows("br-tun") == before
    devices = "".join(node.ovs.run("ip", *where, "link") for where in ((), ("-n", QROUTER), ("-n", "qvm-here")))
    known = {row.split()[2] for row in node.ovs.appctl("fdb/show", "br-int").splitlines()[1:]}
    assert {mac for mac in known if mac not in devices} == set()


def test_without_a_daemon_it_says_so(ovs: PrivateOvs) -> None:
    said = trace(Node(ovs), "here", "8.8.8.8")
    assert said.code == 5
    assert "a trace needs the daemon" in said.err


@one_layout
def test_a_switch_that_does_not_answer_is_no_verdict(node: Node) -> None:
    node.ovs.stop_vswitchd(signal.SIGKILL)
    try:
        said = trace(node, "here", "172.16.1.6")
        assert said.code == 5, said.text
        assert "ovs-appctl" in said.err or "ovs-vswitchd does not run" in said.err
    finally:
        node.ovs.start_vswitchd()
