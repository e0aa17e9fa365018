"""One daemon, or one `--once`, per node: an flock whose file names its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from reconciler.errors import DriverError


class LockHeldError(DriverError):
    """Somebody else works on this node. `pid` is 0 when the file does not say."""

    def __init__(self, message: str, pid: int) -> None:
        super().__init__(message)
        self.pid = pid


@contextlib.contextmanager
def node_lock(path: Path, *, force: bool = False) -> Iterator[None]:
    """Hold the node's lock. Raises LockHeldError at once when it is held, unless `force` goes past it."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise DriverError(f"cannot open the node's lock {path}: {error.strerror}; is this user root?") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = _pid(fd)
            if not force:
                raise LockHeldError(f"process {pid or 'unknown'} holds the node's lock {path}", pid) from error
        else:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _pid(fd: int) -> int:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0
