"""What every gate is given and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from desired.resource import ResourceId
from reconciler.contract import Change, Outcome, Plan, Scope, View


@dataclass(frozen=True, slots=True)
class Withheld:
    """Why something must wait. `retry_at` (monotonic seconds) is when to look again; None: an event will say."""

    gate: str
    reason: str
    retry_at: float | None = None
    outcome: Outcome = Outcome.PENDING
    waits_for: tuple[ResourceId | Scope, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a gate may look at. `now` is monotonic, `wall` is for people's deadlines."""

    now: float
    wall: float
    view: View
    plan: Plan = field(default_factory=Plan)


class ChangeGate(Protocol):
    """Judges single changes; `active` is False when it could not withhold anything now (the quick way out)."""

    name: str

    def active(self, ctx: Context) -> bool: ...

    def change(self, change: Change, ctx: Context) -> Withheld | None: ...
