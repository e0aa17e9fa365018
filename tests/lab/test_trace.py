"""`reconcile trace` and `explain` on two booted nodes made from one model: what they say, and what traffic does.

outside 203.0.113.1 ── eth2, br-ex ── [qrouter] ── br-int ── br-tun ═══ GRE ═══ br-tun ── br-int ── [qvm-vm1]
                                      network                                  compute
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import service
from tests.lab.cluster import Cluster, Node, lab
from tests.lab.holder import ToolFailedError

ROUTER = "4de5ca59-2709-54b2-a890-a8c386a7389e"
QROUTER = f"qrouter-{ROUTER}"
ONE = "753bc710-ef71-5412-ae48-93644ecd0241"
MODEL = f"""
model:
  options: {{metadata: {{upstream: "127.0.0.1:8775"}}}}
  nodes:
    network: {{roles: [network], tunnel_ip: NETWORK, bridge_mappings: {{physnet1: br-ex}},
               bridge_interfaces: {{br-ex: eth2}}}}
    compute: {{roles: [compute], tunnel_ip: COMPUTE}}
  networks:
    one: {{type: gre, segmentation_id: 1, id: {ONE}}}
    public: {{type: flat, physical_network: physnet1, external: true}}
  subnets:
    one: {{network: one, cidr: 172.16.1.0/24}}
    public: {{network: public, cidr: 203.0.113.0/24, dhcp: false}}
  ports:
    vm1: {{network: one, node: compute, plug: namespace, fixed_ips: [172.16.1.5]}}
  routers:
    edge: {{interfaces: [one], gateway: public, id: {ROUTER}}}
  floating_ips:
    203.0.113.50: vm1
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("network", "compute") as cluster:
        text = MODEL.replace("NETWORK", cluster.network.underlay).replace("COMPUTE", cluster.compute.underlay)
        for node in cluster.nodes.values():
            service.place(node, text)
        for node in cluster.nodes.values():
            service.started(node)
            assert node.eventually(lambda node=node: service.converged(node), within=60), node.try_run(  # type: ignore[misc]
                "reconcile", "status"
            )
        yield cluster


def asked(node: Node, *words: str) -> Any:
    """What a trace says, as data."""
    return json.loads(node.reconcile("trace", *words, "--output", "json", expect=(0, 2)))


def whole(cluster: Cluster, node: Node, *words: str) -> tuple[list[Any], Any]:
    """A trace over all nodes, each asked with the command that the one before printed: all of them, and the last."""
    found = [asked(node, *words)]
    while found[-1]["command"]:
        verb, name, *rest = shlex.split(found[-1]["command"])
        assert (verb, name) == ("reconcile", "trace")
        found.append(asked(cluster.nodes[found[-1]["node"]], *rest))
    return found, found[-1]


def pings(node: Node, namespace: str, to: str) -> bool:
    """Does a real ping get there (and its answer back)?"""
    try:
        node.run("ip", "netns", "exec", namespace, "ping", "-c2", "-W2", "-i0.2", to)
    except ToolFailedError:
        return False
    return True


def test_outside_over_two_nodes_as_a_real_ping(cluster: Cluster) -> None:
    assert cluster.compute.eventually(lambda: pings(cluster.compute, "qvm-vm1", "203.0.113.1"))
    found, last = whole(cluster, cluster.compute, "--from", "vm1", "--to", "203.0.113.1")
    assert [one["arrives"] for one in found] == [True, True]
    assert last["end"] == "it leaves by eth2 to the outside, as it should"
    said = json.dumps(last)
    assert "with key 1" in said
    assert "SNAT --to-source 203.0.113.50" in said
    assert 'doubts": []' in json.dumps(last["hops"][-1]), "after the ping every MAC is known"


def test_a_floating_ip_from_outside_to_the_other_node(cluster: Cluster) -> None:
    assert cluster.network.eventually(lambda: cluster.outside.reaches("203.0.113.50"))
    found, last = whole(cluster, cluster.network, "--from", "eth2", "--to", "203.0.113.50")
    assert found[0]["node"] == "compute"
    assert "DNAT --to-destination 172.16.1.5" in json.dumps(found[0])
    assert last["end"] == "it arrives: at port vm1, here"


