"""The model with its references resolved: what is connected to what, on which node, with which address and MAC.

The compiler and its parts (`flows`, `dhcp`, `routers`) read this and never the specs' references. Ports that follow
from other objects and are not declared (a DHCP server's, a router's interfaces and gateway) are added here, with ids,
MACs and addresses that are always the same for the same model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from desired.network.model import (
    NetworkSpec,
    NodeSpec,
    OptionsSpec,
    Owner,
    RouterSpec,
    SubnetSpec,
)
from desired.resource import Origin, Resource

if TYPE_CHECKING:
    from desired.network.build import Memory

Problem = tuple[Resource, str]
"""A resource that could not be used as it is, and why: what it names does not exist, or does not fit."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a port with its prefix length, and the id of its subnet."""

    ip: str
    prefix: int
    subnet: str

    def __str__(self) -> str:
        return f"{self.ip}/{self.prefix}"


@dataclass(frozen=True, slots=True)
class Port:
    """A port, declared or implied. `node` '' is nowhere; `device` is the id of the router it belongs to, or ''."""

    id: str
    name: str
    network: str
    mac: str
    addresses: tuple[Address, ...]
    node: str
    owner: Owner
    device: str
    plug: str
    origin: Origin

    def device_name(self, prefix: str) -> str:
        """Neutron's name of its device: three letters and the first eleven characters of the id."""
        return f"{prefix}{self.id[:11]}"


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet with its id."""

    id: str
    name: str
    spec: SubnetSpec
    origin: Origin


@dataclass(frozen=True, slots=True)
class Network:
    """A network with all that is in it. `ports` and `subnets` are sorted by id; `dhcp_nodes` serve its DHCP."""

    id: str
    name: str
    spec: NetworkSpec
    origin: Origin
    subnets: tuple[Subnet, ...]
    ports: tuple[Port, ...]
    dhcp_nodes: tuple[str, ...]

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes where it has a port."""
        return frozenset(port.node for port in self.ports if port.node)


@dataclass(frozen=True, slots=True)
class FloatingIp:
    """A floating IP that leads somewhere."""

    id: str
    floating: str
    fixed: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Router:
    """A router on its node. `gateway` is its port on the external network, None when it has none."""

    id: str
    name: str
    spec: RouterSpec
    origin: Origin
    node: str
    interfaces: tuple[Port, ...]
    gateway: Port | None
    floating: tuple[FloatingIp, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A machine with what was declared of it."""

    name: str
    spec: NodeSpec
    origin: Origin


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything, by id (nodes by name). Parts that did not change between two models are the same objects.

    Made by `desired.network.build.build`. `problems` names what was left out and why; `memory` is what the next build
    starts from.
    """

    options: OptionsSpec
    nodes: Mapping[str, Node]
    networks: Mapping[str, Network]
    routers: Mapping[str, Router]
    problems: tuple[Problem, ...] = ()
    memory: Memory | None = field(default=None, compare=False, repr=False)
