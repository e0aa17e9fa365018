"""The desired state as the engine uses it: one snapshot, cut into scopes, with what changed between two of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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
        self._scopes: dict[Scope, dict[ResourceId, Resource]] = {}

    def take(self, snapshot: Snapshot) -> Mapping[Scope, Sequence[ResourceId]]:
        """Make `snapshot` the truth. Returns, for every scope that differs, the resources that do."""
        scopes: dict[Scope, dict[ResourceId, Resource]] = {}
        for rid, resource in snapshot.resources.items():
            scopes.setdefault(self.controller(rid.kind).scope(resource), {})[rid] = resource
        changed: dict[Scope, Sequence[ResourceId]] = {}
        for scope in self._scopes.keys() | scopes.keys():
            old, new = self._scopes.get(scope, {}), scopes.get(scope, {})
            differing = [rid for rid in old.keys() | new.keys() if _generation(old, rid) != _generation(new, rid)]
            if differing:
                changed[scope] = differing
        self.snapshot, self._scopes = snapshot, scopes
        return changed

    def dependents(self, rids: Collection[ResourceId]) -> set[Scope]:
        """The scopes in which something refers to one of these."""
        wanted = frozenset(rids)
        return {
            scope
            for scope, resources in self._scopes.items()
            if any(ref in wanted for resource in resources.values() for ref in resource.spec.refs())
        }

    def controller(self, kind: str) -> Controller:
        """The controller of `kind`. Raises ConfigError for a kind that does not exist."""
        try:
            return self._by_kind[kind]
        except KeyError:
            known = ", ".join(sorted(self._by_kind))
            raise ConfigError(f"there is no kind {kind!r}; the kinds are {known}") from None

    def kinds(self) -> Sequence[str]:
        return tuple(sorted(self._by_kind))

    def scopes(self) -> Iterable[Scope]:
        """The scopes in which something is declared."""
        return self._scopes.keys()

    def resources(self, scope: Scope) -> Resources:
        return self._scopes.get(scope, _NOTHING)

    def observing(self) -> bool:
        """Is anything declared `mode: observe`?"""
        return any(resource.spec.mode is Mode.OBSERVE for resource in self.snapshot.resources.values())

    def view(self, scope: Scope, settled: frozenset[Scope]) -> View:
        snapshot = self.snapshot
        return View(scope, self.resources(scope), snapshot.revision, settled, snapshot.resources)


def _generation(resources: Resources, rid: ResourceId) -> int | None:
    resource = resources.get(rid)
    return None if resource is None else resource.generation
