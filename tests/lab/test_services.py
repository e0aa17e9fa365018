"""systemd units on a booted node, broken as people and accidents break them: repaired by the event, told in words."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.doors.client import ControlClient
from reconciler.report import ExitCode
from tests.lab import service
from tests.lab.cluster import Cluster, Node, lab

PLAIN = "[Service]\nExecStart=/bin/sleep 100000\n"
ECHO = """
import os, socket, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", 7777))
if not os.path.exists("/run/deaf"):
    s.listen()
while True:
    time.sleep(0.02)
    if os.path.exists("/run/deaf"):
        s.close()
"""
CRASH = "[Service]\nExecStart=/bin/sh -c 'echo went wrong; exit 3'\n"
TEMPLATE = """[Service]
ExecStart=/bin/sleep 100000
Restart=always
RestartSec=100ms
[Install]
WantedBy=multi-user.target
"""
OWN = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n"
BASE: dict[str, Any] = {
    "plain": {"state": "running", "restart_on": ["/etc/plain.conf"]},
    "dhcp@net-1": {"enabled": True},
    "stopped": {"state": "stopped"},
    "own": {"unit": OWN, "enabled": True, "dropins": {"limits": "[Service]\nLimitNOFILE=4096\n"}},
}


class Units:
    """The node, and its units as a test wants them."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def declare(self, **more: Any) -> None:
        before = service.status(self.node).revision
        text = json.dumps({"services": {**BASE, **more}})
        if self.node.try_run("cat", service.DESIRED) == text:
            return
        self.node.write(service.DESIRED, text)
        assert self.node.eventually(lambda: service.status(self.node).revision != before), self.node.try_run(
            "reconcile", "validate"
        )

    def show(self, unit: str, name: str) -> str:
        return self.node.run("systemctl", "show", "-P", name, unit).strip()

    def pid(self, unit: str) -> int:
        return int(self.show(unit, "MainPID"))

    def right(self) -> None:
        assert self.node.eventually(lambda: service.converged(self.node)), self.node.try_run("reconcile", "status")

    def says(self, unit: str, *words: str, within: float = 10.0) -> str:
        found: list[str] = []

        def told() -> bool:
            wrong = service.status(self.node).not_right
            found[:] = [f"{s.outcome}: {s.reason}" for s in wrong if str(s.resource) == f"service/{unit}.service"]
            return bool(found) and all(word in found[0] for word in words)

        assert self.node.eventually(told, within), (found, self.node.try_run("reconcile", "status"))
        return found[0]

    @contextlib.contextmanager
    def repairs(self, unit: str, *words: str) -> Iterator[None]:
        """What is broken in this block is put right, by the event, and the journal says why."""
        since = time.time()
        yield
        assert self.node.eventually(lambda: self.story(unit, since)), self.node.try_run("reconcile", "status")
        self.right()
        story = " ".join(self.story(unit, since))
        assert all(word in story for word in words), story
        assert "resync" not in story

    def story(self, unit: str, since: float) -> list[str]:
        client = ControlClient(Path(f"/proc/{self.node.pid}/root/run/reconciler/control.sock"), answer_seconds=5.0)
        passes = client.history(resource=f"service/{unit}.service", since=since, limit=20)
        done = [(entry, action) for entry in passes for action in entry.actions if action.result == "done"]
        return [f"{entry.trigger}: {action.why}" for entry, action in done]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("services", wants=()) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def units(cluster: Cluster) -> Units:
    node = cluster.nodes["services"]
    node.write("/root/echo.py", ECHO)
    echo = PLAIN.replace("/bin/sleep 100000", "/usr/bin/python3 /root/echo.py")
    plain = dict.fromkeys(("plain", "stopped", "broker", "alone"), PLAIN)
    for name, text in {**plain, "echo": echo, "crash": CRASH, "dhcp@": TEMPLATE}.items():
        node.write(f"/usr/lib/systemd/system/{name}.service", text)
    node.write("/etc/plain.conf", "a = 1\n")
    node.sh("systemctl daemon-reload; systemctl start stopped")
    service.enable(node, json.dumps({"services": BASE}), "settle_remove = 0.2\nresync_interval = 3600\n")
    return Units(node)


@pytest.fixture(autouse=True)
def as_declared(units: Units) -> Iterator[None]:
    yield
    units.declare()
    units.right()


def test_units_run_are_enabled_or_stopped_as_declared(units: Units) -> None:
    units.right()
    active = [units.show(name, "ActiveState") for name in ("plain", "dhcp@net-1", "own", "stopped")]
    assert active == ["active", "active", "active", "inactive"]
    assert units.show("dhcp@net-1", "UnitFileState") == units.show("own", "UnitFileState") == "enabled"
    assert units.show("own", "LimitNOFILE") == "4096"
    assert units.show("own", "NeedDaemonReload") == "no"


