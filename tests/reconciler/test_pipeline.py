"""The laws of the one path, pass by pass, without an engine around it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desired.resource import Resource, ResourceId
from reconciler.contract import Change, Finding, Group, GroupResult, Outcome, Plan, Scope, Verb, View
from reconciler.errors import DriverError, NotReady, TerminalError, VerificationError
from reconciler.gates.admission import Gates
from reconciler.gates.pauses import DryRun, Only
from reconciler.once import background
from reconciler.pipeline import LARGE, PassResult, Pipeline
from reconciler.settings import Settings
from tests.reconciler.fakes import HERE, Put, VirtualClock, World, WorldController, many, thing, virtually

pytestmark = pytest.mark.looptime


def rid(name: str) -> ResourceId:
    return ResourceId("thing", name)


def view(*resources: Resource, scope: Scope = HERE) -> View:
    every = {r.id: r for r in resources}
    return View(scope, every, "rev", frozenset(), every)


class Bench:
    """A world, its controller, and the path over it."""

    def __init__(self, controller: Any = None, **settings: Any) -> None:
        self.world = World()
        self.controller = controller or WorldController(self.world)
        self.gates = Gates.build(Settings(node="n", **settings), usable=lambda _: True, chance=lambda: 0.5)
        self.gates.in_sync.started()
        self.pipeline = Pipeline({"world": self.controller}, self.gates, VirtualClock())

    async def run(self, *resources: Resource, mounted: Any = ()) -> PassResult:
        return await self.pipeline.run(view(*resources), None, mounted)


async def test_a_pass_does_what_is_planned_and_reads_it_back() -> None:
    bench = Bench()
    result = await bench.run(thing("a"), thing("b"))
    assert [c.resource for c in result.done] == [rid("a"), rid("b")]
    assert (result.failed, result.left, result.withheld, result.blind) == ([], [], [], None)
    assert len(bench.world.looks) == 2
    assert bench.world.looks[1][2] == frozenset([rid("a"), rid("b")])


async def test_a_pass_over_what_is_right_looks_once_and_leaves_no_trace() -> None:
    bench = Bench()
    await bench.run(thing("a"))
    bench.world.looks.clear()
    result = await bench.run(thing("a"))
    assert not result.plan
    assert len(bench.world.looks) == 1
    assert result.owned == {"thing": 1}


@pytest.mark.parametrize(("things", "turns"), [(LARGE - 1, 0), (LARGE, 4)])
async def test_a_large_pass_lets_the_loop_turn_between_its_steps(things: int, turns: int) -> None:
    bench = Bench()
    turned = 0

    async def others() -> None:
        nonlocal turned
        while True:
            await asyncio.sleep(0)
            turned += 1

    async with background(others(), "others"):
        await asyncio.sleep(0)
        before = turned
        result = await bench.run(*(thing(f"t{number}") for number in range(things)))
        assert len(result.done) == things
        assert turned - before == turns


@pytest.mark.parametrize(("trouble", "error"), [("away", NotReady), ("mute", DriverError)])
async def test_a_scope_that_cannot_be_observed_makes_a_blind_pass(trouble: str, error: type[Exception]) -> None:
    bench = Bench()
    getattr(bench.world, trouble).add("here")
    result = await bench.run(thing("a"))
    assert isinstance(result.blind, error)
    assert bench.world.writes == []


@pytest.mark.parametrize(("trouble", "error"), [("away", NotReady), ("mute", DriverError)])
async def test_a_scope_that_goes_away_before_verification_is_not_believed(trouble: str, error: type[Exception]) -> None:
    bench = Bench()
    bench.world.after_writing = lambda _: getattr(bench.world, trouble).add("here")
    result = await bench.run(thing("a"))
    assert isinstance(result.blind, error)
    assert result.done == ()


async def test_a_dry_run_looks_and_withholds_everything_and_spends_nothing() -> None:
    bench = Bench()
    result = await bench.run(thing("a"), mounted=[DryRun()])
    assert [d.withheld.gate for d in result.withheld if d.withheld] == ["dry_run"]
    assert bench.world.writes == []
    assert bench.gates.rate._node.tokens == bench.gates.rate._node.burst


async def test_only_lets_through_what_it_names() -> None:
    bench = Bench()
    result = await bench.run(thing("a"), thing("b"), mounted=[Only("thing/b")])
    assert bench.world.has("a") is None
    assert bench.world.has("b") == "v"
    assert [c.resource for d in result.withheld for c in d.group.changes] == [rid("a")]


@given(bad=st.frozensets(st.integers(0, 39), max_size=6))
def test_whatever_is_refused_is_found_and_everything_else_is_done(bad: frozenset[int]) -> None:
    async def main() -> None:
        bench = Bench()
        bench.world.refuses = {rid(f"t{n:03}") for n in bad}
        result = await bench.run(*many(40))
        assert {f.change.resource for f in result.failed} == bench.world.refuses
        assert len(result.done) == 40 - len(bad)
        assert len(bench.world.at()) == 40 - len(bad)

    virtually(main)


async def test_a_refused_group_that_cannot_be_split_by_gates_is_split_to_find_the_culprit() -> None:
    bench = Bench()
    bench.world.refuses = {rid("t002")}
    result = await bench.run(*many(4, together="x"))
    assert [f.change.resource.name for f in result.failed] == ["t002"]
    assert len(bench.world.at()) == 3


class Scripted(WorldController):
    """Answers as it is told; counts how often it was asked to act."""

    def __init__(self, *errors: tuple[Exception, frozenset[ResourceId]] | None) -> None:
        super().__init__(World())
        self.errors = list(errors)
        self.asked: list[int] = []

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        self.asked += [len(group.changes) for group in groups]
        answer = self.errors.pop(0) if self.errors else None
        if answer is None:
            return await super().act(scope, groups)
        error, culprits = answer
        return [GroupResult(group, error, culprits) for group in groups]  # type: ignore[arg-type]


async def test_a_culprit_that_the_target_names_is_believed_at_once() -> None:
    controller = Scripted((TerminalError("refused"), frozenset([rid("t007")])))
    controller.world.refuses = {rid("t007")}
    result = await Bench(controller).run(*many(100))
    assert controller.asked == [100, 99, 1]
    assert [f.change.resource for f in result.failed] == [rid("t007")]


async def test_a_target_that_did_not_answer_is_not_asked_again_in_halves() -> None:
    controller = Scripted((DriverError("no answer"), frozenset()))
    result = await Bench(controller).run(*many(100))
    assert controller.asked == [100]
    assert len(result.failed) == 100


async def test_what_was_accepted_and_is_not_there_has_failed_verification() -> None:
    bench = Bench()
    bench.world.lies_about = {rid("a")}
    result = await bench.run(thing("a"), thing("b"))
    (failure,) = result.failed
    assert isinstance(failure.error, VerificationError)
    assert [c.resource for c in result.done] == [rid("b")]


class TwoSteps(WorldController):
    """Makes a thing in two steps: first with a preliminary value, then with the right one."""

    def diff(self, view: View, observed: Any) -> Plan:
        plan = super().diff(view, observed)
        groups = []
        for group in plan.groups:
            steps = [
                Change(c.resource, c.verb, Put("here", "first step"), "first") if c.verb is Verb.CREATE else c
                for c in group.changes
            ]
            groups.append(Group(tuple(steps), divisible=True))
        return Plan(tuple(groups), plan.findings, plan.owned, plan.looked_at)


async def test_a_further_step_is_left_for_the_next_pass_and_is_no_failure() -> None:
    bench = Bench(TwoSteps(World()))
    first = await bench.run(thing("a"))
    assert (len(first.done), len(first.left), first.failed) == (1, 1, [])
    second = await bench.run(thing("a"))
    assert (len(second.done), second.left) == (1, [])


class Twice(WorldController):
    """Two changes for one resource (as a held attribute on two ports)."""

    def diff(self, view: View, observed: Any) -> Plan:
        have = self.world.places.setdefault("here", {})
        changes = [
            Change(rid("a"), Verb.UPDATE, Put("here", name), name) for name in ("one", "two") if rid(name) not in have
        ]
        return Plan((Group(tuple(changes), divisible=True),) if changes else ())

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        for change in groups[0].changes:
            if change.action.value == "two":
                self.world.set("two", "v", quietly=True)
        return [GroupResult(group) for group in groups]


async def test_each_change_of_a_resource_is_verified_by_itself() -> None:
    result = await Bench(Twice(World())).run(thing("a"))
    assert [c.why for c in result.done] == ["two"]
    assert [f.change.why for f in result.failed] == ["one"]


async def test_findings_of_the_second_look_win_where_it_looked() -> None:
    bench = Bench()
    bench.world.set("x", "theirs", ours=False, quietly=True)
    bench.world.set("y", "theirs", ours=False, quietly=True)
    bench.world.after_writing = lambda _: bench.world.set("a", "stolen", ours=False, quietly=True)
    result = await bench.run(thing("a"), thing("x"), thing("y"))
    assert {f.resource.name: f.outcome for f in result.findings} == {
        "a": Outcome.CONFLICT, "x": Outcome.CONFLICT, "y": Outcome.CONFLICT,
    }  # fmt: skip
    assert all(isinstance(f, Finding) for f in result.findings)
    await asyncio.sleep(0)


class Vanishing(WorldController):
    """What is to be changed goes away between the look and the deed, once."""

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        if self.world.has("a") is None:
            return await super().act(scope, groups)
        self.world.lose("a", quietly=True)
        return [GroupResult(group, NotReady("there is no a")) for group in groups]


async def test_what_went_away_before_it_could_be_changed_is_left_to_be_made() -> None:
    """Nothing will tell of it any more: the news came in this very pass."""
    bench = Bench()
    bench.controller = Vanishing(bench.world)
    bench.pipeline = Pipeline({"world": bench.controller}, bench.gates, VirtualClock())
    bench.world.set("a", "wrong")
    result = await bench.run(thing("a"))
    assert [(f.change.verb, type(f.error)) for f in result.failed] == [(Verb.UPDATE, NotReady)]
    assert [change.verb for change in result.left] == [Verb.CREATE]
    assert (await bench.run(thing("a"))).left == []
    assert bench.world.has("a") is not None
