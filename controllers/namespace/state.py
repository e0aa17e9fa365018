"""Actions on namespaces and what is in them, and what the controller observes of one namespace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controllers.drivers.netlink.replica import Space
from controllers.drivers.netlink.rows import Neighbour, Route, Rule
from controllers.namespace.wanted import Wanted, WantedHop
from desired.kinds.namespace import LinkSpec

NAME = "namespace"


@dataclass(frozen=True, slots=True)
class CreateNamespace:
    name: str


@dataclass(frozen=True, slots=True)
class TakeNamespace:
    """Put our mark on a namespace that is there."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteNamespace:
    """`release` are devices of others in it, which go back to the host."""

    name: str
    release: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CreateLink:
    """Make a device; `instead` are the devices of these (namespace, name) that are in its way and deleted first."""

    namespace: str
    spec: LinkSpec
    instead: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MoveLink:
    """Move an Open vSwitch port in from the host. `dead`: what is left of an earlier one is deleted first."""

    namespace: str
    spec: LinkSpec
    dead: bool = False


@dataclass(frozen=True, slots=True)
class SetLink:
    """Change what is given. `master` '' frees it; `rename` is its new name; `mark` is the group number to put on it."""

    namespace: str
    dev: str
    up: bool | None = None
    mac: str = ""
    mtu: int = 0
    master: str | None = None
    rename: str = ""
    mark: int = 0


@dataclass(frozen=True, slots=True)
class DeleteLink:
    namespace: str
    dev: str


@dataclass(frozen=True, slots=True)
class SetAddress:
    namespace: str
    dev: str
    address: str
    scope: str = "global"
    announce: bool = False


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    namespace: str
    dev: str
    address: str


@dataclass(frozen=True, slots=True)
class SetRoute:
    """`row.ifindex` is 0: the device is looked up by name when it is done."""

    namespace: str
    row: Route
    dev: str = ""
    hops: tuple[WantedHop, ...] = ()


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    namespace: str
    row: Route


@dataclass(frozen=True, slots=True)
class AddRule:
    namespace: str
    row: Rule


@dataclass(frozen=True, slots=True)
class DeleteRule:
    namespace: str
    row: Rule


@dataclass(frozen=True, slots=True)
class SetNeighbour:
    namespace: str
    dev: str
    ip: str
    mac: str


@dataclass(frozen=True, slots=True)
class DeleteNeighbour:
    namespace: str
    row: Neighbour


@dataclass(frozen=True, slots=True)
class SetSysctl:
    namespace: str
    key: str
    value: str


Action = (
    CreateNamespace | TakeNamespace | DeleteNamespace | CreateLink | MoveLink | SetLink | DeleteLink
    | SetAddress | DeleteAddress | SetRoute | DeleteRoute | AddRule | DeleteRule | SetNeighbour | DeleteNeighbour
    | SetSysctl
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Observed:
    """One namespace at this moment (the replicas follow in place).

    `spaces` are it, the host and the namespaces in which peers of its links are; one that is not there is absent.
    """

    name: str
    wanted: Wanted
    spaces: Mapping[str, Space]
    mark: str
    known: bool = False
    """Was it ours before?"""
    untouchable: frozenset[str] = field(default_factory=frozenset)
    address_marks: bool = True
    """Does this kernel keep the proto of an address (5.18)?"""
    nics: Mapping[str, str] = field(default_factory=dict)
    """Devices of the host that are declared to be ports of an Open vSwitch bridge: that bridge."""
    attached: Mapping[str, str] = field(default_factory=dict)
    """For protected devices the Open vSwitch bridge each is a working port of ('': of none)."""

    @property
    def space(self) -> Space | None:
        return self.spaces.get(self.name)
