"""One node's desired state from YAML and OpenStack's objects: roles, precedence, what is refused and what is told."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from desired.network.allocations import Allocations
from desired.network.compose import Composer
from desired.network.load import load
from desired.network.model import NetworkSpec, NeutronPortSpec, derived_id
from desired.network.section import SECTIONS
from desired.resource import Origin, Resource, ResourceId
from desired.schema import Loaded
from tests.desired.network.test_check import GOOD

NETWORK = "6f1c3b5a-9e40-4a52-8c1d-0b7e5a91d301"
PORT = "2d84e07f-c63b-47d5-9a0e-51f2c8b7e602"


def loaded(directory: Path, *texts: str, node: str = "network") -> Loaded:
    for number, text in enumerate(texts):
        (directory / f"{number}.yaml").write_text(text)
    return load(directory, node=node, roles=frozenset(), sections=SECTIONS)


def from_openstack(*specs: NetworkSpec | NeutronPortSpec) -> dict[ResourceId, Resource]:
    made = [Resource(ResourceId(s.kind, s.id or ""), s, Origin("openstack", path="x"), s.generation()) for s in specs]
    return {resource.id: resource for resource in made}


def test_a_nodes_roles_in_the_model_decide_which_documents_are_for_it(tmp_path: Path) -> None:
    for_network = "apply_to: {roles: [network]}\nbridges: {br-mine: {}}\n"
    assert ResourceId("bridge", "br-mine") in {r.id for r in loaded(tmp_path, GOOD, for_network).resources}
    others = loaded(tmp_path, GOOD, for_network, node="compute1").resources
    assert ResourceId("bridge", "br-mine") not in {r.id for r in others}


def test_a_model_becomes_the_resources_of_the_node(tmp_path: Path) -> None:
    composed = Composer("network").compose(loaded(tmp_path, GOOD), Allocations())
    assert composed.loaded.ok
    kinds = {resource.id.kind for resource in composed.loaded.resources}
    assert {"bridge", "port", "flow"} <= kinds
    assert not kinds & {"network", "subnet", "neutron_port", "router", "node"}
    assert all(resource.origin.file for resource in composed.loaded.resources)


def test_without_a_model_nothing_is_touched(tmp_path: Path) -> None:
    tree = loaded(tmp_path, "bridges: {br-mine: {}}\n")
    assert Composer("network").compose(tree, Allocations()).loaded is tree


def test_a_fault_of_the_model_refuses_the_revision(tmp_path: Path) -> None:
    composed = Composer("network").compose(loaded(tmp_path, GOOD.replace("10.6.0.21", "10.9.0.21")), Allocations())
    assert [problem.message for problem in composed.loaded.problems] == [
        "floating IP 10.9.0.21 is in no subnet of any external network"
    ]


OBJECTS = [number for number, line in enumerate(GOOD.splitlines()) if line.startswith("    ")]


@pytest.mark.parametrize("number", OBJECTS)
@pytest.mark.parametrize("how", ["typo", "twice", "section"])
def test_one_mistake_is_told_as_one_whatever_depends_on_the_object(tmp_path: Path, number: int, how: str) -> None:
    lines = GOOD.splitlines()
    name, _, body = lines[number].strip().partition(": ")
    if how == "typo":
        inner = body[1:-1] if body.startswith("{") else f"port: {body}"
        lines[number] = f"    {name}: {{{inner}, nonsense: 1}}"
    elif how == "twice":
        section = next(line for line in reversed(lines[:number]) if not line.startswith("    "))
        lines += ["---", "model:", section, lines[number]]
    else:
        at = max(at for at, line in enumerate(lines[:number]) if not line.startswith("    "))
        lines[at] = f"{lines[at][:-2]}{lines[at][-2].upper()}z:"
    tree = loaded(tmp_path, "\n".join(lines))
    (problem,) = Composer("network").compose(tree, Allocations()).loaded.problems
    assert problem.line


def test_what_is_wrong_in_one_object_does_not_hide_what_is_wrong_in_the_whole(tmp_path: Path) -> None:
    text = GOOD.replace("10.6.0.21: vm1", "10.9.0.21: vm1").replace("gateway: public", "gatway: public")
    text = text.replace(
        "    two: {network: two,", "    more: {network: one, cidr: 172.16.1.0/25}\n    two: {network: two,"
    )
    composed = Composer("network").compose(loaded(tmp_path, text), Allocations())
    assert [
        (problem.line, problem.column, problem.message.split(" of ")[0]) for problem in composed.loaded.problems
    ] == [
        (12, 32, "172.16.1.0/25"),
        (19, 29, "unknown key 'gatway'"),
        (22, 5, "floating IP 10.9.0.21 is in no subnet"),
    ]


def test_a_node_that_the_model_does_not_know_is_refused_and_told_which_are_known(tmp_path: Path) -> None:
    tree = loaded(tmp_path, GOOD, "bridges: {br-mine: {}}\n", node="netwrok")
    (problem,) = Composer("netwrok").compose(tree, Allocations()).loaded.problems
    assert "node netwrok is not among the model's nodes" in problem.message
    assert problem.hint == "did you mean 'network'?"


def test_a_workstation_is_told_to_name_the_node_it_asks_for(tmp_path: Path) -> None:
    (problem,) = Composer("laptop").compose(loaded(tmp_path, GOOD, node="laptop"), Allocations()).loaded.problems
    assert problem.hint == (
        "known here: compute1, network; add it, or say which of them this is (setting node, or --node)"
    )


def test_what_of_yaml_is_served_by_nothing_is_told_with_its_place(tmp_path: Path) -> None:
    composed = Composer("network").compose(loaded(tmp_path, GOOD.replace("gateway: public", "")), Allocations())
    assert composed.loaded.ok
    (remark,) = composed.remarks
    assert (remark.path, remark.line) == ("model.floating_ips.10.6.0.21", 21)
    assert "no router has an interface with 172.16.1.5" in remark.message


def test_a_subnet_of_one_address_has_no_gateway_and_no_dhcp_server(tmp_path: Path) -> None:
    tree = loaded(
        tmp_path, GOOD.replace("  ports:", "    single: {network: one, cidr: 10.8.8.8/32, dhcp: false}\n  ports:")
    )
    assert Composer("network").compose(tree, Allocations()).loaded.ok


def test_what_yaml_declares_for_the_node_wins_over_the_model_and_is_told(tmp_path: Path) -> None:
    tree = loaded(tmp_path, GOOD, "bridges: {br-int: {fail_mode: standalone}}\n")
    composed = Composer("network").compose(tree, Allocations())
    (bridge,) = [r for r in composed.loaded.resources if r.id == ResourceId("bridge", "br-int")]
    assert bridge.origin.path == "bridges.br-int"
    assert any("bridge/br-int is also what the model makes" in each.message for each in composed.loaded.warnings)


def test_openstack_adds_to_yaml_and_yaml_wins_where_both_have_an_object(tmp_path: Path) -> None:
    own = f"model:\n  networks:\n    mine: {{id: {NETWORK}, type: gre, segmentation_id: 77}}\n"
    tree = loaded(tmp_path, GOOD, own)
    port = NeutronPortSpec(id=PORT, network=NETWORK, node="network", mac="fa:16:3e:00:00:09")
    theirs = from_openstack(NetworkSpec(id=NETWORK, display="theirs", type="gre", segmentation_id=78), port)
    composed = Composer("network").compose(tree, Allocations(), theirs)
    flows = [r.id.name for r in composed.loaded.resources if r.id.kind == "flow"]
    assert any("tun_id=0x4d" in flow or "tun_id=77" in flow for flow in flows)
    assert not any("tun_id=78" in flow for flow in flows)
    assert composed.notices == (f"openstack: network {NETWORK} (theirs) is declared in YAML as well, which wins",)


def test_an_object_of_openstack_at_fault_is_left_out_and_told(tmp_path: Path) -> None:
    port = NeutronPortSpec(id=PORT, network=NETWORK, node="network")
    composed = Composer("network").compose(loaded(tmp_path, GOOD), Allocations(), from_openstack(port))
    assert composed.loaded.ok
    assert len(composed.notices) == 1
    assert f"port {PORT}" in composed.notices[0]


def test_two_ports_of_openstack_with_one_address_are_told_and_the_rest_stands(tmp_path: Path) -> None:
    tree = loaded(tmp_path, GOOD)
    one, two = (
        NeutronPortSpec.model_validate(
            {"id": PORT[:-1] + end, "network": "one", "node": "compute1", "fixed_ips": [{"ip": "172.16.1.9"}]}
        )
        for end in "34"
    )
    composed = Composer("network").compose(tree, Allocations(), from_openstack(one, two))
    assert composed.loaded.ok
    assert any("is already made for openstack, x, and differs" in notice for notice in composed.notices)
    flows = {resource.id.name for resource in composed.loaded.resources if resource.id.kind == "flow"}
    assert any("arp_tpa=172.16.1.9" in flow for flow in flows)


@pytest.mark.parametrize("waiting", [True, False])
def test_a_reference_into_openstack_is_a_mistake_only_when_all_of_it_is_known(tmp_path: Path, *, waiting: bool) -> None:
    vm = f"model:\n  ports:\n    vm9: {{network: {NETWORK}, node: compute1}}\n"
    composed = Composer("network").compose(loaded(tmp_path, GOOD, vm), Allocations(), waiting=waiting)
    assert composed.loaded.ok is waiting


def test_local_vlans_that_are_in_use_are_kept(tmp_path: Path) -> None:
    kept = Allocations({derived_id("network", "two"): 40})
    composed = Composer("network").compose(loaded(tmp_path, GOOD), kept)
    assert composed.allocations.vlans[derived_id("network", "two")] == 40
    assert set(composed.allocations.vlans.values()) == {1, 2, 40}


def test_the_same_tree_composed_again_is_the_same(tmp_path: Path) -> None:
    composer, tree = Composer("network"), loaded(tmp_path, GOOD)
    first = composer.compose(tree, Allocations())
    again = composer.compose(replace(tree), first.allocations)
    assert {r.id: r for r in first.loaded.resources} == {r.id: r for r in again.loaded.resources}


def test_following_changes_one_by_one_gives_what_composing_from_nothing_gives(tmp_path: Path) -> None:
    """Ports that come, move, change, clash and go; the difference that is told leads from each state to the next."""
    chance = random.Random(11)
    taken = f"flows:\n  br-tun:\n    - 'table=20,priority=2,dl_vlan=3,dl_dst={_mac(3)},actions=drop'\n"
    shadow = f"model:\n  ports:\n    shadow: {{id: {_port(4).id}, network: {NETWORK}, node: compute1}}\n"
    tree = loaded(tmp_path, GOOD, taken, shadow)
    theirs = from_openstack(
        NetworkSpec(id=NETWORK, display="theirs", type="gre", segmentation_id=78), _port(0, "network")
    )
    composer, allocations = Composer("network"), Allocations()
    held: dict[ResourceId, Resource] = {}
    changed: set[ResourceId] | None = None
    followed = 0
    for _ in range(120):
        composed = composer.compose(tree, allocations, theirs, waiting=True, changed=changed)
        fresh = Composer("network").compose(tree, allocations, theirs, waiting=True)
        wanted = {resource.id: resource for resource in fresh.loaded.resources}
        assert composed.loaded.ok
        assert {resource.id: resource for resource in composed.loaded.resources} == wanted
        assert sorted(composed.notices) == sorted(fresh.notices)
        if composed.step is None:
            held = dict(wanted)
        else:
            followed += 1
            for rid in composed.step.gone:
                del held[rid]
            held.update({resource.id: resource for resource in composed.step.put})
            assert held == wanted
        allocations, theirs, changed = composed.allocations, dict(theirs), set()
        for _ in range(chance.randrange(3)):
            spec = _port(chance.randrange(1, 8), chance.choice(["network", "compute1", "compute1", None]), chance)
            ((rid, resource),) = from_openstack(spec).items()
            changed.add(rid)
            theirs[rid] = resource
            if chance.random() < 0.4:
                del theirs[rid]
    assert followed > 40


def _mac(number: int) -> str:
    return f"fa:16:3e:00:00:{number:02x}"


def _port(number: int, node: str | None = "compute1", chance: random.Random | None = None) -> NeutronPortSpec:
    """With a chance, its MAC may be another port's."""
    own = f"2d84e07f-c63b-47d5-9a0e-{number:012x}"
    mac = _mac(number if chance is None or chance.random() < 0.7 else chance.randrange(1, 8))
    return NeutronPortSpec(id=own, network=NETWORK, node=node, mac=mac)
