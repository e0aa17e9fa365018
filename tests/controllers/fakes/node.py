"""A node in virtual time: the engine and both controllers over a fake Open vSwitch, wired as the catalog wires them.

`Node.life` is one life of the daemon; a second one over the same `Ovs` is a restart. `declared` builds what should be
from short words, `held` says what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from controllers.drivers.openflow.flows import Flow, FlowKey
from controllers.drivers.ovsdb import ops
from controllers.openflow import controller as openflow
from controllers.openflow.controller import OpenFlowController
from controllers.ovsdb.controller import OvsdbController
from controllers.ownership import COOKIE_PREFIX, Owner
from desired.kinds.openflow import FlowSpec, split_flow
from desired.kinds.ovs import BondSpec, BridgeSpec, HeldPortSpec, PortSpec
from desired.resource import Origin, Resource, ResourceId, Spec
from desired.snapshot import Snapshot
from reconciler.contract import Outcome, PassRecord
from reconciler.engine import Engine
from reconciler.gates.budget import removed
from reconciler.metrics import Metrics
from reconciler.settings import Settings
from tests.controllers.fakes.compiler import FakeCompiler
from tests.controllers.fakes.ovs import FakeOvsdb, FakeSwitch, Ovs
from tests.reconciler.fakes import Journal, VirtualClock

OURS = {"reconciler": "me"}
THEIRS = 0xABC
MINE = COOKIE_PREFIX << 32


def resource(name: str, spec: Spec) -> Resource:
    return Resource(ResourceId(type(spec).kind, name), spec, Origin("files"), spec.generation())


def bridge(name: str, **fields: Any) -> Resource:
    return resource(name, BridgeSpec(**fields))


def port(name: str, on: str, **fields: Any) -> Resource:
    return resource(name, PortSpec(bridge=on, **fields))


def bond(name: str, on: str, **fields: Any) -> Resource:
    return resource(name, BondSpec(bridge=on, **fields))


def held_port(iface_id: str, **fields: Any) -> Resource:
    return resource(iface_id, HeldPortSpec(**fields))


def flow(on: str, text: str, **fields: Any) -> Resource:
    return resource(f"{on}/{split_flow(text)[0]}", FlowSpec(bridge=on, flow=text, **fields))


def patches(one: str, on_one: str, other: str, on_other: str) -> list[Resource]:
    return [port(one, on_one, type="patch", peer=other), port(other, on_other, type="patch", peer=one)]


class Life:
    """One process: an engine and its controllers."""

    def __init__(self, ovs: Ovs, **settings: Any) -> None:
        self.ovs = ovs
        self.ovsdb = OvsdbController("unix:/fake", owner=Owner("me"), datapath_type="netdev", timeout=1.0)
        self.driver = FakeOvsdb(ovs, self.ovsdb._changed)
        self.ovsdb.driver = self.driver  # type: ignore[assignment]  # the surface of it
        self.openflow = OpenFlowController(
            Path("/nowhere"), marked=self.ovsdb.owned_bridges, timeout=1.0, compile_timeout=1.0
        )
        self.ovsdb.on_bridges.append(self.openflow.bridges_changed)
        self.journal = Journal()
        self.engine = Engine(
            [self.ovsdb, self.openflow],
            settings=Settings(node="n", owner="me", **settings),
            clock=VirtualClock(),
            metrics=Metrics(),
            sinks=[self.journal],
        )
        self.engine.gates.in_sync.started()

    def desire(self, resources: Sequence[Resource]) -> None:
        snapshot = Snapshot.of(resources)
        self.engine.desire(snapshot, removed(self.engine.book.snapshot.resources, snapshot.resources))

    def status(self, rid: str) -> Outcome:
        return next((s.outcome for s in self.engine.statuses.not_right() if str(s.resource) == rid), Outcome.CONVERGED)

    def reason(self, rid: str) -> str:
        return next((s.reason for s in self.engine.statuses.not_right() if str(s.resource) == rid), "")

    async def plan(self) -> Sequence[PassRecord]:
        return await self.engine.plan(None)

    def done(self) -> list[str]:
        """What was done so far: ``verb KIND/NAME``."""
        return [f"{action.verb} {action.resource}" for action in self.journal.actions("done")]


@contextlib.asynccontextmanager
async def life(ovs: Ovs, resources: Sequence[Resource] = (), **settings: Any) -> AsyncIterator[Life]:
    """The daemon lives within this block; at the end it is killed. It converges on `resources` first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openflow, "Switch", type("Switch", (FakeSwitch,), {"ovs": ovs}))
        patch.setattr(openflow, "FlowCompiler", FakeCompiler)
        one = Life(ovs, **settings)
        running = asyncio.create_task(one.engine.run(), name="engine")
        try:
            if resources:
                one.desire(resources)
                await asyncio.sleep(0.5)
            yield one
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def ports_of(ovs: Ovs, name: str) -> dict[str, dict[str, Any]]:
    """The ports of a bridge, without its LOCAL one, by name: the row's columns and those of its first interface."""
    found = ovs.database.find("Bridge", name)
    assert found is not None
    tables = ovs.database.tables
    result = {}
    for uuid in found[1]["ports"]:
        row = tables["Port"][uuid]
        if row["name"] != name:
            interface = tables["Interface"][row["interfaces"][0]]
            result[row["name"]] = {**interface, **row, "interface_ids": interface["external_ids"]}
    return result


def bridges_of(ovs: Ovs) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in ovs.database.tables["Bridge"].values()}


def rival_bridge(ovs: Ovs, name: str, *, ours: bool = False, **columns: Any) -> None:
    columns = {"datapath_type": "netdev", **columns}
    ovs.rival(*ops.add_bridge(name, {**columns, "external_ids": OURS if ours else {}}))


def rival_port(ovs: Ovs, on: str, name: str, *, ours: bool = False, iface_id: str = "", **columns: Any) -> None:
    interface: dict[str, Any] = {"type": "internal"}
    if iface_id:
        interface["external_ids"] = {"iface-id": iface_id}
    row = {**columns, "external_ids": OURS if ours else {}}
    ovs.rival(*ops.add_ports(on, [ops.NewPort(name, {name: interface}, row)]))


def rival_delete_port(ovs: Ovs, name: str) -> None:
    found = ovs.database.find("Port", name)
    assert found is not None
    on = next(row["name"] for row in bridges_of(ovs).values() if found[0] in row["ports"])
    ovs.rival(*ops.delete_ports(ops.Row("Bridge", name=on), [found[0]]))


def rival_delete_bridge(ovs: Ovs, name: str) -> None:
    found = ovs.database.find("Bridge", name)
    assert found is not None
    ovs.rival(*ops.delete_bridge(found[0]))


def rival_set(ovs: Ovs, table: str, name: str, **columns: Any) -> None:
    ovs.rival(ops.update(ops.Row(table, name=name), columns))


def key(text: str) -> FlowKey:
    """The key of a flow whose text names no port."""
    from tests.controllers.fakes.compiler import compiled  # noqa: PLC0415

    made = compiled(f"{text},actions=drop", {})
    return made.key  # type: ignore[union-attr]


def theirs(actions: str, cookie: int = THEIRS, **fields: int) -> Flow:
    return Flow(b"" if actions == "drop" else actions.encode(), cookie, **fields)


def flows_of(ovs: Ovs, name: str) -> dict[FlowKey, Flow]:
    return dict(ovs.bridges[name].flows)
