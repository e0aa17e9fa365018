"""The example single-host-proxy-arp: one NIC answers for a block of addresses, and lets in what is meant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster, Node
from tests.lab.examples import ALL, installed, settled
from tests.lab.holder import ToolFailedError

EXAMPLE = ALL["single-host-proxy-arp"]
NIC_MAC = "02:1a:b0:00:02:01"
PUBLIC = ("203.0.113.66", "203.0.113.67")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with installed(EXAMPLE.name) as cluster:
        yield cluster


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.nodes["host"]


def lost(cluster: Cluster, address: str) -> bool:
    """Whether two pings from outside stay without an answer."""
    try:
        cluster.outside.run("ping", "-n", "-c2", "-i0.2", "-W0.5", address)
    except ToolFailedError as error:
        return "100% packet loss" in str(error)
    return False


def test_the_nic_answers_for_the_virtual_hosts(cluster: Cluster) -> None:
    for address in PUBLIC:
        assert cluster.outside.reaches(address)
        assert NIC_MAC in cluster.outside.run("ip", "neigh", "show", address)


def test_virtual_hosts_reach_the_outside_as_themselves(cluster: Cluster, node: Node) -> None:
    where = "import socket; s = socket.create_server(('', 9000)); c, a = s.accept(); c.sendall(a[0].encode())"
    server = cluster.outside.holder.spawn(
        (*cluster.outside.holder.enter(), "ip", "netns", "exec", "outside", "python3", "-c", where),
        cluster.directory / "server",
    )
    ask = "until exec 3<>/dev/tcp/203.0.113.1/9000; do sleep 0.1; done 2>/dev/null; cat <&3"
    assert node.run("ip", "netns", "exec", "ctl1", "bash", "-c", ask) == PUBLIC[0]
    server.wait()
    assert cluster.ping(node, "ctl1", PUBLIC[1])


def test_from_outside_only_the_block_and_the_nic_are_reached(cluster: Cluster) -> None:
    assert cluster.outside.reaches("203.0.113.2")
    assert lost(cluster, "192.168.77.11"), "outside has a route there, and the host forwards only to the block"
    assert lost(cluster, "192.168.77.1"), "an address of the host, but not the NIC's"


def test_virtual_hosts_may_ping_the_host_and_nothing_else(node: Node) -> None:
    node.spawn("python3", "-m", "http.server", "8000")
    fetch = ("curl", "-s", "-m", "1", "-o", "/dev/null", "http://192.168.77.1:8000/")
    assert node.eventually(lambda: node.run("curl", "-s", "-o", "/dev/null", "http://192.168.77.1:8000/") == "")
    with pytest.raises(ToolFailedError) as refused:
        node.run("ip", "netns", "exec", "ctl1", *fetch)
    assert refused.value.returncode == 28, "dropped, so that it times out"
    node.run("ip", "netns", "exec", "ctl1", "ping", "-c1", "-W2", "192.168.77.1")


@pytest.mark.parametrize(
    "breaks",
    [
        "sysctl -qw net.ipv4.conf.eth2.proxy_arp=0",
        "ip route del 203.0.113.64/28",
        "sysctl -qw net.ipv4.ip_forward=0",
        "iptables -F; iptables -P FORWARD ACCEPT",
        "ip netns del ctl1",
        "ovs-ofctl del-flows br-virt",
        "ip addr del 192.168.77.1/24 dev br-virt",
    ],
)
def test_what_is_broken_comes_back(cluster: Cluster, node: Node, breaks: str) -> None:
    node.sh(breaks)
    cluster.outside.run("ip", "neigh", "flush", "dev", "eth0")
    for address in PUBLIC:
        assert cluster.outside.reaches(address, within=20)
    settled(cluster)
    assert node.run("sysctl", "-n", "net.ipv4.conf.eth2.proxy_arp").strip() == "1"
    assert lost(cluster, "192.168.77.11")
