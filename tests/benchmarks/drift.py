"""Drift to repair, both as another process sees them, for the daemon and for a floor program, interleaved.

Blocks of breaks alternate: in one the daemon is stopped (SIGSTOP) and a floor program runs, in the other no floor
program runs. Each block begins with a few breaks that are not counted. Breaks rotate over many things and are spaced
with jitter: the contention gate is on, as shipped, and is not what is measured.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.benchmarks.daemon import Daemon, switch, unit_nice
from tests.benchmarks.report import Table, ms, percentile, say
from tests.benchmarks.wire import NeverSeenError, promptly, until
from tests.ovs import PrivateOvs

HERE = Path(__file__).parent
BLOCK = 20
WARM = 3


class Subject(Protocol):
    """One thing to break: what is declared, how the floor knows it, how it is broken and seen to be whole again."""

    @property
    def title(self) -> str: ...

    @property
    def program(self) -> str:
        """The floor program's file."""
        ...

    @property
    def share(self) -> float:
        """Of the breaks asked for: costly ones are done less often."""
        ...

    @property
    def pause(self) -> tuple[float, float]:
        """Seconds between repair and next break, least and most."""
        ...

    def desired(self) -> str: ...

    def connect(self, ovs: PrivateOvs) -> None:
        """Called once the daemon has converged: open the breaker's and the watcher's connections."""
        ...

    def floor(self) -> tuple[Path, dict[str, Any]]:
        """The socket and the knowledge of the floor program, as things stand now."""
        ...

    def break_one(self, number: int) -> tuple[float, float]:
        """Break; when the drift and when the repair was visible (monotonic). Raises NeverSeenError."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Measured:
    floor: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)


def measure(subject: Subject, directory: Path, breaks: int, chance: random.Random) -> _Measured:
    """`breaks` for each side."""
    found = _Measured()
    with switch(directory, f"d{chance.randrange(10**6)}") as ovs:
        daemon = Daemon(ovs)
        prepare = getattr(subject, "prepare", None)
        if prepare is not None:
            prepare(ovs)  # what has to be there before the daemon: a namespace
        daemon.declare(subject.desired())
        daemon.start()
        daemon.settled()
        daemon.quiet()
        with contextlib.closing(subject):
            subject.connect(ovs)
            # A server tells its clients in the order in which they came: a tool that breaks something comes last.
            reconnect = getattr(subject, "reconnect", lambda: None)
            left = max(1, round(breaks * subject.share))
            number = 0
            while left > 0:
                count = min(BLOCK, left)
                left -= count
                with daemon.stopped(), _floor(subject, ovs):
                    reconnect()
                    found.floor += _block(subject, number, count, chance, "floor")
                try:
                    found.ours += _block(subject, number, count, chance, "daemon")
                except NeverSeenError as error:
                    raise RuntimeError(f"{subject.title}: {error}\n{daemon.tail()}") from error
                number += WARM + count
        daemon.end()
    return found


def _block(subject: Subject, number: int, count: int, chance: random.Random, who: str) -> list[float]:
    times = []
    for at in range(WARM + count):
        try:
            with promptly():
                seen, repaired = subject.break_one(number + at)
        except NeverSeenError as error:
            raise NeverSeenError(f"break {number + at}, to be repaired by the {who}: {error}") from error
        if at >= WARM:
            times.append(repaired - seen)
        time.sleep(chance.uniform(*subject.pause))
    return times


@contextlib.contextmanager
def _floor(subject: Subject, ovs: PrivateOvs) -> Iterator[None]:
    socket, knowledge = subject.floor()
    spec, output = ovs.directory / "floor.json", ovs.directory / "floor.out"
    spec.write_text(json.dumps(knowledge))
    output.unlink(missing_ok=True)
    nice = ("nice", "-n", str(unit_nice()))
    running = ovs.spawn([*nice, sys.executable, str(HERE / subject.program), str(socket), str(spec)], output)
    try:
        until(lambda: "ready" in running.text(), f"the floor program is not ready: {running.text()}")
        yield
    finally:
        running.end()


def table(subjects: list[Callable[[], Subject]], directory: Path, breaks: int, seed: int) -> Table:
    """Measure every subject and compare."""
    chance = random.Random(seed)
    rows, raw = [], {}
    for make in subjects:
        subject = make()
        found = measure(subject, directory, breaks, chance)
        rows.append(_row(subject.title, found))
        raw[subject.title] = {"floor_seconds": found.floor, "ours_seconds": found.ours}
        say("  ".join(rows[-1]))
    notes = (
        f"milliseconds from drift visible to repair visible, seen by a third process; blocks of {BLOCK} alternate,",
        f"{WARM} uncounted before each; the idle side is stopped. Aim: p50 within 2x, p99 within 4x. Seed {seed}.",
    )
    columns = ("drift", "breaks", "floor p50", "p99", "ours p50", "p99", "ratio p50", "p99")
    return Table("Drift to repair", columns, rows, notes, raw)


def _row(title: str, found: _Measured) -> list[str]:
    half, most = (
        (percentile(found.floor, 0.5), percentile(found.ours, 0.5)),
        (
            percentile(found.floor, 0.99),
            percentile(found.ours, 0.99),
        ),
    )
    return [
        title, str(len(found.ours)), ms(half[0]), ms(most[0]), ms(half[1]), ms(most[1]),
        f"{half[1] / half[0]:.2f}", f"{most[1] / most[0]:.2f}",
    ]  # fmt: skip
