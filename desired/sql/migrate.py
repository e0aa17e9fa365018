"""Creating the schema and bringing an older one up to date, once, whoever comes first.

An up-to-date database is recognised with one plain query. Alembic is imported only when there is something to do: it
costs some 12 MiB that a running daemon should not carry. The whole upgrade is one transaction on databases that have
transactions for DDL (MariaDB has none), behind a lock that a second process waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, MetaData, String, Table, column, func, inspect, select, table

from desired.sql.engine import CREATION_SECONDS, patient, reading
from desired.sql.tables import HEAD, KNOWN, VERSION_TABLE, metadata
from desired.store import StoreError

SCRIPTS = Path(__file__).resolve().parent.parent / "migrations"

_COMMIT_DDL = frozenset({"mysql", "mariadb"})
_LOCK = 0x7265636F6E63  # "reconc": any constant will do that all our processes share


def found_version(connection: Connection) -> str | None:
    """The schema number the database says it has; None when there is nothing of ours in it yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    versions = table(VERSION_TABLE, column("version_num", String))
    return connection.scalar(select(versions.c.version_num))


def ensure_schema(engine: Engine, name: str) -> None:
    """Create or upgrade the schema when needed. `name` is the store's, for messages.

    Raises StoreError and changes nothing when the schema is one this program does not know.
    """
    with reading(engine).begin() as connection:
        if _up_to_date(connection, name):
            return
    upgrade = _load_alembic()  # before the lock is taken: importing takes longer than upgrading
    with patient(engine).begin() as connection:
        _lock(connection, name)
        if not _up_to_date(connection, name):
            with _undone(connection):
                upgrade(connection)
    engine.dispose()


def _up_to_date(connection: Connection, name: str) -> bool:
    found = found_version(connection)
    if found is not None and found not in KNOWN:
        raise StoreError(
            f"store {name}: its schema is {found!r} and this program knows up to {HEAD!r}: a newer version made it, or "
            "another program. It is left untouched; upgrade this program, or set another store"
        )
    return found == HEAD


@contextmanager
def _undone(connection: Connection) -> Iterator[None]:
    """MariaDB commits each table as it is made: those of a first upgrade that fails are dropped again.

    A process killed in those milliseconds leaves them; the next one says which table is there already.
    """
    before = set(inspect(connection).get_table_names()) if connection.dialect.name in _COMMIT_DDL else None
    try:
        yield
    except Exception:
        if before is not None and VERSION_TABLE not in before:
            ours = [table for table in reversed(metadata.sorted_tables) if table.name not in before]
            metadata.drop_all(connection, ours)
            Table(VERSION_TABLE, MetaData()).drop(connection, checkfirst=True)
        raise


def _load_alembic() -> Callable[[Connection], None]:
    from alembic import command  # noqa: PLC0415  see the module's docstring
    from alembic.config import Config  # noqa: PLC0415

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)

    return upgrade


def _lock(connection: Connection, name: str) -> None:
    """Let one process upgrade at a time. On SQLite the transaction itself (BEGIN IMMEDIATE) is the lock."""
    match connection.dialect.name:
        case "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        case dialect if dialect in _COMMIT_DDL:
            # Released with the connection; DDL commits there, so a transaction's lock would not last.
            if connection.scalar(select(func.get_lock(str(_LOCK), CREATION_SECONDS))) != 1:
                raise StoreError(f"store {name}: another process has been upgrading it for {CREATION_SECONDS} s")
