"""The kernel's inotify on asyncio, by libc: which names of which directories changed. It knows no file's meaning.

Not watchfiles: that gathers changes for 50 ms in a thread, and an INI key edited by hand is put back in one. One
descriptor for all directories. `watcher` is built on it; nothing else uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Callable
from typing import Final

from reconciler.errors import DriverError

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
CREATE: Final = 0x100
IS_DIRECTORY: Final = 0x40000000
_WANTED: Final = (
    MODIFY
    | ATTRIB  # owner, mode, and the last link of a file going away
    | CLOSE_WRITE
    | 0x40  # MOVED_FROM
    | 0x80  # MOVED_TO
    | CREATE
    | 0x200  # DELETE
    | 0x400  # DELETE_SELF
    | 0x800  # MOVE_SELF
)
_ONLYDIR: Final = 0x01000000
_DONT_FOLLOW: Final = 0x02000000
_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_SELF: Final = 0x400 | 0x800 | 0x2000  # DELETE_SELF, MOVE_SELF, UNMOUNT
_HEAD: Final = struct.Struct("iIII")
_READ: Final = 64 * 1024

_LIBC = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """`changed(directory, name, mask)`; name '': the directory itself went; directory '': events were lost."""

    def __init__(self, changed: Callable[[str, str, int], None]) -> None:
        self._changed = changed
        self._fd = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise DriverError(f"files cannot be watched: inotify_init1 says {os.strerror(ctypes.get_errno())}")
        self._by_wd: dict[int, str] = {}
        self._by_directory: dict[str, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report from now on; what came since a directory was added is reported as well."""
        self._loop = loop
        loop.add_reader(self._fd, self._readable)

    def deaf(self) -> None:
        """Report no more; the kernel goes on collecting."""
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = None

    def close(self) -> None:
        self.deaf()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def add(self, directory: str) -> bool:
        """Watch a directory (a real path). False when there is none. Raises DriverError when the kernel refuses."""
        if directory in self._by_directory:
            return True
        wd = _LIBC.inotify_add_watch(self._fd, os.fsencode(directory), _WANTED | _ONLYDIR | _DONT_FOLLOW)
        if wd >= 0:
            known = self._by_wd.get(wd)
            if known is not None:
                self._by_directory.pop(known, None)  # the same directory under another name: it was moved
            self._by_wd[wd], self._by_directory[directory] = directory, wd
            return True
        code = ctypes.get_errno()
        if code in {errno.ENOENT, errno.ENOTDIR}:
            return False
        hint = "; raise fs.inotify.max_user_watches" if code == errno.ENOSPC else ""
        raise DriverError(f"{directory} cannot be watched: the kernel says {os.strerror(code)}{hint}")

    def remove(self, directory: str) -> None:
        wd = self._by_directory.pop(directory, None)
        if wd is not None:
            self._by_wd.pop(wd, None)
            _LIBC.inotify_rm_watch(self._fd, wd)

    def drain(self) -> None:
        """Report what has come until now, without waiting for the loop."""
        while self._readable():
            pass

    def _readable(self) -> bool:
        """One read; False when nothing was there."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._fd, _READ)
        offset = 0
        while offset + _HEAD.size <= len(data):
            wd, mask, _, length = _HEAD.unpack_from(data, offset)
            offset += _HEAD.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            if mask & _OVERFLOW:
                self._changed("", "", 0)
                continue
            directory = self._by_wd.get(wd)
            if directory is None:
                continue
            if mask & _SELF and not name:
                self.remove(directory)
                self._changed(directory, "", 0)
            elif mask & _IGNORED:
                del self._by_wd[wd]
                self._by_directory.pop(directory, None)
                self._changed(directory, "", 0)
            elif name:
                self._changed(directory, name, mask)
        return bool(data)
