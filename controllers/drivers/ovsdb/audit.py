"""A second opinion on the replica: the same database read by ovsdbapp's IDL, and every difference in words.

For `reconcile doctor` and the tests; no pass depends on it. It blocks for as long as ovsdbapp loads the database (more
than a second for thousands of ports), so it is called in a thread of its own, with a copy of the replica:
``await asyncio.to_thread(audit, ovsdb.remote, ovsdb.replica.copy())``. What changes between the copy and the reading is
reported too: ask again before believing it.
"""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from controllers.drivers.ovsdb.jsonrpc import Framer, words
from controllers.drivers.ovsdb.replica import Replica
from controllers.drivers.ovsdb.rows import MAP, NUMBER, OPTIONAL, SHAPES, TEXT, Kind, Row
from reconciler.errors import DriverError

_TIMEOUT = 10


def audit(remote: str, replica: Replica) -> list[str]:
    """Differences between `replica` and the database at `remote` (``unix:PATH``); empty when there is none.

    Raises DriverError when the database cannot be read. Blocks; see the module's docstring.
    """
    return list(differences(replica, _second_opinion(remote)))


def differences(ours: Replica, theirs: Replica) -> Iterator[str]:
    """Rows that only one side has, columns that differ, and lookups that say something else. Pure."""
    our_rows, their_rows = ours.rows(), theirs.rows()
    for key in sorted(their_rows.keys() - our_rows.keys()):
        yield f"{_called(their_rows[key])}: in the database, not in the replica"
    for key in sorted(our_rows.keys() - their_rows.keys()):
        yield f"{_called(our_rows[key])}: in the replica, not in the database"
    for key in sorted(our_rows.keys() & their_rows.keys()):
        yield from _columns(our_rows[key], their_rows[key])
    for name in sorted(theirs.ports):
        if (said := ours.bridge_of_port(name)) != (true := theirs.bridge_of_port(name)):
            yield f"port {name}: on bridge {true} in the database, on {said} in the replica"
    for iface_id in sorted(filter(None, {row.external_ids.get("iface-id") for row in theirs.interfaces.values()})):
        if (found := ours.ports_by_iface_id(iface_id)) != (right := theirs.ports_by_iface_id(iface_id)):
            yield f"iface-id {iface_id}: ports {right} in the database, {found} in the replica"


def _columns(ours: Row, theirs: Row) -> Iterator[str]:
    for column in ours._fields:
        said, true = getattr(ours, column), getattr(theirs, column)
        if said != true:
            yield f"{_called(ours)}: {column} is {true!r} in the database, {said!r} in the replica"


def _called(row: Row) -> str:
    return f"{type(row).__name__.removesuffix('Row').lower()} {getattr(row, 'name', row.uuid)}"


def _second_opinion(remote: str) -> Replica:
    """What ovsdbapp reads. It keeps one connection per API class, so the class is made for this one reading."""
    # Imported here because only an audit pays for it: some 10 MiB and a tenth of a second.
    from ovsdbapp import exceptions  # noqa: PLC0415
    from ovsdbapp.backend.ovs_idl import connection, idlutils  # noqa: PLC0415
    from ovsdbapp.schema.open_vswitch import impl_idl  # noqa: PLC0415

    class OneReading(impl_idl.OvsdbIdl):  # type: ignore[misc]  # ovsdbapp has no types
        pass

    helper = idlutils.create_schema_helper(_schema(remote))
    for table, shape in SHAPES.items():
        helper.register_columns(table, list(shape.columns))
    helper.register_columns("Controller", ["target"])  # ovsdbapp follows Bridge.controller into its table
    link = connection.Connection(connection.OvsdbIdl(remote, helper), timeout=_TIMEOUT)
    try:
        api = OneReading(link)
        return Replica(
            _row(table, record)
            for table, shape in SHAPES.items()
            for record in api.db_list(table, columns=["_uuid", *shape.columns]).execute(check_error=True)
        )
    except exceptions.OvsdbAppException as error:
        raise DriverError(f"audit of {remote}: ovsdbapp could not read it ({error}); nothing was compared") from error
    finally:
        if not link.stop(_TIMEOUT):
            raise DriverError(f"audit of {remote}: ovsdbapp's thread did not end within {_TIMEOUT} s")


def _row(table: str, record: Mapping[str, Any]) -> Row:
    shape = SHAPES[table]
    columns = {name: _value(kind, record[name]) for name, kind in shape.columns.items()}
    return shape.row(str(record["_uuid"]), **columns)


def _value(kind: Kind, value: Any) -> Any:
    """A column as ovsdbapp has it in our form: [] is an empty optional; sets are lists, and references UUIDs."""
    if kind is MAP:
        return dict(value)
    if kind in {TEXT, NUMBER}:
        return value
    if kind is OPTIONAL:
        return None if value == [] else value
    return tuple(sorted(str(atom) if isinstance(atom, uuid.UUID) else atom for atom in value))


def _schema(remote: str) -> Any:
    """The database's schema. ovsdbapp's own way to fetch it waits for ever when the server hangs."""
    framer = Framer()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(remote.removeprefix("unix:"))
            connection.sendall(json.dumps({"method": "get_schema", "params": ["Open_vSwitch"], "id": 0}).encode())
            while data := connection.recv(1 << 18):
                for message in framer.feed(data):
                    if message.get("error") is not None:
                        raise DriverError(f"audit of {remote}: no schema ({words(message['error'])})")
                    return message["result"]
    except OSError as error:
        raise DriverError(f"audit of {remote}: cannot read its schema ({error}); nothing was compared") from error
    raise DriverError(f"audit of {remote}: the server closed the connection; nothing was compared")
