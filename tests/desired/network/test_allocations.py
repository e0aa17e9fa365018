"""Local VLANs are found, kept and never dealt anew."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desired.kinds.openflow import FlowSpec
from desired.kinds.ovs import HeldPortSpec, PortSpec
from desired.network.allocations import LAST, Allocations, ObservedPort, harvest
from desired.network.build import build
from desired.network.compiler import compile_node
from desired.network.model import NetworkSpec, NeutronPortSpec
from desired.network.section import SECTIONS
from desired.network.symbolic import dealt, worded
from desired.schema import dump_resources
from tests.desired.network.support import of, three_nodes, with_objects

TOPOLOGY = build(three_nodes("multi-table"))
IDS = {network.name: own for own, network in TOPOLOGY.networks.items()}
VM1 = next(port.id for port in TOPOLOGY.networks[IDS["one"]].ports if port.name == "vm1")


@settings(deadline=None)
@given(st.lists(st.sets(st.sampled_from("abcdefgh")), max_size=8))
def test_a_number_is_kept_and_nobody_else_s(steps: list[set[str]]) -> None:
    found, ever = Allocations(), dict[str, int]()
    for present in steps:
        found, without = found.allocate(present)
        assert without == ()
        assert all(found.get(network) is not None for network in present)
        assert ever.items() <= found.vlans.items()
        ever = dict(found.vlans)


def test_the_lowest_free_numbers_go_to_the_new_in_order() -> None:
    found, _ = Allocations({"x": 2}).allocate(["c", "b", "a"])
    assert found.vlans == {"x": 2, "a": 1, "b": 3, "c": 4}


def test_a_network_that_left_gives_its_number_away_when_there_is_no_other() -> None:
    full = Allocations({str(n): n for n in range(1, LAST + 1)})
    there = {str(n) for n in range(1, LAST + 1) if n != 7}
    found, without = full.allocate(there | {"new"})
    assert (found.get("new"), found.get("7"), without) == (7, None, ())
    again, without = found.allocate(there | {"new", "one", "two"})
    assert again.vlans == found.vlans
    assert without == ("one", "two")


@pytest.mark.parametrize("wrong", [{"a": 0}, {"a": 4095}, {"a": 1, "b": 1}])
def test_numbers_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="local VLANs must be 1 to 4094"):
        Allocations(wrong)


def test_what_neutron_s_agent_left_is_found() -> None:
    ports = [
        ObservedPort("tapx", 17, {"net_uuid": IDS["one"], "network_type": "gre", "tag": "17"}),
        ObservedPort("qvo-old", 18, {}, {"iface-id": VM1}),
        ObservedPort("dead", 4095, {"net_uuid": IDS["two"]}),
        ObservedPort("patch-tun"),
    ]
    assert harvest(ports, TOPOLOGY).vlans == {IDS["one"]: 17}


def test_most_ports_of_a_network_say_its_number_and_a_number_has_one_network() -> None:
    ports = [
        ObservedPort("a", 5, {"net_uuid": IDS["one"]}),
        ObservedPort("b", 6, {"net_uuid": IDS["one"]}),
        ObservedPort("c", 6, {}, {"iface-id": VM1}),
        ObservedPort("d", 6, {"net_uuid": IDS["two"]}),
        ObservedPort("e", 9, {"net_uuid": IDS["two"]}),
    ]
    assert harvest(ports, TOPOLOGY).vlans == {IDS["one"]: 6, IDS["two"]: 9}


def test_a_number_of_a_port_of_no_known_network_is_dealt_to_nobody() -> None:
    found = harvest([ObservedPort("mine", 1), ObservedPort("gone", 2, {"net_uuid": "not-here"})], TOPOLOGY)
    after, _ = found.allocate([IDS["one"]])
    assert after.get(IDS["one"]) == 3


def test_our_own_ports_are_found_again_after_a_restart() -> None:
    model = with_objects(
        three_nodes("multi-table"),
        of(NeutronPortSpec, "held", network="two", node="network"),
    )
    before = compile_node(model, "network", Allocations({IDS["one"]: 40, IDS["two"]: 3, IDS["outside"]: 9}))
    rows = []
    for rid, resource in before.resources.items():
        spec = resource.spec
        if isinstance(spec, PortSpec):
            rows.append(ObservedPort(rid.name, spec.tag, spec.other_config, spec.interface_external_ids))
        elif isinstance(spec, HeldPortSpec):
            rows.append(ObservedPort("tap", spec.tag, spec.other_config, {"iface-id": rid.name}))
    assert harvest(rows, build(model)) == before.allocations
    assert compile_node(model, "network", harvest(rows, build(model))).resources == before.resources


def test_vlans_are_written_out_where_no_number_is_known() -> None:
    model = with_objects(
        three_nodes("multi-table"),
        of(NetworkSpec, "wall", type="vlan", physical_network="physnet1", segmentation_id=1),
        of(NeutronPortSpec, "w", network="wall", node="network", plug="internal"),
    )
    topology = build(model)
    numbers = dealt(topology, "network")
    found = compile_node(model, "network", numbers)
    assert found.allocations == numbers
    assert 1 not in numbers.vlans.values()
    flows = {worded(r.spec.flow, numbers, topology) for r in found.resources.values() if isinstance(r.spec, FlowSpec)}
    assert {
        "priority=3,in_port=int-br-ex,dl_vlan=1,actions=mod_vlan_vid:<vlan of wall>,NORMAL",
        "priority=4,in_port=phy-br-ex,dl_vlan=<vlan of wall>,actions=mod_vlan_vid:1,NORMAL",
        "table=3,priority=1,tun_id=999,actions=mod_vlan_vid:<vlan of two>,resubmit(,10)",
    } <= flows
    text = worded(dump_resources(found.resources.values(), SECTIONS), numbers, topology)
    assert "tag: <vlan of wall>" in text
    assert "tag: <vlan of outside>" in text
