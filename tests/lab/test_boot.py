"""What a booted node is, and that nothing of it is left however its test ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cluster import CHECKOUT, Cluster, lab
from tests.lab.kernel import Capability
from tests.lab.test_host_untouched import eventually, look


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("network", "compute", "control") as cluster:
        yield cluster


def test_each_node_is_a_machine_of_its_own(cluster: Cluster) -> None:
    seen = [
        node.sh("hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; cat /etc/openvswitch/system-id.conf")
        for node in cluster.nodes.values()
    ]
    assert [text.split()[0] for text in seen] == ["network", "compute", "control"]
    assert len({line for text in seen for line in text.split()}) == 12
    for node in cluster.nodes.values():
        assert node.run("cat", "/proc/1/comm").strip() == "systemd"
        assert node.run("systemctl", "is-system-running").strip() == "running"
        assert "org.freedesktop.systemd1" in node.run("busctl", "list", "--no-legend")
        assert "Started" in node.run("journalctl", "-b", "--no-pager", "-n", "200")


def test_nodes_reach_each_other_by_name_over_tunnels_and_the_outside(cluster: Cluster) -> None:
    network, compute = cluster.nodes["network"], cluster.nodes["compute"]
    assert cluster.ping(network, "", "control")
    assert cluster.ping(network, "", compute.underlay)
    assert network.run("ping", "-n", "-c1", "-W1", "-Mdo", "-s1560", compute.underlay)  # the underlay's MTU is 1600
    network.sh("ip addr add 203.0.113.9/24 dev eth2")
    assert "1 received" in cluster.outside.run("ping", "-n", "-c1", "-W1", "203.0.113.9")
    assert network.run("ovs-vsctl", "port-to-br", "eth1").strip() == "br-phy"


def test_a_namespace_that_was_made_in_a_node_is_usable_by_its_units(cluster: Cluster) -> None:
    node = cluster.nodes["network"]
    node.run("ip", "netns", "add", "blue")
    told = node.sh("systemd-run -q --wait --pipe -p NetworkNamespacePath=/run/netns/blue ip -br link")
    assert told.split()[0] == "lo"
    assert "eth0" not in told


def test_what_belongs_to_the_whole_machine_is_out_of_reach(cluster: Cluster) -> None:
    node = cluster.nodes["network"]
    for line in (node.read("/proc/1/status"), node.sh("cat /proc/self/status")):
        bounds = int(line.split("CapBnd:")[1].split()[0], 16)
        assert [capability.name for capability in Capability if bounds >> capability & 1] == []
    for file in ("/proc/sys/kernel/panic", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"):
        assert node.sh(f"test ! -w {file} && echo closed").strip() == "closed"  # looked at, not tried


def test_its_disk_outlives_a_power_cut_and_its_memory_does_not(cluster: Cluster) -> None:
    node = cluster.nodes["compute"]
    node.sh("ovs-vsctl add-br br-x -- set bridge br-x datapath_type=netdev; ip netns add red")
    node.sh("touch /root/kept /run/gone /tmp/gone; systemd-run -q sleep 1000")
    ids = node.sh("cat /etc/machine-id"), node.sh("cat /proc/sys/kernel/random/boot_id")
    node.reboot()
    assert "br-x" in node.run("ovs-vsctl", "list-br")
    assert node.sh("ls /root/kept; ls -A /run/netns /tmp | grep -e gone -e red || true") == "/root/kept\n"
    assert "sleep" not in node.run("ps", "ax")
    again = node.sh("cat /etc/machine-id"), node.sh("cat /proc/sys/kernel/random/boot_id")
    assert (ids[0] == again[0], ids[1] == again[1]) == (True, False)
    assert cluster.ping(cluster.nodes["network"], "", node.underlay)


def test_a_lab_whose_test_is_killed_leaves_nothing() -> None:
    before = look("none")
    program = """
import time
from tests.lab.cluster import lab
with lab("one", "two") as cluster:
    cluster.nodes["one"].sh("ip netns add x; sysctl -qw net.ipv4.ip_forward=1; touch /etc/leak /usr/leak")
    cluster.nodes["one"].spawn("sleep", "1000")
    print(*(node.pid for node in cluster.nodes.values()), cluster.holder.pid, cluster.directory, flush=True)
    time.sleep(100)
"""
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout is not None
        *pids, directory = test.stdout.readline().split()
        inside = _descendants(int(pids[2]))
        assert len(inside) > 10
        os.kill(test.pid, signal.SIGKILL)
    assert eventually(lambda: not [pid for pid in (*pids, *inside) if Path(f"/proc/{pid}/exe").exists()])
    subprocess.run(["rm", "-r", directory], check=True)
    assert eventually(lambda: look("none") == before), (before, look("none"))


def test_three_nodes_boot_while_one_would_notice() -> None:
    began = time.monotonic()
    with lab("one", "two", "three"):
        took = time.monotonic() - began
    print(f"three nodes running after {took:.2f} s, gone after {time.monotonic() - began:.2f} s")
    assert took < 20  # 0.6 s on a machine with nothing else to do


def test_systemd_is_never_started_on_the_machine_itself() -> None:
    script = "from tests.lab import boot; boot._refuse_the_machine_itself()"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert "systemd is not started: mounts must be" in done.stderr


def _descendants(pid: int) -> list[str]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [child, *_descendants(int(child))]
    return found
