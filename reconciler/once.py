"""One process, one look and repair: what `--once` and `plan` do when no daemon runs. Wiring only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from reconciler.assembly import Assembly, build
from reconciler.errors import DriverError
from reconciler.gates.base import ChangeGate
from reconciler.gates.pauses import DryRun, Only
from reconciler.lock import node_lock
from reconciler.openstack import OpenStack
from reconciler.report import OnceResult
from reconciler.settings import Settings
from reconciler.start import recall

PATIENCE = 5.0
"""Seconds that the store may take to write what waits at the end."""


@contextlib.asynccontextmanager
async def background(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[asyncio.Task[None]]:
    task: asyncio.Task[None] = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def run_once(
    settings: Settings, *, only: str | None, dry_run: bool, timeout: float, force: bool = False
) -> OnceResult:
    """One process, one look (and repair): what `--once` and `plan` do when no daemon runs.

    Raises LockHeldError, ConfigError, and DriverError when Open vSwitch does not answer at all.
    """
    with node_lock(settings.lock_path, force=force):
        parts = build(settings, journal=not dry_run)
        engine = parts.engine
        if only is not None:
            parts.node.check_selector(only)
        parts.writer.start()
        try:
            await recall(parts)
            if settings.amqp.url or settings.neutron.used:
                await OpenStack(settings, parts.cluster, parts.writer, engine.clock, lambda _age: None).recall()
            engine.gates.in_sync.started()
            loaded = await parts.source.load()
            if loaded.problems:
                parts.intake.take(loaded)
                return await parts.node.once(only=only, dry_run=True, timeout=timeout)
            mounted: list[ChangeGate] = [Only(only)] if only is not None else []
            engine.mount([*mounted, DryRun()] if dry_run else mounted)
            async with background(engine.run(), "engine"):
                await _connected(parts, min(timeout, settings.timeouts.ovsdb))
                parts.cluster.take_files(loaded)
                await parts.cluster.compose()
                if dry_run:
                    await engine.settle(timeout, quiet=0.3)
                return await parts.node.once(only=only, dry_run=dry_run, timeout=timeout)
        finally:
            await parts.writer.close(PATIENCE)


async def _connected(parts: Assembly, within: float) -> None:
    """Wait until OVSDB and the declared bridges that exist answer. Raises DriverError when OVSDB does not."""
    ovsdb = parts.catalog.ovsdb.driver
    deadline = parts.engine.clock.now() + within
    while not ovsdb.ready:
        if parts.engine.clock.now() >= deadline:
            raise DriverError(f"Open vSwitch does not answer: {ovsdb.problem}")
        await asyncio.sleep(0.002)
