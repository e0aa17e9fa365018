"""Do the workers move? What `/healthz` and the watchdog go by: never a timer, always work that was taken up."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.contract import Scope

STUCK_AFTER = 30.0
"""Seconds after which a pass that does not end makes the daemon unhealthy."""


@dataclass(slots=True)
class Progress:
    """All times are monotonic seconds. `heartbeat` is when a worker last took up the heartbeat from the queue."""

    heartbeat: float = 0.0
    running: dict[str, tuple[Scope, float]] = field(default_factory=dict)
    """What each busy worker does, and since when."""

    def healthy(self, now: float) -> tuple[bool, str]:
        """A pass that does not end, or a heartbeat that no worker takes, is unhealthy: (False, what is stuck)."""
        for name, (scope, since) in self.running.items():
            if now - since > STUCK_AFTER:
                return False, f"{name} is in a pass over {scope} for {now - since:.0f} s"
        silent = now - self.heartbeat
        if silent > STUCK_AFTER:
            return False, f"no worker took up work for {silent:.0f} s"
        return True, ""
