"""Requests to the kernel: what is wanted of links, addresses, routes, rules and neighbours, as messages.

What is sent carries the mark where the kernel keeps one: a link its group number, everything else its `proto`. All are
written so that saying them twice is no error. Used by `inside.Session`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from controllers.drivers.netlink import rows
from controllers.drivers.netlink.wire import F_CREATE, F_DUMP, F_EXCL, F_REPLACE, Message, attribute, text, u32

_VETH_INFO_PEER = 1
_SKIP_STATS = 1 << 3
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_SCOPES = {"global": 0, "link": 253, "host": 254}
_RTN = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8, "throw": 9}
_U32 = struct.Struct("=I")

MACVLAN_MODES = _MACVLAN_MODES
ROUTE_TYPES = _RTN


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """A device to be made: its name, the namespace it is made in (a file descriptor; None: the socket's own)."""

    name: str
    up: bool = True
    mac: str = ""
    mtu: int = 0
    netns: int | None = None
    group: int = 0


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def _family(ip: str) -> int:
    return rows.INET6 if ":" in ip else rows.INET


def _packed(ip: str) -> bytes:
    return socket.inet_pton(_family(ip), ip)


def _prefix(prefix: str) -> tuple[int, bytes, int]:
    ip, _, length = prefix.partition("/")
    return _family(ip), _packed(ip), int(length)


# -- reading --------------------------------------------------------------------------------------------------------


def dump_links() -> Message:
    return Message(rows.RTM_GETLINK, F_DUMP, rows.LINK.pack(0, 0, 0, 0, 0) + u32(29, _SKIP_STATS))


def dump_addresses() -> Message:
    return Message(rows.RTM_GETADDR, F_DUMP, rows.ADDRESS.pack(0, 0, 0, 0, 0))


def dump_routes(family: int) -> Message:
    return Message(rows.RTM_GETROUTE, F_DUMP, rows.ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def dump_rules(family: int) -> Message:
    return Message(rows.RTM_GETRULE, F_DUMP, rows.ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def dump_neighbours() -> Message:
    return Message(rows.RTM_GETNEIGH, F_DUMP, rows.NEIGHBOUR.pack(0, 0, 0, 0, 0))


def get_link(*, name: str = "", index: int = 0) -> Message:
    body = rows.LINK.pack(0, 0, index, 0, 0) + (text(3, name) if name else b"") + u32(29, _SKIP_STATS)
    return Message(rows.RTM_GETLINK, 0, body)


def get_nsid(netns: int) -> Message:
    return Message(rows.RTM_GETNSID, 0, b"\0\0\0\0" + u32(3, netns))


def get_nsid_of(pid: int) -> Message:
    return Message(rows.RTM_GETNSID, 0, b"\0\0\0\0" + u32(2, pid))


def new_nsid(netns: int) -> Message:
    return Message(rows.RTM_NEWNSID, 0, b"\0\0\0\0" + u32(3, netns) + attribute(1, struct.pack("=i", -1)))


# -- links ----------------------------------------------------------------------------------------------------------


def _end(end: LinkEnd) -> bytes:
    flags = rows.IFF_UP if end.up else 0
    body = rows.LINK.pack(0, 0, 0, flags, rows.IFF_UP) + text(3, end.name)
    if end.mac:
        body += attribute(1, _mac(end.mac))
    if end.mtu:
        body += u32(4, end.mtu)
    if end.group:
        body += u32(27, end.group)
    if end.netns is not None:
        body += u32(28, end.netns)
    return body


def _new_link(end: LinkEnd, kind: str, data: bytes = b"", more: bytes = b"") -> Message:
    info = text(1, kind) + (attribute(2, data) if data else b"")
    return Message(rows.RTM_NEWLINK, F_CREATE | F_EXCL, _end(end) + more + attribute(18, info))


def new_veth(end: LinkEnd, peer: LinkEnd) -> Message:
    """Both ends, each with its state, in one step."""
    return _new_link(end, "veth", attribute(_VETH_INFO_PEER, _end(peer)))


def new_macvlan(end: LinkEnd, parent: int, mode: str) -> Message:
    """On the device `parent` of the socket's namespace; `end.netns` may be another one."""
    return _new_link(end, "macvlan", u32(1, _MACVLAN_MODES[mode]), u32(5, parent))


def new_link(end: LinkEnd, kind: str) -> Message:
    """A device without settings of its own: a bridge, a dummy."""
    return _new_link(end, kind)


def set_link(  # noqa: PLR0913 - each may be given or not
    index: int,
    *,
    up: bool | None = None,
    mac: str = "",
    mtu: int = 0,
    master: int | None = None,
    name: str = "",
    alias: str | None = None,
    netns: int | None = None,
    group: int = 0,
) -> Message:
    """Change what is given of the device `index`; `master` 0 frees it. With `netns` it moves there."""
    flags = rows.IFF_UP if up else 0
    body = rows.LINK.pack(0, 0, index, flags, 0 if up is None else rows.IFF_UP)
    parts: list[bytes] = []
    if netns is not None:
        parts.append(u32(28, netns))
    if name:
        parts.append(text(3, name))
    if mac:
        parts.append(attribute(1, _mac(mac)))
    if mtu:
        parts.append(u32(4, mtu))
    if master is not None:
        parts.append(u32(10, master))
    if alias is not None:
        parts.append(text(20, alias))
    if group:
        parts.append(u32(27, group))
    return Message(rows.RTM_SETLINK, 0, body + b"".join(parts))


def delete_link(index: int) -> Message:
    return Message(rows.RTM_DELLINK, 0, rows.LINK.pack(0, 0, index, 0, 0))


# -- addresses ------------------------------------------------------------------------------------------------------


def _address(index: int, prefix: str, scope: str, proto: int) -> bytes:
    family, ip, length = _prefix(prefix)
    body = rows.ADDRESS.pack(family, length, 0x80, _SCOPES[scope], index) + attribute(2, ip) + attribute(1, ip)
    if family == rows.INET and length < 31 and scope != "host":
        mask = 0xFFFFFFFF >> length
        body += attribute(4, (int.from_bytes(ip, "big") | mask).to_bytes(4, "big"))
    return body + (attribute(11, bytes([proto])) if proto else b"")


def set_address(index: int, prefix: str, *, scope: str = "global", proto: int = 0) -> Message:
    """An address that stays; one that is there already gets our mark."""
    return Message(rows.RTM_NEWADDR, F_CREATE | F_REPLACE, _address(index, prefix, scope, proto))


def delete_address(index: int, prefix: str) -> Message:
    family, ip, length = _prefix(prefix)
    return Message(rows.RTM_DELADDR, 0, rows.ADDRESS.pack(family, length, 0, 0, index) + attribute(2, ip))


# -- routes ---------------------------------------------------------------------------------------------------------


def _route(row: rows.Route, *, deleting: bool) -> bytes:
    family, ip, length = _prefix(row.to)
    scope = 0
    if family == rows.INET and not row.via and not row.paths and row.type == rows.RTN_UNICAST:
        scope = _SCOPES["link"]
    flags = rows.RTNH_F_ONLINK if row.onlink and not deleting else 0
    table = row.table if row.table < 256 else 252
    header = rows.ROUTE.pack(family, length, 0, 0, table, row.proto, 255 if deleting else scope, row.type, flags)
    parts = [u32(15, row.table)]
    if length:
        parts.append(attribute(1, ip))
    if row.metric:
        parts.append(u32(6, row.metric))
    if row.via and _family(row.via) == family:
        parts.append(attribute(5, _packed(row.via)))
    elif row.via:
        parts.append(attribute(18, struct.pack("=H", _family(row.via)) + _packed(row.via)))
    if row.ifindex and row.type == rows.RTN_UNICAST:
        parts.append(u32(4, row.ifindex))
    if row.src:
        parts.append(attribute(7, _packed(row.src)))
    if row.paths:
        parts.append(attribute(9, row.paths))
    return header + b"".join(parts)


def paths(hops: Iterable[rows.Hop]) -> bytes:
    """Several next hops, as `Route.paths` has them."""
    found = b""
    for hop in hops:
        way = attribute(5, _packed(hop.via)) if hop.via else b""
        flags = rows.RTNH_F_ONLINK if hop.onlink else 0
        found += rows.HOP.pack(rows.HOP.size + len(way), flags, hop.weight - 1, hop.ifindex) + way
    return found


def set_route(row: rows.Route) -> Message:
    """The route, instead of one to the same destination in the same table with the same metric."""
    return Message(rows.RTM_NEWROUTE, F_CREATE | F_REPLACE, _route(row, deleting=False))


def delete_route(row: rows.Route) -> Message:
    return Message(rows.RTM_DELROUTE, 0, _route(row, deleting=True))


# -- rules and neighbours -------------------------------------------------------------------------------------------


def _rule(row: rows.Rule) -> bytes:
    def length(prefix: str) -> int:
        return _prefix(prefix)[2] if prefix else 0

    table = row.table if row.table < 256 else 0
    header = rows.ROUTE.pack(row.family, length(row.to), length(row.source), 0, table, 0, 0, row.action, 0)
    parts = [u32(6, row.priority), u32(15, row.table)]
    if row.to:
        parts.append(attribute(1, _prefix(row.to)[1]))
    if row.source:
        parts.append(attribute(2, _prefix(row.source)[1]))
    if row.iif:
        parts.append(text(3, row.iif))
    if row.oif:
        parts.append(text(17, row.oif))
    if row.fwmark or row.fwmask:
        parts += [u32(10, row.fwmark), u32(16, row.fwmask)]
    if row.proto:
        parts.append(attribute(21, bytes([row.proto])))
    return header + b"".join(parts)


def add_rule(row: rows.Rule) -> Message:
    return Message(rows.RTM_NEWRULE, F_CREATE | F_EXCL, _rule(row))


def delete_rule(row: rows.Rule) -> Message:
    return Message(rows.RTM_DELRULE, 0, _rule(row))


def _neighbour(row: rows.Neighbour) -> bytes:
    body = rows.NEIGHBOUR.pack(_family(row.ip), row.ifindex, rows.NUD_PERMANENT, 0, 0) + attribute(1, _packed(row.ip))
    if row.mac:
        body += attribute(2, _mac(row.mac))
    return body + (attribute(12, bytes([row.proto])) if row.proto else b"")


def set_neighbour(row: rows.Neighbour) -> Message:
    return Message(rows.RTM_NEWNEIGH, F_CREATE | F_REPLACE, _neighbour(row))


def delete_neighbour(row: rows.Neighbour) -> Message:
    return Message(rows.RTM_DELNEIGH, 0, _neighbour(row))


TABLES: dict[str, Callable[[], tuple[Message, ...]]] = {
    "links": lambda: (dump_links(),),
    "addresses": lambda: (dump_addresses(),),
    "routes": lambda: (dump_routes(rows.INET), dump_routes(rows.INET6)),
    "rules": lambda: (dump_rules(rows.INET), dump_rules(rows.INET6)),
    "neighbours": lambda: (dump_neighbours(),),
}
"""How each table of a namespace is read."""
