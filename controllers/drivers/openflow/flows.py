"""What a switch holds and what it is told, in the driver's own terms.

Match and instructions are opaque bytes, exactly as they stand in an OpenFlow 1.4 message: they are compared and sent
on, never interpreted. Named tuples rather than dataclasses, because ten thousand of them are made by each dump.
Read by every module of this driver and by the flow controller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from reconciler.errors import DriverError

LOCAL = 0xFFFFFFFE
"""The OpenFlow number of the port that has the bridge's own name."""

ALL_COOKIE_BITS = 0xFFFFFFFFFFFFFFFF


class FlowKey(NamedTuple):
    """What identifies a flow within a bridge. `match` is the OXM fields without ofp_match's header and padding."""

    table: int
    priority: int
    match: bytes


class Flow(NamedTuple):
    """The rest of a flow. Timeouts are seconds (0: none); `flags` are OFPFF_* bits that the switch keeps."""

    instructions: bytes
    cookie: int = 0
    idle_timeout: int = 0
    hard_timeout: int = 0
    flags: int = 0
    importance: int = 0


@dataclass(frozen=True, slots=True)
class AddFlow:
    """Install a flow, or replace the one with the same key."""

    key: FlowKey
    flow: Flow


@dataclass(frozen=True, slots=True)
class DeleteFlow:
    """Delete the flow with exactly this key, if its cookie agrees with `cookie` in the bits of `cookie_mask`."""

    key: FlowKey
    cookie: int = 0
    cookie_mask: int = 0


@dataclass(frozen=True, slots=True)
class SetGroup:
    """Add a group, or modify it if `exists`. `body` is the type (one byte) and the buckets, opaque."""

    group_id: int
    body: bytes
    exists: bool = False


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    """Delete a group; the switch deletes the flows that use it, too."""

    group_id: int


@dataclass(frozen=True, slots=True)
class SetMeter:
    """Add a meter, or modify it if `exists`. `body` is the flags (two bytes) and the bands, opaque."""

    meter_id: int
    body: bytes
    exists: bool = False


@dataclass(frozen=True, slots=True)
class DeleteMeter:
    """Delete a meter; the switch deletes the flows that use it, too."""

    meter_id: int


FlowMod = AddFlow | DeleteFlow
GroupMod = SetGroup | DeleteGroup
MeterMod = SetMeter | DeleteMeter
Mod = FlowMod | GroupMod | MeterMod


class BundleError(DriverError):
    """The switch refused a change, and nothing of the group it belonged to was done.

    `index` is the position of the refused change among those handed over, when the switch said so; `refusal` is the
    switch's reason, e.g. ``BAD_ACTION/BAD_OUT_PORT``.
    """

    def __init__(self, message: str, *, refusal: str, index: int | None = None) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.index = index
