"""`backoff`: after a *failure*, per resource: 5 ms doubling to 5 min, with jitter.

Cleared by a new generation, by success, and by `clear` (a changed incarnation, a reconnect).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from desired.resource import ResourceId
from reconciler.contract import Change, Outcome
from reconciler.gates.base import Context, Withheld

JITTER = 0.2


@dataclass(slots=True)
class _Failing:
    delay: float
    until: float
    generation: int
    error: str
    action: type | None


class Backoff:
    name = "backoff"

    def __init__(self, first: float, longest: float, chance: Callable[[], float]) -> None:
        self._first, self._longest, self._chance = first, longest, chance
        self._failing: dict[ResourceId, _Failing] = {}

    def failed(
        self, resource: ResourceId, *, generation: int, error: str, now: float, action: type | None = None
    ) -> float:
        """Note a failure; returns when to try again (monotonic seconds). Only `action`, if given, has to wait."""
        known = self._failing.get(resource)
        delay = self._first
        if known is not None and known.generation == generation:
            delay = min(self._longest, known.delay * 2)
        until = now + delay * (1 + JITTER * (self._chance() - 0.5))
        self._failing[resource] = _Failing(delay, until, generation, error, action)
        return until

    def succeeded(self, resource: ResourceId) -> None:
        self._failing.pop(resource, None)

    def clear(self, resources: Iterable[ResourceId] | None = None) -> None:
        """Forget failures of `resources`, or all: what they failed on has changed."""
        if resources is None:
            self._failing.clear()
        else:
            for resource in resources:
                self._failing.pop(resource, None)

    def failing(self) -> bool:
        return bool(self._failing)

    def active(self, ctx: Context) -> bool:
        return bool(self._failing)

    def change(self, change: Change, ctx: Context) -> Withheld | None:
        known = self._failing.get(change.resource)
        if known is None or known.until <= ctx.now:
            return None
        if known.action is not None and known.action is not type(change.action):
            return None
        resource = ctx.view.resources.get(change.resource)
        if resource is not None and resource.generation != known.generation:
            return None
        reason = f"tried again in {known.until - ctx.now:.3g} s, after: {known.error}"
        return Withheld(self.name, reason, known.until, Outcome.FAILED)
