"""The controller of flows: joins the pure diff with one switch connection per bridge and the compiler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controllers.drivers.openflow.compiler import FlowCompiler
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
from controllers.drivers.openflow.switch import Switch
from controllers.openflow.diff import diff
from controllers.openflow.numbered import Numbered, NumberedBuilder
from controllers.openflow.state import Form, Observed
from controllers.openflow.table import TableBuilder
from desired.kinds.openflow import FlowSpec, GroupSpec, MeterSpec
from desired.resource import Resource, ResourceId, Resources, Spec
from reconciler.contract import Change, Event, Focus, Group, GroupResult, Plan, Scope, View
from reconciler.errors import NotReady, ReconcilerError, TerminalError
from reconciler.stream import EventStream

NAME = "flow"
_OVSDB = Scope("ovsdb")
"""Where bridges and ports are declared."""

FIRST_CONNECTION = 0.5
"""Seconds that the first look at a bridge waits for its connection."""


@dataclass(slots=True)
class _Bridge:
    """What is kept for one bridge while the daemon lives."""

    switch: Switch
    builder: TableBuilder
    numbered: NumberedBuilder
    declared: bool = False
    """Was anything declared when it was last looked at? The first flow may make the bridge exclusive."""
    task: asyncio.Task[None] | None = None
    forms: dict[FlowKey, Form] = field(default_factory=dict)
    sent_as: dict[FlowKey, FlowKey] = field(default_factory=dict)
    """Keys under which the switch has a flow that was sent with another key -> that key."""
    names: dict[FlowKey, ResourceId] = field(default_factory=dict)
    """Keys that were declared once and are no longer."""

    def settle_form(self, mod: AddFlow | DeleteFlow, odd: tuple[FlowKey, Flow] | None) -> None:
        """After `mod` was done: what the switch reports instead of what it was told is its own form of it."""
        old = self.forms.pop(mod.key, None)
        if old is not None:
            self.sent_as.pop(old.key, None)
        if isinstance(mod, DeleteFlow):
            self.names.pop(mod.key, None)
        elif odd is not None:
            self.forms[mod.key] = Form(mod.flow, *odd)
            self.sent_as[odd[0]] = mod.key


class OpenFlowController:
    """One scope per bridge. `marked` gives the bridges that carry our mark, so that left-overs are pruned there."""

    name = NAME
    specs: tuple[type[Spec], ...] = (FlowSpec, GroupSpec, MeterSpec)

    def __init__(
        self, rundir: Path, *, marked: Callable[[], Sequence[str]], timeout: float, compile_timeout: float
    ) -> None:
        self._rundir = rundir
        self._marked = marked
        self._timeout = timeout
        self._compiler = FlowCompiler(timeout=compile_timeout)
        self._bridges: dict[str, _Bridge] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self.events = EventStream()
        self._ports: tuple[Resources | None, dict[str, frozenset[str]]] = (None, {})

    def scope(self, resource: Resource) -> Scope:
        assert isinstance(resource.spec, FlowSpec | GroupSpec | MeterSpec)
        return Scope(NAME, resource.spec.bridge)

    def scopes(self) -> Sequence[Scope]:
        return [Scope(NAME, name) for name in self._marked()]

    def bridges_changed(self, names: frozenset[str] | None) -> None:
        """OVSDB says that these may have come or gone: connections are tried at once, and new ones are looked at."""
        for name in self._marked():
            if name not in self._bridges and (names is None or name in names):
                self.events.put_nowait(Event(Scope(NAME, name), None, "bridge is there"))
        for name, bridge in self._bridges.items():
            if (names is None or name in names) and not bridge.switch.ready:
                bridge.switch.poke()

    def switches(self) -> Sequence[Switch]:
        """The connections, for the doors to show."""
        return [bridge.switch for bridge in self._bridges.values()]

    # -- the pass ---------------------------------------------------------------------------------------------------

    async def observe(self, view: View, focus: Focus) -> Observed:
        new = view.scope.name not in self._bridges
        bridge = self._bridge(view.scope.name)
        switch = bridge.switch
        if new:
            await self._first_connection(switch)
        if not switch.ready:
            if not view.resources and view.scope.name not in self._marked():
                self._drop(view.scope.name)
            raise NotReady(f"bridge {view.scope.name} does not answer OpenFlow: {switch.problem}")
        before = bridge.builder.table
        table = await bridge.builder.build(view.resources, switch.ports, self._declared_ports(view, view.scope.name))
        if table is not before:
            gone = before.entries.keys() - table.entries.keys()
            bridge.names.update({key: before.entries[key].resource for key in gone})
            for key in table.entries.keys() & bridge.names.keys():
                del bridge.names[key]
        if not switch.ready:
            raise NotReady(f"bridge {view.scope.name} went away while its flows were compiled")
        known, bridge.declared = bridge.declared, bool(view.resources)
        if focus is None or bridge.declared != known:
            numbered = await self._numbered(bridge, view)
            return Observed(
                switch.bridge,
                switch.flows,
                table,
                forms=bridge.forms,
                names=bridge.names,
                numbered=numbered,
                orphan=self._orphan(view),
            )
        keys = {bridge.sent_as.get(item, item) for item in focus if isinstance(item, FlowKey)}
        names = [item for item in focus if isinstance(item, str)]
        users = {rid for name in names for t in (before, table) for rid in t.users.get(name, ())}
        users.update(item for item in focus if isinstance(item, ResourceId))
        for rid in users:
            keys.update(t.keys[rid] for t in (before, table) if rid in t.keys)
        return Observed(
            switch.bridge,
            switch.flows,
            table,
            frozenset(keys),
            frozenset(users),
            bridge.forms,
            bridge.names,
            orphan=self._orphan(view),
        )

    def _orphan(self, view: View) -> bool:
        name = view.scope.name
        return ResourceId("bridge", name) not in view.everything and name in self._marked()

    async def _numbered(self, bridge: _Bridge, view: View) -> Numbered:
        """Groups and meters, dumped: there are few of them, and no replica."""
        switch = bridge.switch
        ports = self._declared_ports(view, switch.bridge)
        wanted = await bridge.numbered.build(view.resources, switch.ports, ports)
        return Numbered(wanted, {"group": await switch.groups(), "meter": await switch.meters()})

    async def _first_connection(self, switch: Switch) -> None:
        """A switch that is there answers within milliseconds; it would only be told as waiting."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FIRST_CONNECTION
        exists = (self._rundir / f"{switch.bridge}.mgmt").exists()
        while exists and not switch.ready and loop.time() < deadline:
            await asyncio.sleep(0.001)

    def _declared_ports(self, view: View, bridge: str) -> frozenset[str]:
        """Names of the ports and bonds declared for `bridge`."""
        declared = view.of(_OVSDB)
        if self._ports[0] is not declared:
            ports: dict[str, set[str]] = {}
            for rid, resource in declared.items():
                if rid.kind in {"port", "bond"}:
                    for ref in resource.spec.refs():
                        ports.setdefault(ref.name, {ref.name}).add(rid.name)
            self._ports = (declared, {name: frozenset(names) for name, names in ports.items()})
        return self._ports[1].get(bridge, frozenset())

    def diff(self, view: View, observed: Any) -> Plan:
        return diff(view, observed)

    def focus_on(self, scope: Scope, resources: Collection[ResourceId]) -> Focus:
        if any(rid.kind != FlowSpec.kind for rid in resources):
            return None
        return frozenset(resources)

    def focus(self, changes: Sequence[Change]) -> Focus:
        keys: set[Hashable] = set()
        for change in changes:
            if not isinstance(change.action, AddFlow | DeleteFlow):
                return None
            keys.add(change.action.key)
        return frozenset(keys)

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        loop = asyncio.get_running_loop()
        bridge = self._bridge(scope.name)
        results = []
        for group in groups:
            started = loop.time()
            error, culprits = await self._apply(bridge, group)
            results.append(GroupResult(group, error, culprits, loop.time() - started))
        return results

    async def _apply(self, bridge: _Bridge, group: Group) -> tuple[ReconcilerError | None, frozenset[ResourceId]]:
        mods: list[Mod] = [change.action for change in group.changes]
        try:
            if isinstance(mods[0], SetMeter | DeleteMeter):
                await bridge.switch.apply_meters([m for m in mods if isinstance(m, SetMeter | DeleteMeter)])
                return None, frozenset()
            bundle = [m for m in mods if not isinstance(m, SetMeter | DeleteMeter)]
            odd = await bridge.switch.apply_and_read_back(bundle)
        except BundleError as refused:
            culprits = frozenset() if refused.index is None else frozenset([group.changes[refused.index].resource])
            return TerminalError(str(refused)), culprits
        except ReconcilerError as error:
            return error, frozenset()
        for mod in bundle:
            if isinstance(mod, AddFlow | DeleteFlow):
                bridge.settle_form(mod, odd.get(mod.key))
        return None, frozenset()

    async def prove(self, scope: Scope) -> None:
        bridge = self._bridges.get(scope.name)
        if bridge is not None and bridge.switch.ready:
            await bridge.switch.dump()

    # -- the streams ------------------------------------------------------------------------------------------------

    async def watch(self) -> AsyncIterator[Event]:
        async with self._compiler.ready(), asyncio.TaskGroup() as group:
            self._tasks = group
            for bridge in self._bridges.values():
                self._start(bridge)
            try:
                while True:
                    yield await self.events.get()
            finally:
                self._tasks = None
                for bridge in self._bridges.values():
                    if bridge.task is not None:
                        bridge.task.cancel()
                        bridge.task = None

    def _bridge(self, name: str) -> _Bridge:
        bridge = self._bridges.get(name)
        if bridge is None:
            scope = Scope(NAME, name)
            switch = Switch(
                name,
                self._rundir,
                on_change=lambda keys, why: self.events.put_nowait(Event(scope, keys, why)),
                on_ports=lambda names: self.events.put_nowait(Event(scope, frozenset(names), "ports changed")),
                timeout=self._timeout,
            )
            bridge = self._bridges[name] = _Bridge(
                switch, TableBuilder(self._compiler), NumberedBuilder(self._compiler)
            )
            self._start(bridge)
        return bridge

    def _drop(self, name: str) -> None:
        """Neither declared nor there: nothing is to be connected to."""
        bridge = self._bridges.pop(name, None)
        if bridge is not None and bridge.task is not None:
            bridge.task.cancel()

    def _start(self, bridge: _Bridge) -> None:
        if self._tasks is not None and bridge.task is None:
            name = f"switch-{bridge.switch.bridge}"
            bridge.task = self._tasks.create_task(bridge.switch.run(), name=name)
