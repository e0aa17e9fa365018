"""Laws of the compiler: pure, the same in any order, incremental as from nothing, and a change stays where it is."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desired.network.allocations import Allocations
from desired.network.build import build
from desired.network.compiler import Compiled, Compiler, compile_node
from desired.network.following import with_changes
from desired.network.model import (
    Model,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    NodeSpec,
    OptionsSpec,
    RouterSpec,
    SubnetSpec,
)
from desired.network.section import SECTIONS
from desired.network.topology import Topology
from desired.resource import Mode, Resource, ResourceId
from desired.schema import dump_resources, load_tree
from tests.desired.network.support import (
    NODES,
    REMOVABLE,
    edited,
    floating_ips,
    models,
    objects,
    of,
    ports,
    skeleton,
    tame,
    three_nodes,
    with_objects,
    without,
)

edits = st.lists(
    st.tuples(st.lists(st.one_of(objects, ports, floating_ips), max_size=3), st.integers(0, 3)), min_size=1, max_size=6
)


def alike(one: Compiled, other: Compiled) -> None:
    assert dict(one.resources) == dict(other.resources)
    assert list(one.problems) == list(other.problems)
    assert one.allocations == other.allocations


def same_topology(one: Topology, other: Topology) -> None:
    assert dict(one.nodes) == dict(other.nodes)
    assert dict(one.networks) == dict(other.networks)
    assert dict(one.routers) == dict(other.routers)
    assert one.problems == other.problems


@settings(max_examples=60, deadline=None)
@given(models, edits, st.integers(0, 10**6), st.sampled_from(NODES))
def test_incremental_is_as_from_nothing(start: list[Resource], steps: list, seed: int, node: str) -> None:
    chance = random.Random(seed)
    model = Model.of(start)
    compiler = Compiler(node)
    allocations = compiler.compile(model).allocations
    for changed, removals in steps:
        there = sorted(model.objects)
        gone = chance.sample(there, min(removals, len(there)))
        model = edited(model, changed, gone)
        named = {*(r.id for r in changed), *gone}
        found = compiler.compile(model, allocations, named if chance.random() < 0.5 else None)
        alike(found, compile_node(model, node, allocations))
        assert compiler.topology is not None
        same_topology(compiler.topology, build(model))
        allocations = found.allocations


tame_edits = st.lists(st.tuples(st.lists(tame, max_size=2), st.integers(0, 1)), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(tame_edits, st.integers(0, 10**6))
def test_what_is_followed_is_as_read_anew(steps: list, seed: int) -> None:
    chance = random.Random(seed)
    model = Model.of(skeleton())
    topology = build(model)
    for changed, removals in steps:
        there = sorted(rid for rid in model.objects if rid.kind in REMOVABLE)
        model = edited(model, changed, chance.sample(there, min(removals, len(there))))
        topology = build(model, topology)
        same_topology(topology, build(model))


@pytest.mark.parametrize(
    "came",
    [
        of(NetworkSpec, "n1", type="vxlan", segmentation_id=11),
        of(SubnetSpec, "s1", network="a", cidr="10.0.9.0/24"),
        of(RouterSpec, "r", interfaces=["b"], gateway="c"),
        of(RouterSpec, "a", interfaces=["a"], gateway="c", node="net2"),
        of(NeutronPortSpec, "i", network="b", owner="router_interface", device="a", fixed_ips=["10.0.1.9"], node="net"),
        of(NeutronPortSpec, "vm", network="b", fixed_ips=["10.0.1.9"], node="net"),
    ],
)
def test_what_comes_in_the_course_of_things_is_followed(came: Resource) -> None:
    model = Model.of(skeleton())
    before = build(model)
    assert before.memory is not None
    after = with_objects(model, came)
    assert with_changes(before.memory.index, after, [came.id]) is not None
    same_topology(build(after, before), build(after))


@settings(max_examples=25, deadline=None)
@given(models, st.randoms(use_true_random=False), st.sampled_from(NODES))
def test_order_of_objects_is_irrelevant(start: list[Resource], chance: random.Random, node: str) -> None:
    known = list(Model.of(start).objects.values())
    mixed = list(known)
    chance.shuffle(mixed)
    one, other = compile_node(Model.of(known), node), compile_node(Model.of(mixed), node)
    alike(one, other)


@settings(max_examples=25, deadline=None)
@given(models, st.sampled_from(NODES))
def test_rendered_yaml_loads_into_the_same_resources(tmp_path_factory, start: list[Resource], node: str) -> None:
    found = compile_node(Model.of(start), node).resources
    if not found:
        return
    place = tmp_path_factory.mktemp("rendered")
    (place / "node.yaml").write_text(dump_resources(found.values(), SECTIONS))
    tree = load_tree(place, node=node, roles=frozenset(), sections=SECTIONS)
    assert not tree.problems
    assert {r.id: r.generation for r in tree.resources} == {rid: r.generation for rid, r in found.items()}


def changes(before: Mapping[ResourceId, Resource], after: Mapping[ResourceId, Resource]) -> set[ResourceId]:
    return {rid for rid in before.keys() | after.keys() if before.get(rid) != after.get(rid)}


def test_a_changed_port_changes_what_concerns_it() -> None:
    model = three_nodes("multi-table")
    moved = of(
        NeutronPortSpec, "vm1", network="one", mac="fa:16:3e:ff:00:01", fixed_ips=["172.16.1.10"], node="compute"
    )
    other = with_objects(model, moved)
    on_network = changes(compile_node(model, "network").resources, compile_node(other, "network").resources)
    assert {rid.kind for rid in on_network} == {"flow", "file"}
    flows = sorted(rid.name for rid in on_network if rid.kind == "flow")
    assert flows == [
        "br-tun/table=20,priority=2,dl_vlan=1,dl_dst=fa:16:3e:00:00:03",
        "br-tun/table=20,priority=2,dl_vlan=1,dl_dst=fa:16:3e:ff:00:01",
        "br-tun/table=21,priority=1,arp,dl_vlan=1,arp_tpa=172.16.1.10",
    ] or flows == [name.replace("dl_vlan=1", "dl_vlan=2") for name in flows]
    assert not changes(compile_node(model, "controller").resources, compile_node(other, "controller").resources)


def test_a_port_makes_its_node_part_of_the_flood_and_only_there() -> None:
    model = three_nodes("multi-table")
    here = of(NeutronPortSpec, "vm3", network="two", fixed_ips=["169.254.1.11"], node="controller")
    before, after = (compile_node(m, "network").resources for m in (model, with_objects(model, here)))
    floods = [r.spec.flow for rid, r in after.items() if rid.kind == "flow" and "table=22,priority=1" in rid.name]
    assert sorted("gre-0a0a0a0a" in flow for flow in floods) == [False, True]
    assert {rid.kind for rid in changes(before, after)} == {"flow", "file"}


def test_what_did_not_change_is_the_same_object() -> None:
    model = three_nodes("multi-table")
    compiler = Compiler("network")
    first = compiler.compile(model)
    moved = of(
        NeutronPortSpec, "vm2", network="two", mac="fa:16:3e:ff:00:01", fixed_ips=["169.254.1.10"], node="compute"
    )
    second = compiler.compile(with_objects(model, moved), first.allocations)
    third = compiler.compile(with_objects(model, moved), second.allocations)
    assert third.resources is second.resources
    one = [rid for rid in first.resources if "172.16.1" in rid.name]
    assert one
    assert all(second.resources[rid] is first.resources[rid] for rid in one)


def test_a_floating_ip_finds_the_router_between_both_networks() -> None:
    model = with_objects(
        three_nodes("multi-table"), of(NeutronFloatingIpSpec, "10.6.0.9", floating="10.6.0.9", port="vm1")
    )
    found = compile_node(model, "network")
    assert found.problems == ()
    assert [r.spec.fixed for rid, r in found.resources.items() if rid.kind == "floating_ip"] == ["172.16.1.10"]


def test_what_dangles_is_left_out_and_named() -> None:
    model = with_objects(
        three_nodes("multi-table"),
        of(NeutronPortSpec, "lost", network="nowhere", node="compute"),
        of(NeutronFloatingIpSpec, "10.6.0.9", floating="10.6.0.9", port="nobody"),
        of(SubnetSpec, "lost", network="nowhere", cidr="10.0.0.0/24"),
    )
    found = compile_node(model, "network")
    assert {(str(resource.id), message) for resource, message in found.problems} == {
        ("neutron_port/lost", "there is no network 'nowhere'"),
        ("neutron_floating_ip/10.6.0.9", "there is no port 'nobody'"),
        ("subnet/lost", "there is no network 'nowhere'"),
    }
    assert dict(found.resources) == dict(compile_node(three_nodes("multi-table"), "network").resources)


def test_two_networks_of_one_segment_are_a_problem_and_one_of_them_stands() -> None:
    model = with_objects(
        three_nodes("single-table"),
        of(NetworkSpec, "twin", type="gre", segmentation_id=1),
        of(NeutronPortSpec, "vm3", network="twin", node="compute"),
    )
    found = compile_node(model, "compute")
    assert any("already made" in message for _, message in found.problems)


def test_a_network_without_way_to_it_is_named() -> None:
    model = with_objects(
        three_nodes("multi-table"),
        of(NodeSpec, "compute", roles=["compute"]),
        of(NetworkSpec, "wall", type="vlan", physical_network="p9", segmentation_id=5),
        of(NeutronPortSpec, "vm3", network="wall", node="compute"),
    )
    messages = [message for _, message in compile_node(model, "compute").problems]
    assert any("no tunnel_ip" in message for message in messages)
    assert any("no bridge for 'p9'" in message for message in messages)


def test_a_node_that_is_not_named_holds_nothing() -> None:
    found = compile_node(three_nodes("multi-table"), "other", Allocations({"x": 4}))
    assert not found.resources
    assert found.allocations == Allocations({"x": 4})


def test_networks_beyond_the_last_vlan_are_named_and_the_others_stand() -> None:
    model = three_nodes("multi-table")
    ids = {network.name: own for own, network in build(model).networks.items()}
    more = [of(NetworkSpec, f"n{n}", type="local") for n in range(4094)]
    held = [of(NeutronPortSpec, f"p{n}", network=f"n{n}", node="compute") for n in range(4094)]
    found = compile_node(with_objects(model, *more, *held), "compute", Allocations({ids["one"]: 1, ids["two"]: 2}))
    named = [str(resource.id) for resource, message in found.problems if "no local VLAN left" in message]
    assert len(named) == 2
    assert sum(rid.kind == "held_port" for rid in found.resources) == 4094


def test_adopt_and_mode_hold_for_all_that_is_made_of_an_object() -> None:
    model = three_nodes("multi-table")
    plain = compile_node(model, "network").resources
    taking = compile_node(with_objects(model, of(OptionsSpec, "options", adopt=True)), "network").resources
    assert taking.keys() == plain.keys()
    assert all(resource.spec.adopt for resource in taking.values())
    watched = of(NetworkSpec, "one", type="gre", segmentation_id=1, mode="observe")
    found = compile_node(with_objects(model, watched), "network").resources
    observed = {rid for rid, resource in found.items() if resource.spec.mode is Mode.OBSERVE}
    assert changes(plain, found) == observed
    assert any("tun_id=1" in rid.name for rid in observed)
    assert not any("tun_id=999" in rid.name or rid.kind == "bridge" for rid in observed)


def test_adopt_of_a_part_is_said_not_to_be_followed() -> None:
    port = of(NeutronPortSpec, "vm1", network="one", mac="fa:16:3e:00:00:03", node="compute", adopt=True)
    found = compile_node(with_objects(three_nodes("multi-table"), port), "compute")
    assert [str(resource.id) for resource, _ in found.problems] == ["neutron_port/vm1"]


def test_removing_the_options_is_noticed() -> None:
    model = three_nodes("single-table")
    compiler = Compiler("compute")
    allocations = compiler.compile(model).allocations
    bare = without(model, ResourceId(OptionsSpec.kind, "options"))
    alike(compiler.compile(bare, allocations), compile_node(bare, "compute", allocations))
