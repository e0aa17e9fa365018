"""When Neutron's API is read whole: at the start, at intervals, and early when somebody asks for it.

The read itself (`desired.sources.neutron_api`) runs in a thread of its own (`InThread`). What it brings goes to
`taken`; a read that failed changes nothing but `problem`, and is tried again, ever later. Many nodes that lose their
broker together ask together: each waits its own part of `spread` first. Used by the composition root.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from desired.sources.neutron_api import FullRead, ReadError
from reconciler.clock import Clock
from reconciler.logs import get_logger

log = get_logger("neutron")

Read = Callable[[threading.Event], FullRead]
"""Reads everything, blocking. Raises ReadError; also soon after the event is set."""

_FIRST_RETRY = 2.0
_LONGEST_RETRY = 60.0
_JITTER = 0.1
_HANGING = 3
"""Threads of reads that were given up; with so many alive there is no further read."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Seconds from read to read, give or take a tenth, and within which a read that was asked for begins."""

    interval: float = 300.0
    spread: float = 10.0


@dataclass(frozen=True, slots=True)
class LastRead:
    """Of the last read that was complete, for `status`. `at`: when it was taken, in seconds since 1970."""

    at: float
    seconds: float
    counts: Mapping[str, int]


class NeutronSource:
    """`read` is an `InThread`; `taken` gets every complete read, and `told` hears every change of `problem`."""

    name = "neutron"

    def __init__(
        self,
        read: Callable[[], Awaitable[FullRead]],
        *,
        clock: Clock,
        rhythm: Rhythm,
        taken: Callable[[FullRead], Awaitable[None]],
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._read = read
        self._clock = clock
        self._rhythm = rhythm
        self._taken = taken
        self._told = told
        self._asked = asyncio.Event()
        self._failures = 0
        self.problem = "Neutron's API was not read yet"
        """Why what is known may be out of date; empty after a complete read."""
        self.last: LastRead | None = None

    def request(self) -> None:
        """Read soon: something may have been missed. Many requests are one read, which begins after them.

        Called on the event loop. However often it is called, reads are at least `spread` apart.
        """
        self._asked.set()

    async def run(self) -> None:
        """Read for ever. Cancel it to stop; what a read brings after that is thrown away."""
        while True:
            self._asked.clear()
            await self._once()
            await self._pause()

    async def _once(self) -> None:
        began = self._clock.now()
        try:
            found = await self._read()
        except ReadError as error:
            self._failures += 1
            self._tell(f"{error}; the network stays as it was last known")
            return
        self._failures = 0
        self.last = LastRead(self._clock.wall(), self._clock.now() - began, found.counts)
        await self._taken(found)
        self._tell("")

    async def _pause(self) -> None:
        """Wait for the next time; cut short by a request, though not to nothing."""
        ended, spread = self._clock.now(), self._rhythm.spread
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(ended + self._until_next()):
                await self._asked.wait()
                asked = self._clock.now()
                await asyncio.sleep(max(ended + spread, asked + spread * self._clock.chance()) - asked)

    def _until_next(self) -> float:
        if self._failures:
            later = _FIRST_RETRY * 2.0 ** min(self._failures - 1, 30)
            return min(self._rhythm.interval, _LONGEST_RETRY, later) * (0.5 + self._clock.chance())
        return self._rhythm.interval * (1 - _JITTER + 2 * _JITTER * self._clock.chance())

    def _tell(self, problem: str) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            log.warning("neutron_read_failed", problem=problem)
        elif self.last is not None:
            log.info("neutron_read", seconds=round(self.last.seconds, 3), **self.last.counts)
        self._told(problem)


class InThread:
    """Awaits a blocking read that runs in a daemon thread, at most `patience` seconds.

    A thread cannot be ended: it is told to stop, and a few that do not (keystoneauth waits for itself for ever when
    the identity service answers 401 to the question for its versions) are left behind.
    """

    def __init__(self, read: Read, patience: float) -> None:
        self._read = read
        self._patience = patience
        self._hanging: list[threading.Thread] = []

    async def __call__(self) -> FullRead:
        """Raises ReadError. What else the read raises goes to the log, and is a ReadError here."""
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= _HANGING:
            raise ReadError(f"{_HANGING} reads that were given up before still hang")
        loop = asyncio.get_running_loop()
        work = _Work(self._read, threading.Event(), loop, loop.create_future())
        thread = threading.Thread(target=work.run, name="neutron", daemon=True)
        thread.start()
        try:
            async with asyncio.timeout(self._patience):
                return await work.result
        except TimeoutError as error:
            raise ReadError(f"the read was not complete after {self._patience:g} s and was given up") from error
        finally:
            work.stopped.set()
            self._hanging.append(thread)


@dataclass(frozen=True, slots=True)
class _Work:
    """One read in its thread, and how its result comes back to the loop."""

    read: Read
    stopped: threading.Event
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[FullRead]

    def run(self) -> None:
        outcome: FullRead | ReadError = ReadError("the read ended by a defect of its own; the log has the traceback")
        try:
            outcome = self.read(self.stopped)
        except ReadError as error:
            outcome = error
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
                self.loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: FullRead | ReadError) -> None:
        if self.result.done():
            return
        if isinstance(outcome, ReadError):
            self.result.set_exception(outcome)
        else:
            self.result.set_result(outcome)
