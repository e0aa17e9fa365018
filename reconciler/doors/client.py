"""The other end of the control socket, for the command line: synchronous, and quick to import.

A daemon that is not there and a daemon that does not answer are two different things, and each has its error. The
latter is named by its pid, which the kernel knows even when the daemon is stuck. `lock_holder` says who holds the
node's lock, without touching the lock (trying it would race with a daemon that is just starting).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import struct
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from reconciler import errors
from reconciler.contract import PassRecord
from reconciler.doors import wire
from reconciler.errors import DriverError, ReconcilerError
from reconciler.report import Budget, Declared, NodeStatus, OnceResult, Pause

ANSWER_SECONDS = 2.0
WORK_SECONDS = 30.0
SILENCE_SECONDS = 45.0
"""Three heartbeats of a live stream."""

T = TypeVar("T")


class DaemonAbsentError(DriverError):
    """No daemon listens on the control socket."""


class DaemonSilentError(DriverError):
    """A daemon holds the socket and does not answer. `pid` is 0 when the kernel does not say."""

    def __init__(self, path: Path, pid: int, seconds: float) -> None:
        super().__init__(
            f"the daemon (pid {pid or 'unknown'}) holds {path} and did not answer within {seconds:g} s; it is stuck or "
            f"very busy: see 'journalctl -u reconciler'"
        )
        self.pid = pid


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("reconciler", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def peer(self) -> int:
        """The pid that listens, known as soon as we are connected."""
        raw = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", raw)[0]
        return pid


class ControlClient:
    """The verbs of a `Node`. Each raises DaemonAbsentError, DaemonSilentError, or what the daemon answered."""

    def __init__(self, path: Path, *, lock: Path | None = None, answer_seconds: float = ANSWER_SECONDS) -> None:
        """`lock` is the node's lock file: it names a daemon that is too stuck to be connected to."""
        self._path = path
        self._lock = lock
        self._answer = answer_seconds

    def ping(self) -> int:
        """The pid of the daemon, once it has answered anything at all."""
        connection = self._connect(self._answer)
        try:
            pid = connection.peer()
            self._exchange(connection, "GET", "/healthz", None, self._answer).read()
        finally:
            connection.close()
        return pid

    def status(self) -> NodeStatus:
        return self._ask(NodeStatus, "GET", "/api/v1/status")

    def history(self, *, resource: str | None, since: float | None, limit: int) -> Sequence[PassRecord]:
        given = {"resource": resource, "since": since, "limit": limit}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        return self._ask(tuple[PassRecord, ...], "GET", f"/api/v1/history?{query}")

    def declared(self) -> Declared:
        return self._ask(Declared, "GET", "/api/v1/declared")

    def once(self, *, only: str | None, dry_run: bool, timeout: float) -> OnceResult:
        body = {"only": only, "dry_run": dry_run, "timeout": timeout}
        return self._ask(OnceResult, "POST", "/api/v1/once", body, timeout + WORK_SECONDS)

    def approve(self, revision: str | None) -> Sequence[Budget]:
        return self._ask(tuple[Budget, ...], "POST", "/api/v1/approve", {"revision": revision})

    def pause(self, what: str, *, reason: str, seconds: float | None, by: str) -> Pause:
        body = {"what": what, "reason": reason, "seconds": seconds, "by": by}
        return self._ask(Pause, "POST", "/api/v1/pause", body)

    def resume(self, what: str, *, by: str) -> Sequence[Pause]:
        return self._ask(tuple[Pause, ...], "POST", "/api/v1/resume", {"what": what, "by": by})

    def set_log_level(self, level: str) -> str:
        answer = self._ask(dict[str, str], "POST", "/api/v1/log-level", {"level": level})
        return answer["before"]

    def events(self) -> Generator[PassRecord, None, None]:
        """Every pass that found something, from now on, until the daemon goes. Connects at once."""
        connection = self._connect(self._answer)
        try:
            pid = connection.peer()
            response = self._exchange(connection, "GET", "/api/v1/events", None, self._answer)
            if response.status != 200:
                raise _refusal(response.status, response.read())
            connection.sock.settimeout(SILENCE_SECONDS)
        except ReconcilerError:
            connection.close()
            raise
        return self._records(connection, response, pid)

    def _records(
        self, connection: _Connection, response: http.client.HTTPResponse, pid: int
    ) -> Generator[PassRecord, None, None]:
        with contextlib.closing(connection), contextlib.closing(response):
            while line := self._line(response, pid):
                if line.strip():
                    yield wire.loads(PassRecord, line)

    def _line(self, response: http.client.HTTPResponse, pid: int) -> bytes:
        try:
            return response.readline()
        except TimeoutError:
            raise DaemonSilentError(self._path, pid, SILENCE_SECONDS) from None
        except (OSError, http.client.HTTPException) as error:
            raise DriverError(f"the daemon (pid {pid}) broke the live stream off: {error}") from error

    def _ask(
        self,
        hint: type[T],
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        timeout: float = WORK_SECONDS,
    ) -> T:
        self.ping()
        connection = self._connect(timeout)
        try:
            response = self._exchange(connection, method, target, body, timeout)
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise DriverError(f"{method} {target}: the daemon broke off before it had answered: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise _refusal(response.status, content)
        return wire.loads(hint, content)

    def _connect(self, timeout: float) -> _Connection:
        connection = _Connection(self._path, timeout)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
                raise DaemonAbsentError(f"no daemon listens on {self._path}") from None
            if isinstance(error, TimeoutError | BlockingIOError):  # its backlog is full
                pid = lock_holder(self._lock) if self._lock else None
                raise DaemonSilentError(self._path, pid or 0, timeout) from None
            raise DriverError(f"connecting to {self._path}: {error.strerror or error}") from error
        return connection

    def _exchange(
        self, connection: _Connection, method: str, target: str, body: Mapping[str, Any] | None, timeout: float
    ) -> http.client.HTTPResponse:
        pid = connection.peer()
        try:
            connection.request(method, target, json.dumps(body) if body is not None else None)
            return connection.getresponse()
        except TimeoutError:
            raise DaemonSilentError(self._path, pid, timeout) from None
        except (OSError, http.client.HTTPException) as error:
            raise DriverError(f"{method} {target}: the daemon (pid {pid}) broke off: {error or type(error)}") from error


def _refusal(status: int, content: bytes) -> ReconcilerError:
    """The error the daemon answered with, as the same class here."""
    try:
        answer = json.loads(content)
        message, name = str(answer["error"]), str(answer.get("type"))
    except (ValueError, TypeError, KeyError):
        return DriverError(f"the daemon answered {status}: {content[:200]!r}")
    found = getattr(errors, name, DriverError)
    kind = found if isinstance(found, type) and issubclass(found, ReconcilerError) else DriverError
    return kind(message)


def lock_holder(path: Path) -> int | None:
    """The pid that holds the flock on `path`, None when nobody does (or it is not visible from here)."""
    try:
        status = path.stat()
        table = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in table.splitlines():
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK" and words[5] == device:
            return int(words[4])
    return None
