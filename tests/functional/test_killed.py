"""The daemon may die at any line: a converged node gets no write from the next one, and no packet is lost."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time

import pytest

from tests.functional.daemon import Node, Watch
from tests.ovs import Host

MANY = 600
DESIRED = {
    "bridges": {"br-a": {}, "br-b": {}},
    "patches": [{"br-a": "to-b", "br-b": "to-a"}],
    "ports": {
        "h1": {"bridge": "br-a", "type": "system", "tag": 5},
        "h2": {"bridge": "br-b", "type": "system", "tag": 5},
        "vx0": {"bridge": "br-b", "type": "vxlan", "remote_ip": "192.0.2.7"},
    },
    "flows": {
        "br-a": [
            "priority=1,actions=NORMAL",
            "priority=5,in_port=to-b,ip,nw_src=10.0.0.2,actions=NORMAL",
            *(f"priority=9,ip,nw_dst=172.16.{n >> 8}.{n & 255},actions=output:to-b" for n in range(MANY)),
        ],
        "br-b": ["priority=1,actions=NORMAL"],
    },
}


@pytest.fixture(scope="module")
def hosts(node_module: Node) -> tuple[Host, Host]:
    ovs = node_module.ovs
    ovs.add_veth("h1", "10.0.0.1/24")
    ovs.add_veth("h2", "10.0.0.2/24")
    return ovs.host("h1", "10.0.0.1/24"), ovs.host("h2", "10.0.0.2/24")


@pytest.fixture
def up(node_module: Node, hosts: tuple[Host, Host]) -> Node:
    """As declared, with the daemon that the test before has left, if it runs."""
    node_module.declare(**DESIRED)
    if node_module.daemon is None or not node_module.running.alive():
        node_module.start()
    node_module.until(lambda: "vx0" in node_module.ovs.vsctl("list-ports", "br-b").split(), "it is as declared")
    node_module.converged()
    assert hosts[0].reaches(hosts[1])
    return node_module


def _durations(node: Node) -> dict[str, float]:
    """How long each flow of br-a has been there, by what it is."""
    found = {}
    for line in node.ovs.ofctl("dump-flows", "br-a").splitlines():
        if (age := re.search(r"duration=([0-9.]+)s", line)) is not None:
            found[re.sub(r"(duration|n_packets|n_bytes|idle_age|hard_age)=[^,]*,? ?", "", line)] = float(age[1])
    return found


def test_restart_on_a_converged_node_writes_nothing_and_loses_no_packet(up: Node, hosts: tuple[Host, Host]) -> None:
    first = _durations(up)
    with hosts[0].pinging(hosts[1]) as ping, Watch(up, ["br-a", "br-b"]) as watch:
        up.kill9()
        up.start()
        assert up.stop() == 0
        up.start()
        up.kill9()
        said = up.cli("--once", "--output", "json")
        assert (said.code, said.json["passes"]) == (0, [])
        up.start()
        assert up.cli("--once").code == 0
        assert watch.seen() == ""
    assert ping.tally is not None
    assert ping.tally.lost == ()
    assert ping.tally.sent > 100
    second = _durations(up)
    assert second.keys() == first.keys()
    assert all(second[flow] > first[flow] for flow in first), "not one flow was installed anew"


def test_watch_of_these_tests_sees_a_write(up: Node) -> None:
    with Watch(up, ["br-a", "br-b"]) as watch:
        with up.running.frozen():  # a write that is taken back at once may be told as none
            up.ovs.vsctl("--no-wait", "set", "port", "h1", "tag=6")
            up.ovs.ofctl("del-flows", "br-b")
            up.until(lambda: "DELETED" in watch.seen() and '"tag"' in watch.seen(), "it sees both", 5)
        up.converged()


def _emptied(node: Node) -> None:
    """As if nothing had been there: an empty Open vSwitch, and no store."""
    if node.running.alive():
        node.kill9()
    for bridge in node.ovs.vsctl("list-br").split():
        node.ovs.vsctl("del-br", bridge)
    shutil.rmtree(node.state)


def test_kill_in_the_middle_of_a_convergence_is_finished_by_the_next_start(up: Node, hosts: tuple[Host, Host]) -> None:
    """From an empty Open vSwitch, so many seconds after the first row of ours is there."""
    for seconds in (0.0, 0.003, 0.01, 0.03):
        _emptied(up)
        up.start(converged=False)
        up.until(lambda: "br-a" in up.ovs.vsctl("--no-wait", "list-br"), "it has begun", 5)
        time.sleep(seconds)
        up.kill9()
        up.start()
        assert len(up.ovs.flows("br-a")) == MANY + 2
        assert hosts[0].reaches(hosts[1])
    with Watch(up, ["br-a", "br-b"]) as watch:
        up.kill9()
        up.start()
        assert watch.seen() == ""


def test_kills_at_random_moments_of_repairs_leave_nothing_undone_and_lose_no_packet(
    up: Node, hosts: tuple[Host, Host]
) -> None:
    """What is broken does not carry the ping, so no packet may be lost whatever happens to the daemon."""
    chance = random.Random(7)
    before = up.ovs.flows("br-a")
    with hosts[0].pinging(hosts[1]) as ping:
        for _ in range(4):
            up.ovs.ofctl("del-flows", "br-a", "ip,nw_dst=172.16.0.0/16")
            up.ovs.vsctl("--no-wait", "del-port", "vx0")
            time.sleep(chance.uniform(0, 0.02))
            up.kill9()
            up.start()
            assert up.ovs.flows("br-a") == before
            assert "vx0" in up.ovs.vsctl("list-ports", "br-b").split()
    assert ping.tally is not None
    assert ping.tally.lost == ()


def test_what_changed_while_the_daemon_was_down_is_repaired_at_its_start(up: Node) -> None:
    """Also the actions of a flow with match and cookie unchanged, and a port number that was taken by another."""
    before = up.ovs.flows("br-b")
    up.kill9()
    up.ovs.ofctl("--strict", "mod-flows", "br-a", "priority=9,ip,nw_dst=172.16.0.9,actions=drop")
    up.ovs.ofctl("del-flows", "br-a", "ip,nw_dst=172.16.0.10")
    up.ovs.ofctl("add-flow", "br-a", "priority=60000,icmp,actions=drop")
    up.ovs.vsctl("set", "port", "h1", "tag=9", "--", "set", "interface", "vx0", "options:remote_ip=192.0.2.8")
    number = up.ovs.vsctl("get", "interface", "to-b", "ofport")
    up.ovs.vsctl("del-port", "to-b")
    up.ovs.vsctl(
        "add-port", "br-a", "rival", "--", "set", "interface", "rival", "type=internal", f"ofport_request={number}"
    )
    up.start()
    fresh = up.ovs.vsctl("get", "interface", "to-b", "ofport")
    assert fresh != number
    flows = up.ovs.flows("br-a")
    assert len(flows) == MANY + 2
    assert sum(f"actions=output:{fresh}" in flow for flow in flows) == MANY
    assert up.ovs.flows("br-b") == before
    assert up.ovs.vsctl("get", "port", "h1", "tag") == "5"
    assert up.ovs.vsctl("get", "interface", "vx0", "options:remote_ip") == '"192.0.2.7"'
    assert up.status().budgets == ()
    assert up.cli("plan").code == 0


def test_yaml_changed_while_the_daemon_was_down_is_applied_at_its_start(up: Node) -> None:
    up.kill9()
    less = {**DESIRED, "ports": {name: spec for name, spec in DESIRED["ports"].items() if name != "vx0"}}  # type: ignore[attr-defined]
    up.declare(**less)
    up.start()
    up.until(lambda: "vx0" not in up.ovs.vsctl("list-ports", "br-b").split(), "it is gone", 5)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_ends_at_once_with_0_and_writes_its_journal(up: Node, sig: signal.Signals) -> None:
    since = time.time()
    up.ovs.ofctl("del-flows", "br-b")
    up.until(lambda: up.ovs.flows("br-b"), "it is repaired", 5)
    began = time.monotonic()
    assert up.running.end(sig) == 0
    assert time.monotonic() - began < 3
    said = up.cli("history", "flow/br-b/priority=1", "--limit", "1", "--output", "json")
    assert said.code == 0
    (entry,) = said.json
    assert entry["at"] > since
    assert [(action["result"], action["drift"]) for action in entry["actions"]] == [("done", True)]


def test_ping_survives_a_restart_of_the_daemon_while_vswitchd_restarts(up: Node, hosts: tuple[Host, Host]) -> None:
    up.kill9()
    up.ovs.restart_vswitchd()
    up.start()
    assert hosts[0].reaches(hosts[1])
    assert len(up.ovs.flows("br-a")) == MANY + 2
