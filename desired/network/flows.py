"""The flows of a node, by parts that change together: what is always there, tunnels, and each network."""

from __future__ import annotations

from collections.abc import Iterator

from desired.network import multi_table, physical, single_table
from desired.network.here import Here
from desired.network.model import TUNNELLED, Layout, NetworkSpec
from desired.network.topology import Network, Port
from desired.resource import Resource


def base(here: Here) -> Iterator[Resource]:
    """Flows that do not depend on networks or peers."""
    yield from physical.base(here)
    single = here.options.layout is Layout.SINGLE_TABLE
    if not single:
        yield from multi_table.base_integration(here)
    if here.tunnels:
        yield from single_table.base(here) if single else multi_table.base(here)


def tunnels(here: Here) -> Iterator[Resource]:
    """Flows for the tunnels' ports."""
    if here.tunnels and here.options.layout is Layout.MULTI_TABLE:
        yield from multi_table.tunnels(here)


def network(here: Here, network: Network, vlan: int) -> Iterator[Resource]:
    """Flows of a network that is on this node, without those of its ports."""
    if network.spec.type not in TUNNELLED:
        yield from physical.network(here, network, vlan)
    elif here.tunnels:
        layout = single_table if here.options.layout is Layout.SINGLE_TABLE else multi_table
        yield from layout.network(here, network, vlan)


def port(here: Here, network: NetworkSpec, port: Port, vlan: int) -> Iterator[Resource]:
    """Flows of one port of such a network."""
    if network.type in TUNNELLED and here.tunnels:
        layout = single_table if here.options.layout is Layout.SINGLE_TABLE else multi_table
        yield from layout.port(here, network, port, vlan)
