"""A small Open vSwitch: a `Database`, a vswitchd that acts on it, and switches that hold flows.

`FakeOvsdb` and `FakeSwitch` have the surface of the drivers and speak to it; several of them may (a restarted daemon
has new ones). vswitchd acts a moment later, as the real one does: ports get numbers, a patch port without its peer or
a system port without its device gets an error, a bridge gets a switch. Rivals act through `rival_*`, and the drivers'
callbacks say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controllers.drivers.openflow.flows import LOCAL, AddFlow, BundleError, DeleteFlow, Flow, FlowKey
from controllers.drivers.ovsdb import ops
from controllers.drivers.ovsdb.client import OnChange, Transacted, TransactionError
from controllers.drivers.ovsdb.replica import Replica
from reconciler.errors import DriverError, NotReady
from tests.controllers.fakes.database import Database, RefusedError

NORMAL = Flow(b"normal")
DEFAULT = FlowKey(0, 0, b"")
"""Where a bridge that is not secure has its own NORMAL flow."""

APPLY_AFTER = 0.0005
"""Seconds from a commit to vswitchd's having acted on it."""


@dataclass(slots=True, eq=False)
class Datapath:
    """What vswitchd runs for one bridge."""

    flows: dict[FlowKey, Flow] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    groups: dict[int, bytes] = field(default_factory=dict)
    meters: dict[int, bytes] = field(default_factory=dict)
    watchers: list[FakeSwitch] = field(default_factory=list)

    def put(self, key: FlowKey, flow: Flow | None, by: FakeSwitch | None = None) -> None:
        if flow is None:
            self.flows.pop(key, None)
        else:
            self.flows[key] = flow
        for watcher in self.watchers:
            watcher.heard(key, flow, own=watcher is by)


class Ovs:
    """The whole of it. `writes` counts what drivers wrote; see `stop_after` for a crash in the middle."""

    def __init__(self) -> None:
        self.database = Database()
        self.database.followers.append(lambda _: self._soon())
        self.bridges: dict[str, Datapath] = {}
        self.devices: set[str] = set()
        self.apply_after = APPLY_AFTER
        self.dead: set[str] = set()
        """Ports whose device died behind vswitchd's back: it makes another one only for a port that was gone."""
        self.running = True
        self.writes = 0
        self.stop_after: int | None = None
        """Drivers' writes after this many hang for ever: the daemon dies there."""
        self.answered = True
        """Whether the last write before the daemon's death still reached the target."""
        self.before_write: Callable[[], None] = lambda: None
        self.switches: list[FakeSwitch] = []
        self.clients: list[FakeOvsdb] = []
        self._due: asyncio.TimerHandle | None = None

    # vswitchd

    def _soon(self) -> None:
        if self._due is None and self.running:
            self._due = asyncio.get_running_loop().call_later(self.apply_after, self.apply)

    def apply(self) -> None:
        """Do what the database says."""
        if self._due is not None:
            self._due.cancel()
        self._due = None
        tables = self.database.tables
        wanted = {row["name"]: row for row in tables["Bridge"].values()}
        for name in self.bridges.keys() - wanted.keys():
            self._gone(name)
        for name, row in wanted.items():
            if name not in self.bridges:
                flows = {} if row["fail_mode"] == "secure" else {DEFAULT: NORMAL}
                self.bridges[name] = Datapath(flows, {name: LOCAL})
            self._ports(name, row)
        for switch in self.switches:
            switch.connect()
        self._peers()
        ((uuid, root),) = tables["Open_vSwitch"].items()
        if root["cur_cfg"] != root["next_cfg"]:
            self.database.set("Open_vSwitch", uuid, cur_cfg=root["next_cfg"])

    def _ports(self, bridge: str, row: Mapping[str, Any]) -> None:
        tables, path = self.database.tables, self.bridges[bridge]
        interfaces = {
            uuid: tables["Interface"][uuid] for port in row["ports"] for uuid in tables["Port"][port]["interfaces"]
        }
        names = {interface["name"] for interface in interfaces.values()}
        gone = path.ports.keys() - names - {bridge}
        for name in gone:
            del path.ports[name]
        new = set()
        for uuid, interface in sorted(interfaces.items()):
            name = interface["name"]
            if name == bridge:
                self._say(uuid, ofport=LOCAL & 0xFFFF, error=None)
            elif interface["type"] == "" and name not in self.devices:
                self._say(uuid, ofport=-1, error=f"could not open network device {name} (No such device)")
                path.ports.pop(name, None)
            else:
                number = path.ports.get(name) or self._number(path, interface["ofport_request"])
                if path.ports.get(name) != number:
                    path.ports[name] = number
                    new.add(name)
                    self.dead.discard(name)
                self._say(uuid, ofport=number)
        if new or gone:
            for watcher in path.watchers:
                watcher.ports_heard(frozenset(new | gone))

    @staticmethod
    def _number(path: Datapath, request: int | None) -> int:
        taken = set(path.ports.values())
        if request is not None and request not in taken:
            return request
        return next(number for number in range(1, 0xFF00) if number not in taken)

    def _peers(self) -> None:
        interfaces = self.database.tables["Interface"]
        by_name = {row["name"]: row for row in interfaces.values()}
        for uuid, row in interfaces.items():
            if row["type"] == "patch":
                peer = by_name.get(row["options"].get("peer", ""))
                joined = peer is not None and peer["type"] == "patch" and peer["options"].get("peer") == row["name"]
                self._say(uuid, error=None if joined else f"No usable peer '{row['options'].get('peer')}' exists.")
            elif row["ofport"] is not None and row["ofport"] > 0:
                self._say(uuid, error=None)

    def _say(self, uuid: str, **columns: Any) -> None:
        row = self.database.tables["Interface"][uuid]
        if any(row[name] != value for name, value in columns.items()):
            self.database.set("Interface", uuid, **columns)

    def _gone(self, name: str) -> None:
        path = self.bridges.pop(name)
        for watcher in list(path.watchers):
            watcher.disconnect("the bridge is gone")

    def stop_vswitchd(self) -> None:
        """All flows and numbers are lost."""
        self.running = False
        for name in list(self.bridges):
            self._gone(name)

    def start_vswitchd(self) -> None:
        self.running = True
        self.apply()

    # Rivals

    def rival(self, *operations: ops.Operation) -> None:
        self.database.transact(operations)

    def rival_flow(self, bridge: str, key: FlowKey, flow: Flow | None) -> None:
        self.bridges[bridge].put(key, flow)

    # What drivers go through

    async def write(self, deed: Callable[[], Any]) -> Any:
        self.before_write()
        if self.stop_after is not None and self.writes >= self.stop_after:
            if self.answered:
                deed()
                self.answered = False
            await asyncio.get_running_loop().create_future()
        result = deed()
        self.writes += 1
        return result


