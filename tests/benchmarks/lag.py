"""How late a daemon's event loop is, as whoever asks sees it: its control socket, asked fifty times a second.

A question that is due while another waits for its answer is as late as that: one long stall weighs what it lasts.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.benchmarks.daemon import Daemon, meanwhile
from tests.benchmarks.report import ms, percentile

EVERY = 0.02


@dataclass(slots=True)
class Lags:
    """Seconds from when each question was due until it was answered."""

    seen: list[float] = field(default_factory=list)

    def row(self) -> list[str]:
        p50, p99 = percentile(self.seen, 0.5), percentile(self.seen, 0.99)
        return ["loop lag p50, p99, largest", f"{ms(p50)}, {ms(p99)}, {ms(max(self.seen))} ms"]


@contextlib.contextmanager
def watched(daemon: Daemon) -> Iterator[Lags]:
    """Ask within this. Nothing counts before its socket is there."""
    lags = Lags()

    def ask(stop: threading.Event) -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            try:
                daemon.get("/healthz")
            except (OSError, http.client.HTTPException):
                due = time.monotonic() + EVERY
                continue
            answered = time.monotonic()
            while due <= answered:
                lags.seen.append(answered - due)
                due += EVERY

    with meanwhile(ask, "lag"):
        yield lags
