"""`dry_run`, `only` and `paused`: what a person ordered to stand still, for the node, a kind, a resource."""

from __future__ import annotations

from collections.abc import Sequence

from desired.resource import Mode, ResourceId
from reconciler.contract import Change
from reconciler.gates.base import Context, Withheld
from reconciler.report import Pause

NODE = "node"


def selects(only: str, resource: ResourceId) -> bool:
    """Does KIND or KIND/NAME select this resource?"""
    return only in {resource.kind, str(resource)}


class DryRun:
    """Mounted instead of nothing by `plan` and `--dry-run`."""

    name = "dry_run"

    def active(self, ctx: Context) -> bool:
        return True

    def change(self, change: Change, ctx: Context) -> Withheld | None:
        return Withheld(self.name, "planned only (dry run)")


class Only:
    """Mounted by `--once --only`."""

    name = "only"

    def __init__(self, only: str) -> None:
        self._only = only

    def active(self, ctx: Context) -> bool:
        return True

    def change(self, change: Change, ctx: Context) -> Withheld | None:
        if selects(self._only, change.resource):
            return None
        return Withheld(self.name, f"not selected by --only {self._only}")


class Paused:
    """Pauses by a person, and `mode: observe` in the YAML."""

    name = "paused"

    def __init__(self) -> None:
        self._pauses: dict[str, Pause] = {}
        self.observing = False
        """True when some declared resource has `mode: observe`."""

    def pause(self, pause: Pause) -> None:
        self._pauses[pause.what] = pause

    def resume(self, what: str) -> Sequence[Pause]:
        ended = [p for p in self._pauses.values() if what in {"all", p.what}]
        for pause in ended:
            del self._pauses[pause.what]
        return ended

    def expire(self, wall: float) -> Sequence[Pause]:
        """Forget and return the pauses whose end has come."""
        ended = [p for p in self._pauses.values() if p.until is not None and p.until <= wall]
        for pause in ended:
            del self._pauses[pause.what]
        return ended

    def all(self) -> Sequence[Pause]:
        return tuple(self._pauses.values())

    def active(self, ctx: Context) -> bool:
        return self.observing or bool(self._pauses)

    def change(self, change: Change, ctx: Context) -> Withheld | None:
        rid = change.resource
        for what in (NODE, rid.kind, str(rid)):
            pause = self._pauses.get(what)
            if pause is not None and (pause.until is None or pause.until > ctx.wall):
                return Withheld(self.name, f"{what} is paused: {pause.reason}")
        resource = ctx.view.resources.get(rid)
        if resource is not None and resource.spec.mode is Mode.OBSERVE:
            return Withheld(self.name, f"mode: observe at {resource.origin}")
        return None
