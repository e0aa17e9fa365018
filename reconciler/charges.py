"""What a pass costs the resources it tried: backoff after failures, contention after repairs. Called by the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from desired.resource import ResourceId
from reconciler.contract import Change, Verb
from reconciler.errors import NotReady
from reconciler.gates.admission import Gates
from reconciler.judge import scope_id
from reconciler.pipeline import PassResult


def charge(
    gates: Gates,
    result: PassResult,
    *,
    generation: Callable[[ResourceId], int],
    is_drift: Callable[[Change], bool],
    members: Iterable[ResourceId],
) -> dict[ResourceId, float]:
    """Charge what was tried. Returns when each failed resource is tried again (monotonic seconds).

    `members` are the resources of the scope, declared or with a status.
    """
    now = result.ended
    until: dict[ResourceId, float] = {}
    for change in result.done:
        if is_drift(change):
            before = gates.contention.last(change.resource)
            if before is not None and before.verb is change.verb is Verb.CREATE:
                # Made twice, and not deleted by us in between: somebody did, and the first was no failure.
                gates.backoff.succeeded(change.resource)
            gates.contention.repaired(change, now)
    for failure in result.failed:
        if isinstance(failure.error, NotReady):
            continue  # no failure: what it needs is not there, and its coming is an event
        rid, action = failure.change.resource, type(failure.change.action)
        error = str(failure.error)
        until[rid] = gates.backoff.failed(rid, generation=generation(rid), error=error, now=now, action=action)
    _charge_unanswered(gates, result, generation)
    sid = scope_id(result.scope)
    if isinstance(result.blind, NotReady):
        gates.backoff.clear(members)  # what they failed on has gone away with the stream
    elif result.blind is not None:
        until[sid] = gates.backoff.failed(sid, generation=0, error=str(result.blind), now=now)
    else:
        gates.backoff.succeeded(sid)
    return until


def _charge_unanswered(gates: Gates, result: PassResult, generation: Callable[[ResourceId], int]) -> None:
    """What was done but not yet taken up by its target (a port without a number) may not be done over and over."""
    waits = {f.resource: f.reason for f in result.findings if f.recheck is not None}
    for change in result.done:
        reason = waits.get(change.resource)
        if reason is not None:
            rid, action = change.resource, type(change.action)
            gates.backoff.failed(rid, generation=generation(rid), error=reason, now=result.ended, action=action)


def fights(gates: Gates, result: PassResult) -> Mapping[ResourceId, str]:
    """What is fought over among the resources this pass looked at, with the evidence."""
    found = gates.contention.fights(result.ended) if gates.contention.any() else {}
    if result.looked_at is None:
        return found
    return {rid: why for rid, why in found.items() if rid in result.looked_at}
