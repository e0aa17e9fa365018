"""Netlink messages as bytes: headers, attributes, and a socket that asks and waits for the answer.

Plain struct packing: a dump of one namespace's links, addresses and routes takes 0.05 ms this way and 3 ms through
pyroute2, and nothing has to be imported for it. It knows no meaning; `rows` reads and `requests` writes with it.
A `Channel` blocks, for a moment only: the kernel answers within the call that asks. It is used by one thread at a time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.errors import DriverError, TerminalError

NLMSG_ERROR, NLMSG_DONE = 2, 3
F_REQUEST, F_MULTI, F_ACK, F_DUMP_INTR, F_DUMP = 0x1, 0x2, 0x4, 0x10, 0x300
F_REPLACE, F_EXCL, F_CREATE, F_APPEND = 0x100, 0x200, 0x400, 0x800
_F_CAPPED, _F_ACK_TLVS = 0x100, 0x200

SOL_NETLINK = 270
_ADD_MEMBERSHIP, _EXT_ACK, _STRICT_CHK = 1, 11, 12
_SO_NETNS_COOKIE = 71
_MSGERR_MSG = 1
_BUFFER = 1 << 17

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_SIOCGIFINDEX = 0x8933
_IFREQ = struct.Struct("16si20x")


class RefusedError(TerminalError):
    """The kernel refused a request. `code` is the errno, `said` what it added in words."""

    def __init__(self, what: str, code: int, said: str) -> None:
        super().__init__(f"{what}: the kernel says {os.strerror(code)}{f' ({said})' if said else ''}")
        self.code = code
        self.said = said


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message: `body` is what follows the header."""

    type: int
    flags: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) & 3)


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, _U32.pack(value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    """The attributes in `data` from `at` on; flags in the kind are dropped."""
    found: dict[int, bytes] = {}
    end = len(data)
    unpack = _ATTRIBUTE.unpack_from
    while at + 4 <= end:
        length, kind = unpack(data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Each message in a datagram as (type, flags, sequence, body)."""
    at, end = 0, len(data)
    while at + 16 <= end:
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        if length < 16:
            break
        yield kind, flags, sequence, data[at + 16 : at + length]
        at += (length + 3) & ~3


class Channel:
    """A request socket in the network namespace of the thread that makes it. `timeout` bounds each answer, seconds."""

    def __init__(self, timeout: float = 5.0) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._sequence = 0
        micros = int(timeout * 1_000_000)
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", micros // 1_000_000, micros % 1_000_000)
        )
        self.socket.setsockopt(SOL_NETLINK, _EXT_ACK, 1)
        self.socket.setsockopt(SOL_NETLINK, _STRICT_CHK, 1)

    @property
    def cookie(self) -> int:
        """The identity of the namespace it is in: never used twice while the machine runs."""
        return int.from_bytes(self.socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")

    def index_of(self, device: str) -> int:
        """The number of the device of this name, 0 when there is none; a tenth of what asking for all of it costs."""
        try:
            answer = fcntl.ioctl(self.socket, _SIOCGIFINDEX, _IFREQ.pack(device.encode(), 0))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return 0
            raise DriverError(f"looking for device {device}: {error.strerror}; tried again soon") from error
        return int(_IFREQ.unpack(answer)[1])

    def close(self) -> None:
        self.socket.close()

    def ask(self, message: Message, what: str) -> list[Message]:
        """Send a request and return what it answered, until it is acknowledged.

        Raises RefusedError with the kernel's reason, DriverError when it does not answer.
        """
        return [
            Message(kind, flags, body)
            for chunk in self.dump(message, what)
            for kind, flags, _, body in messages(chunk)
            if kind not in {NLMSG_ERROR, NLMSG_DONE}
        ]

    def dump(self, message: Message, what: str) -> tuple[bytes, ...]:
        """The same undecoded: two equal answers are one state. Raises as `ask` does."""
        for _ in range(5):
            answers = self._exchange(message, what)
            if answers:
                return answers
        raise DriverError(f"{what}: the tables change faster than they can be read; tried again soon")

    def _exchange(self, message: Message, what: str) -> tuple[bytes, ...]:
        """The datagrams of one answer; none when it was interrupted by a change."""
        self._sequence += 1
        wanted = F_REQUEST | message.flags | (0 if message.flags & F_DUMP == F_DUMP else F_ACK)
        header = HEADER.pack(16 + len(message.body), message.type, wanted, self._sequence, 0)
        answers: list[bytes] = []
        try:
            self.socket.send(header + message.body)
            while True:
                data = self.socket.recv(_BUFFER)
                ended, interrupted = self._ended(data, what)
                answers.append(data)
                if interrupted:
                    self._skip(data, what)
                    return ()
                if ended:
                    return tuple(answers)
        except (TimeoutError, BlockingIOError) as error:
            raise DriverError(f"{what}: the kernel did not answer in time") from error
        except OSError as error:
            raise DriverError(f"{what}: {error.strerror or error}") from error

    def _ended(self, data: bytes, what: str) -> tuple[bool, bool]:
        """Is this the last datagram of the answer, and did a change interrupt it? Raises as `ask` does."""
        interrupted = ended = False
        at, size = 0, len(data)
        while at + 16 <= size:
            length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
            interrupted = interrupted or bool(flags & F_DUMP_INTR)
            if kind <= NLMSG_DONE and sequence == self._sequence:
                _check(kind, flags, data[at + 16 : at + length], what)
                ended = True
            at += (length + 3) & ~3
        return ended, interrupted

    def _skip(self, data: bytes, what: str) -> None:
        """Take what is left of an answer that is not wanted."""
        while not self._ended(data, what)[0]:
            data = self.socket.recv(_BUFFER)


def _check(kind: int, flags: int, body: bytes, what: str) -> None:
    code = -int.from_bytes(body[:4], "little", signed=True) if len(body) >= 4 else 0
    if not code:
        return
    said = ""
    if flags & _F_ACK_TLVS and kind == NLMSG_ERROR:
        length = int.from_bytes(body[4:8], "little")
        at = 4 + (16 if flags & _F_CAPPED else (length + 3) & ~3)
        said = attributes(body, at).get(_MSGERR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    if code in {errno.EBUSY, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EINTR}:
        raise DriverError(f"{what}: the kernel says {os.strerror(code)}; tried again soon")
    raise RefusedError(what, code, said)


def join(listener: socket.socket, group: int) -> None:
    """Have `listener` hear multicast group `group`."""
    listener.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, group)
