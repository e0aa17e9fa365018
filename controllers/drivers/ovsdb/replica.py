"""The replica of a node's OVSDB: typed rows with the indexes that a pass needs, fed with "table-updates2" objects.

Pure: no connection, no clock. `load` fills it from a monitor's initial contents, `apply` follows it with one update
and says which bridges and ports that update touched. The server merges the deletion and the re-creation of a row into
one update and promises no order inside it, so an update is applied as a whole: what it takes away first, then what it
brings. Used by `client.Ovsdb`; read by controllers; `audit` compares it with a second opinion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from controllers.drivers.ovsdb.rows import (
    REFS,
    SHAPES,
    BridgeRow,
    InterfaceRow,
    PortRow,
    RootRow,
    Row,
    decode_row,
    merge_row,
)
from reconciler.errors import DriverError

TableUpdates = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""``{table: {uuid: {"initial" | "insert" | "modify" | "delete": columns}}}`` as JSON gave it."""


class ReplicaError(DriverError):
    """An update does not fit what the replica holds: it must be read anew."""


@dataclass(frozen=True, slots=True)
class Touched:
    """Names of bridges and ports that an update touched. `root`: the Open_vSwitch row itself says something else."""

    names: frozenset[str]
    root: bool


class _Change(NamedTuple):
    """One row's change; `lost` and `gained` are what left and entered the set of things the row contains."""

    old: Row | None
    new: Row | None
    lost: tuple[str, ...]
    gained: tuple[str, ...]


