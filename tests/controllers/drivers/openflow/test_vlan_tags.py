"""mod_vlan_vid and mod_vlan_pcp do what they do in OpenFlow 1.0, to packets with a VLAN tag and to those without."""

from __future__ import annotations

import pytest

from controllers.drivers.openflow.compiler import Compiled, FlowCompiler
from controllers.drivers.openflow.flows import AddFlow
from tests.controllers.drivers.openflow.support import MARK, following
from tests.ovs import PrivateOvs

PACKETS = ("in_port=1", "in_port=1,dl_vlan=7", "in_port=1,dl_vlan=7,dl_vlan_pcp=3")


@pytest.fixture
def br0(ovs_module: PrivateOvs) -> PrivateOvs:
    ovs_module.vsctl("--if-exists", "del-br", "br0")
    ovs_module.add_bridge("br0", "fail_mode=secure")
    for name in ("p1", "p2"):
        ovs_module.vsctl("add-port", "br0", name, "--", "set", "interface", name, "type=internal")
    return ovs_module


def datapath_actions(ovs: PrivateOvs) -> list[str]:
    """What is done to each packet."""
    traces = [ovs.appctl("ofproto/trace", "br0", packet) for packet in PACKETS]
    return [trace.rpartition("Datapath actions: ")[2].strip() for trace in traces]


@pytest.mark.parametrize(
    "text",
    [
        "actions=mod_vlan_vid:5,output:2",
        "in_port=1,actions=mod_vlan_vid:0x5,mod_vlan_pcp:4,output:2",
        "actions=mod_vlan_pcp(3),output:2",
        "dl_vlan=7,actions=mod_vlan_vid:5,output:2",
        "dl_vlan=0xffff,actions=mod_vlan_vid:5,output:2",
    ],
)
async def test_packets_leave_as_with_openflow_10(br0: PrivateOvs, text: str) -> None:
    br0.ofctl("-O", "OpenFlow10", "add-flow", "br0", text)
    expected = datapath_actions(br0)
    br0.ofctl("del-flows", "br0")
    async with following(br0, "br0") as followed:
        result = (await FlowCompiler().compile([text], followed.switch.ports))[text]
        assert isinstance(result, Compiled)
        add = AddFlow(result.key, result.flow(MARK))
        assert not await followed.switch.apply_and_read_back([add])
        assert followed.switch.flows == {add.key: add.flow}
    assert datapath_actions(br0) == expected
    assert any("vlan" in actions for actions in expected)


async def test_a_group_changes_the_tag_as_well(br0: PrivateOvs) -> None:
    texts = ["type=all,bucket=actions=mod_vlan_vid:5,output:2", "type=all,bucket=actions=output:2"]
    results = await FlowCompiler().compile_groups(texts, {})
    bodies = [results[text] for text in texts]
    assert all(isinstance(body, bytes) for body in bodies)
    push_vlan = bytes.fromhex("0011000881000000")
    assert push_vlan not in b"".join(body for body in bodies if isinstance(body, bytes))


async def test_an_action_set_keeps_what_openflow_14_makes_of_it() -> None:
    text = "actions=write_actions(mod_vlan_vid:5,output:2)"
    assert isinstance((await FlowCompiler().compile([text], {}))[text], Compiled)
