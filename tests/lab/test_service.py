"""`reconciler.service` under a real systemd: it starts, is watched and started again, and no packet is lost by it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import pytest

from tests.lab import service
from tests.lab.cluster import Cluster, Node, lab


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes with a host each, and a GRE tunnel between them that the daemons made."""
    with lab("network", "compute") as cluster:
        service.pair(cluster)
        yield cluster


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Node]:
    """The first one, its service running and the node as declared, before the test and after it."""
    node = cluster.nodes["network"]
    node.run("systemctl", "start", "reconciler", timeout=30)
    assert node.eventually(lambda: service.converged(node))
    yield node
    node.run("systemctl", "start", "reconciler", timeout=30)
    assert node.eventually(lambda: service.converged(node)), node.try_run("reconcile", "status")


def test_ready_means_that_the_node_is_as_declared(node: Node) -> None:
    node.run("systemctl", "stop", "reconciler")
    node.sh("ovs-vsctl del-port patch-tun; ovs-ofctl del-flows br-tun")
    node.run("systemctl", "start", "reconciler", timeout=30)
    assert node.run("ovs-vsctl", "port-to-br", "patch-tun").strip() == "br-int"
    assert node.run("ovs-ofctl", "--no-stats", "dump-flows", "br-tun").count("priority") == 3
    assert node.run("systemctl", "show", "-P", "StatusText", "reconciler").strip() == "converged"


def test_the_unit_has_it_take_short_turns(node: Node) -> None:
    pid = node.run("systemctl", "show", "-P", "MainPID", "reconciler").strip()
    ask = f"from reconciler.promptness import turn_taken; print(turn_taken({pid}))"
    turn = "(0.0001, 0)" if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 12) else "(0.0, 0)"
    assert node.eventually(lambda: node.run("/opt/reconciler/current/bin/python", "-c", ask).strip() == turn)


def test_a_daemon_that_is_stuck_is_killed_by_the_watchdog_and_started_again(node: Node) -> None:
    node.write("/run/systemd/system/reconciler.service.d/test.conf", "[Service]\nWatchdogSec=1s\n")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", "reconciler", timeout=30)
    before = service.main_pid(node)
    node.run("kill", "-STOP", str(before))
    assert node.eventually(lambda: service.main_pid(node) not in {0, before}, within=40)
    assert node.eventually(lambda: service.converged(node))
    assert "Watchdog timeout" in node.run("journalctl", "-u", "reconciler", "--no-pager", "-n", "100")
    node.sh("rm -r /run/systemd/system/reconciler.service.d; systemctl daemon-reload; systemctl restart reconciler")


def test_a_healthy_daemon_is_not_killed_by_the_watchdog(node: Node) -> None:
    assert float(node.run("systemctl", "show", "-P", "WatchdogUSec", "reconciler").strip().removesuffix("s")) > 0
    fed = node.run("systemctl", "show", "-P", "WatchdogTimestampMonotonic", "reconciler")
    assert node.eventually(
        lambda: node.run("systemctl", "show", "-P", "WatchdogTimestampMonotonic", "reconciler") != fed, within=5
    )


def _kill_over_and_over(node: Node) -> None:
    for _ in range(6):  # more often than systemd's own start limit would allow
        before = service.main_pid(node)
        if before:
            node.run("kill", "-KILL", str(before))
        assert node.eventually(lambda before=before: service.main_pid(node) not in {0, before}, within=40)
    assert node.eventually(lambda: service.converged(node), within=40)


@pytest.mark.parametrize("happens", [service.restart, service.stop_and_start, service.kill, _kill_over_and_over])
def test_no_packet_is_lost_and_nothing_is_written(
    cluster: Cluster, node: Node, happens: Callable[[Node], None]
) -> None:
    before, counted = _flows(node), _packets(node)
    with cluster.pinging(node, "vm1", "192.168.1.2") as ping:
        happens(node)
    assert (ping.lost, ping.sent > 30) == ((), True)
    assert _flows(node) == before
    assert _packets(node) > counted, "flows were installed anew"


def test_reload_takes_over_what_it_can_without_a_new_process(node: Node) -> None:
    before = service.main_pid(node)
    node.write("/etc/reconciler/reconciler.toml", service.SETTINGS + 'log_level = "debug"\n')
    node.run("systemctl", "reload", "reconciler")
    assert node.eventually(lambda: '"log_level": "debug"' in _journal(node))
    assert service.main_pid(node) == before
    node.write("/etc/reconciler/reconciler.toml", service.SETTINGS)
    node.run("systemctl", "reload", "reconciler")
    assert node.eventually(lambda: '"log_level": "info"' in _journal(node))


def test_open_vswitch_may_be_restarted_without_taking_the_daemon_along(cluster: Cluster, node: Node) -> None:
    before, flows = service.main_pid(node), _flows(node)
    node.run("systemctl", "restart", "ovs-vswitchd", timeout=30)
    assert node.eventually(lambda: _flows(node) == flows)
    assert service.main_pid(node) == before
    assert node.eventually(lambda: service.converged(node))
    assert cluster.ping(node, "vm1", "192.168.1.2")


def test_after_a_cold_boot_the_node_is_as_declared_before_other_agents_start(cluster: Cluster) -> None:
    node = cluster.nodes["compute"]
    node.sh("""
    printf '[Service]\\nType=oneshot\\nExecStart=sh -c "ovs-ofctl dump-flows br-tun >/root/seen"\\n' \
        >/etc/systemd/system/neutron-openvswitch-agent.service
    printf '[Install]\\nWantedBy=multi-user.target\\n' >>/etc/systemd/system/neutron-openvswitch-agent.service
    systemctl enable neutron-openvswitch-agent""")
    node.reboot()
    assert node.read("/root/seen").count("priority") == 3
    node.plug("vm2", "192.168.1.2/24")
    assert cluster.ping(cluster.nodes["network"], "vm1", "192.168.1.2")


