"""Time and chance, injected: the only module that imports `time` and `random`.

`now` is the event loop's monotonic clock, so tests run the whole engine in virtual time.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, for people."""
        ...

    def chance(self) -> float:
        """A number in [0, 1) for jitter."""
        ...


class SystemClock:
    """The clock of a running daemon."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return time.time()

    def chance(self) -> float:
        return random.random()  # noqa: S311 - jitter, no secret
