"""Supervision of a controller's watch: it is kept running, and what it may have missed is looked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconciler.clock import Clock
from reconciler.contract import Controller, Event
from reconciler.logs import get_logger
from reconciler.metrics import Metrics
from reconciler.stream import EventStream

log = get_logger("engine")


async def supervise(
    controller: Controller,
    hear: Callable[[Event], None],
    missed: Callable[[Controller], None],
    *,
    metrics: Metrics,
    clock: Clock,
) -> None:
    """Hand every event to `hear`, until cancelled. A watch that ends is started again, and `missed` is called."""
    delay = 0.1
    stream = getattr(controller, "events", None)
    if isinstance(stream, EventStream):
        stream.listener = hear
    while True:
        started = clock.now()
        try:
            async for event in controller.watch():
                hear(event)
            log.warning("watch_ended", controller=controller.name, retry_in=delay)
        except Exception:  # the supervisor's one catch: a watch that crashed is started again, loudly
            log.exception("watch_crashed", controller=controller.name, retry_in=delay)
        metrics.watch_ended[controller.name,].inc()
        delay = 0.1 if clock.now() - started > 60.0 else min(30.0, delay * 2)
        await asyncio.sleep(delay)
        missed(controller)