def test_a_stopped_unit_is_started(units: Units) -> None:
    with units.repairs("plain", "does not run"):
        units.node.run("systemctl", "stop", "plain")


def test_a_killed_unit_without_restart_is_started(units: Units) -> None:
    pid = units.pid("plain")
    with units.repairs("plain", "has failed (signal)"):
        units.node.run("kill", "-KILL", str(pid))
    assert units.pid("plain") not in {0, pid}


def test_systemd_s_own_restart_is_left_to_systemd(units: Units) -> None:
    pid, since = units.pid("dhcp@net-1"), time.time()
    units.node.run("kill", "-KILL", str(pid))
    assert units.node.eventually(lambda: units.pid("dhcp@net-1") not in {0, pid})
    units.right()
    assert units.story("dhcp@net-1", since) == []


def test_a_stopped_unit_with_restart_is_started_by_us_at_once(units: Units) -> None:
    with units.repairs("dhcp@net-1", "does not run"):
        units.node.run("systemctl", "stop", "dhcp@net-1")


def test_a_unit_that_is_not_installed_yet_is_masked_in_advance(units: Units) -> None:
    units.declare(later={"masked": True})
    units.right()
    assert units.node.try_run("systemctl", "is-enabled", "later").strip() == "masked"


def test_a_unit_that_was_masked_by_hand_runs_again(units: Units) -> None:
    with units.repairs("plain", "is masked"):
        units.node.sh("systemctl mask plain; systemctl stop plain")
    assert units.show("plain", "ActiveState") == "active"


def test_a_unit_that_was_started_or_disabled_by_hand_is_put_back(units: Units) -> None:
    with units.repairs("stopped", "is to be stopped"):
        units.node.run("systemctl", "start", "stopped")
    with units.repairs("dhcp@net-1", "is not enabled"):
        units.node.run("systemctl", "disable", "dhcp@net-1")


def test_our_unit_file_edited_by_hand_is_put_back_and_in_force(units: Units) -> None:
    pid = units.pid("own")
    with units.repairs("own", "own.service differs"):
        units.node.sh("sed -i 's/sleep 1000/sleep 5/' /etc/systemd/system/own.service")
    assert "sleep 1000" in units.show("own", "ExecStart")
    assert units.show("own", "NeedDaemonReload") == "no"
    time.sleep(0.8)
    assert units.pid("own") == pid, "what was put back at once is no reason for a restart"


def test_a_changed_declaration_of_a_unit_restarts_it_once(units: Units) -> None:
    pid = units.pid("own")
    units.declare(own={**BASE["own"], "unit": OWN.replace("1000", "2000")})
    assert units.node.eventually(lambda: units.pid("own") not in {0, pid})
    units.right()
    assert "sleep 2000" in units.show("own", "ExecStart")
    pid = units.pid("own")
    time.sleep(0.8)
    assert units.pid("own") == pid


def test_a_unit_that_is_no_longer_declared_goes_with_its_files_and_another_s_stays(units: Units) -> None:
    units.declare(extra={"unit": OWN, "enabled": True})
    units.right()
    assert units.show("extra", "ActiveState") == "active"
    units.node.run("systemctl", "kill", "-s", "KILL", "reconciler")
    units.node.write(
        service.DESIRED, json.dumps({"services": {name: BASE[name] for name in BASE if name != "stopped"}})
    )
    assert units.node.eventually(lambda: units.show("extra", "LoadState") == "not-found")
    assert (
        units.node.try_run(
            "ls", "/etc/systemd/system/extra.service", "/etc/systemd/system/multi-user.target.wants"
        ).count("extra")
        == 1
    )
    assert units.show("stopped", "LoadState") == "loaded"


def test_a_file_that_changed_restarts_the_unit_once_and_not_when_it_was_undone(units: Units) -> None:
    pid = units.pid("plain")
    units.node.sh("echo b = 2 >> /etc/plain.conf; sleep 0.1; echo c = 3 >> /etc/plain.conf")
    assert units.node.eventually(lambda: units.pid("plain") not in {0, pid})
    units.right()
    pid = units.pid("plain")
    units.node.sh(
        "cp /etc/plain.conf /tmp/kept; echo d >> /etc/plain.conf; cp /tmp/kept /etc/plain.conf; touch /etc/plain.conf"
    )
    time.sleep(1.0)
    assert units.pid("plain") == pid


