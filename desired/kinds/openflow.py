"""What a switch is told over OpenFlow: flows, groups and meters, in the syntax of ovs-ofctl(8)."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from desired.kinds.names import InterfaceName, OneLine
from desired.resource import ResourceId, Spec

_ACTIONS = re.compile(r"(^|[\s,])actions?\s*=", re.IGNORECASE)


def split_flow(text: str) -> tuple[str, str]:
    """Split flow syntax into what identifies it (all before ``actions=``, spaces folded) and its actions."""
    found = _ACTIONS.search(text)
    if found is None:
        raise ValueError("a flow needs 'actions=' (actions=drop to drop)")
    head, actions = text[: found.start()], text[found.end() :]
    return ",".join(part for part in re.split(r"[\s,]+", head) if part), actions.strip()


class FlowSpec(Spec):
    """One flow of one bridge. Ports are written by name; the daemon's mark is the cookie, so it cannot be set."""

    kind: ClassVar[str] = "flow"

    bridge: InterfaceName
    flow: OneLine

    @field_validator("flow")
    @classmethod
    def _syntax(cls, flow: str) -> str:
        head, _ = split_flow(flow)
        if re.search(r"(^|,)cookie\s*=", head):
            raise ValueError("'cookie' is the daemon's own mark on a flow and cannot be declared")
        if flow.startswith("#"):
            raise ValueError("a flow cannot start with '#', which ovs-ofctl reads as a comment")
        return flow

    def refs(self) -> tuple[ResourceId, ...]:
        return (ResourceId("bridge", self.bridge),)


class GroupSpec(Spec):
    """One OpenFlow group, without its ``group_id``: ``type=all,bucket=actions=…``. Ids come from a reserved range."""

    kind: ClassVar[str] = "group"

    bridge: InterfaceName
    group_id: Annotated[int, Field(ge=0, le=0xFFFFFF00)]
    group: OneLine

    def refs(self) -> tuple[ResourceId, ...]:
        return (ResourceId("bridge", self.bridge),)


class MeterSpec(Spec):
    """One OpenFlow meter, without its ``meter=`` id: ``kbps,band=type=drop,rate=1000``."""

    kind: ClassVar[str] = "meter"

    bridge: InterfaceName
    meter_id: Annotated[int, Field(ge=1, le=0xFFFF0000)]
    meter: OneLine

    def refs(self) -> tuple[ResourceId, ...]:
        return (ResourceId("bridge", self.bridge),)
