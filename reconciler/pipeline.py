"""The one path: observe, diff, admit, act, verify. `run`, `--once` and `plan` all go through `Pipeline.run`.

It decides nothing about kinds and writes nothing but through a controller's `act`. What came of it is a `PassResult`
that the engine turns into statuses, retries and the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from desired.resource import ResourceId
from reconciler.clock import Clock
from reconciler.contract import Change, Controller, Finding, Focus, Group, GroupResult, Plan, Scope, View
from reconciler.errors import NotReady, ReconcilerError, TerminalError, VerificationError
from reconciler.gates.admission import Decision, Gates
from reconciler.gates.base import ChangeGate, Context

LARGE = 200
"""Changes in a plan, from which on the loop may turn between the steps of its pass: others wait for it too."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A change that was tried and did not come to be."""

    change: Change
    error: ReconcilerError


@dataclass(frozen=True, slots=True)
class PassResult:
    """What one pass over a scope found, did and left. Times are monotonic seconds."""

    scope: Scope
    plan: Plan = field(default_factory=Plan)
    withheld: Sequence[Decision] = ()
    done: Sequence[Change] = ()
    failed: Sequence[Failure] = ()
    findings: Sequence[Finding] = ()
    left: Sequence[Change] = ()
    """Changes that verification finds still necessary and that nobody withheld: the next pass does them."""
    looked_at: frozenset[ResourceId] | None = None
    owned: Mapping[str, int] = field(default_factory=dict)
    blind: ReconcilerError | None = None
    """Set when the scope could not be observed at all."""
    started: float = 0.0
    ended: float = 0.0


class Pipeline:
    """One per node; its controllers keep the replicas."""

    def __init__(self, controllers: Mapping[str, Controller], gates: Gates, clock: Clock) -> None:
        self._controllers = controllers
        self._gates = gates
        self._clock = clock

    async def run(self, view: View, focus: Focus, mounted: Sequence[ChangeGate] = ()) -> PassResult:
        """One pass. `mounted` are extra gates of this pass (dry run, only). Raises nothing a target may cause."""
        controller = self._controllers[view.scope.controller]
        started = self._clock.now()
        try:
            observed = await controller.observe(view, focus)
            plan = controller.diff(view, observed)
        except ReconcilerError as error:
            return PassResult(view.scope, blind=error, started=started, ended=self._clock.now())
        self._gates.budget.plan(view.scope, plan)
        if not plan:
            return PassResult(
                view.scope, plan, looked_at=plan.looked_at, owned=plan.owned, started=started, ended=self._clock.now()
            )
        await _turn(plan)
        decisions = self._gates.admit(plan, Context(started, self._clock.wall(), view, plan), mounted)
        withheld = [decision for decision in decisions if decision.withheld is not None]
        admitted = [decision.group for decision in decisions if decision.withheld is None]
        if not admitted:
            return PassResult(
                view.scope, plan, withheld, findings=plan.findings, looked_at=plan.looked_at, owned=plan.owned,
                started=started, ended=self._clock.now(),
            )  # fmt: skip
        for group in admitted:
            self._gates.rate.charge(group, started)
        await _turn(plan)
        results = await self._act(controller, view.scope, admitted)
        await _turn(plan)
        result = await self._verify(view, plan, withheld, results, started)
        await _turn(plan)
        return result

    async def _act(self, controller: Controller, scope: Scope, groups: Sequence[Group]) -> list[GroupResult]:
        """Act on whole groups; what fails is split until the culprit is alone, so that its neighbours go on."""
        final: list[GroupResult] = []
        waiting = list(groups)
        while waiting:
            results = await controller.act(scope, waiting)
            waiting = []
            for result in results:
                parts = _split(result)
                if parts:
                    waiting.extend(parts)
                else:
                    final.append(result)
        return final

    async def _verify(
        self,
        view: View,
        plan: Plan,
        withheld: Sequence[Decision],
        results: Sequence[GroupResult],
        started: float,
    ) -> PassResult:
        controller = self._controllers[view.scope.controller]
        failed = [Failure(change, r.error) for r in results if r.error is not None for change in r.group.changes]
        tried = [change for r in results if r.error is None for change in r.group.changes]
        ended = self._clock.now()
        for result in results:
            if result.error is None:
                self._gates.budget.spent(result.group.changes, ended)
        self._gates.budget.acted(view.scope, tried, new=None if plan.looked_at is None else view.news)
        try:
            again = controller.diff(view, await controller.observe(view, controller.focus([*tried, *_of(failed)])))
        except NotReady as error:
            # The stream went away under us: what we did may or may not have come to be. Look again, assume nothing.
            return PassResult(view.scope, plan, withheld, failed=failed, blind=error, started=started, ended=ended)
        except ReconcilerError as error:
            failed.extend(Failure(change, error) for change in tried)
            return PassResult(view.scope, plan, withheld, failed=failed, blind=error, started=started, ended=ended)
        still: dict[ResourceId, list[Change]] = {}
        for change in (change for group in again.groups for change in group.changes):
            still.setdefault(change.resource, []).append(change)
        done = []
        for change in tried:
            repeated = _repeated(change, still.get(change.resource, ()))
            if repeated is None:
                done.append(change)
            else:
                failed.append(_unverified(change, repeated))
        settled = {f.change.resource for f in failed if not _overtaken(f, still)}
        settled |= {change.resource for decision in withheld for change in decision.group.changes}
        return PassResult(
            view.scope,
            plan,
            withheld,
            done,
            failed,
            _findings(plan, again),
            [change for rid, changes in still.items() if rid not in settled for change in changes],
            _both(plan.looked_at, again.looked_at),
            plan.owned,
            started=started,
            ended=self._clock.now(),
        )


