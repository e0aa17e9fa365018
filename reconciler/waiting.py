"""Who waits for what, and until when: scopes are looked at again when what they wait for is nearer, or a time has come.

The engine notes here what each pass left waiting. Everything ends in the queue; nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from desired.resource import ResourceId
from reconciler.contract import Scope
from reconciler.queue import ScopeQueue

Ref = ResourceId | Scope


class Waiting:
    """`nearness` says of a ref: 0, it is not there; 1, it is there with something wrong; 2, it is right."""

    def __init__(self, queue: ScopeQueue, nearness: Callable[[Ref], int]) -> None:
        self._queue, self._nearness = queue, nearness
        self._refs: dict[Ref, dict[Scope, int]] = {}
        self._retries: dict[Scope, asyncio.TimerHandle] = {}

    def note(self, scope: Scope, refs: Iterable[Ref], *, whole: bool) -> None:
        """`scope` waits for `refs`. A narrowed pass (not `whole`) does not know what the rest of the scope does."""
        wanted = set(refs)
        for ref, waits in self._refs.items():
            if whole and ref not in wanted:
                waits.pop(scope, None)
        for ref in wanted:
            self._refs.setdefault(ref, {}).setdefault(scope, 0)

    def wake(self) -> None:
        """Look at every scope for which something is nearer than when it was last told."""
        for ref in list(self._refs):
            near = self._nearness(ref)
            for waiting, told in self._refs[ref].items():
                if near > told:
                    self._queue.add(waiting, None, f"{ref} is there")
                self._refs[ref][waiting] = near
            if not self._refs[ref]:
                del self._refs[ref]

    def retry(self, scope: Scope, at: float | None, *, whole: bool = True) -> None:
        """Look again at `at` (monotonic), or not. What a narrowed pass leaves puts off nothing of the rest."""
        old = self._retries.get(scope)
        if old is not None and not whole and (at is None or old.when() <= at):
            return
        if old is not None:
            del self._retries[scope]
            old.cancel()
        if at is None:
            return
        loop = asyncio.get_running_loop()
        self._retries[scope] = loop.call_at(at, self._queue.add, scope, None, "looked at again after a wait")

    def retry_due(self) -> float | None:
        """When the earliest retry is due (monotonic seconds); None when nothing is to be retried."""
        return min((handle.when() for handle in self._retries.values() if not handle.cancelled()), default=None)
