"""The section `services` of a document: units by name, ``dnsmasq`` short for ``dnsmasq.service``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from desired.kinds.service import ServiceSpec
from desired.resource import Spec
from desired.schema.check import Entry
from desired.schema.section import Named
from desired.schema.text import Node, Scalar
from desired.schema.walk import Walker


@dataclass(frozen=True, slots=True, kw_only=True)
class Services(Named):
    """``UNIT: {settings}``."""

    def entries(self, walker: Walker, node: Node) -> Iterator[Entry]:
        for entry in Named.entries(self, walker, node):
            assert isinstance(entry.at, Scalar)
            yield replace(entry, given={"name": entry.at})

    def resource_name(self, entry: Entry, spec: Spec) -> str:
        assert isinstance(spec, ServiceSpec)
        return spec.name

    @property
    def given(self) -> frozenset[str]:
        return frozenset({"name"})
