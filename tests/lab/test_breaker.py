"""A whole node, broken at random with the tools that everybody has: three fixed seeds and a new one.

``python -m tests.lab.breaker`` does it for longer and for many seeds; a failure prints its seed and how to replay it.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.lab.breaker import run

SECONDS = float(os.environ.get("BREAKER_SECONDS", "20"))
NEW = int(os.environ.get("BREAKER_SEED", str(time.time_ns() % 1_000_000)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2, 3, pytest.param(NEW, id="new")])
def test_a_node_is_as_declared_within_five_seconds_after_a_random_breaker_stops(seed: int) -> None:
    verdict = run(seed, SECONDS)
    print(verdict.words())
    assert verdict.good, f"replay: python -m tests.lab.breaker --first {seed} --seconds {SECONDS:g}\n{verdict.words()}"
    assert len(verdict.done) > SECONDS, "something was broken every few hundred milliseconds"
