"""The rows of OVSDB that a node reconciler looks at, typed, and how their columns arrive on the wire (RFC 7047, 5.1).

Only columns that say what was configured, or what became of it, are here; statistics and other fast-changing columns
are left out on purpose: each change of a monitored column is an event. The replica builds rows from these shapes and
merges "update2" differences into them; nothing here does IO or knows a connection.

References are uuids as text. Sets are sorted tuples, so that equal contents are equal rows. Rows are named tuples: one
is made for every event.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Wire = Any
"""A value as JSON gave it."""

_FEW = 16


_NO_MAP: Mapping[str, str] = MappingProxyType({})


class RootRow(NamedTuple):
    """The one row of table Open_vSwitch. `ovs_version` and the types are empty until vswitchd has run.

    vswitchd copies `next_cfg` to `cur_cfg` when it has acted on everything that was written with it or before.
    """

    uuid: str
    bridges: tuple[str, ...] = ()
    other_config: Mapping[str, str] = _NO_MAP
    external_ids: Mapping[str, str] = _NO_MAP
    ovs_version: str | None = None
    datapath_types: tuple[str, ...] = ()
    iface_types: tuple[str, ...] = ()
    next_cfg: int = 0
    cur_cfg: int = 0


class BridgeRow(NamedTuple):
    uuid: str
    name: str = ""
    ports: tuple[str, ...] = ()
    fail_mode: str | None = None
    datapath_type: str = ""
    protocols: tuple[str, ...] = ()
    other_config: Mapping[str, str] = _NO_MAP
    external_ids: Mapping[str, str] = _NO_MAP
    controller: tuple[str, ...] = ()


class PortRow(NamedTuple):
    uuid: str
    name: str = ""
    interfaces: tuple[str, ...] = ()
    tag: int | None = None
    trunks: tuple[int, ...] = ()
    vlan_mode: str | None = None
    bond_mode: str | None = None
    lacp: str | None = None
    other_config: Mapping[str, str] = _NO_MAP
    external_ids: Mapping[str, str] = _NO_MAP


class InterfaceRow(NamedTuple):
    """`ofport` is None until vswitchd has looked at it, and -1 when it failed (`error` then says why)."""

    uuid: str
    name: str = ""
    type: str = ""
    options: Mapping[str, str] = _NO_MAP
    ofport: int | None = None
    ofport_request: int | None = None
    error: str | None = None
    external_ids: Mapping[str, str] = _NO_MAP
    mac: str | None = None
    mtu: int | None = None
    mtu_request: int | None = None


Row = RootRow | BridgeRow | PortRow | InterfaceRow


def _as_it_is(value: Wire) -> Any:
    return value


def _optional(value: Wire) -> Any:
    if isinstance(value, list):
        atoms = value[1]
        return atoms[0] if atoms else None
    return value


def _set(value: Wire) -> tuple[Any, ...]:
    """A set of one may come bare, without its ["set", …]."""
    return tuple(sorted(value[1])) if isinstance(value, list) else (value,)


def _refs(value: Wire) -> tuple[str, ...]:
    if value[0] == "uuid":
        return (value[1],)
    return tuple(sorted([atom[1] for atom in value[1]]))


def _map(value: Wire) -> dict[str, str]:
    return dict(value[1])


def _newest(_old: Any, new: Any) -> Any:
    return new


def _flip(old: tuple[Any, ...], flipped: tuple[Any, ...]) -> tuple[Any, ...]:
    """Symmetric difference of sorted tuples. A few flips in a set of thousands (Bridge.ports) cost two copies each."""
    if len(flipped) > _FEW:
        return tuple(sorted(set(old).symmetric_difference(flipped)))
    for atom in flipped:
        at = bisect_left(old, atom)
        here = at < len(old) and old[at] == atom
        old = old[:at] + old[at + 1 :] if here else (*old[:at], atom, *old[at:])
    return old


def _merge_map(old: Mapping[str, str], changed: Mapping[str, str]) -> dict[str, str]:
    """A pair that was there with the same value is gone; any other pair is the new one (ovsdb-server(7), update2)."""
    merged = dict(old)
    for key, value in changed.items():
        if merged.get(key) == value:
            del merged[key]
        else:
            merged[key] = value
    return merged


class Kind(NamedTuple):
    """How a column is read, and how a difference is merged into it."""

    decode: Callable[[Wire], Any]
    merge: Callable[[Any, Any], Any]


TEXT = Kind(_as_it_is, _newest)
NUMBER = Kind(_as_it_is, _newest)
OPTIONAL = Kind(_optional, _newest)
SET = Kind(_set, _flip)
REFS = Kind(_refs, _flip)
MAP = Kind(_map, _merge_map)


class Shape(NamedTuple):
    """A table's row class and its monitored columns; the class has a field of each one's name."""

    row: Callable[..., Row]
    columns: Mapping[str, Kind]


_IDS = {"other_config": MAP, "external_ids": MAP}

SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "Open_vSwitch": Shape(
            RootRow,
            {
                "bridges": REFS, **_IDS, "ovs_version": OPTIONAL, "datapath_types": SET, "iface_types": SET,
                "next_cfg": NUMBER, "cur_cfg": NUMBER,
            },
        ),
        "Bridge": Shape(
            BridgeRow,
            {
                "name": TEXT, "ports": REFS, "fail_mode": OPTIONAL, "datapath_type": TEXT, "protocols": SET,
                **_IDS, "controller": REFS,
            },
        ),
        "Port": Shape(
            PortRow,
            {
                "name": TEXT, "interfaces": REFS, "tag": OPTIONAL, "trunks": SET, "vlan_mode": OPTIONAL,
                "bond_mode": OPTIONAL, "lacp": OPTIONAL, **_IDS,
            },
        ),
        "Interface": Shape(
            InterfaceRow,
            {
                "name": TEXT, "type": TEXT, "options": MAP, "ofport": OPTIONAL, "ofport_request": OPTIONAL,
                "error": OPTIONAL, "external_ids": MAP, "mac": OPTIONAL, "mtu": OPTIONAL, "mtu_request": OPTIONAL,
            },
        ),
    }
)  # fmt: skip


def decode_row(shape: Shape, uuid: str, wire: Mapping[str, Wire]) -> Row:
    """A whole row. The server leaves out columns with their default value, as the row classes have it."""
    columns = shape.columns
    return shape.row(uuid, **{name: columns[name].decode(value) for name, value in wire.items()})


def merge_row(shape: Shape, old: Row, wire: Mapping[str, Wire]) -> Row:
    """`old` with the differences of an update2 "modify"."""
    columns = shape.columns
    changed = {}
    for name, value in wire.items():
        kind = columns[name]
        changed[name] = kind.merge(getattr(old, name), kind.decode(value))
    return old._replace(**changed)
