"""Events on their way from a driver's callback to the engine, without a turn of the event loop in between.

A controller puts events into an `EventStream` and yields from it in `watch`; that alone would do. The engine, which
finds it as the controller's `events`, listens to it, and then hears of an event in the callback that reports it:
waking a task for it first is a tenth of the time a single repair takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconciler.contract import Event


class EventStream(asyncio.Queue[Event]):
    """A queue that is bypassed while somebody listens. Used from the event loop's thread."""

    listener: Callable[[Event], None] | None = None

    def put_nowait(self, item: Event) -> None:
        if self.listener is not None:
            self.listener(item)
        else:
            super().put_nowait(item)
