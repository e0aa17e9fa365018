"""Names and values as the kernel and Open vSwitch accept them, as annotated types for the specs."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from desired.schema.words import Must

_INTERFACE = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+-]*")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


def _interface(name: str) -> str:
    if len(name.encode()) > 15:
        raise ValueError(f"{name!r} has {len(name.encode())} bytes; an interface name may have at most 15")
    if name in {".", ".."} or not _INTERFACE.fullmatch(name):
        raise ValueError(f"{name!r} is no interface name: letters, digits and _ . - @ +, not starting with '-'")
    return name


def _mac(text: str) -> str:
    text = text.lower()
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is no MAC address; right would be like fa:16:3e:00:00:01")
    if int(text[:2], 16) & 1:
        raise ValueError(f"{text!r} is a multicast address; an interface needs a unicast one (even first byte)")
    return text


def _ip(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is no IPv4 or IPv6 address") from None


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a value must be one printable line (no newline, no control character)")
    return text


def _iface_id(text: str) -> str:
    if not text:
        raise ValueError("an iface-id cannot be empty; it is the external_ids:iface-id of the port's interface")
    return _one_line(text)


def _sorted(values: dict[str, str]) -> dict[str, str]:
    return dict(sorted(values.items()))


InterfaceName = Annotated[
    str,
    AfterValidator(_interface),
    Must("the name of an interface, at most 15 bytes"),
    WithJsonSchema({"type": "string", "maxLength": 15, "pattern": f"^{_INTERFACE.pattern}$"}),
]
IfaceId = Annotated[str, AfterValidator(_iface_id)]
MacAddress = Annotated[str, AfterValidator(_mac), Must("a MAC address like fa:16:3e:00:00:01")]
IpAddress = Annotated[str, AfterValidator(_ip), Must("an IPv4 or IPv6 address")]
OneLine = Annotated[str, AfterValidator(_one_line)]
VlanId = Annotated[int, Field(ge=0, le=4095)]
Mtu = Annotated[int, Field(ge=68, le=65535)]
StringMap = Annotated[dict[OneLine, OneLine], AfterValidator(_sorted)]
"""An OVSDB string map: its order says nothing, so it is always the same one, and so is the generation of its spec.

YAML numbers and booleans are accepted by `desired.schema` and turned into their text.
"""
