"""A node whose engine holds namespaces and nothing else, in a private network; the world is looked at with ip(8)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from controllers.namespace.controller import NamespaceController
from controllers.ownership import Owner
from desired.kinds.sections import SECTIONS
from desired.schema.reading import read_file
from desired.snapshot import Snapshot
from reconciler.clock import SystemClock
from reconciler.contract import ActionRecord, PassRecord
from reconciler.engine import Engine
from reconciler.gates.budget import removed
from reconciler.metrics import Metrics
from reconciler.settings import Settings


class Journal:
    def __init__(self) -> None:
        self.entries: list[PassRecord] = []

    def record(self, entry: PassRecord) -> None:
        self.entries.append(entry)

    def actions(self) -> list[ActionRecord]:
        return [action for entry in self.entries for action in entry.actions]

    def done(self) -> list[str]:
        return [f"{a.verb} {a.resource}" for a in self.actions() if a.result == "done"]


class Node:
    """The engine of one node."""

    def __init__(self, **settings: Any) -> None:
        values: dict[str, Any] = {"state_dir": Path("/run/r"), "run_dir": Path("/run/r"), "resync_interval": 3600.0}
        self.settings = Settings(**{**values, **{k: v for k, v in settings.items() if k in Settings.model_fields}})
        more = {k: v for k, v in settings.items() if k not in Settings.model_fields}
        self.controller = NamespaceController(
            owner=Owner("test"), untouchable=self.settings.untouchable, timeout=2.0, **more
        )
        self.journal = Journal()
        self.engine = Engine(
            [self.controller],
            settings=self.settings,
            clock=SystemClock(),
            metrics=Metrics(controllers=["namespace"], kinds=[spec.kind for spec in self.controller.specs], streams=()),
            sinks=[self.journal],
        )
        self.engine.gates.in_sync.started()

    def declare(self, text: str) -> None:
        content = read_file(text.encode(), "t.yaml", SECTIONS)
        assert not content.problems, [str(problem) for problem in content.problems]
        resources = [one.resource for document in content.documents for one in document.declared]
        new = Snapshot.of(resources)
        self.engine.desire(new, removed(self.engine.book.snapshot.resources, new.resources))

    def wrong(self) -> dict[str, str]:
        return {str(s.resource): f"{s.outcome}: {s.reason}" for s in self.engine.statuses.not_right()}

    async def until(self, true: Callable[[], Any], what: str, within: float = 10.0) -> None:
        deadline = time.monotonic() + within
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"not within {within} s: {what}; wrong: {self.wrong()}; done: {self.journal.done()[-20:]}"
                )
            await asyncio.sleep(0.002)

    async def converged(self, within: float = 10.0) -> None:
        await self.until(lambda: self.engine.queue.idle() and self.engine.converged(), "converged", within)

    async def plans_nothing(self) -> None:
        """A look at everything, after the kernel was asked anew, finds nothing to do."""
        for scope in self.engine.scopes():
            await self.controller.prove(scope)
        records = await self.engine.plan(None)
        assert [str(a.resource) + " " + a.why for r in records for a in r.actions] == []


@contextlib.asynccontextmanager
async def running(text: str, *, converged: bool = True, **settings: Any) -> AsyncIterator[Node]:
    """A node that holds what `text` declares."""
    node = Node(**settings)
    node.declare(text)
    task = asyncio.create_task(node.engine.run(), name="engine")
    try:
        if converged:
            await node.converged()
        yield node
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        node.controller.close()
