"""What the doors are told of a node and may order, over a small world in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from desired.resource import Resource, ResourceId
from desired.schema import Loaded, Problem
from desired.store import Store
from reconciler.contract import Outcome, PassRecord
from reconciler.errors import ConfigError
from reconciler.intake import Intake
from reconciler.node import Feed, LocalNode, exit_code
from reconciler.report import ExitCode
from reconciler.writer import StoreWriter
from tests.reconciler.fakes import HERE, WALL, Lab, many, thing

pytestmark = pytest.mark.looptime


def no_store() -> Store:
    raise AssertionError("the writer's thread is not started here")


class Desk(Lab):
    """A lab with everything a door may ask."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.writer = StoreWriter(no_store, wall=self.engine.clock.wall)
        self.feed = Feed()
        self.engine.add_sink(self.feed)
        self.intake = Intake(self.engine, "files", 0.0, lambda _: None)
        self.node = LocalNode(
            self.settings, self.engine, self.intake, self.writer, self.feed, lambda: (), lambda: ["x"]
        )

    def takes(self, *resources: Resource, problems: tuple[Problem, ...] = ()) -> None:
        self.intake.take(Loaded(resources, problems))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    one = Desk()
    async with one.running():
        yield one


def test_every_outcome_has_its_exit_code() -> None:
    assert {outcome: exit_code(outcome) for outcome in Outcome} == {
        Outcome.CONVERGED: 0, Outcome.PENDING: 3, Outcome.FAILED: 1, Outcome.CONFLICT: 4, Outcome.CONTENDED: 4,
    }  # fmt: skip


async def test_status_is_pending_before_anything_is_known_and_converged_when_all_was_looked_at(desk: Desk) -> None:
    assert desk.node.status().exit_code == ExitCode.WITHHELD
    assert desk.node.ready() == (False, "no desired state is loaded yet")
    desk.world.look_seconds = 1.0
    desk.takes(thing("a"))
    await desk.settle(0.1)
    assert desk.node.status().outcome is Outcome.PENDING
    assert desk.node.ready() == (False, "not looked at yet: world/here")
    desk.world.look_seconds = 0.0
    await desk.settle(3.0)
    status = desk.node.status()
    assert (status.outcome, status.exit_code, status.resources) == (Outcome.CONVERGED, 0, {"thing": 1})
    assert status.last_converged is not None
    assert status.notices == ("x",)
    assert desk.node.ready() == (True, "")
    assert desk.node.healthy() == (True, "")


async def test_status_says_the_worst_first_and_a_mistake_in_the_yaml_is_a_failure(desk: Desk) -> None:
    desk.world.refuses = {ResourceId("thing", "bad")}
    desk.world.set("theirs", "x", ours=False, quietly=True)
    desk.takes(thing("bad"), thing("theirs"), thing("good"))
    await desk.settle()
    status = desk.node.status()
    assert [s.outcome for s in status.not_right] == [Outcome.FAILED, Outcome.CONFLICT]
    assert status.exit_code == ExitCode.FAILED
    desk.takes(thing("good"))
    await desk.settle(1.0)
    assert desk.node.status().exit_code == ExitCode.CONVERGED
    desk.takes(problems=(Problem("wrong"),))
    assert desk.node.status().exit_code == ExitCode.FAILED
    assert [p.message for p in desk.node.status().config_problems] == ["wrong"]


async def test_once_repairs_everything_and_says_what_it_did(desk: Desk) -> None:
    desk.takes(thing("a"), thing("b", place="there"))
    await desk.settle()
    desk.world.lose("a", quietly=True)
    result = await desk.node.once(only=None, dry_run=False, timeout=10.0)
    assert (result.outcome, result.exit_code, result.timed_out) == (Outcome.CONVERGED, 0, False)
    assert [str(a.resource) for entry in result.passes for a in entry.actions] == ["thing/a"]
    assert {scope.name for _, scope in desk.world.proofs} == {"here", "there"}


async def test_once_for_one_says_only_of_that_one(desk: Desk) -> None:
    desk.takes(thing("a"), thing("b"))
    await desk.settle()
    desk.world.set("b", "theirs", ours=False)
    await desk.settle()
    result = await desk.node.once(only="thing/a", dry_run=False, timeout=10.0)
    assert result.exit_code == ExitCode.CONVERGED
    assert result.not_right == []
    result = await desk.node.once(only="thing/b", dry_run=False, timeout=10.0)
    assert result.exit_code == ExitCode.CONFLICT