def test_the_exposure_is_under_five_and_each_open_item_is_justified(node: Node) -> None:
    said = node.run("systemd-analyze", "security", "--no-pager", "reconciler")
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert exposure is not None
    print(f"systemd-analyze security: {exposure[1]}")
    assert float(exposure[1]) < 5.0
    unit = node.read("/etc/systemd/system/reconciler.service")
    open_ = (line.split()[1].partition("=")[0] for line in said.splitlines() if "✗" in line)
    named = {name for name in open_ if name.isalpha()}
    assert not [name for name in named if name not in unit]


def test_namespaces_are_made_where_everybody_sees_them(node: Node) -> None:
    pid = service.main_pid(node)
    assert node.run("readlink", f"/proc/{pid}/ns/mnt") == node.run("readlink", "/proc/1/ns/mnt")


def test_doctor_names_a_drop_in_that_hides_the_namespaces_it_makes(node: Node) -> None:
    assert "ok       mounts" in node.reconcile("doctor")
    node.write("/run/systemd/system/reconciler.service.d/test.conf", "[Service]\nPrivateMounts=yes\n")
    node.sh("systemctl daemon-reload; systemctl restart reconciler", timeout=30)
    try:
        assert "take PrivateTmp" in node.reconcile("doctor", expect=(1,))
    finally:
        node.sh("rm -r /run/systemd/system/reconciler.service.d; systemctl daemon-reload; systemctl restart reconciler")


def test_what_it_never_does_is_closed_to_it(node: Node) -> None:
    pid = service.main_pid(node)
    kept = int(re.search(r"CapBnd:\s*(\w+)", node.read(f"/proc/{pid}/status"))[1], 16)  # type: ignore[index]
    for closed in (16, 17, 22, 25, 19, 6, 7):  # SYS_MODULE, RAWIO, BOOT, TIME, PTRACE, SETGID, SETUID
        assert not kept >> closed & 1
    assert "Seccomp:\t2" in node.read(f"/proc/{pid}/status")


def test_a_store_password_comes_as_a_credential_and_is_shown_nowhere(node: Node) -> None:
    node.write("/etc/credstore/reconciler.store-password", "s3cret-of-the-store\n", "600")
    url = 'store_url = "postgresql+psycopg://keeper@127.0.0.1:1/fleet"\n'
    node.write("/etc/reconciler/reconciler.toml", service.SETTINGS + url)
    node.run("systemctl", "restart", "reconciler", timeout=30)
    try:
        assert node.read("/run/credentials/reconciler.service/reconciler.store-password") == "s3cret-of-the-store\n"
        assert service.converged(node)  # it holds the node without its store
        seen = node.reconcile("config") + node.try_run("reconcile", "status") + node.try_run("reconcile", "doctor")
        assert "keeper:***@" in seen
        assert "s3cret" not in seen + _journal(node)
    finally:
        node.write("/etc/reconciler/reconciler.toml", service.SETTINGS)
        node.sh("rm /etc/credstore/reconciler.store-password; systemctl restart reconciler")


def test_it_tells_a_broker_and_shows_the_password_of_it_nowhere(node: Node) -> None:
    node.write("/etc/credstore/reconciler.mqtt-password", "s3cret-of-the-broker\n", "600")
    node.write("/etc/mosquitto/conf.d/lab.conf", "listener 1883 127.0.0.1\npassword_file /etc/mosquitto/users\n")
    node.sh(
        "mosquitto_passwd -c -b /etc/mosquitto/users keeper s3cret-of-the-broker; chown mosquitto /etc/mosquitto/users"
    )
    node.write("/etc/reconciler/reconciler.toml", f'{service.SETTINGS}[mqtt]\nurl = "mqtt://keeper@127.0.0.1"\n')
    try:
        node.run("systemctl", "restart", "reconciler", timeout=30)
        assert node.eventually(lambda: "Connection refused" in node.reconcile("status"))
        node.run("systemctl", "start", "mosquitto", timeout=30)
        assert node.eventually(lambda: "1 converged" in node.reconcile("fleet", "--once", expect=(0, 5)), within=60)
        seen = node.reconcile("config") + node.reconcile("status", "-v") + node.try_run("reconcile", "doctor")
        assert "mqtt://keeper@127.0.0.1:1883 lets us in" in seen
        assert "s3cret" not in seen + _journal(node)
    finally:
        node.write("/etc/reconciler/reconciler.toml", service.SETTINGS)
        node.sh("rm /etc/credstore/reconciler.mqtt-password; systemctl stop mosquitto; systemctl restart reconciler")


def test_sigterm_ends_it_cleanly(node: Node) -> None:
    node.run("systemctl", "stop", "reconciler", timeout=30)
    shown = node.run("systemctl", "show", "-p", "Result,ExecMainStatus,ExecMainCode", "reconciler").split()
    assert sorted(shown) == ["ExecMainCode=1", "ExecMainStatus=0", "Result=success"]


def _journal(node: Node) -> str:
    return node.run("journalctl", "-u", "reconciler", "--no-pager", "-n", "60")


def _flows(node: Node) -> list[str]:
    """Of both bridges, by names, without counters and ages."""
    text = node.sh("for b in br-int br-tun; do ovs-ofctl --names --no-stats dump-flows $b; done")
    return sorted(text.splitlines())


def _packets(node: Node) -> int:
    """That went through the flow which is used least: a flow that is installed anew begins at 0."""
    text = node.sh("ovs-ofctl dump-flows br-tun | grep -v actions=drop")
    return min(int(packets) for packets in re.findall(r"n_packets=(\d+)", text))
