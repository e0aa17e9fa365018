"""From specs to rows: what the columns of Bridge, Port and Interface should say. Pure.

Our own rows are held exactly, column by column; map columns that others use too (external_ids) are held key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controllers.drivers.ovsdb.ops import Value
from controllers.drivers.ovsdb.rows import BridgeRow, InterfaceRow, PortRow
from controllers.ovsdb.state import Part
from controllers.ownership import Owner
from desired.kinds.ovs import BondSpec, BridgeSpec, PortSpec, VlanAttributes

DEAD_PEER = "no-such-peer"
"""The peer of a patch port that must not carry traffic yet."""


@dataclass(frozen=True, slots=True)
class WantedRow:
    """Whole columns, and keys of shared map columns."""

    columns: Mapping[str, Value] = field(default_factory=dict)
    keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def difference(self, row: BridgeRow | PortRow | InterfaceRow) -> Part:
        """What has to be set on `row`; empty when it says all of this."""
        columns = {name: value for name, value in self.columns.items() if getattr(row, name) != value}
        keys = {}
        for column, wanted in self.keys.items():
            has = getattr(row, column)
            missing = {key: value for key, value in wanted.items() if has.get(key) != value}
            if missing:
                keys[column] = missing
        return Part(columns, keys)

    def fresh(self) -> dict[str, Value]:
        """All of it, for a new row; what is empty there anyway is left out."""
        every: dict[str, Value] = {**self.columns, **self.keys}
        return {name: value for name, value in every.items() if value not in (None, "", (), {})}


def bridge_row(spec: BridgeSpec, owner: Owner, default_datapath: str) -> WantedRow:
    other_config = dict(spec.other_config)
    if spec.mac is not None:
        other_config["hwaddr"] = spec.mac
    return WantedRow(
        {
            "fail_mode": spec.fail_mode,
            "datapath_type": _datapath(spec.datapath_type or default_datapath),
            "protocols": spec.protocols or (),
            "other_config": other_config,
            "controller": (),
        },
        {"external_ids": owner.mark(spec.external_ids)},
    )


def _datapath(name: str) -> str:
    """OVSDB spells the kernel datapath as the empty string."""
    return "" if name == "system" else name


def local_interface(spec: BridgeSpec) -> WantedRow:
    return WantedRow({"mtu_request": spec.mtu})


def _vlan(spec: VlanAttributes) -> dict[str, Value]:
    return {
        "tag": spec.tag,
        "trunks": spec.trunks,
        "vlan_mode": spec.vlan_mode,
        "other_config": spec.other_config,
    }


def port_row(spec: PortSpec | BondSpec, owner: Owner) -> WantedRow:
    columns = _vlan(spec)
    if isinstance(spec, BondSpec):
        columns |= {"bond_mode": spec.bond_mode, "lacp": spec.lacp}
    else:
        columns |= {"bond_mode": None, "lacp": None}
    return WantedRow(columns, {"external_ids": owner.mark(spec.external_ids)})


def interface_row(spec: PortSpec, *, dead_peer: bool = False) -> WantedRow:
    options = spec.interface_options()
    if dead_peer:
        options["peer"] = DEAD_PEER
    return WantedRow(
        {
            "type": "" if spec.type == "system" else spec.type,
            "options": options,
            "mac": spec.mac,
            "mtu_request": spec.mtu,
        },
        {"external_ids": spec.interface_external_ids} if spec.interface_external_ids else {},
    )
