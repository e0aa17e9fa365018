"""What is not right on this node, per resource, and which scopes are settled.

Converged is the rest: ten thousand flows that are right cost nothing here. The engine writes, the doors read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from desired.resource import ResourceId
from reconciler.contract import Outcome, ResourceStatus, Scope

SEVERITY = (Outcome.CONVERGED, Outcome.PENDING, Outcome.CONTENDED, Outcome.CONFLICT, Outcome.FAILED)


_NONE: frozenset[ResourceId] = frozenset()


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
        self._troubled: set[Scope] = set()
        self._due: dict[Scope, set[ResourceId]] = {}
        self._settled: set[Scope] = set()
        self.version = 0
        """Grows whenever a scope becomes settled, is no longer, or is forgotten."""

    @property
    def settled(self) -> AbstractSet[Scope]:
        """The scopes whose last looks left nothing to do; it follows what is found."""
        return self._settled

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
            self._due.pop(scope, None)
            kept: dict[ResourceId, ResourceStatus] = {}
        else:
            kept = {rid: status for rid, status in old.items() if rid not in looked_at}
            due = self._due.get(scope)
            if due is not None and due <= looked_at:
                del self._due[scope]
            elif due is not None:
                due -= looked_at
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
        if self._scopes[scope]:
            self._troubled.add(scope)
        else:
            self._troubled.discard(scope)
        right = scope in self._seen and scope not in self._troubled and scope not in self._due
        self._mark(scope, settled=right)

    def _mark(self, scope: Scope, *, settled: bool) -> None:
        if settled != (scope in self._settled):
            self.version += 1
            if settled:
                self._settled.add(scope)
            else:
                self._settled.remove(scope)

    def unsettle(self, scope: Scope) -> None:
        """What was declared for this scope changed, or its replica is void: it has to be looked at wholly again."""
        self._seen.discard(scope)
        self._mark(scope, settled=False)

    def await_look(self, scope: Scope, resources: Collection[ResourceId]) -> None:
        """These are declared otherwise: the scope is not settled before a pass has looked at them."""
        self._due.setdefault(scope, set()).update(resources)
        self._mark(scope, settled=False)

    def due(self, scope: Scope) -> AbstractSet[ResourceId]:
        """What is declared otherwise than when it was last looked at, as things stand."""
        found = self._due.get(scope)
        return _NONE if found is None else frozenset(found)

    def forget(self, scope: Scope) -> None:
        """The scope does not exist any more."""
        self.version += 1
        self.unsettle(scope)
        self._known.discard(scope)
        self._troubled.discard(scope)
        self._due.pop(scope, None)
        for rid in self._scopes.pop(scope, {}):
            self._where.pop(rid, None)

    def seen(self, scope: Scope) -> bool:
        """Has a pass looked at all of this scope since it was last unsettled?"""
        return scope in self._seen

    def known(self, scope: Scope) -> bool:
        """Could a pass ever look at all of this scope?"""
        return scope in self._known

    def troubled(self) -> AbstractSet[Scope]:
        """The scopes in which something is not right; it follows what is found."""
        return self._troubled

    def withheld_by(self, gates: Collection[str]) -> set[Scope]:
        """The scopes in which one of these gates withholds something."""
        return {s for s in self._troubled if any(status.gate in gates for status in self._scopes[s].values())}

    def converged(self, resource: ResourceId) -> bool:
        return resource not in self._where

    def of(self, scope: Scope) -> Mapping[ResourceId, ResourceStatus]:
        return self._scopes.get(scope, {})

    def not_right(self) -> Sequence[ResourceStatus]:
        """Everything that is not converged, worst first, then by name."""
        found = [status for scope in self._troubled for status in self._scopes[scope].values()]
        return sorted(found, key=lambda s: (-SEVERITY.index(s.outcome), s.resource))

    def outcome(self) -> Outcome:
        return worst(status.outcome for scope in self._troubled for status in self._scopes[scope].values())

    def counts(self, kinds: Mapping[str, int], declared: Collection[ResourceId]) -> Mapping[tuple[str, Outcome], int]:
        """How many resources of each kind have each outcome; `kinds` says how many of each are declared."""
        counts: Counter[tuple[str, Outcome]] = Counter({(k, Outcome.CONVERGED): number for k, number in kinds.items()})
        for scope in self._troubled:
            for rid, status in self._scopes[scope].items():
                counts[rid.kind, status.outcome] += 1
                if rid in declared:
                    counts[rid.kind, Outcome.CONVERGED] -= 1
        return counts


def _since(status: ResourceStatus, old: ResourceStatus | None) -> ResourceStatus:
    if old is not None and old.outcome is status.outcome:
        return replace(status, since=old.since)
    return status
