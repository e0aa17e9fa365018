"""ovsdbapp's reading of the database agrees with the replica, and tells where it does not."""

from __future__ import annotations

import asyncio

import pytest

from controllers.drivers.ovsdb.audit import audit, differences
from controllers.drivers.ovsdb.replica import Replica
from controllers.drivers.ovsdb.rows import BridgeRow, InterfaceRow, PortRow
from reconciler.errors import DriverError
from tests.controllers.drivers.ovsdb.support import following
from tests.ovs import PrivateOvs


async def test_an_audit_agrees_with_the_replica_and_sees_a_difference(ovs: PrivateOvs) -> None:
    await asyncio.to_thread(
        ovs.add_bridge, "br0", "protocols=OpenFlow14,OpenFlow10", "fail_mode=secure", "other-config:a=b"
    )
    await asyncio.to_thread(
        ovs.vsctl,
        *("add-port", "br0", "p-é", "tag=5", "trunks=3,2", "--", "set", "interface", "p-é", "type=internal"),
        *("external_ids:iface-id=id", "mtu_request=1400", "--", "set-controller", "br0", "ptcp:"),
        *("--", "--id=@m", "create", "mirror", "name=m", "--", "set", "bridge", "br0", "mirrors=@m"),
    )
    async with following(ovs.db) as db:
        await db.settled()
        for _ in range(2):  # ovsdbapp keeps one connection per class: a second audit must have its own
            assert await asyncio.to_thread(audit, ovs.db, db.ovsdb.replica.copy()) == []
        stale = db.ovsdb.replica.copy()
        await asyncio.to_thread(ovs.vsctl, "set", "port", "p-é", "tag=6", "--", "add-port", "br0", "q")
        told = await asyncio.to_thread(audit, ovs.db, stale)
        assert "port p-é: tag is 6 in the database, 5 in the replica" in told
        assert "port q: in the database, not in the replica" in told
        assert "port q: on bridge br0 in the database, on None in the replica" in told
        assert await asyncio.to_thread(audit, ovs.db, db.ovsdb.replica.copy()) == []


def test_a_database_that_is_not_there_cannot_be_audited(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(DriverError, match="cannot read its schema"):
        audit(f"unix:{tmp_path_factory.mktemp('no') / 'db.sock'}", Replica())


def test_a_frozen_server_ends_the_audit_after_its_timeout(ovs: PrivateOvs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controllers.drivers.ovsdb.audit._TIMEOUT", 0.2)
    with ovs.ovsdb.frozen(), pytest.raises(DriverError, match="timed out"):
        audit(ovs.db, Replica())


def test_every_difference_is_told_in_words() -> None:
    ours = Replica([BridgeRow("b", "br0"), InterfaceRow("j", "only-ours")])
    theirs = Replica(
        [
            BridgeRow("b", "br0", ("p",)),
            PortRow("p", "p", ("i",)),
            InterfaceRow("i", "p", external_ids={"iface-id": "x"}),
        ]
    )
    assert list(differences(ours, theirs)) == [
        "interface p: in the database, not in the replica",
        "port p: in the database, not in the replica",
        "interface only-ours: in the replica, not in the database",
        "bridge br0: ports is ('p',) in the database, () in the replica",
        "port p: on bridge br0 in the database, on None in the replica",
        "iface-id x: ports ('p',) in the database, () in the replica",
    ]
    assert list(differences(ours, ours.copy())) == []
