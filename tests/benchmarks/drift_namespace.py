"""What is broken in namespaces: an address, a route, the state of a link, a namespace with ten things in it.

By raw netlink from inside, seen by sockets inside. The sockets are opened by a thread that visits the namespaces of
the node under measurement.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from controllers.drivers.netlink import requests, rows
from controllers.drivers.netlink.requests import LinkEnd
from controllers.drivers.netlink.wire import F_ACK, F_REQUEST, HEADER, Channel, Message, join, messages
from controllers.ownership import PROTO
from tests.benchmarks.wire import NeverSeenError
from tests.ovs import PrivateOvs

WITHIN = 10.0
SPACES = 10
Result = TypeVar("Result")


def visiting(descriptor: int, work: Callable[[], Result]) -> Result:
    """Do `work` in a thread of its own that is in this namespace."""
    found: list[Result] = []

    def run() -> None:
        if ctypes.CDLL(None).setns(descriptor, 0x40000000):
            raise OSError("setns")
        found.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def whole(message: Message) -> str:
    """A request as the floor program sends it."""
    flags = F_REQUEST | F_ACK | message.flags
    return (HEADER.pack(16 + len(message.body), message.type, flags, 1, 0) + message.body).hex()


class _Space:
    """A breaker and a watcher in one namespace."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        self.breaker, self.watcher = visiting(descriptor, lambda: (Channel(), self._watcher()))
        os.close(descriptor)
        links = [rows.link(m.body) for m in self.breaker.ask(requests.dump_links(), "links")]
        self.links = {link.name: link for link in links}

    @staticmethod
    def _watcher() -> socket.socket:
        watcher = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        watcher.bind((0, 0))
        watcher.settimeout(WITHIN)
        for group in (1, 5, 7):
            join(watcher, group)
        return watcher

    def drain(self) -> None:
        self.watcher.setblocking(False)
        try:
            while True:
                self.watcher.recv(65536)
        except BlockingIOError:
            self.watcher.settimeout(WITHIN)

    def events(self) -> Iterator[tuple[float, int, bytes]]:
        while True:
            try:
                data = self.watcher.recv(65536)
            except TimeoutError as error:
                raise NeverSeenError("no event") from error
            at = time.monotonic()
            for kind, _, _, body in messages(data):
                yield at, kind, body

    def close(self) -> None:
        self.breaker.close()
        self.watcher.close()


class _Namespaces(ABC):
    program = "floor_netlink.py"
    share = 1.0
    pause = (0.15, 0.3)

    def desired(self) -> str:
        links = "{b0: {type: bridge, addresses: [10.0.0.1/24, 10.1.0.1/24]}, b1: {type: bridge}}"
        body = f"{{links: {links}, routes: [{{to: 10.9.0.0/16, via: 10.0.0.7}}]}}"
        return "namespaces:\n" + "".join(f"  q{n}: {body}\n" for n in range(SPACES))

    def connect(self, ovs: PrivateOvs) -> None:
        directory = Path(f"/proc/{ovs.holder.pid}/root/run/netns")
        self.spaces = {f"q{n}": _Space(directory / f"q{n}") for n in range(SPACES)}

    def close(self) -> None:
        for space in self.spaces.values():
            space.close()

    def floor(self) -> tuple[Path, dict[str, Any]]:
        answers = {f"{name} {key}": whole(message) for name in self.spaces for key, message in [self.answer(name)]}
        return Path("/"), {"answers": answers, "spaces": {}}

    @abstractmethod
    def answer(self, name: str) -> tuple[str, Message]: ...

    @abstractmethod
    def broken(self, space: _Space, kind: int, body: bytes) -> bool | None:
        """Does this event say that it is broken (True), or whole again (False)?"""

    @abstractmethod
    def breaking(self, space: _Space) -> Message: ...

    def break_one(self, number: int) -> tuple[float, float]:
        space = self.spaces[f"q{number % SPACES}"]
        space.drain()
        space.breaker.ask(self.breaking(space), "break")
        seen = 0.0
        for at, kind, body in space.events():
            broken = self.broken(space, kind, body)
            if broken:
                seen = seen or at
            elif broken is False and seen:
                return seen, at
        raise AssertionError


class Address(_Namespaces):
    """One of two addresses in one of 10 namespaces is deleted."""

    title = "address, of 10 namespaces"
    address = "10.1.0.1/24"

    def answer(self, name: str) -> tuple[str, Message]:
        index = self.spaces[name].links["b0"].ifindex
        return f"{rows.RTM_DELADDR} {index}", requests.set_address(index, self.address, proto=PROTO)

    def breaking(self, space: _Space) -> Message:
        return requests.delete_address(space.links["b0"].ifindex, self.address)

    def broken(self, space: _Space, kind: int, body: bytes) -> bool | None:
        if kind not in {rows.RTM_NEWADDR, rows.RTM_DELADDR} or rows.address(body).address != self.address:
            return None
        return kind == rows.RTM_DELADDR


