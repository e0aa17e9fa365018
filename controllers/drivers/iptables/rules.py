"""The words of this driver: where a rule stands, what is held there, and the variant of iptables of this node.

Read by every module of this driver and by the rules controller. A rule is never interpreted: it is the tokens that
were declared, and the *form* of what the kernel has, an opaque digest that is compared and nothing else.
"""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum
from typing import NamedTuple

OWN_PREFIX = "reconciler-"
"""Every chain with this prefix is ours and owned whole."""

COMMENT = re.compile(rb"reconciler:([0-9a-z]{1,16})(?: ([^\x00]*))?")
"""Our mark on a rule: the intent hash, and which resource it is for."""

KERNEL_CHAINS = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
TABLES = ("raw", "mangle", "nat", "filter", "security")
HASH_BITS = 60


class Variant(StrEnum):
    """Which of the two worlds of rules the node's `iptables` writes to."""

    NFT = "nft"
    LEGACY = "legacy"


class Family(IntEnum):
    """The numbers are the kernel's (NFPROTO_*)."""

    IPV4 = 2
    IPV6 = 10

    @property
    def words(self) -> str:
        return "ipv4" if self is Family.IPV4 else "ipv6"


class ChainKey(NamedTuple):
    """A chain of one namespace."""

    family: Family
    table: str
    chain: str

    def __str__(self) -> str:
        six = "" if self.family is Family.IPV4 else " (ipv6)"
        return f"{self.table} {self.chain}{six}"


class Held(NamedTuple):
    """A rule that is there. `id` is the intent hash in its comment ('' if it has none of ours) and its form; `label`
    is what else the comment says. `final`: it rejects or drops whatever comes. `handle` is 0 where there is none.
    `body` is the rule itself, packed; only the canonicaliser keeps it.
    """

    id: tuple[str, bytes]
    handle: int = 0
    label: str = ""
    final: bool = False
    body: bytes = b""

    @property
    def mark(self) -> str:
        return self.id[0]

    @property
    def form(self) -> bytes:
        return self.id[1]


class Text(NamedTuple):
    """A rule as it is given to iptables: where, its intent hash, and all tokens, our comment among them."""

    key: ChainKey
    mark: str
    tokens: tuple[str, ...]

    @property
    def line(self) -> str:
        """Without the chain: what follows ``-A CHAIN``."""
        return " ".join(map(quoted, self.tokens))


def quoted(token: str) -> str:
    """A token as iptables-restore reads it. Raises ValueError for what could become a second line."""
    if not token.isprintable():
        raise ValueError(f"{token!r} cannot be part of a rule: it is not printable")
    if token and not re.search(r"""[\s"'\\#]""", token):
        return token
    escaped = token.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def own_chain(chain: str, place: str) -> str:
    """The name of our chain for rules that stand in the kernel's `chain` at `place`; 27 bytes at most."""
    return f"{OWN_PREFIX}{chain}{'' if place == 'first' else '-end'}"
