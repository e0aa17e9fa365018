"""Differences of one row of OVSDB: what the diff finds, what an action sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controllers.drivers.ovsdb.ops import Value

Columns = Mapping[str, Value]
Keys = Mapping[str, Mapping[str, str]]
"""Keys to set in map columns whose other keys belong to others: column -> key -> value."""


@dataclass(frozen=True, slots=True)
class Part:
    """Whole columns, and keys of shared map columns."""

    columns: Columns = field(default_factory=dict)
    keys: Keys = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.columns or self.keys)


NOTHING = Part()