class _Owners:
    """Which values belong to a key: nearly always one, so a tuple."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[str, tuple[str, ...]] = {}

    def of(self, key: str) -> tuple[str, ...]:
        return self._of.get(key, ())

    def add(self, key: str, value: str) -> None:
        had = self._of.get(key)
        self._of[key] = (value,) if had is None else tuple(sorted({*had, value}))

    def discard(self, key: str, value: str) -> None:
        left = tuple(other for other in self._of.get(key, ()) if other != value)
        if left:
            self._of[key] = left
        else:
            self._of.pop(key, None)


class Replica:
    """What OVSDB holds, by name. Read it, and read it again after an await: it follows the server in place."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.reset()
        for row in rows:
            self._take_in(_Change(None, row, (), _contained(row)))

    def reset(self) -> None:
        """Forget everything: nothing is known."""
        self.root: RootRow | None = None
        self.bridges: dict[str, BridgeRow] = {}
        self.ports: dict[str, PortRow] = {}
        self.interfaces: dict[str, InterfaceRow] = {}
        self._rows: dict[str, Row] = {}
        self._owners = _Owners()
        self._iface_ids = _Owners()

    def load(self, initial: TableUpdates) -> None:
        """Replace all contents by a monitor's initial ones. Raises ReplicaError."""
        self.reset()
        for change in _understood(self._changes(initial)):
            self._take_in(change)

    def apply(self, updates: TableUpdates) -> Touched:
        """Follow one update, whole. Raises ReplicaError; the replica is void then, and to be loaded again."""
        changes = _understood(self._changes(updates))
        names: set[str] = set()
        root = False
        for change in changes:
            if change.old is not None:
                self._name(names, change.old, change.lost)
        for change in changes:
            if change.old is not None:
                self._take_out(change)
        for change in changes:
            if change.new is not None:
                self._take_in(change)
        for change in changes:
            if change.new is not None:
                self._name(names, change.new, change.gained)
            if type(change.new or change.old) is RootRow:
                root = root or _is_root_news(change)
        return Touched(frozenset(names), root)

    def copy(self) -> Replica:
        """The same contents, which nothing changes any more: for a reader in another thread."""
        return Replica(self._rows.values())

    def rows(self) -> Mapping[str, Row]:
        """All rows by uuid."""
        return MappingProxyType(self._rows)

    def port_by_uuid(self, uuid: str) -> PortRow | None:
        row = self._rows.get(uuid)
        return row if isinstance(row, PortRow) else None

    def interface_by_uuid(self, uuid: str) -> InterfaceRow | None:
        row = self._rows.get(uuid)
        return row if isinstance(row, InterfaceRow) else None

    def bridge_of_port(self, name: str) -> str | None:
        """Name of the bridge that has the port `name`; None when there is no such port."""
        port = self.ports.get(name)
        return None if port is None else next(self._owner_names(port.uuid), None)

    def ports_by_iface_id(self, iface_id: str) -> tuple[str, ...]:
        """Names of the ports with an interface of this external_ids:iface-id, sorted."""
        interfaces = self._iface_ids.of(iface_id)
        return tuple(sorted({name for uuid in interfaces for name in self._owner_names(uuid)}))

    def _changes(self, updates: TableUpdates) -> Iterator[_Change]:
        for table, rows in updates.items():
            shape = SHAPES[table]
            for uuid, update in rows.items():
                ((how, wire),) = update.items()
                old = self._rows.get(uuid)
                if how == "delete":
                    yield _Change(_known(old, uuid), None, _contained(old), ())
                elif how == "modify":
                    new = merge_row(shape, _known(old, uuid), wire)
                    yield _Change(old, new, *self._moved(uuid, wire))
                else:
                    new = decode_row(shape, uuid, wire)
                    yield _Change(old, new, _contained(old), _contained(new))

    def _moved(self, uuid: str, wire: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What a "modify" took out of and put into a container; it names only these, however many there are."""
        for column in ("ports", "interfaces"):
            if column in wire:
                flipped = [(ref, uuid in self._owners.of(ref)) for ref in REFS.decode(wire[column])]
                return tuple(ref for ref, here in flipped if here), tuple(ref for ref, here in flipped if not here)
        return (), ()

    def _take_out(self, change: _Change) -> None:
        row = change.old
        if row is None:
            return
        for ref in change.lost:
            self._owners.discard(ref, row.uuid)
        match row:
            case RootRow():
                self.root = None
            case BridgeRow():
                self.bridges.pop(row.name, None)
            case PortRow():
                self.ports.pop(row.name, None)
            case InterfaceRow():
                self.interfaces.pop(row.name, None)
                if iface_id := row.external_ids.get("iface-id"):
                    self._iface_ids.discard(iface_id, row.uuid)
        if change.new is None:
            del self._rows[row.uuid]

    def _take_in(self, change: _Change) -> None:
        row = change.new
        if row is None:
            return
        self._rows[row.uuid] = row
        for ref in change.gained:
            self._owners.add(ref, row.uuid)
        match row:
            case RootRow():
                self.root = row
            case BridgeRow():
                self.bridges[row.name] = row
            case PortRow():
                self.ports[row.name] = row
            case InterfaceRow():
                self.interfaces[row.name] = row
                if iface_id := row.external_ids.get("iface-id"):
                    self._iface_ids.add(iface_id, row.uuid)

    def _name(self, names: set[str], row: Row, moved: Sequence[str]) -> None:
        """Add the bridges and ports that a change of `row` is about, as the replica stands now."""
        kind = type(row)
        if kind is InterfaceRow:
            names.update(self._owner_names(row.uuid))
        elif isinstance(row, BridgeRow | PortRow):
            names.add(row.name)
            if moved and kind is BridgeRow:
                names.update(port.name for port in map(self.port_by_uuid, moved) if port is not None)

    def _owner_names(self, uuid: str) -> Iterator[str]:
        for owner in self._owners.of(uuid):
            row = self._rows.get(owner)
            if isinstance(row, BridgeRow | PortRow):
                yield row.name


def _understood(changes: Iterator[_Change]) -> list[_Change]:
    """All changes, before any of them is made. The one place where a malformed update is told from a good one."""
    try:
        return list(changes)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ReplicaError(f"OVSDB sent an update that makes no sense here ({error!r}); all is read anew") from error


def _known(row: Row | None, uuid: str) -> Row:
    if row is None:
        raise KeyError(uuid)
    return row


def _contained(row: Row | None) -> tuple[str, ...]:
    match row:
        case BridgeRow():
            return row.ports
        case PortRow():
            return row.interfaces
        case _:
            return ()


def _is_root_news(change: _Change) -> bool:
    """A bridge that comes or goes is told by its own name; how far vswitchd is tells nothing of what is there."""
    old, new = change.old, change.new
    if isinstance(old, RootRow) and isinstance(new, RootRow):
        return old._replace(bridges=new.bridges, next_cfg=new.next_cfg, cur_cfg=new.cur_cfg) != new
    return isinstance(old, RootRow) or isinstance(new, RootRow)
