"""Visits to network namespaces for this driver: one thread that enters them, and which namespace a name stands for.

Entering and leaving is done by `controllers.drivers.netlink.netns`, which ends the process when it cannot come back.
This is a thread beside that of `netlink.inside`, because tools are started here: a child is in the namespace of the
thread that starts it. What is opened in a namespace is closed before the visit ends: an open socket would keep a
deleted namespace alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from controllers.drivers.netlink import netns, requests
from controllers.drivers.netlink.wire import Channel, RefusedError, attributes
from reconciler.errors import DriverError, NotReady

NAMED: Final = Path("/run/netns")
HOST: Final = "host"
"""What the host's own namespace is called where namespaces are named."""

OWN_NSID: Final = -1
_SO_NETNS_COOKIE: Final = 71
_TIMEOUT: Final = 5.0

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
        self._names = netns.Names(named)
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None

    def names(self) -> list[str]:
        """The named namespaces that there are, and the host's."""
        return [HOST, *self._names.all()]

    async def visit(self, name: str, do: Callable[[], T]) -> T:
        """Call `do` in the thread while it is in namespace `name`. Raises NotReady when there is no such namespace."""
        return await self._call(lambda: self._at(name, do))

    async def visit_fd(self, descriptor: int, do: Callable[[], T]) -> T:
        """The same for an open namespace."""
        return await self._call(lambda: _inside(descriptor, do))

    async def fresh(self) -> int:
        """A new, empty namespace without a name, as a file descriptor; it is gone when that is closed."""
        return await self._call(_fresh)

    async def answers(self, names: Sequence[str], ask: Callable[[], T]) -> dict[str, tuple[int, T]]:
        """Ask the same in many namespaces, in one visit: the cookie of each and its answer. Without those that fail."""
        return await self._call(lambda: dict(self._answers(names, ask)))

    def _answers(self, names: Sequence[str], ask: Callable[[], T]) -> Iterator[tuple[str, tuple[int, T]]]:
        for name in names:
            with contextlib.suppress(NotReady, DriverError):  # whoever misses the answer looks himself, and says why
                yield name, self._at(name, lambda: (_cookie(), ask()))

    async def identity(self, name: str) -> Identity:
        """Say who `name` is, giving it an nsid if it has none. Raises NotReady when there is no such namespace."""
        if name != HOST and not self._names.path(name).exists():
            raise NotReady(f"network namespace {name} is not there")  # at a start many are not: no visit for that
        return await self._call(lambda: self._identity(name))

    async def _call(self, do: Callable[[], T]) -> T:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "iptables-netns")
        return await asyncio.get_running_loop().run_in_executor(self._pool, do)

    def _at(self, name: str, do: Callable[[], T]) -> T:
        if name == HOST:
            return do()
        with self._opened(name) as descriptor:
            return _inside(descriptor, do)

    def _identity(self, name: str) -> Identity:
        if name == HOST:
            return Identity(_cookie(), OWN_NSID)
        with self._opened(name) as descriptor:
            return Identity(_inside(descriptor, _cookie), _nsid(descriptor, name))

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        try:
            descriptor = self._names.open(name)
        except FileNotFoundError as error:
            raise NotReady(f"network namespace {name} is not there") from error
        except OSError as error:
            raise DriverError(f"cannot open network namespace {name}: {error.strerror}; trying again") from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _inside(descriptor: int, do: Callable[[], T]) -> T:
    own = netns.own()
    try:
        try:
            netns.enter(descriptor)
        except OSError as error:
            if error.errno == errno.EINVAL:  # the name is there and nothing is mounted on it (yet)
                raise NotReady("the network namespace is not mounted on its name yet") from error
            raise DriverError(f"cannot enter a network namespace: {error.strerror}; trying again") from error
        try:
            return do()
        finally:
            netns.leave(own)
    finally:
        os.close(own)


def _fresh() -> int:
    own = netns.own()
    try:
        try:
            netns.unshare()
        except OSError as error:
            raise DriverError(f"cannot make a scratch network namespace: {error.strerror}; trying again") from error
        try:
            return netns.own()
        finally:
            netns.leave(own)
    finally:
        os.close(own)


def _cookie() -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        return int(struct.unpack("Q", probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])


def _nsid(descriptor: int, name: str) -> int:
    """The namespace's number as seen from here, given now if it has none (what ``ip netns set NAME auto`` does)."""
    channel = Channel(_TIMEOUT)
    try:
        known = _asked(channel, descriptor)
        if known < 0:
            with contextlib.suppress(RefusedError):  # somebody was faster: then it has one
                channel.ask(requests.new_nsid(descriptor), f"giving namespace {name} a number")
            known = _asked(channel, descriptor)
    finally:
        channel.close()
    if known < 0:
        raise DriverError(f"namespace {name} gets no nsid, so its events could not be told apart; trying again")
    return known


def _asked(channel: Channel, descriptor: int) -> int:
    (answer,) = channel.ask(requests.get_nsid(descriptor), "asking for the number of a namespace")
    value = attributes(answer.body, 4).get(1)
    return -1 if value is None else int.from_bytes(value, "little", signed=True)
