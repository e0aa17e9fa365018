"""The mirror of Neutron's objects: fed by notifications and by full reads, right whatever is lost, late or twice.

    version      Neutron's revision number where both sides have one, else the time of the word (`entry.Version`)
    tombstone    left by a delete; nothing told about the object counts until a full read that began later
    full read    overrides nothing newer than its own start, and alone removes what nobody reported as deleted

A delete that is notified takes the object out of `resources`. Whether a node may act on that is `problem`: until the
first complete read (in this process, or one that the store remembers) the source is not in sync, and nothing is
deleted on its word. Pure: every time comes in by the caller. Nothing grows with what passes through but what lives.
See desired/sources/DESIGN.md.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from desired.network.entry import Entry, Version, added, confirmed, of_row
from desired.network.notice import Notice, timestamp
from desired.network.openstack import FIELDS, NOTIFIED, SOURCE, Body, Kind, object_key
from desired.network.translated import Key, Translated
from desired.resource import ResourceId, Resources
from desired.store import MirrorRow

_READ = "read"
"""The kind of the rows that say when a kind was last read whole."""

_KINDS = frozenset(kind.value for kind in Kind)

PIECE = 100
"""Objects that are taken at once where there are many."""

_OTHER_EVENTS = 50
"""How many kinds of unknown events are counted by name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`skew`: seconds by which the clocks of two API servers may differ; the others are numbers of things kept."""

    skew: float = 2.0
    seen: int = 10_000
    tombstones: int = 20_000


@dataclass(frozen=True, slots=True)
class Changed:
    """What a batch or a read did. `rows` and `forgotten` are for the store; `wants_read` says why a read is needed, and
    `problems` names what is left out since.
    """

    resources: frozenset[ResourceId] = frozenset()
    rows: tuple[MirrorRow, ...] = ()
    forgotten: tuple[tuple[str, str], ...] = ()
    wants_read: str = ""
    problems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.resources or self.rows or self.forgotten)

    @classmethod
    def together(cls, pieces: Sequence[Changed]) -> Changed:
        """Of what is done in pieces; `wants_read` is the first reason."""
        return cls(
            frozenset().union(*(piece.resources for piece in pieces)),
            tuple(row for piece in pieces for row in piece.rows),
            tuple(key for piece in pieces for key in piece.forgotten),
            next((piece.wants_read for piece in pieces if piece.wants_read), ""),
            tuple(problem for piece in pieces for problem in piece.problems),
        )


class Mirror:
    """Used from one thread. `counts` says what became of the notices, `other_events` which events nobody wanted."""

    source = SOURCE

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._entries: dict[Key, Entry] = {}
        self._tombstones: dict[Key, None] = {}
        self._floors: dict[Kind, float] = {}
        """By kind: the start of its last complete read. What is not known and was said before is gone."""
        self._seen: set[str] = set()
        self._order: deque[str] = deque()
        self._translated = Translated()
        self._touched: dict[Key, None] = {}
        self._rows: list[MirrorRow] = []
        self.counts: Counter[str] = Counter()
        self.other_events: Counter[str] = Counter()

    @property
    def resources(self) -> Resources:
        """The model's objects. Live: copy what must not change."""
        return self._translated.resources

    @property
    def problems(self) -> Mapping[Key, str]:
        """A sentence for each object that is left out."""
        return self._translated.problems

    @property
    def read_at(self) -> float:
        """When the last complete read of everything began; 0.0 when there was none."""
        return min((self._floors.get(kind, 0.0) for kind in NOTIFIED), default=0.0)

    @property
    def problem(self) -> str:
        """Why nothing may be deleted on this source's word; empty when it may."""
        return "" if self.read_at else "the model was never read whole, only followed by notifications"

    def __len__(self) -> int:
        return len(self._entries) - len(self._tombstones)

    # -- what comes in ------------------------------------------------------------------------------------------------

    def take(self, notices: Iterable[Notice]) -> Changed:
        """Notifications, in the order in which they came."""
        for notice in notices:
            if notice.key and not self._first(notice.key):
                self.counts["duplicate"] += 1
            else:
                self.counts[self._event(notice)] += 1
        return self._settled()

    def full_read(self, started_at: float, objects: Mapping[str, Iterable[Body]], *, complete: bool = True) -> Changed:
        """What the API answered to a read that began then (by the server's clock, where that is known).

        By kind (``port``, ``agent`` …), with `complete` all that there is of it: what is not listed is gone unless it
        is newer. A kind that is not in `objects` was not read.
        """
        read = self.reading(started_at)
        for name, bodies in objects.items():
            read.add(name, bodies)
        if complete:
            read.complete()
        return read.settle()

    def reading(self, started_at: float) -> Reading:
        """The same in pieces, so that nobody waits for all of it; notices may be taken in between."""
        return Reading(self, started_at - self._limits.skew)

    def restore(self, rows: Iterable[MirrorRow]) -> Changed:
        """Start from what the store remembers. What came in before stays where it is newer."""
        return Changed.together(list(self.restoring(rows)))

    def restoring(self, rows: Iterable[MirrorRow]) -> Iterator[Changed]:
        """The same in pieces, so that nobody waits for all of it; notices may be taken in between."""
        floors: dict[Kind, float] = {}
        objects = []
        for row in rows:
            if row.kind == _READ and row.name in _KINDS:
                floors[Kind(row.name)] = max(row.at, self._floors.get(Kind(row.name), 0.0))
            elif row.kind in _KINDS:
                objects.append(row)
        for first in range(0, len(objects), PIECE):
            for row in objects[first : first + PIECE]:
                key = (Kind(row.kind), row.name)
                here, there = self._entries.get(key), confirmed(of_row(row), floors.get(key[0], 0.0))
                if here is None or here.version.before(there.version):
                    self._set(key, there)
                    self._touched.pop(key, None)
            yield Changed()
        while self._translated.stale:  # only now: what an object lacks may have been among the last
            yield self._settled(PIECE)
        self._floors.update({kind: max(at, self._floors.get(kind, 0.0)) for kind, at in floors.items()})
        yield self._settled()  # and only now is all there, so that what is not there may be deleted

    # -- events -------------------------------------------------------------------------------------------------------

    def _event(self, notice: Notice) -> str:
        """What became of it, in one word."""
        first, _, rest = notice.event.partition(".")
        kind = next((kind for kind in NOTIFIED if kind == first), None)
        match rest:
            case "create.end" | "update.end" if kind is not None:
                bodies = list(_bodies(kind, notice.payload))
                return min((self._told(kind, body, notice.at) for body in bodies), default="malformed")
            case "delete.end" if kind is not None:
                return self._deleted(kind, _deleted_id(kind, notice.payload), notice.at)
            case "interface.create" | "interface.delete" if kind is Kind.ROUTER:
                info = notice.payload.get("router_interface", notice.payload.get("router.interface"))
                return self._interface(info, notice.at, made=rest == "interface.create")
            case "create.start" | "update.start" | "delete.start" if kind is not None:
                return "start"
        if notice.event in self.other_events or len(self.other_events) < _OTHER_EVENTS:
            self.other_events[notice.event] += 1
        return "ignored"

    def _told(self, kind: Kind, body: Any, at: float) -> str:
        found = _kept(kind, body)
        if found is None:
            return "malformed"
        name, fields = found
        return self._add((kind, name), fields, Version(at, _revision(body)))

    def _add(self, key: Key, fields: Body, version: Version) -> str:
        entry = self._entries.get(key)
        if entry is None and version.at < self._floors.get(key[0], 0.0):
            return "late"
        if entry is not None and entry.body is None:
            return "late"
        after = added(entry, fields, version)
        if after != entry:
            self._set(key, after)
        return "taken" if entry is None or after.version == version else "late"

    def _deleted(self, kind: Kind, name: str | None, at: float) -> str:
        if name is None:
            return "malformed"
        entry = self._entries.get((kind, name))
        known = self._floors.get(kind, 0.0) if entry is None else entry.whole.at if entry.whole is not None else 0.0
        if at < known:
            return "late"
        if entry is None or entry.body is not None or entry.version.at < at:
            self._set((kind, name), Entry(Version(at), None))
        return "taken"

    def _interface(self, info: Any, at: float, *, made: bool) -> str:
        """A router's interface: of its port only ids are told, here and nowhere else."""
        try:
            port, router = object_key(info["port_id"]), object_key(info["id"])
            subnets = [object_key(each) for each in info.get("subnet_ids") or [info["subnet_id"]]]
        except (KeyError, TypeError, ValueError, AttributeError):
            return "malformed"
        if made:
            if (dead := self._entries.get((Kind.PORT, port))) is not None and dead.body is None:
                return "late"
            if at < self._floors.get(Kind.PORT, 0.0):
                return "late"
            fields = {"id": port, "router_id": router, "subnet_ids": subnets}
            return self._add((Kind.INTERFACE, port), fields, Version(at))
        entry = self._entries.get((Kind.PORT, port))
        body = entry.body if entry is not None else None
        rest = [fixed for fixed in (body or {}).get("fixed_ips") or () if not _in(fixed, subnets)]
        if rest:  # one of several IPv6 prefixes: the port stays
            return self._add((Kind.PORT, port), {"fixed_ips": rest}, Version(at))
        self._deleted(Kind.INTERFACE, port, at)
        return self._deleted(Kind.PORT, port, at)

    # -- full reads ---------------------------------------------------------------------------------------------------

    def _read(self, kind: Kind, body: Any, start: float) -> Key | None:
        found = _kept(kind, body)
        if found is None:
            self.counts["malformed"] += 1
            return None
        name, fields = found
        key = (kind, name)
        entry = self._entries.get(key)
        if entry is not None and entry.body is None and entry.version.at >= start:
            return key
        at = max(start, timestamp(body.get("updated_at")) or 0.0)
        after = added(entry, fields, Version(at, _revision(body)), whole=True)
        if (
            entry is not None
            and not after.older
            and entry.version.revision == after.version.revision
            and (entry.body == after.body)
        ):
            self._entries[key] = after  # as it was: the store learns with the read's completion that it still is
        else:
            self._set(key, after)
        return key

    def _complete(self, kind: Kind, start: float, listed: set[Key]) -> None:
        """Forget what a complete read did not show, tombstones included, unless it is newer than the read."""
        replaced = {kind, Kind.INTERFACE} if kind is Kind.PORT else {kind}
        gone = [
            key
            for key, entry in self._entries.items()
            if key[0] in replaced and key not in listed and entry.version.at < start
        ]
        for key in gone:
            self._set(key, None)
        if start > self._floors.get(kind, 0.0):
            self._floors[kind] = start
            self._rows.append(MirrorRow(_READ, kind.value, {}, start))

    # -- keeping ------------------------------------------------------------------------------------------------------

    def _set(self, key: Key, entry: Entry | None) -> None:
        before = self._entries.get(key)
        self._tombstones.pop(key, None)
        if entry is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = entry
            if entry.body is None:
                self._tombstones[key] = None
        self._touched[key] = None
        if before is None or entry is None or before.body != entry.body:
            self._translated.put(key, None if entry is None else entry.body)
        if len(self._tombstones) > self._limits.tombstones:
            self._set(next(iter(self._tombstones)), None)

    def _first(self, key: str) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        self._order.append(key)
        if len(self._order) > self._limits.seen:
            self._seen.discard(self._order.popleft())
        return True

    def _settled(self, most: int | None = None) -> Changed:
        settled = self._translated.settle(most)
        rows, self._rows = self._rows, []
        forgotten = []
        for kind, name in self._touched:
            entry = self._entries.get((kind, name))
            if entry is None:
                forgotten.append((kind.value, name))
            else:
                rows.append(entry.row(kind.value, name))
        self._touched.clear()
        wants_read = settled.lacking[0] if settled.lacking else ""
        return Changed(settled.changed, tuple(rows), tuple(forgotten), wants_read, settled.wrong)


