"""What the tests of the OpenFlow driver share: a followed bridge that remembers what it was told, and flows to use."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

from controllers.drivers.openflow.flows import AddFlow, Flow, FlowKey
from controllers.drivers.openflow.switch import Switch
from tests.controllers.drivers.patience import running, until
from tests.ovs import PrivateOvs

MARK = 0xDEAD_0000_0000_0000


class Followed:
    """A `Switch` with all it reported, in order."""

    def __init__(self, ovs: PrivateOvs, bridge: str, **options: float) -> None:
        self.events: list[tuple[frozenset[FlowKey] | None, str]] = []
        self.ports: list[frozenset[str]] = []
        self.switch = Switch(
            bridge,
            ovs.rundir,
            on_change=lambda keys, why: self.events.append((keys, why)),
            on_ports=self.ports.append,
            **options,
        )

    def reported(self) -> set[FlowKey]:
        return {key for keys, _ in self.events for key in keys or ()}

    async def settled(self, seconds: float = 0.06) -> None:
        """Wait until nothing was reported for so long."""
        count = -1
        while count != len(self.events):
            count = len(self.events)
            await asyncio.sleep(seconds)

    async def proven(self) -> None:
        """The replica is what the switch holds."""
        assert await self.switch.dump() == frozenset(), "the replica had missed something"


@contextlib.asynccontextmanager
async def following(ovs: PrivateOvs, bridge: str, **options: float) -> AsyncIterator[Followed]:
    """Follow a bridge within this block; it is ready, and the first events are forgotten."""
    followed = Followed(ovs, bridge, **options)
    async with running(followed.switch):
        await until(lambda: followed.switch.ready, what="not ready")
        followed.events.clear()
        followed.ports.clear()
        yield followed


def to_ip(number: int) -> bytes:
    """Match on IPv4 with this destination."""
    return bytes.fromhex("80000a020800") + bytes.fromhex("80001804") + struct.pack("!I", 0x0A000000 + number)


def output(port: int) -> bytes:
    """Instructions: apply the action of putting out by this port."""
    return struct.pack("!HHI HHIHHI", 4, 24, 0, 0, 16, port, 0, 0, 0)


def some(count: int, *, table: int = 5, port: int = 1) -> list[AddFlow]:
    """Flows with a cookie each, and last a match-all flow of priority 0."""
    adds = [
        AddFlow(FlowKey(table, 100, to_ip(number)), Flow(output(port), cookie=MARK + number))
        for number in range(count - 1)
    ]
    return [*adds, AddFlow(FlowKey(table, 0, b""), Flow(b"", cookie=MARK + 0xFFFFFFFF))]
