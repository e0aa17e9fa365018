"""From specs to rows: what the columns of Bridge, Port and Interface should say. Pure.

Our own rows are held exactly, column by column; map columns that others use too (external_ids) are held key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controllers.drivers.ovsdb.ops import Value
from controllers.drivers.ovsdb.rows import BridgeRow, InterfaceRow, PortRow
from controllers.ovsdb.part import NOTHING, Part
from controllers.ownership import Owner
from desired.kinds.ovs import BondSpec, BridgeSpec, PortSpec, VlanAttributes
from desired.resource import Resource, ResourceId, Resources

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
        keys: dict[str, dict[str, str]] = {}
        for column, wanted in self.keys.items():
            has = getattr(row, column)
            missing = {key: value for key, value in wanted.items() if has.get(key) != value}
            if missing:
                keys[column] = missing
        return Part(columns, keys) if columns or keys else NOTHING

    def fresh(self) -> dict[str, Value]:
        """All of it, for a new row; what is empty there anyway is left out."""
        every: dict[str, Value] = {**self.columns, **self.keys}
        return {name: value for name, value in every.items() if value not in (None, "", (), {})}


@dataclass(frozen=True, slots=True)
class WantedPort:
    """A port's row and its interfaces' rows by name; `fresh` are the same for a port that is to be made."""

    row: WantedRow
    interfaces: Mapping[str, WantedRow]
    fresh: Mapping[str, Value]
    fresh_interfaces: Mapping[str, Mapping[str, Value]]

    @classmethod
    def of(cls, spec: PortSpec | BondSpec, name: str, owner: Owner, *, dead_peer: bool) -> WantedPort:
        row = port_row(spec, owner)
        if isinstance(spec, BondSpec):
            interfaces = {interface: WantedRow({"type": ""}) for interface in spec.interfaces}
        else:
            interfaces = {name: interface_row(spec, dead_peer=dead_peer)}
        return cls(row, interfaces, row.fresh(), {name: each.fresh() for name, each in interfaces.items()})


class WantedRows:
    """What is wanted of each declared resource, made once for each: most passes are about what was wanted before."""

    def __init__(self) -> None:
        self._ports: dict[tuple[ResourceId, bool], tuple[Resource, WantedPort]] = {}
        self._bridges: dict[ResourceId, tuple[Resource, WantedRow, WantedRow]] = {}

    def port(self, resource: Resource, owner: Owner, *, dead_peer: bool) -> WantedPort:
        kept = self._ports.get((resource.id, dead_peer))
        if kept is None or kept[0] is not resource:
            spec = resource.spec
            assert isinstance(spec, PortSpec | BondSpec)
            wanted = WantedPort.of(spec, resource.id.name, owner, dead_peer=dead_peer)
            kept = self._ports[resource.id, dead_peer] = (resource, wanted)
        return kept[1]

    def bridge(self, resource: Resource, owner: Owner, default_datapath: str) -> tuple[WantedRow, WantedRow]:
        """The bridge's row and its local interface's."""
        kept = self._bridges.get(resource.id)
        if kept is None or kept[0] is not resource:
            spec = resource.spec
            assert isinstance(spec, BridgeSpec)
            rows = bridge_row(spec, owner, default_datapath), local_interface(spec)
            kept = self._bridges[resource.id] = (resource, *rows)
        return kept[1:]

    def forget(self, resources: Resources) -> None:
        """Drop what is declared no longer, once it is more than what is."""
        if len(self._ports) + len(self._bridges) > 3 * len(resources) + 100:
            self._ports = {key: kept for key, kept in self._ports.items() if key[0] in resources}
            self._bridges = {rid: kept for rid, kept in self._bridges.items() if rid in resources}


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
