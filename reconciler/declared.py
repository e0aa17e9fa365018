"""Declared things as rows and back: for the store, and for doors that explain what is declared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Protocol

from desired.resource import Origin, Resource, ResourceId, Spec
from reconciler.report import DeclaredRow


class Row(Protocol):
    """Where a thing was declared, in whatever row."""

    @property
    def source(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...
    @property
    def path(self) -> str: ...


def declared_rows(resources: Iterable[Resource]) -> tuple[DeclaredRow, ...]:
    """Rows for a door; what is secret is hidden by the specs themselves."""
    return tuple(_row(resource) for resource in resources)


def _row(resource: Resource) -> DeclaredRow:
    at = resource.origin
    spec = json.dumps(resource.spec.model_dump(mode="json", exclude_defaults=True))
    return DeclaredRow(resource.id, spec, at.source, at.file, at.line, at.column, at.path)


def resources_of(rows: Iterable[DeclaredRow], specs: Mapping[str, type[Spec]]) -> list[Resource]:
    """The inverse. Raises KeyError for a kind that does not exist, ValueError for a spec that is none."""
    return [resource_of(row.resource, json.loads(row.spec), row, specs) for row in rows]


def resource_of(rid: ResourceId, spec: Mapping[str, object], at: Row, specs: Mapping[str, type[Spec]]) -> Resource:
    """One resource from the data of its spec. Raises as `resources_of`."""
    checked = specs[rid.kind].model_validate(spec)
    origin = Origin(at.source, at.file, at.line, at.column, at.path)
    return Resource(rid, checked, origin, checked.generation())
