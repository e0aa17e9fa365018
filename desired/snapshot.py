"""The immutable desired state of one node at one revision; the truth of a pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from desired.resource import Resource, ResourceId, Resources


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Resources of this node, by id. `revision` is a content hash (12 hex digits): equal content, equal revision."""

    resources: Resources = field(default_factory=lambda: MappingProxyType({}))
    revision: str = ""

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Snapshot:
        by_id = {resource.id: resource for resource in resources}
        return cls(MappingProxyType(by_id), revision_of(by_id))


def revision_of(resources: Mapping[ResourceId, Resource]) -> str:
    """Content hash over ids and generations, independent of order and of where things are written."""
    digest = hashlib.blake2b(digest_size=6)
    for rid in sorted(resources):
        digest.update(f"{rid.kind}\0{rid.name}\0{resources[rid].generation}\n".encode())
    return digest.hexdigest()
