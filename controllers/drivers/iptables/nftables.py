"""nf_tables on the wire, as far as iptables-nft's rules need it: requests for dumps, and what messages say.

Pure bytes. A rule's expressions stay opaque; only its counters are cut out (they move), our comment is found in it,
and whether it rejects or drops everything. Called by `reading` and `events`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from controllers.drivers.iptables.rules import COMMENT, KERNEL_CHAINS, OWN_PREFIX, ChainKey, Family, Held

HEADER: Final = 16
_GENERIC: Final = 20
SUBSYSTEM: Final = 10
DUMP: Final = 0x301
DUMP_INTERRUPTED: Final = 0x10
CREATE: Final = 0x400
APPEND: Final = 0x800
NESTED: Final = 0x8000
_FAMILIES: Final = frozenset(int(family) for family in Family)

_COUNTER: Final = b"\x2c\x00\x01\x00\x0c\x00\x01\x00counter\x00\x1c\x00\x02\x00"
_COUNTER_SIZE: Final = 44
_COMMENT: Final = b"\x2c\x01\x01\x00\n\x00\x01\x00match\x00\x00\x00\x1c\x01\x02\x00\x0c\x00\x01\x00comment\x00"
_COMMENT_SIZE: Final = 300
_COMMENT_HEAD: Final = 12
"""Its revision, and the head of what holds the 256 bytes of text."""
_REJECT: Final = b"\x0b\x00\x01\x00reject\x00"
_TARGET: Final = b"\x0b\x00\x01\x00target\x00"
_DROP: Final = b"\x0c\x00\x02\x00\x08\x00\x01\x00\x00\x00\x00\x00"
_IMMEDIATE: Final = b"\x0e\x00\x01\x00immediate\x00"


class Message(IntEnum):
    """NFT_MSG_*."""

    NEW_TABLE = 0
    GET_TABLE = 1
    DEL_TABLE = 2
    NEW_CHAIN = 3
    GET_CHAIN = 4
    DEL_CHAIN = 5
    NEW_RULE = 6
    GET_RULE = 7
    DEL_RULE = 8
    NEW_GEN = 15
    GET_GEN = 16


class Frame(NamedTuple):
    """One netlink message. `kind` is an NFT_MSG_* number, or -1 for netlink's own (`error` is then its code)."""

    kind: int
    flags: int
    family: int
    body: bytes
    error: int | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A transaction was committed: its number, and the process that did it."""

    number: int
    pid: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class RuleAdded:
    """`after` is the handle of the rule before it; None when it is the first, or with `last` the last."""

    key: ChainKey
    rule: Held
    after: int | None
    last: bool


@dataclass(frozen=True, slots=True)
class RuleGone:
    key: ChainKey
    rule: Held


@dataclass(frozen=True, slots=True)
class ChainAdded:
    key: ChainKey


@dataclass(frozen=True, slots=True)
class ChainGone:
    key: ChainKey


@dataclass(frozen=True, slots=True)
class TableGone:
    family: Family
    table: str


Notice = RuleAdded | RuleGone | ChainAdded | ChainGone | TableGone | Generation


def request(kind: Message, family: int, sequence: int, attributes: bytes = b"", *, dump: bool = True) -> bytes:
    """A request; `dump` asks for all there are."""
    body = struct.pack("BBH", family, 0, 0) + attributes
    return struct.pack("IHHII", HEADER + len(body), SUBSYSTEM << 8 | kind, DUMP if dump else 1, sequence, 0) + body


@dataclass(frozen=True, slots=True)
class Insert:
    """Put a rule before the one with handle `before`; None: at the end. `protocol` is what ``-p`` says, 0 nothing."""

    key: ChainKey
    body: bytes
    before: int | None
    protocol: int = 0
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the rule with this handle."""

    key: ChainKey
    handle: int


def batch(operations: Sequence[Insert | Delete], known: int) -> bytes:
    """One transaction, for which an answer is asked per operation (sequence numbers from 1).

    It is refused when the namespace's generation is not `known`: then handles and places may be others.
    """
    edge = struct.pack(">BBH", 0, 0, SUBSYSTEM)
    begin = edge + struct.pack("HH", 8, 1) + struct.pack(">I", known)
    parts = [struct.pack("IHHII", HEADER + len(begin), 0x10, 1, 0, 0) + begin]
    for sequence, operation in enumerate(operations, 1):
        key = operation.key
        body = struct.pack("BBH", key.family, 0, 0) + names(key.table, key.chain)
        if isinstance(operation, Delete):
            kind, flags = Message.DEL_RULE, 5
            body += _raw(3, operation.handle.to_bytes(8, "big"))
        else:
            kind, flags = Message.NEW_RULE, 5 | CREATE
            body += _raw(4 | NESTED, unpacked(operation.body))
            if operation.protocol:
                body += _raw(5 | NESTED, _number(1, operation.protocol) + _number(2, 2 if operation.inverted else 0))
            if operation.before is None:
                flags |= APPEND
            else:
                body += _raw(6, operation.before.to_bytes(8, "big"))
        parts.append(struct.pack("IHHII", HEADER + len(body), SUBSYSTEM << 8 | kind, flags, sequence, 0) + body)
    parts.append(struct.pack("IHHII", HEADER + len(edge), 0x11, 1, len(operations) + 1, 0) + edge)
    return b"".join(parts)


def names(table: str, chain: str) -> bytes:
    """The attributes that narrow a dump of rules to one chain."""
    return _text(1, table) + _text(2, chain)