class FakeOvsdb:
    """The surface of `Ovsdb`."""

    def __init__(self, ovs: Ovs, on_change: OnChange) -> None:
        self.ovs = ovs
        self.remote = "unix:/fake"
        self.replica = Replica()
        self.ready = False
        self.problem = "not connected yet"
        self.last_event = 0.0
        self.silent = False
        """Transactions are carried out and not answered."""
        self._on_change = on_change
        self._own: set[str] | None = None

    async def run(self) -> None:
        self.connect()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.disconnect("closed")

    def poke(self) -> None:
        """Nothing to wake: it connects when it is told to."""

    def connect(self) -> None:
        self.replica.load(self.ovs.database.initial())
        self.ovs.database.followers.append(self._heard)
        self.ready, self.problem = True, ""
        self._on_change(None, "connected")

    def disconnect(self, problem: str) -> None:
        if self.ready:
            self.ovs.database.followers.remove(self._heard)
            self.ready, self.problem = False, problem
            self.replica.reset()
            self._on_change(None, "OVSDB connection lost")

    async def transact(self, operations: Sequence[Mapping[str, Any]]) -> Transacted:
        if not self.ready:
            raise NotReady(f"not connected ({self.problem})")
        return await self.ovs.write(lambda: self._transact(operations))  # type: ignore[no-any-return]

    def _transact(self, operations: Sequence[Mapping[str, Any]]) -> Transacted:
        own: set[str] = set()
        self._own = own
        try:
            self.ovs.database.transact(operations)
        except RefusedError as refused:
            raise TransactionError(f"transaction: {refused}; nothing was written", refused.index) from refused
        finally:
            self._own = None
        if self.silent:
            raise DriverError("no reply within 1 s; it may have been written all the same")
        return Transacted((), frozenset(own))

    def _heard(self, updates: Mapping[str, Any]) -> None:
        touched = self.replica.apply(updates)
        if self._own is not None:
            self._own |= touched.names
        elif touched.root:
            self._on_change(None, "Open_vSwitch row changed")
        elif touched.names:
            self._on_change(touched.names, "OVSDB update")


