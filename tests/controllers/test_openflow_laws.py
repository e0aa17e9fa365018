"""The laws of flows, over a fake switch that interprets and a compiler of a tiny syntax, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.drivers.openflow.flows import Flow, FlowKey
from controllers.ownership import is_our_cookie
from desired.resource import Mode, Resource
from reconciler.contract import Outcome, Scope
from tests.controllers.fakes.node import (
    MINE,
    THEIRS,
    bridge,
    flow,
    flows_of,
    key,
    life,
    port,
    rival_bridge,
    rival_delete_port,
    theirs,
)
from tests.controllers.fakes.ovs import DEFAULT, NORMAL, Ovs
from tests.reconciler.fakes import virtually

pytestmark = pytest.mark.looptime

BR = bridge("br0")
SHARED = bridge("br0", flows="shared")
ONE, TWO = flow("br0", "priority=1,actions=drop"), flow("br0", "priority=2,x=2,actions=normal")


def shown(ovs: Ovs, name: str = "br0") -> dict[FlowKey, bytes]:
    """The flows of a bridge that are ours: what they do."""
    return {k: f.instructions for k, f in flows_of(ovs, name).items() if is_our_cookie(f.cookie)}


async def test_declared_flows_are_installed_with_our_cookie_and_the_switch_s_own_goes() -> None:
    ovs = Ovs()
    async with life(ovs, [bridge("br0", fail_mode="standalone"), ONE, TWO]) as one:
        assert shown(ovs) == {key("priority=1"): b"", key("priority=2,x=2"): b"normal"}
        assert flows_of(ovs, "br0").keys() == shown(ovs).keys()
        assert one.engine.converged()


async def test_a_standalone_bridge_without_declared_flows_keeps_the_switch_s_own() -> None:
    ovs = Ovs()
    async with life(ovs, [bridge("br0", fail_mode="standalone")]):
        assert flows_of(ovs, "br0") == {DEFAULT: NORMAL}


@pytest.mark.parametrize("number", [1, 5, 200])
async def test_missing_flows_come_back_by_the_event(number: int) -> None:
    ovs = Ovs()
    many = [flow("br0", f"priority=5,x={n},actions=drop") for n in range(300)]
    async with life(ovs, [BR, *many]) as one:
        before = flows_of(ovs, "br0")
        for k in list(before)[:number]:
            ovs.rival_flow("br0", k, None)
        await asyncio.sleep(0.01)
        assert flows_of(ovs, "br0") == before
        assert sum(action.drift for action in one.journal.actions("done")) == number


async def test_changed_actions_under_the_same_cookie_are_seen() -> None:
    ovs = Ovs()
    async with life(ovs, [BR, ONE]):
        k, f = next(iter(flows_of(ovs, "br0").items()))
        ovs.rival_flow("br0", k, f._replace(instructions=b"normal"))
        await asyncio.sleep(0.01)
        assert flows_of(ovs, "br0") == {k: f}


async def test_a_foreign_flow_on_an_exclusive_bridge_is_drift() -> None:
    ovs = Ovs()
    async with life(ovs, [BR, ONE]) as one:
        ovs.rival_flow("br0", key("priority=99"), theirs("normal"))
        await asyncio.sleep(0.01)
        assert flows_of(ovs, "br0").keys() == {key("priority=1")}
        (action,) = [a for a in one.journal.actions("done") if a.verb == "delete"]
        assert action.drift
        assert "foreign flow (cookie 0xabc)" in action.why


async def test_a_foreign_flow_on_an_observed_bridge_stays() -> None:
    ovs = Ovs()
    async with life(ovs, [BR, ONE]) as one:
        one.desire([bridge("br0", mode=Mode.OBSERVE), ONE])
        await asyncio.sleep(0.1)
        ovs.rival_flow("br0", key("priority=99"), theirs("normal"))
        await asyncio.sleep(5.0)
        assert key("priority=99") in flows_of(ovs, "br0")


async def test_a_foreign_flow_on_a_shared_bridge_stays_and_what_is_ours_is_held() -> None:
    ovs = Ovs()
    async with life(ovs, [SHARED, ONE, TWO]) as one:
        ovs.rival_flow("br0", key("priority=99"), theirs("normal"))
        ovs.rival_flow("br0", key("priority=1"), None)
        await asyncio.sleep(0.1)
        assert flows_of(ovs, "br0")[key("priority=99")] == theirs("normal")
        assert shown(ovs).keys() == {key("priority=1"), key("priority=2,x=2")}
        one.desire([SHARED, ONE])
        await asyncio.sleep(0.1)
        assert flows_of(ovs, "br0").keys() == {key("priority=1"), key("priority=99")}


@pytest.mark.parametrize("actions", ["drop", "normal"])
async def test_a_match_that_another_holds_on_a_shared_bridge_is_a_conflict_until_adopted(actions: str) -> None:
    ovs = Ovs()
    rival_bridge(ovs, "br0", ours=True, fail_mode="secure")
    ovs.apply()
    ovs.rival_flow("br0", key("priority=1"), theirs(actions))
    async with life(ovs, [SHARED, ONE, TWO]) as one:
        assert flows_of(ovs, "br0")[key("priority=1")] == theirs(actions)
        assert key("priority=2,x=2") in shown(ovs)
        rid = "flow/br0/priority=1"
        assert one.status(rid) is Outcome.CONFLICT
        assert "cookie 0xabc" in one.reason(rid)
        one.desire([SHARED, flow("br0", "priority=1,actions=drop", adopt=True), TWO])
        await asyncio.sleep(0.1)
        assert key("priority=1") in shown(ovs)
        assert one.engine.converged()


async def test_a_learned_flow_is_never_drift() -> None:
    ovs = Ovs()
    async with life(ovs, [BR, ONE]) as one:
        writes, entries = ovs.writes, len(one.journal.entries)
        learned = {key(f"table=20,x={n}"): theirs("normal", hard_timeout=300) for n in range(5)}
        for k, f in learned.items():
            ovs.rival_flow("br0", k, f)
        one.engine.look(one.engine.scopes(), "asked", prove=True)
        await asyncio.sleep(5.0)
        for k in learned:
            ovs.rival_flow("br0", k, None)
        await asyncio.sleep(5.0)
        assert (ovs.writes, len(one.journal.entries)) == (writes, entries)


async def test_a_declared_flow_with_a_timeout_comes_back_when_it_has_timed_out() -> None:
    ovs = Ovs()
    async with life(ovs, [BR, flow("br0", "priority=1,idle_timeout=60,actions=drop")]):
        (k,) = flows_of(ovs, "br0")
        ovs.rival_flow("br0", k, None)
        await asyncio.sleep(0.01)
        assert flows_of(ovs, "br0")[k].idle_timeout == 60


async def test_an_invalid_flow_is_said_and_the_others_are_installed() -> None:
    ovs = Ovs()
    async with life(ovs, [BR, ONE, flow("br0", "priority=3,actions=invalid"), TWO]) as one:
        assert shown(ovs).keys() == {key("priority=1"), key("priority=2,x=2")}
        assert one.status("flow/br0/priority=3") is Outcome.FAILED
        assert "unknown action invalid" in one.reason("flow/br0/priority=3")


async def test_a_flow_that_the_switch_refuses_is_found_and_the_others_are_installed_at_once() -> None:
    ovs = Ovs()
    many = [flow("br0", f"priority=5,x={n},actions={'refused' if n in (3, 77) else 'drop'}") for n in range(100)]
    async with life(ovs, [BR]) as one:
        one.desire([BR, *many])
        await asyncio.sleep(0.005)
        assert len(shown(ovs)) == 98
        assert {str(s.resource) for s in one.engine.statuses.not_right()} == {
            "flow/br0/priority=5,x=3", "flow/br0/priority=5,x=77",
        }  # fmt: skip
        writes = ovs.writes
        await asyncio.sleep(600.0)
        assert ovs.writes == writes  # a refusal is no write, and nothing else is done over and over


async def test_what_a_switch_reports_in_other_words_is_not_installed_for_ever() -> None:
    ovs = Ovs()
    async with life(ovs, [BR, flow("br0", "priority=1,actions=odd")]) as one:
        assert one.engine.converged()
        writes = ovs.writes
        one.engine.look(one.engine.scopes(), "asked", prove=True)
        await asyncio.sleep(1.0)
        assert ovs.writes == writes
        ovs.rival_flow("br0", key("priority=1"), flows_of(ovs, "br0")[key("priority=1")]._replace(instructions=b"x"))
        await asyncio.sleep(0.1)
        assert shown(ovs) == {key("priority=1"): b"in other words"}


async def test_two_flows_of_one_match_are_a_mistake_of_the_second() -> None:
    ovs = Ovs()
    again = flow("br0", "x=2,priority=2,actions=drop")
    async with life(ovs, [BR, TWO, again]) as one:
        (status,) = one.engine.statuses.not_right()
        assert status.outcome is Outcome.FAILED
        assert "means the same match as" in status.reason
        assert len(shown(ovs)) == 1


# -- ports -------------------------------------------------------------------------------------------------------------


async def test_flows_name_ports_and_follow_their_numbers() -> None:
    ovs = Ovs()
    named = [flow("br0", "priority=1,in_port=p0,actions=output:p1"), flow("br0", "priority=2,x=1,actions=output:p0")]
    async with life(ovs, [BR, port("p0", "br0", ofport_request=7), port("p1", "br0", ofport_request=8), *named]) as one:
        assert set(shown(ovs).values()) == {b"output:8", b"output:7"}
        one.desire([BR, port("p0", "br0", ofport_request=9), port("p1", "br0", ofport_request=8), *named])
        await asyncio.sleep(0.2)
        rival_delete_port(ovs, "p0")
        ovs.apply()
        await asyncio.sleep(0.5)
        assert ovs.bridges["br0"].ports["p0"] == 9
        assert shown(ovs) == {FlowKey(0, 1, b"in_port=9"): b"output:8", FlowKey(0, 2, b"x=1"): b"output:9"}
        assert one.engine.converged()


async def test_a_flow_waits_for_its_port_says_so_and_comes_with_it() -> None:
    ovs = Ovs()
    waits = flow("br0", "priority=1,in_port=late,actions=drop")
    async with life(ovs, [BR, waits, TWO]) as one:
        assert shown(ovs).keys() == {key("priority=2,x=2")}
        assert one.status(str(waits.id)) is Outcome.PENDING
        assert "waits for port late on bridge br0" in one.reason(str(waits.id))
        one.desire([BR, waits, TWO, port("late", "br0")])
        await asyncio.sleep(0.1)
        assert len(shown(ovs)) == 2
        assert one.engine.converged()


async def test_a_flow_that_waits_for_a_port_in_trouble_does_not_look_over_and_over() -> None:
    ovs = Ovs()
    waits = flow("br0", "priority=1,in_port=eth9,actions=drop")
    async with life(ovs, [BR, waits, port("eth9", "br0", type="system")]) as one:
        await asyncio.sleep(1000.0)
        before = one.engine._pass_id
        await asyncio.sleep(100.0)
        assert one.engine._pass_id - before < 10
        assert one.status(str(waits.id)) is Outcome.PENDING


async def test_a_port_that_goes_takes_no_flow_of_another_along() -> None:
    ovs = Ovs()
    named = flow("br0", "priority=1,in_port=p0,actions=drop")
    async with life(ovs, [BR, port("p0", "br0"), named, TWO]) as one:
        one.desire([BR, named, TWO])
        await asyncio.sleep(0.5)
        assert key("priority=2,x=2") in shown(ovs)
        assert one.status(str(named.id)) is Outcome.PENDING


# -- life and death ----------------------------------------------------------------------------------------------------


async def test_a_restarted_switch_gets_all_its_flows_again() -> None:
    ovs = Ovs()
    many = [flow("br0", f"priority=5,x={n},actions=drop") for n in range(50)]
    async with life(ovs, [BR, *many]) as one:
        before = flows_of(ovs, "br0")
        ovs.stop_vswitchd()
        await asyncio.sleep(1.0)
        assert one.status("flow/br0/*") is Outcome.PENDING
        ovs.start_vswitchd()
        await asyncio.sleep(0.05)
        assert flows_of(ovs, "br0") == before
        assert one.engine.converged()


async def test_left_overs_on_a_bridge_of_ours_are_pruned_within_the_budget() -> None:
    ovs = Ovs()
    rival_bridge(ovs, "br0", ours=True, fail_mode="secure")
    ovs.apply()
    for n in range(3):
        ovs.rival_flow("br0", key(f"x={n}"), Flow(b"", MINE | n))
    async with life(ovs, [BR]):
        assert flows_of(ovs, "br0") == {}


async def test_too_many_flows_at_once_wait_for_approval_and_are_counted_over_all_bridges() -> None:
    ovs = Ovs()
    both = [BR, bridge("br1")]
    many = [flow(on, f"priority=5,x={n},actions=drop") for n in range(20) for on in ("br0", "br1")]
    async with life(ovs, [*both, *many]) as one:
        one.desire([*both, *many[:24]])
        await asyncio.sleep(5.0)
        assert len(shown(ovs, "br0")) + len(shown(ovs, "br1")) == 40
        assert {s.gate for s in one.engine.statuses.not_right()} == {"budget"}
        one.desire([*both, *many[:32]])
        await asyncio.sleep(5.0)
        assert len(shown(ovs, "br0")) + len(shown(ovs, "br1")) == 32
        assert one.engine.converged()


async def test_a_bridge_that_goes_with_its_flows_leaves_nothing_behind() -> None:
    ovs = Ovs()
    async with life(ovs, [BR, ONE, TWO, bridge("br1")]) as one:
        one.desire([bridge("br1")])
        await asyncio.sleep(1.0)
        assert ovs.bridges.keys() == {"br1"}
        assert one.engine.statuses.not_right() == []
        assert one.engine.converged()


async def test_a_narrowed_pass_looks_at_what_it_was_told_and_finds_the_same() -> None:
    ovs = Ovs()
    many = [flow("br0", f"priority=5,x={n},actions=drop") for n in range(20)]
    async with life(ovs, [BR, *many]) as one:
        view = one.engine.book.view(Scope("flow", "br0"), frozenset())
        for n in (3, 5):
            ovs.bridges["br0"].flows.pop(key(f"priority=5,x={n}"))
            one.openflow._bridges["br0"].switch._flows.pop(key(f"priority=5,x={n}"))  # type: ignore[attr-defined]
        whole = one.openflow.diff(view, await one.openflow.observe(view, None))
        focus = frozenset([key("priority=5,x=3"), key("priority=5,x=4")])
        narrow = one.openflow.diff(view, await one.openflow.observe(view, focus))
        (change,) = narrow.groups[0].changes
        assert change in whole.groups[0].changes
        assert narrow.looked_at == {many[3].id, many[4].id}


# -- from any world ----------------------------------------------------------------------------------------------------

HEADS = ["priority=1", "priority=1,x=1", "priority=2,x=2", "table=1,priority=1"]
ACTIONS = ["drop", "normal", "odd", "output:p0", "invalid", "refused"]


@st.composite
def declarations(draw: st.DrawFn) -> list[Resource]:
    shared = draw(st.sampled_from(["exclusive", "shared"]))
    found = [bridge("br0", flows=shared, fail_mode=draw(st.sampled_from(["secure", "standalone"])))]
    if draw(st.booleans()):
        found.append(port("p0", "br0"))
    for head in draw(st.lists(st.sampled_from(HEADS), unique=True)):
        found.append(flow("br0", f"{head},actions={draw(st.sampled_from(ACTIONS))}", adopt=draw(st.booleans())))
    return draw(st.permutations(found))


FOUND = st.dictionaries(
    st.sampled_from([*HEADS, "priority=9"]),
    st.tuples(
        st.sampled_from(["drop", "normal", "in other words"]), st.sampled_from([MINE | 1, THEIRS, 0]), st.booleans()
    ),
)
LOOSE = {"budget": {"minimum": 1000, "share": 1.0}}


def populate(ovs: Ovs, found: dict[str, tuple[str, int, bool]]) -> None:
    rival_bridge(ovs, "br0", ours=True, fail_mode="standalone")
    ovs.apply()
    for head, (actions, cookie, learned) in found.items():
        ovs.rival_flow("br0", key(head), theirs(actions, cookie, hard_timeout=300 if learned else 0))


def right(ovs: Ovs, wanted: list[Resource], found: dict[str, tuple[str, int, bool]], said: dict[str, Outcome]) -> None:
    """What is not said to be wrong is installed; what is foreign stays where it may; nothing of ours is left over."""
    flows = flows_of(ovs, "br0")
    spec: Any
    declared: dict[FlowKey, Resource] = {}
    for resource in wanted:
        if resource.id.kind == "flow":
            spec = resource.spec
            declared[key(spec.flow.partition(",actions")[0])] = resource
    for k, resource in declared.items():
        if str(resource.id) not in said:
            assert is_our_cookie(flows[k].cookie)
            spec = resource.spec
            actions = spec.flow.partition("actions=")[2]
            expected = {"drop": b"", "odd": b"in other words", "output:p0": b"output:1"}.get(actions, actions.encode())
            assert flows[k].instructions == expected
    shared = any(getattr(r.spec, "flows", "") == "shared" for r in wanted)
    for head, (actions, cookie, learned) in found.items():
        untouched = flows.get(key(head)) == theirs(actions, cookie, hard_timeout=300 if learned else 0)
        if key(head) not in declared and (learned or (shared and not is_our_cookie(cookie))):
            assert untouched
    left = {k for k, f in flows.items() if is_our_cookie(f.cookie) and not f.hard_timeout}
    failed = {k for k, r in declared.items() if said.get(str(r.id)) in {Outcome.FAILED, Outcome.PENDING}}
    assert left <= declared.keys() | failed


@given(wanted=declarations(), found=FOUND)
@settings(max_examples=60, deadline=None)
def test_from_any_world_the_declared_flows_are_reached_and_what_is_foreign_stays(
    wanted: list[Resource], found: dict[str, tuple[str, int, bool]]
) -> None:
    async def main() -> None:
        ovs = Ovs()
        populate(ovs, found)
        async with life(ovs, wanted, **LOOSE) as one:
            await asyncio.sleep(2.0)
            said = {str(s.resource): s.outcome for s in one.engine.statuses.not_right()}
            right(ovs, wanted, found, said)
            writes, flows = ovs.writes, flows_of(ovs, "br0")
            one.engine.look(one.engine.scopes(), "again", prove=True)
            await asyncio.sleep(2.0)
            assert (ovs.writes, flows_of(ovs, "br0")) == (writes, flows)
        async with life(ovs, list(reversed(wanted)), **LOOSE):
            await asyncio.sleep(1.0)
            assert flows_of(ovs, "br0") == flows

    virtually(main)


@given(wanted=declarations(), found=FOUND, dies=st.integers(0, 4), answered=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_daemon_that_dies_after_any_write_is_followed_by_one_that_converges(
    wanted: list[Resource], found: dict[str, tuple[str, int, bool]], dies: int, *, answered: bool
) -> None:
    async def main() -> None:
        ovs, straight = Ovs(), Ovs()
        for each in (ovs, straight):
            populate(each, found)
        async with life(straight, wanted, **LOOSE):
            await asyncio.sleep(2.0)
        ovs.stop_after, ovs.answered = dies, answered
        async with life(ovs, wanted, **LOOSE):
            await asyncio.sleep(0.1)
        ovs.stop_after = None
        async with life(ovs, wanted, **LOOSE):
            await asyncio.sleep(2.0)
        assert flows_of(ovs, "br0") == flows_of(straight, "br0")

    virtually(main)


@given(
    wanted=declarations(),
    hits=st.dictionaries(
        st.integers(0, 5),
        st.tuples(st.sampled_from([*HEADS, "priority=9"]), st.sampled_from(["gone", "theirs", "changed"])),
    ),
)
@settings(max_examples=40, deadline=None)
def test_a_rival_between_observe_and_act_is_survived(wanted: list[Resource], hits: dict[int, tuple[str, str]]) -> None:
    async def main() -> None:
        ovs = Ovs()
        count = iter(range(10_000))

        def rival() -> None:
            head, what = hits.get(next(count), ("", ""))
            if head and "br0" in ovs.bridges:
                held = ovs.bridges["br0"].flows.get(key(head))
                new = {"gone": None, "theirs": theirs("normal"), "changed": held and held._replace(instructions=b"x")}
                ovs.rival_flow("br0", key(head), new[what])

        ovs.before_write = rival
        async with life(ovs, wanted, **LOOSE) as one:
            await asyncio.sleep(5.0)
            said = {str(s.resource): s.outcome for s in one.engine.statuses.not_right()}
            right(ovs, wanted, {}, said)

    virtually(main)


@given(wanted=declarations(), found=FOUND)
@settings(max_examples=30, deadline=None)
def test_a_plan_writes_nothing(wanted: list[Resource], found: dict[str, tuple[str, int, bool]]) -> None:
    async def main() -> None:
        ovs = Ovs()
        populate(ovs, found)
        before = flows_of(ovs, "br0")
        async with life(ovs) as one:
            one.engine.gates.in_sync.starting = "later"
            one.desire(wanted)
            await asyncio.sleep(0.5)
            one.engine.gates.in_sync.started()
            await one.plan()
            assert (ovs.writes, flows_of(ovs, "br0")) == (0, before)

    virtually(main)
