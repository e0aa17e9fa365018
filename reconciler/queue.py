"""The work queue: scopes to look at, each at most once waiting and at most once running.

Leading edge: the first event of a quiet scope is handed out at once. While events keep coming the gap before the
next pass doubles up to `MAX_GAP`, so a storm becomes few passes. News go before resync and start-up. A controller has
`SHARE` passes under way at most, so that twenty namespaces that wait for the kernel keep no file waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from reconciler.clock import Clock
from reconciler.contract import Focus, Scope

SHARE = 4
"""Passes of one controller at the same time."""
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
    order: int = 0
    """Of those that are ready, the smallest goes first."""
    streak: int = 0
    ended: float = float("-inf")
    timer: asyncio.TimerHandle | None = None


def _merge(old: Work, new: Work) -> Work:
    focus = None if old.focus is None or new.focus is None else old.focus | new.focus
    reason = old.reason if old.priority <= new.priority else new.reason
    priority = min(old.priority, new.priority)
    return Work(old.scope, focus, reason, old.since, priority, old.events + new.events, old.prove or new.prove)


class _Ready:
    """Scopes that may be handed out, oldest first, by controller."""

    def __init__(self) -> None:
        self._of: dict[str, deque[tuple[int, Scope]]] = {}

    def add(self, order: int, scope: Scope) -> None:
        self._of.setdefault(scope.controller, deque()).append((order, scope))

    def remove(self, order: int, scope: Scope) -> None:
        self._of[scope.controller].remove((order, scope))

    def take(self, busy: Mapping[str, int], foremost: str) -> Scope | None:
        """The oldest of the controllers that have not their share; one of the controller `foremost` before all."""
        if self._of.get(foremost) and busy.get(foremost, 0) < SHARE:
            return self._of[foremost].popleft()[1]
        heads = [(ready[0], name) for name, ready in self._of.items() if ready and busy.get(name, 0) < SHARE]
        return self._of[min(heads)[1]].popleft()[1] if heads else None


class ScopeQueue:
    """`add` from the loop's thread, `get`/`done` from workers. Needs a running loop for its timers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.foremost = ""
        """The controller on whose things those of others stand: of what is ready, its scopes go first."""
        self._keys: dict[Scope, _Key] = {}
        self._waiting: dict[Scope, _Key] = {}
        """Those with work."""
        self._busy: Counter[str] = Counter()
        """Passes under way, by controller."""
        self._order = 0
        self._ready = (_Ready(), _Ready())
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
                self._ready[Priority.RESYNC].remove(key.order, scope)
                self._make_ready(scope, key, Priority.NEWS)
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
        self._make_ready(scope, key, key.work.priority)
        self._wake()

    def _make_ready(self, scope: Scope, key: _Key, priority: Priority) -> None:
        self._order += 1
        key.order = self._order
        self._ready[priority].add(key.order, scope)

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    async def get(self) -> Work:
        """The next piece of work; the caller must call `done` for its scope afterwards."""
        news, others = self._ready
        while (scope := news.take(self._busy, self.foremost) or others.take(self._busy, self.foremost)) is None:
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake()
                raise
        key = self._keys[scope]
        work = key.work
        assert work is not None
        key.work, key.queued, key.running = None, False, True
        del self._waiting[scope]
        self._busy[scope.controller] += 1
        key.streak += 1
        return work

    def done(self, scope: Scope) -> None:
        """The pass over `scope` ended; what came meanwhile is scheduled now."""
        key = self._keys[scope]
        key.running = False
        self._busy[scope.controller] -= 1
        key.ended = self._clock.now()
        if key.work is not None and not key.queued and key.timer is None:
            self._schedule(scope, key, key.ended)
        if self._busy[scope.controller] == SHARE - 1:
            self._wake()  # what had to wait for its controller's share may go now

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
        return not self._waiting and not any(self._busy.values())

    def forget(self, scope: Scope) -> None:
        """Drop the state of a scope that does not exist any more, when it is idle."""
        key = self._keys.get(scope)
        if key is not None and key.work is None and not key.running:
            del self._keys[scope]
