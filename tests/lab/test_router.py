"""A floating IP, through a router namespace and a GRE tunnel between two nodes, whatever happens to the daemon.

outside ── eth2, br-ex ── qg-1 [qrouter-1] qr-1 ── br-int, br-tun ══ GRE ══ br-tun, br-int ── vm2
203.0.113.1              network node                                       compute node     192.168.1.2
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.lab import service, wheels
from tests.lab.cluster import Cluster, Node, lab

FLOATING = "203.0.113.50"
NEXT = "99.0.0"
ROUTER = f"""---
bridges:
  br-ex: {{fail_mode: secure}}
ports:
  eth2: {{bridge: br-ex, type: system}}
  qg-1: {{bridge: br-ex, mac: "fa:16:3e:00:00:01"}}
  qr-1: {{bridge: br-int, tag: 1, mac: "fa:16:3e:00:00:02"}}
flows:
  br-ex:
    - priority=1,actions=NORMAL
namespaces:
  qrouter-1:
    links:
      qr-1: {{type: ovs, addresses: [192.168.1.254/24]}}
      qg-1: {{type: ovs, addresses: [203.0.113.10/24, {{address: {FLOATING}/32, announce: true}}]}}
    routes: [{{to: default, via: 203.0.113.1}}]
    sysctls: {{net.ipv4.ip_forward: 1}}
rules:
  qrouter-1:
    floating_ips: {{{FLOATING}: 192.168.1.2}}
    snat: [{{source: 192.168.1.0/24, out: qg-1, to: 203.0.113.10}}]
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The picture above, made by two daemons."""
    with lab("network", "compute") as cluster:
        network, compute = cluster.nodes["network"], cluster.nodes["compute"]
        network.plug("vm1", "192.168.1.1/24")
        compute.plug("vm2", "192.168.1.2/24")
        compute.run("ip", "-n", "vm2", "route", "add", "default", "via", "192.168.1.254")
        service.place(network, service.tunnel(network, compute, "vm1") + ROUTER)
        service.place(compute, service.tunnel(compute, network, "vm2"))
        service.started(network)
        service.started(compute)
        assert network.eventually(lambda: service.converged(network)), network.try_run("reconcile", "status")
        yield cluster


def _upgrade(node: Node) -> None:
    """A second installation, of another version: made beside the one that runs, which it then takes the place of."""
    before = node.run("reconcile", "--version").split()[-1]
    checkout, made = wheels.another_version(node, wheels.directory(), NEXT)
    said = node.run("sh", f"{checkout}/systemd/install.sh", "--wheels", made, timeout=110)
    assert "running: converged" in said
    assert (before != NEXT, service.status(node).version) == (True, NEXT)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("happens", [service.restart, service.stop_and_start, service.kill, _upgrade])
def test_no_packet_is_lost_by_floating_ip_router_or_tunnel(cluster: Cluster, happens: Callable[[Node], None]) -> None:
    node, compute = cluster.nodes["network"], cluster.nodes["compute"]
    assert cluster.ping(compute, "vm2", cluster.outside.address)
    with (
        cluster.outside.pinging(FLOATING) as floating,
        cluster.pinging(compute, "vm2", cluster.outside.address) as routed,
        cluster.pinging(node, "vm1", "192.168.1.2") as tunnelled,
    ):
        happens(node)
        assert node.eventually(lambda: service.converged(node))
    for ping in (floating, routed, tunnelled):
        assert (ping.lost, ping.sent > 30) == ((), True)


def test_tcp_goes_the_whole_way_and_back(cluster: Cluster) -> None:
    compute = cluster.nodes["compute"]
    compute.sh("mkdir -p /root/www; head -c 3000000 /dev/urandom >/root/www/file")
    server = ("python3", "-m", "http.server", "-d", "/root/www", "80")
    compute.spawn("ip", "netns", "exec", "vm2", *server)
    there = compute.run("sha256sum", "/root/www/file").split()[0]
    fetch = ("curl", "-s", "-m", "10", "--retry-connrefused", "--retry", "20", "--retry-delay", "1")
    here = cluster.outside.run("sh", "-c", f"{' '.join(fetch)} http://{FLOATING}/file | sha256sum", timeout=40)
    assert here.split()[0] == there


def test_the_router_namespace_is_everybodys(cluster: Cluster) -> None:
    node = cluster.nodes["network"]
    unit = ("systemd-run", "-q", "--wait", "--pipe", "-p", "NetworkNamespacePath=/run/netns/qrouter-1")
    for inside in (("ip", "netns", "exec", "qrouter-1"), unit):
        assert "192.168.1.254/24" in node.run(*inside, "ip", "-br", "address")
        assert " 0% packet loss" in node.run(*inside, "ping", "-c1", "-W1", "192.168.1.2")


def test_a_router_that_somebody_deletes_carries_traffic_again_within_moments(cluster: Cluster) -> None:
    node = cluster.nodes["network"]
    with cluster.outside.pinging(FLOATING) as ping:
        node.run("ip", "netns", "del", "qrouter-1")
        assert cluster.outside.reaches(FLOATING)
    print(f"lost {len(ping.lost)} of {ping.sent} pings, one every 10 ms")
    assert node.eventually(lambda: service.converged(node))


def test_after_a_power_cut_everything_comes_back_in_one_go(cluster: Cluster) -> None:
    node = cluster.nodes["network"]
    node.reboot()
    assert cluster.outside.reaches(FLOATING)
    assert node.eventually(lambda: node.run("ip", "netns", "list").strip().startswith("qrouter-1"))
    node.plug("vm1", "192.168.1.1/24")
    assert node.eventually(lambda: service.converged(node)), node.try_run("reconcile", "status")
