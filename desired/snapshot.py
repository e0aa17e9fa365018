"""The immutable desired state of one node at one revision; the truth of a pass.

A snapshot knows in what it differs from the one it was made after, so that one changed thing among ten thousand costs
what one thing costs. Its revision is a sum of hashes, one for each resource: a change adds and takes away its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType

from desired.resource import Resource, ResourceId, Resources, copied

_NONE: frozenset[ResourceId] = frozenset()
_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Step:
    """How a snapshot came from the one of revision `since`.

    `differing` came, went or mean something else; `moved` are only written in another place.
    """

    since: str
    differing: frozenset[ResourceId] = _NONE
    moved: frozenset[ResourceId] = _NONE


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Resources of this node, by id. `revision` is a content hash (12 hex digits): equal content, equal revision.

    It is independent of order and of where things are written; '' is that of a snapshot which was never made.
    """

    resources: Resources = field(default_factory=lambda: MappingProxyType({}))
    revision: str = ""
    content: int = 0
    """The sum of the resources' own hashes."""
    step: Step | None = None

    @classmethod
    def of(cls, resources: Iterable[Resource], before: Snapshot | None = None) -> Snapshot:
        """All `resources`; quicker when most are as in the snapshot `before`."""
        by_id = {resource.id: resource for resource in resources}
        if before is None or not before.revision:
            content = sum(map(_hash, by_id.values())) & _BITS
            return cls(MappingProxyType(by_id), _revision(content, len(by_id)), content)
        old = before.resources
        other = [rid for rid, resource in by_id.items() if old.get(rid) is not resource]
        differing = {rid for rid in other if not _same(old.get(rid), by_id[rid])}
        gone = [rid for rid in old if rid not in by_id] if len(by_id) - len(old) != _new(differing, old) else []
        moved = frozenset(rid for rid in other if rid not in differing and old[rid].origin != by_id[rid].origin)
        return _after(before, by_id, frozenset(differing.union(gone)), moved)

    def changed(self, put: Iterable[Resource] = (), gone: Iterable[ResourceId] = ()) -> Snapshot:
        """This snapshot with these resources put into it and taken out of it."""
        by_id = copied(self.resources)
        differing: set[ResourceId] = set()
        moved: set[ResourceId] = set()
        for rid in gone:
            if by_id.pop(rid, None) is not None:
                differing.add(rid)
        for resource in put:
            old = self.resources.get(resource.id)
            by_id[resource.id] = resource
            differing.discard(resource.id)
            if not _same(old, resource):
                differing.add(resource.id)
            elif old is not resource:
                moved.add(resource.id)
        return _after(self, by_id, frozenset(differing), frozenset(moved))

    def differing(self, other: Snapshot) -> AbstractSet[ResourceId]:
        """What came, went or means something else since `other`."""
        step = self._step_from(other)
        if step is not None:
            return step.differing
        mine, others = self.resources, other.resources
        come = {rid for rid, resource in mine.items() if not _same(others.get(rid), resource)}
        return come | (others.keys() - mine.keys())

    def moved(self, other: Snapshot) -> AbstractSet[ResourceId]:
        """What means the same as in `other` and is another object: it is written in another place."""
        step = self._step_from(other)
        if step is not None:
            return step.moved
        mine, others = self.resources, other.resources
        both = (rid for rid, resource in mine.items() if others.get(rid) is not resource)
        return {rid for rid in both if _same(others.get(rid), mine[rid])}

    def _step_from(self, other: Snapshot) -> Step | None:
        return self.step if self.step is not None and other.revision and self.step.since == other.revision else None


def _after(
    before: Snapshot, by_id: dict[ResourceId, Resource], differing: frozenset[ResourceId], moved: frozenset[ResourceId]
) -> Snapshot:
    content = before.content
    for rid in differing:
        old, new = before.resources.get(rid), by_id.get(rid)
        content += (0 if new is None else _hash(new)) - (0 if old is None else _hash(old))
    content &= _BITS
    step = Step(before.revision, differing, moved)
    return Snapshot(MappingProxyType(by_id), _revision(content, len(by_id)), content, step)


def _new(differing: AbstractSet[ResourceId], old: Resources) -> int:
    return sum(rid not in old for rid in differing)


def _same(old: Resource | None, new: Resource) -> bool:
    return old is not None and old.generation == new.generation


def _hash(resource: Resource) -> int:
    rid = resource.id
    text = f"{rid.kind}\0{rid.name}\0{resource.generation}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _revision(content: int, number: int) -> str:
    return hashlib.blake2b(f"{number}\0{content}".encode(), digest_size=6).hexdigest()
