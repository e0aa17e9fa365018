"""A private PostgreSQL for the tests: own directory, Unix socket only, started once by each test process.

It runs as the user `postgres` when the tests run as root. The fixtures are in ``tests/conftest.py``: `postgres_url` is
a fresh database each time.
"""

from __future__ import annotations

import contextlib
import signal
import uuid
from pathlib import Path

import psycopg

from tests.server import Child, Server


def newest() -> Path:
    """Debian keeps PostgreSQL's programs out of the PATH, each version by itself. Without any: where one would be."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    return found[-1] if found else Path("/usr/lib/postgresql/bin/postgres")


class PostgresServer(Server):
    """One server in a directory of its own."""

    program = newest()
    package = "postgresql"
    prefix = "pg-"
    user = "postgres"
    crash = signal.SIGQUIT  # its own word for it: after SIGKILL its children and its memory would be left

    def prepare(self) -> None:
        initdb = [str(self.program.with_name("initdb")), "-D", f"{self.directory}/data", "-N", "-A", "trust"]
        self.run([*initdb, "-U", "postgres", "-E", "UTF8", "--locale=C"])

    def spawn(self) -> Child:
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.directory), "fsync": "off",
                    "shared_buffers": "16MB", "max_connections": "20"}  # fmt: skip
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return self.child([str(self.program), "-D", f"{self.directory}/data", *options])

    def answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
            return True
        return False

    def dsn(self, database: str) -> str:
        return f"host={self.directory} user=postgres dbname={database}"

    def url(self, database: str) -> str:
        """As the store takes it."""
        return f"postgresql://postgres@/{database}?host={self.directory}"

    def create_database(self) -> str:
        """A fresh, empty database; its name."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with contextlib.closing(psycopg.connect(self.dsn("postgres"), autocommit=True)) as connection:
            connection.execute(f"create database {name}")  # type: ignore[call-overload]  # our own name, no input
        return name
