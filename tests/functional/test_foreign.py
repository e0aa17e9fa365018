"""What others made is theirs: foreign ports and flows, held ports, conflicts until `adopt: true`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.functional.daemon import Node

TAP = "3c7a0d52-0000-4000-8000-000000000001"
BRIDGES = {"br-int": {}, "br-shared": {"fail_mode": "standalone", "flows": "shared"}, "br-own": {"ports": "exclusive"}}


@pytest.fixture
def up(node: Node) -> Iterator[Node]:
    node.declare(bridges=BRIDGES)
    node.declare(
        name="flows.yaml", flows={"br-int": ["priority=1,actions=NORMAL"], "br-shared": ["priority=5,ip,actions=drop"]}
    )
    node.start()
    yield node
    assert node.stop() == 0


def _plug(node: Node, name: str, bridge: str = "br-int", *settings: str) -> None:
    """As Nova does: a port of its own on a bridge of ours."""
    node.ovs.vsctl(
        "add-port", bridge, name, "--", "set", "interface", name, "type=internal", f"external_ids:iface-id={TAP}",
        *(("--", "set", "port", name, *settings) if settings else ()),
    )  # fmt: skip


def test_foreign_port_on_a_bridge_of_ours_is_left_alone(up: Node) -> None:
    _plug(up, "tapX", "br-int", "tag=77")
    up.is_untouched()
    assert up.ovs.vsctl("get", "port", "tapX", "tag") == "77"
    up.ovs.restart_vswitchd()
    up.converged()
    assert up.ovs.vsctl("get", "port", "tapX", "tag") == "77"


def test_foreign_port_on_a_bridge_with_exclusive_ports_is_removed(up: Node) -> None:
    with up.repairs("port/tapX") as repair:
        up.ovs.vsctl("--no-wait", "add-port", "br-own", "tapX")
    assert up.ovs.vsctl("list-ports", "br-own") == ""
    assert "exclusive" in repair.done.why


def test_foreign_flows_on_a_bridge_with_shared_flows_are_left_alone(up: Node) -> None:
    up.ovs.ofctl("add-flow", "br-shared", "cookie=0x7,priority=9,arp,actions=NORMAL")
    up.is_untouched()
    with up.repairs("flow/br-shared/priority=5,ip"):
        up.ovs.ofctl("del-flows", "br-shared", "ip")
    assert any("cookie=0x7" in flow for flow in up.ovs.flows("br-shared"))
    up.kill9()
    up.start()
    assert any("cookie=0x7" in flow for flow in up.ovs.flows("br-shared"))


def test_foreign_bridge_is_left_alone(up: Node) -> None:
    up.ovs.add_bridge("br-alien", "fail_mode=secure")
    up.ovs.ofctl("add-flow", "br-alien", "priority=3,actions=drop")
    up.is_untouched()
    assert any("priority=3" in flow for flow in up.ovs.flows("br-alien"))


def test_tag_of_a_port_that_others_plugged_is_held_by_its_iface_id(up: Node) -> None:
    up.declare(name="held.yaml", held_ports={TAP: {"tag": 7, "other_config": {"priority-tags": "always"}}})
    up.says(f"held_port/{TAP}", "pending", "iface-id")
    assert up.cli("status").code == 3
    _plug(up, "tapX")
    up.converged()
    assert up.ovs.vsctl("get", "port", "tapX", "tag") == "7"
    assert up.ovs.vsctl("get", "port", "tapX", "other_config") == "{priority-tags=always}"
    with up.repairs(f"held_port/{TAP}") as repair:
        up.ovs.vsctl("set", "port", "tapX", "tag=8")
    assert "tag" in repair.done.why
    assert up.ovs.vsctl("get", "port", "tapX", "tag") == "7"
    assert "reconciler" not in up.ovs.vsctl("get", "port", "tapX", "external_ids"), "it carries no mark"


def test_held_tag_is_left_as_it_is_when_it_is_no_longer_declared(up: Node) -> None:
    _plug(up, "tapX")
    up.declare(name="held.yaml", held_ports={TAP: {"tag": 7}})
    up.until(lambda: up.ovs.vsctl("get", "port", "tapX", "tag") == "7", "it is held", 5)
    up.adopts((up.desired / "held.yaml").unlink)
    assert up.ovs.vsctl("get", "port", "tapX", "tag") == "7"
    up.ovs.vsctl("set", "port", "tapX", "tag=8")
    up.is_untouched()
    assert up.ovs.vsctl("get", "port", "tapX", "tag") == "8"


def test_held_port_unplugged_and_plugged_again_under_another_name_is_held_there(up: Node) -> None:
    _plug(up, "tapX")
    up.declare(name="held.yaml", held_ports={TAP: {"tag": 7}})
    up.until(lambda: up.ovs.vsctl("get", "port", "tapX", "tag") == "7", "it is held", 5)
    up.ovs.vsctl("del-port", "tapX")
    up.says(f"held_port/{TAP}", "pending")
    _plug(up, "tapY")
    up.until(lambda: up.ovs.vsctl("get", "port", "tapY", "tag") == "7", "it is held", 5)
    up.converged()


def test_name_held_by_a_foreign_port_is_a_conflict_until_adopted(up: Node) -> None:
    up.ovs.vsctl(
        "add-port",
        "br-int",
        "tapX",
        "--",
        "set",
        "interface",
        "tapX",
        "type=internal",
        "--",
        "set",
        "port",
        "tapX",
        "tag=9",
    )
    up.declare(name="more.yaml", ports={"tapX": {"bridge": "br-int", "tag": 1}})
    up.says("port/tapX", "conflict", "adopt: true", "more.yaml")
    said = up.cli("status")
    assert said.code == 4
    assert "adopt: true" in said.out
    assert up.cli("plan").code == 4
    assert up.cli("--once").code == 4
    assert up.ovs.vsctl("get", "port", "tapX", "tag") == "9"
    assert up.metrics()['reconciler_resources{kind="port",outcome="conflict"}'] == 1
    up.adopts(lambda: up.declare(name="more.yaml", ports={"tapX": {"bridge": "br-int", "tag": 1, "adopt": True}}))
    assert up.ovs.vsctl("get", "port", "tapX", "tag") == "1"
    assert up.ovs.vsctl("get", "port", "tapX", "external_ids:reconciler") == "reconciler"


def test_name_held_by_a_foreign_bridge_is_a_conflict_until_adopted(up: Node) -> None:
    up.ovs.add_bridge("br-new", "fail_mode=standalone")
    up.ovs.ofctl("add-flow", "br-new", "cookie=0x55,priority=8,actions=drop")
    before = up.ovs.flows("br-new")
    more = {"bridges": {"br-new": {}}, "flows": {"br-new": ["priority=1,actions=NORMAL"]}}
    up.declare(name="more.yaml", **more)
    up.says("bridge/br-new", "conflict", "adopt: true")
    up.says("flow/br-new/priority=1", "pending", "bridge/br-new")
    up.is_untouched()
    assert up.ovs.flows("br-new") == before, "flows of a bridge in conflict are not touched either"
    assert up.ovs.vsctl("get", "bridge", "br-new", "fail_mode") == "standalone"
    more["bridges"]["br-new"] = {"adopt": True}  # type: ignore[assignment]
    up.adopts(lambda: up.declare(name="more.yaml", **more))
    assert up.ovs.vsctl("get", "bridge", "br-new", "fail_mode") == "secure"
    assert ["priority=1" in flow for flow in up.ovs.flows("br-new")] == [True]


def test_match_held_by_a_foreign_flow_is_a_conflict_until_adopted(up: Node) -> None:
    up.ovs.ofctl("add-flow", "br-shared", "cookie=0x66,priority=8,udp,actions=NORMAL")
    flow = "priority=8,udp,actions=drop"
    up.declare(name="more.yaml", flows={"br-shared": [flow]})
    up.says("flow/br-shared/priority=8,udp", "conflict", "0x66", "adopt: true")
    assert up.cli("status").code == 4
    assert any("cookie=0x66" in flow for flow in up.ovs.flows("br-shared"))
    up.adopts(lambda: up.declare(name="more.yaml", flows={"br-shared": [{"flow": flow, "adopt": True}]}))
    assert not any("cookie=0x66" in flow for flow in up.ovs.flows("br-shared"))


def test_mark_taken_off_while_we_run_is_put_back_and_off_while_we_do_not_is_a_conflict(up: Node) -> None:
    up.adopts(lambda: up.declare(name="more.yaml", ports={"tap0": {"bridge": "br-int", "tag": 1}}))
    with up.repairs("port/tap0"), up.repairs("bridge/br-int"):
        up.ovs.vsctl("clear", "port", "tap0", "external_ids", "--", "clear", "bridge", "br-int", "external_ids")
    assert up.ovs.vsctl("get", "port", "tap0", "external_ids:reconciler") == "reconciler"
    up.kill9()
    up.ovs.vsctl("clear", "port", "tap0", "external_ids")
    up.start(converged=False)
    up.says("port/tap0", "conflict")


def test_port_deleted_and_made_anew_by_another_is_theirs(up: Node) -> None:
    up.adopts(lambda: up.declare(name="more.yaml", ports={"tap0": {"bridge": "br-int", "tag": 1}}))
    up.ovs.vsctl("--no-wait", "del-port", "tap0", "--", "add-port", "br-int", "tap0", "tag=9")
    up.says("port/tap0", "conflict")
    assert up.ovs.vsctl("get", "port", "tap0", "tag") == "9"


def test_conflict_ends_by_itself_when_the_foreign_thing_goes(up: Node) -> None:
    up.ovs.vsctl("add-port", "br-int", "tapX", "--", "set", "interface", "tapX", "type=internal")
    up.declare(name="more.yaml", ports={"tapX": {"bridge": "br-int", "tag": 1}})
    up.says("port/tapX", "conflict")
    up.ovs.vsctl("--no-wait", "del-port", "tapX")
    up.converged()
    assert up.ovs.vsctl("get", "port", "tapX", "tag") == "1"


def test_undeclared_bridge_with_ports_of_others_stays_and_says_so(up: Node) -> None:
    _plug(up, "tapX", "br-int", "tag=77")
    bridges = {name: spec for name, spec in BRIDGES.items() if name != "br-int"}
    up.declare(name="flows.yaml", flows={"br-shared": ["priority=5,ip,actions=drop"]})
    up.declare(bridges=bridges)
    up.says("bridge/br-int", "conflict", "tapX")
    assert up.ovs.vsctl("get", "port", "tapX", "tag") == "77"
    up.ovs.vsctl("--no-wait", "del-port", "tapX")
    up.until(lambda: "br-int" not in up.ovs.vsctl("list-br").split(), "it goes when it is empty", 5)
    up.converged()


def test_two_owners_on_one_node_do_not_touch_each_other(up: Node) -> None:
    up.ovs.vsctl(
        "add-br",
        "br-other",
        "--",
        "set",
        "bridge",
        "br-other",
        "datapath_type=netdev",
        "external_ids:reconciler=somebody",
    )
    up.is_untouched()
    assert "br-other" in up.ovs.vsctl("list-br")