def test_a_unit_whose_check_fails_is_restarted_until_it_works(units: Units) -> None:
    checks = {"checks": [{"tcp": "127.0.0.1:7777"}], "interval": 0.2, "grace": 0.5}
    units.declare(echo=checks)
    units.right()
    pid = units.pid("echo")
    time.sleep(2.2)
    with units.repairs("echo", "runs and does not work", "tcp 127.0.0.1:7777"):
        units.node.sh("touch /run/deaf; sleep 1; rm /run/deaf")
    assert units.pid("echo") != pid


def test_a_unit_that_never_works_is_left_after_its_budget_with_its_last_words(units: Units) -> None:
    units.declare(crash={"restarts": 3})
    said = units.says("crash", "failed", "left after 3 starts in vain", "went wrong", within=15)
    assert "exit-code" in said
    since = time.time()
    time.sleep(1.0)
    assert units.story("crash", since) == []
    assert service.status(units.node).exit_code == ExitCode.FAILED
    units.node.write("/usr/lib/systemd/system/crash.service", PLAIN)
    units.node.sh("systemctl daemon-reload; systemctl reset-failed crash; systemctl start crash")
    units.right()


def test_what_it_requires_must_work_before_it_is_started(units: Units) -> None:
    units.node.sh("systemctl stop echo")
    units.declare(echo={"state": "stopped"}, late={"unit": OWN, "requires": ["echo"]})
    units.says("late", "pending", "waits for echo.service")
    units.declare(
        echo={"checks": [{"tcp": "127.0.0.1:7777"}], "interval": 0.2}, late={"unit": OWN, "requires": ["echo"]}
    )
    units.right()
    assert units.show("late", "ActiveState") == "active"


def test_a_group_starts_in_order_and_is_right_only_as_a_whole(units: Units) -> None:
    units.node.sh("systemctl stop echo; touch /run/deaf")
    checked = {"checks": [{"tcp": "127.0.0.1:7777"}], "interval": 0.2, "grace": 60}
    core = {
        "echo": {"group": "core", "order": 1, **checked},
        "broker": {"group": "core", "order": 2},
        "alone": {"group": "core", "order": 3},
    }
    units.declare(**core)
    units.says("broker", "pending", "waits for echo.service, which")
    units.says("alone", "pending", "waits for echo.service, which")
    assert units.node.eventually(lambda: units.show("echo", "ActiveState") == "active")
    assert [units.show(name, "ActiveState") for name in ("broker", "alone")] == ["inactive", "inactive"]
    units.node.sh("rm /run/deaf; systemctl kill -s KILL echo")
    units.right()
    started = [int(units.show(name, "ActiveEnterTimestampMonotonic")) for name in core]
    assert started == sorted(started)
    pids = [units.pid(name) for name in ("broker", "alone")]
    units.declare(**{**core, "echo": {"group": "core", "order": 1, "state": "stopped"}})
    units.says("broker", "pending", "it runs, but before it in group core comes echo.service, which is inactive")
    units.says("alone", "pending", "before it in group core comes echo.service")
    units.node.run("systemctl", "stop", "alone")
    units.says("alone", "pending", "waits for echo.service, which is inactive")
    units.declare(**core)
    units.right()
    assert units.pid("broker") == pids[0], "a member behind one that was down is left running"
    assert units.pid("alone") not in {0, pids[1]}
    since = time.time()
    units.node.run("systemctl", "kill", "-s", "KILL", "echo")
    assert units.node.eventually(lambda: units.story("echo", since))
    units.right()
    assert units.story("broker", since) == []


def test_a_group_follows_its_declaration(units: Units) -> None:
    units.declare(plain={"group": "g", "order": 2}, stopped={"group": "g", "order": 1, "state": "stopped"})
    units.says("plain", "pending", "before it in group g comes stopped.service")
    units.declare(plain={"group": "g", "order": 2}, stopped={"group": "g", "order": 3, "state": "stopped"})
    units.right()


def test_of_one_of_the_first_that_works_runs(units: Units) -> None:
    units.declare(plain={"one_of": "x"}, stopped={"one_of": "x"})
    units.right()
    assert (units.show("plain", "ActiveState"), units.show("stopped", "ActiveState")) == ("active", "inactive")
    with units.repairs("stopped", "plain.service runs instead"):
        units.node.run("systemctl", "start", "stopped")


def test_a_unit_that_is_not_installed_is_waited_for(units: Units) -> None:
    units.declare(later={})
    units.says("later", "pending", "not installed")
    units.node.write("/usr/lib/systemd/system/later.service", PLAIN)
    units.node.run("systemctl", "daemon-reload")
    units.right()


