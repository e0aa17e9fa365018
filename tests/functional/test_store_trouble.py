"""A database that is locked, full, unreadable or newer than this program: repairs go on, it says so, it recovers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from tests.functional.daemon import Node
from tests.ovs import PrivateOvs

DESIRED = {"bridges": {"br0": {}}, "flows": {"br0": ["priority=1,actions=NORMAL", "priority=5,arp,actions=drop"]}}
FLOW = "flow/br0/priority=5,arp"


@pytest.fixture
def up(node: Node) -> Iterator[Node]:
    node.declare(**DESIRED)
    node.start()
    yield node
    assert node.stop() == 0


def _database(node: Node) -> sqlite3.Connection:
    return sqlite3.connect(node.state / "state.db", timeout=5, isolation_level=None)


def _repairs(node: Node) -> None:
    with node.repairs(FLOW, converged=False):
        node.ovs.ofctl("del-flows", "br0", "arp")


def _stored(node: Node) -> int:
    database = _database(node)
    try:
        return int(database.execute("select count(*) from journal").fetchone()[0])
    finally:
        database.close()


def test_locked_database_holds_up_no_repair_and_is_written_afterwards(up: Node) -> None:
    up.until(lambda: _stored(up), "the beginning is stored", 5)
    before, database = _stored(up), _database(up)
    try:
        database.execute("begin immediate")
        _repairs(up)
        up.until(lambda: "lock" in str(up.status().notices), "it is told", 15)
        assert "lock" in up.cli("status").out
        assert up.get("/healthz")[0] == 200
        _repairs(up)
        database.execute("rollback")
    finally:
        database.close()
    up.until(lambda: _stored(up) >= before + 2, "it is written", 15)
    up.until(lambda: not up.status().notices, "it is well again", 15)
    assert up.status().exit_code == 0


def test_database_deleted_while_running_holds_up_nothing(up: Node) -> None:
    for file in up.state.iterdir():
        file.unlink()
    _repairs(up)
    _repairs(up)
    assert up.status().exit_code == 0
    assert up.cli("--once").code == 0


@pytest.mark.parametrize("how", ["garbage", "newer", "directory"])
def test_unusable_database_does_not_stop_a_start_from_yaml(node: Node, how: str) -> None:
    node.declare(**DESIRED)
    node.state.mkdir()
    path = node.state / "state.db"
    if how == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    elif how == "directory":
        path.mkdir()
    else:
        assert node.cli("--once").code == 0
        database = _database(node)
        database.execute("update alembic_version set version_num = '9999_of_the_future'")
        database.close()
    node.start()
    assert len(node.ovs.flows("br0")) == 2
    node.until(lambda: node.status().notices, "it is told", 5)
    said = node.cli("status")
    assert said.code == 0
    assert "state.db" in said.out
    node.until(lambda: node.metrics()["reconciler_store_available"] == 0, "the metric says it", 5)
    _repairs(node)
    assert node.cli("history", FLOW).code == 0, "the history of this run is in memory"
    assert node.cli("--once").code == 0
    if how == "garbage":
        path.unlink()
        node.until(lambda: not node.status().notices, "it is made anew", 15)
        node.until(lambda: _stored(node), "what waited is written", 5)
    assert node.stop() == 0


def test_full_disk_holds_up_no_repair(ovs: PrivateOvs) -> None:
    """The state directory is a file system of its own, of which another takes all that is left."""
    node = Node(ovs)
    node.declare(**DESIRED)
    node.state.mkdir()
    ovs.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(node.state))
    node.start()
    ovs.run("sh", "-c", f"dd if=/dev/zero of={node.state}/ballast bs=4k 2>/dev/null; test -s {node.state}/ballast")
    node.until(lambda: bool(_break_and_see(node)), "it is told", 20)
    _repairs(node)
    assert node.get("/healthz")[0] == 200
    ovs.run("rm", f"{node.state}/ballast")
    node.until(lambda: not node.status().notices, "it is well again", 40)
    assert node.crashes() == []
    assert node.stop() == 0


def _break_and_see(node: Node) -> object:
    _repairs(node)
    return node.status().notices


def test_state_directory_that_cannot_be_written_is_told_and_does_without(node: Node) -> None:
    node.declare(**DESIRED)
    node.state.write_text("a file where the directory should be")
    node.start()
    node.until(lambda: node.status().notices, "it is told", 5)
    _repairs(node)
    assert node.stop() == 0
