"""The YAML is edited while the daemon runs: the node follows, and goes back when the edit is taken back.

One node and one daemon for all tests of this module; each edit is undone by the next test's beginning.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functional.daemon import Node
from tests.ovs import ToolFailedError

MAC, REMOTE = "fa:16:3e:00:00:07", "192.0.2.2"
BASE: dict[str, Any] = {
    "bridges": {"br0": {}, "br1": {"external_ids": {"a": "b"}}},
    "ports": {
        "t0": {"bridge": "br0", "tag": 1},
        "t1": {"bridge": "br0", "trunks": [1, 2]},
        "gre0": {"bridge": "br1", "type": "gre", "remote_ip": "192.0.2.1", "key": 5},
    },
    "bonds": {"bond0": {"bridge": "br1", "interfaces": ["b0", "b1"]}},
    "patches": [{"br0": "p0", "br1": "p1"}],
    "flows": {"br0": ["priority=1,actions=NORMAL", "priority=5,in_port=t0,actions=output:p0"]},
    "groups": {"br1": {"7": "type=all,bucket=actions=output:p1"}},
    "meters": {"br1": {"3": "kbps,band=type=drop,rate=1000"}},
}


@pytest.fixture(scope="module")
def running(node_module: Node) -> Iterator[Node]:
    for device in ("b0", "b1", "b2"):
        node_module.ovs.add_veth(device, "10.9.0.1/24")
    node_module.declare(**BASE)
    node_module.start()
    _BASE_SEEN.update(_seen(node_module))
    yield node_module
    assert node_module.stop() == 0


@pytest.fixture
def node(running: Node) -> Iterator[Node]:
    """As the base says, before and after."""
    yield running
    running.declare(**BASE)
    running.until(lambda: _seen(running) == _BASE_SEEN, "it is back", 5)
    running.converged()


_BASE_SEEN: dict[str, Any] = {}


def _seen(node: Node) -> dict[str, Any]:
    """What is on the node, as the tools print it; {} while a tool is refused, as when a bridge gets another address."""
    try:
        return _asked(node)
    except ToolFailedError:
        return {}


def _asked(node: Node) -> dict[str, Any]:
    ovs = node.ovs
    bridges = ovs.vsctl("list-br").split()
    ports = {bridge: sorted(ovs.vsctl("list-ports", bridge).split()) for bridge in bridges}
    rows = {
        port: ovs.vsctl("get", "port", port, "tag", "trunks", "vlan_mode") for some in ports.values() for port in some
    }
    flows = {bridge: ovs.ofctl("--no-stats", "--names", "dump-flows", bridge) for bridge in bridges}
    return {"ports": ports, "rows": rows, "flows": {bridge: sorted(text.split("\n")) for bridge, text in flows.items()}}


Edit = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("edit", "query", "answer"),
    [
        (lambda d: d["ports"]["t0"].update(tag=9), "get port t0 tag", "9"),
        (lambda d: d["ports"]["t0"].pop("tag"), "get port t0 tag", "[]"),
        (lambda d: d["ports"]["t1"].update(trunks=[]), "get port t1 trunks", "[]"),
        (lambda d: d["ports"]["t1"].update(bridge="br1"), "port-to-br t1", "br1"),
        (lambda d: d["ports"]["t0"].update(ofport_request=77), "get interface t0 ofport", "77"),
        (lambda d: d["ports"]["t0"].update(mtu=1300), "get interface t0 mtu", "1300"),
        (lambda d: d["ports"]["t0"].update(mac=MAC), "get interface t0 mac_in_use", f'"{MAC}"'),
        (lambda d: d["ports"]["gre0"].update(remote_ip=REMOTE), "get interface gre0 options:remote_ip", f'"{REMOTE}"'),
        (lambda d: d["ports"]["gre0"].update(type="vxlan"), "get interface gre0 type", "vxlan"),
        (lambda d: d["ports"]["gre0"].pop("key"), "get interface gre0 options", '{remote_ip="192.0.2.1"}'),
        (lambda d: d["ports"].update(new={"bridge": "br1"}), "port-to-br new", "br1"),
        (lambda d: d["bridges"]["br0"].update(fail_mode="standalone"), "get bridge br0 fail_mode", "standalone"),
        (lambda d: d["bridges"]["br0"].update(protocols=["OpenFlow14"]), "get bridge br0 protocols", "[OpenFlow14]"),
        (lambda d: d["bridges"]["br0"].update(mac=MAC), "get interface br0 mac_in_use", f'"{MAC}"'),
        (lambda d: d["bridges"]["br1"].update(external_ids={"a": "c"}), "get bridge br1 external_ids:a", "c"),
        (lambda d: d["bonds"]["bond0"].update(bond_mode="balance-slb"), "get port bond0 bond_mode", "balance-slb"),
        (lambda d: d["bonds"]["bond0"].update(interfaces=["b0", "b2"]), "iface-to-br b2", "br1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_edit_takes_effect(node: Node, edit: Edit, query: str, answer: str) -> None:
    declared = copy.deepcopy(BASE)
    edit(declared)
    node.adopts(lambda: node.declare(**declared))
    node.until(lambda: node.ovs.vsctl(*query.split()) == answer, f"{query} says {answer}", 5)
    node.converged()


def test_patch_port_that_is_given_another_peer_is_joined_to_it(node: Node) -> None:
    """Open vSwitch 3.1 takes the new peer away again when the port is deleted that was the old one."""
    declared = copy.deepcopy(BASE)
    declared["patches"] = [{"br0": "p0", "br1": "p2"}]
    declared["groups"] = {"br1": {"7": "type=all,bucket=actions=output:p2"}}
    for each in (declared, BASE):
        node.adopts(lambda each=each: node.declare(**each))  # type: ignore[misc]
        peer = each["patches"][0]["br1"]
        node.until(lambda peer=peer: _joined(node, "p0", peer), f"p0 is joined to {peer}", 5)  # type: ignore[misc]


def _joined(node: Node, one: str, other: str) -> bool:
    ports = sorted(node.ovs.vsctl("list-ports", "br1").split())
    says = node.ovs.vsctl("get", "interface", one, "error", "options:peer").split()
    return says == ["[]", other] and ("p1" in ports, "p2" in ports) == (other == "p1", other == "p2")


def test_edited_actions_are_installed_in_place(node: Node) -> None:
    declared = copy.deepcopy(BASE)
    declared["flows"]["br0"][1] = "priority=5,in_port=t0,actions=output:t1,output:p0"
    node.adopts(lambda: node.declare(**declared))
    number = node.ovs.vsctl("get", "interface", "t1", "ofport")
    assert any(f"actions=output:{number}," in flow for flow in node.ovs.flows("br0"))
    last = node.entries("flow/br0/priority=5,in_port=t0")[-1]
    assert [(a.verb, a.drift) for a in last.actions] == [("update", False)]


@pytest.mark.parametrize("how", ["del-groups", "mod-group", "add-group"])
def test_groups_are_held_by_events(node: Node, how: str) -> None:
    before = node.ovs.ofctl("dump-groups", "br1")
    args = {"del-groups": [], "mod-group": ["group_id=7,type=all"], "add-group": ["group_id=8,type=all"]}[how]
    node.ovs.ofctl(how, "br1", *args)
    node.until(lambda: node.ovs.ofctl("dump-groups", "br1") == before, "the groups are back", 5)


def test_meters_are_held_by_events(node: Node) -> None:
    node.ovs.ofctl("del-meters", "br1")
    node.until(lambda: "meter=3" in node.ovs.ofctl("dump-meters", "br1"), "the meter is back", 5)
    node.ovs.ofctl("mod-meter", "br1", "meter=3,kbps,band=type=drop,rate=5")
    node.until(lambda: "rate=1000" in node.ovs.ofctl("dump-meters", "br1"), "its rate is back", 5)


def test_deleted_bond_comes_back(node: Node) -> None:
    with node.repairs("bond/bond0"):
        node.ovs.vsctl("--no-wait", "del-port", "bond0")
    assert sorted(node.ovs.vsctl("list-ifaces", "br1").split()) == ["b0", "b1", "gre0", "p1"]
    with node.repairs("bond/bond0"):
        node.ovs.vsctl("set", "port", "bond0", "bond_mode=balance-slb")
