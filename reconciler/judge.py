"""From a pass's result to what people are told: statuses, the journal entry, when to look again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from desired.resource import ResourceId, Resources
from reconciler.contract import ActionRecord, Change, Finding, Outcome, PassRecord, ResourceStatus, Scope
from reconciler.errors import NotReady
from reconciler.pipeline import PassResult


@dataclass(slots=True)
class Judgement:
    """`found` is what is not right; `retry_at` (monotonic) is the earliest time to look again without an event."""

    found: dict[ResourceId, ResourceStatus] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    waits_for: set[ResourceId | Scope] = field(default_factory=set)
    fought_over: set[ResourceId] = field(default_factory=set)
    """Resources of which nothing is wrong now but that somebody undoes each repair."""
    retry_at: float | None = None

    def again(self, at: float | None) -> None:
        if at is not None:
            self.retry_at = at if self.retry_at is None else min(self.retry_at, at)


def scope_id(scope: Scope) -> ResourceId:
    """The name under which a whole scope that cannot be observed is reported, e.g. ``flow/br-int/*``."""
    return ResourceId(scope.controller, f"{scope.name}/*" if scope.name else "*")


def judge(
    result: PassResult,
    *,
    declared: Resources,
    failed_until: Mapping[ResourceId, float],
    fights: Mapping[ResourceId, str],
    wall: float,
) -> Judgement:
    """Statuses of all that `result` found not right. `failed_until` are the backoffs of this pass's failures."""
    verdict = Judgement()

    def put(rid: ResourceId, outcome: Outcome, reason: str, *, gate: str = "", retry_at: float | None = None) -> None:
        resource = declared.get(rid)
        origin = str(resource.origin) if resource is not None else ""
        retry_wall = None if retry_at is None else wall + retry_at - result.ended
        verdict.fought_over.discard(rid)
        verdict.found[rid] = ResourceStatus(rid, outcome, reason, wall, gate, retry_wall, origin)
        verdict.again(retry_at)

    if result.blind is not None:
        # Nothing is known of the resources in there; one line for all of them says why.
        rid = scope_id(result.scope)
        outcome = Outcome.PENDING if isinstance(result.blind, NotReady) else Outcome.FAILED
        put(rid, outcome, str(result.blind), retry_at=failed_until.get(rid))
        return verdict
    for rid in fights.keys() & declared.keys():
        reason = f"repaired again and again: {fights[rid]}"
        put(rid, Outcome.CONTENDED, reason, retry_at=result.ended + 1.0)
        verdict.fought_over.add(rid)
    for change in result.left:
        put(change.resource, Outcome.PENDING, change.why, retry_at=result.ended)
    for finding in result.findings:
        again = None if finding.recheck is None else result.ended + finding.recheck
        if finding.outcome is Outcome.PENDING and finding.recheck is not None and finding.resource in fights:
            # It is only being taken up, and will be undone: the fight is what there is to say.
            verdict.fought_over.discard(finding.resource)
            verdict.again(again)
        else:
            put(finding.resource, finding.outcome, finding.reason, retry_at=again)
        verdict.findings.append(finding)
        verdict.waits_for.update(finding.waits_for)
    for decision in result.withheld:
        withheld = decision.withheld
        assert withheld is not None
        verdict.waits_for.update(withheld.waits_for)
        for change in decision.group.changes:
            reason = f"{change.why}; {withheld.reason}"
            put(change.resource, withheld.outcome, reason, gate=withheld.gate, retry_at=withheld.retry_at)
    for failure in result.failed:
        rid = failure.change.resource
        outcome = Outcome.PENDING if isinstance(failure.error, NotReady) else Outcome.FAILED
        put(rid, outcome, str(failure.error), retry_at=failed_until.get(rid))
    return verdict


def journal_entry(
    result: PassResult,
    verdict: Judgement,
    *,
    known: Mapping[ResourceId, ResourceStatus],
    is_drift: Callable[[Change], bool],
    entry: PassRecord,
) -> PassRecord | None:
    """The journal's line for a pass, or None when it says nothing new. `known` are the statuses before it."""
    actions: list[ActionRecord] = [_line(c, "done", is_drift) for c in result.done]
    actions += [_line(f.change, "failed", is_drift, detail=str(f.error)) for f in result.failed]
    for decision in result.withheld:
        withheld = decision.withheld
        assert withheld is not None
        for change in decision.group.changes:
            before = known.get(change.resource)
            if before is None or before.gate != withheld.gate:
                line = _line(change, "withheld", is_drift, detail=withheld.reason, gate=withheld.gate)
                actions.append(line)
    news = [f for f in verdict.findings if _is_news(known.get(f.resource), f)]
    if result.blind is not None:
        rid = scope_id(result.scope)
        before = known.get(rid)
        if before is None or before.outcome is not verdict.found[rid].outcome:
            news.append(Finding(rid, verdict.found[rid].outcome, str(result.blind)))
    if not (actions or news):
        return None
    return PassRecord(
        entry.pass_id,
        entry.at,
        entry.scope,
        entry.trigger,
        entry.revision,
        entry.outcome,
        entry.seconds,
        entry.since_event,
        tuple(actions),
        tuple(news),
    )


def _is_news(before: ResourceStatus | None, finding: Finding) -> bool:
    if finding.outcome is Outcome.PENDING and finding.recheck is not None:
        return False  # a wait of milliseconds, as a rule; when its deadline passes, it is a failure and news
    return before is None or before.outcome is not finding.outcome or before.reason != finding.reason


def _line(
    change: Change, result: str, is_drift: Callable[[Change], bool], *, detail: str = "", gate: str = ""
) -> ActionRecord:
    return ActionRecord(
        change.resource,
        change.verb,
        change.why,
        str(change.before),
        str(change.after),
        result,
        detail,
        gate,
        is_drift(change),
        change.disruption,
    )


def planned(result: PassResult) -> Sequence[ActionRecord]:
    """The lines of a dry run: what would be done, and what other gates would say."""
    return [
        _line(
            change, "planned", lambda _: False, detail=d.withheld.reason if d.withheld else "",
            gate=d.withheld.gate if d.withheld else "",
        )
        for d in result.withheld for change in d.group.changes
    ]  # fmt: skip
