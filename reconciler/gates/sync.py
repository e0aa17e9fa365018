"""`in_sync`: nothing before the desired state is loaded; no delete while the source that declared the thing is away."""

from __future__ import annotations

from collections.abc import Iterable

from desired.resource import Resource, ResourceId
from reconciler.contract import Change
from reconciler.gates.base import Context, Withheld


class InSync:
    """Sources report here. Unreachable never means "delete"."""

    name = "in_sync"

    def __init__(self) -> None:
        self._away: dict[str, str] = {}
        self._declared_by: dict[ResourceId, str] = {}
        self.starting = "the daemon has not read its pauses and approvals yet"

    def started(self) -> None:
        """What a person ordered before the restart is known now."""
        self.starting = ""

    def source(self, name: str, problem: str) -> None:
        """`problem` empty: the source is in sync. Else the sentence why it is not."""
        if problem:
            self._away[name] = problem
        else:
            self._away.pop(name, None)

    def gone(self, resources: Iterable[Resource]) -> None:
        """These are no longer declared; their source decides whether they may be deleted.

        Of what was declared before this process began nothing is known: then every source must be in sync.
        """
        self._declared_by.update((resource.id, resource.source) for resource in resources)

    def active(self, ctx: Context) -> bool:
        return bool(self._away or self.starting or not ctx.view.revision)

    def change(self, change: Change, ctx: Context) -> Withheld | None:
        if not ctx.view.revision:
            return Withheld(self.name, "no desired state is loaded yet")
        if self.starting:
            return Withheld(self.name, self.starting)
        if change.prune and self._away:
            source = self._declared_by.get(change.resource) or next(iter(self._away))
            problem = self._away.get(source)
            if problem is not None:
                return Withheld(self.name, f"deletes wait until source '{source}' is in sync: {problem}")
        return None
