"""The connection to a node's OVSDB: a replica that follows it, and transactions on it. One per process.

`run` connects, monitors the configuration (not the statistics), and connects anew for ever; `transact` writes. The
server sends the update that a transaction causes before its reply on the same connection, so what a transaction
touched is known when it returns, and is its caller's to verify: it is no event. Built by the daemon's composition
root; used by the OVSDB controller. It decides nothing about what should be there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controllers.drivers.ovsdb.jsonrpc import Link, LinkLostError, RefusedError, words
from controllers.drivers.ovsdb.replica import Replica, TableUpdates
from controllers.drivers.ovsdb.rows import SHAPES
from reconciler.errors import ConfigError, DriverError, NotReady

DATABASE = "Open_vSwitch"

OnChange = Callable[[frozenset[str] | None, str], None]
"""Told the names of bridges and ports to look at again (None: everything), and why."""

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 1.0
_SILENCE = 5.0
"""Seconds without a message after which the server is probed, as its own clients do."""


class TransactionError(DriverError):
    """The server refused the transaction, all of it. `index` is the operation it blamed, if it blamed one."""

    def __init__(self, message: str, index: int | None) -> None:
        super().__init__(message)
        self.index = index


@dataclass(frozen=True, slots=True)
class Transacted:
    """What a transaction did: one result for each operation, and the names of bridges and ports touched meanwhile.

    `touched` has also what a rival changed between sending and the reply: verify exactly these.
    """

    results: tuple[Mapping[str, Any], ...]
    touched: frozenset[str]


class Ovsdb:
    """A node's OVSDB. `ready` says that `replica` is whole and followed; otherwise `problem` says what is wrong."""

    def __init__(self, remote: str, *, on_change: OnChange, timeout: float = 5.0, silence: float = _SILENCE) -> None:
        """`remote` is ``unix:PATH``; `timeout` bounds every exchange, `silence` is when to probe (both in seconds)."""
        scheme, _, path = remote.partition(":")
        if scheme != "unix" or not path:
            raise ConfigError(f"OVSDB remote {remote!r}: only unix:PATH is spoken, as in {_EXAMPLE}")
        self.remote = remote
        self.replica = Replica()
        self.ready = False
        self.problem = "not connected yet"
        self.lost_count = 0
        """How often a connection broke off that was ready."""
        self._path = path
        self._on_change = on_change
        self._timeout = timeout
        self._silence = silence
        self._link: Link | None = None
        self._heard = 0.0
        self._own: set[str] | None = None
        """Names touched since the transaction under way was sent; None when there is none."""
        self._writing = False
        self._written = asyncio.Event()
        self._poked = asyncio.Event()

    @property
    def last_event(self) -> float:
        """Loop time of the last whole message from the server, answers to probes included. 0.0: never."""
        return self._heard if self._link is None else self._link.heard

    def poke(self) -> None:
        """Connect now instead of after the pause: something says that the server is back."""
        self._poked.set()

    async def run(self) -> None:
        """Hold the connection until cancelled. Not being able to is no error: it is `problem`, and tried again."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while True:
            began = loop.time()
            await self._session()
            if loop.time() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            pause = _FIRST_PAUSE if await self._poked_within(pause) else min(2 * pause, _LONGEST_PAUSE)

    async def transact(self, operations: Sequence[Mapping[str, Any]]) -> Transacted:
        """Carry out `operations` (RFC 7047, 5.2; `ops` builds them) as one transaction. One at a time.

        It returns when the database has it, not when vswitchd has acted on it.
        Raises TransactionError with OVSDB's own words, NotReady without a connection, and DriverError when no reply
        came: then it may have been written all the same, and the replica is read anew.
        """
        if self._writing:
            await self._turn(operations)
        link = self._link
        if link is None or not self.ready:
            raise NotReady(f"{self._what(operations)}: not connected ({self.problem}); tried again when it is")
        self._writing = True
        try:
            return await self._exchange(link, operations)
        except LinkLostError as error:
            raise DriverError(
                f"{self._what(operations)}: the connection was lost ({error}); it may have been written all the same,"
                " everything is read anew"
            ) from error
        finally:
            self._writing = False
            self._written.set()

    def _what(self, operations: Sequence[Mapping[str, Any]]) -> str:
        return f"transaction of {len(operations)} operations on {self.remote}"

    async def _turn(self, operations: Sequence[Mapping[str, Any]]) -> None:
        """Wait until no other transaction is under way."""
        try:
            async with asyncio.timeout(self._timeout):
                while self._writing:
                    self._written.clear()
                    await self._written.wait()
        except TimeoutError as error:
            late = f"not sent, another one was under way for {self._timeout:g} s"
            raise DriverError(f"{self._what(operations)}: {late}") from error

    async def _exchange(self, link: Link, operations: Sequence[Mapping[str, Any]]) -> Transacted:
        own: set[str] = set()
        returned = False

        def answered(results: Any) -> Any:
            """At the reply's place in the stream: whatever comes after it is an event again."""
            self._own = None
            return results

        reply = link.request("transact", [DATABASE, *operations], answered)
        self._own = own
        late = f"no reply to a transaction within {self._timeout:g} s"
        timer = asyncio.get_running_loop().call_later(self._timeout, link.drop, late)
        try:
            results = await reply
            done = Transacted(_checked(results, operations, self._what), frozenset(own))
            returned = True
        except RefusedError as error:
            raise TransactionError(f"{self._what(operations)}: {error}; nothing was written", None) from error
        finally:
            timer.cancel()
            if self._own is own:
                self._own = None
            if not returned and own and self.ready:
                self._on_change(frozenset(own), "OVSDB update")
        return done

    async def _session(self) -> None:
        """One connection, from the attempt to its end."""
        loop = asyncio.get_running_loop()
        link = Link(self)
        try:
            async with asyncio.timeout(self._timeout):
                await loop.create_unix_connection(lambda: link, self._path)
                self._link = link
                await link.request("monitor_cond", [DATABASE, None, _MONITORED], self._load)
            await self._hold(link)
        except TimeoutError:
            self._end_quietly(link, f"{self.remote} does not answer: no reply within {self._timeout:g} s")
        except OSError as error:
            self._end_quietly(link, f"cannot connect to {self.remote}: {error.strerror or error}")
        except DriverError as error:
            self._end_quietly(link, f"cannot monitor {self.remote}: {error}")
        finally:
            self._forget()
            link.close()

    def _end_quietly(self, link: Link, problem: str) -> None:
        """The session ended before it was ready: nobody was told of a connection, so nobody is told of its loss."""
        if self.ready:
            link.drop(problem)
        self.problem = problem

    async def _hold(self, link: Link) -> None:
        """Until the link ends; probes it when it is silent, and drops it when the probe is not answered."""
        loop = asyncio.get_running_loop()
        while not link.ended.done():
            quiet = loop.time() - link.heard
            if quiet < self._silence:
                await asyncio.wait({link.ended}, timeout=self._silence - quiet)
                continue
            try:
                async with asyncio.timeout(self._timeout):
                    await link.request("echo", [], _as_is)
            except TimeoutError:
                link.drop(f"silent, and no answer to a probe within {self._timeout:g} s")
            except LinkLostError:
                return  # told by `lost`

    def _load(self, initial: TableUpdates) -> None:
        self.replica.load(initial)
        self.ready = True
        self.problem = ""
        self._on_change(None, "connected")

    def notified(self, method: str, params: list[Any]) -> None:
        """From the link: an update is applied at once and in order."""
        if method != "update2" or len(params) != 2:
            raise DriverError(f"OVSDB sent {method!r}, so that the monitor cannot be relied on")
        if not self.ready:
            raise DriverError("OVSDB sent an update before the initial contents")
        touched = self.replica.apply(params[1])
        if touched.root:
            self._on_change(None, "Open_vSwitch row changed")
        if self._own is not None:
            self._own |= touched.names
        elif touched.names and not touched.root:
            self._on_change(touched.names, "OVSDB update")

    def lost(self, reason: str) -> None:
        """From the link, at once: what the replica says is not known to be true any more."""
        was_ready = self.ready
        self._forget()
        self.problem = f"connection to {self.remote} lost: {reason}"
        if was_ready:
            self.lost_count += 1
            self._on_change(None, "OVSDB connection lost")

    def _forget(self) -> None:
        self.ready = False
        self.replica.reset()
        self._own = None
        if self._link is not None:
            self._heard = self._link.heard
            self._link = None

    async def _poked_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        except TimeoutError:
            return False
        self._poked.clear()
        return True


