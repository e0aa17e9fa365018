"""What a person orders: plan, --once, pause, resume, mode: observe, several at once, and a daemon that is stuck."""

from __future__ import annotations

import json
import time

import pytest

from tests.functional.daemon import REPAIR, Node

FLOWS = ["priority=1,actions=NORMAL", "priority=5,arp,actions=drop"]
DESIRED = {"bridges": {"br0": {}, "br1": {}}, "patches": [{"br0": "p0", "br1": "p1"}], "flows": {"br0": FLOWS}}
RESOURCES = 2 + 2 + 2


@pytest.fixture
def up(node_module: Node) -> Node:
    """As declared and without a pause, with the daemon that the test before has left, if it runs."""
    node_module.declare(**DESIRED)
    if node_module.daemon is None or not node_module.running.alive():
        node_module.start(converged=False)
    for pause in node_module.status().pauses:
        node_module.client.resume(pause.what, by="test")
    node_module.converged()
    node_module.until(lambda: _arp(node_module), "it is as declared")
    return node_module


def _arp(node: Node) -> bool:
    return any("arp" in flow for flow in node.ovs.flows("br0"))


# -- without a daemon --------------------------------------------------------------------------------------------------


def test_once_without_a_daemon_makes_the_node_and_a_second_finds_nothing(node: Node) -> None:
    node.declare(**DESIRED)
    plan = node.cli("plan", "--output", "json")
    assert plan.code == 2
    planned = {action["resource"] for entry in plan.json["passes"] for action in entry["actions"]}
    assert {"bridge/br0", "port/p0"} <= planned
    assert node.ovs.vsctl("list-br") == "", "a plan writes nothing"
    assert node.cli("--once", "--dry-run").code == 2
    assert node.ovs.vsctl("list-br") == ""
    first = node.cli("--once")
    assert first.code == 0, first.text
    assert len(node.ovs.flows("br0")) == 2
    second = node.cli("--once", "--output", "json")
    assert (second.code, second.json["passes"]) == (0, [])
    assert node.cli("plan").code == 0
    said = node.cli("history", "--output", "json")
    assert any(action["resource"] == "bridge/br0" for entry in said.json for action in entry["actions"])
    assert node.cli("status").code == 5


def test_plan_tells_what_changed_behind_our_back_and_once_repairs_it(node: Node) -> None:
    node.declare(**DESIRED)
    assert node.cli("--once").code == 0
    node.ovs.ofctl("--strict", "mod-flows", "br0", "priority=5,arp,actions=NORMAL")
    node.ovs.vsctl("set", "port", "p0", "tag=3")
    plan = node.cli("plan")
    assert plan.code == 2
    assert "priority=5,arp" in plan.out
    assert "port/p0" in plan.out
    only = node.cli("--once", "--only", "port/p0")
    assert node.ovs.vsctl("get", "port", "p0", "tag") == "[]", only.text
    assert any("arp actions=NORMAL" in flow for flow in node.ovs.flows("br0")), "only what was asked for"
    assert node.cli("--once", "--only", "flow").code == 0
    assert node.cli("plan").code == 0


def test_two_at_once_do_not_trip_each_other(node: Node) -> None:
    node.declare(**DESIRED)
    with node.started("--once") as first, node.started("--once") as second, node.started("--once") as third:
        codes = [process.wait(30) for process in (first, second, third)]
    assert codes == [0, 0, 0]
    assert len(node.ovs.flows("br0")) == 2
    assert node.cli("plan").code == 0


def test_timeout_of_once_is_kept_when_something_hangs(node: Node) -> None:
    node.declare(**DESIRED)
    with node.ovs.vswitchd.frozen():
        began = time.monotonic()
        said = node.cli("--once", "--timeout", "2")
        assert said.code == 3, said.text
        assert time.monotonic() - began < 8
    assert "vswitchd" in said.text


# -- with a daemon -----------------------------------------------------------------------------------------------------