def test_metadata_is_answered_by_the_proxy_or_by_nobody(cluster: Cluster) -> None:
    _, routed = whole(cluster, cluster.compute, "--from", "vm1", "--to", "169.254.169.254", "--tcp", "80")
    assert routed["end"] == f"it arrives: at port 9697 in {QROUTER}"
    cluster.network.reconcile("pause", "node", "--reason", "a test")
    try:
        cluster.network.run("systemctl", "stop", f"{QROUTER}-metadata")
        _, stopped = whole(cluster, cluster.compute, "--from", "vm1", "--to", "169.254.169.254", "--tcp", "80")
        assert f"nobody listens at tcp port 9697 in {QROUTER}" in stopped["end"]
    finally:
        cluster.network.reconcile("resume", "node")
    assert cluster.network.eventually(lambda: service.converged(cluster.network), within=30)


STILL_ANSWERED = "a router answers for a floating IP itself, and processes keep a namespace without a name alive"
"""Why a ping from outside does not tell that NAT, or the name of the namespace, is gone."""


@pytest.mark.parametrize(
    ("script", "missing", "answered"),
    [
        ("ovs-vsctl del-port patch-int", "patch port patch-int of br-tun is missing", ""),
        ("ovs-ofctl -OOpenFlow14 del-flows br-ex", "dropped on br-ex: table 0, where no flow matches", ""),
        (
            f"ip netns exec {QROUTER} iptables -t nat -F",
            "no rule translates floating IP 203.0.113.50 to 172.16.1.5",
            STILL_ANSWERED,
        ),
        (f"ip netns del {QROUTER}", f"namespace {QROUTER} is gone", STILL_ANSWERED),
    ],
)
def test_what_is_broken_is_named_and_after_the_repair_nothing_is(
    cluster: Cluster, script: str, missing: str, answered: str
) -> None:
    node = cluster.network
    assert node.eventually(lambda: cluster.outside.reaches("203.0.113.50"), within=20)
    node.reconcile("pause", "node", "--reason", "a test")
    try:
        node.sh(script)
        assert answered or not cluster.outside.reaches("203.0.113.50", within=2)
        found = asked(node, "--from", "eth2", "--to", "203.0.113.50")
        assert not found["arrives"]
        assert missing in found["end"]
    finally:
        node.reconcile("resume", "node")
    assert node.eventually(lambda: service.converged(node), within=40), node.try_run("reconcile", "status")
    assert whole(cluster, node, "--from", "eth2", "--to", "203.0.113.50")[1]["arrives"]
    assert node.eventually(lambda: cluster.outside.reaches("203.0.113.50"), within=20)


def explained(node: Node, what: str) -> Any:
    return json.loads(node.reconcile("explain", what, "--output", "json"))


def test_everything_that_serves_an_instance_is_explained(cluster: Cluster) -> None:
    found = explained(cluster.network, "203.0.113.50")
    assert found["subject"][0] == "floating IP 203.0.113.50 leads to 172.16.1.5 of port vm1, on node compute"
    resources = {one["resource"]: one for one in found["resources"]}
    assert f"floating_ip/{QROUTER}/203.0.113.50" in resources
    assert resources[f"namespace/{QROUTER}"]["place"] == f"namespace {QROUTER}"
    by_name = {one["resource"] for one in explained(cluster.network, "vm1")["resources"]}
    assert f"file//etc/reconciler-network/qdhcp-{ONE}.hosts" in by_name
    assert any(name.startswith("port/gre-") for name in by_name)
    on_compute = {one["resource"] for one in explained(cluster.compute, "vm1")["resources"]}
    assert {"namespace/qvm-vm1", "link/qvm-vm1/eth0", "address/qvm-vm1/eth0/172.16.1.5/24"} <= on_compute
    assert any(name.startswith("port/gre-") for name in on_compute)


def test_explain_says_what_is_not_right(cluster: Cluster) -> None:
    node = cluster.compute
    node.reconcile("pause", "node", "--reason", "a test")
    try:
        node.run("ip", "-n", "qvm-vm1", "link", "set", "eth0", "down")
        link = "link/qvm-vm1/eth0"
        assert node.eventually(
            lambda: any(one["resource"] == link and one["not_right"] for one in explained(node, "vm1")["resources"])
        )
        assert "!! not as declared: " in node.reconcile("explain", "vm1")
    finally:
        node.reconcile("resume", "node")
    assert node.eventually(lambda: service.converged(node), within=30)
