"""A private MariaDB for the tests: own directory, Unix socket only, started once by each test process.

It runs as the user `mysql` when the tests run as root, with the server's own defaults (a database's character set is
latin1 then, as in a cluster that was set up long ago). The fixtures are in ``tests/conftest.py``: `mariadb_url` is a
fresh database each time.
"""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

import pymysql

from tests.server import Child, Server, listens

_SETTINGS = ("--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync",
             "--innodb-doublewrite=0", "--skip-name-resolve", "--innodb-log-file-size=8M",
             "--max-connections=40", "--performance-schema=OFF", "--skip-networking")  # fmt: skip


class MariadbServer(Server):
    """One server in a directory of its own."""

    program = Path("/usr/sbin/mariadbd")
    package = "mariadb-server"
    prefix = "my-"
    user = "mysql"

    @property
    def socket(self) -> Path:
        return self.directory / "s"

    def prepare(self) -> None:
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={self.directory}/data", "--skip-test-db"]
        self.run([*install, "--auth-root-authentication-method=normal", *_SETTINGS])

    def spawn(self) -> Child:
        argv = [str(self.program), "--no-defaults", f"--datadir={self.directory}/data", f"--socket={self.socket}"]
        return self.child([*argv, *_SETTINGS])

    def answers(self) -> bool:
        return listens(self.socket)  # PyMySQL leaves a socket open when nobody listens

    def connect(self) -> pymysql.Connection:
        return pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True)

    def execute(self, *statements: str) -> None:
        """As root."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def url(self, database: str, user: str = "root") -> str:
        """As the store takes it."""
        return f"mariadb://{user}@localhost/{database}?unix_socket={self.socket}"

    def create_database(self) -> str:
        """A fresh, empty database; its name."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.execute(f"create database {name}")
        return name
