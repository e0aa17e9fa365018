"""A private PostgreSQL for the tests: own directory, Unix socket only, started once by each test process.

It runs as the user `postgres` when the tests run as root, and asks the kernel to be ended with the process that
started it. Use it with ``pytest_plugins = ("tests.postgres",)`` and the fixture
`postgres_url`, a fresh database each time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

PATIENCE = 30.0


def binaries() -> Path:
    """Where PostgreSQL's programs are: Debian keeps them out of the PATH. The newest version wins."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1].parent if found else Path(str(on_path)).parent


class PostgresServer:
    """One server in a directory of its own. `kill` breaks every connection at once; `start` brings it back."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pg-"))
        self._data = self.directory / "data"
        self._as_user = ("setpriv", "--pdeathsig", "QUIT")
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
            self._as_user += ("--reuid=postgres", "--regid=postgres", "--clear-groups")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            initdb = [str(binaries() / "initdb"), "-D", str(self._data), "-N", "-A", "trust", "-U", "postgres"]
            self._call([*initdb, "-E", "UTF8", "--locale=C"])
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.directory), "fsync": "off",
                    "shared_buffers": "16MB", "max_connections": "20"}  # fmt: skip
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        argv = [*self._as_user, str(binaries() / "postgres"), "-D", str(self._data), *options]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, cwd="/", start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {(self.directory / 'log').read_text()}") from error
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End it as a crash does, connections and all; wait until it is gone."""
        self._end(signal.SIGQUIT)

    def close(self) -> None:
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

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

    def _call(self, argv: list[str]) -> None:
        done = subprocess.run([*self._as_user, *argv], capture_output=True, text=True, timeout=60, cwd="/", check=False)
        if done.returncode:
            raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr}{done.stdout}")

    def _end(self, sig: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sig)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of this test process; tests that stop it have to start it again, or use one of their own."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a fresh database."""
    return postgres_server.url(postgres_server.create_database())
