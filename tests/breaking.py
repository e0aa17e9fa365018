"""A breaker's choice of deeds: seeded, weighted, counted. What the deeds are is the business of each breaker.

Used by ``tests/functional/test_breaker.py`` and ``tests/benchmarks/breaker.py`` (Open vSwitch alone) and by
``tests/lab/breaker.py`` (a whole node).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Deeds(Generic[T]):
    """`all` are (weight, name, deed). The choice depends on the seed alone, never on what became of a deed."""

    def __init__(self, chance: random.Random, all_: Sequence[tuple[int, str, Callable[[], T]]]) -> None:
        self._chance = chance
        self._all = tuple(all_)
        self._weights = [weight for weight, _, _ in self._all]
        self.done: Counter[str] = Counter()

    def choose(self) -> tuple[str, Callable[[], T]]:
        ((_, name, deed),) = self._chance.choices(self._all, self._weights)
        return name, deed

    def one(self, *refusals: type[Exception]) -> bool:
        """Do one, and count it. What a tool refuses (one of `refusals`: the thing is just gone) is no deed: False."""
        name, deed = self.choose()
        try:
            deed()
        except refusals:
            self.done[f"{name}: refused"] += 1
            return False
        self.done[name] += 1
        return True


def differences(before: Mapping[str, str], now: Mapping[str, str], most: int = 5) -> list[str]:
    """What differs between two pictures (texts by name), line by line, in words."""
    found = []
    for name in sorted({*before, *now}):
        was, has = set(before.get(name, "").splitlines()), set(now.get(name, "").splitlines())
        if was != has:
            found.append(f"{name}: missing {sorted(was - has)[:most]}, not expected {sorted(has - was)[:most]}")
    return found
