"""OpenFlow 1.4 messages as bytes: the few this driver sends, and the slicing of those it receives. Pure.

Nothing in a match, an instruction, a bucket or a band is decoded. Layouts are those of the OpenFlow 1.4 specification
(struct names are given); sizes come from the peer and are checked before they are believed.
Called by `switch` (as controller) and by `ofctl` (as switch).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from controllers.drivers.openflow.flows import (
    AddFlow,
    DeleteFlow,
    DeleteGroup,
    DeleteMeter,
    Flow,
    FlowKey,
    FlowMod,
    Mod,
    SetGroup,
    SetMeter,
)
from controllers.drivers.openflow.refusals import Refusal

VERSION = 5
"""OpenFlow 1.4 on the wire."""

HEADER = 8
ANY = 0xFFFFFFFF
ALL_TABLES = 0xFF
KEPT_FLAGS = 0x19
"""SEND_FLOW_REM, NO_PKT_COUNTS, NO_BYT_COUNTS: the flags that mean something once a flow is installed."""


class Malformed(ValueError):
    """The peer sent bytes that are no OpenFlow 1.4 message of the kind it claims."""


class Type(IntEnum):
    """ofp_type."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    FEATURES_REQUEST = 5
    FEATURES_REPLY = 6
    SET_CONFIG = 9
    PORT_STATUS = 12
    FLOW_MOD = 14
    GROUP_MOD = 15
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    SET_ASYNC = 28
    METER_MOD = 29
    BUNDLE_CONTROL = 33
    BUNDLE_ADD = 34
    REQUESTFORWARD = 32


class Part(IntEnum):
    """ofp_multipart_type."""

    FLOW = 1
    GROUP_DESC = 7
    METER_CONFIG = 10
    TABLE_FEATURES = 12
    PORT_DESC = 13
    FLOW_MONITOR = 16


class Bundle(IntEnum):
    """ofp_bundle_ctrl_type."""

    OPEN = 0
    OPENED = 1
    CLOSE = 2
    CLOSED = 3
    COMMIT = 4
    COMMITTED = 5
    DISCARD = 6
    DISCARDED = 7


class Update(NamedTuple):
    """A flow-monitor update: `flow` is None when the flow is gone. Its flags and importance are not in it."""

    key: FlowKey
    flow: Flow | None


class Abbrev(NamedTuple):
    """Our own change has been carried out: the message with this xid (the first of a bundle that changed anything)."""

    xid: int


class Monitor(IntEnum):
    """The monitor falls behind and pauses; it has caught up."""

    PAUSED = 5
    RESUMED = 6


class PortStatus(NamedTuple):
    deleted: bool
    name: str
    number: int


_header = struct.Struct("!BBHI")
_oxm = struct.Struct("!HH")
_flow_mod = struct.Struct("!BBHIQQBBHHHIIIHHHH")  # header, ofp_flow_mod, ofp_match's header
_told_flow_mod = struct.Struct("!xxxxxxxxQxxxxxxxxBBHHHxxxxxxxxxxxxHHHH")  # the same, but only what is of interest
_multipart = struct.Struct("!BBHIHHxxxx")
_flow_request = struct.Struct("!BBHIHHxxxxBxxxIIxxxxQQHH")  # ..., ofp_flow_stats_request, ofp_match's header
_flow_entry = struct.Struct("!HBxxxxxxxxxHHHHHxxQxxxxxxxxxxxxxxxxHH")  # ofp_flow_stats, ofp_match's header
_update = struct.Struct("!HHBxHHHxxxxQHH")  # ofp_flow_update_full, ofp_match's header
_two = struct.Struct("!HH")
_four = struct.Struct("!I")
_port = struct.Struct("!IHxxxxxxxxxx16s")
_bundle = struct.Struct("!BBHIIHH")
_no_match = bytes((0, 1, 0, 4, 0, 0, 0, 0))
_pad = tuple(bytes(n) for n in range(8))


