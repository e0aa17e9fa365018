"""`refs`: creation follows references. A group waits until what it names in `after` is settled, and says for what."""

from __future__ import annotations

from collections.abc import Callable

from desired.resource import ResourceId
from reconciler.contract import Group, Scope
from reconciler.gates.base import Context, Withheld


class Refs:
    name = "refs"

    def __init__(self, usable: Callable[[ResourceId], bool]) -> None:
        self._usable = usable

    def group(self, group: Group, ctx: Context) -> Withheld | None:
        missing = tuple(ref for ref in group.after if not self._met(ref, ctx))
        if not missing:
            return None
        return Withheld(self.name, f"waits for {', '.join(map(str, missing))}", waits_for=missing)

    def _met(self, ref: ResourceId | Scope, ctx: Context) -> bool:
        return ref in ctx.view.settled if isinstance(ref, Scope) else self._usable(ref)
