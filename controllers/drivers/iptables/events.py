"""One nfnetlink socket in our own namespace that hears every commit of nf_tables in every namespace.

The kernel names the sender's namespace by its nsid, as ancillary data; none means our own. Notices are gathered until
the commit's last message, which has its number and who did it. When messages were lost (ENOBUFS) everything that was
heard is void, and whoever listens is told so.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from typing import Final

from controllers.drivers.iptables import nftables
from controllers.drivers.iptables.chains import Transaction
from controllers.drivers.iptables.netns import OWN_NSID
from controllers.drivers.iptables.nftables import Generation, Notice
from controllers.drivers.iptables.reading import NETLINK_NETFILTER
from reconciler.errors import DriverError

_SOL_NETLINK, _ADD_MEMBERSHIP, _LISTEN_ALL_NSID = 270, 1, 8
_NFNLGRP_NFTABLES: Final = 7
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 8 << 20
_READ: Final = 1 << 17
_MANY: Final = 256
"""Datagrams taken at once, so that a storm does not hold the loop."""


class Listener:
    """`on_commit(nsid, transaction)` for each commit, `on_lost()` when some were missed."""

    def __init__(self, on_commit: Callable[[int, Transaction], None], on_lost: Callable[[], None]) -> None:
        self._on_commit = on_commit
        self._on_lost = on_lost
        self._gathered: dict[int, list[Notice]] = {}
        self._socket: socket.socket | None = None

    @property
    def open(self) -> bool:
        return self._socket is not None

    def start(self) -> None:
        """Listen from now on. Raises DriverError."""
        sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            sock.bind((0, 0))
            sock.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
        except OSError as error:
            sock.close()
            raise DriverError(f"cannot listen for changes of nf_tables: {error}; trying again") from error
        self._socket = sock
        self._gathered.clear()
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def stop(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def drain(self) -> None:
        """Take everything that the kernel has told so far: after a tool of ours has ended, that is all it did."""
        while self._some():
            continue

    def _readable(self) -> None:
        self._some()

    def _some(self) -> bool:
        """Take some datagrams. True when there may be more."""
        for _ in range(_MANY):
            if self._socket is None:
                return False
            try:
                data, ancillary, _, _ = self._socket.recvmsg(_READ, 64)
            except BlockingIOError:
                return False
            except OSError as error:
                self._gathered.clear()
                if error.errno != errno.ENOBUFS:
                    self.stop()  # it is opened again by the next look, which `on_lost` leads to
                self._on_lost()
                continue
            self._take(_nsid(ancillary), data)
        return True

    def _take(self, nsid: int, data: bytes) -> None:
        for frame in nftables.frames(data):
            for notice in nftables.notices(frame):
                if isinstance(notice, Generation):
                    gathered = self._gathered.pop(nsid, [])
                    self._on_commit(nsid, Transaction(notice.number, gathered, notice.pid, notice.name))
                else:
                    self._gathered.setdefault(nsid, []).append(notice)


def _nsid(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, value in ancillary:
        if level == _SOL_NETLINK and kind == _LISTEN_ALL_NSID:
            return int(struct.unpack("i", value[:4])[0])
    return OWN_NSID
