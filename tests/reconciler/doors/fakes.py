"""A small honest node for the doors: real data, no engine. What it was asked is what its data shows afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from desired.resource import ResourceId
from reconciler import logs
from reconciler.contract import ActionRecord, Finding, Outcome, PassRecord, ResourceStatus, Scope, Verb
from reconciler.errors import ConfigError, DriverError
from reconciler.report import Budget, NodeStatus, OnceResult, Pause, Problem, Stream

NOW = 1_790_000_000.0
EVIL = '<script>alert("x")</script>\x1b[31m'

REPAIR = PassRecord(
    7,
    NOW - 5.0,
    Scope("ovsdb"),
    "event",
    "abc123",
    Outcome.CONVERGED,
    0.0011,
    0.0014,
    (
        ActionRecord(ResourceId("port", "patch-tun"), Verb.CREATE, "was deleted", "", "patch", "done", drift=True),
        ActionRecord(ResourceId("port", "tap0"), Verb.UPDATE, "tag differs", "tag=2", "tag=1", "done", drift=True),
        ActionRecord(ResourceId("bridge", "br-old"), Verb.DELETE, "not declared", "", "", "withheld", gate="budget"),
    ),
    (
        Finding(
            ResourceId("flow", "br-int/table=0"),
            Outcome.PENDING,
            "names a port that is not there",
            (ResourceId("port", "tap9"), Scope("ovsdb")),
        ),
    ),
)

STATUS = NodeStatus(
    "net1",
    "0.1.0",
    4242,
    NOW - 3600.0,
    "abc123",
    Outcome.CONFLICT,
    4,
    {"bridge": 2, "port": 5},
    (ResourceStatus(ResourceId("bridge", EVIL), Outcome.CONFLICT, f"held by {EVIL}", NOW - 60.0, origin="a.yaml:3:1"),),
    (Problem(f"unknown key {EVIL}", "net.yaml", 3, 5, "bridges.br-int", "did you mean 'fail_mode'?"),),
    (),
    (Budget("abc123", "port", 9, 3, 10, ("port/a", "port/b")),),
    (Stream("ovsdb", ready=True, last_event=NOW - 2.0), Stream("flow", ready=False, detail="connecting")),
    (f"flow-restore-wait is set {EVIL}",),
    NOW - 120.0,
    "sqlite:////var/lib/reconciler/state.db",
)


class FakeNode:
    """Implements `reconciler.report.Node`. `stuck` makes it unhealthy, `slow` makes `once` last."""

    def __init__(self) -> None:
        self.current = STATUS
        self.stuck = ""
        self.records: list[PassRecord] = [REPAIR]
        self.listeners: list[asyncio.Queue[PassRecord]] = []
        self.once_seconds = 0.0

    def status(self) -> NodeStatus:
        return self.current

    async def once(self, *, only: str | None, dry_run: bool, timeout: float) -> OnceResult:
        if only and only.partition("/")[0] not in {"port", "bridge", "flow"}:
            raise ConfigError(f"there is no kind {only!r}")
        if only == "flow":
            raise DriverError("br-int: no answer to a dump within 5 s")
        await asyncio.sleep(min(self.once_seconds, timeout))
        if not dry_run:
            return OnceResult(Outcome.CONVERGED, 0, (REPAIR,), revision="abc123", seconds=0.01)
        planned = tuple(replace(action, result="planned") for action in REPAIR.actions)
        passes = (replace(REPAIR, actions=planned),)
        return OnceResult(Outcome.PENDING, 2, passes, self.current.not_right, revision="abc123", seconds=0.01)

    async def approve(self, revision: str | None) -> Sequence[Budget]:
        through = [each for each in self.current.budgets if revision in (None, each.revision)]
        self.current = replace(self.current, budgets=tuple(b for b in self.current.budgets if b not in through))
        return through

    async def pause(self, what: str, *, reason: str, seconds: float | None, by: str) -> Pause:
        pause = Pause(what, reason, NOW, None if seconds is None else NOW + seconds, by)
        self.current = replace(self.current, pauses=(*self.current.pauses, pause))
        return pause

    async def resume(self, what: str, *, by: str) -> Sequence[Pause]:
        ended = [each for each in self.current.pauses if what in ("all", each.what)]
        self.current = replace(self.current, pauses=tuple(p for p in self.current.pauses if p not in ended))
        return ended

    async def history(self, *, resource: str | None, since: float | None, limit: int) -> Sequence[PassRecord]:
        def wanted(entry: PassRecord) -> bool:
            return (since is None or entry.at >= since) and (
                resource is None or any(str(action.resource) == resource for action in entry.actions)
            )

        return [entry for entry in self.records if wanted(entry)][:limit]

    async def events(self) -> AsyncIterator[PassRecord]:
        queue: asyncio.Queue[PassRecord] = asyncio.Queue()
        self.listeners.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.listeners.remove(queue)

    def happened(self, entry: PassRecord) -> None:
        for queue in self.listeners:
            queue.put_nowait(entry)

    def set_log_level(self, level: str) -> str:
        return logs.set_level(level)

    def healthy(self) -> tuple[bool, str]:
        return (not self.stuck, self.stuck)

    def ready(self) -> tuple[bool, str]:
        return (False, "flow/br-int has not been looked at yet")