class FakeSwitch:
    """The surface of `Switch` for one bridge."""

    ovs: Ovs

    def __init__(
        self,
        bridge: str,
        rundir: Path,
        *,
        on_change: Callable[[frozenset[FlowKey] | None, str], None],
        on_ports: Callable[[frozenset[str]], None] | None = None,
        timeout: float = 1.0,
    ) -> None:
        self.bridge = bridge
        self.ready = False
        self.problem = "not connected yet"
        self.last_event = 0.0
        self.dumps = 0
        self._flows: dict[FlowKey, Flow] = {}
        self._on_change, self._on_ports = on_change, on_ports
        self._path: Datapath | None = None

    @property
    def flows(self) -> Mapping[FlowKey, Flow]:
        return self._flows

    @property
    def ports(self) -> Mapping[str, int]:
        return {} if self._path is None else self._path.ports

    async def run(self) -> None:
        self.ovs.switches.append(self)
        self.connect()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ovs.switches.remove(self)
            self.disconnect("closed")

    def poke(self) -> None:
        if self in self.ovs.switches:
            self.connect()

    def connect(self) -> None:
        path = self.ovs.bridges.get(self.bridge)
        if path is None or self.ready:
            return
        self._path, self.ready, self.problem = path, True, ""
        self._flows = dict(path.flows)
        path.watchers.append(self)
        if self._on_ports is not None:
            self._on_ports(frozenset(path.ports))
        self._on_change(None, "connected")

    def disconnect(self, problem: str) -> None:
        if self._path is not None:
            self._path.watchers.remove(self)
            self._path, self.ready, self.problem = None, False, problem
            self._flows = {}
            self._on_change(None, "switch connection lost")

    def heard(self, key: FlowKey, flow: Flow | None, *, own: bool) -> None:
        if flow is None:
            self._flows.pop(key, None)
        else:
            self._flows[key] = flow
        if not own:
            self._on_change(frozenset([key]), "flows changed")

    def ports_heard(self, names: frozenset[str]) -> None:
        if self._on_ports is not None:
            self._on_ports(names)

    async def dump(self) -> bool:
        self.dumps += 1
        path = self._asking()
        differs, self._flows = self._flows != path.flows, dict(path.flows)
        return differs

    async def read_back(self, keys: Iterable[FlowKey]) -> frozenset[FlowKey]:
        return frozenset()

    async def apply(self, mods: Sequence[Any]) -> None:
        await self.ovs.write(lambda: self._apply(mods))

    async def apply_and_read_back(self, mods: Sequence[Any]) -> Mapping[FlowKey, tuple[FlowKey, Flow]]:
        await self.ovs.write(lambda: self._apply(mods))
        added = {mod.key: mod.flow for mod in mods if isinstance(mod, AddFlow)}
        return {
            key: (key, self._flows[key])
            for key, flow in added.items()
            if key in self._flows and self._flows[key] != flow and self._flows[key].cookie == flow.cookie
        }

    async def apply_meters(self, mods: Sequence[Any]) -> None:
        await self.ovs.write(lambda: None)

    async def groups(self) -> dict[int, bytes]:
        return dict(self._asking().groups)

    async def meters(self) -> dict[int, bytes]:
        return dict(self._asking().meters)

    def _apply(self, mods: Sequence[Any]) -> None:
        path = self._asking()
        for index, mod in enumerate(mods):
            if isinstance(mod, AddFlow) and mod.flow.instructions == b"refused":
                raise BundleError("BAD_ACTION/BAD_TYPE; none was made", refusal="BAD_ACTION/BAD_TYPE", index=index)
        for mod in mods:
            match mod:
                case AddFlow(key, flow):
                    odd = flow.instructions == b"odd"
                    path.put(key, flow._replace(instructions=b"in other words") if odd else flow, self)
                case DeleteFlow(key, cookie, mask):
                    held = path.flows.get(key)
                    if held is not None and not (held.cookie ^ cookie) & mask:
                        path.put(key, None, self)
                case _:
                    raise AssertionError(mod)

    def _asking(self) -> Datapath:
        if self._path is None:
            raise NotReady(f"bridge {self.bridge} cannot be spoken to: {self.problem}")
        return self._path
