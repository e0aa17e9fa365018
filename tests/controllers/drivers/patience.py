"""Waiting for a driver, and running it beside a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

PATIENCE = 40.0


class Runs(Protocol):
    def run(self) -> Coroutine[Any, Any, None]: ...


async def until(true: Callable[[], object], *, what: str = "it did not come true") -> None:
    """Wait until `true()`; fails after PATIENCE seconds."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not true():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def running(driver: Runs) -> AsyncIterator[None]:
    """Run it within this block."""
    task = asyncio.create_task(driver.run(), name="driver")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
