"""Actions become OVSDB operations. Pure; one group is one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from controllers.drivers.ovsdb import ops
from controllers.drivers.ovsdb.ops import NewPort, Operation, Row
from controllers.ovsdb.part import Part
from controllers.ovsdb.state import (
    Action,
    CreateBridge,
    CreatePort,
    DeleteBridge,
    DeletePort,
    Remind,
    SetBridge,
    SetPort,
)


def operations(actions: Sequence[Action]) -> list[Operation]:  # noqa: C901, PLR0912 - one case for each action
    """The operations of one transaction, in order; new ports of one bridge share one change of the bridge."""
    built: list[Operation] = []
    new_ports: dict[str, list[NewPort]] = {}
    for action in actions:
        match action:
            case CreateBridge():
                built += ops.add_bridge(action.name, action.columns, interface=action.interface)
            case SetBridge():
                built += _set(Row("Bridge", action.uuid), action.bridge)
                built += _set(Row("Interface", action.interface_uuid), action.interface)
            case CreatePort():
                if action.instead_of is not None:
                    uuid, bridge = action.instead_of
                    built += ops.delete_ports(Row("Bridge", name=bridge), [uuid])
                new_ports.setdefault(action.bridge, []).append(NewPort(action.name, action.interfaces, action.columns))
            case SetPort():
                built += _set(Row("Port", action.uuid), action.port)
                for uuid, part in action.interfaces.items():
                    built += _set(Row("Interface", uuid), part)
            case DeletePort():
                built += ops.delete_ports(Row("Bridge", name=action.bridge), [action.uuid])
                if action.to_revive:
                    built.append(ops.numbered())
            case DeleteBridge():
                built += ops.delete_bridge(action.uuid)
            case Remind():
                built.append(ops.numbered())
            case _:
                assert_never(action)
    for bridge, ports in new_ports.items():
        built += ops.add_ports(bridge, ports)
    return built


def _set(row: Row, part: Part) -> list[Operation]:
    """Nothing for an empty part; else a guard that the row is still there, and the changes."""
    if not part:
        return []
    built = [ops.expect(row)]
    if part.columns:
        built.append(ops.update(row, part.columns))
    built.extend(ops.set_keys(row, column, keys) for column, keys in part.keys.items())
    return built