def message(kind: Type, xid: int, body: bytes = b"") -> bytes:
    """Any message: ofp_header and body."""
    return _header.pack(VERSION, kind, HEADER + len(body), xid) + body


def hello(xid: int) -> bytes:
    """HELLO with a version bitmap that holds 1.4 alone."""
    return message(Type.HELLO, xid, struct.pack("!HHI", 1, 8, 1 << VERSION))


def versions(frame: bytes) -> frozenset[int]:
    """The wire versions a HELLO offers: its bitmap, or everything up to the header's version."""
    at = HEADER
    while at + 8 <= len(frame):
        kind, length = _two.unpack_from(frame, at)
        if kind == 1:
            (bits,) = _four.unpack_from(frame, at + 4)
            return frozenset(version for version in range(32) if bits >> version & 1)
        at += max(8, length + 7 & ~7)
    return frozenset(range(1, frame[0] + 1)) if frame else frozenset()


_REQUESTFORWARD = (10, 11)
"""OFPACPT_REQUESTFORWARD_SLAVE and _MASTER: what others ask of groups and meters is forwarded to us."""


def listen_asynchronously(xid: int) -> bytes:
    """SET_ASYNC and SET_CONFIG: port changes and others' group and meter changes yes; packets and all else no.

    A management connection gets no asynchronous message at all until it sets a miss_send_len (OVS connmgr.c).
    """
    wanted = b"".join(struct.pack("!HHI", kind, 8, 7 if kind in {2, 3} else 0) for kind in range(6))
    wanted += b"".join(struct.pack("!HHI", kind, 8, 3) for kind in _REQUESTFORWARD)
    return message(Type.SET_ASYNC, xid, wanted) + message(Type.SET_CONFIG, xid, _two.pack(0, 128))


def multipart_request(kind: Part, xid: int, body: bytes = b"") -> bytes:
    """ofp_multipart_request in one piece."""
    return _multipart.pack(VERSION, Type.MULTIPART_REQUEST, 16 + len(body), xid, kind, 0) + body


def multipart_reply(kind: int, xid: int, body: bytes, *, more: bool) -> bytes:
    """ofp_multipart_reply, with the flag that says whether it is the last."""
    return _multipart.pack(VERSION, Type.MULTIPART_REPLY, 16 + len(body), xid, kind, more) + body


def flow_request(xid: int, key: FlowKey | None = None, cookie: int | None = None) -> bytes:
    """Ask for all flows; or for those that `key`'s match covers in its table, if given with exactly `cookie`."""
    table, match = (ALL_TABLES, b"") if key is None else (key.table, key.match)
    value, mask = (0, 0) if cookie is None else (cookie, 0xFFFFFFFFFFFFFFFF)
    size = 4 + len(match)
    pad = -size & 7
    head = _flow_request.pack(
        VERSION, Type.MULTIPART_REQUEST, 48 + size + pad, xid, Part.FLOW, 0, table, ANY, ANY, value, mask, 1, size
    )
    return head + match + _pad[pad]


def monitor_request(xid: int) -> bytes:
    """Tell additions, removals and modifications from now on with instructions; our own changes abbreviated."""
    body = struct.pack("!IIIHBB", 1, ANY, ANY, 0x02 | 0x04 | 0x08 | 0x10, ALL_TABLES, 0) + _no_match
    return multipart_request(Part.FLOW_MONITOR, xid, body)


def encode(mod: Mod, xid: int) -> bytes:
    """FLOW_MOD, GROUP_MOD or METER_MOD."""
    match mod:
        case AddFlow() | DeleteFlow():
            return _encode_flow_mod(mod, xid)
        case SetGroup(group_id, body, exists):
            head = struct.pack("!HBxI", 1 if exists else 0, body[0], group_id)
            return message(Type.GROUP_MOD, xid, head + body[1:])
        case DeleteGroup(group_id):
            return message(Type.GROUP_MOD, xid, struct.pack("!HBxI", 2, 0, group_id))
        case SetMeter(meter_id, body, exists):
            head = struct.pack("!H2sI", 1 if exists else 0, body[:2], meter_id)
            return message(Type.METER_MOD, xid, head + body[2:])
        case DeleteMeter(meter_id):
            return message(Type.METER_MOD, xid, struct.pack("!HHI", 2, 0, meter_id))


