"""The example all-in-one-external: a floating IP from outside, and a second provider that comes while it is in use."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster, Node
from tests.lab.examples import ALL, TREE, installed, settled

EXAMPLE = ALL["all-in-one-external"]
FIRST, SECOND = "203.0.113.50", "198.51.100.50"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with installed(EXAMPLE.name) as cluster:
        yield cluster


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.nodes["all-in-one"]


def flows(node: Node, bridge: str) -> list[str]:
    found = node.run("ovs-ofctl", "--no-stats", "--names", "dump-flows", bridge).splitlines()
    return sorted(re.sub(r'cookie=\w+, |table=0, |"', "", line).strip() for line in found)


def vlan(node: Node, physical: str) -> str:
    found = node.run(
        "ovs-vsctl", "--bare", "--columns=tag", "find", "port", f"other_config:physical_network={physical}"
    )
    return found.split()[0]


@pytest.mark.parametrize(("bridge", "physical"), [("br-ex", "physnet1"), ("br-ex2", "physnet2")])
def test_what_leaves_has_no_vlan(node: Node, bridge: str, physical: str) -> None:
    assert flows(node, bridge) == [
        "priority=1 actions=NORMAL",
        f"priority=2,in_port=phy-{bridge} actions=drop",
        f"priority=4,in_port=phy-{bridge},dl_vlan={vlan(node, physical)} actions=strip_vlan,NORMAL",
    ]


def test_each_floating_ip_is_reached_from_its_own_outside(cluster: Cluster, node: Node) -> None:
    assert cluster.outside.reaches(FIRST)
    assert cluster.ping(node, "provider2", SECOND)
    assert cluster.ping(node, "qvm-web", "203.0.113.1")
    assert cluster.ping(node, "qvm-app", "198.51.100.1")


def test_outside_sees_the_floating_ip_as_the_source(cluster: Cluster, node: Node) -> None:
    look = ("tcpdump", "-n", "-l", "-i", "eth0", "-c", "1", "icmp")
    capture = cluster.outside.holder.spawn(
        (*cluster.outside.holder.enter(), "ip", "netns", "exec", "outside", *look),
        cluster.directory / "capture",
    )
    assert node.eventually(lambda: "listening on" in capture.text())
    assert cluster.ping(node, "qvm-web", "203.0.113.1")
    capture.wait()
    assert f"IP {FIRST} > 203.0.113.1" in capture.text()


def test_the_second_provider_comes_and_goes_and_the_first_loses_nothing(cluster: Cluster, node: Node) -> None:
    second = node.read(f"{TREE}/second.yaml")
    router = "qrouter-"
    with cluster.outside.pinging(FIRST) as ping:
        node.run("rm", f"{TREE}/second.yaml")
        assert node.eventually(lambda: _approved(node, router) == 1, within=30), node.try_run("reconcile", "status")
        node.write(f"{TREE}/second.yaml", second)
        assert cluster.ping(node, "provider2", SECOND, within=30)
    assert (ping.lost, ping.sent > 50) == ((), True)
    settled(cluster)


def _approved(node: Node, prefix: str) -> int:
    """A provider is more than a quarter of what is here: let it go. How many routers there are."""
    node.reconcile("approve", expect=(0, 3))
    return node.run("ip", "netns", "list").count(prefix)


def test_a_router_that_is_deleted_is_there_again_with_its_floating_ip(cluster: Cluster, node: Node) -> None:
    for space in re.findall(r"qrouter-\S+", node.run("ip", "netns", "list")):
        node.try_run("ip", "netns", "del", space)  # it complains when the daemon was faster than its second step
    assert cluster.outside.reaches(FIRST, within=30)
    assert cluster.ping(node, "provider2", SECOND, within=30)
    settled(cluster)
