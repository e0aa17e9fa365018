"""What the OVSDB controller observes and what it can do: the observation and one small class per action."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from controllers.drivers.ovsdb.replica import Replica
from controllers.ovsdb.part import NOTHING, Columns, Part
from controllers.ovsdb.wanted import WantedRows
from controllers.ownership import Owner
from desired.resource import ResourceId
from reconciler.contract import Scope

SCOPE = Scope("ovsdb")


@dataclass(frozen=True, slots=True)
class Observed:
    """The replica at this moment (it follows the server in place, so a diff must not outlive the next await).

    `names` narrows to these bridges and ports; None is all. `ofports` remembers the number a port last had.
    `held` are the declared held ports.
    """

    replica: Replica
    owner: Owner
    names: frozenset[str] | None
    ofports: Mapping[str, int]
    datapath_type: str
    waiting: Mapping[str, float]
    """For how many seconds a port has been waiting for vswitchd, by name; a patch port: since its peer is there."""
    held: tuple[ResourceId, ...] = ()
    ours: AbstractSet[str] = frozenset()
    """Rows (by uuid) that carried our mark when we saw them, whatever has become of it."""
    lost: Mapping[str, float] = field(default_factory=dict)
    """Ports whose device died: seconds since their row was deleted for that; -1 while it is there."""
    guarded: Mapping[str, str] = field(default_factory=dict)
    """Devices of the host by which the node is reached, with the reason why they are not to be hurt."""
    unsure: str = ""
    """Why nothing is known of `guarded` (no device is taken into a bridge then); '' when it is."""
    wanted: WantedRows = field(default_factory=WantedRows)
    reminded: AbstractSet[str] = frozenset()
    """Patch ports for which vswitchd has been asked to look again."""


@dataclass(frozen=True, slots=True)
class CreateBridge:
    name: str
    columns: Columns
    interface: Columns


@dataclass(frozen=True, slots=True)
class SetBridge:
    name: str
    uuid: str
    bridge: Part
    interface_uuid: str = ""
    interface: Part = NOTHING


@dataclass(frozen=True, slots=True)
class DeleteBridge:
    name: str
    uuid: str


@dataclass(frozen=True, slots=True)
class CreatePort:
    """`interfaces`: name -> columns. `instead_of` is the uuid of the row it replaces, and the bridge that has it."""

    bridge: str
    name: str
    columns: Columns
    interfaces: Mapping[str, Columns]
    instead_of: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class SetPort:
    """Change a port's row and its interfaces' rows (by uuid) in place."""

    name: str
    uuid: str
    port: Part
    interfaces: Mapping[str, Part] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeletePort:
    """`to_revive`: it is made anew as soon as vswitchd says that it has seen this."""

    bridge: str
    name: str
    uuid: str
    to_revive: bool = False


@dataclass(frozen=True, slots=True)
class Remind:
    """Have vswitchd look at its configuration again, as each ovs-vsctl does: what it says of port `name` is old."""

    name: str


Action = CreateBridge | SetBridge | DeleteBridge | CreatePort | SetPort | DeletePort | Remind
