"""The desired state as the engine uses it: one snapshot, cut into scopes, with what changed between two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from desired.resource import Mode, Resource, ResourceId, Resources
from desired.snapshot import Snapshot
from reconciler.contract import Controller, Scope, View
from reconciler.errors import ConfigError

_NOTHING: Resources = MappingProxyType({})


class DesiredBook:
    """Holds the current snapshot. `take` replaces it and says which scopes have to be looked at again."""

    def __init__(self, controllers: Iterable[Controller]) -> None:
        self._by_kind: dict[str, Controller] = {
            spec.kind: controller for controller in controllers for spec in controller.specs
        }
        self.snapshot = Snapshot()
        self._scopes: dict[Scope, Resources] = {}
        self._observing: set[ResourceId] = set()
        self._counts: Counter[str] = Counter()
        self._referring: dict[ResourceId, Counter[Scope]] = {}
        """By resource: how many in each scope refer to it."""

    def take(self, snapshot: Snapshot) -> Mapping[Scope, Sequence[ResourceId]]:
        """Make `snapshot` the truth. Returns, for every scope that differs, the resources that do.

        What is declared for other scopes stays the same object, so that what was made of it stays valid, too.
        """
        before = self.snapshot
        differing = snapshot.differing(before)
        scopes = dict(self._scopes)
        fresh: dict[Scope, dict[ResourceId, Resource]] = {}
        changed: dict[Scope, list[ResourceId]] = {}
        for rid in (*differing, *snapshot.moved(before)):
            old, new = before.resources.get(rid), snapshot.resources.get(rid)
            self._note(rid, old, new)
            controller = self.controller(rid.kind)
            here = {controller.scope(resource) for resource in (old, new) if resource is not None}
            self._refer(controller, old, -1)
            self._refer(controller, new, 1)
            for scope in here:
                inside = fresh.get(scope)
                if inside is None:
                    inside = fresh[scope] = dict(scopes.get(scope, _NOTHING))
                if new is not None and controller.scope(new) == scope:
                    inside[rid] = new
                else:
                    inside.pop(rid, None)
                if rid in differing:
                    changed.setdefault(scope, []).append(rid)
        for scope, inside in fresh.items():
            if inside:
                scopes[scope] = inside
            else:
                scopes.pop(scope, None)
        self.snapshot, self._scopes = snapshot, scopes
        return changed

    def _note(self, rid: ResourceId, old: Resource | None, new: Resource | None) -> None:
        self._counts[rid.kind] += (new is not None) - (old is not None)
        if new is not None and new.spec.mode is Mode.OBSERVE:
            self._observing.add(rid)
        else:
            self._observing.discard(rid)

    def _refer(self, controller: Controller, resource: Resource | None, number: int) -> None:
        if resource is None:
            return
        scope = controller.scope(resource)
        for ref in resource.spec.refs():
            referring = self._referring.setdefault(ref, Counter())
            referring[scope] += number
            if not referring[scope]:
                del referring[scope]
                if not referring:
                    del self._referring[ref]

    def dependents(self, rids: Collection[ResourceId]) -> set[Scope]:
        """The scopes in which something refers to one of these."""
        return {scope for rid in rids for scope in self._referring.get(rid, ())}

    def controller(self, kind: str) -> Controller:
        """The controller of `kind`. Raises ConfigError for a kind that does not exist."""
        try:
            return self._by_kind[kind]
        except KeyError:
            known = ", ".join(sorted(self._by_kind))
            raise ConfigError(f"there is no kind {kind!r}; the kinds are {known}") from None

    def kinds(self) -> Sequence[str]:
        return tuple(sorted(self._by_kind))

    def scopes(self) -> AbstractSet[Scope]:
        """The scopes in which something is declared."""
        return self._scopes.keys()

    def resources(self, scope: Scope) -> Resources:
        return self._scopes.get(scope, _NOTHING)

    def observing(self) -> bool:
        """Is anything declared `mode: observe`?"""
        return bool(self._observing)

    def counts(self) -> Mapping[str, int]:
        """How many resources of each kind are declared."""
        return self._counts

    def view(self, scope: Scope, settled: AbstractSet[Scope], news: AbstractSet[ResourceId] = frozenset()) -> View:
        snapshot = self.snapshot
        return View(scope, self.resources(scope), snapshot.revision, settled, snapshot.resources, self._scopes, news)
