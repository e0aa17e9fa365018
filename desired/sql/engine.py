"""How each database is spoken to: connections that cannot wait for ever, and its errors in our words, once.

SQLite is set to WAL with a short busy timeout; PostgreSQL and MariaDB get timeouts for connecting, for statements and
for half-open connections. URLs are shown without their password everywhere. Used by `sqlstore` only.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from desired.store import StoreError

BUSY_SECONDS = 0.5
"""How long a write waits for another process's write (SQLite); the caller tries again later anyway."""

CREATION_SECONDS = 10
"""The same while the schema is created or upgraded: another process may be doing so."""

ERRORS = (SQLAlchemyError, sqlite3.Error, OSError)
"""What the calls here and in `sqlstore` raise; SQLAlchemy does not wrap what its listeners raise."""

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql",
            "mariadb": "mariadb+pymysql"}  # fmt: skip
_SECRET = {"password", "passwd", "sslpassword"}

_POSTGRESQL: dict[str, Any] = {
    "connect_timeout": 3,
    "application_name": "reconciler",
    "options": "-c statement_timeout=10000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=30000",
    "tcp_user_timeout": 10000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_PYMYSQL: dict[str, Any] = {"connect_timeout": 3, "read_timeout": 10, "write_timeout": 10}


def parse_url(text: str) -> URL:
    """Read a store URL. Raises StoreError without repeating it when it cannot be read: it may hold a password."""
    try:
        url = make_url(text)
    except (SQLAlchemyError, ValueError) as error:
        raise StoreError(
            "the store's URL cannot be read; right would be sqlite:////var/lib/reconciler/reconciler.db "
            "or postgresql://user@host/database or mariadb://user@host/database"
        ) from error
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def shown(url: URL) -> str:
    """The URL as people may see it: no password, not in its parameters either."""
    hidden = {key: "***" for key in url.query if key in _SECRET}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def sqlite_file(url: URL) -> Path | None:
    """The database's file, None for anything that is not one."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return None
    return Path(url.database)


def build_engine(url: URL) -> Engine:
    """An engine whose transactions write; use `reading` for those that do not. Connects to nothing yet."""
    backend = url.get_backend_name()
    if backend == "sqlite":
        return _sqlite_engine(url)
    defaults = _POSTGRESQL if backend == "postgresql" else _PYMYSQL if url.get_driver_name() == "pymysql" else {}
    timeouts = {key: value for key, value in defaults.items() if key not in url.query}
    # At MariaDB's default, deleting a row that is not there locks the gap: two nodes that do so before they insert
    # wait for each other, and one is refused as a deadlock.
    try:
        return create_engine(
            url, connect_args=timeouts, json_serializer=to_json, pool_size=1, max_overflow=1, pool_pre_ping=True,
            isolation_level="READ COMMITTED",
        )  # fmt: skip
    except ImportError as error:
        raise StoreError(
            f"store {shown(url)}: the driver {url.get_driver_name()!r} is not installed ({error}); "
            "for PostgreSQL install psycopg[binary], for MariaDB PyMySQL"
        ) from error


def reading(engine: Engine) -> Engine:
    """The same engine for transactions that only read: on SQLite they take no write lock."""
    return engine.execution_options(reading=True)


def patient(engine: Engine) -> Engine:
    """The same engine for a transaction that waits longer for the lock (SQLite). Dispose of it afterwards."""
    return engine.execution_options(patient=True)


def to_json(value: object) -> str:
    """Compact JSON. PostgreSQL can store no NUL, not even an escaped one; MariaDB no half of a surrogate pair."""
    found = json.dumps(value, separators=(",", ":")).replace("\\u0000", "\\ufffd")
    if "\\ud" in found:
        whole = json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()
        return json.dumps(json.loads(whole), separators=(",", ":")).replace("\\u0000", "\\ufffd")
    return found


def prepare_file(path: Path) -> None:
    """Make the directory (0750) and the file (0640) if they are not there; SQLite's side files follow the file's mode.

    Raises OSError.
    """
    if not path.parent.exists():
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o750, exist_ok=True)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        return
    os.close(handle)


def use_wal(engine: Engine) -> None:
    """Switch an SQLite file to WAL. Two processes doing so at once refuse each other without waiting: try again."""
    for attempt in range(40):
        try:
            with engine.connect() as connection:
                raw = connection.connection.driver_connection
                assert isinstance(raw, sqlite3.Connection)
                if raw.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
                    raw.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if _primary(error) != sqlite3.SQLITE_BUSY or attempt == 39:
                raise
            threading.Event().wait(0.05)
        else:
            return


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, json_serializer=to_json)

    @event.listens_for(engine, "connect")
    def connected(raw: sqlite3.Connection, _record: object) -> None:
        raw.isolation_level = None  # transactions are begun below, not guessed by the driver (DDL is inside them then)
        raw.execute("PRAGMA foreign_keys=ON")
        raw.execute("PRAGMA synchronous=NORMAL")
        raw.execute("PRAGMA journal_size_limit=16777216")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # IMMEDIATE: wait for the write lock at once; a read that becomes a write is refused without waiting.
        options = connection.get_execution_options()
        if options.get("patient", False):
            connection.exec_driver_sql(f"PRAGMA busy_timeout={CREATION_SECONDS * 1000}")
        connection.exec_driver_sql("BEGIN" if options.get("reading", False) else "BEGIN IMMEDIATE")

    return engine


_SQLITE = {
    sqlite3.SQLITE_BUSY: "it is locked by another process",
    sqlite3.SQLITE_LOCKED: "it is locked by another process",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk gives errors, or is full",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database; it is left as it is; move it away for a new one",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged; it is left as it is; move it away for a new one",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_READONLY: "the file or its directory cannot be written",
    sqlite3.SQLITE_PERM: "access is denied",
}
_SQLSTATE = {
    "08": "the connection broke",
    "25006": "the database is read-only",
    "28": "the server does not accept this user or password",
    "3D": "the database does not exist on the server",
    "42501": "this user may not do that",
    "53100": "the server's disk is full",
    "53300": "the server has too many connections",
    "53": "the server lacks resources",
    "55P03": "it is locked by another process",
    "57014": "the server took too long",
    "57P": "the server is going down or starting",
}
_MARIADB = {
    1021: "the server's disk is full",
    1040: "the server has too many connections",
    1044: "the server does not accept this user or password",
    1045: "the server does not accept this user or password",
    1049: "the database does not exist on the server",
    1114: "the server's disk is full",
    1142: "this user may not do that",
    1227: "this user may not do that",
    1205: "it is locked by another process",
    2002: "there is no connection to the server",
    2003: "there is no connection to the server",
    2006: "the connection broke",
    2013: "the connection broke",
}


def store_error(error: Exception, doing: str, name: str) -> StoreError:
    """Say in one line what was tried, on which store, why it did not go, and what the database itself said."""
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return StoreError(f"store {name}: {doing} failed: {error.strerror or error} ({error.filename})")
    said: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        said = error.orig
    words = " ".join(str(said).split())
    reason = _reason(said)
    return StoreError(f"store {name}: {doing} failed: {reason} ({words})" if reason else
                      f"store {name}: {doing} failed: {words}")  # fmt: skip


def _reason(said: BaseException) -> str:
    if isinstance(said, sqlite3.Error):
        return _SQLITE.get(_primary(said), "")
    code = said.args[0] if said.args else None
    if isinstance(code, int):
        return _MARIADB.get(code, "")
    if hasattr(said, "sqlstate"):
        state = said.sqlstate
        if state is None:
            return "there is no connection to the server"
        return next((text for prefix, text in _SQLSTATE.items() if state.startswith(prefix)), "")
    return ""


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code; extended codes carry more in the higher bits. 0 when the driver gave none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
