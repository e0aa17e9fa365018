"""A plan in the making: what one diff reads, and what it has found so far. Handed from bridges to ports to grouping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controllers.drivers.ovsdb.replica import Replica
from controllers.drivers.ovsdb.rows import BridgeRow, InterfaceRow, PortRow
from controllers.ovsdb.part import Part
from controllers.ovsdb.state import Observed
from desired.resource import Resource, ResourceId
from reconciler.contract import Change, Finding, Later, Outcome, View


@dataclass(slots=True)
class Draft:
    view: View
    observed: Observed
    changes: list[Change] = field(default_factory=list)
    deletes: list[Change] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    looked_at: set[ResourceId] = field(default_factory=set)

    @property
    def replica(self) -> Replica:
        return self.observed.replica

    def declared(self, rid: ResourceId) -> Resource | None:
        self.looked_at.add(rid)
        return self.view.resources.get(rid)

    def owns(self, row: BridgeRow | PortRow) -> bool:
        return self.observed.owner.owns(row.external_ids)

    def may_hold(self, row: BridgeRow | PortRow, resource: Resource) -> bool:
        """Is the row of what is declared ours: marked, or known as ours before its mark was taken off, or adopted?"""
        return self.owns(row) or row.uuid in self.observed.ours or resource.spec.adopt

    def conflict(self, resource: Resource, what: str) -> None:
        reason = f"{what} exists and carries no mark of ours; 'adopt: true' at {resource.origin} takes it over"
        self.findings.append(Finding(resource.id, Outcome.CONFLICT, reason))


def text(value: object) -> str:
    """A column's value as a person reads it."""
    match value:
        case None | "":
            return "none"
        case Mapping():
            return "{" + ", ".join(f"{key}={value[key]}" for key in sorted(value)) + "}"
        case tuple():
            return "[" + ", ".join(map(str, value)) + "]"
        case _:
            return str(value)


def described(columns: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={text(value)}" for name, value in sorted(columns.items()))


Parts = Sequence[tuple[str, Part, BridgeRow | PortRow | InterfaceRow]]
"""Parts that differ; each is (prefix for the columns' names, part, row)."""


def differences(parts: Parts) -> tuple[str, Later, Later]:
    """(why, before, after)"""
    names = [prefix + name for prefix, part, _ in parts for name in part.columns]
    names += [f"{prefix}{name}:{key}" for prefix, part, _ in parts for name, keys in part.keys.items() for key in keys]
    differ = "differs" if len(names) == 1 else "differ"
    return f"{', '.join(names)} {differ}", Later(lambda: _before(parts)), Later(lambda: _after(parts))


def _before(parts: Parts) -> str:
    shown = [f"{prefix}{name}={text(getattr(row, name))}" for prefix, part, row in parts for name in part.columns]
    for prefix, part, row in parts:
        for name, keys in part.keys.items():
            shown += [f"{prefix}{name}:{key}={text(getattr(row, name).get(key))}" for key in keys]
    return ", ".join(shown)


def _after(parts: Parts) -> str:
    shown = [f"{prefix}{name}={text(value)}" for prefix, part, _ in parts for name, value in part.columns.items()]
    for prefix, part, _ in parts:
        for name, keys in part.keys.items():
            shown += [f"{prefix}{name}:{key}={text(value)}" for key, value in keys.items()]
    return ", ".join(shown)
