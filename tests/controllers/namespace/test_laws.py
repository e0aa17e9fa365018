"""The laws of the diff, from any state of the world: it converges, is idempotent, and leaves others' things alone."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controllers.drivers.netlink.rows import Address, Neighbour
from controllers.ownership import LINK_GROUP, PROTO
from reconciler.contract import Outcome, Verb
from tests.controllers.namespace.world import MARK, World, foreign_route, foreign_rule, link, resources

DEVS = ["b0", "b1", "b2"]
ADDRESSES = ["10.0.0.1/24", "10.0.1.1/24", "10.0.2.1/32", "fd00::1/64"]
ROUTES = ["10.5.0.0/16", "10.6.0.0/16", "default"]
PROTOS = [0, 4, PROTO]


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """What may be declared for a namespace."""
    devs = draw(st.lists(st.sampled_from(DEVS), unique=True, max_size=3))
    links = {
        dev: {
            "type": "bridge",
            "up": True,
            "addresses": draw(st.lists(st.sampled_from(ADDRESSES), unique=True, max_size=3)),
            **draw(st.sampled_from([{}, {"mtu": 1400}, {"mac": "02:00:00:00:00:07"}])),
        }
        for dev in devs
    }
    body: dict[str, Any] = {"links": links}
    if devs:
        routes = draw(st.lists(st.sampled_from(ROUTES), unique=True, max_size=3))
        body["routes"] = [{"to": to, "dev": draw(st.sampled_from(devs))} for to in routes]
        body["neighbours"] = [{"ip": "10.0.0.7", "mac": "02:00:00:00:00:09", "dev": devs[0]}]
    body["rules"] = [{"priority": p, "table": 5} for p in draw(st.lists(st.integers(10, 13), unique=True, max_size=3))]
    body["sysctls"] = draw(st.sampled_from([{}, {"net.ipv4.ip_forward": 1}]))
    return body


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """What may be there: nothing, or a namespace of ours with things of ours and of others in it."""
    world = World()
    if draw(st.booleans()):
        return world
    world.space = space = World.new("q", MARK)
    rows = [space.links[1]]
    for number, dev in enumerate(draw(st.lists(st.sampled_from([*DEVS, "x0"]), unique=True)), 2):
        group = 0 if dev == "x0" else LINK_GROUP
        kind = draw(st.sampled_from(["bridge", "dummy"]))
        rows.append(link(number, dev, group=group, kind=kind, up=draw(st.booleans())))
    space.load({"links": rows})
    for row in rows[1:]:
        for address in draw(st.lists(st.sampled_from(ADDRESSES), unique=True, max_size=2)):
            proto = draw(st.sampled_from(PROTOS))
            space.addresses[row.ifindex, address] = Address(row.ifindex, address, proto, False, True, False)
        if row.up:
            to = draw(st.sampled_from(["10.5.0.0/16", "10.6.0.0/16", "0.0.0.0/0", "10.9.0.0/16"]))
            space.routes[254, to, 0] = (foreign_route(to, row.ifindex, draw(st.sampled_from(PROTOS))),)
        space.neighbours[row.ifindex, "10.0.0.7"] = Neighbour(row.ifindex, "10.0.0.7", "02:00:00:00:00:08", PROTO)
    space.rules |= {foreign_rule(p) for p in draw(st.lists(st.integers(20, 22), max_size=2))}
    return world


def declared(body: dict[str, Any]) -> Any:
    return resources(json.dumps({"namespaces": {"q": body}}))


def others(world: World) -> set[Any]:
    """What is not ours and not on the way: devices, and on them addresses that nobody declared."""
    space = world.space
    if space is None:
        return set()
    foreign = {row.ifindex for row in space.links.values() if row.group != LINK_GROUP and row.name != "lo"}
    found: set[Any] = {space.links[index] for index in foreign}
    found |= {row for row in space.addresses.values() if row.ifindex in foreign and row.proto != PROTO}
    return found | {row for row in space.rules if row.proto != PROTO}


@given(worlds(), bodies())
def test_any_world_converges_and_a_second_look_finds_nothing(world: World, body: dict[str, Any]) -> None:
    wanted = declared(body)
    world.converge(wanted)
    again = world.plan(wanted)
    assert not again.groups
    assert not again.findings


@given(worlds(), bodies())
def test_what_belongs_to_others_is_never_touched(world: World, body: dict[str, Any]) -> None:
    before = others(world)
    world.converge(declared(body))
    assert others(world) >= before


@given(worlds(), bodies(), st.integers(0, 30))
def test_a_crash_after_any_part_of_a_plan_is_survived(world: World, body: dict[str, Any], survived: int) -> None:
    wanted = declared(body)
    changes = [change for group in world.plan(wanted).groups for change in group.changes]
    world.carry_out(changes[:survived])
    world.converge(wanted)
    assert not world.plan(wanted)


@given(worlds(), bodies(), bodies())
def test_going_from_one_declaration_to_another_leaves_nothing_of_the_first(
    world: World, first: dict[str, Any], second: dict[str, Any]
) -> None:
    direct = World()
    direct.converge(declared(second))
    world.space = None
    world.converge(declared(first))
    world.converge(declared(second))
    assert _content(world) == _content(direct)


def _content(world: World) -> Any:
    """All but mac and mtu, which stay as they are when they are declared no longer."""
    space = world.space
    assert space is not None
    names = {index: row.name for index, row in space.links.items()}
    return (
        {row._replace(ifindex=0, mac="", mtu=0) for row in space.links.values()},
        {(names[index], address) for index, address in space.addresses},
        {(key, names.get(found[0].ifindex)) for key, found in space.routes.items()},
        space.rules,
    )


@given(bodies())
def test_looking_changes_nothing(body: dict[str, Any]) -> None:
    world = World()
    wanted = declared(body)
    assert world.plan(wanted) == world.plan(wanted)
    assert world.space is None


@given(bodies())
def test_a_foreign_namespace_of_the_name_is_a_conflict_and_stays_as_it_is(body: dict[str, Any]) -> None:
    world = World()
    world.space = World.new("q", "")
    world.space.load({"links": [world.space.links[1], link(2, "theirs")]})
    plan = world.plan(declared(body))
    assert not plan.groups
    assert {f.outcome for f in plan.findings if f.resource.kind == "namespace"} == {Outcome.CONFLICT}
    assert {f.resource for f in plan.findings} == set(declared(body))


@given(bodies())
def test_a_bare_namespace_is_taken_only_if_it_was_ours_once(body: dict[str, Any]) -> None:
    world = World()
    world.space = World.new("q", "")
    assert not world.plan(declared(body)).groups
    plan = world.plan(declared(body), known=True)
    assert plan.groups[0].changes[0].verb is Verb.UPDATE
    assert str(plan.groups[0].changes[0].resource) == "namespace/q"


@given(bodies())
def test_everything_of_ours_goes_with_the_namespace_and_counts_once(body: dict[str, Any]) -> None:
    world = World()
    world.converge(declared(body))
    changes = world.converge({})
    assert [str(change.resource) for change in changes] == ["namespace/q"]
    assert world.space is None
