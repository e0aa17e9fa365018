"""A private MariaDB for the tests: own directory, Unix socket only, started once by each test process.

It runs as the user `mysql` when the tests run as root, with the server's own defaults (a database's character set is
latin1 then, as in a cluster that was set up long ago), and asks the kernel to be ended with the process that started
it. The fixtures are in ``tests/conftest.py``: `mariadb_url` is a fresh database each time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pymysql

PATIENCE = 60.0
SERVER = Path("/usr/sbin/mariadbd")
_SETTINGS = ("--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync",
             "--innodb-doublewrite=0", "--skip-name-resolve", "--innodb-log-file-size=8M",
             "--max-connections=40", "--performance-schema=OFF", "--skip-networking")  # fmt: skip


class MariadbServer:
    """One server in a directory of its own. `kill` breaks every connection at once; `start` brings it back."""

    def __init__(self) -> None:
        if not SERVER.exists():
            raise FileNotFoundError("MariaDB is not installed: ./check installs it (Debian: mariadb-server)")
        self.directory = Path(tempfile.mkdtemp(prefix="my-"))
        self.socket = self.directory / "s"
        self._as_user: tuple[str, ...] = ("setpriv", "--pdeathsig", "KILL")
        if os.geteuid() == 0:
            shutil.chown(self.directory, "mysql", "mysql")
            self._as_user += ("--reuid=mysql", "--regid=mysql", "--clear-groups")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._install()
            self.start()
        except BaseException:
            self.close()
            raise

    def _install(self) -> None:
        argv = ["mariadb-install-db", "--no-defaults", f"--datadir={self.directory}/data", "--skip-test-db"]
        argv += ["--auth-root-authentication-method=normal", *_SETTINGS]
        done = subprocess.run([*self._as_user, *argv], capture_output=True, text=True, timeout=60, cwd="/", check=False)
        if done.returncode:
            raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr}{done.stdout}")

    def start(self) -> None:
        """Start it and wait until it answers."""
        argv = [str(SERVER), "--no-defaults", f"--datadir={self.directory}/data", f"--socket={self.socket}", *_SETTINGS]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, *argv], stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(self.socket))  # PyMySQL leaves a socket open when nobody listens
                break
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MariaDB did not start: {(self.directory / 'log').read_text()}")
            time.sleep(0.05)
        self.run("select 1")

    def kill(self) -> None:
        """End it as a crash does, connections and all; wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def connect(self) -> pymysql.Connection:
        return pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True)

    def run(self, *statements: str) -> None:
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
        self.run(f"create database {name}")
        return name
