"""Network namespaces by name: what the kernel and the mount table are asked to make, enter and take away one.

A name is a file in `/run/netns` on which the namespace is mounted, as `ip netns` has it, so that everybody can use it.
Everything here acts on the calling thread and blocks; only `inside` calls it, from its own thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from pathlib import Path
from typing import NoReturn

from reconciler.errors import DriverError

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 1 << 20
_MNT_DETACH = 2
FLUX = 0.05
"""Seconds for which a file of /run/netns without a namespace is left alone; then it is a remnant, and used."""
FLUX_LOOK = 0.001
_THREAD_NETNS = "/proc/thread-self/ns/net"

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)


def _fail(what: str) -> NoReturn:
    code = ctypes.get_errno()
    raise OSError(code, f"{what}: {os.strerror(code)}")


def own() -> int:
    """A file descriptor of the calling thread's namespace."""
    return os.open(_THREAD_NETNS, os.O_RDONLY | os.O_CLOEXEC)


def enter(descriptor: int) -> None:
    """Put the calling thread into a namespace. Raises OSError."""
    if _LIBC.setns(descriptor, _CLONE_NEWNET):
        _fail("setns")


def leave(home: int) -> None:
    """Put the calling thread back; the process ends when that cannot be done, rather than act in the wrong place."""
    if _LIBC.setns(home, _CLONE_NEWNET):
        os.write(2, b"reconciler: the netlink thread cannot return to the host's network namespace; aborting\n")
        os.abort()


def unshare() -> None:
    """Put the calling thread into a new namespace. Raises OSError."""
    if _LIBC.unshare(_CLONE_NEWNET):
        _fail("unshare")


class Names:
    """The directory of names. `device` tells a mounted namespace from a file that only has the name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._device = os.stat("/proc/self/ns/net").st_dev  # noqa: PTH116 - a magic link, not a path

    def path(self, name: str) -> Path:
        return self.directory / name

    def mounted(self, name: str) -> bool:
        """Is a namespace there under this name (or only, for a moment, the file it will be mounted on)?"""
        try:
            return os.stat(self.directory / name).st_dev == self._device  # noqa: PTH116 - the quick way
        except OSError:
            return False

    def in_flux(self, name: str) -> bool:
        """Is there a file of this name with nothing mounted on it: is a namespace about to come or to go?

        ``ip netns del`` unmounts first and removes the file then, which fails when a new one was mounted in between.
        Waits `FLUX` seconds at most for it to be over.
        """
        pause = threading.Event()
        for _ in range(round(FLUX / FLUX_LOOK)):
            if self.mounted(name) or not self.path(name).exists():
                return False
            pause.wait(FLUX_LOOK)
        return True

    def all(self) -> list[str]:
        """The names at which a namespace is mounted."""
        try:
            names = os.listdir(self.directory)  # noqa: PTH208 - names, not paths
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DriverError(f"{self.directory} cannot be read: {error.strerror}; tried again soon") from error
        return sorted(name for name in names if self.mounted(name))

    def open(self, name: str) -> int:
        """A file descriptor of the namespace. Raises OSError."""
        return os.open(self.directory / name, os.O_RDONLY | os.O_CLOEXEC)

    def share(self) -> None:
        """Make the directory, and the mount that lets every mount namespace see what is mounted in it (as ip does)."""
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = str(self.directory).encode()
        if _LIBC.mount(b"", path, b"none", _MS_SHARED | _MS_REC, None):
            if _LIBC.mount(path, path, b"none", _MS_BIND | _MS_REC, None):
                _fail(f"bind mount of {self.directory}")
            if _LIBC.mount(b"", path, b"none", _MS_SHARED | _MS_REC, None):
                _fail(f"making {self.directory} a shared mount")

    def mount(self, name: str) -> None:
        """Give the calling thread's namespace a name. Raises OSError."""
        path = self.directory / name
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
        if _LIBC.mount(_THREAD_NETNS.encode(), str(path).encode(), b"none", _MS_BIND, None):
            _fail(f"bind mount on {path}")

    def unmount(self, name: str) -> None:
        """Take the name away; the namespace ends with its last user. Raises OSError."""
        path = self.directory / name
        _LIBC.umount2(str(path).encode(), _MNT_DETACH)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
