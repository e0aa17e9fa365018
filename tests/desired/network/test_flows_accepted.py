"""Every compiled flow is asked of ovs-ofctl itself, in both layouts and for every type of network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from controllers.drivers.openflow.compiler import CompileFault, FlowCompiler
from controllers.openflow.check import misspelt
from desired.kinds.openflow import FlowSpec
from desired.network.compiler import compile_node
from desired.network.model import Model, NetworkSpec, NeutronPortSpec, NodeSpec
from desired.resource import Resource, ResourceId
from tests.desired.network.support import of, three_nodes, with_objects

PATIENCE = 30.0


def everything(layout: str) -> Model:
    more: list[Resource] = []
    types = {
        "vx": {"type": "vxlan", "segmentation_id": 0xFFFFFF},
        "gn": {"type": "geneve", "segmentation_id": 7},
        "gr": {"type": "gre", "segmentation_id": 0xFFFFFFFF},
        "vl": {"type": "vlan", "segmentation_id": 4094, "physical_network": "physnet1"},
        "lo": {"type": "local"},
    }
    for at, (name, settings) in enumerate(types.items()):
        more.append(of(NetworkSpec, name, **settings))
        for node in ("network", "compute"):
            mac = f"fa:16:3e:01:{at:02x}:{len(node):02x}"
            more.append(of(NeutronPortSpec, f"{name}-{node}", network=name, node=node, mac=mac))
    more.append(
        of(
            NodeSpec,
            "compute",
            roles=["compute"],
            tunnel_ip="10.10.10.30",
            bridge_mappings={"physnet1": "br-provider1"},
        )
    )
    return with_objects(three_nodes(layout), *more)


def ports(resources: Mapping[ResourceId, Resource]) -> dict[str, int]:
    return {rid.name: number for number, rid in enumerate(sorted(resources), 1) if rid.kind in {"port", "bridge"}}


@pytest.mark.parametrize("layout", ["single-table", "multi-table"])
@pytest.mark.parametrize("node", ["controller", "network", "compute"])
def test_ovs_ofctl_takes_every_flow(layout: str, node: str) -> None:
    found = compile_node(everything(layout), node)
    assert found.problems == ()
    assert asyncio.run(misspelt(found.resources.values(), timeout=PATIENCE)) == []
    texts = [r.spec.flow for r in found.resources.values() if isinstance(r.spec, FlowSpec)]
    numbers = ports(found.resources)
    answers = asyncio.run(FlowCompiler(timeout=PATIENCE).compile(texts, numbers, numbers))
    assert {text: str(answer) for text, answer in answers.items() if isinstance(answer, CompileFault)} == {}
    assert answers.keys() == set(texts)
