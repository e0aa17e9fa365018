"""`reconcile release` and `reconcile support` on a booted node that carries traffic."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab import service
from tests.lab.cluster import Cluster, Node, lab

SPACE = """
namespaces:
  blue:
    links: {v: {type: veth, peer: {name: vh}, addresses: [10.0.0.1/24]}}
    routes: [{to: default, via: 10.0.0.254}]
"""
SECRETS = ("s3cret-of-the-store", "s3cret-of-the-broker", "hunter2")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes with a host each, and a GRE tunnel between them that the daemons made; and a namespace with a link."""
    with lab("network", "compute") as cluster:
        service.pair(cluster, extra=SPACE)
        yield cluster


@pytest.fixture
def node(cluster: Cluster) -> Node:
    """The first one, as declared."""
    node = cluster.nodes["network"]
    assert node.eventually(lambda: service.converged(node)), node.try_run("reconcile", "status")
    return node


def test_a_support_bundle_says_all_and_no_secret(node: Node) -> None:
    url = 'store_url = "sqlite:////var/lib/reconciler/state.db"\n# rabbit_password = "hunter2"\n'
    node.write("/etc/reconciler/reconciler.toml", service.SETTINGS + url)
    for name, password in (("store", "s3cret-of-the-store"), ("mqtt", "s3cret-of-the-broker")):
        node.write(f"/etc/credstore/reconciler.{name}-password", f"{password}\n", "600")
        node.sh(f"echo {password} | systemd-cat -t reconciler")
    node.sh("ovs-vsctl set interface gre-1 options:psk=hunter2")
    node.run("ovs-vsctl", "del-port", "patch-tun")
    assert node.eventually(lambda: service.converged(node))
    said = node.reconcile("support", "/root/bundle.tar.gz")
    assert "bundle.tar.gz" in said
    assert node.run("stat", "-c", "%a", "/root/bundle.tar.gz").strip() == "600"
    text = node.sh("mkdir -p /root/out; tar xzf /root/bundle.tar.gz -C /root/out; grep -r . /root/out")
    for part, expected in {
        "status.json": '"outcome"',
        "history.txt": "patch-tun",
        "doctor.txt": "checks:",
        "versions.txt": "ovs-vsctl (Open vSwitch)",
        "settings.txt": "datapath_type = 'netdev'",
        "desired/node.yaml": "br-int",
        "ovs/show.txt": "gre-1",
        "ovs/br-tun-dump-flows.txt": "tun_id",
        "network/addresses.txt": "br-phy",
        "journal.txt": "converged",
    }.items():
        assert re.search(f"{re.escape(part)}:.*{re.escape(expected)}", text), part
    assert not [secret for secret in SECRETS if secret in text]
    again = node.try_run("reconcile", "support", "/root/bundle.tar.gz")
    assert "File exists" in again


def test_a_support_bundle_can_be_had_of_a_node_on_which_nothing_works(node: Node) -> None:
    node.sh("systemctl stop reconciler openvswitch-switch ovs-vswitchd ovsdb-server", timeout=30)
    try:
        node.reconcile("support", "/root/dead.tar.gz")
        assert "could not be had" in node.sh("tar xzOf /root/dead.tar.gz dead/status.txt")
    finally:
        node.run("systemctl", "start", "openvswitch-switch", "lab-underlay", "reconciler", timeout=30)
        assert node.eventually(lambda: service.converged(node))


def test_release_is_refused_while_the_daemon_holds_the_node(node: Node) -> None:
    said = node.reconcile("release", expect=(1,))
    assert "systemctl disable --now reconciler" in said
    assert _marks(node)


def test_release_takes_every_mark_off_for_good_and_no_packet_is_lost(cluster: Cluster, node: Node) -> None:
    assert cluster.ping(node, "vm1", "192.168.1.2")
    before = _plain(node)
    node.run("systemctl", "disable", "--now", "reconciler", timeout=30)
    with cluster.pinging(node, "vm1", "192.168.1.2") as ping:
        said = node.reconcile("release")
    assert ping.lost == ()
    assert "released  bridge/br-tun" in said
    *each, end = said.splitlines()
    assert all(line.startswith("released  ") for line in each), "nothing but what was released"
    assert end == "the marks are off; everything stays as it is"
    assert "(3 flows)" in said
    assert "namespace/blue" in said
    assert "link/blue/v" in said
    assert _marks(node) == []
    assert _plain(node) == before
    assert "nothing here carried our mark" in node.reconcile("release")
    # To a daemon that comes back it is all foreign: it leaves it alone, and says so.
    node.run("systemctl", "enable", "--now", "reconciler", timeout=30)
    node.reconcile("status", expect=(4,))
    assert (_marks(node), _plain(node)) == ([], before)
    node.sh("ovs-vsctl del-br br-int -- del-br br-tun; ip netns del blue")
    assert node.eventually(lambda: service.converged(node))


def _marks(node: Node) -> list[str]:
    text = node.sh(
        "ovs-vsctl list bridge; ovs-vsctl list port; ovs-ofctl dump-flows br-int; ovs-ofctl dump-flows br-tun"
    )
    return re.findall(r"reconciler=|cookie=0x5ec0", text)


def _plain(node: Node) -> str:
    """Bridges, ports, interfaces and flows, without marks and counters."""
    ports = node.sh("""
    for p in $(ovs-vsctl list-ports br-int) $(ovs-vsctl list-ports br-tun); do
        ovs-vsctl --columns=name,tag list port $p; ovs-vsctl --columns=name,type,options,ofport list interface $p
    done
    for b in br-int br-tun; do ovs-ofctl --names --no-stats dump-flows $b | sed 's/cookie=[^,]*, *//'; done
    ip -n blue -br address; ip -n blue route; ip -br address show dev vh""")
    return "\n".join(sorted(ports.splitlines()))
