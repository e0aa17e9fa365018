"""Telling the neighbours of an address: a gratuitous ARP for IPv4, an unsolicited neighbour advertisement for IPv6.

As `arping -U` and Neutron's agents do: caches on the link that still name another holder are corrected at once.
"""

from __future__ import annotations

import socket
import struct

from controllers.drivers.netlink.inside import Session
from controllers.drivers.netlink.rows import Link
from reconciler.errors import DriverError

_BROADCAST = b"\xff" * 6
_ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_OVERRIDE = 0x20000000


def announce(session: Session, namespace: str, link: Link, address: str) -> None:
    """Send it from a device. Raises DriverError; that a device without a MAC has nobody to tell is no error."""
    mac = bytes.fromhex(link.mac.replace(":", ""))
    if len(mac) != 6:
        return
    ip = address.partition("/")[0]
    frame = _advertisement(mac, ip) if ":" in ip else _arp(mac, ip)
    try:
        with session.packets(namespace, link.name) as sender:
            sender.send(frame)
    except OSError as error:
        what = f"announcing {ip} from {link.name} in namespace {namespace}"
        raise DriverError(f"{what}: {error.strerror}") from error


def _arp(mac: bytes, ip: str) -> bytes:
    own = socket.inet_pton(socket.AF_INET, ip)
    request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + own + _BROADCAST + own
    return _BROADCAST + mac + b"\x08\x06" + request


def _advertisement(mac: bytes, ip: str) -> bytes:
    own = socket.inet_pton(socket.AF_INET6, ip)
    body = struct.pack("!BBHI", 136, 0, 0, _OVERRIDE) + own + b"\x02\x01" + mac
    pseudo = own + _ALL_NODES + struct.pack("!II", len(body), 58) + body
    body = body[:2] + struct.pack("!H", _checksum(pseudo)) + body[4:]
    header = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + own + _ALL_NODES
    return _ALL_NODES_MAC + mac + b"\x86\xdd" + header + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
