"""The daemon as a service of a booted node, quickly: the shipped unit, the code of this checkout, YAML for a tunnel.

What ``systemd/install.sh`` does for real is tested in ``test_install_service.py``; other tests start here.
"""

from __future__ import annotations

import time
from pathlib import Path

from reconciler.contract import Outcome
from reconciler.doors.client import ControlClient
from reconciler.errors import ReconcilerError
from reconciler.report import NodeStatus
from tests.lab.cluster import CHECKOUT, Cluster, Node
from tests.lab.holder import ToolFailedError

SETTINGS = 'datapath_type = "netdev"\n'
DESIRED = "/etc/reconciler/desired/node.yaml"


def enable(node: Node, desired: str, settings: str = SETTINGS) -> None:
    """Put the shipped unit, settings and YAML on the node and start the service; returns when it is READY."""
    place(node, desired, settings)
    started(node)


def place(node: Node, desired: str, settings: str = SETTINGS) -> None:
    """As `enable`, without waiting for it."""
    node.write(DESIRED, desired)
    boot(node, settings)


def boot(node: Node, settings: str = SETTINGS) -> None:
    """Put the shipped unit and settings on a node whose YAML is there, and let it start."""
    node.write("/etc/reconciler/reconciler.toml", settings)
    unit = (CHECKOUT / "systemd/reconciler.service").read_text(encoding="utf-8")
    node.write("/etc/systemd/system/reconciler.service", unit)
    node.sh("systemctl daemon-reload; systemctl enable reconciler; systemctl start --no-block reconciler")


def started(node: Node) -> None:
    """Wait for READY. Raises AssertionError with the end of its journal when it does not start."""
    try:
        node.run("systemctl", "start", "reconciler", timeout=30)
    except ToolFailedError as error:
        said = node.try_run("journalctl", "-u", "reconciler", "--no-pager", "-n", "30")
        raise AssertionError(f"the service did not start on {node.name}:\n{said}") from error


def main_pid(node: Node) -> int:
    """In the node's own numbers; 0 when it does not run."""
    return int(node.run("systemctl", "show", "-P", "MainPID", "reconciler"))


def restart(node: Node) -> None:
    node.run("systemctl", "restart", "reconciler", timeout=30)


def stop_and_start(node: Node) -> None:
    node.run("systemctl", "stop", "reconciler", timeout=30)
    time.sleep(0.3)
    node.run("systemctl", "start", "reconciler", timeout=30)


def kill(node: Node) -> None:
    """Return when systemd has started another one, and that has converged."""
    before = main_pid(node)
    node.run("kill", "-KILL", str(before))
    assert node.eventually(lambda: main_pid(node) not in {0, before}, within=40)
    assert node.eventually(lambda: converged(node))


def status(node: Node) -> NodeStatus:
    """What ``reconcile status`` prints, without a process: its control socket is reached through the node's root."""
    socket = Path(f"/proc/{node.pid}/root/run/reconciler/control.sock")
    return ControlClient(socket, answer_seconds=5.0).status()


def answers(node: Node) -> bool:
    """Whether a daemon runs and answers."""
    try:
        return bool(status(node).version)
    except ReconcilerError:
        return False


def converged(node: Node) -> bool:
    """Whether a daemon runs and says so."""
    try:
        return status(node).outcome is Outcome.CONVERGED
    except ReconcilerError:
        return False


def tunnel(node: Node, peer: Node, host: str) -> str:
    """br-int and br-tun as Quantum had them: `host` (see `Node.plug`) in VLAN 1, which is key 1 in a GRE tunnel."""
    return f"""
bridges:
  br-int: {{fail_mode: secure}}
  br-tun: {{fail_mode: secure}}
patches:
  - {{br-int: patch-tun, br-tun: patch-int}}
ports:
  {host}: {{bridge: br-int, type: system, tag: 1}}
  gre-1:
    bridge: br-tun
    type: gre
    local_ip: {node.underlay}
    remote_ip: {peer.underlay}
    options: {{in_key: flow, out_key: flow}}
flows:
  br-int:
    - priority=1,actions=NORMAL
  br-tun:
    - priority=1,actions=drop
    - priority=4,in_port=patch-int,dl_vlan=1,actions=strip_vlan,set_tunnel:1,output:gre-1
    - priority=3,in_port=gre-1,tun_id=1,actions=mod_vlan_vid:1,output:patch-int
"""


def pair(cluster: Cluster, extra: str = "") -> tuple[Node, Node]:
    """The first two nodes with a host each, vm1 192.168.1.1 and vm2 192.168.1.2, joined by a tunnel that we hold.

    `extra` is YAML that the first one declares besides.
    """
    one, two = list(cluster.nodes.values())[:2]
    for node, peer, host, address in ((one, two, "vm1", "192.168.1.1/24"), (two, one, "vm2", "192.168.1.2/24")):
        node.plug(host, address)
        place(node, tunnel(node, peer, host) + (extra if node is one else ""))
    started(one)
    started(two)
    if not cluster.ping(one, "vm1", "192.168.1.2"):
        raise AssertionError(f"no traffic through the tunnel:\n{one.try_run('reconcile', 'status')}")
    return one, two
