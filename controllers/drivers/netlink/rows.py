"""Links, addresses, routes, rules and neighbours as the kernel reports them: rows, and how messages are read into them.

A row has what can be declared and what tells whose it is, and nothing that moves by itself (counters, lifetimes,
carrier): two equal rows are one state. Texts are as the kernel's own tools write them. Called by `replica`, `inside`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from controllers.drivers.netlink.wire import attributes

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWNETCONF, RTM_DELNETCONF = 80, 81
RTM_NEWNSID, RTM_DELNSID, RTM_GETNSID = 88, 89, 90

IFF_UP, IFF_LOOPBACK = 0x1, 0x8
LOCAL_TABLE, MAIN_TABLE = 255, 254
RTPROT_KERNEL, RTPROT_RA = 2, 9
RTN_UNICAST = 1
NUD_PERMANENT = 0x80
IFA_F_DADFAILED = 0x08
RTNH_F_ONLINK = 4
_RTM_F_CLONED = 0x200
INET, INET6 = socket.AF_INET, socket.AF_INET6

LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBI")
ROUTE = struct.Struct("=BBBBBBBBI")
HOP = struct.Struct("=HBBi")
NEIGHBOUR = struct.Struct("=BxxxiHBB")
_U32 = struct.Struct("=I")


class Link(NamedTuple):
    """A network device. `peer` is the index that it names as its other end or parent, 0 for none."""

    ifindex: int
    name: str
    up: bool
    mac: str
    mtu: int
    kind: str
    group: int
    alias: str
    master: int
    peer: int
    mode: int
    loopback: bool


class Address(NamedTuple):
    """An address of a device, like ``10.0.0.1/24``. `proto` is 0 where nobody said."""

    ifindex: int
    address: str
    proto: int
    dad_failed: bool
    permanent: bool
    link_local: bool


class Hop(NamedTuple):
    """One of several next hops of a route; `via` is '' and `ifindex` 0 where there is none."""

    via: str
    ifindex: int
    weight: int
    onlink: bool


class Route(NamedTuple):
    """A route. `to` is a prefix; `via` and `src` are ''  and `ifindex` 0 where there is none; `paths` if several."""

    family: int
    table: int
    to: str
    metric: int
    type: int
    proto: int
    via: str
    ifindex: int
    src: str
    onlink: bool
    paths: bytes

    def hops(self) -> tuple[Hop, ...]:
        """What `paths` says; empty for a route with one next hop or none."""
        return tuple(_hops(self.family, self.paths))

    def indexes(self) -> frozenset[int]:
        """The devices it leaves by."""
        return frozenset(hop.ifindex for hop in self.hops()) if self.paths else frozenset({self.ifindex})


class Rule(NamedTuple):
    """A policy rule. Empty texts and zeros where nothing is said; `rest` are attributes we do not know."""

    family: int
    priority: int
    action: int
    table: int
    source: str
    to: str
    fwmark: int
    fwmask: int
    iif: str
    oif: str
    proto: int
    rest: bytes


class Neighbour(NamedTuple):
    """A permanent neighbour."""

    ifindex: int
    ip: str
    mac: str
    proto: int


_ANY: dict[int, str] = {INET: "0.0.0.0", INET6: "::"}  # noqa: S104 - networks, nothing is bound


def _number(found: dict[int, bytes], kind: int, default: int = 0) -> int:
    value = found.get(kind)
    return default if value is None else int.from_bytes(value, "little")


def _text(found: dict[int, bytes], kind: int) -> str:
    return found.get(kind, b"").rstrip(b"\0").decode(errors="surrogateescape")


def _ip(family: int, value: bytes | None) -> str:
    return "" if value is None else socket.inet_ntop(family, value)


def mac_text(value: bytes) -> str:
    return value.hex(":")


_LINKINFO, _GROUP, _ALIAS, _MASTER, _LINK, _NAME, _ADDRESS, _MTU = 18, 27, 20, 10, 5, 3, 1, 4


def link(body: bytes) -> Link:
    """Read the body of an RTM_NEWLINK or RTM_DELLINK."""
    _, _, index, flags, _ = LINK.unpack_from(body)
    found = attributes(body, LINK.size)
    kind, mode = "", 0
    info = found.get(_LINKINFO)
    if info is not None:
        inner = attributes(info)
        kind = _text(inner, 1)
        if kind == "macvlan":
            mode = _number(attributes(inner.get(2, b"")), 1)
    return Link(
        index,
        _text(found, _NAME),
        bool(flags & IFF_UP),
        mac_text(found.get(_ADDRESS, b"")),
        _number(found, _MTU),
        kind,
        _number(found, _GROUP),
        _text(found, _ALIAS),
        _number(found, _MASTER),
        _number(found, _LINK),
        mode,
        bool(flags & IFF_LOOPBACK),
    )


def address(body: bytes) -> Address:
    """Read the body of an RTM_NEWADDR or RTM_DELADDR."""
    family, length, flags, scope, index = ADDRESS.unpack_from(body)
    found = attributes(body, ADDRESS.size)
    local = found.get(2) or found.get(1)
    flags = _number(found, 8, flags)
    return Address(
        index,
        f"{_ip(family, local)}/{length}",
        _number(found, 11),
        bool(flags & IFA_F_DADFAILED),
        bool(flags & 0x80),
        scope == 253 and family == INET6,
    )


def route(body: bytes) -> Route | None:
    """Read the body of an RTM_NEWROUTE or RTM_DELROUTE; None for what nobody declares (local table, cache)."""
    family, length, _, _, table, proto, _, kind, flags = ROUTE.unpack_from(body)
    if table == LOCAL_TABLE or flags & _RTM_F_CLONED or family not in {INET, INET6}:
        return None
    found = attributes(body, ROUTE.size)
    table = _number(found, 15, table)
    to = found.get(1)
    via = _ip(family, found.get(5))
    if not via and 18 in found:  # RTA_VIA: a next hop of the other family
        raw = found[18]
        via = _ip(int.from_bytes(raw[:2], "little"), raw[2:])
    return Route(
        family,
        table,
        f"{_ANY[family] if to is None else _ip(family, to)}/{length}",
        _number(found, 6),
        kind,
        proto,
        via,
        _number(found, 4),
        _ip(family, found.get(7)),
        bool(flags & RTNH_F_ONLINK),
        found.get(9, b""),
    )


def _hops(family: int, paths: bytes) -> Iterator[Hop]:
    at = 0
    while at + HOP.size <= len(paths):
        length, flags, weight, index = HOP.unpack_from(paths, at)
        if length < HOP.size:
            break
        found = attributes(paths[: at + length], at + HOP.size)
        via = _ip(family, found.get(5))
        if not via and 18 in found:
            via = _ip(int.from_bytes(found[18][:2], "little"), found[18][2:])
        yield Hop(via, index, weight + 1, bool(flags & RTNH_F_ONLINK))
        at += (length + 3) & ~3


def _prefix(family: int, value: bytes | None, length: int) -> str:
    if value is None:
        return "" if not length else f"{_ANY[family]}/{length}"
    return f"{_ip(family, value)}/{length}"


_RULE_KNOWN = frozenset({1, 2, 3, 6, 10, 13, 14, 15, 16, 17, 21})
_FRA_SUPPRESS_PREFIXLEN = 14


def rule(body: bytes) -> Rule | None:
    """Read the body of an RTM_NEWRULE or RTM_DELRULE; None for a family that is not IP."""
    family, to_length, from_length, _, table, _, _, action, _ = ROUTE.unpack_from(body)
    if family not in {INET, INET6}:
        return None
    found = attributes(body, ROUTE.size)
    unset = b"\xff\xff\xff\xff"
    rest = b"".join(
        _U32.pack(kind) + value
        for kind, value in sorted(found.items())
        if kind not in _RULE_KNOWN or (kind == _FRA_SUPPRESS_PREFIXLEN and value != unset)
    )
    mark = _number(found, 10)
    return Rule(
        family,
        _number(found, 6),
        action,
        _number(found, 15, table),
        _prefix(family, found.get(2), from_length),
        _prefix(family, found.get(1), to_length),
        mark,
        _number(found, 16) if 10 in found or 16 in found else 0,
        _text(found, 3),
        _text(found, 17),
        _number(found, 21),
        rest,
    )


def neighbour(body: bytes) -> Neighbour | None:
    """Read the body of an RTM_NEWNEIGH or RTM_DELNEIGH; None for one that is not permanent."""
    family, index, state, _, _ = NEIGHBOUR.unpack_from(body)
    if family not in {INET, INET6} or not state & NUD_PERMANENT:
        return None
    found = attributes(body, NEIGHBOUR.size)
    return Neighbour(index, _ip(family, found.get(1)), mac_text(found.get(2, b"")), _number(found, 12))
