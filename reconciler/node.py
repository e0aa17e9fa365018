"""The node as its doors see it: joins engine, intake and store writer into the answers of `report.Node`."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

from desired.kinds.namespace import HOST
from desired.network.model import Model
from desired.resource import ResourceId
from desired.store import HistoryQuery, PauseRow
from reconciler import __version__, logs
from reconciler.contract import Outcome, PassRecord, Scope
from reconciler.declared import declared_rows
from reconciler.doors.journal import pass_record
from reconciler.engine import Engine
from reconciler.errors import ConfigError
from reconciler.gates.pauses import NODE, selects
from reconciler.intake import Intake
from reconciler.logs import get_logger
from reconciler.queue import Priority
from reconciler.report import Budget, Declared, ExitCode, NodeStatus, OnceResult, Pause, Stream
from reconciler.settings import Settings
from reconciler.settings_values import without_password
from reconciler.status import worst
from reconciler.writer import StoreWriter

log = get_logger("node")

_THE_HOST = ResourceId("namespace", HOST)
"""Stands for what `host:` says of all that is in it, and is no namespace that anybody would count."""

EVENTS_BEHIND = 1000
"""Passes that a slow reader of `events` may be behind before the oldest are dropped for it."""


def exit_code(outcome: Outcome) -> ExitCode:
    """What a verb exits with when this is the worst there is."""
    match outcome:
        case Outcome.CONVERGED:
            return ExitCode.CONVERGED
        case Outcome.FAILED:
            return ExitCode.FAILED
        case Outcome.PENDING:
            return ExitCode.WITHHELD
        case Outcome.CONFLICT | Outcome.CONTENDED:
            return ExitCode.CONFLICT


class Feed:
    """Live passes to any number of readers; a `Sink`."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Queue[PassRecord]] = set()

    def record(self, entry: PassRecord) -> None:
        for reader in self._readers:
            if reader.full():
                reader.get_nowait()
            reader.put_nowait(entry)

    async def follow(self) -> AsyncIterator[PassRecord]:
        reader: asyncio.Queue[PassRecord] = asyncio.Queue(EVENTS_BEHIND)
        self._readers.add(reader)
        try:
            while True:
                yield await reader.get()
        finally:
            self._readers.discard(reader)