def test_once_and_plan_ask_the_daemon(up: Node) -> None:
    assert up.cli("plan").code == 0
    assert up.cli("--once").code == 0
    with up.started("--once") as first, up.started("--once") as second, up.started("plan") as third:
        assert [process.wait(30) for process in (first, second, third)] == [0, 0, 0]
    said = up.cli("--once", "--only", "flow/br0/priority=5,arp", "--output", "json")
    assert (said.code, said.json["outcome"]) == (0, "converged")
    assert up.cli("--once", "--only", "nonsense").code == 1
    assert up.cli("--once", "--nonsense").code == 64


def test_second_daemon_on_a_node_refuses_to_start(up: Node) -> None:
    said = up.cli("run")
    assert said.code == 5
    assert str(up.running.pid) in said.err


def test_daemon_that_does_not_answer_is_named_within_seconds_and_force_goes_past_it(up: Node) -> None:
    with up.running.frozen():
        up.ovs.ofctl("del-flows", "br0", "arp")
        with up.started("--once") as first, up.started("plan") as second, up.started("status") as third:
            for verb in (first, second, third):
                said, _ = verb.communicate(timeout=30)
                assert verb.returncode == 5
                assert f"(pid {up.running.pid})" in said
                assert "did not answer within 2 s" in said
        forced = up.cli("--once", "--force")
        assert forced.code == 0, forced.text
        assert _arp(up)
    up.converged()


def test_pause_of_a_kind_stops_its_repairs_only_and_resume_makes_up_for_it(up: Node) -> None:
    said = up.cli("pause", "flow", "--reason", "cable work 4711")
    assert said.code == 0
    up.ovs.ofctl("del-flows", "br0", "arp")
    up.says("flow/br0/priority=5,arp", "pending", "paused", "4711")
    status = up.cli("status")
    assert status.code == 3
    assert "cable work 4711" in status.out
    assert up.metrics()["reconciler_paused"] == 1
    plan = up.cli("plan")
    assert plan.code == 3
    assert "4711" in plan.out
    with up.repairs("port/p0", converged=False):
        up.ovs.vsctl("set", "port", "p0", "tag=3")
    assert not _arp(up)
    began = time.monotonic()
    up.client.resume("flow", by="test")
    up.until(lambda: _arp(up), "it is made up for", 2)
    assert time.monotonic() - began < 1
    up.converged()
    assert up.cli("resume").code == 0


def test_pause_of_the_node_outlives_a_kill(up: Node) -> None:
    assert up.cli("pause", "node", "--reason", "hands off").code == 0
    up.until(lambda: up.cli("status").out.count("hands off"), "it is known", 5)
    time.sleep(0.3)  # the store is written behind
    up.kill9()
    up.ovs.ofctl("del-flows", "br0", "arp")
    up.start(converged=False)
    up.says("flow/br0/priority=5,arp", "paused", "hands off")
    assert not _arp(up)
    assert up.cli("--once").code == 3
    assert up.cli("resume", "node").code == 0
    up.converged()
    assert _arp(up)


def test_pause_ends_by_itself(up: Node) -> None:
    assert up.cli("pause", "flow/br0/priority=5,arp", "--reason", "a moment", "--for", "2s").code == 0
    up.ovs.ofctl("del-flows", "br0")
    up.until(lambda: len(up.ovs.flows("br0")) == 1, "the other is repaired", 2)
    assert not _arp(up)
    up.until(lambda: _arp(up), "the pause ends", 7)
    up.converged()
    assert up.status().pauses == ()


def test_pause_ordered_without_a_daemon_is_heeded_by_the_next(node: Node) -> None:
    node.declare(**DESIRED)
    assert node.cli("--once").code == 0
    assert node.cli("pause", "flow", "--reason", "later").code == 0
    node.ovs.ofctl("del-flows", "br0")
    assert node.cli("--once").code == 3
    node.start(converged=False)
    node.says("flow/br0/priority=1", "later")
    assert node.ovs.flows("br0") == []
    assert node.cli("resume").code == 0
    node.converged()
    assert node.stop() == 0


