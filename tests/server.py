"""A private server for the tests: its own directory and user, started once it is asked for, ended by its own pid.

What RabbitMQ, PostgreSQL, MariaDB and Mosquitto have in common. A server asks the kernel to be ended with the process
that started it, so that nothing outlives a test run that was killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

HOST = "127.0.0.1"
PATIENCE = 60.0
"""Seconds that a start or an end may take: how busy the machine is is no finding."""


class Process(Protocol):
    """What a `Child` and what a sandbox spawns have in common."""

    def send(self, sig: signal.Signals) -> None: ...

    def end(self, sig: signal.Signals) -> int: ...

    def alive(self) -> bool: ...


class Child:
    """A process of ours, under another user if there is one; `crash` is what the kernel sends it when we are gone."""

    def __init__(
        self,
        argv: Sequence[str],
        output: Path,
        user: str = "",
        env: Mapping[str, str] | None = None,
        crash: signal.Signals = signal.SIGKILL,
    ) -> None:
        with output.open("ab") as log:
            self._process = subprocess.Popen(
                [*tied(user, crash), *argv], stdout=log, stderr=log, cwd="/", env=env, start_new_session=True
            )
        self.pid = self._process.pid

    def send(self, sig: signal.Signals) -> None:
        self._process.send_signal(sig)

    def end(self, sig: signal.Signals) -> int:
        """Signal it and wait until it is gone."""
        self._process.send_signal(sig)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(PATIENCE)

    def alive(self) -> bool:
        return self._process.poll() is None


class Server(ABC):
    """`kill` breaks every connection at once, `freeze` leaves them half open; what is durable is there after `start`.

    A subclass names the `program` and its `package`, writes what it needs (`prepare`), starts it (`spawn`) and knocks
    (`answers`).
    """

    program: ClassVar[Path]
    package: ClassVar[str]
    prefix: ClassVar[str]
    user: ClassVar[str] = ""
    """Whom it runs as when the tests run as root."""
    crash: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self) -> None:
        if not self.program.exists():
            raise FileNotFoundError(f"{self.program} is not there: ./check installs it (Debian: {self.package})")
        self.directory = Path(tempfile.mkdtemp(prefix=self.prefix))
        self._process: Process | None = None
        try:
            self.own(self.directory)
            self.prepare()
            self.start()
        except BaseException:
            self.close()
            raise

    def prepare(self) -> None:  # noqa: B027 (most need nothing made)
        """Make what the program finds at its first start."""

    @abstractmethod
    def spawn(self) -> Process:
        """Start its process, and do not wait for it."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it is ready for its clients."""

    def start(self) -> None:
        """Start it and wait until it answers. Nothing happens when it runs."""
        if self._process is None:
            self._process = self.spawn()
        self.until(self.answers, self._process)

    def stop(self) -> None:
        """End it as its administrator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does, connections and all; wait until it is gone."""
        self._end(self.crash)

    def freeze(self) -> None:
        """Stop answering, with all connections left open. `thaw` goes on."""
        self._running().send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- for what is made of it ------------------------------------------------------------------------------------

    def own(self, *paths: Path) -> None:
        """Give them to its user."""
        if self.user and os.geteuid() == 0:
            for path in paths:
                shutil.chown(path, self.user, self.user)

    def child(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Child:
        """A process of it, whose output is `log`."""
        return Child(argv, self.directory / "log", self.user, env, self.crash)

    def run(self, argv: Sequence[str]) -> None:
        """Run one of its tools to its end, as its user."""
        call([*tied(self.user, self.crash), *argv])

    def until(self, ready: Callable[[], bool], process: Process) -> None:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if not process.alive() or time.monotonic() > deadline:
                raise RuntimeError(f"{self.program.name} did not start: {self.log}")
            time.sleep(0.02)

    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"{self.program.name} does not run")
        return self._process

    def _end(self, sig: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.alive():
            process.end(sig)


def tied(user: str = "", crash: signal.Signals = signal.SIGKILL) -> tuple[str, ...]:
    """The beginning of an argv that ends with us, and runs as `user` when we are root."""
    other = (f"--reuid={user}", f"--regid={user}", "--clear-groups") if user and os.geteuid() == 0 else ()
    return ("setpriv", "--pdeathsig", crash.name.removeprefix("SIG"), *other)


def call(argv: Sequence[str]) -> None:
    """Run a command to its end. Raises RuntimeError with what it said."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, cwd="/", check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}{done.stdout}")


def listens(path: Path) -> bool:
    """Whether somebody accepts connections at this unix socket: the file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as knock, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        knock.connect(str(path))
        return True
    return False


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on, from below those the kernel hands to clients, so that they stay free."""
    found: list[int] = []
    while len(found) < number:
        port = random.randint(20000, 32000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, port))
            found += [port] if port not in found else []
    return found
