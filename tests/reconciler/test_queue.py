"""The laws of the work queue, in virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.contract import Scope
from reconciler.queue import FREE_PASSES, MAX_GAP, QUIET, SHARE, Priority, ScopeQueue, Work
from tests.reconciler.fakes import VirtualClock, virtually

pytestmark = pytest.mark.looptime

A, B = Scope("k", "a"), Scope("k", "b")


def now() -> float:
    return asyncio.get_running_loop().time()


async def taken(queue: ScopeQueue, seconds: float = 0.0) -> Work | None:
    """What a worker gets within so many seconds; its pass ends at once."""
    try:
        async with asyncio.timeout(seconds):
            work = await queue.get()
    except TimeoutError:
        return None
    queue.done(work.scope)
    return work


async def passes(queue: ScopeQueue, until: float, every: float, takes: float = 0.0) -> list[float]:
    """When passes over A start, while an event comes each `every` seconds until `until` (absolute)."""
    starts: list[float] = []

    async def events() -> None:
        while now() < until:
            queue.add(A)
            await asyncio.sleep(every)

    async def worker() -> None:
        while True:
            work = await queue.get()
            starts.append(now())
            await asyncio.sleep(takes)
            queue.done(work.scope)

    async with asyncio.TaskGroup() as group:
        working = group.create_task(worker())
        await events()
        await asyncio.sleep(1.0)
        working.cancel()
    return starts


async def test_the_first_event_of_a_quiet_scope_runs_at_once() -> None:
    queue = ScopeQueue(VirtualClock())
    queue.add(A)
    work = await taken(queue)
    assert work is not None
    assert work.scope == A


async def test_what_others_stand_on_goes_first_of_what_is_ready_and_of_equal_news() -> None:
    queue = ScopeQueue(VirtualClock())
    queue.foremost = "under"
    queue.add(A)
    queue.add(Scope("under", "resynced"), priority=Priority.RESYNC)
    queue.add(Scope("under"))
    order = [work.scope for work in [await taken(queue), await taken(queue), await taken(queue)] if work is not None]
    assert order == [Scope("under"), A, Scope("under", "resynced")]


async def test_a_break_its_echo_and_a_second_break_wait_for_nothing() -> None:
    queue = ScopeQueue(VirtualClock())
    for _ in range(FREE_PASSES):
        queue.add(A)
        assert await taken(queue) is not None
    queue.add(A)
    assert await taken(queue) is None
    assert await taken(queue, 0.01) is not None


async def test_a_storm_becomes_few_passes_whose_gap_doubles_to_the_longest() -> None:
    starts = await passes(ScopeQueue(VirtualClock()), until=5.0, every=0.0005)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    growing = gaps[: gaps.index(max(gaps))]
    assert all(later >= earlier - 0.001 for earlier, later in pairwise(growing))
    assert max(gaps) == pytest.approx(MAX_GAP, abs=0.002)
    assert len(starts) < 5.0 / MAX_GAP + 15


async def test_the_gap_counts_from_the_end_of_a_pass() -> None:
    starts = await passes(ScopeQueue(VirtualClock()), until=3.0, every=0.0005, takes=0.05)
    assert starts[-1] - starts[-2] == pytest.approx(0.05 + MAX_GAP, abs=0.002)


async def test_after_a_quiet_time_a_drift_waits_for_nothing_again() -> None:
    queue = ScopeQueue(VirtualClock())
    await passes(queue, until=2.0, every=0.001)
    await asyncio.sleep(QUIET * 1.1)
    queue.add(A)
    assert await taken(queue) is not None


async def test_the_last_event_of_a_storm_is_followed_by_a_pass() -> None:
    queue = ScopeQueue(VirtualClock())
    starts = await passes(queue, until=1.0, every=0.0013)
    assert starts[-1] >= 1.0 - 0.0013
    assert queue.idle()


async def test_events_of_a_scope_that_waits_become_one_pass_that_looks_at_all_of_them() -> None:
    queue = ScopeQueue(VirtualClock())
    queue.add(A, frozenset({"x"}), "first")
    await asyncio.sleep(0.5)
    queue.add(A, frozenset({"y"}), "second")
    work = await taken(queue)
    assert work is not None
    assert (work.focus, work.events, work.reason, work.since) == (frozenset({"x", "y"}), 2, "first", 0.0)
    assert await taken(queue, 5.0) is None


async def test_a_full_look_swallows_narrow_ones() -> None:
    queue = ScopeQueue(VirtualClock())
    queue.add(A, frozenset({"x"}))
    queue.add(A, None)
    queue.add(A, frozenset({"y"}))
    work = await taken(queue)
    assert work is not None
    assert work.focus is None


async def test_a_scope_never_runs_twice_at_once_and_what_comes_meanwhile_runs_afterwards() -> None:
    queue = ScopeQueue(VirtualClock())
    queue.add(A)
    first = await queue.get()
    queue.add(A, frozenset({"meanwhile"}))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10.0):
            await queue.get()
    queue.done(first.scope)
    second = await queue.get()
    assert second.focus == frozenset({"meanwhile"})


async def test_other_scopes_do_not_wait_for_one_that_runs() -> None:
    queue = ScopeQueue(VirtualClock())
    queue.add(A)
    await queue.get()
    queue.add(B)
    assert await taken(queue) is not None


async def test_news_go_before_resync() -> None:
    queue = ScopeQueue(VirtualClock())
    queue.add(A, priority=Priority.RESYNC)
    queue.add(B, priority=Priority.NEWS)
    assert [work.scope for work in (await taken(queue), await taken(queue)) if work] == [B, A]


async def test_news_of_a_scope_that_waits_for_its_resync_go_first_and_keep_its_proof() -> None:
    queue = ScopeQueue(VirtualClock())
    queue.add(B, priority=Priority.RESYNC, prove=True)
    queue.add(A, reason="resync", priority=Priority.RESYNC, prove=True)
    queue.add(A, frozenset({"x"}), "news")
    work = await taken(queue)
    assert work is not None
    assert (work.scope, work.reason, work.prove, work.priority) == (A, "news", True, Priority.NEWS)
    assert work.focus is None


async def test_the_age_of_the_oldest_event_is_known_while_it_waits() -> None:
    queue = ScopeQueue(VirtualClock())
    assert queue.oldest(now()) == 0.0
    queue.add(A)
    await asyncio.sleep(3.0)
    queue.add(A)
    queue.add(B)
    assert (queue.depth(), queue.oldest(now())) == (2, 3.0)
    await queue.get()
    assert queue.oldest(now()) == 0.0
    assert not queue.idle()


async def test_a_forgotten_scope_starts_anew_and_one_that_waits_is_not_forgotten() -> None:
    queue = ScopeQueue(VirtualClock())
    queue.add(A)
    queue.forget(A)
    assert await taken(queue) is not None
    queue.forget(A)
    assert queue.waiting() == {}


async def test_a_worker_that_is_cancelled_as_it_is_woken_passes_the_work_on() -> None:
    queue = ScopeQueue(VirtualClock())
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)
    first.cancel()
    async with asyncio.timeout(1.0):
        assert (await second).scope == A
    await asyncio.gather(first, return_exceptions=True)


Step = tuple[str, int, float]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["news", "resync", "narrow", "cancel", "wait"]),
        st.integers(0, 3),
        st.sampled_from([0.0, 0.0001, 0.003, 0.05, 0.3]),
    ),
    max_size=40,
)


@given(steps=STEPS, takes=st.sampled_from([0.0, 0.0005, 0.02]))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_every_event_is_followed_by_a_pass_of_its_scope_and_none_runs_twice_at_once(
    steps: list[Step], takes: float
) -> None:
    virtually(lambda: _history(steps, takes))


async def _history(steps: list[Step], takes: float) -> None:
    queue = ScopeQueue(VirtualClock())
    running: set[Scope] = set()
    owed: dict[Scope, set[object]] = {}

    async def worker() -> None:
        while True:
            work = await queue.get()
            assert work.scope not in running
            running.add(work.scope)
            asked = owed.pop(work.scope, set())
            assert work.focus is None or (None not in asked and asked <= work.focus)
            try:
                await asyncio.sleep(takes)
            finally:
                running.discard(work.scope)
                queue.done(work.scope)

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker()) for _ in range(3)]
        for number, (what, which, delay) in enumerate(steps):
            scope = Scope("k", str(which))
            match what:
                case "cancel":
                    workers[which % 3].cancel()
                    workers[which % 3] = group.create_task(worker())
                case "wait":
                    await asyncio.sleep(delay)
                case _:
                    focus = frozenset({number}) if what == "narrow" else None
                    owed.setdefault(scope, set()).update(focus or {None})
                    priority = Priority.RESYNC if what == "resync" else Priority.NEWS
                    queue.add(scope, focus, priority=priority)
                    await asyncio.sleep(delay / 100)
        await asyncio.sleep(30 * (MAX_GAP + takes))
        for task in workers:
            task.cancel()
    assert owed == {}
    assert queue.idle()


async def test_a_controller_whose_passes_are_slow_keeps_no_other_waiting() -> None:
    """Beside a vswitchd that was restarted, twenty namespaces wait for the kernel, one after the other."""
    queue = ScopeQueue(VirtualClock())
    started: list[tuple[float, Scope]] = []

    async def worker() -> None:
        while True:
            work = await queue.get()
            started.append((now(), work.scope))
            await asyncio.sleep(1.0 if work.scope.controller == "slow" else 0.0)
            queue.done(work.scope)

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker()) for _ in range(2 * SHARE)]
        await asyncio.sleep(0.0)
        slow = [Scope("slow", f"{number:02}") for number in range(2 * SHARE + 1)]
        for scope in slow:
            queue.add(scope)
        for number in range(3):
            await asyncio.sleep(0.1)
            queue.add(Scope("fast", f"{number}"), priority=Priority.RESYNC if number else Priority.NEWS)
        await asyncio.sleep(3.5)
        for each in workers:
            each.cancel()
    assert [at for at, scope in started if scope.controller == "fast"] == pytest.approx([0.1, 0.2, 0.3])
    assert [scope for _, scope in started if scope.controller == "slow"] == slow
    assert [at for at, scope in started if scope.controller == "slow"] == pytest.approx(
        [0.0] * SHARE + [1.0] * SHARE + [2.0]
    )
    assert queue.idle()
