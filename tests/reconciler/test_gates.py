"""The laws of the gates, each with the shipped settings, seen in the world and in what people are told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desired.resource import Resource, ResourceId
from desired.snapshot import Snapshot
from reconciler.contract import Change, Group, Outcome, Plan, Scope, Verb, View
from reconciler.gates.backoff import JITTER, Backoff
from reconciler.gates.base import Context
from reconciler.gates.budget import Budget, counted, removed
from reconciler.gates.contention import Contention
from reconciler.gates.rate import Rate
from reconciler.report import Pause
from tests.reconciler.fakes import HERE, WALL, BoxSpec, Lab, many, observed_only, thing

pytestmark = pytest.mark.looptime


def rid(name: str, kind: str = "thing") -> ResourceId:
    return ResourceId(kind, name)


def box(name: str) -> Resource:
    return thing(name, spec=BoxSpec)


# -- in_sync -----------------------------------------------------------------------------------------------------------


async def test_nothing_is_written_before_pauses_and_approvals_are_known() -> None:
    lab = Lab(started=False)
    async with lab.running():
        lab.desire(thing("a"))
        await lab.settle(5.0)
        assert lab.things() == {}
        assert lab.told("a")[:2] == (Outcome.PENDING, "in_sync")
        lab.engine.gates.in_sync.started()
        lab.engine.look(lab.engine.scopes(), "started")
        await lab.settle()
        assert lab.things() == {"a": "v"}


async def test_nothing_is_deleted_while_a_source_is_away_and_repairs_go_on() -> None:
    lab = Lab()
    async with lab.running():
        lab.desire(thing("a"), thing("b"))
        await lab.settle(1.0)
        lab.engine.gates.in_sync.source("files", "files: line 3 is wrong")
        lab.desire(thing("a"))
        lab.world.lose("a")
        await lab.settle(10.0)
        assert lab.things() == {"a": "v", "b": "v"}
        outcome, gate, reason = lab.told("b")
        assert (outcome, gate) == (Outcome.PENDING, "in_sync")
        assert "until source 'files' is in sync: files: line 3 is wrong" in reason


async def test_what_waited_for_its_source_is_deleted_when_that_is_back_without_any_other_event() -> None:
    lab = Lab()
    async with lab.running():
        lab.desire(thing("a"), thing("b"))
        await lab.settle(1.0)
        lab.engine.gates.in_sync.source("files", "away")
        lab.desire(thing("a"))
        await lab.settle(1.0)
        lab.engine.gates.in_sync.source("files", "")
        lab.desire(thing("a"))
        await lab.settle()
        assert lab.things() == {"a": "v"}


async def test_only_the_source_that_declared_a_thing_must_be_there_to_delete_it() -> None:
    lab = Lab()
    async with lab.running():
        lab.desire(thing("a"), thing("f"), thing("o", source="openstack"))
        await lab.settle(1.0)
        lab.engine.gates.in_sync.source("openstack", "no full read yet")
        lab.desire(thing("a"))
        await lab.settle(10.0)
        assert lab.things() == {"a": "v", "o": "v"}
        assert "until source 'openstack' is in sync: no full read yet" in lab.told("o")[2]
        lab.engine.gates.in_sync.source("openstack", "")
        lab.desire(thing("a"))
        await lab.settle()
        assert lab.things() == {"a": "v"}


async def test_of_what_was_left_by_an_earlier_process_no_source_may_be_away() -> None:
    lab = Lab()
    async with lab.running():
        lab.desire(thing("a"), thing("b"))
        await lab.settle(1.0)
        lab.engine.gates.in_sync._declared_by.clear()
        lab.engine.gates.in_sync.source("openstack", "no full read yet")
        left = lab.engine.book.snapshot.resources
        lab.engine.book.snapshot = Snapshot()
        lab.desire(*[resource for rid, resource in left.items() if rid.name == "a"])
        await lab.settle(10.0)
        assert lab.things() == {"a": "v", "b": "v"}


# -- paused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "held"),
    [("node", {"a", "b", "box"}), ("thing", {"a", "b"}), ("thing/a", {"a"}), ("box/box", {"box"})],
)
async def test_a_pause_holds_the_node_a_kind_or_a_resource_and_nothing_else(what: str, held: set[str]) -> None:
    lab = Lab()
    async with lab.running():
        lab.engine.gates.paused.pause(Pause(what, "maintenance", WALL, None, "me"))
        lab.desire(thing("a"), thing("b"), box("box"))
        await lab.settle()
        assert lab.things().keys() == {"a", "b", "box"} - held
        told = {s.resource.name: (s.gate, s.reason) for s in lab.engine.statuses.not_right()}
        assert told.keys() == held
        assert {gate for gate, _ in told.values()} == {"paused"}
        assert all(f"{what} is paused: maintenance" in reason for _, reason in told.values())


async def test_a_pause_with_an_end_ends_by_itself_and_what_waited_is_done() -> None:
    lab = Lab()
    async with lab.running():
        lab.engine.gates.paused.pause(Pause("node", "maintenance", WALL, WALL + 60.0))
        lab.desire(thing("a"))
        await lab.settle(59.0)
        assert lab.things() == {}
        await lab.settle(5.0)
        assert lab.things() == {"a": "v"}
        assert lab.engine.gates.paused.all() == ()


async def test_what_is_only_observed_is_shown_and_never_written_and_its_neighbours_are() -> None:
    lab = Lab()
    async with lab.running():
        lab.desire(thing("a"), observed_only("watched"))
        await lab.settle(1.0)
        assert lab.things() == {"a": "v"}
        assert lab.told("watched")[:2] == (Outcome.PENDING, "paused")
        assert "mode: observe at files" in lab.told("watched")[2]
        lab.desire(thing("a"), thing("watched"))
        await lab.settle()
        assert lab.things() == {"a": "v", "watched": "v"}


async def test_a_pause_is_said_in_the_journal_once() -> None:
    lab = Lab()
    async with lab.running():
        lab.engine.gates.paused.pause(Pause("node", "x", WALL))
        lab.desire(thing("a"))
        for _ in range(10):
            await lab.settle(1.0)
            lab.world.tell()
        assert [(a.result, a.gate) for a in lab.journal.actions()] == [("withheld", "paused")]


# -- backoff -----------------------------------------------------------------------------------------------------------


@given(failures=st.integers(1, 40), dice=st.floats(0, 0.999))
def test_backoff_doubles_from_the_first_delay_to_the_longest_with_jitter(failures: int, dice: float) -> None:
    gate = Backoff(0.005, 300.0, lambda: dice)
    for number in range(failures):
        until = gate.failed(rid("a"), generation=1, error="no", now=0.0)
        plain = min(300.0, 0.005 * 2**number)
        assert plain * (1 - JITTER / 2) <= until <= plain * (1 + JITTER / 2)


def change(
    name: str, verb: Verb = Verb.CREATE, *, prune: bool = False, inside: str = "", kind: str = "thing"
) -> Change:
    container = ResourceId.parse(inside) if inside else None
    return Change(rid(name, kind), verb, name, "why", prune=prune, inside=container)


def context(now: float, *resources: Resource) -> Context:
    return Context(now, WALL + now, View(HERE, {r.id: r for r in resources}, "rev"))


def test_backoff_holds_only_what_failed_and_only_that_generation() -> None:
    gate = Backoff(0.005, 300.0, lambda: 0.5)
    a = thing("a")
    gate.failed(a.id, generation=a.generation, error="no", now=0.0)
    withheld = gate.change(change("a"), context(0.001, a))
    assert withheld is not None
    assert (withheld.outcome, withheld.retry_at) == (Outcome.FAILED, 0.005)
    assert gate.change(change("b"), context(0.001, a)) is None
    assert gate.change(change("a"), context(0.005, a)) is None
    assert gate.change(change("a"), context(0.001, thing("a", "new"))) is None


# -- rate --------------------------------------------------------------------------------------------------------------


@given(
    groups=st.lists(st.tuples(st.sampled_from(["x", "y"]), st.floats(0, 0.2)), max_size=200),
    node=st.tuples(st.floats(1, 100), st.floats(1, 50)),
    kind=st.tuples(st.floats(1, 100), st.floats(1, 50)),
)
@settings(max_examples=50)
def test_rate_never_lets_through_more_than_its_buckets_hold_and_says_when_to_come_back(
    groups: list[tuple[str, float]], node: tuple[float, float], kind: tuple[float, float]
) -> None:
    gate, now = Rate(node=node, kind=kind), 0.0
    passed: list[tuple[float, str]] = []
    for name, pause in groups:
        now += pause
        group = Group((change(name, kind=name),))
        withheld = gate.group(group, context(now))
        if withheld is None:
            gate.charge(group, now)
            passed.append((now, name))
            continue
        assert withheld.retry_at is not None
        assert gate.group(group, context(withheld.retry_at + 1e-6)) is None
    for name in ("x", "y"):
        assert sum(n == name for _, n in passed) <= kind[1] + kind[0] * now + 1
    assert len(passed) <= node[1] + node[0] * now + 1


async def test_a_rate_limit_delays_and_loses_nothing() -> None:
    lab = Lab(rates={"node": {"per_second": 10, "burst": 2}, "kind": {"per_second": 10, "burst": 2}})
    async with lab.running():
        lab.desire(*(thing(f"t{n}", place=f"p{n}") for n in range(20)))
        await lab.settle(0.5)
        assert 2 <= len(lab.world.writes) <= 8
        assert any(s.gate == "rate" for s in lab.engine.statuses.not_right())
        await lab.settle(5.0)
        assert lab.engine.converged()


async def test_the_shipped_rates_let_a_whole_node_be_built_at_once() -> None:
    lab = Lab()
    async with lab.running():
        lab.desire(*(thing(f"t{n}", place=f"p{n % 50}", together=str(n % 3)) for n in range(300)))
        await lab.settle(0.5)
        assert lab.engine.converged()


# -- contention --------------------------------------------------------------------------------------------------------


@given(gaps=st.lists(st.floats(0.0, 10.0), max_size=100))
def test_contention_never_delays_more_than_the_longest_delay_and_forgets(gaps: list[float]) -> None:
    gate, now = Contention(3.0), 0.0
    for gap in gaps:
        now += gap
        withheld = gate.change(change("a"), context(now))
        if withheld is not None:
            assert withheld.outcome is Outcome.CONTENDED
            assert withheld.retry_at is not None
            assert now < withheld.retry_at <= now + 3.0
            now = withheld.retry_at
        gate.repaired(change("a"), now)
    assert gate.contended(rid("a"), now + 1000.0) == ""
    assert gate.fights(now + 1000.0) == {}


def test_what_is_fought_over_is_said_with_what_the_other_does() -> None:
    gate = Contention(3.0)
    for _ in range(12):
        gate.repaired(change("a"), 1.0)
        gate.repaired(Change(rid("b"), Verb.UPDATE, "b", "mtu differs", "mtu 1400", "mtu 1500"), 1.0)
    assert gate.fights(1.0) == {
        rid("a"): "why; somebody deletes it each time",
        rid("b"): "mtu differs; somebody sets 'mtu 1400'",
    }


# -- budget ------------------------------------------------------------------------------------------------------------


async def test_few_deletes_are_done_at_once() -> None:
    lab = Lab()
    async with lab.running():
        everything = list(many(40))
        lab.desire(*everything)
        await lab.settle()
        lab.desire(*everything[:30])
        await lab.settle()
        assert len(lab.things()) == 30


async def test_over_the_budget_every_delete_of_the_revision_waits_and_repairs_go_on() -> None:
    lab = Lab()
    async with lab.running():
        everything = [*many(40), *many(8, "u", place="there"), box("b1"), box("b2")]
        lab.desire(*everything)
        await lab.settle(1.0)
        left = [*everything[:20], *everything[40:47], box("b1")]
        lab.desire(*left)
        lab.world.lose("t000")
        await lab.settle(5.0)
        assert len(lab.things()) == 42
        assert len(lab.things("there")) == 8
        assert lab.world.has("t000") == "v"
        gates = {s.gate for s in lab.engine.statuses.not_right()}
        assert gates == {"budget"}
        (report,) = lab.engine.gates.budget.report(lab.engine.book.snapshot.revision, 0.0)
        assert (report.kind, report.wanted, report.allowed, report.owned) == ("thing", 21, 12, 48)


def test_what_was_deleted_a_short_while_ago_is_told_apart_and_nobody_loses_more_than_is_owned() -> None:
    gate = Budget(minimum=3, share=0.25, window=600.0)
    scope, things = Scope("things", "here"), [ResourceId("thing", name) for name in "abcde"]
    deletes = [Change(rid, Verb.DELETE, None, "no longer declared", prune=True) for rid in things for _ in "xy"]
    gate.plan(scope, Plan((Group(tuple(deletes), divisible=True),), owned={"thing": 5}))
    gate.spent(deletes[:4], 10.0)
    gate.acted(scope, deletes[:4], new=None)
    (report,) = gate.report("r1", 20.0)
    assert (report.wanted, report.recent, report.owned, report.allowed) == (5, 2, 5, 3)
    gate.announce({"thing": 9}, {}, [scope])
    (report,) = gate.report("r1", 20.0)
    assert report.wanted == report.owned == 9


async def test_what_is_looked_at_first_waits_for_what_the_others_lose() -> None:
    lab = Lab()
    async with lab.running():
        everything = [box("b1"), *many(8, "t", place="b"), *many(8, "u", place="c")]
        lab.desire(*everything)
        await lab.settle(1.0)
        lab.world.slow = {"b": 0.5, "c": 0.5}
        lab.desire(everything[1])
        await lab.settle(5.0)
        assert [len(lab.things(place)) for place in ("here", "b", "c")] == [1, 8, 8]
        lab.engine.gates.budget.approve(lab.engine.book.snapshot.revision)
        lab.world.tell()
        await lab.settle(5.0)
        assert lab.things() == {}


async def test_what_was_announced_and_is_not_there_holds_up_nothing_for_ever() -> None:
    lab = Lab()
    async with lab.running():
        everything = [box("b1"), *many(8, "t", place="b"), *many(8, "u", place="c")]
        lab.desire(*everything)
        await lab.settle(1.0)
        for name in [*lab.things("b"), *lab.things("c")]:
            lab.world.lose(name, place="b" if name in lab.things("b") else "c", quietly=True)
        lab.world.slow = {"b": 0.5, "c": 0.5}
        lab.desire(everything[1])
        await lab.settle(5.0)
        assert lab.things() == {}
        assert lab.engine.converged()


async def test_approve_lets_exactly_that_revision_through() -> None:
    lab = Lab()
    async with lab.running():
        everything = list(many(40))
        lab.desire(*everything)
        await lab.settle()
        lab.desire(*everything[:20])
        await lab.settle()
        revision = lab.engine.book.snapshot.revision
        lab.engine.gates.budget.approve(revision)
        lab.desire(*everything[:19])
        await lab.settle(5.0)
        assert len(lab.things()) == 40
        lab.desire(*everything[:20])
        await lab.settle()
        assert len(lab.things()) == 20
        assert lab.engine.converged()


async def test_what_is_declared_again_frees_what_waited_because_of_it() -> None:
    lab = Lab()
    async with lab.running():
        everything = list(many(40))
        one = thing("one", place="there")
        lab.desire(*everything, one)
        await lab.settle()
        lab.desire(*everything[:20])
        await lab.settle()
        assert lab.world.has("one", "there") == "v"
        lab.desire(*everything)
        await lab.settle()
        assert lab.things("there") == {}
        assert len(lab.things()) == 40


async def test_small_steps_add_up_within_ten_minutes_and_go_on_afterwards() -> None:
    lab = Lab()
    async with lab.running():
        everything = list(many(12))
        lab.desire(*everything)
        await lab.settle()
        for left in (11, 10, 9):
            lab.desire(*everything[:left])
            await lab.settle(10.0)
            assert len(lab.things()) == left
        lab.desire(*everything[:8])
        await lab.settle(500.0)
        assert len(lab.things()) == 9
        assert lab.engine.statuses.not_right()[0].gate == "budget"
        await lab.settle(110.0)
        assert len(lab.things()) == 8


async def test_deletes_spread_over_places_count_once_each() -> None:
    lab = Lab()
    async with lab.running():
        everything = [thing(f"{place}{n}", place=place) for place in "abcd" for n in range(6)]
        lab.desire(*everything)
        await lab.settle()
        lab.desire(*(r for r in everything if not r.id.name.endswith("0")))
        await lab.settle()
        assert sum(len(lab.things(place)) for place in "abcd") == 20
        assert not lab.engine.gates.budget.report(lab.engine.book.snapshot.revision, 1.0)


async def test_what_is_contained_counts_with_its_container() -> None:
    lab = Lab()
    async with lab.running():
        inside = [thing(f"in{n}", inside="box/b") for n in range(20)]
        lab.desire(box("b"), box("c"), *inside)
        await lab.settle()
        lab.desire(box("c"))
        await lab.settle()
        assert lab.things() == {"c": "v"}


async def test_restoring_what_is_declared_is_never_budgeted() -> None:
    lab = Lab()
    async with lab.running():
        lab.desire(*many(100))
        await lab.settle()
        for _ in range(10):
            lab.world.places["here"].clear()
            lab.world.tell()
            await lab.settle(1.0)
            assert len(lab.things()) == 100
        for name in list(lab.things()):
            lab.world.set(name, "wrong", quietly=True)
        lab.world.tell()
        await lab.settle(1.0)
        assert set(lab.things().values()) == {"v"}


async def test_a_place_that_went_away_with_what_waited_there_is_no_longer_over_the_budget() -> None:
    lab = Lab()
    async with lab.running():
        lab.desire(thing("keep"), *many(10, place="there"))
        await lab.settle()
        lab.desire(thing("keep"))
        await lab.settle()
        assert len(lab.things("there")) == 10
        lab.world.places.pop("there")
        lab.world.away.add("there")
        lab.world.tell("there")
        await lab.settle()
        assert not lab.engine.gates.budget.report(lab.engine.book.snapshot.revision, 1.0)
        assert lab.engine.statuses.not_right() == []


def test_a_delete_that_is_a_replacement_inside_its_group_is_none() -> None:
    swap = [change("old", Verb.DELETE, prune=True), change("new")]
    assert counted(swap) == {}
    assert counted([*swap, change("gone", Verb.DELETE, prune=True)]) == {"thing": [rid("gone")]}
    assert counted([change("inner", Verb.DELETE, prune=True, inside="box/b")]) == {}


def test_what_a_new_state_removes_is_net_of_what_it_adds() -> None:
    def index(*resources: Resource) -> dict[ResourceId, Resource]:
        return {r.id: r for r in resources}

    old = index(box("b"), *(thing(f"in{n}", inside="box/b") for n in range(9)), thing("x"), thing("y"))
    assert removed(old, {}) == {"box": 1, "thing": 2}
    assert removed(old, {**old, **index(thing("z"))}) == {}
    assert removed(old, index(thing("y"), thing("z"))) == {"box": 1}


@given(
    steps=st.lists(st.tuples(st.integers(0, 60), st.floats(0, 400)), max_size=15),
    owned=st.integers(1, 100),
)
def test_without_approval_ten_minutes_never_take_more_than_the_share(
    steps: list[tuple[int, float]], owned: int
) -> None:
    gate = Budget(minimum=3, share=0.25, window=600.0)
    now, left = 0.0, owned
    spent: list[tuple[float, int]] = []
    for number, (wish, pause) in enumerate(steps):
        now += pause
        count = min(wish, left)
        deletes = tuple(change(f"{number}/{n}", Verb.DELETE, prune=True) for n in range(count))
        plan = Plan((Group(deletes, divisible=True),) if deletes else (), owned={"thing": left})
        gate.plan(HERE, plan)
        ctx = Context(now, WALL, View(HERE, {}, f"rev{number}"), plan)
        if deletes and not (gate.active(ctx) and gate.change(deletes[0], ctx)):
            recent = sum(n for at, n in spent if at >= now - 600.0)
            assert count + recent <= max(3, 0.25 * (left + recent))
            gate.spent(deletes, now)
            spent.append((now, count))
            left -= count
