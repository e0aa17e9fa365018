"""Running ovs-ofctl against a socket of ours, where we play the switch and keep the changes it sends.

Nothing here touches a real switch: ovs-ofctl is told to speak to a socket that it inherits, and that has no name. It
asks that switch for its ports (to resolve names), its tables, and then fills and commits a bundle. Texts go in by
standard input, from an anonymous file, so that none can become an option or a command. `compiler` says what the changes
mean.

Most of what a run takes is the program's start (4 of 5 ms). A session that is kept may have one started ahead, which
has asked for the ports and waits for its input (`prepare`); it ends by itself when that is closed, and so with this
process. It is used if it was told the same of the ports whose names may be in the input.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import shutil
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.codec import Bundle, Malformed, Part, Type
from controllers.drivers.tools import ended
from reconciler.errors import DriverError

_PORTS_PER_MESSAGE: Final = 800
_ENVIRONMENT: Final = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
_NO_PROPERTIES: Final = b"".join(struct.pack("!HH4x", kind, 4) for kind in range(0, 16, 2))
_NAMELESS_TABLE: Final = struct.pack("!HBx4x32sQQII", 64 + len(_NO_PROPERTIES), 0, b"", 0, 0, 0, 0) + _NO_PROPERTIES
"""ovs-ofctl ends if it is told of no table at all, or of one without these eight properties."""
_WORD: Final = re.compile(r"[\w.@+-]+")
_FLOWS: Final = ("add-flows", "-")
_UNKNOWN_REQUEST: Final = struct.pack("!HH", 1, 1)


def words(text: str) -> frozenset[str]:
    """Everything in a text that may be a port's name: a text must be compiled anew when one of these changes."""
    found = _WORD.findall(text)
    return frozenset(found).union(word.rstrip("-") for word in found if word[-1] == "-")


class FakeSwitch:
    """A switch with these ports that accepts everything. `changes` are the FLOW_MODs (or the like) in their order."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self.changes: list[bytes] = []
        self.asked = False
        """Was it asked for its ports?"""
        entries = [
            struct.pack("!IHxx6sxx16sII", number, 40, bytes(6), name.encode()[:15], 0, 0)
            for name, number in ports.items()
        ]
        step = _PORTS_PER_MESSAGE
        self._ports = [b"".join(entries[at : at + step]) for at in range(0, len(entries), step)] or [b""]

    def answer(self, frame: bytes) -> bytes:  # noqa: PLR0911  (one for each kind of message)
        """What to send back for one message."""
        kind, xid = frame[1], int.from_bytes(frame[4:8], "big")
        if kind == Type.BUNDLE_ADD:
            self.changes.append(frame[16:])
            return b""
        if kind in {Type.FLOW_MOD, Type.GROUP_MOD, Type.METER_MOD}:
            self.changes.append(frame)
            return b""
        match kind:
            case Type.HELLO:
                return codec.hello(xid)
            case Type.ECHO_REQUEST:
                return codec.message(Type.ECHO_REPLY, xid, frame[codec.HEADER :])
            case Type.FEATURES_REQUEST:
                return codec.message(Type.FEATURES_REPLY, xid, struct.pack("!QIBBxxII", 1, 0, 254, 0, 0, 0))
            case Type.BARRIER_REQUEST:
                return codec.message(Type.BARRIER_REPLY, xid)
            case Type.BUNDLE_CONTROL:
                bundle, step = struct.unpack_from("!IH", frame, codec.HEADER)
                return codec.bundle_control(xid, bundle, Bundle(step + 1))
            case Type.MULTIPART_REQUEST:
                return self._multipart(frame, xid)
            case _:
                return codec.message(Type.ERROR, xid, _UNKNOWN_REQUEST + frame[:64])

    def _multipart(self, frame: bytes, xid: int) -> bytes:
        part, _ = codec.part_of(frame)
        if part == Part.PORT_DESC:
            self.asked = True
            last = len(self._ports) - 1
            return b"".join(codec.multipart_reply(part, xid, b, more=n < last) for n, b in enumerate(self._ports))
        if part == Part.TABLE_FEATURES:
            return codec.multipart_reply(part, xid, _NAMELESS_TABLE, more=False)
        return codec.message(Type.ERROR, xid, _UNKNOWN_REQUEST + frame[:64])


class _Served(asyncio.Protocol):
    """One of ovs-ofctl's connections."""

    def __init__(self, switch: FakeSwitch) -> None:
        self._switch = switch
        self._rest = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        answer = self._switch.answer
        try:
            frames, self._rest = codec.frames(self._rest + data if self._rest else data)
            answers = b"".join([answer(frame) for frame in frames])
        except (Malformed, struct.error, ValueError):
            self._transport.abort()  # ovs-ofctl then fails, and what it says is reported
            return
        if answers:
            self._transport.write(answers)


