"""The operations do in a real database what they say, and guards fail cleanly."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest

from controllers.drivers.ovsdb import ops
from controllers.drivers.ovsdb.client import TransactionError
from controllers.drivers.ovsdb.ops import NewPort, Ref, Row
from tests.controllers.drivers.ovsdb.support import Followed, following
from tests.controllers.drivers.patience import until
from tests.ovs import PrivateOvs


@pytest.fixture
async def db(ovs: PrivateOvs) -> AsyncIterator[Followed]:
    """A database that only we write to."""
    ovs.stop_vswitchd()
    async with following(ovs.db) as followed:
        yield followed


BR0 = Row("Bridge", name="br0")


def everything(ovs: PrivateOvs) -> dict[str, list[str]]:
    """All rows of the tables, with uuids replaced, as ovs-vsctl shows them."""
    tables = {}
    for table in ("Bridge", "Port", "Interface"):
        listed = ovs.vsctl("--no-wait", "--format=json", "list", table)
        tables[table] = sorted(re.sub(r"[0-9a-f-]{36}", "U", json.dumps(row)) for row in json.loads(listed)["data"])
    return tables


async def test_a_bridge_is_made_as_ovs_vsctl_makes_it(ovs: PrivateOvs, db: Followed) -> None:
    ovs.vsctl("--no-wait", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail_mode=secure")
    ovs.vsctl("--no-wait", "add-port", "br0", "p-1", "tag=5", "--", "set", "interface", "p-1", "type=internal")
    expected = everything(ovs)
    ovs.vsctl("--no-wait", "del-br", "br0")
    bridge = {"datapath_type": "netdev", "fail_mode": "secure"}
    port = NewPort("p-1", {"p-1": {"type": "internal"}}, {"tag": 5})
    await db.ovsdb.transact([*ops.add_bridge("br0", bridge), *ops.add_ports("br0", [port])])
    assert everything(ovs) == expected
    await db.ovsdb.transact(ops.delete_bridge(db.ovsdb.replica.bridges["br0"].uuid))
    assert everything(ovs) == {"Bridge": [], "Port": [], "Interface": []}


async def test_every_form_of_value_is_written(db: Followed) -> None:
    bridge = {"protocols": ("OpenFlow14", "OpenFlow10"), "external_ids": {"reconciler": "me"}, "controller": ()}
    bond = NewPort(
        "bond-é",
        {"e.0": {"options": {"k": "v w"}, "mtu_request": 9000}, "e.1": {}},
        {"bond_mode": "active-backup", "trunks": (3, 1), "vlan_mode": None, "other_config": {}},
    )
    await db.ovsdb.transact(
        [
            *ops.add_bridge("br0", bridge, port={"tag": 3}, interface={"mac": "02:00:00:00:00:01"}),
            *ops.add_ports("br0", [bond]),
        ]
    )
    replica = db.ovsdb.replica
    assert replica.bridges["br0"].protocols == ("OpenFlow10", "OpenFlow14")
    assert replica.bridges["br0"].external_ids == {"reconciler": "me"}
    assert (replica.ports["br0"].tag, replica.interfaces["br0"].mac) == (3, "02:00:00:00:00:01")
    assert (replica.interfaces["e.0"].options, replica.interfaces["e.0"].mtu_request) == ({"k": "v w"}, 9000)
    port = replica.ports["bond-é"]
    assert (port.trunks, port.bond_mode, port.vlan_mode) == ((1, 3), "active-backup", None)
    assert {replica.interfaces[name].uuid for name in ("e.0", "e.1")} == set(port.interfaces)
    row = Row("Port", port.uuid)
    await db.ovsdb.transact([ops.update(row, {"tag": 4, "trunks": (), "bond_mode": None, "other_config": {"a": "b"}})])
    port = replica.ports["bond-é"]
    assert (port.tag, port.trunks, port.bond_mode, port.other_config) == (4, (), None, {"a": "b"})


async def test_keys_are_set_and_removed_and_others_stay(db: Followed) -> None:
    await db.ovsdb.transact(ops.add_bridge("br0", {"external_ids": {"theirs": "1", "ours": "old", "gone": "x"}}))
    done = await db.ovsdb.transact(
        [
            ops.set_keys(BR0, "external_ids", {"ours": "new", "more": "2"}),
            ops.remove_keys(BR0, "external_ids", ["gone", "no"]),
        ]
    )
    assert done.touched == {"br0"}
    assert db.ovsdb.replica.bridges["br0"].external_ids == {"theirs": "1", "ours": "new", "more": "2"}
    await db.ovsdb.transact([ops.set_keys(ops.ROOT, "other_config", {"k": "v"})])
    assert db.ovsdb.replica.root is not None
    assert db.ovsdb.replica.root.other_config == {"k": "v"}


async def test_ports_are_deleted_with_their_interfaces_and_deleting_twice_is_nothing(db: Followed) -> None:
    names = [f"p{number}" for number in range(5)]
    await db.ovsdb.transact(
        [*ops.add_bridge("br0"), *ops.add_ports("br0", [NewPort(name, {name: {}}) for name in names])]
    )
    uuids = [db.ovsdb.replica.ports[name].uuid for name in names[:4]]
    assert (await db.ovsdb.transact(ops.delete_ports(BR0, uuids))).touched == {"br0", *names[:4]}
    assert set(db.ovsdb.replica.interfaces) == {"br0", "p4"}
    assert (await db.ovsdb.transact(ops.delete_ports(BR0, uuids[:1]))).touched == frozenset()


async def test_a_port_is_replaced_in_one_transaction(db: Followed) -> None:
    await db.ovsdb.transact([*ops.add_bridge("br0"), *ops.add_ports("br0", [NewPort("p", {"p": {}})])])
    old = db.ovsdb.replica.ports["p"].uuid
    again = NewPort("p", {"p": {"type": "internal"}})
    done = await db.ovsdb.transact([*ops.delete_ports(BR0, [old]), *ops.add_ports("br0", [again])])
    assert done.touched == {"br0", "p"}
    assert db.ovsdb.replica.ports["p"].uuid != old
    assert db.ovsdb.replica.interfaces["p"].type == "internal"


async def test_vswitchd_recreates_nothing_when_it_sees_deletion_and_addition_at_once(ovs: PrivateOvs) -> None:
    port = NewPort("p", {"p": {"type": "internal"}})
    async with following(ovs.db) as db:
        replica = db.ovsdb.replica

        async def settled_ofport() -> int | None:
            await until(lambda: replica.interfaces["p"].ofport)
            return replica.interfaces["p"].ofport

        await db.ovsdb.transact([*ops.add_bridge("br0", {"datapath_type": "netdev"}), *ops.add_ports("br0", [port])])
        before = await settled_ofport()
        device = ovs.run("ip", "-o", "link", "show", "dev", "p").partition(":")[0]
        await db.ovsdb.transact([*ops.delete_ports(BR0, [replica.ports["p"].uuid]), *ops.add_ports("br0", [port])])
        assert await settled_ofport() == before
        with ovs.vswitchd.frozen():
            await db.ovsdb.transact(ops.delete_ports(BR0, [replica.ports["p"].uuid]))
            await db.ovsdb.transact(ops.add_ports("br0", [port]))
            for _ in range(2):  # ovsdb-server tells who wrote first, the others in its next turn
                await db.ovsdb.transact([ops.expect(BR0)])
        assert await settled_ofport() == before
        assert ovs.run("ip", "-o", "link", "show", "dev", "p").partition(":")[0] == device


async def test_guards_fail_the_whole_transaction_when_a_rival_was_quicker(db: Followed) -> None:
    transact = db.ovsdb.transact
    change = ops.set_keys(ops.ROOT, "other_config", {"written": "yes"})
    await transact([*ops.add_bridge("br0", {"fail_mode": "secure"}), *ops.add_ports("br0", [NewPort("p", {"p": {}})])])
    port = Row("Port", db.ovsdb.replica.ports["p"].uuid)
    await transact(
        [
            ops.expect(port),
            ops.expect(BR0, {"fail_mode": "secure", "protocols": ()}),
            ops.expect_absent(Row("Port", name="q")),
        ]
    )
    await transact(ops.delete_ports(BR0, [port.uuid]))
    for guard in (
        ops.expect(port),
        ops.expect(BR0, {"fail_mode": None}),
        ops.expect(Row("Bridge", name="br1")),
        ops.expect_absent(BR0),
    ):
        with pytest.raises(
            TransactionError, match=r"operation 1 \(wait .*timed out.*somebody else changed it"
        ) as failed:
            await transact([change, guard])
        assert failed.value.index == 1
    for deed in (ops.add_bridge("br0"), ops.add_ports("br1", [NewPort("p", {"p": {}})])):
        with pytest.raises(TransactionError, match="timed out"):
            await transact([change, *deed])
    assert db.ovsdb.replica.root is not None
    assert db.ovsdb.replica.root.other_config == {}
    assert set(db.ovsdb.replica.ports) == {"br0"}


def test_values_are_encoded_as_the_rfc_says() -> None:
    assert ops.encode(None) == ["set", []]
    assert ops.encode(()) == ["set", []]
    assert ops.encode(5) == 5
    assert ops.encode("x") == "x"
    assert ops.encode((1, 2)) == ["set", [1, 2]]
    assert ops.encode({"b": "1", "a": "2"}) == ["map", [["a", "2"], ["b", "1"]]]
    assert ops.encode((Ref("u"), Ref("n", named=True))) == ["set", [["uuid", "u"], ["named-uuid", "n"]]]
