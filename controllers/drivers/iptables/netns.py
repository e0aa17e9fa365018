"""The one thread that enters other network namespaces, and which namespaces there are.

setns changes a thread, not the process: it happens here only, one visit at a time, and is undone in `finally`; when
it cannot be undone the process ends, because everything after would happen in the wrong network. What is opened in a
namespace is closed again before the visit ends: an open socket would keep a deleted namespace alive.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from reconciler.errors import DriverError, NotReady

NAMED: Final = Path("/run/netns")
HOST: Final = "host"
"""What the host's own namespace is called where namespaces are named."""

CLONE_NEWNET: Final = 0x4000_0000
_SO_NETNS_COOKIE: Final = 71
_OWN: Final = "/proc/thread-self/ns/net"
_NETLINK_ROUTE, _RTM_NEWNSID, _RTM_GETNSID = 0, 88, 90
_NETNSA_NSID, _NETNSA_FD = 1, 3

_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Which namespace stands behind a name: a namespace made anew under the same name has another `cookie`.

    `nsid` is the number by which events name it here; -1 for our own namespace.
    """

    cookie: int
    nsid: int


class Visitor:
    """Runs functions inside namespaces, in one thread. Close it when done."""

    def __init__(self, named: Path = NAMED) -> None:
        self._named = named
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None

    def names(self) -> list[str]:
        """The named namespaces that there are, and the host's."""
        try:
            found = sorted(entry.name for entry in os.scandir(self._named))
        except FileNotFoundError:
            found = []
        return [HOST, *found]

    async def visit(self, name: str, do: Callable[[], T]) -> T:
        """Call `do` in the thread while it is in namespace `name`. Raises NotReady when there is no such namespace."""
        return await self._call(lambda: self._at(name, do))

    async def visit_fd(self, descriptor: int, do: Callable[[], T]) -> T:
        """The same for an open namespace."""
        return await self._call(lambda: _inside(descriptor, do))

    async def fresh(self) -> int:
        """A new, empty namespace without a name, as a file descriptor; it is gone when that is closed."""
        return await self._call(_fresh)

    async def _call(self, do: Callable[[], T]) -> T:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "netns")
        return await asyncio.get_running_loop().run_in_executor(self._pool, do)

    def _at(self, name: str, do: Callable[[], T]) -> T:
        if name == HOST:
            return do()
        with _opened(self._named / name, name) as descriptor:
            return _inside(descriptor, do)

    async def identity(self, name: str) -> Identity:
        """Say who `name` is, giving it an nsid if it has none. Raises NotReady when there is no such namespace."""
        return await self._call(lambda: self._identity(name))

    def _identity(self, name: str) -> Identity:
        if name == HOST:
            return Identity(_cookie(), -1)
        with _opened(self._named / name, name) as descriptor:
            cookie = _inside(descriptor, _cookie)
            nsid = _nsid(descriptor)
        return Identity(cookie, nsid)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotReady(f"network namespace {name} is not there") from error
    except OSError as error:
        raise DriverError(f"cannot open network namespace {name} ({path}): {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _inside(descriptor: int, do: Callable[[], T]) -> T:
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            _setns(descriptor)
        except OSError as error:
            # The name is there before the namespace is mounted on it: an empty file, for a moment.
            raise NotReady(f"cannot enter the network namespace: {error.strerror}; it is looked at again") from error
        try:
            return do()
        finally:
            _return(own)
    finally:
        os.close(own)


def _return(own: int) -> None:
    try:
        _setns(own)
    except OSError:
        os.abort()  # nothing that this process would do from here on happened where it should


def _fresh() -> int:
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(CLONE_NEWNET):
            code = ctypes.get_errno()
            raise DriverError(f"cannot make a scratch network namespace: {os.strerror(code)}")
        try:
            return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _return(own)
    finally:
        os.close(own)


def _cookie() -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        return int(struct.unpack("Q", probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])


def _nsid(descriptor: int) -> int:
    """The namespace's number as seen from here, given now if it has none (what ``ip netns set NAME auto`` does)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as route:
        route.settimeout(1.0)
        route.bind((0, 0))
        known = _ask_nsid(route, _RTM_GETNSID, struct.pack("HHI", 8, _NETNSA_FD, descriptor))
        if known >= 0:
            return known
        automatic = struct.pack("HHiHHI", 8, _NETNSA_NSID, -1, 8, _NETNSA_FD, descriptor)
        _ask_nsid(route, _RTM_NEWNSID, automatic, flags=4)  # refused when somebody was faster: then it has one
        known = _ask_nsid(route, _RTM_GETNSID, struct.pack("HHI", 8, _NETNSA_FD, descriptor))
    if known < 0:
        raise DriverError("the kernel gives a network namespace no number here, so its events could not be told apart")
    return known


def _ask_nsid(route: socket.socket, kind: int, attributes: bytes, flags: int = 0) -> int:
    body = struct.pack("B3x", 0) + attributes
    try:
        route.send(struct.pack("IHHII", 16 + len(body), kind, 1 | flags, 1, 0) + body)
        answer = route.recv(8192)
    except OSError as error:
        raise DriverError(f"cannot ask the kernel for the number of a network namespace: {error}") from error
    if int.from_bytes(answer[4:6], "little") != _RTM_NEWNSID:
        return -1
    at = 20
    while at + 8 <= len(answer):
        length, attribute, value = struct.unpack_from("HHi", answer, at)
        if attribute == _NETNSA_NSID:
            return int(value)
        at += max(4, (length + 3) & ~3)
    return -1