class LocalNode:
    """`report.Node` of this process."""

    def __init__(  # noqa: PLR0913 - it joins the parts
        self,
        settings: Settings,
        engine: Engine,
        intake: Intake,
        writer: StoreWriter,
        feed: Feed,
        streams: Callable[[], Sequence[Stream]],
        notices: Callable[[], Sequence[str]] = lambda: (),
        model: Callable[[], tuple[Model, Mapping[str, int]]] = lambda: (Model({}), {}),
    ) -> None:
        self._settings, self._engine, self._intake = settings, engine, intake
        self._writer, self._feed, self._streams, self.notices = writer, feed, streams, notices
        self._model = model
        self._started = engine.clock.wall()

    # -- looking ----------------------------------------------------------------------------------------------------

    def status(self) -> NodeStatus:
        engine = self._engine
        outcome, code = self._verdict(None)
        declared = engine.book.snapshot.resources
        return NodeStatus(
            node=self._settings.node,
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            revision=engine.book.snapshot.revision,
            outcome=outcome,
            exit_code=code,
            resources=dict(Counter(rid.kind for rid in declared if rid != _THE_HOST)),
            not_right=engine.statuses.not_right(),
            config_problems=self._intake.problems,
            pauses=engine.gates.paused.all(),
            budgets=self.budgets(),
            streams=self._streams(),
            notices=(*self.notices(), *self._store_notices()),
            last_converged=engine.last_converged,
            store=without_password(self._settings.store_url),
        )

    def declared(self) -> Declared:
        """What is enforced now, with the model behind it."""
        model, vlans = self._model()
        resources = self._engine.book.snapshot.resources.values()
        return Declared(self._settings.node, declared_rows(resources), declared_rows(model.objects.values()), vlans)

    def stamp(self) -> object:
        """Differs whenever `status` may say something else than before (ages and notices apart); cheap."""
        engine = self._engine
        paused = tuple(engine.gates.paused.all())
        return engine.last_news, engine.book.snapshot.revision, engine.statuses.version, self._intake.problems, paused

    def _store_notices(self) -> Sequence[str]:
        said = [self._writer.problem] if self._writer.problem else []
        if self._writer.dropped:
            said.append(f"{self._writer.dropped} passes were not written to the journal: the store was away too long")
        return said

    def budgets(self) -> Sequence[Budget]:
        """Deletes that wait for an approval."""
        return self._engine.gates.budget.report(self._engine.book.snapshot.revision, self._engine.clock.now())

    def _verdict(self, only: str | None) -> tuple[Outcome, ExitCode]:
        """The worst outcome and exit code, of everything or of what `only` selects."""
        engine = self._engine
        chosen = [s for s in engine.statuses.not_right() if only is None or selects(only, s.resource)]
        outcome = chosen[0].outcome if chosen else Outcome.CONVERGED
        code = exit_code(outcome)
        if self._intake.problems:
            return Outcome.FAILED if outcome is Outcome.CONVERGED else outcome, ExitCode.FAILED
        if not engine.book.snapshot.revision or (outcome is Outcome.CONVERGED and engine.unseen()):
            return Outcome.PENDING, ExitCode.WITHHELD
        return outcome, code

    async def history(self, *, resource: str | None, since: float | None, limit: int) -> Sequence[PassRecord]:
        rows = await self._writer.history(HistoryQuery(resource, since, limit))
        return [pass_record(row) for row in rows]

    def events(self) -> AsyncIterator[PassRecord]:
        return self._feed.follow()

    def healthy(self) -> tuple[bool, str]:
        return self._engine.healthy()

    def ready(self) -> tuple[bool, str]:
        if not self._engine.book.snapshot.revision:
            return False, "no desired state is loaded yet"
        unseen = self._engine.unseen()
        if unseen:
            return False, f"not looked at yet: {', '.join(map(str, unseen[:5]))}"
        return True, ""

    # -- ordering ---------------------------------------------------------------------------------------------------

    def check_selector(self, only: str) -> None:
        """Raises ConfigError when `only` is neither KIND nor KIND/NAME of a kind that exists."""
        kind, slash, _ = only.partition("/")
        self._engine.book.controller(kind)
        if slash:
            try:
                ResourceId.parse(only)
            except ValueError as error:
                raise ConfigError(str(error)) from error

    def look(self, only: str | None, reason: str) -> None:
        """Ask for passes that prove their replicas, behind whatever is news. Raises ConfigError as `check_selector`."""
        if only is not None:
            self.check_selector(only)
        engine = self._engine
        scopes = engine.scopes() if only is None else engine.scopes_of(only.partition("/")[0])
        engine.look(scopes, reason, priority=Priority.RESYNC, prove=True)

    async def once(self, *, only: str | None, dry_run: bool, timeout: float) -> OnceResult:
        engine = self._engine
        if only is not None:
            self.check_selector(only)
        started = engine.clock.now()
        if dry_run:
            passes = await engine.plan(only)
            return self._planned(only, passes, engine.clock.now() - started)
        seen: list[PassRecord] = []
        collector = _Collector(seen, only)
        engine.add_sink(collector)
        try:
            scopes = engine.scopes() if only is None else engine.scopes_of(only.partition("/")[0])
            settled = await self._prove_and_settle(scopes, timeout)
        finally:
            engine.remove_sink(collector)
        outcome, code = self._verdict(only)
        return OnceResult(
            outcome=outcome,
            exit_code=code,
            passes=seen,
            not_right=[s for s in engine.statuses.not_right() if only is None or selects(only, s.resource)],
            config_problems=self._intake.problems,
            budgets=self.budgets(),
            seconds=engine.clock.now() - started,
            timed_out=not settled,
            revision=engine.book.snapshot.revision,
        )

    async def _prove_and_settle(self, scopes: Collection[Scope], timeout: float) -> bool:
        """False when `timeout` came before it was done."""
        deadline = self._engine.clock.now() + timeout
        try:
            async with asyncio.timeout(timeout):
                await self._engine.prove(scopes, "asked for by --once")
        except TimeoutError:
            return False
        return await self._engine.settle(deadline - self._engine.clock.now())

    def _planned(self, only: str | None, passes: Sequence[PassRecord], seconds: float) -> OnceResult:
        findings = [finding.outcome for entry in passes for finding in entry.findings]
        gates = {action.gate for entry in passes for action in entry.actions} - {"dry_run"}
        changes = any(action.gate == "dry_run" for entry in passes for action in entry.actions)
        found = worst(findings)
        if self._intake.problems:
            code = ExitCode.FAILED
        elif changes:
            code = ExitCode.CHANGES
        elif gates:
            code = ExitCode.WITHHELD
        else:
            code = exit_code(found)
        outcome = Outcome.PENDING if (changes or gates) and found is Outcome.CONVERGED else found
        return OnceResult(
            outcome=outcome,
            exit_code=code,
            passes=passes,
            not_right=[s for s in self._engine.statuses.not_right() if only is None or selects(only, s.resource)],
            config_problems=self._intake.problems,
            budgets=self.budgets(),
            seconds=seconds,
            revision=self._engine.book.snapshot.revision,
        )

    async def approve(self, revision: str | None) -> Sequence[Budget]:
        engine = self._engine
        wanted = revision or engine.book.snapshot.revision
        budgets = self.budgets()
        if wanted != engine.book.snapshot.revision:
            raise ConfigError(f"revision {wanted} is not the current one, which is {engine.book.snapshot.revision}")
        engine.gates.budget.approve(wanted)
        self._writer.approval(wanted, engine.clock.wall(), "")
        log.info("deletes_approved", revision=wanted, kinds=[b.kind for b in budgets])
        engine.look(engine.scopes(), f"deletes of revision {wanted} were approved")
        return budgets

    async def pause(self, what: str, *, reason: str, seconds: float | None, by: str) -> Pause:
        if what != NODE:
            self.check_selector(what)
        now = self._engine.clock.wall()
        pause = Pause(what, reason, now, None if seconds is None else now + seconds, by)
        self._engine.gates.paused.pause(pause)
        self._writer.pause(PauseRow(pause.what, pause.reason, pause.at, pause.until, pause.by))
        self._paused()
        log.info("paused", what=what, reason=reason, until=pause.until, by=by)
        return pause

    async def resume(self, what: str, *, by: str) -> Sequence[Pause]:
        ended = self._engine.gates.paused.resume(what)
        for pause in ended:
            self._writer.unpause(pause.what)
            log.info("resumed", what=pause.what, by=by)
        self._paused()
        if ended:
            self._engine.look(self._engine.scopes(), f"{what} was resumed")
        return ended

    def _paused(self) -> None:
        self._engine.metrics.paused.set(len(self._engine.gates.paused.all()))

    def set_log_level(self, level: str) -> str:
        return logs.set_level(level)


class _Collector:
    """Gathers the passes of one `--once`."""

    def __init__(self, into: list[PassRecord], only: str | None) -> None:
        self._into, self._only = into, only

    def record(self, entry: PassRecord) -> None:
        only = self._only
        named = [a.resource for a in entry.actions] + [f.resource for f in entry.findings]
        if only is None or any(selects(only, resource) for resource in named):
            self._into.append(entry)