def _text(kind: int, value: str) -> bytes:
    return _raw(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _raw(kind, value.to_bytes(4, "big"))


def _raw(kind: int, value: bytes) -> bytes:
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def frames(data: bytes) -> Iterator[Frame]:
    """The messages in what one read returned."""
    at, end = 0, len(data)
    while at + HEADER <= end:
        length, kind, flags = struct.unpack_from("IHH", data, at)
        if length < HEADER or at + length > end:
            return
        if kind >> 8 == SUBSYSTEM:
            yield Frame(kind & 0xFF, flags, data[at + HEADER], data[at + _GENERIC : at + length])
        elif kind == 2:
            (code,) = struct.unpack_from("i", data, at + HEADER)
            yield Frame(-1, flags, 0, b"", -code)
        elif kind == 3:
            yield Frame(-1, flags, 0, b"", 0)
        at += (length + 3) & ~3


def attributes(body: bytes) -> dict[int, bytes]:
    """The attributes of a message, by number (the last of each)."""
    found: dict[int, bytes] = {}
    at, end = 0, len(body)
    while at + 4 <= end:
        length, kind = struct.unpack_from("HH", body, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def chain_of(frame: Frame) -> ChainKey | None:
    """The chain of a chain message, if it is one that we look at: the kernel's, and ours."""
    if frame.family not in _FAMILIES:
        return None
    found = attributes(frame.body)
    return _key(frame.family, found.get(1, b""), found.get(3, b""))


def _key(family: int, table: bytes, chain: bytes) -> ChainKey | None:
    name = chain[:-1].decode("utf-8", "replace")
    if name not in KERNEL_CHAINS and not name.startswith(OWN_PREFIX):
        return None
    return ChainKey(Family(family), table[:-1].decode("utf-8", "replace"), name)


def rule_of(frame: Frame, *, whole: bool = False) -> tuple[ChainKey, Held, int | None] | None:
    """Where, what (with its body if `whole`), and after which handle; None if its chain is not looked at."""
    if frame.family not in _FAMILIES:
        return None
    found = attributes(frame.body)
    key = _key(frame.family, found.get(1, b""), found.get(2, b""))
    if key is None:
        return None
    position = found.get(6)
    after = None if position is None else int.from_bytes(position, "big")
    rule = held(found.get(4, b""), int.from_bytes(found.get(3, b""), "big"), found.get(7, b""))
    if whole and 7 not in found:
        rule = rule._replace(body=packed(found.get(4, b"")))
    return key, rule, after


def held(expressions: bytes, handle: int = 0, userdata: bytes = b"") -> Held:
    """A rule from its expressions. The form is a digest: ten thousand rules of 700 bytes would be seven megabytes."""
    at = expressions.rfind(_COUNTER)
    still = expressions if at < 0 else expressions[:at] + expressions[at + _COUNTER_SIZE :]
    digest = hashlib.blake2b(still, digest_size=12)
    if userdata:
        digest.update(userdata)
    mark = label = ""
    comment = COMMENT.search(expressions)
    if comment is not None:
        mark = comment[1].decode()
        label = (comment[2] or b"").decode("utf-8", "replace")
    return Held((mark, digest.digest()), handle, label, _is_final(expressions, at))


def packed(expressions: bytes) -> bytes:
    """Without the zeros that fill up the first comment to 256 bytes."""
    at = expressions.find(_COMMENT)
    if at < 0:
        return expressions
    start, end = at + len(_COMMENT) + _COMMENT_HEAD, at + _COMMENT_SIZE
    return expressions[:start] + expressions[start:end].rstrip(b"\0") + b"\0" + expressions[end:]


def unpacked(body: bytes) -> bytes:
    """The expressions that were `packed`."""
    at = body.find(_COMMENT)
    if at < 0:
        return body
    start = at + len(_COMMENT) + _COMMENT_HEAD
    end = body.index(b"\0", start)
    return body[:start] + body[start:end].ljust(256, b"\0") + body[end + 1 :]


def _is_final(expressions: bytes, counter: int) -> bool:
    """Does it reject or drop everything? Then nothing stands before its counter, and its verdict is after it."""
    start = 0
    while expressions.startswith(_COMMENT, start):
        start += _COMMENT_SIZE
    if counter != start:
        return False
    verdict = expressions[start + _COUNTER_SIZE :]
    if _IMMEDIATE in verdict[:32]:
        return verdict.endswith(_DROP)
    return _REJECT in verdict[:32] or (_TARGET in verdict[:32] and b"REJECT\0" in verdict[:48])


def notices(frame: Frame) -> Iterator[Notice]:
    """What an event says, as far as it is about chains that are looked at."""
    match frame.kind:
        case Message.NEW_RULE | Message.DEL_RULE:
            found = rule_of(frame)
            if found is not None:
                key, rule, after = found
                new = frame.kind == Message.NEW_RULE
                yield RuleAdded(key, rule, after, bool(frame.flags & APPEND)) if new else RuleGone(key, rule)
        case Message.NEW_CHAIN | Message.DEL_CHAIN:
            chain = chain_of(frame)
            if chain is not None:
                yield ChainAdded(chain) if frame.kind == Message.NEW_CHAIN else ChainGone(chain)
        case Message.DEL_TABLE:
            if frame.family in _FAMILIES:
                table = attributes(frame.body).get(1, b"")[:-1].decode("utf-8", "replace")
                yield TableGone(Family(frame.family), table)
        case Message.NEW_GEN:
            yield generation(frame)
        case _:
            return


def generation(frame: Frame) -> Generation:
    found = attributes(frame.body)
    number = int.from_bytes(found.get(1, b""), "big")
    name = found.get(3, b"\0")[:-1].decode("utf-8", "replace")
    return Generation(number, int.from_bytes(found.get(2, b""), "big"), name)
