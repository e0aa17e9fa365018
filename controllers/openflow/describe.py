"""A flow's opaque bytes in a person's words, for the journal only: nothing is ever compared or decided by these.

The commonest fields and actions are named; the rest is shown in hexadecimal.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from controllers.drivers.openflow.flows import LOCAL, FlowKey

_BASIC = 0x8000
_NAMES = {
    0: "in_port", 2: "metadata", 3: "dl_dst", 4: "dl_src", 5: "dl_type", 6: "vlan_vid", 7: "vlan_pcp", 10: "nw_proto",
    11: "nw_src", 12: "nw_dst", 13: "tcp_src", 14: "tcp_dst", 15: "udp_src", 16: "udp_dst", 19: "icmp_type",
    21: "arp_op", 22: "arp_spa", 23: "arp_tpa", 26: "ipv6_src", 27: "ipv6_dst", 38: "tun_id",
}  # fmt: skip
_PORTS = {LOCAL: "LOCAL", 0xFFFFFFFA: "NORMAL", 0xFFFFFFFB: "FLOOD", 0xFFFFFFFD: "CONTROLLER", 0xFFFFFFF8: "IN_PORT"}
_INSTRUCTIONS = {1: "goto_table", 2: "write_metadata", 3: "write_actions", 4: "apply_actions", 5: "clear_actions"}


def describe(key: FlowKey) -> str:
    """``table=0,priority=1,in_port=3``"""
    return ",".join((f"table={key.table}", f"priority={key.priority}", *_fields(key.match)))


def _fields(match: bytes) -> Iterator[str]:
    at = 0
    while at + 4 <= len(match):
        field_class, field_byte, length = struct.unpack_from("!HBB", match, at)
        body = match[at + 4 : at + 4 + length]
        at += 4 + length
        field, has_mask = field_byte >> 1, bool(field_byte & 1)
        name = _NAMES.get(field) if field_class == _BASIC else None
        value, mask = (body[: length // 2], body[length // 2 :]) if has_mask else (body, b"")
        if name is None:
            yield f"field_{field_class:x}_{field}=0x{body.hex()}"
        else:
            yield f"{name}={_value(name, value)}" + (f"/{_value(name, mask)}" if has_mask else "")


def _value(name: str, value: bytes) -> str:
    if name.startswith("dl_") and len(value) == 6:
        return value.hex(":")
    if len(value) == 4 and name[:3] in {"nw_", "arp"}:
        return str(IPv4Address(value))
    if len(value) == 16:
        return str(IPv6Address(value))
    number = int.from_bytes(value, "big")
    if name == "in_port":
        return _PORTS.get(number, str(number))
    if name == "vlan_vid":
        return str(number & 0xFFF) if number & 0x1000 else hex(number)
    return hex(number) if name in {"dl_type", "metadata", "tun_id"} else str(number)


def describe_instructions(data: bytes) -> str:
    """``actions=output:3`` or, for what is not known here, hexadecimal."""
    if not data:
        return "actions=drop"
    shown, at = [], 0
    while at + 4 <= len(data):
        kind, length = struct.unpack_from("!HH", data, at)
        if length < 4:
            break
        body = data[at + 4 : at + length]
        if kind == 1 and body:
            shown.append(f"goto_table:{body[0]}")
        elif kind == 4:
            shown.extend(_actions(body[4:]))
        else:
            shown.append(f"{_INSTRUCTIONS.get(kind, kind)}(0x{body.hex()})")
        at += length
    return "actions=" + ",".join(shown)


def _actions(data: bytes) -> Iterator[str]:
    at = 0
    while at + 4 <= len(data):
        kind, length = struct.unpack_from("!HH", data, at)
        body = data[at + 4 : at + length]
        if kind == 0 and len(body) >= 4:
            port = int.from_bytes(body[:4], "big")
            yield _PORTS.get(port, f"output:{port}")
        elif kind == 18:
            yield "pop_vlan"
        elif kind == 17:
            yield "push_vlan"
        elif kind == 25:
            yield f"set_field:{','.join(_set_field(body))}"
        else:
            yield f"action_{kind}(0x{body.hex()})"
        if length < 8:
            break
        at += length


def _set_field(body: bytes) -> Iterator[str]:
    """A set_field action holds one field and padding."""
    return _fields(body[: 4 + body[3]]) if len(body) > 4 else iter(())