async def test_once_ends_at_its_timeout_and_says_so(desk: Desk) -> None:
    desk.world.refuses = {ResourceId("thing", "bad")}
    desk.takes(thing("bad"))
    began = asyncio.get_running_loop().time()
    result = await desk.node.once(only=None, dry_run=False, timeout=0.2)
    assert result.timed_out
    assert asyncio.get_running_loop().time() - began < 0.3
    assert result.exit_code == ExitCode.FAILED


@pytest.mark.parametrize("only", ["nonsense", "thing/", "nonsense/a", ""])
async def test_what_names_no_kind_is_refused(desk: Desk, only: str) -> None:
    with pytest.raises(ConfigError):
        await desk.node.once(only=only, dry_run=False, timeout=1.0)
    with pytest.raises(ConfigError):
        await desk.node.pause(only, reason="x", seconds=None, by="me")


async def test_a_dry_run_says_what_would_be_done_and_by_which_gate_the_rest_waits(desk: Desk) -> None:
    desk.takes(thing("a"))
    await desk.settle()
    assert (await desk.node.once(only=None, dry_run=True, timeout=1.0)).exit_code == ExitCode.CONVERGED
    desk.world.lose("a", quietly=True)
    result = await desk.node.once(only=None, dry_run=True, timeout=1.0)
    assert result.exit_code == ExitCode.CHANGES
    assert desk.things() == {}
    desk.engine.gates.paused.observing = False
    await desk.node.pause("thing/a", reason="work", seconds=None, by="me")
    result = await desk.node.once(only=None, dry_run=True, timeout=1.0)
    assert result.exit_code == ExitCode.WITHHELD
    assert {a.gate for entry in result.passes for a in entry.actions} == {"paused"}


async def test_a_dry_run_s_worst_finding_decides_its_exit_code(desk: Desk) -> None:
    desk.world.set("theirs", "x", ours=False, quietly=True)
    desk.world.mute.add("there")
    desk.takes(thing("theirs"), thing("b", place="there"))
    await desk.settle()
    result = await desk.node.once(only=None, dry_run=True, timeout=1.0)
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, ExitCode.FAILED)


async def test_pause_and_resume_are_told_with_reason_and_end(desk: Desk) -> None:
    desk.takes(thing("a"))
    await desk.settle()
    pause = await desk.node.pause("node", reason="cabling", seconds=60.0, by="me")
    assert (pause.reason, pause.by, pause.until) == ("cabling", "me", pause.at + 60.0)
    assert pause.at > WALL - 1
    desk.world.lose("a")
    await desk.settle(1.0)
    assert desk.things() == {}
    assert desk.node.status().pauses == (pause,)
    assert await desk.node.resume("all", by="me") == [pause]
    await desk.settle()
    assert desk.things() == {"a": "v"}
    assert await desk.node.resume("all", by="me") == []


async def test_approve_lets_the_deletes_of_this_revision_through_and_no_other_s(desk: Desk) -> None:
    desk.takes(*many(20))
    await desk.settle()
    desk.takes(*many(5))
    await desk.settle(1.0)
    (waiting,) = desk.node.status().budgets
    assert (waiting.kind, waiting.wanted, waiting.allowed) == ("thing", 15, 5)
    assert desk.node.status().exit_code == ExitCode.WITHHELD
    with pytest.raises(ConfigError, match="is not the current one"):
        await desk.node.approve("0123456789ab")
    assert await desk.node.approve(None) == [waiting]
    await desk.settle()
    assert len(desk.things()) == 5
    assert not desk.node.status().budgets


async def test_events_are_live_and_a_slow_reader_loses_the_oldest() -> None:
    feed = Feed()
    events = feed.follow()
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    for number in range(2000):
        feed.record(PassRecord(number, WALL, HERE, "x", "rev", Outcome.CONVERGED, 0.0, 0.0))
    await first
    assert (await anext(events)).pass_id >= 999
    await events.aclose()  # type: ignore[attr-defined]
