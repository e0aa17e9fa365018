"""When Neutron is read whole, in virtual time; and that a read which hangs holds nothing up, in real time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from desired.sources.neutron import InThread, NeutronSource, Rhythm
from desired.sources.neutron_api import FullRead, ReadError
from tests.reconciler.fakes import WALL, VirtualClock, virtually

RHYTHM = Rhythm(interval=300.0, spread=10.0)


class Scene:
    """A source whose reads do what `outcome` says (the number of the read is handed over), and what became of them."""

    def __init__(
        self, outcome: Callable[[int], FullRead | ReadError], lasting: float = 0.0, chance: float = 0.5
    ) -> None:
        self.began: list[float] = []
        self.taken: list[FullRead] = []
        self.told: list[str] = []
        self._outcome = outcome
        self._lasting = lasting
        self.source = NeutronSource(
            self._read,
            clock=VirtualClock(lambda: chance),
            rhythm=RHYTHM,
            taken=self._take,
            told=self.told.append,
        )  # fmt: skip

    async def _take(self, found: FullRead) -> None:
        self.taken.append(found)

    async def _read(self) -> FullRead:
        self.began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._lasting)
        found = self._outcome(len(self.began))
        if isinstance(found, ReadError):
            raise found
        return found

    def run(self, until: float, *requests: float) -> None:
        """Let it run so many seconds, with requests at these."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            task = asyncio.create_task(self.source.run())
            for at in requests:
                await asyncio.sleep(at - loop.time())
                self.source.request()
            await asyncio.sleep(until - loop.time())
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

        virtually(main)


def whole(number: int = 1) -> FullRead:
    return FullRead(WALL, {"network": ({"id": str(number)},), "port": ()})


def test_it_reads_at_the_start_and_at_intervals() -> None:
    scene = Scene(whole, lasting=2.0)
    scene.run(1000.0)
    assert scene.began == pytest.approx([0.0, 302.0, 604.0, 906.0])
    assert [read.objects["network"][0]["id"] for read in scene.taken] == ["1", "2", "3", "4"]
    assert scene.source.problem == ""
    assert scene.source.last is not None
    assert scene.source.last.counts == {"network": 1, "port": 0}
    assert scene.source.last.seconds == pytest.approx(2.0)


@pytest.mark.parametrize(("chance", "interval"), [(0.0, 270.0), (1.0, 330.0)])
def test_intervals_of_different_nodes_differ(chance: float, interval: float) -> None:
    scene = Scene(whole, chance=chance)
    scene.run(400.0)
    assert scene.began == pytest.approx([0.0, interval])


def test_a_request_is_answered_by_a_read_within_the_spread() -> None:
    scene = Scene(whole)
    scene.run(200.0, 100.0)
    assert scene.began == pytest.approx([0.0, 105.0])


def test_many_requests_are_one_read_and_reads_keep_their_distance() -> None:
    scene = Scene(whole)
    scene.run(31.0, *(100 * each / 3300 for each in range(1000)))  # one every 30 ms, for 30 seconds
    assert len(scene.began) == 4
    assert all(later - earlier >= 10.0 for earlier, later in zip(scene.began, scene.began[1:], strict=False))


def test_what_is_asked_for_during_a_read_is_read_after_it() -> None:
    """The read that is under way may already have passed what was missed."""
    scene = Scene(whole, lasting=20.0)
    scene.run(100.0, 15.0)
    assert scene.began == pytest.approx([0.0, 30.0])


def test_a_failed_read_changes_nothing_but_the_problem_and_is_tried_ever_later() -> None:
    scene = Scene(lambda number: whole() if number in {1, 9} else ReadError("nobody answers"))
    scene.run(560.0)
    waits = [later - earlier for earlier, later in zip(scene.began, scene.began[1:], strict=False)]
    assert waits == pytest.approx([300.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0])
    assert len(scene.taken) == 2
    assert scene.told == ["", "nobody answers; the network stays as it was last known", ""]


def test_until_the_first_read_there_is_a_problem() -> None:
    scene = Scene(lambda _: ReadError("nobody answers"))
    assert scene.source.problem == "Neutron's API was not read yet"
    scene.run(1.0)
    assert scene.source.problem.startswith("nobody answers")
    assert not scene.taken


def test_another_error_than_a_failed_read_is_not_swallowed() -> None:
    def broken(_: int) -> FullRead:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Scene(broken).run(1.0)


# -- the thread, in real time -----------------------------------------------------------------------------------------


async def test_a_read_in_a_thread_leaves_the_loop_alone() -> None:
    reading, may_end = threading.Event(), threading.Event()

    def read(_: threading.Event) -> FullRead:
        reading.set()
        assert may_end.wait(30)
        return whole()

    task = asyncio.create_task(InThread(read, 30.0)())
    while not reading.is_set():
        await asyncio.sleep(0.001)
    may_end.set()
    assert (await task).counts == {"network": 1, "port": 0}


async def test_what_a_read_raises_is_raised_where_it_is_awaited() -> None:
    def read(_: threading.Event) -> FullRead:
        raise ReadError("nobody answers")

    with pytest.raises(ReadError, match="nobody answers"):
        await InThread(read, 30.0)()


async def test_a_read_that_hangs_is_given_up_and_only_a_few_are_left_behind() -> None:
    may_end = threading.Event()
    threads: list[threading.Thread] = []
    stopped: list[threading.Event] = []

    def read(stop: threading.Event) -> FullRead:
        threads.append(threading.current_thread())
        stopped.append(stop)
        may_end.wait(30)
        return whole()

    in_thread = InThread(read, 0.05)
    for _ in range(3):
        with pytest.raises(ReadError, match=r"not complete after 0\.05 s and was given up"):
            await in_thread()
    assert all(each.is_set() for each in stopped)
    with pytest.raises(ReadError, match="3 reads that were given up before still hang"):
        await in_thread()
    assert len(threads) == 3
    may_end.set()
    for thread in threads:
        thread.join(30)
    assert (await InThread(read, 30.0)()).counts == {"network": 1, "port": 0}


async def test_a_defect_in_a_read_is_told_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", said.append)

    def read(_: threading.Event) -> FullRead:
        raise ZeroDivisionError

    with pytest.raises(ReadError, match="a defect of its own"):
        await InThread(read, 30.0)()
    for thread in threading.enumerate():
        if thread.name == "neutron":
            thread.join(30)
    assert [each.exc_type for each in said] == [ZeroDivisionError]


def test_a_read_may_outlive_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()
    raised: list[Any] = []

    def read(_: threading.Event) -> FullRead:
        may_end.wait(30)
        return whole()

    async def main() -> None:
        with pytest.raises(ReadError):
            await InThread(read, 0.05)()

    monkeypatch.setattr(threading, "excepthook", raised.append)
    asyncio.run(main())
    hanging = [thread for thread in threading.enumerate() if thread.name == "neutron"]
    may_end.set()
    for thread in hanging:
        thread.join(30)
    assert len(hanging) == 1
    assert raised == []
