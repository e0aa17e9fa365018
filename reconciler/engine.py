"""The engine: events become work, workers run passes, what they leave decides when to look again.

It owns the queue, the workers, the supervisors of the watches and the resync. What should be comes in by `desire`;
what came of it goes out to the sinks and the status book. It knows no kind and no IO.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

from desired.resource import ResourceId
from desired.snapshot import Snapshot
from reconciler.book import DesiredBook
from reconciler.charges import charge, fights
from reconciler.clock import Clock
from reconciler.contract import (
    Controller,
    Event,
    Focus,
    Outcome,
    PassRecord,
    ResourceStatus,
    Scope,
    Sink,
    View,
)
from reconciler.errors import DriverError, NotReady
from reconciler.experience import Experience
from reconciler.gates.admission import Gates
from reconciler.gates.base import ChangeGate
from reconciler.gates.budget import Budget
from reconciler.judge import journal_entry, judge, scope_id
from reconciler.logs import get_logger
from reconciler.metrics import Metrics
from reconciler.pipeline import PassResult, Pipeline
from reconciler.planning import plan
from reconciler.progress import Progress
from reconciler.proving import Proofs
from reconciler.queue import SHARE, Priority, ScopeQueue, Work
from reconciler.settings import Settings
from reconciler.status import StatusBook, worst
from reconciler.supervision import supervise
from reconciler.waiting import Waiting

HEARTBEAT = Scope("engine", "heartbeat")
"""Goes through queue and workers like any work: what proves that they move."""
HEARTBEAT_EVERY = 2.0
LAG_EVERY = 0.25
"""Seconds between two looks at the loop's lag, and at the gauges: a tenth would be half of what idling costs."""
OF_THE_WHOLE = frozenset({"in_sync", "budget"})
"""Gates whose answer for one scope follows from what is declared for all of them."""

_NONE: frozenset[ResourceId] = frozenset()

log = get_logger("engine")