async def _turn(plan: Plan) -> None:
    if sum(len(group.changes) for group in plan.groups) >= LARGE:
        await asyncio.sleep(0)


def _both(first: frozenset[ResourceId] | None, second: frozenset[ResourceId] | None) -> frozenset[ResourceId] | None:
    return None if first is None or second is None else first | second


def _of(failures: Sequence[Failure]) -> list[Change]:
    return [failure.change for failure in failures]


def _repeated(tried: Change, still: Sequence[Change]) -> Change | None:
    """What verification still asks for although we have just done it. A further step of the same resource is not."""
    return next((change for change in still if change.action == tried.action), None)


def _overtaken(failure: Failure, still: Mapping[ResourceId, Sequence[Change]]) -> bool:
    """It was not there any more, and now something else is to be done about it: what told of that is heard already."""
    tried, other = failure.change, still.get(failure.change.resource, ())
    same = any((change.verb, change.action) == (tried.verb, tried.action) for change in other)
    return isinstance(failure.error, NotReady) and bool(other) and not same


def _unverified(tried: Change, still: Change) -> Failure:
    text = f"{tried.verb} of {tried.resource} was accepted, and reading it back still shows: {still.why}"
    return Failure(tried, VerificationError(text))


def _findings(plan: Plan, again: Plan) -> Sequence[Finding]:
    """Findings after acting: the second look wins where it looked."""
    if again.looked_at is None:
        return again.findings
    return (*again.findings, *(f for f in plan.findings if f.resource not in again.looked_at))


def _split(result: GroupResult) -> list[Group]:
    """The groups to try instead of one that was refused; empty when it is done or cannot be split further.

    A target that did not answer has refused nothing: asking it again in halves would only take longer.
    """
    changes = result.group.changes
    if not isinstance(result.error, TerminalError) or len(changes) == 1:
        return []
    guilty = tuple(change for change in changes if change.resource in result.culprits)
    innocent = tuple(change for change in changes if change.resource not in result.culprits)
    if guilty and innocent:
        halves = [innocent, *((change,) for change in guilty)]
    else:
        middle = len(changes) // 2
        halves = [changes[:middle], changes[middle:]]
    return [replace(result.group, changes=tuple(half)) for half in halves]