class StaticRoute(_Namespaces):
    """The static route of one of 10 namespaces is deleted."""

    title = "route, of 10 namespaces"

    def row(self, space: _Space) -> rows.Route:
        index = space.links["b0"].ifindex
        return rows.Route(2, 254, "10.9.0.0/16", 0, 1, PROTO, "10.0.0.7", index, "", onlink=False, paths=b"")

    def answer(self, name: str) -> tuple[str, Message]:
        return f"{rows.RTM_DELROUTE} 16", requests.set_route(self.row(self.spaces[name]))

    def breaking(self, space: _Space) -> Message:
        return requests.delete_route(self.row(space))

    def broken(self, space: _Space, kind: int, body: bytes) -> bool | None:
        if kind not in {rows.RTM_NEWROUTE, rows.RTM_DELROUTE}:
            return None
        row = rows.route(body)
        return kind == rows.RTM_DELROUTE if row is not None and row.to == "10.9.0.0/16" else None


class LinkDown(_Namespaces):
    """A link in one of 10 namespaces is taken down."""

    title = "link down, of 10 namespaces"

    def answer(self, name: str) -> tuple[str, Message]:
        index = self.spaces[name].links["b1"].ifindex
        return f"{rows.RTM_NEWLINK} {index}", requests.set_link(index, up=True)

    def breaking(self, space: _Space) -> Message:
        return requests.set_link(space.links["b1"].ifindex, up=False)

    def broken(self, space: _Space, kind: int, body: bytes) -> bool | None:
        if kind != rows.RTM_NEWLINK or rows.link(body).name != "b1" or body[0]:
            return None
        return not rows.link(body).up


class NamespaceGone:
    """One of 10 namespaces with ten things in it is deleted; it is whole when its rule, the last thing, is there."""

    title = "namespace with 10 things"
    program = "floor_netlink.py"
    share = 0.5
    pause = (0.3, 0.5)

    def desired(self) -> str:
        links = ", ".join(f"b{n}: {{type: bridge, addresses: [10.0.{n}.1/24]}}" for n in range(3))
        routes = ", ".join(f"{{to: 10.9.{n}.0/24, via: 10.0.{n}.7}}" for n in range(3))
        rule = "{from: 10.0.0.0/8, table: 100, priority: 50}"
        body = f"{{links: {{{links}}}, routes: [{routes}], rules: [{rule}]}}"
        return "namespaces:\n" + "".join(f"  q{n}: {body}\n" for n in range(SPACES))

    def connect(self, ovs: PrivateOvs) -> None:
        self.ovs = ovs
        self.directory = Path(f"/proc/{ovs.holder.pid}/root/run/netns")
        self.device = Path("/proc/self/ns/net").stat().st_dev
        libc = ctypes.CDLL(None)
        self.inotify = libc.inotify_init1(0)
        libc.inotify_add_watch(self.inotify, str(self.directory).encode(), 0x200)

    def close(self) -> None:
        os.close(self.inotify)

    def floor(self) -> tuple[Path, dict[str, Any]]:
        made = [requests.set_link(1, up=True, alias="floor")]
        made += [requests.new_link(LinkEnd(f"b{n}"), "bridge") for n in range(3)]
        made += [requests.set_address(n + 2, f"10.0.{n}.1/24", proto=PROTO) for n in range(3)]
        for n in range(3):
            row = rows.Route(2, 254, f"10.9.{n}.0/24", 0, 1, PROTO, f"10.0.{n}.7", 0, "", onlink=False, paths=b"")
            made.append(requests.set_route(row))
        made.append(requests.add_rule(rows.Rule(2, 50, 1, 100, "10.0.0.0/8", "", 0, 0, "", "", PROTO, b"")))
        return Path("/"), {"answers": {}, "spaces": {f"q{n}": [whole(one) for one in made] for n in range(SPACES)}}

    def break_one(self, number: int) -> tuple[float, float]:
        name = f"q{number % SPACES}"
        self.ovs.holder.spawn(["ip", "netns", "del", name], self.ovs.directory / "breaking")
        while name.encode() not in os.read(self.inotify, 4096):
            pass
        seen = time.monotonic()
        return seen, self._whole(name, seen + WITHIN)

    def _whole(self, name: str, deadline: float) -> float:
        path = self.directory / name
        while time.monotonic() < deadline:
            try:
                if path.stat().st_dev == self.device and self._has_rule(path):
                    return time.monotonic()
            except OSError:
                pass  # between its deletion and its mount
            time.sleep(0.0002)
        raise NeverSeenError(f"namespace {name} is not whole")

    @staticmethod
    def _has_rule(path: Path) -> bool:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            channel = visiting(descriptor, Channel)
        finally:
            os.close(descriptor)
        found = channel.ask(requests.dump_rules(rows.INET), "rules")
        channel.close()
        return any(struct.pack("=I", 50) in message.body[12:] and b"\x0a\0\0\0" in message.body for message in found)
