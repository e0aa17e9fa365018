"""`systemd/install.sh` puts the daemon on a booted node, upgrades it, and `uninstall.sh` takes it away again.

The node has no internet: wheels are made before, once for each version of the dependencies, where the virtualenv of
the tests is.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import service
from tests.lab.cluster import CHECKOUT, Cluster, Node, lab

_SOURCE = ("reconciler", "controllers", "desired", "pyproject.toml", "README.md", "LICENSE")
_PIP = (sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheels() -> Path:
    """A directory with the wheels of the project, as it is now, and of what it needs, as it is pinned."""
    pins = (CHECKOUT / "constraints.txt").read_bytes() + (CHECKOUT / "pyproject.toml").read_bytes()
    place = Path(sys.prefix) / f"lab-wheels-{hashlib.sha256(pins).hexdigest()[:12]}"
    with (Path(sys.prefix) / "lab-wheels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            _build(place, "--constraint", str(CHECKOUT / "constraints.txt"))
            (place / "complete").touch()
        for old in place.glob("node_reconciler-*.whl"):
            old.unlink()
        _build(place, "--no-deps", "--no-index", "--no-build-isolation")
    return place


def _build(place: Path, *options: str) -> None:
    """From a copy: building leaves files behind."""
    source = place / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for part in _SOURCE:
        whole = CHECKOUT / part
        if whole.is_dir():
            shutil.copytree(whole, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(whole, source)
    subprocess.run([*_PIP, *options, "--wheel-dir", str(place), str(source)], check=True, timeout=110)
    shutil.rmtree(source)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("network", "compute", installed=False) as cluster:
        yield cluster


def test_install_upgrade_uninstall_on_a_node_that_carries_traffic(cluster: Cluster, wheels: Path) -> None:
    node, peer = cluster.nodes["network"], cluster.nodes["compute"]
    _neighbour(peer, node)
    node.plug("vm1", "192.168.1.1/24")

    said = _install(node, wheels)
    assert "installed, not started" in said
    assert node.run("systemctl", "is-enabled", "reconciler").strip() == "enabled"
    assert "datapath_type" in node.read("/etc/reconciler/reconciler.toml")

    node.write("/etc/reconciler/reconciler.toml", service.SETTINGS)
    node.write(service.DESIRED, service.tunnel(node, peer, "vm1"))
    node.run("systemctl", "start", "reconciler", timeout=30)
    assert "converged" in node.sh("cd /; reconcile status")
    assert node.sh("readlink -f $(command -v reconcile)").startswith("/opt/reconciler/0")
    assert cluster.ping(node, "vm1", "192.168.1.2")

    before = _world(node)
    with cluster.pinging(node, "vm1", "192.168.1.2") as ping:
        old = node.run("readlink", "/opt/reconciler/current").strip()
        assert "running: converged" in _install(node, wheels)
        assert node.run("readlink", "/opt/reconciler/current").strip() != old
        assert service.converged(node)
    assert ping.lost == ()
    assert _world(node) == before
    assert node.read("/etc/reconciler/reconciler.toml") == service.SETTINGS

    with cluster.pinging(node, "vm1", "192.168.1.2") as ping:
        assert "removed" in node.run("sh", "/opt/reconciler/uninstall.sh", timeout=30)
    assert ping.lost == ()
    assert _world(node) == before
    assert node.sh("ls -d /opt/reconciler /usr/local/bin/reconcile /etc/systemd/system/reconciler.service || true") == ""
    assert "could not be found" in node.try_run("systemctl", "status", "reconciler")
    assert node.read(service.DESIRED)


def test_a_version_that_does_not_start_is_replaced_by_the_one_before(cluster: Cluster) -> None:
    node = cluster.nodes["compute"]
    good = node.run("readlink", "-f", "/opt/reconciler/current").strip()
    node.write("/etc/reconciler/reconciler.toml", "no_such_setting = 1\n")
    said = _try_install(node, "--wheels", "/nowhere")
    assert "nothing has changed on this node" in said
    assert node.run("readlink", "-f", "/opt/reconciler/current").strip() == good
    assert node.sh("ls /opt/reconciler") == "current\n"


def _neighbour(node: Node, peer: Node) -> None:
    """The other end of the tunnel, held by the code of this checkout."""
    node.sh(f"mkdir -p /opt/reconciler; ln -sfn {sys.prefix} /opt/reconciler/current")
    node.plug("vm2", "192.168.1.2/24")
    service.enable(node, service.tunnel(node, peer, "vm2"))


def _install(node: Node, wheels: Path) -> str:
    return node.run("sh", f"{CHECKOUT}/systemd/install.sh", "--wheels", str(wheels), timeout=100)


def _try_install(node: Node, *options: str) -> str:
    return node.try_run("sh", f"{CHECKOUT}/systemd/install.sh", *options, timeout=100)


def _world(node: Node) -> str:
    """What the daemon made, without counters and ages."""
    text = node.sh("""
    ovs-vsctl --columns=name,external_ids,ports list bridge; ovs-vsctl --columns=name,tag,external_ids list port
    ovs-vsctl --columns=name,type,options,ofport list interface; ip -br link
    for b in br-int br-tun; do ovs-ofctl --no-stats dump-flows $b; done""")
    return "\n".join(sorted(text.splitlines()))
