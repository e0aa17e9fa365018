"""What a source says becomes what is enforced: additions at once, removals not in haste, mistakes never."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desired.resource import Difference, Resource
from desired.schema import Loaded, Problem
from desired.snapshot import Snapshot
from reconciler.contract import Outcome
from reconciler.intake import Intake
from tests.reconciler.fakes import Lab, many, thing, virtually

pytestmark = pytest.mark.looptime

REMOVE = 2.0
WRONG = Problem("no such key 'tga'", "/etc/net.yaml", 3, 7, "ports.p0", "did you mean 'tag'?")


class Desk:
    """A lab whose desired state comes in by an intake."""

    def __init__(self) -> None:
        self.lab = Lab()
        self.revisions: list[str] = []
        self.intake = Intake(
            self.lab.engine, "files", REMOVE, lambda snapshot: self.revisions.append(snapshot.revision)
        )

    def takes(self, *resources: Resource, problems: tuple[Problem, ...] = ()) -> None:
        self.intake.take(Loaded(resources, problems))

    def follows(self, *put: Resource, gone: tuple[str, ...] = ()) -> None:
        """As `takes`, told only of what is other than before."""
        self.intake.take(Loaded(), Difference(put, tuple(thing(name).id for name in gone)))


async def test_additions_and_changes_take_effect_at_once() -> None:
    desk = Desk()
    async with desk.lab.running():
        desk.takes(thing("a"))
        await desk.lab.settle(0.01)
        desk.takes(thing("a", "w"), thing("b"))
        await desk.lab.settle(0.01)
        assert desk.lab.things() == {"a": "w", "b": "v"}
        assert len(desk.revisions) == 2


async def test_removals_wait_and_what_comes_with_them_does_not() -> None:
    desk = Desk()
    async with desk.lab.running():
        desk.takes(thing("a"), thing("b"))
        await desk.lab.settle(1.0)
        desk.takes(thing("b", "w"), thing("c"))
        await desk.lab.settle(REMOVE - 0.1)
        assert desk.lab.things() == {"a": "v", "b": "w", "c": "v"}
        await desk.lab.settle(0.2)
        assert desk.lab.things() == {"b": "w", "c": "v"}


async def test_what_is_followed_takes_effect_at_once_and_puts_no_removal_off() -> None:
    desk = Desk()
    async with desk.lab.running():
        desk.takes(thing("a"), thing("b"), thing("c"))
        await desk.lab.settle(1.0)
        desk.follows(gone=("a",))
        for number in range(4):
            desk.follows(thing("b", f"w{number}"), gone=("c",) if number == 3 else ())
            await desk.lab.settle(REMOVE / 4 + 0.02)
            assert desk.lab.things()["b"] == f"w{number}"
        assert desk.lab.things() == {"b": "w3", "c": "v"}
        desk.follows(thing("d"))
        await desk.lab.settle(REMOVE)
        assert desk.lab.things() == {"b": "w3", "d": "v"}


async def test_what_is_followed_brings_back_what_was_about_to_go() -> None:
    desk = Desk()
    async with desk.lab.running():
        desk.takes(thing("a"), thing("b"))
        await desk.lab.settle(1.0)
        writes = len(desk.lab.world.writes)
        desk.follows(gone=("a",))
        await desk.lab.settle(REMOVE / 2)
        desk.follows(thing("a"))
        await desk.lab.settle(REMOVE * 2)
        assert len(desk.lab.world.writes) == writes
        assert desk.lab.things() == {"a": "v", "b": "v"}


async def test_what_is_gone_and_back_in_time_was_never_gone() -> None:
    desk = Desk()
    async with desk.lab.running():
        desk.takes(thing("a"), thing("b"))
        await desk.lab.settle(1.0)
        writes = len(desk.lab.world.writes)
        desk.takes(thing("a"))
        await desk.lab.settle(REMOVE / 2)
        desk.takes(thing("a"), thing("b"))
        await desk.lab.settle(REMOVE * 2)
        assert len(desk.lab.world.writes) == writes
        assert desk.lab.things() == {"a": "v", "b": "v"}


async def test_a_mistake_changes_nothing_and_stops_what_was_to_be_removed() -> None:
    desk = Desk()
    async with desk.lab.running():
        desk.takes(thing("a"), thing("b"))
        await desk.lab.settle(1.0)
        desk.takes(thing("a"))
        await desk.lab.settle(REMOVE / 2)
        desk.takes(thing("x"), problems=(WRONG,))
        await desk.lab.settle(REMOVE * 2)
        desk.lab.world.lose("a")
        await desk.lab.settle(1.0)
        assert desk.lab.things() == {"a": "v", "b": "v"}
        assert not desk.lab.engine.config_valid
        (problem,) = desk.intake.problems
        assert (problem.message, problem.file, problem.line, problem.column, problem.path, problem.hint) == (
            WRONG.message, WRONG.file, 3, 7, "ports.p0", "did you mean 'tag'?",
        )  # fmt: skip
        desk.takes(thing("a"))
        await desk.lab.settle(REMOVE + 0.5)
        assert desk.lab.things() == {"a": "v"}
        assert desk.intake.problems == ()
        assert desk.lab.engine.config_valid


async def test_a_start_with_a_mistake_and_nothing_remembered_does_nothing() -> None:
    desk = Desk()
    desk.lab.world.set("a", "left", quietly=True)
    async with desk.lab.running():
        desk.takes(problems=(WRONG,))
        await desk.lab.settle(10.0)
        assert desk.lab.things() == {"a": "left"}
        assert desk.revisions == []


async def test_a_start_from_what_was_remembered_repairs_and_deletes_nothing_until_the_source_is_right() -> None:
    desk = Desk()
    desk.lab.world.set("left", "x", quietly=True)
    async with desk.lab.running():
        desk.takes(problems=(WRONG,))
        desk.intake.restore(Snapshot.of([thing("a")]), "net.yaml:3:7 is wrong")
        await desk.lab.settle(1.0)
        assert desk.lab.things() == {"a": "v", "left": "x"}
        assert desk.lab.told("left")[:2] == (Outcome.PENDING, "in_sync")
        desk.takes(thing("a"))
        await desk.lab.settle(1.0)
        assert desk.lab.things() == {"a": "v"}


async def test_the_budget_counts_what_a_removal_takes_away_in_all() -> None:
    desk = Desk()
    async with desk.lab.running():
        desk.takes(*many(20), *many(20, "u", place="there"))
        await desk.lab.settle(1.0)
        desk.takes(*many(14), *many(14, "u", place="there"))
        await desk.lab.settle(REMOVE + 1.0)
        assert (len(desk.lab.things()), len(desk.lab.things("there"))) == (20, 20)
        assert {s.gate for s in desk.lab.engine.statuses.not_right()} == {"budget"}


STATES = st.lists(
    st.tuples(
        st.frozensets(st.sampled_from("abcd"), min_size=1),
        st.booleans(),
        st.sampled_from([0.0, 0.5, REMOVE, REMOVE * 2]),
    ),
    min_size=1,
    max_size=8,
)


@given(states=STATES)
@settings(max_examples=50, deadline=None)
def test_only_what_the_source_left_out_for_long_enough_without_a_mistake_is_ever_deleted(
    states: list[tuple[frozenset[str], bool, float]],
) -> None:
    async def main() -> None:
        desk = Desk()
        desk.lab.engine.gates.budget.__init__(minimum=100, share=1.0, window=600.0)  # type: ignore[misc]
        since: dict[str, float] = {}
        good: frozenset[str] = frozenset()
        async with desk.lab.running():
            for names, wrong, pause in states:
                loop_time = asyncio.get_running_loop().time()
                if wrong:
                    desk.takes(*(thing(n) for n in names), problems=(WRONG,))
                    since = dict.fromkeys(since, loop_time)
                else:
                    since = {n: since.get(n, loop_time) for n in "abcd" if n not in names}
                    good = names
                    desk.takes(*(thing(n) for n in names))
                before = set(desk.lab.things())
                await desk.lab.settle(pause + 0.01)
                for lost in before - set(desk.lab.things()):
                    assert not wrong
                    assert asyncio.get_running_loop().time() - since[lost] >= REMOVE
            desk.takes(*(thing(n) for n in good))
            await desk.lab.settle(REMOVE + 1.0)
            assert set(desk.lab.things()) == good

    virtually(main)
