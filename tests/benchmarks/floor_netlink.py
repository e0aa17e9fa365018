"""The floor for namespaces: hear that something went, put back what was there. ``floor_netlink.py SOCKET SPEC``.

SPEC is JSON: ``answers`` maps "NAMESPACE TYPE KEY" to the request (hex) that repairs it; ``spaces`` maps a namespace to
all requests that fill it. One asyncio process, nothing is compared, nothing is checked. SOCKET is not used.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import struct
import sys
from pathlib import Path

LIBC = ctypes.CDLL(None)
NEWNET = 0x40000000
DIRECTORY = Path("/run/netns")
HOME = os.open("/proc/self/ns/net", os.O_RDONLY)


def inside(name: str) -> socket.socket:
    """A request socket in a namespace."""
    descriptor = os.open(DIRECTORY / name, os.O_RDONLY)
    LIBC.setns(descriptor, NEWNET)
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    finally:
        LIBC.setns(HOME, NEWNET)
        os.close(descriptor)


def send(sender: socket.socket, request: bytes) -> None:
    sender.send(request)
    sender.recv(4096)


class Floor:
    def __init__(self, spec: dict[str, dict]) -> None:
        self.answers = {key: bytes.fromhex(value) for key, value in spec["answers"].items()}
        self.spaces = {name: [bytes.fromhex(one) for one in requests] for name, requests in spec["spaces"].items()}
        self.names: dict[int, str] = {}
        self.listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self.listener.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        self.listener.setsockopt(270, 8, 1)
        self.listener.bind((0, 0))
        for group in (1, 5, 7):
            self.listener.setsockopt(270, 1, group)
        self.inotify = LIBC.inotify_init1(os.O_NONBLOCK)
        LIBC.inotify_add_watch(self.inotify, str(DIRECTORY).encode(), 0x200)
        for path in DIRECTORY.iterdir():
            self.number(path.name)

    def number(self, name: str) -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
            descriptor = os.open(DIRECTORY / name, os.O_RDONLY)
            body = b"\0\0\0\0" + struct.pack("=HHI", 8, 3, descriptor)
            auto = body + struct.pack("=HHi", 8, 1, -1)
            send(asking, struct.pack("=IHHII", 16 + len(auto), 88, 5, 1, 0) + auto)
            asking.send(struct.pack("=IHHII", 16 + len(body), 90, 1, 2, 0) + body)
            answer = asking.recv(4096)
            os.close(descriptor)
        self.names[struct.unpack_from("=i", answer, 24)[0]] = name

    def heard(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self.listener.recvmsg(65536, 64)
            except BlockingIOError:
                return
            if not ancillary:
                continue
            name = self.names.get(struct.unpack("=i", ancillary[0][2])[0])
            kind = struct.unpack_from("=H", data, 4)[0]
            if kind == 16:
                index, flags = struct.unpack_from("=iI", data, 20)
                key = f"{index}" if not flags & 1 else ""
            elif kind == 21:
                key = f"{struct.unpack_from('=I', data, 20)[0]}"
            else:
                key = f"{data[17]}"
            answer = self.answers.get(f"{name} {kind} {key}")
            if answer is not None and name is not None:
                with inside(name) as sender:
                    send(sender, answer)

    def gone(self) -> None:
        data = os.read(self.inotify, 4096)
        name = data[16:].split(b"\0")[0].decode()
        requests = self.spaces.get(name)
        if requests is None:
            return
        LIBC.unshare(NEWNET)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sender:
            (DIRECTORY / name).touch()
            LIBC.mount(b"/proc/thread-self/ns/net", str(DIRECTORY / name).encode(), b"none", 0x1000, None)
            for request in requests:
                send(sender, request)
        LIBC.setns(HOME, NEWNET)
        self.number(name)


async def main() -> None:
    floor = Floor(json.loads(Path(sys.argv[2]).read_text()))
    loop = asyncio.get_running_loop()
    loop.add_reader(floor.listener, floor.heard)
    loop.add_reader(floor.inotify, floor.gone)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
