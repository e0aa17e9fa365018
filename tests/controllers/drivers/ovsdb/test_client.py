"""The driver against a real ovsdb-server, and a real ovs-vswitchd beside it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest

from controllers.drivers.ovsdb import ops
from controllers.drivers.ovsdb.client import Ovsdb, TransactionError
from controllers.drivers.ovsdb.ops import NewPort, Row
from reconciler.errors import ConfigError, DriverError, NotReady
from tests.controllers.drivers.ovsdb.support import Followed, following
from tests.controllers.drivers.patience import running, until
from tests.ovs import PrivateOvs

NETDEV = {"datapath_type": "netdev"}


@pytest.fixture
async def db(ovs: PrivateOvs) -> AsyncIterator[Followed]:
    """An empty switch that is followed."""
    async with following(ovs.db) as followed:
        yield followed


async def vsctl(ovs: PrivateOvs, *args: str) -> str:
    return await asyncio.to_thread(ovs.vsctl, *args)


async def test_what_ovs_vsctl_does_is_reported_by_name(ovs: PrivateOvs, db: Followed) -> None:
    replica = db.ovsdb.replica
    await asyncio.to_thread(ovs.add_bridge, "br0", "protocols=OpenFlow14,OpenFlow10", "fail_mode=secure")
    await db.sees("br0")
    assert (replica.bridges["br0"].fail_mode, replica.bridges["br0"].datapath_type) == ("secure", "netdev")
    assert replica.bridges["br0"].protocols == ("OpenFlow10", "OpenFlow14")

    tap = ("--", "set", "interface", "tap-é", "type=internal", "external_ids:iface-id=abc")
    await vsctl(ovs, "add-port", "br0", "tap-é", "tag=5", *tap)
    await db.sees("br0", "tap-é")
    await until(lambda: replica.interfaces["tap-é"].ofport == 1)
    await db.settled()
    assert replica.ports["tap-é"].tag == 5
    assert replica.bridge_of_port("tap-é") == "br0"
    assert replica.ports_by_iface_id("abc") == ("tap-é",)

    await vsctl(ovs, "set", "port", "tap-é", "tag=6", "trunks=3,1,2", "other_config:a=b")
    assert db.named() == {"tap-é"}
    assert (replica.ports["tap-é"].tag, replica.ports["tap-é"].trunks) == (6, (1, 2, 3))
    db.events.clear()

    await vsctl(ovs, "clear", "port", "tap-é", "tag", "trunks", "other_config")
    assert (replica.ports["tap-é"].tag, replica.ports["tap-é"].trunks) == (None, ())
    assert replica.ports["tap-é"].other_config == {}
    assert db.named() == {"tap-é"}
    db.events.clear()

    await vsctl(ovs, "set", "interface", "tap-é", "external_ids:iface-id=other", "mtu_request=1400")
    await db.sees("tap-é")
    assert (replica.ports_by_iface_id("abc"), replica.ports_by_iface_id("other")) == ((), ("tap-é",))
    await until(lambda: replica.interfaces["tap-é"].mtu == 1400)

    await vsctl(ovs, "--", "del-port", "tap-é", "--", "add-port", "br0", "two")
    await db.sees("br0", "tap-é", "two")
    assert set(replica.ports) == {"br0", "two"}
    assert replica.ports_by_iface_id("other") == ()

    await vsctl(ovs, "del-br", "br0")
    await db.sees("br0", "two")
    assert (replica.bridges, replica.ports, replica.interfaces) == ({}, {}, {})

    await vsctl(ovs, "set", "open_vswitch", ".", "other_config:flow-restore-wait=true")
    assert (None, "Open_vSwitch row changed") in db.events
    assert replica.root is not None
    assert replica.root.other_config == {"flow-restore-wait": "true"}
    assert "netdev" in replica.root.datapath_types
    assert "geneve" in replica.root.iface_types


async def test_a_bond_is_told_by_its_port(ovs: PrivateOvs, db: Followed) -> None:
    await asyncio.to_thread(ovs.add_bridge, "br0")
    await vsctl(ovs, "--no-wait", "add-bond", "br0", "bond0", "e0", "e1", "lacp=active", "bond_mode=balance-slb")
    await db.sees("br0", "bond0")
    await db.settled()
    await vsctl(ovs, "--no-wait", "set", "interface", "e1", "external_ids:x=y")
    await db.sees("bond0")
    bond = db.ovsdb.replica.ports["bond0"]
    assert (bond.lacp, bond.bond_mode, len(bond.interfaces)) == ("active", "balance-slb", 2)


async def test_statistics_are_no_events(ovs: PrivateOvs, db: Followed) -> None:
    await asyncio.to_thread(ovs.add_bridge, "br0")
    await vsctl(ovs, "set", "open_vswitch", ".", "other_config:stats-update-interval=1000")
    await db.settled()
    await asyncio.sleep(1.5)
    assert db.events == []


async def test_our_own_transaction_is_no_event_and_says_what_it_touched(ovs: PrivateOvs, db: Followed) -> None:
    ovs.stop_vswitchd()
    await db.settled()
    done = await db.ovsdb.transact(ops.add_bridge("br0", NETDEV))
    assert done.touched == {"br0"}
    assert db.ovsdb.replica.bridge_of_port("br0") == "br0"
    done = await db.ovsdb.transact(ops.add_ports("br0", [NewPort("p1", {"p1": {"type": "internal"}})]))
    assert done.touched == {"br0", "p1"}
    assert len(done.results) == 4
    uuid = db.ovsdb.replica.ports["p1"].uuid
    done = await db.ovsdb.transact([ops.update(Row("Port", uuid), {"tag": 7})])
    assert (done.touched, done.results) == ({"p1"}, ({"count": 1},))
    assert (await db.ovsdb.transact([ops.update(Row("Port", uuid), {"tag": 7})])).touched == frozenset()
    await db.ovsdb.transact(ops.delete_ports(Row("Bridge", name="br0"), [uuid]))
    await asyncio.sleep(0.05)
    assert db.events == []
    assert set(db.ovsdb.replica.ports) == {"br0"}


async def test_vswitchd_acts_without_being_asked(ovs: PrivateOvs, db: Followed) -> None:
    await db.ovsdb.transact(ops.add_bridge("br0", NETDEV))
    await db.ovsdb.transact(ops.add_ports("br0", [NewPort("p1", {"p1": {"type": "internal"}})]))
    await until(lambda: (db.ovsdb.replica.interfaces["p1"].ofport or 0) > 0)
    assert "p1" in db.named()
    assert "p1" in ovs.ofctl("show", "br0")


async def test_many_transactions_at_once_all_arrive_and_none_is_an_event(ovs: PrivateOvs, db: Followed) -> None:
    ovs.stop_vswitchd()
    await db.settled()
    await db.ovsdb.transact(ops.add_bridge("br0", NETDEV))
    names = [f"p{number}" for number in range(50)]
    every = await asyncio.gather(*(db.ovsdb.transact(ops.add_ports("br0", [NewPort(n, {n: {}})])) for n in names))
    assert [done.touched for done in every] == [{"br0", name} for name in names]
    assert db.events == []


async def test_a_rivals_changes_are_either_events_or_touched(ovs: PrivateOvs, db: Followed) -> None:
    ovs.stop_vswitchd()
    async with following(ovs.db) as rival:
        await rival.ovsdb.transact(ops.add_bridge("br0", NETDEV))
        await db.sees("br0")
        names = [f"p{number}" for number in range(200)]
        seen: set[str] = set()

        async def ours() -> None:
            for number in range(200):
                where = Row("Bridge", name="br0")
                done = await db.ovsdb.transact([ops.set_keys(where, "other_config", {"n": str(number)})])
                seen.update(done.touched)

        async def theirs() -> None:
            for name in names:
                await rival.ovsdb.transact(ops.add_ports("br0", [NewPort(name, {name: {}})]))

        await asyncio.gather(ours(), theirs())
        await until(lambda: len(db.ovsdb.replica.ports) == 201)
        assert set(names) <= seen | db.named()
        assert db.ovsdb.replica.rows() == rival.ovsdb.replica.rows()


async def test_a_refused_transaction_speaks_ovsdbs_words_and_writes_nothing(ovs: PrivateOvs, db: Followed) -> None:
    ovs.stop_vswitchd()
    await db.ovsdb.transact(ops.add_bridge("br0", NETDEV))
    port = NewPort("p1", {"p1": {}})
    await db.ovsdb.transact(ops.add_ports("br0", [port]))
    before = dict(db.ovsdb.replica.rows())

    with pytest.raises(TransactionError, match=r"constraint violation: Transaction causes multiple rows") as refused:
        await db.ovsdb.transact(ops.add_ports("br0", [port]))
    assert refused.value.index is None

    with pytest.raises(
        TransactionError, match=r"operation 1 \(update Port\): constraint violation: 5000 is"
    ) as refused:
        await db.ovsdb.transact(
            [
                ops.update(Row("Port", name="p1"), {"vlan_mode": "trunk"}),
                ops.update(Row("Port", name="p1"), {"tag": 5000}),
            ]
        )
    assert refused.value.index == 1

    with pytest.raises(TransactionError, match=r"unknown (table|column)|No column"):
        await db.ovsdb.transact([ops.update(Row("Port", name="p1"), {"nothing": 1})])
    with pytest.raises(TransactionError):
        await db.ovsdb.transact([{"op": "nonsense"}])
    assert db.ovsdb.ready
    assert db.ovsdb.replica.rows() == before


async def test_a_rivals_change_during_a_refused_transaction_is_an_event(ovs: PrivateOvs, db: Followed) -> None:
    ovs.stop_vswitchd()
    async with following(ovs.db) as rival:
        await rival.ovsdb.transact(ops.add_bridge("br0", NETDEV))
        await db.sees("br0")
        with ovs.ovsdb.frozen():
            change = asyncio.create_task(
                rival.ovsdb.transact([ops.update(Row("Bridge", name="br0"), {"fail_mode": "secure"})])
            )
            await asyncio.sleep(0.01)
            refused = asyncio.create_task(db.ovsdb.transact([ops.expect(Row("Bridge", name="none"))]))
            await asyncio.sleep(0.01)
        await change
        with pytest.raises(TransactionError, match="somebody else changed it"):
            await refused
        await db.sees("br0")


async def test_a_cancelled_transaction_leaves_its_changes_as_events(ovs: PrivateOvs, db: Followed) -> None:
    ovs.stop_vswitchd()
    await db.settled()
    with ovs.ovsdb.frozen():
        task = asyncio.create_task(db.ovsdb.transact(ops.add_bridge("br0", NETDEV)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await db.sees("br0")
    assert (await db.ovsdb.transact(ops.add_bridge("br1", NETDEV))).touched == {"br1"}


async def test_a_frozen_server_is_an_error_within_the_timeout_and_is_read_anew_afterwards(ovs: PrivateOvs) -> None:
    ovs.stop_vswitchd()
    async with following(ovs.db, timeout=0.3) as db:
        with ovs.ovsdb.frozen():
            waiting = asyncio.create_task(db.ovsdb.transact(ops.add_bridge("br0", NETDEV)))
            behind = asyncio.create_task(db.ovsdb.transact(ops.add_bridge("br1", NETDEV)))
            with pytest.raises(DriverError, match="may have been written all the same"):
                await waiting
            with pytest.raises(DriverError, match=r"not sent|not connected"):
                await behind
            assert not db.ovsdb.ready
            assert db.ovsdb.replica.bridges == {}
            assert db.events == [(None, "OVSDB connection lost")]
            with pytest.raises(NotReady, match="not connected"):
                await db.ovsdb.transact(ops.add_bridge("br2", NETDEV))
            await until(lambda: "does not answer" in db.ovsdb.problem)
        await until(lambda: (None, "connected") in db.events)
        await until(lambda: "br0" in db.ovsdb.replica.bridges, what="the late transaction is seen")
        assert "br1" not in db.ovsdb.replica.bridges
        assert db.ovsdb.problem == ""


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restarted_server_is_read_anew(ovs: PrivateOvs, db: Followed, sig: signal.Signals) -> None:
    await asyncio.to_thread(ovs.add_bridge, "br0")
    await db.sees("br0")
    await db.settled()
    ovs.stop_ovsdb(sig)
    await until(lambda: not db.ovsdb.ready)
    assert db.events == [(None, "OVSDB connection lost")]
    assert db.ovsdb.replica.root is None
    await until(lambda: "cannot connect" in db.ovsdb.problem)
    await asyncio.to_thread(ovs.start_ovsdb)
    db.ovsdb.poke()
    await until(lambda: db.ovsdb.ready)
    assert (None, "connected") in db.events
    assert set(db.ovsdb.replica.bridges) == {"br0"}
    await vsctl(ovs, "--no-wait", "set", "bridge", "br0", "fail_mode=secure")
    await db.sees("br0")


async def test_a_poke_connects_at_once(ovs: PrivateOvs) -> None:
    ovs.stop_ovsdb()
    followed = Followed(ovs.db)
    async with running(followed.ovsdb):
        await asyncio.sleep(0.7)  # until the pauses are long
        await asyncio.to_thread(ovs.start_ovsdb)
        followed.ovsdb.poke()
        began = time.monotonic()
        await until(lambda: followed.ovsdb.ready)
        assert time.monotonic() - began < 0.3
    assert followed.events == [(None, "connected")]
    assert not followed.ovsdb.ready


async def test_a_silent_stream_is_probed_and_stays(ovs: PrivateOvs) -> None:
    ovs.stop_vswitchd()
    async with following(ovs.db, silence=0.05) as db:
        before = db.ovsdb.last_event
        await until(lambda: db.ovsdb.last_event > before)
        assert db.ovsdb.ready
        assert db.events == []


def test_only_unix_sockets_are_spoken_to() -> None:
    for remote in ("tcp:127.0.0.1:6640", "unix:", "/run/openvswitch/db.sock"):
        with pytest.raises(ConfigError, match="only unix:PATH"):
            Ovsdb(remote, on_change=lambda _names, _why: None)


async def test_four_thousand_ports_load_and_one_change_among_them_is_one_event(
    ovs: PrivateOvs, capsys: pytest.CaptureFixture[str]
) -> None:
    ovs.stop_vswitchd()
    async with following(ovs.db) as db:
        ports = [
            NewPort(f"tap{n:08x}", {f"tap{n:08x}": {"external_ids": {"iface-id": f"id-{n}"}}}, {"tag": n % 4000 + 1})
            for n in range(4000)
        ]
        await db.ovsdb.transact([*ops.add_bridge("br0", NETDEV), *ops.add_ports("br0", ports)])
        assert len(db.ovsdb.replica.ports) == 4001
    began = time.perf_counter()
    async with following(ovs.db) as db, following(ovs.db) as rival:
        loaded = time.perf_counter() - began
        assert db.ovsdb.replica.ports_by_iface_id("id-77") == ("tap0000004d",)
        began = time.perf_counter()
        await rival.ovsdb.transact([ops.update(Row("Port", name="tap0000004d"), {"tag": 9})])
        await db.sees("tap0000004d")
        event = time.perf_counter() - began
        began = time.perf_counter()
        await db.ovsdb.transact(
            ops.delete_ports(Row("Bridge", name="br0"), [db.ovsdb.replica.ports["tap0000004d"].uuid])
        )
        delete = time.perf_counter() - began
    with capsys.disabled():
        print(f"\n4,000 ports, ms: load by two {loaded * 1e3:.0f}, event {event * 1e3:.2f}, delete {delete * 1e3:.2f}")