class Reading:
    """One full read on its way into the mirror: `add` what was listed, `complete` it, and `settle` now and then."""

    def __init__(self, mirror: Mirror, start: float) -> None:
        self._mirror, self._start = mirror, start
        self._listed: dict[Kind, set[Key]] = {}

    def add(self, kind: str, bodies: Iterable[Any]) -> None:
        """Objects of a kind. A kind of which there is none is added with none."""
        listed = self._listed.setdefault(Kind(kind), set())
        for body in bodies:
            key = self._mirror._read(Kind(kind), body, self._start)  # noqa: SLF001 (its own module)
            if key is not None:
                listed.add(key)

    def complete(self) -> None:
        """All that there is of the kinds that were added was added: what was not listed is gone."""
        for kind, listed in self._listed.items():
            self._mirror._complete(kind, self._start, listed)  # noqa: SLF001 (its own module)

    def settle(self) -> Changed:
        """What changed since the last time. What a read did not tell, another one will not tell either."""
        return replace(self._mirror._settled(), wants_read="")  # noqa: SLF001 (its own module)


def _bodies(kind: Kind, payload: Body) -> Iterator[Any]:
    """The objects of a payload: one, or a bulk of them."""
    if kind in payload:
        yield payload[kind]
    many = payload.get(f"{kind}s")
    if isinstance(many, list):
        yield from many


def _deleted_id(kind: Kind, payload: Body) -> str | None:
    inside = payload.get(kind)
    named = payload.get(f"{kind}_id", inside.get("id") if isinstance(inside, dict) else None)
    try:
        return object_key(named)
    except ValueError:
        return None


def _kept(kind: Kind, body: Any) -> tuple[str, Body] | None:
    """The id of an object and what is kept of it; None when it is no object."""
    if not isinstance(body, Mapping):
        return None
    try:
        name = object_key(body.get("id"))
    except ValueError:
        return None
    fields = FIELDS[kind]
    return name, {**{field: value for field, value in body.items() if field in fields}, "id": name}


def _revision(body: Body) -> int | None:
    found = body.get("revision_number")
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _in(fixed: Any, subnets: Sequence[str]) -> bool:
    return not isinstance(fixed, Mapping) or fixed.get("subnet_id") in subnets
