"""What passes over these scopes would do now: the same path with the dry-run gate mounted. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reconciler.clock import Clock
from reconciler.contract import Finding, Outcome, PassRecord, View
from reconciler.errors import NotReady
from reconciler.gates.base import ChangeGate
from reconciler.gates.pauses import DryRun, Only, selects
from reconciler.judge import planned, scope_id
from reconciler.pipeline import PassResult, Pipeline
from reconciler.status import worst


async def plan(pipeline: Pipeline, views: Iterable[View], only: str | None, clock: Clock) -> Sequence[PassRecord]:
    """One record for each view in which something differs or waits. No status changes."""
    mounted: list[ChangeGate] = [*([Only(only)] if only else []), DryRun()]
    records = []
    for view in views:
        result = await pipeline.run(view, None, mounted)
        actions = tuple(a for a in planned(result) if a.gate != Only.name)
        found = (*result.findings, *_blind(result))
        findings = tuple(f for f in found if only is None or selects(only, f.resource))
        if not actions and not findings:
            continue
        outcome = worst([f.outcome for f in findings] + [Outcome.PENDING for _ in actions])
        seconds = result.ended - result.started
        records.append(
            PassRecord(0, clock.wall(), view.scope, "plan", view.revision, outcome, seconds, seconds, actions, findings)
        )
    return records


def _blind(result: PassResult) -> Sequence[Finding]:
    if result.blind is None:
        return ()
    outcome = Outcome.PENDING if isinstance(result.blind, NotReady) else Outcome.FAILED
    return (Finding(scope_id(result.scope), outcome, str(result.blind)),)
