"""`budget`: how much may be deleted because it is no longer declared.

The deletes of one revision, and of the last ten minutes, may not exceed max(minimum, share of what we own) of a
kind. Over it *all* deletes of that revision wait for `reconcile approve`. What is contained in something that is
deleted counts with its container; a delete that is a replacement inside its group is none.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from desired.resource import ResourceId, Resources
from reconciler.contract import Change, Plan, Scope, Verb
from reconciler.gates.base import Context, Withheld
from reconciler.report import Budget as BudgetReport


def counted(changes: Iterable[Change]) -> dict[str, list[ResourceId]]:
    """The deletes of one group that count, by kind: prunes, without contained things and replacements.

    What is deleted by several changes (a floating IP is three rules) counts once.
    """
    deletes: dict[str, dict[ResourceId, None]] = {}
    creates: Counter[str] = Counter()
    for change in changes:
        if change.prune and change.inside is None:
            deletes.setdefault(change.resource.kind, {})[change.resource] = None
        elif change.verb is Verb.CREATE:
            creates[change.resource.kind] += 1
    return {kind: list(rids)[creates[kind] :] for kind, rids in deletes.items() if len(rids) > creates[kind]}


def removed(old: Resources, new: Resources, differing: Iterable[ResourceId] | None = None) -> dict[str, int]:
    """What a change of the desired state takes away, by kind: net of what it adds, contained things with theirs.

    `differing` is where the two differ, when that is known.
    """
    gone_ids, come = _gone_and_come(old, new, differing)
    count = Counter(rid.kind for rid in gone_ids if not any(ref in gone_ids for ref in old[rid].spec.refs()))
    count.subtract(rid.kind for rid in come)
    return {kind: number for kind, number in count.items() if number > 0}


def exchanged(old: Resources, new: Resources, differing: Iterable[ResourceId] | None = None) -> dict[str, int]:
    """How many a change of the desired state takes away by kind for which it brings others: a flow's new match."""
    gone, come = (Counter(rid.kind for rid in some) for some in _gone_and_come(old, new, differing))
    return dict(gone & come)


def _gone_and_come(
    old: Resources, new: Resources, differing: Iterable[ResourceId] | None
) -> tuple[set[ResourceId], set[ResourceId]]:
    if differing is None:
        differing = old.keys() ^ new.keys()
    gone, come = set(), set()
    for rid in differing:
        if rid not in new:
            gone.add(rid)
        elif rid not in old:
            come.add(rid)
    return gone, come


@dataclass(slots=True)
class _Scope:
    owned: Mapping[str, int]
    wants: dict[str, list[ResourceId]]


