"""Changing one bridge over one connection: bundles, and the shorter way for a single change. Lives with its channel.

Open vSwitch commits a bundle *without* the messages it refused while they were added. So a bundle goes in two steps:
all messages and a barrier, and the commit only when none was refused. A single change needs no bundle to be atomic and
costs one round trip, its reading back included. Used by `switch`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.channel import Answer, Channel, RefusedError
from controllers.drivers.openflow.codec import Bundle, Type
from controllers.drivers.openflow.flows import (
    AddFlow,
    BundleError,
    DeleteFlow,
    DeleteMeter,
    Flow,
    FlowKey,
    Mod,
    SetMeter,
)
from controllers.drivers.openflow.reader import Reader
from controllers.drivers.openflow.refusals import Refusal
from controllers.drivers.openflow.replica import Replica
from reconciler.errors import DriverError

SECONDS_PER_MOD: Final = 0.0005
"""Added to the timeout: ten times what a switch needs for one change of a bundle."""

Wanted = Mapping[FlowKey, int | None]
_Found = tuple[frozenset[FlowKey], Wanted]
Odd = Mapping[FlowKey, tuple[FlowKey, Flow]]


@dataclass(slots=True, eq=False)
class _Batch:
    """Changes under way. `first` is the xid of the first; the others follow in a row."""

    first: int
    mods: Sequence[Mod]
    settled: bool = False
    refused: tuple[int, Refusal] | None = None

    @property
    def plain(self) -> bool:
        """Whether these are meters, which no bundle holds."""
        return isinstance(self.mods[0], SetMeter | DeleteMeter)

    def holds(self, xid: int) -> bool:
        return self.first <= xid < self.first + len(self.mods)


class Writer:
    """See the module. One batch is under way at a time; others wait their turn."""

    def __init__(self, reader: Reader, replica: Replica, timeout: float) -> None:
        self._channel: Channel = reader.channel
        self._reader = reader
        self._replica = replica
        self._timeout = timeout
        self._turn = asyncio.Lock()
        self._batch: _Batch | None = None
        self._touched: set[FlowKey] = set()
        self.strays: frozenset[FlowKey] = frozenset()
        """Keys that reading back the last batch found changed, although they were not part of it."""
        self.settlements = 0
        """How many batches have been taken into the replica."""

    # What the switch says of the batch

    def done(self, xid: int) -> None:
        """The change with this xid was carried out, and here is its place among everybody's changes."""
        if self._batch is not None and self._batch.holds(xid):
            self._settle(self._batch)

    def others_changed(self, key: FlowKey) -> None:
        """Somebody else changed a flow: what is read back of it need not be our doing."""
        if self._batch is not None:
            self._touched.add(key)

    def refused(self, xid: int, refusal: Refusal) -> bool:
        """True when it was one of ours."""
        batch = self._batch
        if batch is None or not batch.holds(xid):
            return False
        if batch.refused is None:
            batch.refused = (xid - batch.first, refusal)
        return True

    def _settle(self, batch: _Batch) -> None:
        if not batch.settled and batch.refused is None:
            batch.settled = True
            self.settlements += 1
            self._replica.settle(batch.mods)

    # Changing

    async def apply(self, mods: Sequence[Mod]) -> None:
        """Carry out all of `mods`, in order, or none. Raises BundleError when the switch refuses one."""
        await self._apply(mods, {})

    async def apply_and_read_back(self, mods: Sequence[Mod]) -> Odd:
        """As `apply`; afterwards the replica has the switch's own form of every flow that was touched.

        Returns the flows, by the key that was asked for, which the switch holds in another form than they were sent.
        """
        flows = self._replica.flows
        wanted: dict[FlowKey, int | None] = {}
        for mod in mods:
            if isinstance(mod, AddFlow):
                wanted[mod.key] = mod.flow.cookie
            elif isinstance(mod, DeleteFlow):
                wanted[mod.key] = flows[mod.key].cookie if mod.key in flows else None
        return await self._apply(mods, wanted)

    async def _apply(self, mods: Sequence[Mod], wanted: Wanted) -> Odd:
        if not mods:
            return {}
        async with self._turn:
            batch = self._batch = _Batch(self._channel.xids(len(mods)), mods)
            self._touched.clear()
            self.strays = frozenset()
            try:
                now = wanted if self._reader.few(len(wanted)) else {}
                if len(mods) == 1 or batch.plain:
                    changed, again = await self._plain(batch, now)
                else:
                    changed, again = await self._bundle(batch, now)
                changed |= await self._reader.read(again if now else wanted)
                odd = self._odd(mods) if wanted else {}
                self.strays = changed - {mod.key for mod in mods if isinstance(mod, AddFlow | DeleteFlow)}
                self.strays -= {key for key, _ in odd.values()}
                return odd
            finally:
                self._batch = None

    def _odd(self, mods: Sequence[Mod]) -> Odd:
        flows = self._replica.flows
        added = {mod.key: mod.flow for mod in mods if isinstance(mod, AddFlow)}
        for mod in mods:
            if isinstance(mod, DeleteFlow):
                added.pop(mod.key, None)
        differing = [key for key, flow in added.items() if flows.get(key) != flow and key not in self._touched]
        odd = {key: (key, flows[key]) for key in differing if key in flows}
        lost = {(key.table, key.priority, added[key].cookie): key for key in differing if key not in flows}
        if lost:
            for key, flow in flows.items():
                asked = lost.get((key.table, key.priority, flow.cookie))
                if asked is not None and key not in added and key not in self._touched:
                    odd[asked] = (key, flow)
        return odd

    async def _plain(self, batch: _Batch, wanted: Wanted) -> _Found:
        """Send the changes one by one, and at once; then a barrier behind them."""
        self._channel.send(b"".join(codec.encode(mod, xid) for xid, mod in enumerate(batch.mods, batch.first)))
        barrier = self._channel.xids()
        answer = self._channel.expect(barrier, "a barrier behind a change", lambda _: self._settle(batch))
        return await self._finish(batch, codec.message(Type.BARRIER_REQUEST, barrier), answer, wanted)

    async def _bundle(self, batch: _Batch, wanted: Wanted) -> _Found:
        """Fill a bundle; commit it if all of it was accepted, else discard it."""
        channel, identity = self._channel, batch.first
        opened, barrier, commit = (channel.xids() for _ in range(3))
        filling = (
            channel.expect(opened, "opening a bundle"),
            channel.expect(barrier, f"filling a bundle with {len(batch.mods)} changes"),
        )
        parts = [codec.bundle_control(opened, identity, Bundle.OPEN)]
        parts += [
            codec.bundle_add(xid, identity, codec.encode(mod, xid)) for xid, mod in enumerate(batch.mods, identity)
        ]
        parts.append(codec.message(Type.BARRIER_REQUEST, barrier))
        channel.send(b"".join(parts))
        await channel.gather(filling, self._patience(batch))
        if batch.refused is not None:
            discard = channel.xids()
            answer = channel.expect(discard, "discarding a bundle")
            channel.send(codec.bundle_control(discard, identity, Bundle.DISCARD))
            await channel.gather((answer,), self._timeout)
            raise self._error(batch, None)
        what = f"committing a bundle of {len(batch.mods)} changes"
        answer = channel.expect(commit, what, lambda _: self._settle(batch))
        return await self._finish(batch, codec.bundle_control(commit, identity, Bundle.COMMIT), answer, wanted)

    async def _finish(self, batch: _Batch, request: bytes, answer: Answer, wanted: Wanted) -> _Found:
        """Send `request`, which carries the batch out, and read back in the same write."""
        channel = self._channel
        read, answers, reading = self._reader.narrowed(wanted)
        request += reading
        channel.send(request)
        try:
            await channel.gather((answer, *answers), self._patience(batch))
            if batch.refused is not None:
                raise self._error(batch, None)
            found = self._replica.finish_read(read)
        except RefusedError as error:
            raise self._error(batch, error) from error
        finally:
            self._replica.abandon(read)
        return found

    def _patience(self, batch: _Batch) -> float:
        return self._timeout + SECONDS_PER_MOD * len(batch.mods)

    def _error(self, batch: _Batch, error: RefusedError | None) -> DriverError:
        channel = self._channel
        if batch.refused is None:
            assert error is not None
            return BundleError(f"{error}; nothing was changed", refusal=str(error.refusal))
        index, refusal = batch.refused
        mod = batch.mods[index]
        what = f"{channel.peer}: change {index + 1} of {len(batch.mods)} ({type(mod).__name__})"
        rest = "the others were made" if batch.plain else "none was made"
        return BundleError(f"{what} was refused with {refusal}; {rest}", refusal=str(refusal), index=index)
