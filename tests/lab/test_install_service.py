"""`systemd/install.sh` puts the daemon on a booted node, upgrades it, and `uninstall.sh` takes it away again.

The node has no internet: wheels are made before, see ``wheels.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import service
from tests.lab.cluster import CHECKOUT, Cluster, Node, lab
from tests.lab.wheels import directory


@pytest.fixture(scope="module")
def wheels() -> Path:
    return directory()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`network` has nothing of ours, `compute` what an earlier installation would have left, and a host behind it."""
    with lab("network", "compute", installed=False) as cluster:
        _neighbour(cluster.nodes["compute"], cluster.nodes["network"])
        yield cluster


def test_install_upgrade_uninstall_on_a_node_that_carries_traffic(cluster: Cluster, wheels: Path) -> None:
    node, peer = cluster.nodes["network"], cluster.nodes["compute"]
    node.plug("vm1", "192.168.1.1/24")

    said = _install(node, wheels)
    assert "installed, not started" in said
    assert node.run("systemctl", "is-enabled", "reconciler").strip() == "enabled"
    assert "datapath_type" in node.read("/etc/reconciler/reconciler.toml")

    node.write("/etc/reconciler/reconciler.toml", service.SETTINGS)
    node.write(service.DESIRED, service.tunnel(node, peer, "vm1"))
    node.run("systemctl", "start", "reconciler", timeout=30)
    assert "converged" in node.sh("cd /; reconcile status")
    assert "opens and takes writes" in node.try_run("reconcile", "doctor")  # its migrations came along
    assert node.sh("readlink -f $(command -v reconcile)").startswith("/opt/reconciler/0")
    assert cluster.ping(node, "vm1", "192.168.1.2")

    before = _world(node)
    with cluster.pinging(node, "vm1", "192.168.1.2") as ping:
        old = node.run("readlink", "/opt/reconciler/current").strip()
        node.write("/root/bin/python3", _STAND_IN, "755")
        assert "running: converged" in _try_install(node, "--wheels", str(wheels), first="COPY=1")
        assert node.run("readlink", "/opt/reconciler/current").strip() != old
        assert service.converged(node)
    assert ping.lost == ()
    assert _world(node) == before
    assert node.read("/etc/reconciler/reconciler.toml") == service.SETTINGS

    with cluster.pinging(node, "vm1", "192.168.1.2") as ping:
        assert "removed" in node.run("sh", "/opt/reconciler/uninstall.sh", timeout=30)
    assert ping.lost == ()
    assert _world(node) == before
    assert (
        node.sh("ls -d /opt/reconciler /usr/local/bin/reconcile /etc/systemd/system/reconciler.service || true") == ""
    )
    assert "could not be found" in node.try_run("systemctl", "status", "reconciler")
    assert node.read(service.DESIRED)


def test_an_installation_that_fails_changes_nothing(cluster: Cluster) -> None:
    node = cluster.nodes["compute"]
    before = node.sh("ls -l /opt/reconciler; cat /etc/systemd/system/reconciler.service")
    assert "nothing has changed on this node" in _try_install(node, "--wheels", "/root")
    node.write("/root/bin/python3", _STAND_IN, "755")
    assert "nothing has changed on this node" in _try_install(node, first="PIP=1")
    assert node.sh("ls -l /opt/reconciler; cat /etc/systemd/system/reconciler.service") == before


def test_a_version_that_does_not_start_is_replaced_by_the_one_before(cluster: Cluster) -> None:
    node = cluster.nodes["compute"]
    node.write("/root/bin/python3", _STAND_IN, "755")
    good = node.run("readlink", "/opt/reconciler/current")
    said = _try_install(node, first="PIP=0")
    assert "the new version does not even start" in said, said
    assert f"{good.strip()} runs again" in said
    assert node.run("readlink", "/opt/reconciler/current") == good
    assert node.sh("ls /opt/reconciler").split() == ["current", "uninstall.sh"]
    assert node.eventually(lambda: service.converged(node))


def test_uninstall_lets_go_for_good_when_asked(cluster: Cluster) -> None:
    node = cluster.nodes["compute"]
    before = _world(node)
    assert "reconciler=" in before
    said = node.run("sh", f"{CHECKOUT}/systemd/uninstall.sh", "--release", "--purge", timeout=30)
    assert "released  bridge/br-int" in said
    after = _world(node)
    assert "reconciler=" not in after
    assert "0x5ec0" not in after
    assert len(after.splitlines()) == len(before.splitlines())
    assert "No such file" in node.try_run("ls", "/etc/reconciler", "/var/lib/reconciler")
    node.sh("ovs-vsctl del-br br-int -- del-br br-tun")
    _hold(node, cluster.nodes["network"])


_STAND_IN = """#!/bin/sh
# Plays Python, venv and pip in a moment; what it makes fails when it is run, or with COPY is what is installed.
case "$*" in
*venv\\ /*)
    for last; do :; done
    mkdir -p "$last/bin"
    [ -z "$COPY" ] || { cp -a /opt/reconciler/current/. "$last"; exit; }
    cp "$0" "$last/bin/python"; cp "$0" "$last/bin/reconcile" ;;
*pip\\ install*) exit $PIP ;;
run) echo "the new version does not even start"; exit 1 ;;
esac
"""


def _neighbour(node: Node, peer: Node) -> None:
    """The other end of the tunnel, held by the code of this checkout."""
    node.plug("vm2", "192.168.1.2/24")
    _hold(node, peer)


def _hold(node: Node, peer: Node) -> None:
    node.sh(f"mkdir -p /opt/reconciler; ln -sfn {sys.prefix} /opt/reconciler/current")
    service.enable(node, service.tunnel(node, peer, "vm2"))


def _install(node: Node, wheels: Path) -> str:
    return node.run("sh", f"{CHECKOUT}/systemd/install.sh", "--wheels", str(wheels), timeout=100)


def _try_install(node: Node, *options: str, first: str = "PIP=0") -> str:
    """With `first` in the environment, and the stand-in, if there is one, for Python."""
    command = ("env", first, "PATH=/root/bin:/usr/sbin:/usr/bin:/sbin:/bin", "sh", f"{CHECKOUT}/systemd/install.sh")
    return node.try_run(*command, *options, timeout=100)


def _world(node: Node) -> str:
    """What the daemon made, without counters and ages."""
    text = node.sh("""
    ovs-vsctl --columns=name,external_ids,ports list bridge; ovs-vsctl --columns=name,tag,external_ids list port
    ovs-vsctl --columns=name,type,options,ofport list interface; ip -br link
    for b in br-int br-tun; do ovs-ofctl --no-stats dump-flows $b; done""")
    return "\n".join(sorted(text.splitlines()))
