"""What the controller keeps of a unit between passes: how its starts went, and which files it depends on. No IO."""

from __future__ import annotations

from dataclasses import dataclass

from controllers.drivers.systemd.units import UnitState
from controllers.services.state import Health
from desired.kinds.service import ServiceSpec

STEADY = 2.0
"""Seconds a unit must have run (and its checks succeeded) for its start not to have been in vain."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0


@dataclass(slots=True)
class Kept:
    """One unit. Times of runs are wall-clock seconds of their start."""

    paths: frozenset[str] = frozenset()
    """Files of which a change is heard."""
    depends: frozenset[str] = frozenset()
    """Files that a restart depends on."""
    reloads: frozenset[str] = frozenset()
    """Files that a reload reads again."""
    loaded: tuple[float, str] = (0.0, "")
    """A run, and the digest of the files it was started with."""
    reloaded: tuple[float, str] = (0.0, "")
    """A run, and the digest of those files when it read them last."""
    others: frozenset[str] = frozenset()
    """Units that it waits for."""
    namespace: str = ""
    generation: int = 0
    vain: int = 0
    next_at: float = 0.0
    """When the next start is due (monotonic seconds)."""
    judged: float = 0.0
    """The last run whose end was seen."""
    worked: bool = False
    said: str = ""
    """The last lines of its journal, when it was given up."""

    def forgive(self) -> None:
        """Its starts up to now count no more."""
        self.vain, self.next_at, self.said = 0, 0.0, ""

    def judge(self, spec: ServiceSpec, unit: UnitState, health: Health, wall: float) -> None:
        """Was the last start in vain? Not when it has run for a while, and worked."""
        if unit.runs:
            self.worked = health.passed or not spec.checks
        elif unit.started == self.judged:
            return  # its end was seen before: how long ago it began says nothing any more
        else:
            self.judged = unit.started
            if unit.killed and self.vain:  # by somebody, which says nothing against it; contention is the gate for that
                self.vain, self.next_at = self.vain - 1, 0.0
        if self.worked and wall - unit.started >= STEADY:
            self.forgive()

    def count(self, now: float) -> None:
        """One more start; in vain until it has run for a while."""
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (self.vain - 1)) if self.vain else 0.0
        self.vain += 1
        self.next_at = now + delay
