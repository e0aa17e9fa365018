"""ovs-vswitchd and ovsdb-server restarted, gone, frozen: the daemon says what it waits for, and repairs after."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.functional.daemon import Node

DESIRED = {
    "bridges": {"br0": {}, "br1": {}},
    "patches": [{"br0": "p0", "br1": "p1"}],
    "ports": {"int0": {"bridge": "br0", "tag": 3}, "vx0": {"bridge": "br1", "type": "vxlan", "remote_ip": "192.0.2.2"}},
    "flows": {
        "br0": [
            "priority=1,actions=NORMAL",
            *(f"priority=9,ip,nw_dst=10.0.0.{n},actions=output:p0" for n in range(200)),
        ],
        "br1": ["in_port=p1,actions=output:vx0", "in_port=vx0,actions=output:p1"],
    },
}


@pytest.fixture
def up(node: Node) -> Iterator[Node]:
    node.set(timeouts={"ovsdb": 1.0, "openflow": 1.0, "ofctl": 5.0})
    node.declare(**DESIRED)
    node.start()
    yield node
    if node.running.alive():
        assert node.stop() == 0


def _flows(node: Node) -> dict[str, list[str]]:
    return {bridge: node.ovs.flows(bridge) for bridge in ("br0", "br1")}


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_flows_are_back_after_vswitchd_restarted(up: Node, sig: signal.Signals) -> None:
    before = _flows(up)
    up.ovs.restart_vswitchd(sig)
    up.until(lambda: _flows(up) == before, "the flows are back", 5)
    up.converged()
    entries = up.entries("flow/br0/priority=1")
    last = [action for entry in entries for action in entry.actions][-1]
    assert (last.why, last.result, last.drift) == ("flow is missing", "done", True)
    assert up.status().outcome == "converged"


def test_vswitchd_gone_is_told_and_what_changes_meanwhile_is_done_when_it_is_back(up: Node) -> None:
    before = _flows(up)
    up.ovs.stop_vswitchd()
    up.until(lambda: up.status().exit_code == 3, "it is pending", 5)
    assert "br0" in up.outcome("flow/br0/*")
    up.ovs.vsctl("--no-wait", "del-port", "p0")
    up.until(lambda: up.ovs.vsctl("--no-wait", "list-ports", "br0").split() == ["int0", "p0"], "the row is back", 5)
    assert up.get("/healthz")[0] == 200
    up.ovs.start_vswitchd()
    up.converged()
    assert _flows(up) == before


def test_repairs_go_on_after_ovsdb_server_restarted(up: Node) -> None:
    before = _flows(up)
    up.ovs.restart_ovsdb()
    up.converged()
    with up.repairs("port/int0"):
        up.ovs.vsctl("set", "port", "int0", "tag=4")
    assert up.ovs.vsctl("get", "port", "int0", "tag") == "3"
    assert _flows(up) == before


def test_what_was_changed_while_ovsdb_server_was_gone_is_repaired(up: Node) -> None:
    """The database file is changed in between, as by a restore of an old backup."""
    up.ovs.stop_ovsdb()
    up.until(lambda: "ovsdb" in str(up.status().not_right), "it says so", 5)
    stream = next(stream for stream in up.status().streams if stream.name == "ovsdb")
    assert not stream.ready
    assert "db.sock" in stream.detail
    transaction = '["Open_vSwitch",{"op":"update","table":"Port","where":[["name","==","int0"]],"row":{"tag":44}}]'
    up.ovs.run("ovsdb-tool", "transact", str(up.ovs.rundir / "conf.db"), transaction)
    up.ovs.start_ovsdb()
    up.until(lambda: up.ovs.vsctl("get", "port", "int0", "tag") == "3", "the tag is back", 5)
    up.converged()


def test_frozen_vswitchd_leaves_a_stated_waiting_and_no_crash(up: Node) -> None:
    with up.ovs.vswitchd.frozen():
        up.ovs.vsctl("--no-wait", "del-port", "int0")
        up.until(lambda: "waits for vswitchd" in up.outcome("port/int0"), "it says what it waits for", 5)
        said = up.cli("status", "--output", "json")
        assert said.code == 3
        once = up.cli("--once", "--timeout", "1", "--output", "json")
        assert once.code in {1, 3}, "it waits for a number; an answer of the switch fails to come"
        assert any(status["resource"] == "port/int0" for status in once.json["not_right"])
        assert up.get("/healthz")[0] == 200
    up.converged(15)
    assert up.ovs.vsctl("get", "port", "int0", "tag") == "3"


def test_frozen_ovsdb_server_is_dropped_and_found_again(up: Node) -> None:
    with up.ovs.ovsdb.frozen():
        up.until(lambda: any(s.name == "ovsdb" and not s.ready for s in up.status().streams), "it is noticed", 10)
        assert up.get("/healthz")[0] == 200
    up.converged(15)
    with up.repairs("port/int0"):
        up.ovs.vsctl("set", "port", "int0", "tag=4")


def test_ovsdb_server_absent_at_start_is_waited_for(node: Node) -> None:
    node.declare(**DESIRED)
    node.ovs.stop_ovsdb()
    node.start(converged=False)
    node.until(lambda: "db.sock" in node.outcome("ovsdb/*"), "it says what is missing", 5)
    assert node.cli("status").code == 3
    assert node.get("/readyz")[0] == 503
    assert node.get("/healthz")[0] == 200
    node.ovs.start_ovsdb()
    node.converged()
    assert node.get("/readyz") == (200, "ok\n")
    assert len(node.ovs.flows("br0")) == 201
    assert node.stop() == 0


def test_once_without_ovsdb_server_exits_5_and_says_so(node: Node) -> None:
    node.set(timeouts={"ovsdb": 0.5})
    node.declare(**DESIRED)
    node.ovs.stop_ovsdb()
    said = node.cli("--once")
    assert said.code == 5
    assert "db.sock" in said.err
    assert node.cli("plan").code == 5
    node.ovs.start_ovsdb()
    node.ovs.vsctl("set", "Open_vSwitch", ".", "external_ids:vswitchd=is-connected-again")
    assert node.cli("--once").code == 0
    assert node.cli("plan").code == 0


def test_vswitchd_absent_at_start_is_waited_for(node: Node) -> None:
    node.declare(**DESIRED)
    node.ovs.stop_vswitchd()
    node.start(converged=False)
    node.until(lambda: node.outcome("port/int0"), "rows are there and wait", 5)
    assert node.ovs.vsctl("--no-wait", "list-br") == "br0\nbr1"
    node.ovs.start_vswitchd()
    node.converged()
    assert len(node.ovs.flows("br0")) == 201
    assert node.stop() == 0


def test_flow_restore_wait_that_stays_is_reported(up: Node) -> None:
    up.ovs.vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true")
    up.until(lambda: "flow-restore-wait" in str(up.status().notices), "it is told", 5)
    assert "flow-restore-wait" in up.cli("status").out
    up.ovs.vsctl("--no-wait", "remove", "Open_vSwitch", ".", "other_config", "flow-restore-wait")
    up.until(lambda: "flow-restore-wait" not in str(up.status().notices), "it is told no more", 5)
