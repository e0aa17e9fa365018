"""Builders of OVSDB operations (RFC 7047, 5.2), for `client.Ovsdb.transact`. Pure; values are Python's, refs are `Ref`.

A builder returns the operations of one deed; deeds are concatenated into a transaction, in which later operations see
earlier ones (a port may be added to a bridge that the same transaction adds). Guards ("wait" with timeout 0) make the
whole transaction fail when a rival was quicker. Names of bridges, ports and interfaces are unique by the schema's own
indexes, so adding one that is there fails with "constraint violation".

The server finds a row by uuid at once and by name in a walk over the table: name bridges, address ports by uuid.
Nothing here waits for vswitchd: it acts on every change it sees. `numbered` lets it say when it has, and has it look
although nothing else changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Operation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to a row: its uuid or, when the same transaction inserts it, the name given there."""

    uuid: str
    named: bool = False


Atom = str | int | bool | Ref
Value = Atom | Mapping[str, str] | Collection[Atom] | None
"""None is an optional column without a value; a tuple, list or set is a set; a mapping is a map."""

Columns = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Row:
    """The rows that an operation is about: of `table`, the one with this uuid, or else name; or all of them."""

    table: str
    uuid: str = ""
    name: str = ""

    def where(self) -> list[Any]:
        if self.uuid:
            return [["_uuid", "==", ["uuid", self.uuid]]]
        return [["name", "==", self.name]] if self.name else []


ROOT = Row("Open_vSwitch")
"""The one row of Open_vSwitch."""


@dataclass(frozen=True, slots=True)
class NewPort:
    """A port to be, with its interfaces by name. `columns` are Port's, without name and interfaces."""

    name: str
    interfaces: Mapping[str, Columns]
    columns: Columns = field(default_factory=dict)


def expect(row: Row, columns: Columns | None = None) -> Operation:
    """Guard: the row is there, and these columns have these values; else the transaction fails with "timed out"."""
    assert row.uuid or row.name, "a guard is about one row"
    identity: Columns = {"_uuid": Ref(row.uuid)} if row.uuid else {"name": row.name}
    held = {**identity, **(columns or {})}
    return _wait(row, list(held), [encode_row(held)])


def expect_absent(row: Row) -> Operation:
    """Guard: no such row."""
    return _wait(row, ["name"], [])


def add_bridge(
    name: str, bridge: Columns | None = None, *, port: Columns | None = None, interface: Columns | None = None
) -> list[Operation]:
    """A new bridge with its LOCAL port and internal interface of the same name, as ``ovs-vsctl add-br`` makes it."""
    local = NewPort(name, {name: {"type": "internal", **(interface or {})}}, port or {})
    return [
        expect_absent(Row("Bridge", name=name)),
        *_insert_port(local),
        insert("Bridge", {"name": name, "ports": (_ref("Port", name),), **(bridge or {})}, _ref("Bridge", name)),
        mutate(ROOT, [["bridges", "insert", encode(_ref("Bridge", name))]]),
    ]


def add_ports(bridge: str, ports: Sequence[NewPort]) -> list[Operation]:
    """New ports on a bridge: one guard and one change of the bridge for all of them."""
    refs = tuple(_ref("Port", port.name) for port in ports)
    there = Row("Bridge", name=bridge)
    inserts = [operation for port in ports for operation in _insert_port(port)]
    return [expect(there), *inserts, mutate(there, [["ports", "insert", encode(refs)]])]


def delete_bridge(uuid: str) -> list[Operation]:
    """Take a bridge away; the server drops its ports and interfaces. Nothing happens when it is gone already."""
    return [mutate(ROOT, [["bridges", "delete", encode(Ref(uuid))]])]


def delete_ports(bridge: Row, uuids: Collection[str]) -> list[Operation]:
    """Take ports off a bridge; the server drops them and their interfaces. Those already gone do not matter.

    vswitchd knows ports by name: when it sees the deletion and an addition of the same name and type at once (one
    transaction, or two while it was busy), it keeps device and ofport as they were and re-creates nothing.
    """
    return [mutate(bridge, [["ports", "delete", encode(tuple(Ref(uuid) for uuid in sorted(uuids)))]])]


def numbered() -> Operation:
    """Count the transaction: when vswitchd has acted on it, ``cur_cfg`` has reached what ``next_cfg`` is now.

    Every ovs-vsctl does this; it makes vswitchd compare what it has with what it should have.
    """
    return mutate(ROOT, [["next_cfg", "+=", 1]])


def update(row: Row, columns: Columns) -> Operation:
    """Set whole columns. A row that is gone is no error (`count` is 0): put `expect` before it."""
    return {"op": "update", "table": row.table, "where": row.where(), "row": encode_row(columns)}


def set_keys(row: Row, column: str, values: Mapping[str, str]) -> Operation:
    """Set these keys of a map column and leave the others alone."""
    return mutate(row, [[column, "delete", encode(tuple(sorted(values)))], [column, "insert", encode(values)]])


def remove_keys(row: Row, column: str, keys: Collection[str]) -> Operation:
    """Remove these keys of a map column, if they are there."""
    return mutate(row, [[column, "delete", encode(tuple(sorted(keys)))]])


def mutate(row: Row, mutations: list[list[Any]]) -> Operation:
    """Change parts of columns; `mutations` are ``[column, mutator, encoded value]``."""
    return {"op": "mutate", "table": row.table, "where": row.where(), "mutations": mutations}


def insert(table: str, columns: Columns, ref: Ref) -> Operation:
    """A new row, to which `ref` (a named one) refers within the transaction."""
    assert ref.named, "only a name given in the transaction can refer to a row that is not there yet"
    return {"op": "insert", "table": table, "uuid-name": ref.uuid, "row": encode_row(columns)}


def encode_row(columns: Columns) -> dict[str, Any]:
    return {name: encode(value) for name, value in columns.items()}


def encode(value: Value) -> Any:
    """A value as RFC 7047, 5.1 writes it."""
    if isinstance(value, str | int):
        return value
    if value is None:
        return ["set", []]
    if isinstance(value, Ref):
        return ["named-uuid" if value.named else "uuid", value.uuid]
    if isinstance(value, dict | Mapping):
        return ["map", [[key, value[key]] for key in sorted(value)]]
    return ["set", [encode(atom) for atom in value]]


def _insert_port(port: NewPort) -> list[Operation]:
    """A bond's members may be refs of one another's namesakes: a ref is made of table and name."""
    interfaces = [
        insert("Interface", {"name": name, **columns}, _ref("Interface", name))
        for name, columns in port.interfaces.items()
    ]
    refs = tuple(_ref("Interface", name) for name in port.interfaces)
    columns = {"name": port.name, "interfaces": refs, **port.columns}
    return [*interfaces, insert("Port", columns, _ref("Port", port.name))]


def _ref(table: str, name: str) -> Ref:
    """A uuid-name must be an identifier, and a port's name need not be one."""
    return Ref(f"{table}_{name.encode().hex()}", named=True)


def _wait(row: Row, columns: list[str], rows: list[dict[str, Any]]) -> Operation:
    return {
        "op": "wait", "timeout": 0, "table": row.table, "where": row.where(),
        "columns": columns, "until": "==", "rows": rows,
    }  # fmt: skip
