"""`contention`: somebody else keeps undoing what we repair.

Each repair of drift raises a resource's level by one; it leaks away. Above a threshold the next repair is delayed,
more each time, up to `longest`, and the status is *Contended* with the evidence. It never gives up.
"""

from __future__ import annotations

from dataclasses import dataclass

from desired.resource import ResourceId
from reconciler.contract import Change, Outcome, Verb
from reconciler.gates.base import Context, Withheld

THRESHOLD = 10.0
"""Repairs of one resource in quick succession that are not yet called contention."""
LEAK = 2.0
"""Repairs a second of one resource that never add up."""
FIRST_DELAY = 0.05
TIDY_ABOVE = 4096
"""Repaired resources kept before those are dropped whose level has leaked away; then again at twice what was left."""


@dataclass(slots=True)
class _Fight:
    level: float
    at: float
    last: Change

    @property
    def evidence(self) -> str:
        change = self.last
        if change.before:
            return f"{change.why}; somebody sets {change.before!r}"
        return f"{change.why}; somebody deletes it each time" if change.verb is Verb.CREATE else change.why


class Contention:
    name = "contention"

    def __init__(self, longest: float = 3.0) -> None:
        self._longest = longest
        self._fights: dict[ResourceId, _Fight] = {}
        self._tidy_above = TIDY_ABOVE

    def repaired(self, change: Change, now: float) -> None:
        """A drift of this resource was repaired once more."""
        fight = self._fights.get(change.resource)
        level = 0.0 if fight is None else max(0.0, fight.level - (now - fight.at) * LEAK)
        self._fights[change.resource] = _Fight(level + 1, now, change)
        if len(self._fights) > self._tidy_above:
            self._forget(now)
            self._tidy_above = max(TIDY_ABOVE, 2 * len(self._fights))

    def last(self, resource: ResourceId) -> Change | None:
        """The last repair of this resource that is remembered."""
        fight = self._fights.get(resource)
        return None if fight is None else fight.last

    def _forget(self, now: float) -> None:
        for rid, fight in list(self._fights.items()):
            if (now - fight.at) * LEAK >= fight.level:
                del self._fights[rid]

    def contended(self, resource: ResourceId, now: float) -> str:
        """The evidence while `resource` is fought over, else ''."""
        fight = self._fights.get(resource)
        if fight is None or fight.level - (now - fight.at) * LEAK <= THRESHOLD:
            return ""
        return fight.evidence

    def any(self) -> bool:
        return bool(self._fights)

    def fights(self, now: float) -> dict[ResourceId, str]:
        """All resources that are fought over now, with the evidence."""
        return {rid: why for rid in self._fights if (why := self.contended(rid, now))}

    def active(self, ctx: Context) -> bool:
        return bool(self._fights)

    def change(self, change: Change, ctx: Context) -> Withheld | None:
        fight = self._fights.get(change.resource)
        if fight is None or fight.level <= THRESHOLD:
            return None
        delay = min(self._longest, FIRST_DELAY * 2 ** (fight.level - THRESHOLD - 1))
        until = fight.at + delay
        if until <= ctx.now:
            return None
        reason = f"repaired again and again ({fight.evidence}); next repair in {until - ctx.now:.2g} s"
        return Withheld(self.name, reason, until, Outcome.CONTENDED)
