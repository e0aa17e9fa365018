"""What is not right on this node, per resource, and which scopes are settled.

Converged is the rest: ten thousand flows that are right cost nothing here. The engine writes, the doors read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from desired.resource import ResourceId, Resources
from reconciler.contract import Outcome, ResourceStatus, Scope

SEVERITY = (Outcome.CONVERGED, Outcome.PENDING, Outcome.CONTENDED, Outcome.CONFLICT, Outcome.FAILED)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The most severe outcome; converged when there is none."""
    return max(outcomes, key=SEVERITY.index, default=Outcome.CONVERGED)


class StatusBook:
    """Statuses by scope. Only what is not converged is stored."""

    def __init__(self) -> None:
        self._scopes: dict[Scope, dict[ResourceId, ResourceStatus]] = {}
        self._seen: set[Scope] = set()
        self._known: set[Scope] = set()
        self._where: dict[ResourceId, Scope] = {}
        self.settled: frozenset[Scope] = frozenset()

    def update(
        self,
        scope: Scope,
        looked_at: frozenset[ResourceId] | None,
        found: Mapping[ResourceId, ResourceStatus],
    ) -> bool:
        """Take over what a pass found. Returns True when any status changed (reason and retry time apart)."""
        old = self._scopes.get(scope, {})
        if looked_at is None:
            self._seen.add(scope)
            self._known.add(scope)
            kept: dict[ResourceId, ResourceStatus] = {}
        else:
            kept = {rid: status for rid, status in old.items() if rid not in looked_at}
        new = {rid: _since(status, old.get(rid)) for rid, status in found.items()}
        merged = {**kept, **new}
        for rid in old.keys() - merged.keys():
            self._where.pop(rid, None)
        for rid in merged:
            self._where[rid] = scope
        changed = old.keys() != merged.keys() or any(old[rid].outcome != merged[rid].outcome for rid in merged)
        self._scopes[scope] = merged
        self._settle(scope)
        return changed

    def blind(self, scope: Scope, found: Mapping[ResourceId, ResourceStatus]) -> bool:
        """The scope could not be observed: `found` is all that is known of it, and it has to be looked at wholly."""
        known = scope in self._known
        changed = self.update(scope, None, found)
        if not known:
            self._known.discard(scope)
        self.unsettle(scope)
        return changed

    def _settle(self, scope: Scope) -> None:
        settled = scope in self._seen and not self._scopes[scope]
        if settled != (scope in self.settled):
            self.settled = self.settled | {scope} if settled else self.settled - {scope}

    def unsettle(self, scope: Scope) -> None:
        """What was declared for this scope changed, or its replica is void: it has to be looked at wholly again."""
        self._seen.discard(scope)
        self.settled -= {scope}

    def forget(self, scope: Scope) -> None:
        """The scope does not exist any more."""
        self.unsettle(scope)
        self._known.discard(scope)
        for rid in self._scopes.pop(scope, {}):
            self._where.pop(rid, None)

    def seen(self, scope: Scope) -> bool:
        """Has a pass looked at all of this scope since it was last unsettled?"""
        return scope in self._seen

    def known(self, scope: Scope) -> bool:
        """Could a pass ever look at all of this scope?"""
        return scope in self._known

    def troubled(self) -> set[Scope]:
        """The scopes in which something is not right."""
        return {scope for scope, found in self._scopes.items() if found}

    def withheld_by(self, gates: Collection[str]) -> set[Scope]:
        """The scopes in which one of these gates withholds something."""
        return {scope for scope, found in self._scopes.items() if any(s.gate in gates for s in found.values())}

    def converged(self, resource: ResourceId) -> bool:
        return resource not in self._where

    def of(self, scope: Scope) -> Mapping[ResourceId, ResourceStatus]:
        return self._scopes.get(scope, {})

    def not_right(self) -> Sequence[ResourceStatus]:
        """Everything that is not converged, worst first, then by name."""
        found = [status for scope in self._scopes.values() for status in scope.values()]
        return sorted(found, key=lambda s: (-SEVERITY.index(s.outcome), s.resource))

    def outcome(self) -> Outcome:
        return worst(status.outcome for scope in self._scopes.values() for status in scope.values())

    def counts(self, declared: Resources) -> Mapping[tuple[str, Outcome], int]:
        """How many resources of each kind have each outcome."""
        counts: Counter[tuple[str, Outcome]] = Counter((rid.kind, Outcome.CONVERGED) for rid in declared)
        for scope in self._scopes.values():
            for rid, status in scope.items():
                counts[rid.kind, status.outcome] += 1
                if rid in declared:
                    counts[rid.kind, Outcome.CONVERGED] -= 1
        return counts


def _since(status: ResourceStatus, old: ResourceStatus | None) -> ResourceStatus:
    if old is not None and old.outcome is status.outcome:
        return replace(status, since=old.since)
    return status
