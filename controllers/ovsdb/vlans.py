"""Which local VLANs are in use on a bridge, as OVSDB has them: what a model's first compile is told."""

from __future__ import annotations

from collections.abc import Iterator

from controllers.drivers.ovsdb.replica import Replica
from desired.network.allocations import ObservedPort


def observed_ports(replica: Replica, bridge: str) -> Iterator[ObservedPort]:
    """The ports of `bridge` that have a tag; nothing when there is no such bridge."""
    row = replica.bridges.get(bridge)
    for uuid in () if row is None else row.ports:
        port = replica.port_by_uuid(uuid)
        if port is None or port.tag is None:
            continue
        ids = dict(port.external_ids)
        for each in port.interfaces:
            interface = replica.interface_by_uuid(each)
            ids |= {} if interface is None else interface.external_ids
        yield ObservedPort(port.name, port.tag, port.other_config, ids)
