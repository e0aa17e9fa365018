"""What MariaDB does in a way of its own: names in any script, commits of DDL, refusals, Galera's status as a value.

That it holds the contract of a store is in test_sql.py and test_sql_migrations.py, beside the other databases.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from threading import Barrier

import pytest

from desired.sql import SqlStore
from desired.sql.scalar import scalar
from desired.store import PauseRow, ResourceRow, RevisionRow, StoreError
from reconciler.errors import DriverError
from tests.mariadb import MariadbServer

NAMES = ("Straße", "strasse", "STRASSE", "a", "a ", "日本 🦑")
"""One name to a collation of words, several to a kernel."""


@pytest.fixture
def store(mariadb_url: str) -> Iterator[SqlStore]:
    with closing(SqlStore(mariadb_url, "Knoten-Ä")) as made:
        made.open()
        yield made


@pytest.fixture
def reader(mariadb_server: MariadbServer) -> str:
    """The URL of a user with a password."""
    mariadb_server.execute(
        "create or replace user reader@localhost identified by 's3cret'", "grant select on *.* to reader@localhost"
    )
    return mariadb_server.url("mysql", "reader:s3cret")


def test_names_are_what_they_are_whatever_the_database_s_collation_makes_of_them(store: SqlStore) -> None:
    store.save_revision(RevisionRow("r", 1.0, "ä", "🦑"), [ResourceRow("flow", name, {}, "files") for name in NAMES])
    for number, name in enumerate(NAMES):
        store.save_pause(PauseRow(name, "why", float(number), None, "me"))
    assert sorted(pause.what for pause in store.pauses()) == sorted(NAMES)
    last = store.last_revision()
    assert last is not None
    assert sorted(resource.name for resource in last[1]) == sorted(NAMES)
    assert last[0].message == "🦑"


def test_nodes_that_write_at_the_same_moment_do_not_lock_each_other_out(mariadb_url: str) -> None:
    together = Barrier(4)
    with ExitStack() as undo, ThreadPoolExecutor(4) as pool:
        stores = [undo.enter_context(closing(SqlStore(mariadb_url, f"node-{number}"))) for number in range(4)]
        for each in stores:
            each.open()

        def write(each: SqlStore) -> None:
            for number in range(20):
                together.wait(30)
                each.save_approval(f"{number}", float(number), "me")
                each.save_pause(PauseRow(f"{number}", "why", float(number), None, "me"))

        list(pool.map(write, stores))
        assert [len(each.approvals()) for each in stores] == [len(each.pauses()) for each in stores] == [20] * 4


def test_a_refusal_says_which_and_shows_no_password(mariadb_server: MariadbServer, reader: str) -> None:
    for url, why in (
        (reader.replace("s3cret", "wr0ng"), "the server does not accept this user or password"),
        (reader, "this user may not do that"),
        (mariadb_server.url("nowhere"), "the database does not exist on the server"),
    ):
        with pytest.raises(StoreError, match=f"opening it failed: {why}") as caught:
            SqlStore(url, "n").open()
        assert not any(secret in str(caught.value) for secret in ("s3cret", "wr0ng"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_is_killed_and_comes_back_is_used_again(mariadb_server: MariadbServer, store: SqlStore) -> None:
    store.save_approval("a", 1.0, "me")
    mariadb_server.kill()
    try:
        with pytest.raises(StoreError, match=r"there is no connection to the server|the connection broke"):
            store.save_approval("b", 1.0, "me")
    finally:
        mariadb_server.start()
    store.save_approval("b", 1.0, "me")
    assert sorted(store.approvals()) == ["a", "b"]
    gc.collect()  # PyMySQL leaves the socket of a connection that is refused to it


def test_a_value_is_asked_of_it_also_one_of_show_status(mariadb_server: MariadbServer, reader: str) -> None:
    assert scalar(reader, "select 3", 5.0) == 3
    assert int(scalar(reader, "show status like 'wsrep_cluster_size'", 5.0)) == 0
    assert scalar(reader, "show variables like 'no_such_thing'", 5.0) is None
    assert scalar(reader.replace("mariadb://", "mysql+pymysql://"), "select 4", 5.0) == 4
    for url, query, why in (
        (reader.replace("s3cret", "wr0ng"), "select 1", "Access denied for user 'reader'@'localhost'"),
        (reader, "selct 1", "error in your SQL syntax"),
        ("mariadb://reader@127.0.0.1:1/x", "select 1", "Can't connect"),
    ):
        with pytest.raises(DriverError, match=why) as caught:
            scalar(url, query, 5.0)
        assert not any(secret in str(caught.value) for secret in ("s3cret", "wr0ng"))
