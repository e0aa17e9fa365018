"""What is known of one object of Neutron, and how another word about it is added, in whatever order words come.

Every field has the version at which it was told, so that two words about an object give the same entry in either
order, and a word that shows less (a tenant's view of a network has no provider fields) takes nothing away. A full
read tells the whole: what it does not show is not there. Pure; used by `desired.network.mirror` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from desired.network.openstack import Body
from desired.store import MirrorRow


class Version(NamedTuple):
    """Of a word about an object: when it was said, in seconds since 1970, and Neutron's revision number if known."""

    at: float
    revision: int | None = None

    def before(self, other: Version) -> bool:
        """Whether the other is the newer one: by revision where both have one, else by time."""
        if self.revision is not None and other.revision is not None and self.revision != other.revision:
            return self.revision < other.revision
        return self.at < other.at


@dataclass(frozen=True, slots=True)
class Entry:
    """An object, or its tombstone when `body` is None.

    `version` is of the newest word, and of all fields but those in `older`. `whole` is of the newest full read: a
    field that is not in `body` was not there then.
    """

    version: Version
    body: Body | None
    older: Mapping[str, Version] = field(default_factory=dict)
    whole: Version | None = None

    def told(self, name: str) -> Version | None:
        """When the field was told last; None when never."""
        if self.body is not None and name in self.body:
            return self.older.get(name, self.version)
        return self.whole

    def row(self, kind: str, name: str) -> MirrorRow:
        """As the store keeps it."""
        more: dict[str, Any] = {}
        if self.older:
            more["older"] = {each: list(version) for each, version in self.older.items()}
        if self.whole is not None:
            more["whole"] = list(self.whole)
        return MirrorRow(kind, name, self.body, self.version.at, self.version.revision, more)


def of_row(row: MirrorRow) -> Entry:
    """The entry that was kept as this row."""
    older = {name: Version(*version) for name, version in row.more.get("older", {}).items()}
    whole = row.more.get("whole")
    return Entry(Version(row.at, row.revision), row.body, older, None if whole is None else Version(*whole))


def added(entry: Entry | None, fields: Body, version: Version, *, whole: bool = False) -> Entry:
    """What is known after somebody told these fields. `whole`: they are all that there is (a full read)."""
    if entry is None or entry.body is None:
        return Entry(version, fields, {}, version if whole else None)
    kept = {name: entry.older.get(name, entry.version) for name in entry.body}
    body = dict(entry.body)
    for name, value in fields.items():
        told = entry.told(name)
        if told is None or not version.before(told):
            body[name], kept[name] = value, version
    if whole:
        for name in [name for name in body if name not in fields and not version.before(kept[name])]:
            del body[name], kept[name]
    newest = version if entry.version.before(version) else entry.version
    older = {name: told for name, told in kept.items() if told != newest}
    return Entry(newest, body, older, _newer(entry.whole, version) if whole else entry.whole)


def _newer(one: Version | None, other: Version) -> Version:
    return other if one is None or one.before(other) else one