class Engine:
    """One per process. `run` until cancelled; everything else is called from the loop's thread."""

    def __init__(
        self,
        controllers: Sequence[Controller],
        *,
        settings: Settings,
        clock: Clock,
        metrics: Metrics,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self.clock, self.metrics = clock, metrics
        self._settings = settings
        self._controllers = {controller.name: controller for controller in controllers}
        self.statuses = StatusBook()
        self.book = DesiredBook(controllers)
        self.experience = Experience(self.statuses, self.book)
        self.gates = Gates.build(settings, usable=self.experience.usable, chance=clock.chance)
        self.queue = ScopeQueue(clock)
        self.waiting = Waiting(self.queue, self._nearness)
        self._pipeline = Pipeline(self._controllers, self.gates, clock)
        self._proofs = Proofs(self._controllers, statuses=self.statuses, book=self.book, metrics=metrics, clock=clock)
        self._sinks = list(sinks)
        self.config_valid = True
        self._pass_id = 0
        self._overtaken: dict[Scope, set[ResourceId]] = {}
        """What became declared otherwise since the pass over a scope began."""
        self._strays: set[Scope] = set()
        """Scopes in which nothing was declared when they were looked at, or is any more."""
        self._over_budget = False
        self._converged: tuple[tuple[int, str], bool] = ((-1, ""), False)
        self.progress = Progress()
        self.last_converged: float | None = None
        self.last_news = 0.0
        self.on_converged: Callable[[str], None] = lambda _revision: None
        self._mounted: Sequence[ChangeGate] = ()
        self._draining = False
        self._uncounted = False

    # -- what should be ---------------------------------------------------------------------------------------------

    def first_pass_id(self, number: int) -> None:
        """Go on counting passes where the journal stands."""
        self._pass_id = max(self._pass_id, number)

    def desire(
        self,
        snapshot: Snapshot,
        removed: Mapping[str, int] | None = None,
        exchanged: Mapping[str, int] | None = None,
    ) -> None:
        """Make `snapshot` what should be. `removed` and `exchanged` count what it takes away (see `gates.budget`)."""
        first = not self.book.snapshot.revision
        before = self.book.snapshot.resources
        changed = self.book.take(snapshot)
        gone = (rid for rids in changed.values() for rid in rids if rid in before and rid not in snapshot.resources)
        self.gates.in_sync.gone(before[rid] for rid in gone)
        self.gates.budget.announce(removed or {}, exchanged or {}, changed.keys())
        self.gates.paused.observing = self.book.observing()
        self._strays = (self._strays | changed.keys()) - self.book.scopes()
        self.metrics.set_revision(snapshot.revision)
        for scope, resources in changed.items():
            self.experience.gone(rid for rid in resources if rid not in snapshot.resources)
            self._overtaken.setdefault(scope, set()).update(resources)
            self.gates.backoff.clear([*resources, scope_id(scope)])
            self._look_at_changed(scope, resources)
        if first:
            self.look(self.scopes() - changed.keys(), "started")
        else:
            held = self.statuses.withheld_by(OF_THE_WHOLE)
            held |= self.book.dependents({rid for resources in changed.values() for rid in resources})
            self.look(held - changed.keys(), "declared state changed elsewhere")

    def _look_at_changed(self, scope: Scope, resources: Sequence[ResourceId]) -> None:
        """Only where these are, if the scope is known otherwise and its controller can tell where that is."""
        self.statuses.await_look(scope, resources)
        focus = self._controllers[scope.controller].focus_on(scope, resources) if self.statuses.seen(scope) else None
        if focus is None:
            self.statuses.unsettle(scope)
        self.queue.add(scope, focus, "declared state changed")

    def scopes(self) -> set[Scope]:
        """All scopes: where something is declared, and where something of ours may be left."""
        left = {scope for controller in self._controllers.values() for scope in controller.scopes()}
        return left | set(self.book.scopes())

    def look(
        self, scopes: Iterable[Scope], reason: str, *, priority: Priority = Priority.NEWS, prove: bool = False
    ) -> None:
        """Ask for full passes."""
        for scope in scopes:
            self.queue.add(scope, None, reason, priority=priority, prove=prove)

    async def prove(self, scopes: Collection[Scope], reason: str, *, priority: Priority = Priority.NEWS) -> None:
        """Have every replica proven, and ask for full passes but where the proof is that one would find nothing."""
        await self._proofs.prove(scopes, partial(self.look, reason=reason, priority=priority, prove=True))

    def scopes_of(self, kind: str) -> set[Scope]:
        """The scopes that the controller of `kind` covers. Raises ConfigError for a kind that does not exist."""
        name = self.book.controller(kind).name
        return {scope for scope in self.scopes() if scope.controller == name}

    def add_sink(self, sink: Sink) -> None:
        self._sinks.append(sink)

    def remove_sink(self, sink: Sink) -> None:
        self._sinks.remove(sink)

    # -- running ----------------------------------------------------------------------------------------------------

    def mount(self, gates: Sequence[ChangeGate]) -> None:
        """Extra gates for all passes of this process (`--once --only`)."""
        self._mounted = gates

    async def run(self) -> None:
        """Work until cancelled."""
        self.progress.heartbeat = self.clock.now()
        async with asyncio.TaskGroup() as group:
            for number in range(SHARE * len(self._controllers)):
                group.create_task(self._worker(f"worker-{number}"), name=f"worker-{number}")
            for controller in self._controllers.values():
                watching = supervise(controller, self._hear, self._missed, metrics=self.metrics, clock=self.clock)
                group.create_task(watching, name=f"watch-{controller.name}")
            group.create_task(self._resync(), name="resync")
            group.create_task(self._pulse(), name="pulse")

    async def _worker(self, name: str) -> None:
        while True:
            work = await self.queue.get()
            self.progress.running[name] = (work.scope, self.clock.now())
            try:
                if self._draining:
                    continue
                if work.scope == HEARTBEAT:
                    self.progress.heartbeat = self.clock.now()
                else:
                    await self._pass(work)
            except Exception as error:  # one pass must never end the daemon; the journal of it is this line
                log.exception("pass_crashed", scope=str(work.scope), reason=work.reason)
                self._crashed(work.scope, error)
            finally:
                del self.progress.running[name]
                self.queue.done(work.scope)

    def _crashed(self, scope: Scope, error: Exception) -> None:
        at = self._failed_scope(scope, error)
        sid, reason = scope_id(scope), f"internal error, see the log: {error!r}"
        wall = self.clock.wall()
        status = ResourceStatus(sid, Outcome.FAILED, reason, wall, "backoff", wall + at - self.clock.now())
        self.statuses.blind(scope, {sid: status})
        if scope not in self.book.scopes():
            self._strays.add(scope)
        self.waiting.retry(scope, at)

    def _missed(self, controller: Controller) -> None:
        self.look((s for s in self.scopes() if s.controller == controller.name), "watch started again")

    def _hear(self, event: Event) -> None:
        self.queue.add(event.scope, event.focus, event.reason)

    async def _resync(self) -> None:
        while True:
            interval = self._settings.resync_interval * (0.8 + 0.4 * self.clock.chance())
            await asyncio.sleep(interval)
            await self.prove(self.scopes(), "resync", priority=Priority.RESYNC)

    async def _pulse(self) -> None:
        """Measure the loop's lag, send the heartbeat through the queue, keep the gauges of waiting things true."""
        next_beat = self.clock.now()
        while True:
            before = self.clock.now()
            await asyncio.sleep(LAG_EVERY)
            now = self.clock.now()
            self.metrics.observe_lag(max(0.0, now - before - LAG_EVERY))
            self.metrics.set_queue(self.queue.depth(), self.queue.oldest(now))
            if self._uncounted:
                self._count()
            if now >= next_beat:
                next_beat = now + HEARTBEAT_EVERY
                self.queue.add(HEARTBEAT)
                self._expire_pauses()

    def _expire_pauses(self) -> None:
        for pause in self.gates.paused.expire(self.clock.wall()):
            log.info("pause_ended", what=pause.what, reason=pause.reason)
            self.look(self.scopes(), f"the pause of {pause.what} ended")

    async def drain(self, patience: float) -> None:
        """Take up no more work and wait until the passes under way have ended, `patience` seconds at most."""
        self._draining = True
        deadline = self.clock.now() + patience
        while self.progress.running and self.clock.now() < deadline:
            await asyncio.sleep(0.005)

    # -- one pass ---------------------------------------------------------------------------------------------------

    async def _pass(self, work: Work) -> None:
        scope = work.scope
        if not self.book.snapshot.revision:
            return  # nothing is declared yet; `desire` asks for every scope
        if work.prove:
            await self._prove(scope)
        focus: Focus = work.focus if self.statuses.seen(scope) and not work.prove else None
        if focus is None:
            self.waiting.retry(scope, None)
        self._overtaken.pop(scope, None)
        view = self.book.view(scope, self.statuses.settled, self.statuses.due(scope))
        result = await self._pipeline.run(view, focus, self._mounted)
        if isinstance(result.blind, NotReady) and not view.resources and scope not in self.scopes():
            self._forget(scope)
            self._note_converged(self.clock.wall())
            return
        self._conclude(work, result, view)

    async def _prove(self, scope: Scope) -> None:
        try:
            await self._controllers[scope.controller].prove(scope)
        except NotReady:
            return  # observe says the same, and says it as a status
        except DriverError as error:
            log.warning("replica_not_proven", scope=str(scope), error=str(error))

    def _conclude(self, work: Work, result: PassResult, view: View) -> None:
        """Statuses, backoff, journal, metrics, retries: everything that follows from a pass."""
        scope, now, wall = work.scope, result.ended, self.clock.wall()
        failed_until = charge(
            self.gates,
            result,
            generation=self.experience.generation,
            is_drift=self.experience.is_drift,
            members=[*self.book.resources(scope), *self.statuses.of(scope)],
        )
        verdict = judge(
            result,
            declared=view.resources,
            failed_until=failed_until,
            fights=fights(self.gates, result),
            wall=wall,
        )
        known = self.statuses.of(scope)
        outcome = worst(status.outcome for status in verdict.found.values())
        self._pass_id += 1
        frame = PassRecord(
            self._pass_id,
            wall,
            scope,
            work.reason,
            view.revision,
            outcome,
            result.ended - result.started,
            now - work.since,
        )
        entry = journal_entry(result, verdict, known=known, is_drift=self.experience.is_drift, entry=frame)
        if isinstance(result.blind, NotReady) and not self.statuses.known(scope):
            entry = None  # a bridge that is only now being made: the story begins when it answers
        if result.blind is not None:
            changed = self.statuses.blind(scope, verdict.found)
        else:
            looked_at = None if result.looked_at is None else result.looked_at | {scope_id(scope)}
            changed = self.statuses.update(scope, looked_at, verdict.found)
        late = self._overtaken.get(scope, _NONE)
        if late:
            # They changed under this pass: what it found of them is history, and the next one waits already.
            self.statuses.await_look(scope, late)
        if result.blind is None:
            self.experience.remember(result, verdict, late, self.gates.backoff)
            if not self.statuses.due(scope) <= late:
                self.queue.add(scope, None, "not all that changed was looked at")
        self.metrics.pass_finished(scope.controller, outcome, frame.seconds)
        if entry is not None:
            self._emit(entry)
        if changed or entry is not None:
            self.last_news = now
            self._uncounted = True
        whole = result.blind is not None or result.looked_at is None
        self.waiting.note(scope, verdict.waits_for, whole=whole)
        self.waiting.wake()
        self._wake_over_budget(result, now)
        self.waiting.retry(scope, verdict.retry_at, whole=whole)
        declared = self.book.scopes()
        if scope not in declared:
            self._strays.add(scope)
        undeclared = {stray for stray in self._strays & self.statuses.troubled() if stray not in declared}
        for gone in undeclared - self.scopes() if undeclared else ():
            self._forget(gone)
        self._note_converged(wall)

    def _forget(self, scope: Scope) -> None:
        """The scope is neither declared nor there any more: nothing waits for it."""
        self.statuses.forget(scope)
        self._strays.discard(scope)
        self.gates.budget.forget(scope)
        self.waiting.retry(scope, None)
        self._uncounted = True

    def _failed_scope(self, scope: Scope, error: Exception) -> float:
        return self.gates.backoff.failed(scope_id(scope), generation=0, error=str(error), now=self.clock.now())

    def _emit(self, entry: PassRecord) -> None:
        drifts = Counter(a.resource.kind for a in entry.actions if a.drift and a.result != "failed")
        for kind, number in drifts.items():
            self.metrics.drift(kind, number)
        for sink in self._sinks:
            sink.record(entry)

    def _count(self) -> None:
        """Count all resources by outcome: too much for every pass of a start with thousands of them."""
        self._uncounted = False
        self.metrics.set_resources(self.statuses.counts(self.book.counts(), self.book.snapshot.resources))
        not_right = self.statuses.not_right()
        self.metrics.set_withheld(status.gate for status in not_right if status.gate)
        self.metrics.set_oldest(not_right)

    def _wake_over_budget(self, result: PassResult, now: float) -> None:
        """What is owned is known scope by scope: deletes that were too many for the first may be few for all."""
        if any(d.withheld is not None and d.withheld.gate == Budget.name for d in result.withheld):
            self._over_budget = True
        elif self._over_budget and not self.gates.budget.report(self.book.snapshot.revision, now):
            self._over_budget = False
            self.look(self.statuses.withheld_by({Budget.name}), "deletes are within the budget now")

    def _nearness(self, ref: ResourceId | Scope) -> int:
        """0: not there; 1: there, with something wrong; 2: right."""
        if isinstance(ref, Scope):
            return 2 if ref in self.statuses.settled else 0
        return self.experience.usable(ref) + (self.experience.usable(ref) and self.statuses.converged(ref))

    def _note_converged(self, wall: float) -> None:
        converged = self.converged()
        self.metrics.set_converged(wall if converged else None)
        if converged:
            self.last_converged = wall
            self.on_converged(self.book.snapshot.revision)

    def converged(self) -> bool:
        """Every scope was looked at wholly and nothing is left to do anywhere."""
        if not self.book.snapshot.revision or self.statuses.troubled():
            return False
        stamp = self.statuses.version, self.book.snapshot.revision
        if self._converged[0] != stamp:  # else nothing has settled or come into doubt since
            self._converged = stamp, self._all_settled()
        return self._converged[1]

    def _all_settled(self) -> bool:
        settled = self.statuses.settled
        if not self.book.scopes() <= settled:
            return False
        return all(scope in settled for controller in self._controllers.values() for scope in controller.scopes())

    def unseen(self) -> Sequence[Scope]:
        """Scopes that had no full look yet: those with something declared, and only when there are none the others."""
        declared = [scope for scope in self.book.scopes() if not self.statuses.seen(scope)]
        return tuple(sorted(declared or (scope for scope in self.scopes() if not self.statuses.seen(scope))))

    # -- on demand --------------------------------------------------------------------------------------------------

    async def plan(self, only: str | None) -> Sequence[PassRecord]:
        """What a pass over everything would do now. Writes nothing, changes no status."""
        views = [self.book.view(scope, self.statuses.settled) for scope in sorted(self.scopes())]
        return await plan(self._pipeline, views, only, self.clock)

    async def settle(self, timeout: float, quiet: float = 1.0) -> bool:
        """Wait until all is converged, or nothing has moved for `quiet` seconds. False when `timeout` came first."""
        deadline = self.clock.now() + timeout
        idle_since = self.clock.now()
        while self.clock.now() < deadline:
            now = self.clock.now()
            due = self.waiting.retry_due()
            busy = not self.queue.idle() or (due is not None and due < now + quiet / 2)
            if busy:
                idle_since = now
            elif (self.converged() and not self.unseen()) or now - max(idle_since, self.last_news) > quiet:
                return True
            await asyncio.sleep(0.002)
        return False

    def healthy(self) -> tuple[bool, str]:
        """By worker progress; see `Progress`."""
        return self.progress.healthy(self.clock.now())
