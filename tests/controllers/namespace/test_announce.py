"""An address that asks for it is announced on the wire when it appears: seen from the other end of the link.

The frames are caught with a packet socket on the peer of the veth, in a namespace of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controllers.namespace.announcements import AGAIN
from tests.controllers.drivers.netlink.private import ip, privately
from tests.controllers.namespace.support import running

_ALL = 3
ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_SOL_PACKET, _IGNORE_OUTGOING = 263, 23
MAC = "fa:16:3e:00:00:01"
V4, V6 = "192.0.2.50", "2001:db8::50"
TEXT = """
namespaces:
  q:
    links:
      e0:
        type: veth
        mac: "fa:16:3e:00:00:01"
        peer: {name: wire}
        addresses: [192.0.2.7/24, %s]
"""
ASKED = TEXT % f"{{address: {V4}/32, announce: true}}, {{address: '{V6}/64', announce: true}}"


@dataclass(frozen=True, slots=True)
class Announcement:
    """What was said of an address: by which frame, of which mac, to whom."""

    ip: str
    mac: str
    to: str


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def announcement(frame: bytes) -> Announcement | None:
    """A gratuitous ARP (sender and target are one) or an unsolicited NA that overrides; None for anything else."""
    kind = frame[12:14]
    if kind == b"\x08\x06":
        hardware, protocol, sizes, _operation = struct.unpack("!HHHH", frame[14:22])
        sender, source, target = frame[22:28], frame[28:32], frame[38:42]
        if (hardware, protocol, sizes) == (1, 0x0800, 0x0604) and source == target and sender == frame[6:12]:
            return Announcement(socket.inet_ntop(socket.AF_INET, source), _mac(sender), _mac(frame[:6]))
    if kind == b"\x86\xdd" and frame[20] == 58 and frame[21] == 255 and frame[54] == 136:
        length = int.from_bytes(frame[18:20], "big")
        message = frame[54 : 54 + length]
        pseudo = frame[22:54] + struct.pack("!II", length, 58) + message
        flags, target, option = message[4], message[8:24], message[24:32]
        assert _sum(pseudo) == 0xFFFF, "the checksum is wrong: everybody drops it"
        if flags & 0x60 == 0x20 and option[:2] == b"\x02\x01" and frame[38:54] == ALL_NODES:
            return Announcement(socket.inet_ntop(socket.AF_INET6, target), _mac(option[2:]), _mac(frame[:6]))
    return None


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Wire:
    """Hears every frame that comes out of the other end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._heard: list[Announcement] = []

    def heard(self) -> list[Announcement]:
        with contextlib.suppress(BlockingIOError):
            while True:
                found = announcement(self._sock.recv(2048))
                if found is not None:
                    self._heard.append(found)
        return self._heard

    def forget(self) -> None:
        self.heard()
        self._heard = []


@contextlib.contextmanager
def listening(device: str) -> Iterator[Wire]:
    """On a device of this thread's network namespace."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as sock:
        sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        sock.bind((device, _ALL))
        sock.setblocking(False)
        yield Wire(sock)


ARP = Announcement(V4, MAC, "ff:ff:ff:ff:ff:ff")
NA = Announcement(V6, MAC, "33:33:00:00:00:01")


@privately
async def test_an_address_that_asks_for_it_is_announced_when_it_appears_and_when_it_is_repaired() -> None:
    async with running(TEXT % "192.0.2.8/24") as node:
        ip("link", "set", "wire", "up")
        with listening("wire") as wire:
            node.declare(ASKED)
            await node.converged()
            await node.until(lambda: {ARP, NA} <= set(wire.heard()), "announced")
            assert {one.ip for one in wire.heard()} == {V4, V6}, "only those that ask for it"
            for address, said in ((f"{V4}/32", ARP), (f"{V6}/64", NA)):
                wire.forget()
                ip("addr", "del", address, "dev", "e0", ns="q")
                await node.until(lambda said=said: said in wire.heard(), f"{address} announced again")
                await node.converged()
            await asyncio.sleep(max(AGAIN) + 0.2)
            wire.forget()
            await node.plans_nothing()
            await asyncio.sleep(0.1)
            assert wire.heard() == [], "nothing is announced where nothing has changed"


@privately
async def test_a_link_that_gets_its_carrier_late_carries_the_announcement_all_the_same() -> None:
    async with running(ASKED) as node:
        ip("netns", "del", "q")
        await node.until(lambda: Path("/run/netns/q").exists() and "wire" in ip("-br", "link"), "it is back")
        await node.converged()
        with listening("wire") as wire:
            assert wire.heard() == [], "the other end is down: nobody could hear the first one"
            ip("link", "set", "wire", "up")
            await node.until(lambda: {ARP, NA} <= set(wire.heard()), "announced", within=max(AGAIN) + 5)
            assert not [change for change in node.journal.actions() if change.result != "done"]
