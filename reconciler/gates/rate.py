"""`rate`: token buckets per kind and for the node, charged per group. Generous: a repair is the purpose."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.contract import Group
from reconciler.gates.base import Context, Withheld


@dataclass(slots=True)
class TokenBucket:
    """`rate` tokens a second up to `burst`."""

    rate: float
    burst: float
    tokens: float
    at: float

    @classmethod
    def full(cls, rate: float, burst: float) -> TokenBucket:
        return cls(rate, burst, burst, float("-inf"))

    def level(self, now: float) -> float:
        if self.at == float("-inf"):
            return self.burst
        return min(self.burst, self.tokens + (now - self.at) * self.rate)

    def take(self, now: float) -> None:
        self.tokens, self.at = self.level(now) - 1, now

    def wait(self, now: float) -> float:
        """Seconds until one token is there."""
        return max(0.0, (1 - self.level(now)) / self.rate)


class Rate:
    name = "rate"

    def __init__(self, *, node: tuple[float, float], kind: tuple[float, float]) -> None:
        """Each pair is (groups per second, burst)."""
        self._node = TokenBucket.full(*node)
        self._kind = kind
        self._kinds: dict[str, TokenBucket] = {}

    def _buckets(self, group: Group) -> list[tuple[str, TokenBucket]]:
        buckets = [("node", self._node)]
        seen = ""
        for change in group.changes:
            kind = change.resource.kind
            if kind == seen or (seen and any(name == kind for name, _ in buckets)):
                continue
            seen = kind
            bucket = self._kinds.get(kind)
            if bucket is None:
                bucket = self._kinds[kind] = TokenBucket.full(*self._kind)
            buckets.append((kind, bucket))
        return buckets

    def group(self, group: Group, ctx: Context) -> Withheld | None:
        now = ctx.now
        late = [(bucket.wait(now), name) for name, bucket in self._buckets(group) if bucket.level(now) < 1]
        if not late:
            return None
        seconds, name = max(late)
        return Withheld(self.name, f"rate limit of {name}: {seconds:.3g} s", now + seconds)

    def charge(self, group: Group, now: float) -> None:
        for _, bucket in self._buckets(group):
            bucket.take(now)