def test_mode_observe_shows_drift_and_repairs_nothing(up: Node) -> None:
    watched = {"flow": FLOWS[1], "mode": "observe"}
    up.adopts(lambda: up.declare(**{**DESIRED, "flows": {"br0": [FLOWS[0], watched]}}))
    up.ovs.ofctl("del-flows", "br0", "arp")
    up.says("flow/br0/priority=5,arp", "pending", "observe")
    assert up.cli("status").code == 3
    assert up.cli("plan").code == 3
    up.is_untouched()
    assert not _arp(up)
    up.adopts(lambda: up.declare(**DESIRED))
    assert _arp(up)


def test_one_who_undoes_every_repair_is_shown_as_contended_and_never_given_up_on(up: Node) -> None:
    seen: set[int] = set()

    def fight() -> bool:
        up.ovs.ofctl("del-flows", "br0", "arp")
        status = up.status()
        if any(found.outcome == "contended" for found in status.not_right):
            seen.add(status.exit_code)
        return bool(seen)

    up.until(fight, "it is contended", 20)
    assert seen <= {3, 4}
    up.until(lambda: _arp(up), "it is repaired all the same", 5)
    up.converged(15)
    assert up.stop() == 0  # a new process has not seen the fight, which would delay what others do


def test_events_stream_what_happens(up: Node) -> None:
    stream = up.spawn("events", "-f", "--limit", "0", "--output", "json")

    def told() -> bool:
        up.ovs.ofctl("del-flows", "br0", "arp")  # until it listens; not while the last one is being repaired
        up.until(lambda: "\n" in stream.text() or "arp" in str(up.ovs.flows("br0")), "it is repaired")
        return "\n" in stream.text()

    up.until(told, "it is told")
    entry = json.loads(stream.text().splitlines()[0])
    assert entry["scope"] == "flow/br0"
    assert [(a["resource"], a["result"], a["drift"]) for a in entry["actions"]] == [
        ("flow/br0/priority=5,arp", "done", True)
    ]
    past = up.cli("events", "--output", "json")
    assert past.code == 0
    assert json.loads(past.out.splitlines()[-1])["scope"] == "flow/br0"
    up.stop()
    assert stream.wait() == 0, "the stream ends with the daemon"


def test_history_tells_found_done_why_and_how_long(up: Node) -> None:
    with up.repairs("flow/br0/priority=5,arp"):
        up.ovs.ofctl("--strict", "mod-flows", "br0", "priority=5,arp,actions=NORMAL")
    said = up.cli("history", "flow/br0/priority=5,arp", "--since", "1h", "--limit", "1", "--output", "json")
    (entry,) = said.json
    (action,) = entry["actions"]
    assert action["why"] == "actions of the flow differs"
    assert "NORMAL" in action["before"]
    assert action["after"] == FLOWS[1]
    assert (action["result"], action["verb"], action["drift"]) == ("done", "update", True)
    assert 0 < entry["since_event"] < 1
    assert 0 < entry["seconds"] < 1
    assert entry["trigger"] == "flows changed"
    text = up.cli("history", "flow/br0/priority=5,arp", "--limit", "1").out
    assert "set back" in text
    assert "ms" in text


def test_log_level_changes_at_once(up: Node) -> None:
    said = up.cli("log-level", "debug")
    assert said.code == 0
    assert "debug" in said.out
    assert up.cli("log-level", "chatty").code == 1


def test_http_tells_health_readiness_and_metrics(up: Node) -> None:
    assert up.get("/healthz") == (200, "ok\n")
    assert up.get("/readyz") == (200, "ok\n")
    drift = up.metrics()['reconciler_drift_total{kind="flow"}']
    with up.repairs("flow/br0/priority=5,arp"):
        up.ovs.ofctl("del-flows", "br0", "arp")
    metrics = up.metrics()
    assert metrics["reconciler_converged"] == 1
    assert metrics["reconciler_config_valid"] == 1
    assert metrics['reconciler_resources{kind="flow",outcome="converged"}'] == 2
    assert metrics['reconciler_drift_total{kind="flow"}'] == drift + 1
    assert metrics['reconciler_event_to_repair_seconds_count{controller="flow"}'] >= 1
    behind = {'reconciler_stream_ready{stream="ovsdb"}': 1, "reconciler_store_available": 1}
    up.until(lambda: up.metrics().items() >= behind.items(), "what is no event is told within a second or two", 4)
    code, text = up.get("/api/v1/status")
    assert (code, json.loads(text)["outcome"]) == (200, "converged")
    code, text = up.get("/api/v1/history?limit=1")
    assert (code, json.loads(text)[0]["scope"]) == (200, "flow/br0")
    code, text = up.get("/")
    assert code == 200
    assert "converged" in text
    assert up.get("/api/v1/pause")[0] in {404, 405}, "control is on the unix socket only"


