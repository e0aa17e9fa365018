"""One OpenFlow connection: framing, transaction ids, and who waits for which answer. It knows no flow.

A channel lives from connect to its first failure and is never used again. What the switch says unasked goes to the
`listen` callback frame by frame. `switch` owns it; nothing else uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.codec import Malformed, Type
from controllers.drivers.openflow.refusals import HELLO_FAILED, Refusal
from reconciler.errors import DriverError

_ANSWERS: Final = frozenset({Type.BARRIER_REPLY, Type.BUNDLE_CONTROL, Type.ECHO_REPLY})
_LAST_XID: Final = 0x7FFFFFFF


class RefusedError(DriverError):
    """The switch answered a request with OFPT_ERROR."""

    def __init__(self, what: str, refusal: Refusal) -> None:
        super().__init__(f"{what}: the switch refused it with {refusal}")
        self.refusal = refusal


class Answer:
    """A request under way. Await `done`; the answer, or each part of a multipart one, goes to `take` as it comes."""

    __slots__ = ("done", "take", "what")

    def __init__(self, what: str, take: Callable[[bytes], None] | None, loop: asyncio.AbstractEventLoop) -> None:
        self.what = what
        self.take = take
        self.done: asyncio.Future[None] = loop.create_future()


class Channel(asyncio.Protocol):
    """See the module. `listen(frames)` gets, once per read, all flow updates and port changes in order.

    `refused(xid, refusal)` gets errors that answer no request of `expect`.
    """

    def __init__(
        self, peer: str, listen: Callable[[bytes], None], flush: Callable[[], None],
        refused: Callable[[int, Refusal], None],
    ) -> None:  # fmt: skip
        self.peer = peer
        self.last_heard = 0.0
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Resolved once, with the reason in words, when the connection is of no more use."""
        self._listen = listen
        self._flush = flush
        self._refused = refused
        self._transport: asyncio.WriteTransport | None = None
        self._rest = b""
        self._answers: dict[int, Answer] = {}
        self._xid = 0
        self._greeted = False

    # What the owner calls

    def xids(self, count: int = 1) -> int:
        """Reserve `count` transaction ids in a row; the first is returned."""
        first = self._xid + 1
        if first + count > _LAST_XID:
            first = 1
        self._xid = first + count - 1
        return first

    def expect(self, xid: int, what: str, take: Callable[[bytes], None] | None = None) -> Answer:
        """Register for the answer to a request that is about to be sent."""
        answer = Answer(what, take, self._loop)
        if self.lost.done():
            answer.done.set_exception(DriverError(f"{what}: {self.lost.result()}"))
        else:
            self._answers[xid] = answer
        return answer

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self.lost.done():
            self._transport.write(data)

    async def gather(self, answers: Sequence[Answer], timeout: float) -> None:
        """Wait for every answer. The first refusal is raised; silence for `timeout` seconds drops the connection."""
        try:
            async with asyncio.timeout(timeout):
                for answer in answers:
                    await answer.done
        except TimeoutError as error:
            late = next(answer.what for answer in answers if not answer.done.done() or answer.done.cancelled())
            reason = f"{self.peer} did not answer within {timeout:.3g} s ({late}); the connection is made anew"
            self.drop(reason)
            raise DriverError(reason) from error
        finally:
            for answer in answers:
                if not answer.done.done():
                    answer.done.cancel()
                elif not answer.done.cancelled():
                    answer.done.exception()

    def drop(self, reason: str) -> None:
        """Give the connection up: every waiter is told `reason`."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if self._transport is not None:
            self._transport.abort()
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done.done():
                answer.done.set_exception(DriverError(f"{answer.what}: {reason}"))

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self.last_heard = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(f"{self.peer} closed the connection" + (f" ({exc})" if exc else ""))

    def data_received(self, data: bytes) -> None:
        self.last_heard = self._loop.time()
        try:
            frames, self._rest = codec.frames(self._rest + data if self._rest else data)
            for frame in frames:
                self._dispatch(frame)
        except Malformed as error:
            self.drop(f"{self.peer} sent what is no OpenFlow 1.4: {error}; the connection is made anew")
        finally:
            self._flush()

    def _dispatch(self, frame: bytes) -> None:
        kind, xid = frame[1], int.from_bytes(frame[4:8], "big")
        if kind == Type.MULTIPART_REPLY and xid:
            self._part(frame, xid)
        elif kind in {Type.MULTIPART_REPLY, Type.PORT_STATUS, Type.REQUESTFORWARD}:
            self._listen(frame)
        elif kind in _ANSWERS:
            answer = self._answers.pop(xid, None)
            if answer is not None and not answer.done.done():
                if answer.take is not None:
                    answer.take(frame)
                answer.done.set_result(None)
        elif kind == Type.ERROR:
            self._error(xid, codec.refusal(frame))
        elif kind == Type.ECHO_REQUEST:
            self.send(codec.message(Type.ECHO_REPLY, xid, frame[codec.HEADER :]))
        elif kind == Type.HELLO and not self._greeted:
            self._greeted = True
            self._check_version(frame)

    def _part(self, frame: bytes, xid: int) -> None:
        _, more = codec.part_of(frame)
        answer = self._answers.get(xid)
        if answer is None:
            return
        if answer.take is not None and not answer.done.done():
            answer.take(frame)
        if not more:
            del self._answers[xid]
            if not answer.done.done():
                answer.done.set_result(None)

    def _error(self, xid: int, refusal: Refusal) -> None:
        if refusal.type == HELLO_FAILED:
            self.drop(f"{self.peer}: the bridge's protocols lack OpenFlow14; add it to them ({refusal.text})")
            return
        answer = self._answers.pop(xid, None)
        if answer is None:
            self._refused(xid, refusal)
        elif not answer.done.done():
            answer.done.set_exception(RefusedError(f"{self.peer}, {answer.what}", refusal))

    def _check_version(self, frame: bytes) -> None:
        offered = codec.versions(frame)
        if codec.VERSION not in offered:
            names = ", ".join(f"OpenFlow1{version - 1}" for version in sorted(offered)) or "none that is known"
            self.drop(f"{self.peer}: the bridge's protocols lack OpenFlow14 (it offers {names}); add it to them")
