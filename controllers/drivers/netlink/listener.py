"""The two streams: one rtnetlink socket that hears every namespace that has a number, and the directory of names.

`Listener` hands over each message with the nsid of its namespace (None: the host's own). When more is waiting than can
be decoded in time, it only says which namespaces were concerned; when the kernel dropped messages, it says so.
`NameWatch` tells which names in `/run/netns` came or went. Both are read when asked; `client` asks.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from controllers.drivers.netlink.wire import SOL_NETLINK, join, messages
from reconciler.errors import DriverError

_LISTEN_ALL_NSID = 8
_SO_RCVBUFFORCE = 33
_GROUPS = {"link": 1, "address4": 5, "route4": 7, "rule4": 8, "address6": 9, "route6": 11, "rule6": 19}
_NETCONF, _NSID = (24, 25), 28
NEIGHBOURS = 3

BUFFER = 8 << 20
DECODED = 256
"""Messages decoded in one go; what waits beyond is skimmed: whose namespace it is, and no more."""
AT_ONCE = 2000
"""Messages taken in one go, so that a storm does not hold up the event loop."""


_LONGEST = 16384
"""Bytes of one datagram; a longer one counts as lost, so that what it said is read."""


class Lost(Enum):
    """What stands for messages that never came."""

    MESSAGES = "messages"


@dataclass(frozen=True, slots=True)
class Heard:
    """One message; `kind` 0 says that something came of which only the namespace was read."""

    nsid: int | None
    kind: int = 0
    flags: int = 0
    body: bytes = b""


class Listener:
    """The rtnetlink socket. Opened in the host's namespace. Raises DriverError when it cannot be."""

    def __init__(self, buffer: int = BUFFER) -> None:
        self.more = False
        """Was something left by the last `take`?"""
        try:
            self.socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
            )
        except OSError as error:
            raise DriverError(f"no rtnetlink socket: {error.strerror}; tried again soon") from error
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
            self.socket.setsockopt(SOL_NETLINK, _LISTEN_ALL_NSID, 1)
            self.socket.bind((0, 0))  # one without a port of its own is passed over
            for group in (*_GROUPS.values(), *_NETCONF, _NSID):
                join(self.socket, group)
        except OSError as error:
            self.socket.close()
            raise DriverError(f"the rtnetlink socket cannot listen: {error.strerror}; tried again soon") from error

    def close(self) -> None:
        self.socket.close()

    def hear_neighbours(self) -> None:
        """Only where permanent ones are declared: every ARP entry of every namespace is one of these messages."""
        join(self.socket, NEIGHBOURS)

    def take(self) -> Iterator[Heard | Lost]:
        """What waits now, at most `AT_ONCE` datagrams of it."""
        self.more = False
        for number in range(AT_ONCE):
            try:
                data, ancillary, flags, _ = self.socket.recvmsg(_LONGEST, 64)
            except BlockingIOError:
                return
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise DriverError(f"the rtnetlink socket failed: {error.strerror}") from error
                yield Lost.MESSAGES
                continue
            if flags & socket.MSG_TRUNC:
                yield Lost.MESSAGES
                continue
            nsid = _nsid(ancillary)
            if number >= DECODED and nsid is not None:
                yield Heard(nsid)
                continue
            for kind, marks, _, body in messages(data):
                yield Heard(nsid, kind, marks, body)
        self.more = True


def _nsid(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, value in ancillary:
        if level == SOL_NETLINK and kind == _LISTEN_ALL_NSID:
            return int.from_bytes(value, "little", signed=True)
    return None


_IN_CREATE, _IN_DELETE, _IN_MOVED = 0x100, 0x200, 0xC0
_IN_DELETE_SELF, _IN_MOVE_SELF, _IN_IGNORED, _IN_OVERFLOW = 0x400, 0x800, 0x8000, 0x4000
_EVENT = struct.Struct("iIII")
_LIBC = ctypes.CDLL(None, use_errno=True)


class NameWatch:
    """inotify on the directory of names, and on its parent while it does not exist.

    `mounts` is the mount table, which tells of ``umount -l`` where inotify is silent. It is always readable, so wait
    for it as a *writer*: then epoll reports only the error condition by which the kernel says that it changed. Keep it
    registered: registering it anew takes a change for known.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._watch = -1
        self._above = -1
        self.descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise DriverError(f"no inotify: {os.strerror(ctypes.get_errno())}; tried again soon")
        self.mounts = -1
        try:
            self.mounts = os.open("/proc/thread-self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            os.close(self.descriptor)
            raise DriverError(f"the mount table cannot be watched: {error.strerror}; tried again soon") from error
        self._arm()

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self.mounts)

    def _add(self, path: Path, mask: int) -> int:
        return int(_LIBC.inotify_add_watch(self.descriptor, os.fsencode(path), mask))

    def _arm(self) -> None:
        mask = _IN_CREATE | _IN_DELETE | _IN_MOVED | _IN_DELETE_SELF | _IN_MOVE_SELF
        self._watch = self._add(self._directory, mask)
        if self._watch < 0:
            self._above = self._add(self._directory.parent, _IN_CREATE | _IN_MOVED)
            self._watch = self._add(self._directory, mask)  # it may have come in between

    def take(self) -> dict[str, bool] | None:
        """Names that went (True) or came (False) since last asked, in order; None when that is not known any more."""
        found: dict[str, bool] = {}
        lost = False
        with contextlib.suppress(BlockingIOError):
            while True:
                data = os.read(self.descriptor, 8192)
                at = 0
                while at < len(data):
                    watch, mask, _, length = _EVENT.unpack_from(data, at)
                    name = os.fsdecode(data[at + 16 : at + 16 + length].rstrip(b"\0"))
                    at += 16 + length
                    if (
                        mask & _IN_OVERFLOW
                        or (watch == self._watch and mask & (_IN_IGNORED | _IN_MOVE_SELF))
                        or (watch == self._above and name == self._directory.name)
                    ):
                        lost = True
                    elif watch == self._watch and name:
                        gone = bool(mask & (_IN_DELETE | 0x40))
                        found[name] = found.get(name, False) or gone
        if lost:
            self._arm()
            return None
        return found
