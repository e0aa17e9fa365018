"""Marks: how a restarted daemon knows what it made, without any file of its own (one place for all kinds)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

from desired.resource import ResourceId

OVSDB_KEY = "reconciler"
"""external_ids key on bridges and ports."""

COOKIE_PREFIX = 0x5EC0_71DE
"""Upper 32 bits of the cookie of every flow of ours."""

PROTO = 94
"""The `proto` of every address, route, rule and neighbour of ours (free in the kernel's and in iproute2's lists)."""

LINK_GROUP = 0x5EC0_71DE
"""The group number of every network device of ours."""

PEER_GROUP = LINK_GROUP + 1
"""That of the other end of a pair of ours: it is never deleted by itself, it goes with the end that is declared."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner string of this node (setting `owner`)."""

    name: str

    def owns(self, external_ids: Mapping[str, str]) -> bool:
        return external_ids.get(OVSDB_KEY) == self.name

    def mark(self, external_ids: Mapping[str, str]) -> dict[str, str]:
        """`external_ids` with our mark."""
        return {**external_ids, OVSDB_KEY: self.name}


def cookie(resource: ResourceId) -> int:
    """The 64-bit cookie of a flow: our prefix, and which declared flow it is."""
    return COOKIE_PREFIX << 32 | crc32(resource.name.encode())


def is_our_cookie(value: int) -> bool:
    return value >> 32 == COOKIE_PREFIX


def alias(owner: Owner) -> str:
    """The alias on the `lo` of every network namespace of ours."""
    return f"{OVSDB_KEY}={owner.name}"