_EXAMPLE = "unix:/run/openvswitch/db.sock"
_MONITORED = {table: [{"columns": list(shape.columns)}] for table, shape in SHAPES.items()}


def _as_is(result: Any) -> Any:
    return result


def _checked(
    results: Any, operations: Sequence[Mapping[str, Any]], called: Callable[[Sequence[Mapping[str, Any]]], str]
) -> tuple[Mapping[str, Any], ...]:
    """The results, if there is no error among them. OVSDB reports one for an operation or, as an extra, the commit."""
    if not isinstance(results, list):
        raise DriverError(f"{called(operations)}: OVSDB replied {results!r}; it may have been written all the same")
    for index, result in enumerate(results):
        if isinstance(result, dict) and result.get("error"):
            what = called(operations)
            if index >= len(operations):
                raise TransactionError(f"{what}: {words(result)}; nothing was written", None)
            operation = operations[index]
            where = f"operation {index} ({operation.get('op')} {operation.get('table', '')})"
            raise TransactionError(f"{what}: {where}: {_guard_words(operation, result)}; nothing was written", index)
    return tuple(result for result in results if isinstance(result, dict))


def _guard_words(operation: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    if operation.get("op") == "wait" and error.get("error") == "timed out":
        return f"{words(error)}: somebody else changed it meanwhile, it is looked at again"
    return words(error)
