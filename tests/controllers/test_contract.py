"""The same scenarios against the fake Open vSwitch and the real one: what the laws rely on is true of both."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from controllers.drivers.openflow.flows import AddFlow, BundleError, DeleteFlow, Flow, FlowKey
from controllers.drivers.openflow.switch import Switch
from controllers.drivers.ovsdb import ops
from controllers.drivers.ovsdb.client import Ovsdb, Transacted, TransactionError
from controllers.drivers.ovsdb.replica import Replica
from controllers.drivers.ovsdb.rows import InterfaceRow
from controllers.ovsdb.wanted import DEAD_PEER
from tests.controllers.drivers.openflow.support import some
from tests.controllers.drivers.patience import running, until
from tests.controllers.fakes.ovs import FakeOvsdb, FakeSwitch, Ovs
from tests.ovs import PrivateOvs

NORMAL = FlowKey(0, 0, b"")


class Driver(Protocol):
    replica: Replica
    ready: bool

    async def transact(self, operations: Sequence[Mapping[str, Any]]) -> Transacted: ...


class Flows(Protocol):
    @property
    def flows(self) -> Mapping[FlowKey, Flow]: ...

    async def apply_and_read_back(self, mods: Sequence[Any]) -> Any: ...


class Target:
    """One Open vSwitch, its OVSDB driver and what that reported."""

    def __init__(self, ovsdb: Driver, refused: AddFlow, make_switch: Callable[[str], Any]) -> None:
        self.ovsdb = ovsdb
        self.refused = refused
        self.events: list[frozenset[str] | None] = []
        self._make_switch = make_switch

    @property
    def replica(self) -> Replica:
        return self.ovsdb.replica

    def port(self, name: str) -> InterfaceRow:
        return self.replica.interfaces[name]

    async def transact(self, *operations: ops.Operation) -> frozenset[str]:
        return (await self.ovsdb.transact(operations)).touched

    @contextlib.asynccontextmanager
    async def switch(self, bridge: str) -> AsyncIterator[Flows]:
        switch = self._make_switch(bridge)
        async with running(switch):
            await until(lambda: switch.ready)
            yield switch


@contextlib.asynccontextmanager
async def fake(_: object) -> AsyncIterator[Target]:
    ovs = Ovs()
    kind = type("Switch", (FakeSwitch,), {"ovs": ovs})
    refused = AddFlow(FlowKey(0, 9, b""), Flow(b"refused"))
    heard: list[frozenset[str] | None] = []
    driver = FakeOvsdb(ovs, lambda names, _: heard.append(names))
    target = Target(driver, refused, lambda name: kind(name, Path("/nowhere"), on_change=lambda *_: None))
    target.events = heard
    async with running(driver):
        await until(lambda: driver.ready)
        yield target


@contextlib.asynccontextmanager
async def real(ovs: PrivateOvs) -> AsyncIterator[Target]:
    to_itself = struct.pack("!HHB3x", 1, 8, 0)  # goto_table: the same table
    refused = AddFlow(FlowKey(0, 9, b""), Flow(to_itself))
    heard: list[frozenset[str] | None] = []
    driver = Ovsdb(ovs.db, on_change=lambda names, _: heard.append(names))
    target = Target(driver, refused, lambda name: Switch(name, ovs.rundir, on_change=lambda *_: None))
    target.events = heard
    async with running(driver):
        await until(lambda: driver.ready)
        yield target


@pytest.fixture(params=["fake", "real"])
async def target(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    if request.param == "fake":
        async with fake(None) as one:
            yield one
    else:
        async with real(request.getfixturevalue("ovs")) as one:
            yield one


def br(name: str, **columns: Any) -> list[ops.Operation]:
    return ops.add_bridge(name, {"datapath_type": "netdev", "fail_mode": "secure", **columns})


def new(name: str, kind: str = "internal", **interface: Any) -> ops.NewPort:
    return ops.NewPort(name, {name: {"type": kind, **interface}})


async def test_a_port_is_added_numbered_told_changed_and_deleted(target: Target) -> None:
    await target.transact(*br("br0"))
    touched = await target.transact(*ops.add_ports("br0", [new("p0", ofport_request=7), new("p1")]))
    assert touched >= {"p0", "p1", "br0"}
    await until(lambda: target.port("p0").ofport == 7)
    await until(lambda: target.port("p1").ofport)
    assert target.replica.bridge_of_port("p0") == "br0"
    await until(lambda: any(names and "p0" in names for names in target.events))
    row = ops.Row("Port", target.replica.ports["p0"].uuid)
    target.events.clear()
    assert await target.transact(ops.update(row, {"tag": 5, "trunks": (3, 1)})) == {"p0"}
    assert (target.replica.ports["p0"].tag, target.replica.ports["p0"].trunks) == (5, (1, 3))
    assert not any(names and "p0" in names for names in target.events), "our own change is no event"
    touched = await target.transact(*ops.delete_ports(ops.Row("Bridge", name="br0"), [row.uuid]))
    assert touched >= {"p0", "br0"}
    assert "p0" not in target.replica.ports
    assert "p0" not in target.replica.interfaces


async def test_a_system_port_without_its_device_gets_an_error_and_no_number(target: Target) -> None:
    await target.transact(*br("br0"))
    await target.transact(*ops.add_ports("br0", [new("nodevice0", "")]))
    await until(lambda: target.port("nodevice0").error)
    assert target.port("nodevice0").ofport == -1
    assert "No such device" in (target.port("nodevice0").error or "")


async def test_a_patch_port_has_a_number_and_an_error_until_its_peer_is_there(target: Target) -> None:
    await target.transact(*br("br0"), *br("br1"))
    one, other = new("a", "patch", options={"peer": DEAD_PEER}), new("b", "patch", options={"peer": "a"})
    await target.transact(*ops.add_ports("br0", [one]), *ops.add_ports("br1", [other]))
    await until(lambda: target.port("a").ofport and target.port("a").error)
    assert (target.port("a").ofport or 0) > 0
    row = ops.Row("Interface", target.port("a").uuid)
    await target.transact(ops.update(row, {"options": {"peer": "b"}}))
    await until(lambda: not target.port("a").error and not target.port("b").error)


async def test_a_port_replaced_in_one_transaction_keeps_its_number(target: Target) -> None:
    await target.transact(*br("br0"), *ops.add_ports("br0", [new("p0"), new("p1")]))
    await until(lambda: target.port("p0").ofport and target.port("p1").ofport)
    number, row = target.port("p0").ofport, target.replica.ports["p0"]
    there = ops.Row("Bridge", name="br0")
    await target.transact(*ops.delete_ports(there, [row.uuid]), *ops.add_ports("br0", [new("p0")]))
    assert target.replica.ports["p0"].uuid != row.uuid
    await until(lambda: target.port("p0").ofport)
    assert target.port("p0").ofport == number


@pytest.mark.parametrize(
    ("operations", "says"),
    [
        (br("br0"), "timed out"),
        (ops.add_ports("br0", [new("p0")]), "constraint violation"),
        (ops.add_ports("br9", [new("new")]), "timed out"),
        ([ops.expect(ops.Row("Port", "7b1a0000-0000-4000-8000-000000000000"))], "timed out"),
        ([ops.update(ops.Row("Port", name="p0"), {"tag": 5000})], "constraint violation"),
    ],
)
async def test_what_does_not_fit_is_refused_whole(target: Target, operations: list[ops.Operation], says: str) -> None:
    await target.transact(*br("br0"), *ops.add_ports("br0", [new("p0")]))
    before = target.replica.ports.keys()
    with pytest.raises(TransactionError, match=says):
        await target.transact(*ops.add_ports("br0", [new("innocent")]), *operations)
    assert target.replica.ports.keys() == before


async def test_keys_of_a_map_are_set_beside_the_keys_of_others(target: Target) -> None:
    await target.transact(*br("br0", external_ids={"theirs": "1", "ours": "old"}))
    await target.transact(ops.set_keys(ops.Row("Bridge", name="br0"), "external_ids", {"ours": "new"}))
    assert target.replica.bridges["br0"].external_ids == {"theirs": "1", "ours": "new"}


async def test_a_deleted_bridge_takes_its_ports_along(target: Target) -> None:
    await target.transact(*br("br0"), *ops.add_ports("br0", [new("p0")]))
    await target.transact(*ops.delete_bridge(target.replica.bridges["br0"].uuid))
    assert not target.replica.bridges
    assert not target.replica.ports
    assert not target.replica.interfaces


async def test_a_bundle_is_done_whole_or_not_at_all_and_the_culprit_is_named(target: Target) -> None:
    await target.transact(*br("br0"))
    mods = some(5)
    async with target.switch("br0") as switch:
        await switch.apply_and_read_back(mods)
        assert {mod.key: mod.flow for mod in mods} == dict(switch.flows)
        with pytest.raises(BundleError) as refused:
            await switch.apply_and_read_back([DeleteFlow(mods[0].key), target.refused, DeleteFlow(mods[1].key)])
        assert refused.value.index == 1
        assert {mod.key: mod.flow for mod in mods} == dict(switch.flows)


async def test_a_delete_is_of_a_cookie(target: Target) -> None:
    await target.transact(*br("br0"))
    (mod,) = some(1)
    async with target.switch("br0") as switch:
        await switch.apply_and_read_back([mod])
        await switch.apply_and_read_back([DeleteFlow(mod.key, mod.flow.cookie ^ 1, 0xFFFF_FFFF_FFFF_FFFF)])
        assert switch.flows == {mod.key: mod.flow}
        await switch.apply_and_read_back([DeleteFlow(mod.key, mod.flow.cookie, 0xFFFF_FFFF_FFFF_FFFF)])
        assert not switch.flows


@pytest.mark.parametrize(("fail_mode", "own"), [("secure", False), ("standalone", True), (None, True)])
async def test_a_bridge_that_is_not_secure_has_the_switch_s_own_flow(
    target: Target, fail_mode: str | None, *, own: bool
) -> None:
    await target.transact(*br("br0", fail_mode=fail_mode))
    async with target.switch("br0") as switch:
        if own:
            await until(lambda: NORMAL in switch.flows)
        assert set(switch.flows) == ({NORMAL} if own else set())
