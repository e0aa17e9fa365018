"""DHCP, routers, NAT, metadata and router advertisements as they are compiled, on a booted node, used by real clients.

outside ── eth2, br-ex ── qg [qrouter] qr ── br-int (VLAN 1) ── vm1: an instance     [qvm-web]: a virtual host
203.0.113.1                                  br-int (VLAN 2) ── vm2: an instance of a network without a router
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from desired.network.section import SECTIONS
from desired.network.topology import Address, Port, Topology
from desired.schema import dump_resources
from tests.desired.network import hand
from tests.lab import service
from tests.lab.cluster import Cluster, Node, lab
from tests.lab.holder import ToolFailedError

BELOW = """
bridges:
  br-int: {fail_mode: secure}
  br-ex: {fail_mode: secure}
patches:
  - {br-int: int-br-ex, br-ex: phy-br-ex}
ports:
  eth2: {bridge: br-ex, type: system}
  vm1: {bridge: br-int, type: system, tag: 1}
  vm2: {bridge: br-int, type: system, tag: 2}
flows:
  br-int:
    - priority=1,actions=NORMAL
    - priority=2,in_port=int-br-ex,actions=drop
    - priority=3,in_port=int-br-ex,dl_vlan=0xffff,actions=mod_vlan_vid:3,NORMAL
  br-ex:
    - priority=1,actions=NORMAL
    - priority=2,in_port=phy-br-ex,actions=drop
    - priority=4,in_port=phy-br-ex,dl_vlan=3,actions=strip_vlan,NORMAL
"""
ANSWER = """
import http.server, json
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = {name.lower(): self.headers.get_all(name) for name in self.headers}
        body = json.dumps({"path": self.path, **said}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 8775), Answer).serve_forever()
"""
LOOKUP = """
import socket, struct
name = b"".join(bytes([len(part)]) + part for part in (b"host-169-254-1-5", b"openstacklocal")) + bytes(1)
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(5)
asker.sendto(struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1), ("169.254.1.2", 53))
print(socket.inet_ntoa(asker.recv(512)[-4:]))
"""
QDHCP = f"qdhcp-{hand.ONE}"
QROUTER = f"qrouter-{hand.ROUTER}"
RADVD = f"{QROUTER}-radvd"


def model(v6: str = "dhcpv6-stateful") -> Topology:
    return hand.topology(v6=v6, metadata={"upstream": "127.0.0.1:8775"})


def declare(node: Node, topology: Topology) -> None:
    node.write("/etc/reconciler/desired/compiled.yaml", dump_resources(hand.on_node(topology), SECTIONS))


def plug(node: Node, name: str, port: Port) -> None:
    """An instance that was never told its address: a namespace whose eth0 has the port's MAC."""
    script = """
    ip netns add "$1"; ip link add "$1" type veth peer name eth0 netns "$1"
    ip -n "$1" link set eth0 address "$2" mtu 1458
    ip link set "$1" up; ip -n "$1" link set lo up; ip -n "$1" link set eth0 up
    ip netns exec "$1" ethtool -K eth0 tx off >/dev/null # else TCP through Open vSwitch hangs
    """
    node.run("sh", "-ec", script, "sh", name, port.mac)


CLIENT = """#!/bin/sh
# What udhcpc does with an answer: as Debian's script, and classless routes as well.
case $1 in
    deconfig) ip addr flush dev $interface scope global ;;
    bound)
        env | grep -E '^(dns|mtu|staticroutes|router|domain)=' | sort >/root/options
        ip link set $interface mtu $mtu; ip addr add $ip/$mask dev $interface
        set -- ${staticroutes:-0.0.0.0/0 $router}
        while [ $# -gt 0 ]; do
            ip route replace $1 via $2 dev $interface; shift 2
        done ;;
esac
"""


def lease(node: Node, name: str) -> str:
    """Ask for a lease until there is one, and take what the server says; what the client says of it."""
    ask = "udhcpc -i eth0 -n -q -f -t 20 -T 1 -O staticroutes -O mtu -s /root/client 2>&1"
    return node.run("ip", "netns", "exec", name, "sh", "-c", ask, timeout=40)


def pid(node: Node, unit: str) -> int:
    return int(node.run("systemctl", "show", "-P", "MainPID", unit))


def settled(node: Node) -> None:
    assert node.eventually(lambda: service.converged(node), within=30), node.try_run("reconcile", "status")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("network") as cluster:
        node = cluster.nodes["network"]
        node.write("/root/answer.py", ANSWER)
        node.write("/root/client", CLIENT, "755")
        node.spawn("python3", "/root/answer.py")
        for name, port in (("vm1", hand.INSTANCE), ("vm2", hand.LONELY)):
            plug(node, name, port)
        declare(node, model())
        service.enable(node, BELOW, f"{service.SETTINGS}settle_remove = 0.2\n")
        settled(node)
        yield cluster


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Node]:
    node = cluster.nodes["network"]
    yield node
    declare(node, model())
    settled(node)


