"""The work queue: scopes to look at, each at most once waiting and at most once running.

Leading edge: the first event of a quiet scope is handed out at once. While events keep coming the gap before the
next pass doubles up to `MAX_GAP`, so a storm becomes few passes. News go before resync and start-up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from reconciler.clock import Clock
from reconciler.contract import Focus, Scope

FREE_PASSES = 3
"""So many passes in a row wait for nothing: a break, the answer of the switch, a second break."""
FIRST_GAP = 0.001
MAX_GAP = 0.1
QUIET = 0.1
"""Seconds without an event after which a scope counts as quiet again."""


class Priority(IntEnum):
    NEWS = 0
    RESYNC = 1


class Work(NamedTuple):
    """What a worker is handed: look at `scope`, narrowed to `focus`. `since` is when the first event came."""

    scope: Scope
    focus: Focus
    reason: str
    since: float
    priority: Priority = Priority.NEWS
    events: int = 1
    prove: bool = False


@dataclass(slots=True)
class _Key:
    work: Work | None = None
    running: bool = False
    queued: bool = False
    streak: int = 0
    ended: float = float("-inf")
    timer: asyncio.TimerHandle | None = None


def _merge(old: Work, new: Work) -> Work:
    focus = None if old.focus is None or new.focus is None else old.focus | new.focus
    reason = old.reason if old.priority <= new.priority else new.reason
    priority = min(old.priority, new.priority)
    return Work(old.scope, focus, reason, old.since, priority, old.events + new.events, old.prove or new.prove)


class ScopeQueue:
    """`add` from the loop's thread, `get`/`done` from workers. Needs a running loop for its timers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[Scope, _Key] = {}
        self._waiting: dict[Scope, _Key] = {}
        """Those with work."""
        self._busy = 0
        self._ready: tuple[deque[Scope], deque[Scope]] = (deque(), deque())
        self._getters: deque[asyncio.Future[None]] = deque()

    def add(
        self,
        scope: Scope,
        focus: Focus = None,
        reason: str = "",
        *,
        priority: Priority = Priority.NEWS,
        prove: bool = False,
    ) -> None:
        """Ask for a pass. Merged with what already waits for this scope."""
        now = self._clock.now()
        key = self._keys.get(scope)
        if key is None:
            key = self._keys[scope] = _Key()
        new = Work(scope, focus, reason, now, priority, 1, prove)
        if key.work is None:
            if now - key.ended > QUIET and not key.running:
                key.streak = 0
            key.work = new
            self._waiting[scope] = key
        else:
            raised = key.queued and new.priority < key.work.priority
            key.work = _merge(key.work, new)
            if raised:
                self._ready[Priority.RESYNC].remove(scope)
                self._ready[Priority.NEWS].append(scope)
        if not (key.running or key.queued or key.timer):
            self._schedule(scope, key, now)

    def _schedule(self, scope: Scope, key: _Key, now: float) -> None:
        due = key.ended + (0.0 if key.streak < FREE_PASSES else self._gap(key))
        if due <= now:
            self._ripe(scope, key)
        else:
            key.timer = asyncio.get_running_loop().call_at(due, self._ripe, scope, key)

    @staticmethod
    def _gap(key: _Key) -> float:
        return float(min(MAX_GAP, FIRST_GAP * 2 ** min(key.streak - FREE_PASSES, 10)))

    def _ripe(self, scope: Scope, key: _Key) -> None:
        key.timer = None
        if key.work is None or key.running or key.queued:
            return
        key.queued = True
        self._ready[key.work.priority].append(scope)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    async def get(self) -> Work:
        """The next piece of work; the caller must call `done` for its scope afterwards."""
        while not (self._ready[0] or self._ready[1]):
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake()
                raise
        scope = (self._ready[0] or self._ready[1]).popleft()
        key = self._keys[scope]
        work = key.work
        assert work is not None
        key.work, key.queued, key.running = None, False, True
        del self._waiting[scope]
        self._busy += 1
        key.streak += 1
        return work

    def done(self, scope: Scope) -> None:
        """The pass over `scope` ended; what came meanwhile is scheduled now."""
        key = self._keys[scope]
        key.running = False
        self._busy -= 1
        key.ended = self._clock.now()
        if key.work is not None and not key.queued and key.timer is None:
            self._schedule(scope, key, key.ended)

    def waiting(self) -> Mapping[Scope, Work]:
        """What waits, by scope."""
        return {scope: key.work for scope, key in self._waiting.items() if key.work is not None}

    def depth(self) -> int:
        return len(self._waiting)

    def oldest(self, now: float) -> float:
        """Age in seconds of the oldest event that no pass has taken up yet; 0 when nothing waits."""
        return max((now - work.since for work in self.waiting().values()), default=0.0) if self._waiting else 0.0

    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not (self._waiting or self._busy)

    def forget(self, scope: Scope) -> None:
        """Drop the state of a scope that does not exist any more, when it is idle."""
        key = self._keys.get(scope)
        if key is not None and key.work is None and not key.running:
            del self._keys[scope]
