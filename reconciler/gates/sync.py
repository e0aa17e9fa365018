"""`in_sync`: nothing before the desired state is loaded; no delete while the source that declared the thing is away."""

from __future__ import annotations

from reconciler.contract import Change
from reconciler.gates.base import Context, Withheld


class InSync:
    """Sources report here. Unreachable never means "delete"."""

    name = "in_sync"

    def __init__(self) -> None:
        self._away: dict[str, str] = {}
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

    def active(self, ctx: Context) -> bool:
        return bool(self._away or self.starting or not ctx.view.revision)

    def change(self, change: Change, ctx: Context) -> Withheld | None:
        if not ctx.view.revision:
            return Withheld(self.name, "no desired state is loaded yet")
        if self.starting:
            return Withheld(self.name, self.starting)
        if change.prune and self._away:
            source, problem = next(iter(self._away.items()))
            return Withheld(self.name, f"deletes wait until source '{source}' is in sync: {problem}")
        return None