def test_an_instance_gets_its_lease_and_reaches_the_outside(node: Node) -> None:
    said = lease(node, "vm1")
    assert "lease of 172.16.1.5 obtained" in said
    routes = node.run("ip", "-n", "vm1", "route")
    assert "default via 172.16.1.1" in routes
    node.run("ip", "netns", "exec", "vm1", "ping", "-c1", "-W2", "203.0.113.1")
    node.run("ip", "netns", "exec", "vm1", "ping", "-c1", "-W2", "172.16.1.6")


def test_a_floating_ip_is_reached_from_outside_and_seen_as_the_source(cluster: Cluster, node: Node) -> None:
    lease(node, "vm1")
    assert cluster.outside.reaches("203.0.113.50")
    listen = "import socket; s = socket.create_server(('', 9000)); c, a = s.accept(); c.sendall(a[0].encode())"
    for name, source in (("vm1", "203.0.113.50"), ("qvm-web", "203.0.113.10")):
        server = cluster.outside.holder.spawn(
            (*cluster.outside.holder.enter(), "ip", "netns", "exec", "outside", "python3", "-c", listen),
            cluster.directory / f"{name}.out",
        )
        ask = "until exec 3<>/dev/tcp/203.0.113.1/9000; do sleep 0.1; done 2>/dev/null; cat <&3"
        assert node.run("ip", "netns", "exec", name, "bash", "-c", ask) == source
        server.wait()


def test_an_instance_reaches_its_neighbour_by_the_floating_ip(node: Node) -> None:
    lease(node, "vm1")
    node.run("ip", "netns", "exec", "qvm-web", "ping", "-c1", "-W2", "203.0.113.50")


@pytest.mark.parametrize(
    ("name", "who", "client"),
    [
        ("vm1", {"x-neutron-router-id": [hand.ROUTER]}, "172.16.1.5"),
        ("vm2", {"x-neutron-network-id": [hand.TWO]}, "169.254.1.5"),
    ],
)
def test_metadata_is_answered_and_the_client_cannot_lie(
    node: Node, name: str, who: dict[str, list[str]], client: str
) -> None:
    lease(node, name)
    lies = ("-H", "X-Forwarded-For: 9.9.9.9", "-H", f"X-Neutron-Network-ID: {hand.ONE}", "-H", "X-Neutron-Router-ID: x")
    url = "http://169.254.169.254/latest/meta-data/"
    fetch = ("curl", "-s", "-m", "5", "--retry", "5", "--retry-connrefused", *lies, url)
    said = json.loads(node.run("ip", "netns", "exec", name, *fetch, timeout=40))
    assert said["path"] == "/latest/meta-data/"
    assert said["x-forwarded-for"] == [client]
    assert {key: value for key, value in said.items() if key.startswith("x-neutron")} == who


def test_nobody_outside_reaches_the_metadata_proxy(cluster: Cluster, node: Node) -> None:
    ask = ("curl", "-s", "-m", "1", "-o", "/dev/null", "-w", "%{exitcode}", "http://203.0.113.10:9697/")
    with pytest.raises(ToolFailedError) as refused:
        cluster.outside.run(*ask)
    assert refused.value.returncode == 28, "dropped, so that it times out"
    assert node.run("ss", "-N", QROUTER, "-Htln", "sport = :9697")


def test_a_new_instance_is_served_without_a_restart_and_without_forgetting_leases(node: Node) -> None:
    lease(node, "vm1")
    before = pid(node, QDHCP)
    one = model().networks[hand.ONE]
    fresh = replace(hand.INSTANCE, id=hand.identity(0x1FF), addresses=(Address("172.16.1.77", 24, hand.ONE_V4),))
    ports = tuple(fresh if port is hand.INSTANCE else port for port in one.ports)
    declare(node, hand.with_network(model(), replace(one, ports=ports)))
    assert node.eventually(lambda: "lease of 172.16.1.77 obtained" in lease(node, "vm1"))
    settled(node)
    assert pid(node, QDHCP) == before


def test_options_are_what_the_subnet_says(node: Node) -> None:
    assert "lease of 169.254.1.5 obtained" in lease(node, "vm2")
    assert node.read("/root/options").splitlines() == [
        "dns=169.254.1.2",
        "domain=openstacklocal",
        "mtu=1458",
        "router=169.254.1.1",
        "staticroutes=169.254.169.254/32 169.254.1.2 0.0.0.0/0 169.254.1.1",
    ]