class Budget:
    """`plan` tells it what a scope wants and owns; `spent` what was really deleted."""

    name = "budget"

    def __init__(self, *, minimum: int, share: float, window: float) -> None:
        self._minimum, self._share, self._window = minimum, share, window
        self._scopes: dict[Scope, _Scope] = {}
        self._announced: dict[str, int] = {}
        self._exchanged: dict[str, int] = {}
        self._to_look: set[Scope] = set()
        self._spent: deque[tuple[float, str, int]] = deque()
        self._approved: set[str] = set()
        self._over: Sequence[BudgetReport] = ()

    def announce(self, wants: Mapping[str, int], exchanged: Mapping[str, int], where: Collection[Scope] = ()) -> None:
        """A new desired state takes away so many of each kind (`removed`), and others for new ones (`exchanged`).

        Until all of `where` was looked at, what is announced counts even if no scope has asked for it yet: the first
        scope that is looked at would else be emptied, however much the others turn out to lose.
        """
        self._announced, self._exchanged, self._to_look = dict(wants), dict(exchanged), set(where)

    def approve(self, revision: str) -> None:
        self._approved.add(revision)

    def plan(self, scope: Scope, plan: Plan) -> None:
        """Note what this plan would delete and, when it looked at the whole scope, what is owned there."""
        known = self._scopes.get(scope)
        self._to_look.discard(scope)
        prunes = any(change.prune for group in plan.groups for change in group.changes)
        if plan.looked_at is not None and known is not None and not known.wants and not prunes:
            return  # a narrowed look that deletes nothing, as nearly every repair is: nothing changes here
        wants: dict[str, list[ResourceId]] = {}
        for group in plan.groups:
            for kind, rids in counted(group.changes).items():
                wants.setdefault(kind, []).extend(rids)
        owned = plan.owned
        if plan.looked_at is not None and known is not None:
            owned = known.owned
            for kind, rids in known.wants.items():
                wants.setdefault(kind, []).extend(rid for rid in rids if rid not in plan.looked_at)
        self._scopes[scope] = _Scope(owned, {kind: rids for kind, rids in wants.items() if rids})

    def forget(self, scope: Scope) -> None:
        """The scope does not exist any more, nor what was to be deleted there."""
        self._scopes.pop(scope, None)
        self._to_look.discard(scope)

    def spent(self, changes: Sequence[Change], now: float) -> None:
        for kind, rids in counted(changes).items():
            free = min(len(rids), self._exchanged.get(kind, 0))
            if free:
                self._exchanged[kind] -= free
            if len(rids) > free:
                self._spent.append((now, kind, len(rids) - free))

    def acted(self, scope: Scope, changes: Iterable[Change], *, new: Collection[ResourceId] | None) -> None:
        """What became of the plan of `scope`: nobody wants deleted what is gone, and what was made is owned, too.

        Only a whole look (`new` is None) counted what is owned; what a narrowed one makes was counted before it was
        lost, unless it is among the `new`.
        """
        known = self._scopes.get(scope)
        if known is None:
            return
        owned, gone = Counter(known.owned), set()
        for change in changes:
            kind = change.resource.kind
            if change.verb is Verb.DELETE:
                owned[kind] -= change.prune and change.resource not in gone
                gone.add(change.resource)
            elif change.verb is Verb.CREATE:
                owned[kind] += new is None or change.resource in new
        wants = {kind: [rid for rid in rids if rid not in gone] for kind, rids in known.wants.items()}
        self._scopes[scope] = _Scope(owned, {kind: rids for kind, rids in wants.items() if rids})

    def _recent(self, kind: str, now: float) -> int:
        while self._spent and self._spent[0][0] <= now - self._window:
            self._spent.popleft()
        return sum(number for _, spent_kind, number in self._spent if spent_kind == kind)

    def report(self, revision: str, now: float) -> Sequence[BudgetReport]:
        """The kinds whose deletes are over the budget now; empty when `revision` is approved."""
        if revision in self._approved:
            return ()
        kinds = {kind for scope in self._scopes.values() for kind in scope.wants}
        kinds |= self._announced.keys() if self._to_look else set()
        over = []
        for kind in sorted(kinds):
            resources = [rid for scope in self._scopes.values() for rid in scope.wants.get(kind, ())]
            recent = self._recent(kind, now)
            here = max(0, len(resources) - self._exchanged.get(kind, 0))
            wanted = max(here, self._announced.get(kind, 0) - recent) + recent
            owned = sum(scope.owned.get(kind, 0) for scope in self._scopes.values()) + recent
            owned = max(owned, wanted)  # what was announced may be where nobody has counted yet
            allowed = max(self._minimum, int(owned * self._share))
            if wanted > allowed:
                some = tuple(map(str, resources[:50]))
                over.append(BudgetReport(revision, kind, wanted, allowed, owned, some, recent))
        return over

    def active(self, ctx: Context) -> bool:
        scope = self._scopes.get(ctx.view.scope)
        wanted = scope is not None and bool(scope.wants)
        self._over = self.report(ctx.view.revision, ctx.now) if wanted else ()
        return bool(self._over)

    def change(self, change: Change, ctx: Context) -> Withheld | None:
        if not change.prune or not self._over:
            return None
        worst = self._over[0]
        done = f" ({worst.recent} were done a short while ago)" if worst.recent else ""
        reason = (
            f"{worst.wanted} deletes of kind {worst.kind}, {worst.allowed} of {worst.owned} are allowed{done};"
            f" 'reconcile approve {ctx.view.revision}' lets them through"
        )
        freed = self._spent[0][0] + self._window if self._spent else None
        return Withheld(self.name, reason, freed)
