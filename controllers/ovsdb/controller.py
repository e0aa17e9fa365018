"""The controller of bridges, ports, bonds and held ports: joins the pure diff with the OVSDB driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from controllers.drivers.ovsdb.client import Ovsdb, TransactionError
from controllers.ovsdb.diff import diff
from controllers.ovsdb.guard import may_hurt
from controllers.ovsdb.operations import operations
from controllers.ovsdb.patches import peers_of, usable_peer
from controllers.ovsdb.ports import REVIVAL, VSWITCHD_DEADLINE
from controllers.ovsdb.state import (
    SCOPE,
    CreateBridge,
    CreatePort,
    DeleteBridge,
    DeletePort,
    Observed,
    Remind,
    SetBridge,
    SetPort,
)
from controllers.ovsdb.vlans import observed_ports
from controllers.ovsdb.wanted import WantedRows
from controllers.ownership import Owner
from desired.kinds.ovs import BondSpec, BridgeSpec, HeldPortSpec, PortSpec
from desired.network.allocations import ObservedPort
from desired.resource import Resource, ResourceId, Resources, Spec
from reconciler.contract import Change, Event, Focus, Group, GroupResult, Plan, Scope, View
from reconciler.errors import NotReady, ReconcilerError, TerminalError
from reconciler.stream import EventStream

_NOTHING: Mapping[str, float] = {}
_BY_NAME = frozenset({PortSpec.kind, BondSpec.kind})
"""Kinds whose resources are named as the rows they are about."""
Guard = Callable[[Resources], Awaitable[Mapping[str, str]]]
"""Of all that is declared: devices of the host by which the node is reached, and why they are not to be hurt."""


class OvsdbController:
    """One scope for all of OVSDB. `on_bridges` are told names whose bridge may have come or gone."""

    name = SCOPE.controller
    specs: tuple[type[Spec], ...] = (BridgeSpec, PortSpec, BondSpec, HeldPortSpec)

    def __init__(self, remote: str, *, owner: Owner, datapath_type: str, timeout: float) -> None:
        self.driver = Ovsdb(remote, on_change=self._changed, timeout=timeout)
        self.on_bridges: list[Callable[[frozenset[str] | None], None]] = []
        self._owner = owner
        self.guard: Guard | None = None
        self._datapath_type = datapath_type
        self.events = EventStream()
        self._ofports: dict[str, int] = {}
        self._waiting: dict[str, tuple[float, str]] = {}
        """Since when a port has had no number or an error; and with which peer, which makes the wait a new one."""
        self._reminded: set[str] = set()
        self._ours: set[str] = set()
        self._lost: dict[str, tuple[float, int] | None] = {}
        """Ports whose device died behind vswitchd's back: when their row was deleted for that, and which
        configuration vswitchd must have reached to know of it."""
        self._held: tuple[Resources | None, tuple[ResourceId, ...]] = (None, ())
        self._wanted = WantedRows()

    def scope(self, resource: Resource) -> Scope:
        return SCOPE

    def scopes(self) -> Sequence[Scope]:
        return (SCOPE,)

    def owned_bridges(self) -> Sequence[str]:
        """Names of the bridges that carry our mark."""
        return [name for name, row in self.driver.replica.bridges.items() if self._owner.owns(row.external_ids)]

    def observed_ports(self, bridge: str) -> Sequence[ObservedPort] | None:
        """The ports of `bridge` that have a tag; None while OVSDB does not answer."""
        return tuple(observed_ports(self.driver.replica, bridge)) if self.driver.ready else None

    async def observe(self, view: View, focus: Focus) -> Observed:
        if not self.driver.ready:
            raise NotReady(f"OVSDB at {self.driver.remote}: {self.driver.problem}")
        names = None if focus is None else frozenset(str(name) for name in focus)
        self._remember(names)
        if self._held[0] is not view.resources:
            held = tuple(rid for rid in view.resources if rid.kind == HeldPortSpec.kind)
            self._held = (view.resources, held)
            self._wanted.forget(view.resources)
        guarded, unsure = await self._guarded(view, names)
        now = asyncio.get_running_loop().time()
        waiting = {name: now - since for name, (since, _) in self._waiting.items()} if self._waiting else _NOTHING
        return Observed(
            self.driver.replica,
            self._owner,
            names,
            self._ofports,
            self._datapath_type,
            waiting,
            self._held[1],
            self._ours,
            self._lost_since(now) if self._lost else _NOTHING,
            guarded,
            unsure,
            self._wanted,
            self._reminded,
        )

    async def _guarded(self, view: View, names: frozenset[str] | None) -> tuple[Mapping[str, str], str]:
        """What must not be hurt, and why that is not known. Asked only when something might be hurt."""
        if self.guard is None or not may_hurt(view.resources, self.driver.replica, names):
            return {}, ""
        try:
            return await self.guard(view.everything), ""
        except ReconcilerError as error:
            return {}, str(error)

    def bridge_of(self, port: str) -> str:
        """The bridge that a device is a working port of, also in a bond; '' without."""
        row = self.driver.replica.interfaces.get(port)
        if row is None or row.ofport is None or row.ofport <= 0:
            return ""
        replica = self.driver.replica
        bond = next((one.name for one in replica.ports.values() if row.uuid in one.interfaces), port)
        return replica.bridge_of_port(bond) or ""

    def device_lost(self, name: str) -> None:
        """The device of an internal port is nowhere (it died with its namespace), and vswitchd does not know."""
        row = self.driver.replica.interfaces.get(name)
        if name not in self._lost and row is not None and row.type == "internal" and (row.ofport or 0) > 0:
            self._lost[name] = None
            self._changed(frozenset({name}), "its device is nowhere")

    def _lost_since(self, now: float) -> dict[str, float]:
        """For each lost port how long its row has been gone, in seconds; -1: it is still there."""
        found = {}
        for name in list(self._lost):
            there = name in self.driver.replica.ports
            if self._lost[name] is None and not there:
                root = self.driver.replica.root
                self._lost[name] = now, 0 if root is None else root.next_cfg
            deleted = self._lost[name]
            if deleted is not None and (there or self._has_seen(*deleted, now)):
                del self._lost[name]
            else:
                found[name] = -1.0 if deleted is None else now - deleted[0]
        return found

    def _has_seen(self, deleted: float, number: int, now: float) -> bool:
        """Has vswitchd seen the deletion? One that is busy may take seconds; none at all is waited for in vain."""
        root = self.driver.replica.root
        seen = root is not None and root.cur_cfg >= number
        return now - deleted >= (REVIVAL if seen else VSWITCHD_DEADLINE)

    def _remember(self, names: frozenset[str] | None) -> None:
        """Numbers that ports have, since when a port has none, which rows are ours: what a row alone does not tell."""
        self._remember_ours(names)
        interfaces = self.driver.replica.interfaces
        now = asyncio.get_running_loop().time()
        for name in interfaces if names is None else names:
            row = interfaces.get(name)
            if row is not None and row.ofport is not None and row.ofport > 0:
                self._ofports[name] = row.ofport
            if row is not None and (row.ofport is None or row.error):
                peer = usable_peer(self.driver.replica, name, row)
                self._wait_for(name, f"{row.uuid} {peer.uuid}" if peer is not None else "", now)
            else:
                self._waiting.pop(name, None)
                self._reminded.discard(name)

    def _wait_for(self, name: str, peer: str, now: float) -> None:
        known = self._waiting.get(name)
        if known is None or known[1] != peer:
            self._waiting[name] = now, peer
            self._reminded.discard(name)

    def _remember_ours(self, names: frozenset[str] | None) -> None:
        """By uuid, so that taking a mark off is drift while we run; a row made anew without it is somebody else's."""
        replica = self.driver.replica
        for rows in (replica.bridges, replica.ports):
            some = rows.values() if names is None else (rows[name] for name in names if name in rows)
            self._ours.update(row.uuid for row in some if self._owner.owns(row.external_ids))
        if names is None:
            self._ours &= {row.uuid for rows in (replica.bridges, replica.ports) for row in rows.values()}

    def diff(self, view: View, observed: Any) -> Plan:
        return diff(view, observed)

    def focus_on(self, scope: Scope, resources: Collection[ResourceId]) -> Focus:
        """A bridge says how all its ports are to be looked at; a held port is found by who has its iface-id."""
        if any(rid.kind not in _BY_NAME for rid in resources):
            return None
        return frozenset(rid.name for rid in resources)

    def focus(self, changes: Sequence[Change]) -> Focus:
        names: set[str] = set()
        for change in changes:
            match change.action:
                case CreatePort() as create:
                    names |= {create.name, create.bridge, *peers_of(create)}
                case DeletePort():
                    names |= {change.action.name, change.action.bridge}
                case Remind() | SetPort() | CreateBridge() | SetBridge() | DeleteBridge():
                    names.add(change.action.name)
        return frozenset(names)

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        loop = asyncio.get_running_loop()
        results = []
        for group in groups:
            started = loop.time()
            error = await self._transact(group)
            results.append(GroupResult(group, error, seconds=loop.time() - started))
        return results

    async def _transact(self, group: Group) -> ReconcilerError | None:
        try:
            done = await self.driver.transact(operations([change.action for change in group.changes]))
        except TransactionError as refused:
            return TerminalError(str(refused))
        except ReconcilerError as error:
            return error
        self._reminded |= {change.action.name for change in group.changes if isinstance(change.action, Remind)}
        others = done.touched - self._names(group)
        if others:
            self._changed(others, "changed by another while we wrote")
        self._tell_bridges(done.touched)
        return None

    def _names(self, group: Group) -> frozenset[str]:
        names = self.focus(group.changes)
        assert names is not None
        return frozenset(str(name) for name in names)

    async def prove(self, scope: Scope) -> None:
        """A monitor of OVSDB is a transactional replica: the server says all or closes. Its probe is the proof."""
        if not self.driver.ready:
            raise NotReady(f"OVSDB at {self.driver.remote}: {self.driver.problem}")

    async def watch(self) -> AsyncIterator[Event]:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.driver.run(), name="ovsdb-driver")
            try:
                while True:
                    yield await self.events.get()
            finally:
                running.cancel()

    def _changed(self, names: frozenset[str] | None, reason: str) -> None:
        self.events.put_nowait(Event(SCOPE, names, reason))
        # The pass goes first: it is ready to run, and most of what is told here changes nothing.
        asyncio.get_running_loop().call_soon(self._tell_bridges, names)

    def _tell_bridges(self, names: frozenset[str] | None) -> None:
        for listener in self.on_bridges:
            listener(names)
