"""What this process has seen of each resource: whether it was ever looked at, and whether it was ever right.

From that follows what drift is, and whether others may refer to a resource yet. Used by the engine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from desired.resource import ResourceId
from reconciler.book import DesiredBook
from reconciler.contract import Change, Outcome, Verb
from reconciler.gates.backoff import Backoff
from reconciler.judge import Judgement
from reconciler.pipeline import PassResult
from reconciler.status import StatusBook


class Experience:
    """`statuses` and `book` are the engine's."""

    def __init__(self, statuses: StatusBook, book: DesiredBook) -> None:
        self._statuses, self._book = statuses, book
        self._right: dict[ResourceId, int] = {}
        """The generation in which each was right when last looked at."""
        self._looked: set[ResourceId] = set()

    def was_converged(self) -> None:
        """The current state was reached before this start: what differs from it now is drift."""
        for rid, resource in self._book.snapshot.resources.items():
            self._right.setdefault(rid, resource.generation)

    def gone(self, rids: Iterable[ResourceId]) -> None:
        """These are declared no more."""
        self._looked.difference_update(rids)

    def generation(self, rid: ResourceId) -> int:
        resource = self._book.snapshot.resources.get(rid)
        return resource.generation if resource is not None else 0

    def is_drift(self, change: Change) -> bool:
        """The world changed, and not what was declared: this generation was right once, or nobody ever declared it."""
        if change.verb is Verb.DELETE:
            return not change.prune
        known = self._right.get(change.resource)
        return known is not None and known == self.generation(change.resource)

    def usable(self, rid: ResourceId) -> bool:
        """May others refer to this resource? Not before it was looked at once, and not while it is another's."""
        resource = self._book.snapshot.resources.get(rid)
        if resource is None:
            return False
        scope = self._book.controller(rid.kind).scope(resource)
        status = self._statuses.of(scope).get(rid)
        return rid in self._looked and (status is None or status.outcome is not Outcome.CONFLICT)

    def remember(self, result: PassResult, verdict: Judgement, late: Collection[ResourceId], backoff: Backoff) -> None:
        """What a pass found; `late` is what was declared otherwise meanwhile. What is right again ends its backoff."""
        declared = self._book.resources(result.scope)
        failing = backoff.failing()
        for rid in declared if result.looked_at is None else result.looked_at:
            if rid in late:
                continue
            resource = declared.get(rid)
            if resource is None:
                self._right.pop(rid, None)
                continue
            self._looked.add(rid)
            if rid not in verdict.found:
                self._right[rid] = resource.generation
            if failing and (rid not in verdict.found or rid in verdict.fought_over):
                backoff.succeeded(rid)
        for change in result.done:
            if change.resource not in declared:
                self._right.pop(change.resource, None)
