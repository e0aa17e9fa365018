"""An ovsdb-server that interprets: the operations of `controllers.drivers.ovsdb.ops` on the four tables, atomically.

It refuses what the real one refuses (a second row of a name, a guard that does not hold, a reference to nothing, a tag
out of range), drops rows that nothing refers to, and tells its followers differences as "update2" does, which the
real `Replica` takes in. `tests/controllers/test_ovsdb_contract.py` runs the same scenarios against the real thing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from controllers.drivers.ovsdb.rows import MAP, NUMBER, OPTIONAL, REFS, SET, SHAPES, TEXT, Kind

Tables = dict[str, dict[str, dict[str, Any]]]
_EMPTY: Mapping[int, Any] = {id(TEXT): "", id(NUMBER): 0, id(OPTIONAL): None, id(SET): (), id(REFS): (), id(MAP): {}}
_CONTAINS = (("Bridge", "Open_vSwitch", "bridges"), ("Port", "Bridge", "ports"), ("Interface", "Port", "interfaces"))


class RefusedError(Exception):
    """An operation is refused, and with it the transaction. `index` is None when it is the commit."""

    def __init__(self, error: str, index: int | None = None) -> None:
        super().__init__(error)
        self.index = index


class Database:
    """The tables as native values. `followers` are told each commit's updates in "update2" form."""

    def __init__(self) -> None:
        self.followers: list[Callable[[Mapping[str, Any]], None]] = []
        self._numbers = itertools.count(1)
        self.tables: Tables = {table: {} for table in SHAPES}
        self.tables["Open_vSwitch"][self._uuid()] = {**_blank("Open_vSwitch"), "datapath_types": ("netdev", "system")}

    def _uuid(self) -> str:
        return f"00000000-0000-0000-0000-{next(self._numbers):012}"

    def initial(self) -> Mapping[str, Any]:
        """What a monitor gets first."""
        return {
            table: {uuid: {"initial": _wire(table, row, _blank(table))} for uuid, row in rows.items()}
            for table, rows in self.tables.items()
        }

    def transact(self, operations: Sequence[Mapping[str, Any]]) -> None:
        """Carry out all operations or none. Raises RefusedError."""
        before = self.tables
        self.tables = deepcopy(before)
        names = {op["uuid-name"]: self._uuid() for op in operations if "uuid-name" in op}
        try:
            for index, operation in enumerate(operations):
                self._carry_out(operation, names, index)
            self._collect()
            self._check()
        except BaseException:
            self.tables = before
            raise
        self._tell(before)

    def set(self, table: str, uuid: str, **columns: Any) -> None:
        """Change a row from inside (what vswitchd writes)."""
        before = deepcopy(self.tables)
        self.tables[table][uuid].update(columns)
        self._tell(before)

    def find(self, table: str, name: str) -> tuple[str, dict[str, Any]] | None:
        return next(((uuid, row) for uuid, row in self.tables[table].items() if row.get("name") == name), None)

    # One operation

    def _carry_out(self, operation: Mapping[str, Any], names: Mapping[str, str], index: int) -> None:
        table = operation["table"]
        if operation["op"] == "insert":
            self.tables[table][names[operation["uuid-name"]]] = {
                **_blank(table), **self._columns(table, operation["row"], names),
            }  # fmt: skip
            return
        rows = {uuid: row for uuid, row in self.tables[table].items() if _selected(uuid, row, operation["where"])}
        match operation["op"]:
            case "wait":
                self._wait(operation, rows, names, index)
            case "update":
                for row in rows.values():
                    row.update(self._columns(table, operation["row"], names))
            case "mutate":
                for row in rows.values():
                    for column, mutator, value in operation["mutations"]:
                        kind = SHAPES[table].columns[column]
                        row[column] = _mutated(kind, row[column], mutator, _resolved(value, names))
            case other:
                raise RefusedError(f"syntax error: no operation {other!r}", index)

    def _columns(self, table: str, row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        kinds = SHAPES[table].columns
        unknown = row.keys() - kinds.keys()
        if unknown:
            raise RefusedError(f"unknown column {sorted(unknown)}")
        return {name: kinds[name].decode(_resolved(value, names)) for name, value in row.items()}

    def _wait(
        self, operation: Mapping[str, Any], rows: Mapping[str, dict[str, Any]], names: Mapping[str, str], index: int
    ) -> None:
        kinds = SHAPES[operation["table"]].columns
        has = [
            {c: ["uuid", uuid] if c == "_uuid" else row[c] for c in operation["columns"]} for uuid, row in rows.items()
        ]
        wanted = [
            {c: v if c == "_uuid" else kinds[c].decode(_resolved(v, names)) for c, v in row.items()}
            for row in operation["rows"]
        ]
        if has != wanted:
            raise RefusedError("timed out", index)

    # The commit

    def _collect(self) -> None:
        """Rows of the three lower tables live as long as something refers to them."""
        for table, parent, column in _CONTAINS:
            held = {ref for row in self.tables[parent].values() for ref in row[column]}
            self.tables[table] = {uuid: row for uuid, row in self.tables[table].items() if uuid in held}

    def _check(self) -> None:
        for table, parent, column in _CONTAINS:
            rows = self.tables[table]
            names = [row["name"] for row in rows.values()]
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise RefusedError(f"constraint violation: {table} rows named {sorted(twice)}")
            if any(ref not in rows for row in self.tables[parent].values() for ref in row[column]):
                raise RefusedError("referential integrity violation")
        for row in self.tables["Port"].values():
            if row["tag"] is not None and not 0 <= row["tag"] <= 4095:
                raise RefusedError("constraint violation: tag out of range")

    def _tell(self, before: Tables) -> None:
        updates: dict[str, dict[str, Any]] = {}
        for table, rows in self.tables.items():
            old = before[table]
            for uuid in old.keys() - rows.keys():
                updates.setdefault(table, {})[uuid] = {"delete": None}
            for uuid, row in rows.items():
                if uuid not in old:
                    updates.setdefault(table, {})[uuid] = {"insert": _wire(table, row, _blank(table))}
                elif row != old[uuid]:
                    updates.setdefault(table, {})[uuid] = {"modify": _difference(table, old[uuid], row)}
        if updates:
            for follower in list(self.followers):
                follower(updates)


def _blank(table: str) -> dict[str, Any]:
    return {name: deepcopy(_EMPTY[id(kind)]) for name, kind in SHAPES[table].columns.items()}


def _selected(uuid: str, row: Mapping[str, Any], where: Sequence[Sequence[Any]]) -> bool:
    return all((["uuid", uuid] if column == "_uuid" else row[column]) == value for column, _, value in where)


def _resolved(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        if len(value) == 2 and value[0] == "named-uuid":
            return ["uuid", names[value[1]]]
        return [_resolved(part, names) for part in value]
    return value


def _mutated(kind: Kind, old: Any, mutator: str, value: Any) -> Any:
    if kind is NUMBER:
        return old + value
    if kind is MAP:
        if mutator == "insert":
            return {**kind.decode(value), **old}
        keys = set(kind.decode(value)) if value[0] == "map" else set(value[1])
        return {key: has for key, has in old.items() if key not in keys}
    atoms = set(kind.decode(value))
    return tuple(sorted(set(old) | atoms if mutator == "insert" else set(old) - atoms))


def _encoded(kind: Kind, value: Any) -> Any:
    if kind is MAP:
        return ["map", [[key, value[key]] for key in sorted(value)]]
    if kind is REFS:
        return ["set", [["uuid", ref] for ref in value]]
    if kind is SET:
        return ["set", list(value)]
    return ["set", []] if value is None else value


def _wire(table: str, row: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    kinds = SHAPES[table].columns
    return {name: _encoded(kinds[name], value) for name, value in row.items() if value != default[name]}


def _difference(table: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Sets and references: what flipped. Maps: new pairs, and gone ones with the value they had."""
    kinds = SHAPES[table].columns
    found: dict[str, Any] = {}
    for name, value in new.items():
        had, kind = old[name], kinds[name]
        if had == value:
            continue
        if kind in (SET, REFS):
            found[name] = _encoded(kind, tuple(sorted(set(had) ^ set(value))))
        elif kind is MAP:
            gone = {key: has for key, has in had.items() if key not in value}
            changed = {key: has for key, has in value.items() if had.get(key) != has}
            found[name] = _encoded(kind, {**gone, **changed})
        else:
            found[name] = _encoded(kind, value)
    return found