def test_a_restarted_daemon_touches_nothing_on_a_converged_node(units: Units) -> None:
    pids = [units.pid(name) for name in ("plain", "own", "dhcp@net-1")]
    units.node.run("systemctl", "kill", "-s", "KILL", "reconciler")
    assert units.node.eventually(lambda: service.converged(units.node))
    time.sleep(0.8)
    assert [units.pid(name) for name in ("plain", "own", "dhcp@net-1")] == pids


def test_a_lost_bus_is_found_again_and_what_happened_meanwhile_is_repaired(units: Units) -> None:
    def listens() -> bool:
        return next(stream.ready for stream in service.status(units.node).streams if stream.name == "systemd")

    assert listens()
    units.node.run("systemctl", "stop", "dbus.socket", "dbus")
    assert units.node.eventually(lambda: not listens()), "that it is not heard is a stream's own state, with its alert"
    units.node.run("systemctl", "start", "dbus.socket", "dbus")
    assert units.node.eventually(listens)
    with units.repairs("plain", "does not run"):
        units.node.run("systemctl", "stop", "plain")


HANGUP = """[Service]
ExecStart=/bin/sh -c 'trap "echo hung up >>/run/hangups" HUP; while :; do sleep 0.1; done'
ExecReload=/bin/sh -c 'test ! -e /run/refused && kill -HUP $MAINPID'
"""


def test_what_a_reload_reads_again_is_reloaded_once_and_also_after_a_restart_of_the_daemon(units: Units) -> None:
    def hangups() -> int:
        return int(units.node.sh("cat /run/hangups 2>/dev/null | wc -l"))

    node = units.node
    node.write("/etc/hosts.conf", "one\n")
    mine = {"mine": {"unit": HANGUP, "reload_on": ["/etc/hosts.conf"]}}
    units.declare(**mine)
    units.right()
    pid = units.pid("mine")
    with units.repairs("mine", "/etc/hosts.conf has changed since it was read"):
        node.write("/etc/hosts.conf", "two\n")
    assert node.eventually(lambda: hangups() == 1)
    node.run("systemctl", "kill", "-s", "KILL", "reconciler")
    assert node.eventually(lambda: service.converged(node))
    node.sh("touch /run/refused /etc/hosts.conf; sleep 0.5")
    assert (hangups(), units.pid("mine")) == (1, pid), "it has read this content"
    node.write("/etc/hosts.conf", "three\n")
    units.says("mine", "failed", "reloading mine.service: failed")
    node.run("rm", "/run/refused")
    units.right()
    assert node.eventually(lambda: hangups() == 2)
    assert units.pid("mine") == pid


def test_a_unit_follows_its_namespace(units: Units) -> None:
    unit = "[Service]\nNetworkNamespacePath=/run/netns/q\nExecStart=/bin/sleep 100000\n"
    units.declare(inside={"unit": unit, "namespace": "q"})
    units.says("inside", "pending", "does not run, and there is no namespace q")
    units.node.run("ip", "netns", "add", "q")
    units.right()
    pid = units.pid("inside")
    assert pid
    units.node.sh("ip netns del q; ip netns add q")
    with units.repairs("inside", "it does not run in the present namespace q"):
        units.node.run("systemctl", "is-active", "inside")
    assert units.pid("inside") not in {0, pid}
    units.node.run("ip", "netns", "del", "q")


def test_new_units_are_started_without_systemd_reading_all_its_files_for_each(units: Units) -> None:
    def read() -> int:
        said = units.node.run("journalctl", "-b", "_PID=1", "-o", "cat", "--no-pager")
        return said.splitlines().count("Reloading.")

    before = read()
    units.declare(**{f"new{number}": {"unit": PLAIN} for number in range(12)})
    units.right()
    assert all(units.pid(f"new{number}") for number in range(12))
    assert read() - before <= 2
    units.declare()
    units.says("new1", "pending", "deletes of kind service, 3 of")
    units.node.reconcile("approve", service.status(units.node).revision)
    units.right()


@pytest.mark.parametrize(
    "happens", ["systemctl stop plain", "systemctl kill --kill-who=main -s KILL plain", "systemctl kill -s TERM plain"]
)
def test_a_unit_that_is_ended_by_somebody_again_and_again_is_never_given_up(units: Units, happens: str) -> None:
    for _ in range(12):  # more often than its budget of starts in vain, and than systemd's own limit
        assert units.node.eventually(lambda: units.show("plain", "ActiveState") == "active")
        units.node.run(*happens.split())
    assert units.node.eventually(lambda: units.show("plain", "ActiveState") == "active", within=5)
    units.right()
