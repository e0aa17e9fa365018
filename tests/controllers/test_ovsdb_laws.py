"""The laws of bridges, ports, bonds and held ports, over a fake OVSDB that interprets, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.drivers.ovsdb import ops
from controllers.ovsdb.wanted import DEAD_PEER
from desired.resource import Mode, Resource
from reconciler.contract import Outcome, Scope
from tests.controllers.fakes.node import (
    OURS,
    bond,
    bridge,
    bridges_of,
    flow,
    held_port,
    life,
    patches,
    port,
    ports_of,
    rival_bridge,
    rival_delete_bridge,
    rival_delete_port,
    rival_port,
    rival_set,
)
from tests.controllers.fakes.ovs import Ovs
from tests.reconciler.fakes import virtually

pytestmark = pytest.mark.looptime

SMALL = [bridge("br0"), port("p0", "br0", tag=5), port("p1", "br0")]


async def test_a_bridge_and_its_ports_appear_together() -> None:
    ovs = Ovs()
    async with life(ovs, SMALL) as one:
        assert bridges_of(ovs)["br0"]["external_ids"] == OURS
        assert ports_of(ovs, "br0").keys() == {"p0", "p1"}
        assert ports_of(ovs, "br0")["p0"]["tag"] == 5
        assert one.engine.converged()
        (first,) = [e for e in one.journal.entries if e.scope == Scope("ovsdb") and len(e.actions) == 3]
        assert first.outcome in {Outcome.CONVERGED, Outcome.PENDING}


@pytest.mark.parametrize(
    "damage",
    [
        lambda ovs: rival_delete_port(ovs, "p0"),
        lambda ovs: rival_set(ovs, "Port", "p0", tag=7),
        lambda ovs: rival_set(ovs, "Port", "p0", tag=None, trunks=(1, 2)),
        lambda ovs: rival_set(ovs, "Interface", "p0", type="gre", options={"remote_ip": "1.2.3.4"}),
        lambda ovs: rival_set(ovs, "Bridge", "br0", fail_mode="standalone"),
        lambda ovs: rival_set(ovs, "Bridge", "br0", other_config={"hwaddr": "02:00:00:00:00:01"}),
        lambda ovs: rival_delete_bridge(ovs, "br0"),
    ],
)
async def test_damage_is_repaired_by_the_event(damage: Any) -> None:
    ovs = Ovs()
    async with life(ovs, SMALL) as one:
        before = _contents(ovs)
        damage(ovs)
        await asyncio.sleep(0.1)
        assert _contents(ovs) == before
        assert one.engine.converged()
        assert any(action.drift for action in one.journal.actions("done"))


@pytest.mark.parametrize("slow", [0.0005, 0.08, 0.3, 3.0])
async def test_a_port_whose_device_died_is_made_anew_however_slow_vswitchd_is(slow: float) -> None:
    """One that sees the deletion and the creation at once makes no device, and never will."""
    ovs = Ovs()
    async with life(ovs, [*SMALL[:1], port("p0", "br0", type="internal"), port("p1", "br0", type="internal")]) as one:
        before = ports_of(ovs, "br0")["p0"]["ofport"]
        ovs.apply_after = slow
        ovs.dead = {"p0", "p1"}
        for _ in range(20):
            for name in ovs.dead:
                one.ovsdb.device_lost(name)  # as one is told who waits for the device
            await asyncio.sleep(0.5)
        assert not ovs.dead
        assert ports_of(ovs, "br0")["p0"]["ofport"] == before
        assert one.engine.converged()
        assert one.done().count("update port/p0") <= 2, "it is not deleted again while it is being made"


async def test_a_port_whose_device_died_comes_back_although_no_vswitchd_ever_says_that_it_has_seen_it() -> None:
    ovs = Ovs()
    async with life(ovs, [*SMALL[:1], port("p0", "br0", type="internal")]) as one:
        ovs.running = False
        one.ovsdb.device_lost("p0")
        await asyncio.sleep(5.0)
        assert "p0" not in ports_of(ovs, "br0")
        assert "vswitchd has to forget" in one.reason("port/p0")
        await asyncio.sleep(6.0)
        assert "p0" in ports_of(ovs, "br0")


async def test_a_mark_that_was_taken_off_what_we_know_as_ours_is_put_back() -> None:
    ovs = Ovs()
    async with life(ovs, SMALL) as one:
        rival_set(ovs, "Port", "p1", external_ids={"theirs": "1"})
        await asyncio.sleep(1.0)
        assert ports_of(ovs, "br0")["p1"]["external_ids"] == {**OURS, "theirs": "1"}
        assert one.engine.converged()


async def test_a_port_that_is_made_anew_keeps_its_number() -> None:
    ovs = Ovs()
    async with life(ovs, [*SMALL, port("o9", "br0", ofport_request=9)]):
        numbers = dict(ovs.bridges["br0"].ports)
        for name in ("p1", "p0", "o9"):
            rival_delete_port(ovs, name)
        ovs.apply()
        await asyncio.sleep(0.1)
        assert {name: ovs.bridges["br0"].ports[name] for name in numbers} == numbers


async def test_foreign_bridges_and_ports_are_left_alone() -> None:
    ovs = Ovs()
    rival_bridge(ovs, "theirs", fail_mode="standalone")
    rival_port(ovs, "theirs", "tap0", tag=9)
    rival_bridge(ovs, "br0", ours=True)
    rival_port(ovs, "br0", "tap1", tag=8, iface_id="vm")
    before = _contents(ovs)["theirs"], ports_of(ovs, "br0")["tap1"]
    async with life(ovs, SMALL) as one:
        assert one.engine.converged()
        one.desire([bridge("br1")])
        await asyncio.sleep(1.0)
        after = _contents(ovs)["theirs"], ports_of(ovs, "br0")["tap1"]
        assert after[0] == before[0]
        assert after[1]["tag"] == 8
        # a bridge that others use stays, and it is said
        assert one.status("bridge/br0") is Outcome.CONFLICT
        assert "tap1" in one.reason("bridge/br0")


async def test_a_name_held_by_another_is_a_conflict_until_adopted() -> None:
    ovs = Ovs()
    rival_bridge(ovs, "br0", fail_mode="standalone")
    rival_port(ovs, "br0", "p0", tag=1)
    async with life(ovs, [*SMALL, flow("br0", "priority=1,actions=drop")]) as one:
        assert one.status("bridge/br0") is Outcome.CONFLICT
        assert one.status("port/p0") is Outcome.CONFLICT
        assert "adopt: true" in one.reason("bridge/br0")
        assert ovs.writes == 0
        assert bridges_of(ovs)["br0"]["external_ids"] == {}
        one.desire([bridge("br0", adopt=True), port("p0", "br0", tag=5, adopt=True), port("p1", "br0")])
        await asyncio.sleep(0.5)
        assert bridges_of(ovs)["br0"]["external_ids"] == OURS
        assert ports_of(ovs, "br0")["p0"]["tag"] == 5
        assert one.engine.converged()


async def test_flows_of_a_bridge_that_is_declared_while_we_run_and_is_anothers_are_not_touched() -> None:
    ovs = Ovs()
    rival_bridge(ovs, "br1", fail_mode="standalone")
    async with life(ovs, SMALL) as one:
        before = dict(ovs.bridges["br1"].flows)
        one.desire([*SMALL, bridge("br1"), flow("br1", "priority=1,actions=drop")])
        await asyncio.sleep(1.0)
        assert ovs.bridges["br1"].flows == before
        assert one.status("bridge/br1") is Outcome.CONFLICT


async def test_exclusive_ports_means_no_others() -> None:
    ovs = Ovs()
    async with life(ovs, [bridge("br0", ports="exclusive"), port("p0", "br0")]):
        rival_port(ovs, "br0", "tap1")
        await asyncio.sleep(0.1)
        assert ports_of(ovs, "br0").keys() == {"p0"}


async def test_held_attributes_are_put_on_whoever_has_the_iface_id_and_nothing_else_of_it() -> None:
    ovs = Ovs()
    rival_bridge(ovs, "theirs")
    async with life(ovs, [held_port("vm-1", tag=3, other_config={"a": "1"})]) as one:
        assert one.status("held_port/vm-1") is Outcome.PENDING
        rival_port(ovs, "theirs", "tap1", iface_id="vm-1", trunks=(4, 5), other_config={"b": "2"})
        await asyncio.sleep(0.1)
        row = ports_of(ovs, "theirs")["tap1"]
        assert (row["tag"], row["trunks"], row["other_config"]) == (3, (4, 5), {"a": "1", "b": "2"})
        assert row["external_ids"] == {}
        rival_set(ovs, "Port", "tap1", tag=9)
        await asyncio.sleep(0.1)
        assert ports_of(ovs, "theirs")["tap1"]["tag"] == 3
        rival_port(ovs, "theirs", "tap2", iface_id="vm-1")
        await asyncio.sleep(0.1)
        assert ports_of(ovs, "theirs")["tap2"]["tag"] == 3
        one.desire([bridge("x")])
        await asyncio.sleep(0.5)
        assert ports_of(ovs, "theirs")["tap1"]["tag"] == 3
        rival_delete_port(ovs, "tap1")


async def test_what_is_no_longer_declared_is_pruned_within_the_budget_and_a_bridge_takes_its_ports_along() -> None:
    ovs = Ovs()
    many = [bridge("br0"), bridge("br1"), *(port(f"p{n}", "br0") for n in range(20))]
    async with life(ovs, many) as one:
        one.desire(many[1:2])
        await asyncio.sleep(0.5)
        assert bridges_of(ovs).keys() == {"br1"}
        assert one.engine.converged()
        assert one.engine.statuses.not_right() == []


async def test_too_many_deletes_wait_and_additions_do_not() -> None:
    ovs = Ovs()
    many = [bridge("br0"), *(port(f"p{n}", "br0") for n in range(20))]
    async with life(ovs, many) as one:
        one.desire([*many[:11], port("new", "br0")])
        await asyncio.sleep(0.5)
        assert len(ports_of(ovs, "br0")) == 21
        assert one.engine.statuses.outcome() is Outcome.PENDING
        one.engine.gates.budget.approve(one.engine.book.snapshot.revision)
        one.engine.look(one.engine.scopes(), "approved")
        await asyncio.sleep(0.5)
        assert len(ports_of(ovs, "br0")) == 11


async def test_a_port_that_the_database_refuses_does_not_stop_its_neighbours() -> None:
    ovs = Ovs()
    rival_bridge(ovs, "theirs")
    # an interface of that name is part of somebody's bond
    ovs.rival(
        *ops.add_ports("theirs", [ops.NewPort("bond9", {"p7": {"type": "internal"}, "p8": {"type": "internal"}})])
    )
    async with life(ovs, [bridge("br0"), *(port(f"p{n}", "br0") for n in range(12))]) as one:
        assert ports_of(ovs, "br0").keys() == {f"p{n}" for n in range(12)} - {"p7", "p8"}
        failed = {str(s.resource) for s in one.engine.statuses.not_right()}
        assert failed == {"port/p7", "port/p8"}
        assert one.status("port/p7") is Outcome.FAILED
        assert "constraint violation" in one.reason("port/p7")
        rival_delete_port(ovs, "bond9")
        await asyncio.sleep(300.0)
        assert one.engine.converged()


async def test_a_port_without_its_device_has_failed_is_not_made_over_and_over_and_comes_with_the_device() -> None:
    ovs = Ovs()
    async with life(ovs, [bridge("br0"), port("eth1", "br0", type="system"), port("p1", "br0")]) as one:
        assert one.status("port/p1") is Outcome.CONVERGED
        await asyncio.sleep(30.0)
        writes = ovs.writes
        assert writes < 25
        assert one.status("port/eth1") is not Outcome.CONVERGED
        ovs.devices.add("eth1")
        await asyncio.sleep(300.0)
        assert one.engine.converged()
        assert ovs.bridges["br0"].ports["eth1"] > 0


async def test_a_port_waits_for_vswitchd_and_says_so_and_is_not_made_again() -> None:
    ovs = Ovs()
    async with life(ovs, SMALL) as one:
        ovs.stop_vswitchd()
        one.desire([*SMALL, port("late", "br0")])
        await asyncio.sleep(0.5)
        writes = ovs.writes
        assert one.status("port/late") is Outcome.PENDING
        await asyncio.sleep(20.0)
        assert one.status("port/late") is Outcome.FAILED
        assert "is ovs-vswitchd running?" in one.reason("port/late")
        assert ovs.writes == writes
        ovs.start_vswitchd()
        await asyncio.sleep(1.0)
        assert one.status("port/late") is Outcome.CONVERGED


async def test_a_port_for_a_bridge_that_nobody_makes_waits_for_it() -> None:
    ovs = Ovs()
    async with life(ovs, [port("p0", "br9")]) as one:
        assert one.status("port/p0") is Outcome.PENDING
        assert "bridge/br9, which is neither declared nor there" in one.reason("port/p0")
        rival_bridge(ovs, "br9")
        await asyncio.sleep(0.1)
        assert ports_of(ovs, "br9").keys() == {"p0"}


async def test_a_port_moves_to_the_bridge_it_is_declared_on_and_back() -> None:
    ovs = Ovs()
    async with life(ovs, [bridge("br0"), bridge("br1"), port("p0", "br0")]) as one:
        one.desire([bridge("br0"), bridge("br1"), port("p0", "br1")])
        await asyncio.sleep(0.5)
        assert (ports_of(ovs, "br0").keys(), ports_of(ovs, "br1").keys()) == (set(), {"p0"})
        assert one.engine.converged()


async def test_a_bond_becomes_its_members_and_a_port_again() -> None:
    ovs = Ovs()
    ovs.devices |= {"eth1", "eth2", "eth3"}
    bonded = bond("bond0", "br0", interfaces=("eth1", "eth2"))
    async with life(ovs, [bridge("br0"), bonded]) as one:
        assert one.engine.converged()
        for after in (
            [bridge("br0"), bond("bond0", "br0", interfaces=("eth1", "eth3"))],
            [bridge("br0"), port("eth1", "br0", type="system"), port("eth2", "br0", type="system")],
            [bridge("br0"), bonded],
        ):
            one.desire(after)
            await asyncio.sleep(2.0)
            assert one.engine.converged(), one.engine.statuses.not_right()
            assert ports_of(ovs, "br0").keys() == {r.id.name for r in after} - {"br0"}


# -- patch pairs -------------------------------------------------------------------------------------------------------


def peer(ovs: Ovs, on: str, name: str) -> str:
    return str(ports_of(ovs, on)[name]["options"]["peer"])


LOOP = [bridge("br0", fail_mode="standalone"), bridge("br1", fail_mode="standalone"), *patches("a", "br0", "b", "br1")]


async def test_a_patch_pair_between_secure_bridges_is_joined_at_once() -> None:
    ovs = Ovs()
    flows = [flow("br0", "in_port=nowhere,actions=drop")]
    async with life(ovs, [bridge("br0"), bridge("br1"), *patches("a", "br0", "b", "br1"), *flows]):
        assert (peer(ovs, "br0", "a"), peer(ovs, "br1", "b")) == ("b", "a")


async def test_a_patch_pair_that_could_loop_is_dead_until_the_flows_of_both_bridges_are_there() -> None:
    ovs = Ovs()
    alive: list[bool] = []

    def watch(_: object) -> None:
        if "br0" in bridges_of(ovs) and "a" in ports_of(ovs, "br0") and peer(ovs, "br0", "a") == "b":
            ends = {"br0": "a", "br1": "b"}
            matches = {on: b"in_port=" + str(ovs.bridges[on].ports[name]).encode() for on, name in ends.items()}
            alive.append(all(any(k.match == m for k in ovs.bridges[on].flows) for on, m in matches.items()))

    ovs.database.followers.append(watch)
    flows = [flow("br0", "in_port=a,actions=drop"), flow("br1", "in_port=b,actions=drop")]
    async with life(ovs, [*LOOP, *flows]) as one:
        assert (peer(ovs, "br0", "a"), peer(ovs, "br1", "b")) == ("b", "a")
        assert alive
        assert all(alive)
        assert one.engine.converged()


async def test_a_pair_that_waits_for_flows_stays_dead_and_says_for_what() -> None:
    ovs = Ovs()
    bad = flow("br0", "in_port=a,actions=invalid")
    async with life(ovs, [*LOOP, bad]) as one:
        await asyncio.sleep(60.0)
        assert peer(ovs, "br0", "a") == DEAD_PEER
        assert "br0" in one.reason("port/a")
        assert "no-such-peer" not in one.reason("port/a")
        one.desire([*LOOP, flow("br0", "in_port=a,actions=drop")])
        await asyncio.sleep(0.5)
        assert peer(ovs, "br0", "a") == "b"
        assert one.engine.converged()


async def test_a_pair_that_is_joined_is_not_cut_by_a_change_or_a_mistake_in_the_flows() -> None:
    ovs = Ovs()
    good = flow("br0", "in_port=a,actions=drop")
    async with life(ovs, [*LOOP, good]) as one:
        cut: list[str] = []
        ovs.database.followers.append(lambda _: cut.append(peer(ovs, "br0", "a")))
        one.desire([*LOOP, good, flow("br0", "priority=9,actions=invalid"), port("other", "br0")])
        await asyncio.sleep(1.0)
        one.engine.look(one.engine.scopes(), "asked")
        await asyncio.sleep(1.0)
        assert set(cut) == {"b"}


async def test_the_ends_of_a_pair_are_one_transaction() -> None:
    ovs = Ovs()
    seen: list[set[str]] = []
    ovs.database.followers.append(lambda _: seen.append(set(ports_of(ovs, "br0")) | set(ports_of(ovs, "br1"))))
    both = [bridge("br0"), bridge("br1")]
    async with life(ovs, both) as one:
        one.desire([*both, *patches("a", "br0", "b", "br1"), port("c", "br0")])
        await asyncio.sleep(0.5)
        assert {"a", "b"} & seen[-1] == {"a", "b"}
        assert not any(len({"a", "b"} & ports) == 1 for ports in seen)


# -- life and death ----------------------------------------------------------------------------------------------------


async def test_a_restarted_daemon_writes_nothing_to_a_converged_node() -> None:
    ovs = Ovs()
    everything = [*SMALL, bridge("br1"), *patches("a", "br0", "b", "br1"), flow("br0", "priority=1,actions=drop")]
    async with life(ovs, everything):
        pass
    before = ovs.writes
    async with life(ovs, everything) as two:
        assert two.engine.converged()
        assert ovs.writes == before
        assert two.done() == []


async def test_an_answer_that_never_came_is_not_believed_either_way() -> None:
    ovs = Ovs()
    async with life(ovs, SMALL) as one:
        one.driver.silent = True
        one.desire([*SMALL, port("p2", "br0")])
        await asyncio.sleep(0.5)
        one.driver.silent = False
        await asyncio.sleep(2.0)
        assert ports_of(ovs, "br0").keys() == {"p0", "p1", "p2"}
        assert one.engine.converged()


async def test_without_ovsdb_all_waits_and_with_it_all_is_looked_at_again() -> None:
    ovs = Ovs()
    async with life(ovs, SMALL) as one:
        one.driver.disconnect("the server is gone")
        rival_delete_port(ovs, "p0")
        await asyncio.sleep(1.0)
        assert one.engine.statuses.outcome() is Outcome.PENDING
        assert "the server is gone" in one.reason("ovsdb/*")
        one.driver.connect()
        await asyncio.sleep(0.1)
        assert ports_of(ovs, "br0").keys() == {"p0", "p1"}
        assert one.engine.converged()


async def test_observe_writes_nothing_and_shows_all() -> None:
    ovs = Ovs()
    rival_bridge(ovs, "br0", ours=True, fail_mode="standalone")
    watched = [bridge("br0", mode=Mode.OBSERVE), port("p0", "br0", mode=Mode.OBSERVE)]
    async with life(ovs, watched) as one:
        await asyncio.sleep(10.0)
        assert ovs.writes == 0
        assert {str(s.resource): s.gate for s in one.engine.statuses.not_right()} == {
            "bridge/br0": "paused", "port/p0": "paused",
        }  # fmt: skip


async def test_an_observed_port_does_not_hold_up_its_bridge() -> None:
    ovs = Ovs()
    async with life(ovs, [bridge("br0"), port("p0", "br0"), port("p1", "br0", mode=Mode.OBSERVE)]) as one:
        assert ports_of(ovs, "br0").keys() == {"p0"}
        assert one.status("port/p1") is Outcome.PENDING


# -- from any world ----------------------------------------------------------------------------------------------------

BRIDGES = ("br0", "br1")
PORTS = ("p0", "p1", "p2")


@st.composite
def declarations(draw: st.DrawFn) -> list[Resource]:
    found: list[Resource] = []
    names = draw(st.lists(st.sampled_from(BRIDGES), unique=True, min_size=1))
    modes = st.sampled_from(["secure", "standalone"])
    found += [bridge(name, fail_mode=draw(modes), adopt=draw(st.booleans())) for name in names]
    for name in draw(st.lists(st.sampled_from(PORTS), unique=True)):
        on = draw(st.sampled_from(names))
        found.append(port(name, on, tag=draw(st.sampled_from([None, 1, 2])), adopt=draw(st.booleans())))
    if len(names) == 2 and draw(st.booleans()):
        found += patches("a", names[0], "b", names[1])
    for name in names:
        if draw(st.booleans()):
            found.append(flow(name, f"priority=1,actions={draw(st.sampled_from(['drop', 'normal']))}"))
    return draw(st.permutations(found))


Thing = tuple[str, str, bool, Any]
WORLD = st.lists(
    st.tuples(
        st.sampled_from(BRIDGES), st.sampled_from([*PORTS, "a", "tap"]), st.booleans(), st.sampled_from([None, 1])
    ),
    max_size=6,
)
MARKED = st.dictionaries(st.sampled_from(BRIDGES), st.booleans())


def populate(ovs: Ovs, marked: dict[str, bool], found: list[Thing]) -> None:
    for name, ours in marked.items():
        rival_bridge(ovs, name, ours=ours, fail_mode="standalone")
    for on, name, ours, tag in found:
        if on in marked and ovs.database.find("Port", name) is None:
            rival_port(ovs, on, name, ours=ours, tag=tag)


def _contents(ovs: Ovs) -> dict[str, Any]:
    columns = ("tag", "trunks", "type", "options", "external_ids")
    return {
        name: (
            row["fail_mode"],
            row["external_ids"],
            row["other_config"],
            {port: tuple(r[column] for column in columns) for port, r in ports_of(ovs, name).items()},
        )
        for name, row in bridges_of(ovs).items()
    }


def _foreign(ovs: Ovs, wanted: list[Resource]) -> dict[str, Any]:
    """What is not ours and was not declared `adopt`, with what it says."""
    adopted = {(r.id.kind, r.id.name) for r in wanted if r.spec.adopt}
    every: dict[str, Any] = {}
    for name, (fail_mode, ids, config, ports) in _contents(ovs).items():
        if ids != OURS and ("bridge", name) not in adopted:
            every[name] = (fail_mode, ids, config)
        every.update({p: said for p, said in ports.items() if said[-1] != OURS and ("port", p) not in adopted})
    return every


def _reached(ovs: Ovs, wanted: list[Resource], statuses: dict[str, Outcome]) -> None:
    """Whatever is not said to be wrong is as declared, and nothing of ours is left over."""
    contents = _contents(ovs)
    for resource in wanted:
        if str(resource.id) in statuses:
            continue
        spec: Any = resource.spec
        if resource.id.kind == "bridge":
            assert contents[resource.id.name][0] == spec.fail_mode
        elif resource.id.kind == "port":
            assert contents[spec.bridge][3][resource.id.name][0] == spec.tag
            if spec.peer is not None:
                assert contents[spec.bridge][3][resource.id.name][3] == {"peer": spec.peer}
    declared = {str(r.id) for r in wanted}
    ours = {f"bridge/{n}" for n, said in contents.items() if said[1] == OURS}
    ours |= {f"port/{p}" for said in contents.values() for p, row in said[3].items() if row[-1] == OURS}
    assert ours <= declared | statuses.keys()


LOOSE = {"budget": {"minimum": 1000, "share": 1.0}}


@given(wanted=declarations(), marked=MARKED, found=WORLD)
@settings(max_examples=50, deadline=None)
def test_from_any_world_the_declared_state_is_reached_and_what_is_foreign_stays(
    wanted: list[Resource], marked: dict[str, bool], found: list[Thing]
) -> None:
    async def main() -> None:
        ovs = Ovs()
        populate(ovs, marked, found)
        foreign = _foreign(ovs, wanted)
        async with life(ovs, wanted, **LOOSE) as one:
            await asyncio.sleep(5.0)
            statuses = {str(s.resource): s.outcome for s in one.engine.statuses.not_right()}
            _reached(ovs, wanted, statuses)
            if not any(not ours for ours in marked.values()) and all(thing[2] for thing in found):
                assert statuses == {}
            assert {name: _foreign(ovs, wanted).get(name) for name in foreign} == foreign
            if Outcome.FAILED in statuses.values():
                return  # half a patch pair, whose other end is another's: it is tried again
            writes = ovs.writes
            one.engine.look(one.engine.scopes(), "again", prove=True)
            await asyncio.sleep(1.0)
            assert ovs.writes == writes
        async with life(ovs, list(reversed(wanted)), **LOOSE) as two:
            assert ovs.writes == writes
            assert {str(s.resource): s.outcome for s in two.engine.statuses.not_right()} == statuses

    virtually(main)


@given(wanted=declarations(), marked=MARKED, found=WORLD, dies=st.integers(0, 6), answered=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_daemon_that_dies_after_any_write_is_followed_by_one_that_converges(
    wanted: list[Resource], marked: dict[str, bool], found: list[Thing], dies: int, *, answered: bool
) -> None:
    async def main() -> None:
        ovs, straight = Ovs(), Ovs()
        for each in (ovs, straight):
            populate(each, marked, found)
        async with life(straight, wanted, **LOOSE):
            await asyncio.sleep(5.0)
        ovs.stop_after, ovs.answered = dies, answered
        async with life(ovs, wanted, **LOOSE):
            pass
        ovs.stop_after = None
        async with life(ovs, wanted, **LOOSE):
            await asyncio.sleep(5.0)
        assert _contents(ovs) == _contents(straight)

    virtually(main)


@given(
    wanted=declarations(),
    hits=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["port", "tag", "bridge", "foreign"]), st.sampled_from(PORTS))
    ),
)
@settings(max_examples=40, deadline=None)
def test_a_rival_between_observe_and_act_is_survived(wanted: list[Resource], hits: list[tuple[int, str, str]]) -> None:
    async def main() -> None:
        ovs = Ovs()
        due = {number: (what, name) for number, what, name in hits}
        count = iter(range(10_000))

        def rival() -> None:
            what, name = due.get(next(count), ("", ""))
            _hit(ovs, what, name)

        ovs.before_write = rival
        async with life(ovs, wanted, **LOOSE) as one:
            await asyncio.sleep(20.0)
            statuses = {str(s.resource): s.outcome for s in one.engine.statuses.not_right()}
            _reached(ovs, wanted, statuses)
            assert set(statuses.values()) <= {Outcome.CONFLICT}

    virtually(main)


def _hit(ovs: Ovs, what: str, name: str) -> None:
    there = ovs.database.find("Port", name) is not None
    if what == "bridge" and "br0" in bridges_of(ovs):
        rival_delete_bridge(ovs, "br0")
    elif what == "port" and there:
        rival_delete_port(ovs, name)
    elif what == "tag" and there:
        rival_set(ovs, "Port", name, tag=77)
    elif what == "foreign" and bridges_of(ovs) and ovs.database.find("Port", "tap") is None:
        rival_port(ovs, next(iter(bridges_of(ovs))), "tap")


@given(wanted=declarations(), marked=MARKED, found=WORLD)
@settings(max_examples=30, deadline=None)
def test_a_plan_writes_nothing(wanted: list[Resource], marked: dict[str, bool], found: list[Thing]) -> None:
    async def main() -> None:
        ovs = Ovs()
        populate(ovs, marked, found)
        ovs.apply()
        before = _contents(ovs)
        async with life(ovs) as one:
            one.engine.gates.in_sync.starting = "later"
            one.desire(wanted)
            await asyncio.sleep(0.5)
            one.engine.gates.in_sync.started()
            await one.plan()
            assert (ovs.writes, _contents(ovs)) == (0, before)

    virtually(main)
