"""Wrong YAML, wrong values, things that cannot be: a clear error or a stated waiting, and nothing is lost."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.daemon import Node, Watch

BASE = (
    "bridges:\n  br0: {}\n  br1: {}\npatches: [{br0: p0, br1: p1}]\nflows:\n  br0:\n    - priority=1,actions=NORMAL\n"
)


@pytest.fixture(scope="module")
def started(node_module: Node) -> Iterator[Node]:
    node_module.set(budget={"window": 0.2})  # what a test takes away is not counted in the next
    node_module.write(BASE)
    node_module.start()
    yield node_module
    assert node_module.stop() == 0


@pytest.fixture
def up(started: Node) -> Iterator[Node]:
    """With what `BASE` declares and nothing else of ours, before and after."""
    before = started.converged()
    yield started
    started.write(BASE)
    started.until(lambda: started.status().revision == before.revision, "what is declared is as it was")
    started.converged()
    assert len(started.ovs.flows("br0")) == 1


def _problems(node: Node) -> str:
    return "\n".join(f"{p.file}:{p.line}:{p.column}: {p.message} {p.hint}" for p in node.status().config_problems)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (BASE + "bridge:\n  br2: {}\n", 8, ["bridges"]),
        (BASE.replace("br1: {}", "br1: {fail_mod: secure}"), 3, ["fail_mode"]),
        (BASE.replace("br1: {}", "br1: {}\n  br1: {}"), 4, ["br1"]),
        (BASE.replace("br1: {}", "br1: {}\n  a-name-of-sixteen: {}"), 4, ["15"]),
        (BASE.replace("br1: {}", "br1: {protocols: [OpenFlow10]}"), 3, ["OpenFlow14"]),
        (BASE.replace("br1: {}", "br1: {fail_mode: safe}"), 3, ["secure", "standalone"]),
        (BASE + "ports:\n  t: {bridge: br0, tag: 5000}\n", 9, ["4095"]),
        (BASE + "ports:\n  p0: {bridge: br0}\n", 4, ["p0", "node.yaml:9"]),
        (BASE + "    - cookie=1,actions=drop\n", 8, ["cookie"]),
        (BASE + "    - priority=1,actions=drop\n", 8, ["priority=1"]),
        (BASE + "    - priority=1\n", 8, ["actions="]),
        (BASE + "  br1: [\n", 9, []),
        (BASE + "ports:\n  '-Otcp': {bridge: br0}\n", 9, ["-Otcp"]),
        (BASE + 'ports:\n  t: {bridge: br0, options: {a: "b\\nc"}}\n', 9, ["line"]),
    ],
    ids=[
        "unknown section", "unknown key", "duplicate key", "long name", "protocols that lock us out", "choice", "range",
        "name twice", "cookie", "flow twice", "no actions", "not YAML", "an option as a name", "a second line",
    ],
)  # fmt: skip
def test_mistake_is_told_with_its_place_before_it_runs(
    node_module: Node, tmp_path: Path, text: str, line: int, words: list[str]
) -> None:
    (tmp_path / "node.yaml").write_text(text)
    said = node_module.cli("validate", str(tmp_path), "--output", "json")
    assert said.code == 1
    places = [(problem["file"], problem["line"]) for problem in said.json]
    assert (str(tmp_path / "node.yaml"), line) in places
    assert all(problem["column"] > 0 for problem in said.json)
    everything = json.dumps(said.json)
    assert all(word in everything for word in words)


def test_mistake_while_running_changes_nothing_and_is_shown_everywhere(up: Node) -> None:
    revision, before = up.status().revision, up.ovs.flows("br0")
    began = time.monotonic()
    up.write(BASE.replace("priority=1,actions=NORMAL", "priority=2,actions=drop\n    - nonsense\n") + "port: {}\n")
    up.until(lambda: up.status().config_problems, "it is noticed", 5)
    assert time.monotonic() - began < 2
    place = f"{up.desired / 'node.yaml'}:8:7"
    assert place in _problems(up)
    assert len(up.status().config_problems) == 2, "all mistakes at once"
    said = up.cli("status")
    assert said.code == 1
    assert place in said.out
    logged = [entry for entry in up.log_lines() if entry["event"] == "config_invalid"]
    assert any(place in entry["problem"] for entry in logged)
    metrics = up.metrics()
    assert (metrics["reconciler_config_valid"], metrics["reconciler_config_problems"]) == (0, 2)
    assert (up.status().revision, up.ovs.flows("br0")) == (revision, before)
    with up.repairs("flow/br0/priority=1", converged=False):
        up.ovs.ofctl("del-flows", "br0")
    up.adopts(lambda: up.write(BASE.replace("priority=1,actions=NORMAL", "priority=2,actions=drop")))
    up.until(lambda: ["priority=2" in flow for flow in up.ovs.flows("br0")] == [True], "the new state is there", 5)
    assert up.metrics()["reconciler_config_valid"] == 1


def test_mistakes_of_all_files_are_told_at_once(node: Node) -> None:
    node.write("bridges: {br0: {nope: 1}}", "a.yaml")
    node.write("bridges: {br1: {}}\nports:\n  t: {bridge: br1, tag: x}\n", "b.yaml")
    node.write("bridges: {br1: {}}", "c.yml")
    said = node.cli("validate")
    assert said.code == 1
    assert all(name in said.text for name in ("a.yaml:1:", "b.yaml:3:", "c.yml:1:"))
    once = node.cli("--once")
    assert once.code == 1
    assert "a.yaml:1:" in once.text
    assert node.ovs.vsctl("list-br") == ""


def test_mistake_at_start_without_a_past_is_waited_out(node: Node) -> None:
    node.write("bridges: {br0: {nope: 1}}")
    node.start(converged=False)
    node.until(lambda: "node.yaml:1:" in _problems(node), "it is told", 5)
    assert node.get("/readyz")[0] == 503
    node.write(BASE)
    node.converged()
    assert node.stop() == 0


def test_edit_takes_effect_within_a_second(node: Node) -> None:
    node.set(settle_add=0.2)  # as shipped
    node.write(BASE)
    node.start()
    text = BASE
    for number in range(3):
        began = time.monotonic()
        text = text + f"    - priority=9,ip,nw_dst=10.0.0.{number},actions=drop\n"
        node.write(text)
        node.until(lambda number=number: len(node.ovs.flows("br0")) == 2 + number, "it is there", 5)  # type: ignore[misc]
        assert time.monotonic() - began < 1
    assert node.stop() == 0


def test_invalid_flow_names_its_line_and_stops_no_other(up: Node) -> None:
    up.write(
        BASE
        + "    - priority=7,ip,nw_dst=10.0.0.1,actions=frobnicate\n"
        + "    - priority=8,tp_dst=80,actions=drop\n"  # needs tcp
        + "    - priority=9,ip,nw_dst=10.0.0.2,actions=drop\n"
    )
    up.until(lambda: any("10.0.0.2" in flow for flow in up.ovs.flows("br0")), "the others are there", 5)
    up.says("flow/br0/priority=7,ip,nw_dst=10.0.0.1", "failed", "frobnicate")
    bad = {str(s.resource): s for s in up.status().not_right}
    assert bad["flow/br0/priority=7,ip,nw_dst=10.0.0.1"].origin == f"{up.desired / 'node.yaml'}:8:7"
    said = up.cli("status")
    assert said.code == 1
    assert "node.yaml:8:7" in said.out
    with up.repairs("flow/br0/priority=9,ip,nw_dst=10.0.0.2", converged=False):
        up.ovs.ofctl("del-flows", "br0")
    up.adopts(lambda: up.write(BASE))


def test_flow_that_names_a_missing_port_waits_says_so_and_comes_with_the_port(up: Node) -> None:
    name = "flow/br0/priority=7,in_port=tap9"
    up.write(BASE + "    - priority=7,in_port=tap9,actions=drop\n    - priority=8,arp,actions=output:tap9\n")
    up.says(name, "pending", "tap9")
    up.says("flow/br0/priority=8,arp", "pending", "tap9")
    assert up.cli("status").code == 3
    assert up.cli("plan").code == 3
    assert len(up.ovs.flows("br0")) == 1
    up.ovs.vsctl("add-port", "br0", "tap9", "--", "set", "interface", "tap9", "type=internal")
    up.converged()
    assert len(up.ovs.flows("br0")) == 3
    up.ovs.vsctl("del-port", "tap9")
    up.says(name, "pending", "tap9")
    up.until(lambda: len(up.ovs.flows("br0")) == 1, "flows of a port that is gone are gone", 5)
    assert up.status().budgets == ()


def test_datapath_type_that_this_machine_lacks_says_which_setting_helps(node: Node) -> None:
    node.set(datapath_type="netdev")
    root = "bridges: {br0: {datapath_type: system}, br1: {}}\nports: {t: {bridge: br1}}"
    node.ovs.vsctl("--no-wait", "set", "Open_vSwitch", ".", "datapath_types=netdev")
    node.write(root)
    node.start(converged=False)
    node.says("bridge/br0", "failed", "system", "netdev", "datapath_type")
    node.until(lambda: node.ovs.vsctl("list-ports", "br1") == "t", "the others are made", 5)
    assert node.cli("status").code == 1
    assert node.ovs.vsctl("list-br") == "br1"
    node.adopts(lambda: node.write(root.replace("system", "netdev")))
    assert node.stop() == 0


def test_port_whose_device_is_missing_says_so_and_works_when_it_comes(up: Node) -> None:
    up.write(BASE + "ports:\n  veth9: {bridge: br0, type: system}\n")
    up.until(lambda: "veth9" in up.outcome("port/veth9"), "it says what is missing", 5)
    assert up.get("/healthz")[0] == 200
    up.ovs.add_veth("veth9", "10.0.0.9/24")
    up.converged(15)
    assert int(up.ovs.vsctl("get", "interface", "veth9", "ofport")) > 0


def test_port_on_a_bridge_that_nobody_declares_waits_for_it(up: Node) -> None:
    up.write(BASE + "ports:\n  t9: {bridge: br-else}\n")
    up.says("port/t9", "pending", "br-else", "neither declared nor there")
    up.ovs.add_bridge("br-else")
    up.converged()
    assert up.ovs.vsctl("port-to-br", "t9") == "br-else"


def test_two_flows_that_mean_the_same_are_told(up: Node) -> None:
    up.write(
        BASE
        + "    - priority=5,ip,nw_dst=10.0.0.1,actions=drop\n"
        + "    - priority=5,dl_type=0x800,nw_dst=10.0.0.1/32,actions=NORMAL\n"
    )
    up.until(lambda: "same match" in str(up.status().not_right), "one of them is refused", 5)
    up.adopts(lambda: up.write(BASE))


@pytest.mark.parametrize("kind", ["groups", "meters"])
def test_group_or_meter_in_the_yaml_does_not_end_the_daemon(up: Node, kind: str) -> None:
    text = {
        "groups": "groups:\n  br0:\n    1: type=all,bucket=actions=output:p0\n",
        "meters": "meters:\n  br0:\n    1: kbps,band=type=drop,rate=1000\n",
    }
    up.write(BASE + text[kind])
    up.until(
        lambda: up.status().config_problems or up.status().resources.get(kind[:-1]), "it is taken up or refused", 5
    )
    up.adopts(lambda: up.write(BASE + "    - priority=5,arp,actions=NORMAL\n"))


def test_ovs_ofctl_that_hangs_leaves_the_flows_waiting_and_the_ports_held(node: Node) -> None:
    """What cannot be compared is pending, never rewritten; when the tool works again, so does everything."""
    tools = node.directory / "tools"
    tools.mkdir()
    hang = tools / "ovs-ofctl"
    hang.write_text("#!/bin/sh\nexec sleep 600\n")
    hang.chmod(0o755)
    node.set(timeouts={"ofctl": 0.5})
    node.write(BASE)
    node.start(converged=False, env={"PATH": f"{tools}:{node.ovs.env['PATH']}"})
    node.until(lambda: "ovs-ofctl" in node.outcome("flow/br0/*"), "it says what hangs", 5)
    node.until(lambda: node.ovs.vsctl("list-ports", "br1") == "p1", "the ports are made", 5)
    with node.repairs("port/p1", converged=False):
        node.ovs.vsctl("set", "port", "p1", "tag=4")
    assert node.get("/healthz")[0] == 200
    assert node.ovs.flows("br0") == []
    hang.unlink()
    node.converged(15)
    assert len(node.ovs.flows("br0")) == 1
    assert node.stop() == 0


def test_http_port_that_is_taken_is_told_and_holds_up_nothing(node: Node) -> None:
    taken = "import socket, time; s = socket.create_server(('127.0.0.1', 9464)); time.sleep(600)"
    other = node.ovs.spawn([sys.executable, "-c", taken], node.directory / "taken")
    node.until(lambda: "9464" in node.ovs.run("ss", "-ltn"), "it is taken")
    node.write(BASE)
    node.start()
    assert "9464" in node.cli("status").out
    with node.repairs("port/p1"):
        node.ovs.vsctl("set", "port", "p1", "tag=4")
    assert node.stop() == 0
    other.end()


def test_patch_pair_between_standalone_bridges_never_loops(node: Node) -> None:
    """Two pairs between two bridges are a loop; the flows that break it come before the peers do."""
    guarded = {"br0": "b0", "br1": "b1"}
    node.declare(
        bridges={bridge: {"fail_mode": "standalone"} for bridge in guarded},
        patches=[{"br0": "a0", "br1": "a1"}, {"br0": "b0", "br1": "b1"}],
        ports={"h1": {"bridge": "br0", "type": "system"}},
        flows={
            b: [f"priority=9,in_port={port},actions=drop", "priority=0,actions=NORMAL"] for b, port in guarded.items()
        },
    )
    node.ovs.add_veth("h1", "10.0.0.1/24")
    host = node.ovs.host("h1", "10.0.0.1/24")
    shouting = ["ip", "netns", "exec", "h1", "ping", "-n", "-b", "-i0.005", "10.0.0.255"]
    shout = node.ovs.spawn(shouting, node.directory / "shout")
    node.start()
    with node.repairs("bridge/br0"):
        node.ovs.vsctl("--no-wait", "del-br", "br0")
    node.until(lambda: _peers(node) == ["a1", "a0", "b1", "b0"], "they are joined", 5)
    with Watch(node, ["br0", "br1"]) as watch:
        node.kill9()
        node.start()
        assert watch.seen() == "", "a pair that is joined is not cut off by a restart"
    shout.end()
    heard, said = (int(host.run("cat", f"/sys/class/net/eth0/statistics/{x}_packets")) for x in ("rx", "tx"))
    assert said > 50
    assert heard <= said + 20, "no packet went round"
    assert node.stop() == 0


def _peers(node: Node) -> list[str]:
    return [node.ovs.vsctl("get", "interface", port, "options:peer") for port in ("a0", "a1", "b0", "b1")]