def _encode_flow_mod(mod: FlowMod, xid: int) -> bytes:
    table, priority, match = mod.key
    size = 4 + len(match)
    pad = -size & 7
    if isinstance(mod, AddFlow):
        instructions, cookie, idle, hard, flags, importance = mod.flow
        mask, command = 0, 0
    else:
        instructions, idle, hard, flags, importance = b"", 0, 0, 0, 0
        cookie, mask, command = mod.cookie, mod.cookie_mask, 4
    length = 48 + size + pad + len(instructions)
    head = _flow_mod.pack(
        VERSION, Type.FLOW_MOD, length, xid, cookie, mask, table, command, idle, hard, priority,
        ANY, ANY, ANY, flags, importance, 1, size,
    )  # fmt: skip
    return head + match + _pad[pad] + instructions


def bundle_control(xid: int, bundle: int, step: Bundle) -> bytes:
    """OFPT_BUNDLE_CONTROL of an atomic, ordered bundle."""
    return _bundle.pack(VERSION, Type.BUNDLE_CONTROL, 16, xid, bundle, step, 3)


def bundle_add(xid: int, bundle: int, inner: bytes) -> bytes:
    """OFPT_BUNDLE_ADD_MESSAGE around `inner`, which must carry the same xid."""
    return _bundle.pack(VERSION, Type.BUNDLE_ADD, 16 + len(inner), xid, bundle, 0, 3) + inner


