"""Asking one connection: dumps, and narrowed reads of single flows. Lives as long as its channel.

A narrowed read asks for a flow's match *and* its exact cookie: Open vSwitch looks that up in an index, so that even
the match-all flow of a large table is read alone, provided that its cookie is not shared by many.
Used by `switch` and `writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.channel import Answer, Channel
from controllers.drivers.openflow.codec import Part
from controllers.drivers.openflow.flows import FlowKey
from controllers.drivers.openflow.replica import Read, Replica

_ALL_METERS: Final = b"\xff\xff\xff\xff\0\0\0\0"


class Reader:
    """See the module. Raises DriverError when the switch refuses or is silent for `timeout` seconds."""

    def __init__(self, channel: Channel, replica: Replica, timeout: float) -> None:
        self.channel = channel
        self._replica = replica
        self._timeout = timeout

    async def dump(self) -> frozenset[FlowKey]:
        """Read all flows anew. Returns the keys for which the replica had been wrong."""
        read = Read()
        xid = self.channel.xids()
        answer = self.channel.expect(xid, "asking for its flows", read.take)
        self._replica.begin(read)
        self.channel.send(codec.flow_request(xid))
        try:
            await self.channel.gather((answer,), self._timeout)
            return self._replica.finish_dump(read)
        finally:
            self._replica.abandon(read)

    async def read_back(self, keys: Iterable[FlowKey]) -> frozenset[FlowKey]:
        """Read these flows anew. Returns the keys, of these or others, for which the replica had been wrong."""
        flows = self._replica.flows
        return await self.read({key: flows[key].cookie if key in flows else None for key in keys})

    async def read(self, wanted: Mapping[FlowKey, int | None]) -> frozenset[FlowKey]:
        """As `read_back`, each flow being looked for by the cookie given with it (None: any cookie)."""
        changed: frozenset[FlowKey] = frozenset()
        while wanted:
            if not self.few(len(wanted)):
                return changed | await self.dump()
            read, answers, request = self.narrowed(wanted)
            self.channel.send(request)
            try:
                await self.channel.gather(answers, self._timeout)
                corrected, wanted = self._replica.finish_read(read)
            finally:
                self._replica.abandon(read)
            changed |= corrected
        return changed

    def few(self, count: int) -> bool:
        """Whether `count` narrowed reads cost less than a dump (measured: DESIGN.md)."""
        return count <= 4 + len(self._replica.flows) // 16

    def narrowed(self, wanted: Mapping[FlowKey, int | None]) -> tuple[Read, tuple[Answer, ...], bytes]:
        """Prepare a read for others to send: what will hold the result, what to wait for, the requests."""
        read = Read(wanted)
        first = self.channel.xids(len(wanted))
        answers = tuple(
            self.channel.expect(xid, "reading flows back", read.take) for xid in range(first, first + len(wanted))
        )
        self._replica.begin(read)
        return (
            read,
            answers,
            b"".join(codec.flow_request(xid, key, wanted[key]) for xid, key in enumerate(wanted, first)),
        )

    async def groups(self) -> dict[int, bytes]:
        return await self._collect(Part.GROUP_DESC, "asking for its groups", codec.group_entries)

    async def meters(self) -> dict[int, bytes]:
        return await self._collect(Part.METER_CONFIG, "asking for its meters", codec.meter_entries, _ALL_METERS)

    async def _collect(
        self, part: Part, what: str, decode: Callable[[bytes], dict[int, bytes]], body: bytes = b""
    ) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        xid = self.channel.xids()
        answer = self.channel.expect(xid, what, lambda frame: found.update(decode(frame)))
        self.channel.send(codec.multipart_request(part, xid, body))
        await self.channel.gather((answer,), self._timeout)
        return found