# -- about the YAML and the settings -----------------------------------------------------------------------------------


def test_validate_render_schema_and_config_need_no_daemon(node: Node) -> None:
    node.declare(**DESIRED)
    assert f"{RESOURCES} resources" in node.cli("validate").out
    rendered = node.cli("render", "--output", "json")
    assert rendered.code == 0
    assert {"resource", "spec", "origin"} <= rendered.json[0].keys()
    text = node.cli("render")
    assert text.code == 0
    again = node.directory / "again"
    again.mkdir()
    (again / "all.yaml").write_text(text.out)
    assert f"{RESOURCES} resources" in node.cli("validate", str(again)).out, "what is rendered is valid again"
    schema = node.cli("schema")
    assert {"bridges", "ports", "flows"} <= schema.json["properties"].keys()
    config = node.cli("config", "--output", "json", env={"RECONCILER_TIMEOUTS__OVSDB": "7"})
    assert config.json["timeouts.ovsdb"] == {"value": 7.0, "origin": "environment RECONCILER_TIMEOUTS__OVSDB"}
    assert config.json["resync_interval"]["origin"].startswith(str(node.toml))
    assert config.json["owner"]["origin"] == "default"


def test_wrong_settings_are_told_with_their_line(node: Node) -> None:
    node.declare(**DESIRED)
    node.set(resync_intervall=5)
    for verb in ("run", "config", "--once"):
        said = node.cli(verb)
        assert said.code == 1
        assert "resync_interval" in said.err
        assert f"{node.toml}:" in said.err


def test_documents_are_for_the_nodes_and_roles_they_name(node: Node) -> None:
    node.set(roles=["network"])
    node.write(
        "apply_to: {roles: [network]}\nbridges: {br-net: {}}\n---\napply_to: {nodes: [n2]}\nbridges: {br-n2: {}}\n"
    )
    assert node.cli("--once").code == 0
    assert node.ovs.vsctl("list-br") == "br-net"
    assert "br-n2" in node.cli("render", "--node", "n2", "--role", "other").out


def test_a_reload_says_which_settings_are_not_in_force(up: Node) -> None:
    """Nobody may believe that a broker is followed because the settings name it."""

    def notices() -> str:
        return "\n".join(up.status().notices)

    def reload() -> None:
        up.ovs.run("kill", "-HUP", str(up.status().pid))

    up.set(mqtt={"url": "mqtt://127.0.0.1:1"}, log_level="debug")
    reload()
    up.until(lambda: "mqtt.url" in notices(), "status names the setting", REPAIR)
    assert "restart" in notices()
    assert "log_level" not in notices(), "that one is in force"
    said = up.cli("status").out
    assert "note: changed settings that are not in force" in said
    up.set(mqtt={"url": "what"})
    reload()
    up.until(lambda: "the settings were not reloaded" in notices(), "status tells the mistake", REPAIR)
    up.set(mqtt={"url": None}, log_level=None)
    reload()
    up.until(lambda: not notices(), "all is in force", REPAIR)


def test_the_host_is_not_counted_as_a_namespace(up: Node) -> None:
    up.adopts(lambda: up.declare(**DESIRED, host={"sysctls": {"net.ipv4.ip_forward": 1}}))
    assert "namespace" not in up.status().resources
    assert up.status().resources["sysctl"] == 1
