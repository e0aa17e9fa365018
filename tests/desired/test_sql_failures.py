"""A store that cannot: every way of failing is a StoreError that says which, and is recovered from."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from desired.sql import SqlStore
from desired.store import JournalRow, RevisionRow, StoreError
from tests.postgres import PostgresServer

FULL_DISK = """
import os, sys
from desired.sql import SqlStore
from desired.store import HistoryQuery, JournalRow, Retention, StoreError

store = SqlStore(f"sqlite:///{sys.argv[1]}/store.db", "n")
store.open()
action = {"resource": "flow/a", "why": "x" * 1000}
rows = [JournalRow(number, 1.0, "s", "t", "r", "converged", 0.1, 0.1, (action,) * 10) for number in range(1, 1000)]
written = 0
try:
    for row in rows:
        store.append_journal([row])
        written += 1
except StoreError as error:
    print(error)
else:
    raise SystemExit("the disk never got full")
ballast = sys.argv[1] + "/ballast"
assert store.last_pass_id() == written, "what was written before can be read"
os.unlink(ballast)
store.append_journal(rows[written:written + 5])
assert store.last_pass_id() == written + 5, "with room again it goes on by itself"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    made = SqlStore(f"sqlite:///{path}", "node-1")
    yield made
    made.close()


def entry(pass_id: int) -> JournalRow:
    return JournalRow(pass_id, 1.0, "flow/br-int", "event", "abc", "converged", 0.01, 0.02)


def test_a_database_locked_by_another_process_is_named_and_comes_back(store: SqlStore, path: Path) -> None:
    store.append_journal([entry(1)])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=r"appending to the journal failed: it is locked by another process"):
            store.append_journal([entry(2)])
        assert store.last_pass_id() == 1, "reading goes on"
    store.append_journal([entry(3)])
    assert store.last_pass_id() == 3


def test_an_empty_file_locked_by_another_process_cannot_be_opened_yet(store: SqlStore, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="opening it failed: it is locked by another process"):
            store.open()
    store.open()


def test_a_full_disk_is_named_and_what_is_there_stays_readable(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=1500k none "$0" && head -c 500k /dev/zero >"$0/ballast" && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, str(tmp_path), sys.executable, "-W", "error", "-c", FULL_DISK]
    done = subprocess.run([*argv, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert "appending to the journal failed: the disk is full" in done.stdout


def test_a_file_that_is_no_database_is_named_and_kept(store: SqlStore, path: Path) -> None:
    path.write_bytes(b"precious, not a database\n" * 1000)
    with pytest.raises(StoreError, match="opening it failed: the file is not an SQLite database; it is left as it is"):
        store.open()
    assert path.read_bytes() == b"precious, not a database\n" * 1000


def test_a_damaged_database_is_named_and_kept(store: SqlStore, path: Path) -> None:
    store.append_journal([entry(number) for number in range(1, 3000)])
    store.close()
    content = bytearray(path.read_bytes())
    content[8192:-8192] = b"\xa5" * (len(content) - 16384)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="the database file is damaged; it is left as it is"):
        store.append_journal([entry(4000)])
    store.close()
    assert path.read_bytes()[8192:9000] == b"\xa5" * 808


def test_a_directory_in_its_place_is_named(store: SqlStore, path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="opening it failed: the file cannot be opened"):
        store.open()
    path.rmdir()
    store.open()


def test_a_path_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"opening it failed: (?:File exists|Not a directory) \(.*/file"):
        SqlStore(f"sqlite:///{tmp_path}/file/store/store.db", "n").open()


def test_a_file_deleted_under_a_running_store_is_made_again(store: SqlStore, path: Path) -> None:
    store.append_journal([entry(1)])
    for each in path.parent.iterdir():
        each.unlink()
    store.append_journal([entry(2)])
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("select pass_id from journal").fetchall() == [(2,)]


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="opening it failed: there is no connection to the server"):
        SqlStore(f"postgresql://eva@/net?host={tmp_path}", "n").open()
    with pytest.raises(StoreError, match=r"there is no connection to the server .*refused"):
        SqlStore("postgresql://eva@127.0.0.1:1/net", "n").open()


def test_a_database_that_is_not_on_the_server_is_named(postgres_server: PostgresServer) -> None:
    with pytest.raises(StoreError, match=r'opening it failed: .*"nowhere" does not exist'):
        SqlStore(postgres_server.url("nowhere"), "n").open()


def test_a_server_that_is_killed_and_comes_back_is_used_again() -> None:
    server = PostgresServer()
    try:
        store = SqlStore(server.url(server.create_database()), "n")
        store.append_journal([entry(1)])
        server.kill()
        with pytest.raises(StoreError, match="appending to the journal failed"):
            store.append_journal([entry(2)])
        with pytest.raises(StoreError, match="opening it failed: there is no connection to the server"):
            store.append_journal([entry(2)])
        server.start()
        store.append_journal([entry(2)])
        assert store.last_pass_id() == 2
        store.close()
    finally:
        server.close()


def test_no_message_has_the_password() -> None:
    store = SqlStore("postgresql://eva:s3cret@127.0.0.1:1/net?sslpassword=s3cret", "n")
    assert store.url == "postgresql+psycopg://eva:***@127.0.0.1:1/net?sslpassword=%2A%2A%2A"
    with pytest.raises(StoreError, match=r"^store postgresql\+psycopg://eva:\*\*\*@127") as caught:
        store.open()
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__!r}"
    with pytest.raises(StoreError, match="the store's URL cannot be read") as caught:
        SqlStore("eva:s3cret@@", "n")
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__!r}"


def test_a_driver_that_is_not_installed_is_named() -> None:
    with pytest.raises(StoreError, match="the driver 'psycopg2' is not installed"):
        SqlStore("postgresql+psycopg2://127.0.0.1/net", "n").open()
    with pytest.raises(StoreError, match="nosuch"):
        SqlStore("nosuch://127.0.0.1/net", "n").open()


def test_after_an_error_a_revision_is_whole_or_not_there(store: SqlStore, path: Path) -> None:
    store.save_revision(RevisionRow("a", 1.0), [])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError):
            store.save_revision(RevisionRow("b", 2.0), [])
    last = store.last_revision()
    assert last is not None
    assert last[0].revision == "a"
