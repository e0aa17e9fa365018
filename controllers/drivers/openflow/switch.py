"""One bridge over OpenFlow 1.4: a replica fed by the flow monitor, and changes as atomic bundles.

The connection goes to the bridge's management socket, ``<rundir>/<bridge>.mgmt``. What others change arrives as
updates of OFPMP_FLOW_MONITOR (Open vSwitch 3.0 and later); our own changes come back abbreviated to the xid, in their
place among the others', so that the replica takes them in the switch's order and nobody is alarmed by them.
`DESIGN.md` beside this file says what else was found out. Used by the flow, group and meter controllers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import structlog

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.channel import Channel
from controllers.drivers.openflow.codec import Abbrev, Monitor, Part, Type, Update
from controllers.drivers.openflow.flows import (
    BundleError,
    DeleteGroup,
    DeleteMeter,
    Flow,
    FlowKey,
    FlowMod,
    GroupMod,
    MeterMod,
    Mod,
)
from controllers.drivers.openflow.reader import Reader
from controllers.drivers.openflow.refusals import Refusal
from controllers.drivers.openflow.replica import Read, Replica
from controllers.drivers.openflow.writer import Odd, Writer
from reconciler.errors import DriverError, NotReady

_T = TypeVar("_T")
_log = structlog.get_logger()

FIRST_DELAY: Final = 0.005
LAST_DELAY: Final = 1.0
PROBE_AFTER: Final = 5.0
"""Seconds of silence after which the switch is asked whether it is there."""
ASK_FLAGS_AFTER: Final = 0.02
"""Seconds after which the flags of flows that others changed are read; repaired ones need no reading by then."""

OnChange = Callable[[frozenset[FlowKey] | None, str], None]
OnPorts = Callable[[frozenset[str]], None]


class Switch:
    """See the module. Every method that asks the switch raises DriverError when it is refused or not answered,

    and NotReady while there is no connection. `on_change(keys, why)` is called from the event loop with the keys that
    others changed (None: look at everything), `on_ports(names)` with the ports whose number appeared, changed or went.
    """

    def __init__(  # noqa: PLR0913  (two names, two callbacks, two times)
        self, bridge: str, rundir: Path, *, on_change: OnChange, on_ports: OnPorts | None = None,
        timeout: float = 5.0, probe_after: float = PROBE_AFTER,
    ) -> None:  # fmt: skip
        self.bridge = bridge
        self.ready = False
        self.problem = "not connected yet"
        self.lost_count = 0
        """How often a connection broke off that was ready."""
        self._socket = rundir / f"{bridge}.mgmt"
        self._on_change = on_change
        self._on_ports = on_ports
        self._timeout = timeout
        self._probe_after = probe_after
        self._replica = Replica()
        self._channel: Channel | None = None
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._poked = asyncio.Event()
        self._wake = asyncio.Event()
        self._doubt: asyncio.TimerHandle | None = None
        self._changed: set[FlowKey] = set()
        self._why_dump = ""
        self._resumed = False
        self._settled_before_pause = 0
        self._heard = 0.0

    @property
    def flows(self) -> Mapping[FlowKey, Flow]:
        """The replica of all flows, learned ones included (they have timeouts). Empty while not `ready`."""
        return self._replica.flows

    @property
    def ports(self) -> Mapping[str, int]:
        """Port numbers by name; the bridge's own port is 0xfffffffe under the bridge's name."""
        return self._replica.ports

    @property
    def last_event(self) -> float:
        """Loop time at which the switch last said anything."""
        return self._heard if self._channel is None else max(self._heard, self._channel.last_heard)

    # The life of the connection

    async def run(self) -> None:
        """Keep a connection, until cancelled."""
        delay = FIRST_DELAY
        while True:
            try:
                await self._session()
            except DriverError as error:
                problem = str(error)
                if self.ready:
                    delay = FIRST_DELAY
                if problem != self.problem:
                    _log.debug("switch_not_ready", bridge=self.bridge, problem=problem)
                self._down(problem)
            finally:
                self._void()
            try:
                async with asyncio.timeout(delay):
                    await self._poked.wait()
            except TimeoutError:
                delay = min(delay * 2, LAST_DELAY)
            self._poked.clear()

    def poke(self) -> None:
        """There is reason to believe that the switch is there (again): try to connect at once."""
        self._poked.set()

    async def _session(self) -> None:
        """One connection, from connect to its end, which is always a DriverError."""
        self._poked.clear()
        peer = f"bridge {self.bridge} ({self._socket})"
        loop = asyncio.get_running_loop()
        channel = Channel(peer, self._listen, self._flush, self._refused)
        try:
            async with asyncio.timeout(self._timeout):
                await loop.create_unix_connection(lambda: channel, str(self._socket))
        except TimeoutError as error:
            raise DriverError(f"{peer} did not accept a connection within {self._timeout:g} s; trying again") from error
        except OSError as error:
            words = error.strerror or error
            raise DriverError(f"cannot connect to {peer}: {words}; trying again") from error
        self._channel = channel
        self._reader = Reader(channel, self._replica, self._timeout)
        self._writer = Writer(self._reader, self._replica, self._timeout)
        channel.lost.add_done_callback(lambda _: self._wake.set())
        try:
            await self._greet(channel)
            await self._keep(channel)
        finally:
            channel.drop("the connection was closed here")

    async def _greet(self, channel: Channel) -> None:
        """Everything that makes the replica complete, in one write. The monitor is installed before the dump."""
        first = channel.xids(5)
        dump = Read()
        self._replica.begin(dump)
        answers = (
            channel.expect(first + 2, "asking for its ports", self._take_ports),
            channel.expect(first + 3, "installing a flow monitor, which needs Open vSwitch 3.0 or later"),
            channel.expect(first + 4, "asking for its flows", dump.take),
        )
        channel.send(
            codec.hello(first)
            + codec.listen_asynchronously(first + 1)
            + codec.multipart_request(Part.PORT_DESC, first + 2)
            + codec.monitor_request(first + 3)
            + codec.flow_request(first + 4)
        )
        await channel.gather(answers, self._timeout)
        self._replica.finish_dump(dump)
        self._changed.clear()
        self.ready, self.problem = True, ""
        _log.debug("switch_ready", bridge=self.bridge, flows=len(self.flows), ports=len(self.ports))
        if self._on_ports is not None:
            self._on_ports(frozenset(self.ports))
        self._on_change(None, "connected")

    def _take_ports(self, frame: bytes) -> None:
        self._replica.add_ports(codec.port_entries(frame))

    async def _keep(self, channel: Channel) -> None:
        """Prove what is in doubt, and probe a silent switch, until the connection is lost."""
        loop = asyncio.get_running_loop()
        while not channel.lost.done():
            try:
                async with asyncio.timeout(self._probe_after):
                    await self._wake.wait()
            except TimeoutError:
                if loop.time() - channel.last_heard >= self._probe_after:
                    await self._probe(channel)
                continue
            self._wake.clear()
            if self._why_dump:
                why, self._why_dump = self._why_dump, ""
                changed = await self.dump()
                if changed:
                    self._on_change(changed, why)
            elif self._replica.unsure and not channel.lost.done():
                changed = await self._asking().read_back(tuple(self._replica.unsure))
                if changed:
                    self._on_change(changed, "flags or importance changed")
        raise DriverError(channel.lost.result())

    async def _probe(self, channel: Channel) -> None:
        xid = channel.xids()
        answer = channel.expect(xid, "an echo")
        channel.send(codec.message(Type.ECHO_REQUEST, xid))
        await channel.gather((answer,), self._timeout)

    def _down(self, problem: str) -> None:
        was_ready, self.ready, self.problem = self.ready, False, problem
        self._void()
        if was_ready:
            self.lost_count += 1
            self._on_change(None, "switch connection lost")

    def _void(self) -> None:
        self._heard = self.last_event
        self.ready = False
        self._channel = self._reader = self._writer = None
        self._replica.void()
        self._changed.clear()
        self._wake.clear()
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None
        self._why_dump = ""
        self._resumed = False

    # What the switch says unasked

    def _listen(self, frame: bytes) -> None:
        if frame[1] == Type.PORT_STATUS:
            names = self._replica.port(codec.port_status(frame))
            if names and self.ready and self._on_ports is not None:
                self._on_ports(names)
            return
        if frame[1] == Type.REQUESTFORWARD:
            if self.ready:
                self._on_change(None, "groups or meters changed")
            return
        self._monitored(frame)

    def _monitored(self, frame: bytes) -> None:
        for update in codec.monitor_updates(frame):
            match update:
                case Update(key):
                    if self._writer is not None:
                        self._writer.others_changed(key)
                    if self._replica.update(update):
                        self._changed.add(key)
                case Abbrev(xid):
                    if self._writer is not None:
                        self._writer.done(xid)
                case Monitor.PAUSED:
                    self._settled_before_pause = 0 if self._writer is None else self._writer.settlements
                case _:
                    self._resumed = True

    def _flush(self) -> None:
        """All of one read has been taken: tell it once."""
        if self._replica.unsure and self._doubt is None:
            self._doubt = asyncio.get_running_loop().call_later(ASK_FLAGS_AFTER, self._ask_flags)
        if self._resumed:
            self._resumed = False
            self._changed.clear()
            if self._writer is not None and self._writer.settlements != self._settled_before_pause:
                self._in_doubt("changed while the flow monitor was paused")
            if self.ready:
                self._on_change(None, "flow monitor resumed")
        elif self._changed and self.ready:
            keys = frozenset(self._changed)
            self._changed.clear()
            self._on_change(keys, "flows changed")

    def _ask_flags(self) -> None:
        self._doubt = None
        self._wake.set()

    def _refused(self, xid: int, refusal: Refusal) -> None:
        if self._writer is None or not self._writer.refused(xid, refusal):
            _log.warning("switch_refused_unknown_request", bridge=self.bridge, xid=xid, refusal=str(refusal))

    def _in_doubt(self, why: str) -> None:
        self._why_dump = why
        self._wake.set()

    # What the controllers ask for

    async def dump(self) -> frozenset[FlowKey]:
        """Read all flows anew. Returns the keys for which the replica had been wrong: updates had been missed."""
        return await self._asking().dump()

    async def read_back(self, keys: Iterable[FlowKey]) -> frozenset[FlowKey]:
        """Read these flows anew. Returns those for which the replica had been wrong; others are reported."""
        asked = frozenset(keys)
        changed = await self._asking().read_back(asked)
        self._report_strays(changed - asked)
        return changed & asked

    async def apply(self, mods: Sequence[FlowMod | GroupMod]) -> None:
        """Carry out all of `mods`, in order, or none. Raises BundleError when the switch refuses one.

        After any other failure the replica is read anew: what was done is not known.
        """
        await self._changing(mods, Writer.apply)

    async def apply_and_read_back(self, mods: Sequence[FlowMod | GroupMod]) -> Odd:
        """As `apply`; afterwards the replica has the switch's own form of every flow that was touched.

        Returns those flows, by the key they were sent with, that the switch holds in another form (key, flow) than
        that they were sent in: that form is theirs from then on. To be found they need a cookie of their own.
        """
        return await self._changing(mods, Writer.apply_and_read_back)

    async def apply_meters(self, mods: Sequence[MeterMod]) -> None:
        """Carry out each of `mods`. Bundles cannot hold meters: all but the refused one are done."""
        await self._changing(mods, Writer.apply)

    async def groups(self) -> dict[int, bytes]:
        """All groups: id to type and buckets, as `SetGroup.body`."""
        return await self._asking().groups()

    async def meters(self) -> dict[int, bytes]:
        """All meters: id to flags and bands, as `SetMeter.body`."""
        return await self._asking().meters()

    async def _changing(self, mods: Sequence[Mod], way: Callable[[Writer, Sequence[Mod]], Awaitable[_T]]) -> _T:
        self._asking()
        writer = self._writer
        assert writer is not None
        known = False
        try:
            result = await way(writer, mods)
            known = not any(isinstance(mod, DeleteGroup | DeleteMeter) for mod in mods)  # flows that used it go, too
        except BundleError:
            known = True
            raise
        finally:
            if not known:
                self._in_doubt("what became of a change was not known")
        self._report_strays(writer.strays)
        return result

    def _report_strays(self, keys: frozenset[FlowKey]) -> None:
        if keys:
            self._on_change(keys, "found otherwise when read")

    def _asking(self) -> Reader:
        if self._reader is None or not self.ready:
            raise NotReady(f"bridge {self.bridge} cannot be spoken to: {self.problem}")
        return self._reader