def frames(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Cut a stream into whole messages (headers included) and the rest that is not yet complete."""
    found: list[bytes] = []
    at, size = 0, len(buffer)
    while size - at >= HEADER:
        length = buffer[at + 2] << 8 | buffer[at + 3]
        if length < HEADER:
            raise Malformed(f"a message of {length} bytes, shorter than its own header")
        if size - at < length:
            break
        found.append(buffer[at : at + length])
        at += length
    return found, buffer[at:] if at else buffer


def part_of(frame: bytes) -> tuple[int, bool]:
    """Of a multipart reply: which kind (ofp_multipart_type), and whether more parts follow."""
    if len(frame) < 16:
        raise Malformed(f"a multipart reply of {len(frame)} bytes")
    return frame[8] << 8 | frame[9], bool(frame[11] & 1)


def flow_entries(frame: bytes) -> dict[FlowKey, Flow]:
    """The flows of one OFPMP_FLOW reply."""
    flows: dict[FlowKey, Flow] = {}
    at, end = 16, len(frame)
    unpack, new_key, new_flow, entry_size = _flow_entry.unpack_from, FlowKey, Flow, _flow_entry.size
    while at < end:
        if end - at < entry_size:
            raise Malformed("a cut flow entry")
        length, table, priority, idle, hard, flags, importance, cookie, kind, size = unpack(frame, at)
        start, stop, after = at + 52, at + 48 + size, at + length
        body = stop + 7 & ~7
        if kind != 1 or size < 4 or body > after or after > end:
            raise Malformed(f"a flow entry of {length} bytes with a match of {size}")
        key = new_key(table, priority, frame[start:stop])
        flows[key] = new_flow(frame[body:after], cookie, idle, hard, flags & KEPT_FLAGS, importance)
        at = after
    return flows


def monitor_updates(frame: bytes) -> Iterator[Update | Abbrev | Monitor]:
    """The updates of one OFPMP_FLOW_MONITOR reply, in order."""
    at, end = 16, len(frame)
    while at < end:
        if end - at < 8:
            raise Malformed("a cut flow update")
        length, event = _two.unpack_from(frame, at)
        if length < 8 or at + length > end:
            raise Malformed(f"a flow update of {length} bytes")
        if event <= 3:
            yield _full_update(frame, at, length)
        elif event == 4:
            yield Abbrev(_four.unpack_from(frame, at + 4)[0])
        else:
            yield Monitor(event)
        at += length


def _full_update(frame: bytes, at: int, length: int) -> Update:
    if length < _update.size:
        raise Malformed(f"a flow update of {length} bytes")
    _, event, table, idle, hard, priority, cookie, kind, size = _update.unpack_from(frame, at)
    stop = at + 24 + size
    body = stop + 7 & ~7
    if kind != 1 or size < 4 or body > at + length:
        raise Malformed(f"a flow update of {length} bytes with a match of {size}")
    key = FlowKey(table, priority, frame[at + 28 : stop])
    return Update(key, None if event == 2 else Flow(frame[body : at + length], cookie, idle, hard))


def port_entries(frame: bytes) -> dict[str, int]:
    """Name to number, of one OFPMP_PORT_DESC reply."""
    ports: dict[str, int] = {}
    at, end = 16, len(frame)
    while at < end:
        number, length, name = _port_at(frame, at)
        ports[name] = number
        at += length
    return ports


def port_status(frame: bytes) -> PortStatus:
    """OFPT_PORT_STATUS."""
    if len(frame) < 16:
        raise Malformed(f"a port status of {len(frame)} bytes")
    number, _, name = _port_at(frame, 16)
    return PortStatus(deleted=frame[8] == 1, name=name, number=number)


def _port_at(frame: bytes, at: int) -> tuple[int, int, str]:
    if len(frame) - at < 40:
        raise Malformed("a cut port description")
    number, length, name = _port.unpack_from(frame, at)
    if length < 40 or at + length > len(frame):
        raise Malformed(f"a port description of {length} bytes")
    return number, length, name.rstrip(b"\0").decode("utf-8", "surrogateescape")


def group_entries(frame: bytes) -> dict[int, bytes]:
    """Group id to type and buckets, of one OFPMP_GROUP_DESC reply."""
    return {identity: frame[at + 2 : at + 3] + body for at, identity, body in _identified(frame)}


def meter_entries(frame: bytes) -> dict[int, bytes]:
    """Meter id to flags and bands, of one OFPMP_METER_CONFIG reply."""
    return {identity: frame[at + 2 : at + 4] + body for at, identity, body in _identified(frame)}


def _identified(frame: bytes) -> Iterator[tuple[int, int, bytes]]:
    at, end = 16, len(frame)
    while at < end:
        length = _two.unpack_from(frame, at)[0] if end - at >= 8 else 0
        if length < 8 or at + length > end:
            raise Malformed(f"an entry of {length} bytes")
        yield at, _four.unpack_from(frame, at + 4)[0], frame[at + 8 : at + length]
        at += length


def refusal(frame: bytes) -> Refusal:
    """OFPT_ERROR."""
    if len(frame) < 12:
        raise Malformed(f"an error message of {len(frame)} bytes")
    kind, code = _two.unpack_from(frame, HEADER)
    experimenter = _four.unpack_from(frame, 12)[0] if kind == 0xFFFF and len(frame) >= 16 else 0
    return Refusal(kind, code, experimenter, frame[12:].decode("ascii", "replace").rstrip("\0") if kind == 0 else "")


def flow_mod(frame: bytes) -> tuple[int, FlowKey, Flow]:
    """Of a FLOW_MOD: its command, key and flow. Table 0xff (none was said) is table 0, where a switch puts it."""
    if len(frame) < _flow_mod.size:
        raise Malformed(f"a flow mod of {len(frame)} bytes")
    cookie, table, command, idle, hard, priority, flags, importance, kind, size = _told_flow_mod.unpack_from(frame)
    body = 48 + size + 7 & ~7
    if kind != 1 or size < 4 or body > len(frame):
        raise Malformed(f"a flow mod of {len(frame)} bytes with a match of {size}")
    key = FlowKey(0 if table == ALL_TABLES else table, priority, frame[52 : 48 + size])
    return command, key, Flow(frame[body:], cookie, idle, hard, flags & KEPT_FLAGS, importance)