def test_a_name_server_is_where_dhcp_is(node: Node) -> None:
    found = node.run("ip", "netns", "exec", f"qdhcp-{hand.TWO}", "python3", "-c", LOOKUP)
    assert found.strip() == "169.254.1.5"


def test_a_stateful_instance_gets_its_ipv6_address_and_its_router(node: Node) -> None:
    client = ("dhclient", "-6", "-1", "-v", "-lf", "/root/leases6", "-pf", "/root/pid6", "eth0")
    node.run("ip", "netns", "exec", "vm1", "sysctl", "-q", "net.ipv6.conf.eth0.accept_ra=1")
    node.run("ip", "netns", "exec", "vm1", *client, timeout=60)
    node.run("sh", "-c", "kill $(cat /root/pid6)")
    assert "fd00:1::5/128" in node.run("ip", "-n", "vm1", "-o", "addr", "show", "dev", "eth0")
    assert node.eventually(lambda: "default via fe80" in node.run("ip", "-n", "vm1", "-6", "route"))
    node.run("ip", "netns", "exec", "vm1", "ping", "-c1", "-W2", "fd00:1::1")


def test_slaac_follows_the_model_by_a_reload(node: Node) -> None:
    advertised = ("ip", "netns", "exec", "vm1", "rdisc6", "-1", "-w", "2000", "eth0")
    assert "Stateful address conf.    :          Yes" in node.run(*advertised)
    before = pid(node, RADVD)
    declare(node, model("slaac"))
    assert node.eventually(lambda: "Stateful address conf.    :           No" in node.run(*advertised), within=20)
    said = node.run(*advertised)
    assert ("fd00:1::/64" in said, "MTU" in said, pid(node, RADVD) == before) == (True, True, True)
    address = f"fd00:1::{hand.EUI64}"
    assert node.eventually(lambda: address in node.run("ip", "-n", "vm1", "-o", "addr", "show", "dev", "eth0"))


@pytest.mark.parametrize("unit", [QDHCP, RADVD, f"{QROUTER}-metadata", "reconciler-metadata"])
def test_what_is_killed_or_stopped_serves_again(node: Node, unit: str) -> None:
    before = pid(node, unit)
    node.run("systemctl", "kill", "-s", "KILL", unit)
    assert node.eventually(lambda: pid(node, unit) not in {0, before})
    node.run("systemctl", "stop", unit)
    assert node.eventually(lambda: pid(node, unit) != 0)
    settled(node)


def test_a_namespace_made_anew_gets_its_services_back(node: Node) -> None:
    before = [pid(node, unit) for unit in (QDHCP, f"qdhcp-{hand.TWO}-metadata", RADVD)]
    node.sh(f"ip netns del {QDHCP}; ip netns del qdhcp-{hand.TWO}; ip netns del {QROUTER}")
    settled(node)
    after = [pid(node, unit) for unit in (QDHCP, f"qdhcp-{hand.TWO}-metadata", RADVD)]
    assert not {*before} & {*after, 0}
    assert "lease of 172.16.1.5 obtained" in lease(node, "vm1")
    assert "lease of 169.254.1.5 obtained" in lease(node, "vm2")


def test_without_the_daemon_everything_serves_on_and_its_return_touches_nothing(node: Node) -> None:
    units = (QDHCP, f"qdhcp-{hand.TWO}", f"{QROUTER}-metadata", RADVD)
    before = [pid(node, unit) for unit in units]
    node.run("systemctl", "kill", "-s", "KILL", "reconciler")
    assert "lease of 172.16.1.5 obtained" in lease(node, "vm1")
    settled(node)
    assert node.reconcile("plan", expect=(0,))
    assert [pid(node, unit) for unit in units] == before


def test_a_network_that_is_gone_leaves_no_service_behind(node: Node) -> None:
    networks = {own: found for own, found in model().networks.items() if own != hand.TWO}
    declare(node, replace(model(), networks=networks))
    name = f"qdhcp-{hand.TWO}"
    assert node.eventually(lambda: name not in node.run("ip", "netns", "list"), within=20)
    settled(node)
    assert pid(node, name) == 0
    assert name not in node.run("ls", "/etc/reconciler-network", "/etc/systemd/system")
    declare(node, model())
    settled(node)
    assert "lease of 169.254.1.5 obtained" in lease(node, "vm2"), "its leases were kept"


def test_after_a_power_cut_everything_serves_again(cluster: Cluster, node: Node) -> None:
    node.reboot()
    node.spawn("python3", "/root/answer.py")
    for name, port in (("vm1", hand.INSTANCE), ("vm2", hand.LONELY)):
        plug(node, name, port)
    settled(node)
    assert "lease of 172.16.1.5 obtained" in lease(node, "vm1")
    assert cluster.outside.reaches("203.0.113.50")
