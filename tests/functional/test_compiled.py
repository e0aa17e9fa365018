"""Compiled nodes on a real Open vSwitch: every type of network, both layouts, and nothing left to do afterwards."""

from __future__ import annotations

import pytest

from desired.kinds.namespace import NamespaceSpec
from desired.kinds.ovs import HeldPortSpec
from desired.network.compiler import compile_node
from desired.network.section import SECTIONS
from desired.resource import Resource
from desired.schema import dump_resources
from tests.desired.network.test_flows_accepted import everything
from tests.functional.daemon import Node

OPEN_VSWITCH = frozenset({"bridge", "port", "held_port", "flow"})
NIC = "eth2"
"""Of another machine: the sandbox has none."""


def switching(layout: str, node: str) -> list[Resource]:
    found = compile_node(everything(layout), node).resources
    assert any(rid.kind == NamespaceSpec.kind for rid in found) is (node == "network")
    return [r for rid, r in found.items() if rid.kind in OPEN_VSWITCH and rid.name != NIC]


@pytest.mark.parametrize("layout", ["single-table", "multi-table"])
def test_a_compiled_network_node_converges_and_then_rests(node: Node, layout: str) -> None:
    resources = switching(layout, "network")
    node.write(dump_resources(resources, SECTIONS))
    node.start(converged=False)
    node.until(lambda: "br-int" in node.ovs.vsctl("list-br").split(), "the integration bridge is there")
    held = {r.id.name: r.spec.tag for r in resources if isinstance(r.spec, HeldPortSpec)}
    assert len(held) == 5
    for at, iface in enumerate(held):
        plug = f"add-port br-int vm{at} -- set interface vm{at} type=internal external_ids:iface-id={iface}"
        node.ovs.vsctl(*plug.split())
    node.converged()
    tags = [node.ovs.vsctl("get", "port", f"vm{at}", "tag").strip() for at in range(len(held))]
    assert tags == [str(tag) for tag in held.values()]
    plan = node.cli("plan")
    assert (plan.code, plan.err) == (0, ""), plan.text
    installed = sum(len(node.ovs.flows(bridge)) for bridge in ("br-int", "br-tun", "br-ex"))
    assert installed == sum(resource.id.kind == "flow" for resource in resources)
    node.ovs.vsctl("del-br", "br-tun")
    node.until(lambda: "br-tun" in node.ovs.vsctl("list-br").split(), "the tunnel bridge is back")
    node.converged()
    assert node.cli("plan").code == 0
    assert node.stop() == 0
