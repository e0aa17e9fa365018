"""Fields that ovs-ofctl drops without a word because what they presuppose is missing (``nw_src=…`` without ``ip``).

Such a flow would match far more than was meant, mostly everything. It is refused here instead. Used by the compiler.
"""

from __future__ import annotations

import re

_ETH_TYPE = 5
_IP_PROTO = 10
_NEEDS_ETHER = re.compile(r"(?:nw|ip|ipv6|arp|nd|tp|tcp|udp|sctp|icmp|icmpv6|mpls)_[a-z_]+$")
_NEEDS_PROTO = re.compile(r"(?:tp|tcp|udp|sctp|icmp|icmpv6|nd)_[a-z_]+$")
_NO_FIELD = frozenset({"nd_ext"})


def dropped(text: str, match: bytes) -> str:
    """Why the compiled `match` cannot be what `text` means; '' when nothing was dropped."""
    head = re.split(r"(?:^|[\s,])actions?\s*=", text, maxsplit=1, flags=re.IGNORECASE)[0]
    named = [part.split("=", 1)[0].strip().lower() for part in re.split(r"[\s,]+", head) if "=" in part]
    present = fields(match)
    for name in named:
        if name in _NO_FIELD:
            continue
        if _NEEDS_ETHER.match(name) and _ETH_TYPE not in present:
            return f"{name} would be left out in silence: the flow does not say of which protocol (ip, ipv6, arp, …)"
        if _NEEDS_PROTO.match(name) and _IP_PROTO not in present:
            return f"{name} would be left out in silence: the flow does not say of which protocol (tcp, udp, icmp, …)"
    return ""


def fields(match: bytes) -> frozenset[int]:
    """Numbers of the basic OXM fields in a match."""
    found, at = set(), 0
    while at + 4 <= len(match):
        if match[at : at + 2] == b"\x80\x00":
            found.add(match[at + 2] >> 1)
        at += 4 + match[at + 3]
    return frozenset(found)