class Ofctl:
    """ovs-ofctl, told to speak to `self.switch`. Make one with `session`."""

    def __init__(self, socket: int, timeout: float) -> None:
        """`socket` is a descriptor of the socket's file, which has no name any more: each run inherits it."""
        self._socket = socket
        self.switch = FakeSwitch({})
        self._timeout = timeout
        self._prepared: _Prepared | None = None
        self.open = True

    @classmethod
    @contextlib.asynccontextmanager
    async def session(cls, timeout: float) -> AsyncIterator[Ofctl]:
        """A socket of its own, for any number of runs one after the other."""
        switch_of: list[Ofctl] = []
        server, descriptor = await _listen(lambda: _Served(switch_of[0].switch))
        ofctl = cls(descriptor, timeout)
        switch_of.append(ofctl)
        try:
            yield ofctl
        finally:
            server.close()
            ofctl.forget()
            os.close(descriptor)

    def prepare(self, ports: Mapping[str, int]) -> None:
        """Start an ovs-ofctl that waits for flows. One that cannot be started is missed by nobody: `run` says why."""
        if self._prepared is None and len(ports) <= _PORTS_PER_MESSAGE:
            self.switch = FakeSwitch(ports)
            with contextlib.suppress(OSError, DriverError):
                self._prepared = _Prepared.start(self._argv(_FLOWS), self._socket, dict(ports), self.switch)

    def forget(self) -> None:
        """The session is over: end the one that waits."""
        self.open = False
        if self._prepared is not None:
            self._prepared.end()
            self._prepared = None

    def _argv(self, arguments: Sequence[str], *, bundle: bool = True) -> list[str]:
        """Looked for each time: an upgrade, or who repairs an installation, may put it elsewhere."""
        program = shutil.which("ovs-ofctl", path=_ENVIRONMENT["PATH"])
        if program is None:
            raise DriverError("cannot run ovs-ofctl to compile flows: it is not installed (Debian: openvswitch-common)")
        command, *operands = arguments
        options = ("--bundle",) if bundle else ()
        return [program, *options, "-O", "OpenFlow14", command, f"unix:/proc/self/fd/{self._socket}", *operands]

    async def run(
        self, ports: Mapping[str, int], arguments: Sequence[str], lines: Sequence[str] = (), *, bundle: bool = True
    ) -> tuple[int, str]:
        """Run once with `lines` as its input. Returns the exit status and stderr; `switch.changes` has the rest.

        `arguments` are everything but options: the command, then what follows the switch.
        Raises DriverError when ovs-ofctl is missing or does not end in time; it is killed then.
        """
        text = "".join(f"{line}\n" for line in lines).encode()
        prepared, self._prepared = self._prepared, None
        self.switch = FakeSwitch(ports)
        if prepared is not None:
            fits = bundle and tuple(arguments) == _FLOWS and prepared.fits(ports, text)
            if prepared.told(text if fits else b""):
                try:
                    await ended(prepared.process, "ovs-ofctl", self._timeout)
                    if prepared.process.returncode >= 0:
                        return prepared.process.returncode, prepared.said()
                finally:
                    prepared.end()
                self.switch = FakeSwitch(ports)  # it was killed while it waited: as if there had been none
        argv = self._argv(arguments, bundle=bundle)
        with _anonymous("in", text) as stdin, _anonymous("err") as stderr:
            try:
                process = subprocess.Popen(  # noqa: ASYNC220, S603  (vfork: as short as asyncio's own; no shell)
                    argv,
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env=_ENVIRONMENT,
                    pass_fds=(self._socket,),
                )
            except OSError as error:
                raise DriverError(f"cannot run {argv[0]} to compile flows: {error.strerror}") from error
            await ended(process, "ovs-ofctl", self._timeout)
            said = os.pread(stderr, 1 << 20, 0).decode("utf-8", "replace")
        return process.returncode, said


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A process that waits for its input; `stdin` and `stderr` are our ends of a pipe and of an anonymous file."""

    process: subprocess.Popen[bytes]
    stdin: int
    stderr: int
    ports: Mapping[str, int]
    switch: FakeSwitch
    """What it was told of, if it has asked."""

    @classmethod
    def start(cls, argv: Sequence[str], socket: int, ports: Mapping[str, int], switch: FakeSwitch) -> _Prepared:
        theirs, stdin = os.pipe()
        stderr = os.memfd_create("ovs-ofctl-err")
        try:
            process = subprocess.Popen(  # noqa: S603  (no shell)
                argv,
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=_ENVIRONMENT,
                pass_fds=(socket,),
            )
        except OSError:
            os.close(stdin)
            os.close(stderr)
            raise
        finally:
            os.close(theirs)
        return cls(process, stdin, stderr, ports, switch)

    def fits(self, ports: Mapping[str, int], text: bytes) -> bool:
        """Whether it reads the text as one that was told of these ports."""
        if len(text) > select.PIPE_BUF or b"\\" in text or not self.switch.asked:
            return False  # (what is escaped may be a name)
        return all(ports.get(word) == self.ports.get(word) for word in words(text.decode()))

    def told(self, text: bytes) -> bool:
        """Give it all of its input, no more than fits at once. False when it is gone, or there is none; it is ended."""
        try:
            if text and self.process.poll() is None:
                os.write(self.stdin, text)
                os.dup2(self.stderr, self.stdin, inheritable=False)  # closes the pipe and keeps the number taken
                return True
        except BrokenPipeError:
            pass
        self.end()
        return False

    def said(self) -> str:
        return os.pread(self.stderr, 1 << 20, 0).decode("utf-8", "replace")

    def end(self) -> None:
        """End it, if it has not ended."""
        os.close(self.stdin)
        os.close(self.stderr)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


async def _listen(served: Callable[[], asyncio.Protocol]) -> tuple[asyncio.Server, int]:
    """A listening socket and a descriptor of its file, whose name is gone at once: a kill leaves nothing behind."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="reconciler-of-") as directory:  # made with mode 0700
        path = f"{directory}/s"
        try:
            server = await loop.create_unix_server(served, path)
        except OSError as error:
            raise DriverError(f"cannot listen on {path} for ovs-ofctl: {error}; trying again") from error
        try:
            return server, os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            server.close()
            raise DriverError(f"cannot open {path} for ovs-ofctl: {error}; trying again") from error


@contextlib.contextmanager
def _anonymous(name: str, content: bytes = b"") -> Iterator[int]:
    descriptor = os.memfd_create(f"ovs-ofctl-{name}")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
