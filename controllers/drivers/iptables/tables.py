"""The iptables rules of all namespaces of this node, as the rules controller uses them.

`look` gives a namespace's chains from the replica, which events keep true (iptables-nft) or which is read again at
intervals (iptables-legacy); `change` runs iptables-restore and takes in what it did. Nothing is pinned: no socket and
no descriptor of a namespace stays open, but that of the scratch namespace.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from controllers.drivers.iptables import reading, writing
from controllers.drivers.iptables.chains import Chains, Reading, Touched, Transaction
from controllers.drivers.iptables.events import Listener
from controllers.drivers.iptables.netns import HOST, NAMED, Identity, Visitor
from controllers.drivers.iptables.nftables import Delete, Insert
from controllers.drivers.iptables.rules import Family, Text, Variant
from controllers.drivers.iptables.scratch import Meaning, Refusal, Scratch
from controllers.drivers.iptables.tools import Ended, Tools, detect
from controllers.drivers.iptables.writing import Refused
from controllers.drivers.netlink.listener import NameWatch
from controllers.drivers.tools import ToolMissingError
from reconciler.errors import DriverError, NotReady
from reconciler.logs import get_logger

POLL: Final = 1.0
"""Seconds between two looks at iptables-legacy, and at least 20 times what a look costs."""
_MOUNTING: Final = (0.001, 0.002, 0.004, 0.008, 0.016, 0.05, 0.2, 0.5, 1.0)
"""Seconds to wait, again and again, for a namespace to be mounted on its name."""
_TOGETHER: Final = 50
"""Namespaces that are asked in one visit: a repair waits for a few of them only."""

OnChange = Callable[[str, Touched | None, str], None]
log = get_logger("iptables")


@dataclass(slots=True)
class Space:
    """One namespace. `other` are tables that the other variant of iptables has there."""

    name: str
    identity: Identity | None = None
    chains: Chains = field(default_factory=Chains)
    other: tuple[str, ...] = ()
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Tables:
    """`on_change(namespace, touched, why)`: rules changed there; None: look at all of it. Use within `run`."""

    def __init__(self, on_change: OnChange, *, timeout: float, variant: Variant | None = None) -> None:
        self._on_change = on_change
        self._timeout = timeout
        self._variant = variant
        self._spaces: dict[str, Space] = {}
        self._by_nsid: dict[int, Space] = {}
        self.visitor = Visitor()
        self._tools: Tools | None = None
        self._scratch: Scratch | None = None
        self._listener = Listener(self._committed, self._lost)
        self._arrivals: NameWatch | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._arriving: dict[str, asyncio.Task[None]] = {}
        self._tools_of_ours: deque[int] = deque(maxlen=16)
        """Processes that we started last: what they did is no news."""

    # -- what is there ----------------------------------------------------------------------------------------------

    def with_own_chains(self) -> list[str]:
        """Namespaces in which chains of ours were seen."""
        return [name for name in self._spaces if self.has_own_chains(name)]

    def has_own_chains(self, name: str) -> bool:
        space = self._spaces.get(name)
        return space is not None and any(space.chains.own_chains())

    def other_variant(self) -> dict[str, tuple[str, ...]]:
        """Namespaces where the other variant of iptables has tables, with their names. They are not looked into."""
        return {name: space.other for name, space in self._spaces.items() if space.other}

    async def look(self, name: str) -> Space:
        """A namespace's rules. Raises NotReady when it is not there, DriverError when it cannot be read."""
        space = self._spaces.setdefault(name, Space(name))
        self._listener.drain()
        if space.identity is not None and space.chains.known:
            return space
        async with space.turn:
            tools = await self._ready()
            while space.identity is None or not space.chains.known:
                await self._identify(space)
                await self._read(space, tools)
        return space

    async def _identify(self, space: Space) -> None:
        try:
            identity = await self.visitor.identity(space.name)
        except NotReady:
            self._forget(space)
            raise
        if space.identity is None or space.identity.cookie != identity.cookie:
            space.chains.void()
        space.identity = identity
        self._by_nsid[identity.nsid] = space

    async def _read(self, space: Space, tools: Tools) -> bool:
        space.chains.begin()
        try:
            found, other = await self._reading(space.name, tools)
        except BaseException:
            space.chains.abandon()
            raise
        if other != space.other and other:
            log.warning("other_iptables_variant", namespace=space.name, tables=other, ours=str(tools.variant))
        space.other = other
        return space.chains.finish(found)

    async def _reading(self, name: str, tools: Tools) -> tuple[Reading, tuple[str, ...]]:
        """The rules, and the tables that the other variant has: for iptables-nft in one visit."""
        if tools.variant is Variant.NFT:
            return await self.visitor.visit(
                name, lambda: (reading.read_nft(self._timeout), tuple(reading.legacy_tables()))
            )
        chains = {}
        for family in Family:
            chains.update(reading.read_saved(await tools.save(name, family), family))
        return Reading(chains), tuple(await self.visitor.visit(name, reading.foreign_tables))

    async def prove(self, name: str) -> None:
        """Make sure that the replica is true. With iptables-nft an unchanged generation proves it."""
        space = self._spaces.get(name)
        if space is None:
            return
        async with space.turn:
            tools = await self._ready()
            await self._identify(space)
            if tools.variant is Variant.NFT and space.chains.known:
                self._listener.drain()
                number = await self.visitor.visit(name, lambda: reading.generation(self._timeout))
                self._listener.drain()
                if number == space.chains.generation:
                    return
                log.warning("iptables_events_missed", namespace=name, next="its rules are read again")
            await self._read(space, tools)

    async def proven(self, names: Sequence[str]) -> set[str]:
        """Those of these namespaces whose replicas have just been proven: in few visits, by cookie and generation."""
        tools = await self._ready()
        found: set[str] = set()
        if tools.variant is not Variant.NFT:
            return found
        for at in range(0, len(names), _TOGETHER):
            answers = await self.visitor.answers(names[at : at + _TOGETHER], lambda: reading.generation(self._timeout))
            self._listener.drain()
            found.update(name for name, answer in answers.items() if answer == self.seen(name))
        return found

    def seen(self, name: str) -> tuple[int, int] | None:
        """The cookie and the generation of which the replica is; None while it is void."""
        space = self._spaces.get(name)
        if space is None or space.identity is None or not space.chains.known:
            return None
        return space.identity.cookie, space.chains.generation

    # -- what is wanted, and how it is made so ----------------------------------------------------------------------

    async def meanings(self, texts: Sequence[Text]) -> Mapping[Text, Meaning | Refusal]:
        """What texts mean, from the canonicaliser. Raises DriverError when it fails."""
        tools = await self._ready()
        if self._scratch is None:
            self._scratch = Scratch(tools)
        return await self._scratch.meanings(texts)

    async def change(self, name: str, family: Family, text: str) -> Ended:
        """Run iptables-restore, never for a whole table, and take in what it did. Raises DriverError, NotReady."""
        tools = await self._ready()
        space = self._spaces.get(name)
        try:
            return await tools.restore(name, family, text, on_start=self._tools_of_ours.append)
        finally:
            if tools.variant is Variant.NFT:
                self._listener.drain()
            elif space is not None:
                space.chains.void()

    async def write(self, name: str, operations: Sequence[Insert | Delete]) -> Refused | None:
        """The fast path: single rules in one transaction, none of it if anything changed. Raises as `change` does."""
        await self._ready()
        space = self._spaces[name]
        generation = space.chains.generation

        def write() -> Refused | None:
            self._tools_of_ours.append(threading.get_native_id())
            return writing.write(operations, generation, self._timeout)

        try:
            return await self.visitor.visit(name, write)
        finally:
            self._listener.drain()

    async def variant(self) -> Variant:
        """Which iptables this node has."""
        return (await self._ready()).variant

    async def _ready(self) -> Tools:
        if self._tools is None:
            variant = self._variant or await detect(self.visitor)
            if self._tools is None:
                self._tools = Tools(self.visitor, variant)
        if self._tools.variant is Variant.NFT and not self._listener.open:
            self._listener.start()
        return self._tools

    # -- the streams ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._tasks = group
                self._arrivals = NameWatch(NAMED)
                asyncio.get_running_loop().add_reader(self._arrivals.descriptor, self._name_news, self._arrivals)
                if await self._usable():
                    group.create_task(self._find_ours(), name="iptables-left-overs")
                    group.create_task(self._poll(), name="iptables-legacy")
                await asyncio.Event().wait()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything; nothing that was seen is true any more."""
        self._tasks = None
        self._arriving.clear()
        self._listener.stop()
        if self._arrivals is not None:
            asyncio.get_running_loop().remove_reader(self._arrivals.descriptor)
            self._arrivals.close()
            self._arrivals = None
        for space in self._spaces.values():
            self._forget(space)
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None
        self.visitor.close()

    async def _usable(self) -> bool:
        """Is iptables installed? If not, that is said for each namespace with rules, by its pass, and by no event."""
        try:
            await self._ready()
        except ToolMissingError as error:
            log.info("iptables_missing", reason=str(error))
            return False
        return True

    async def _find_ours(self) -> None:
        """Look into every namespace once, so that what we left in one is known although nothing is declared there."""
        for name in self.visitor.names():
            try:
                await self.look(name)
            except NotReady:
                continue
            except DriverError as error:
                log.warning("namespace_not_read", namespace=name, error=str(error), next="its resync tries again")
                continue
            if self.has_own_chains(name):
                self._on_change(name, None, "chains of ours are there")

    async def _poll(self) -> None:
        """Read the rules of iptables-legacy again and again: there are no events of them."""
        tools = await self._ready()
        loop = asyncio.get_running_loop()
        pause = POLL
        while tools.variant is Variant.LEGACY:
            await asyncio.sleep(pause)
            started = loop.time()
            for space in list(self._spaces.values()):
                if space.identity is not None and space.chains.known and await self._differs(space, tools):
                    self._on_change(space.name, None, "rules changed")
            pause = max(POLL, 20 * (loop.time() - started))

    async def _differs(self, space: Space, tools: Tools) -> bool:
        """Read again. True when something changed, or when it cannot be read any more: its pass says why."""
        async with space.turn:
            try:
                return await self._read(space, tools)
            except (NotReady, DriverError):
                return True

    def _committed(self, nsid: int, transaction: Transaction) -> None:
        space = self._by_nsid.get(nsid)
        if space is None or not (space.chains.known or space.chains.reading):
            return
        touched = space.chains.apply(transaction)
        if touched is not None and (not touched or transaction.pid in self._tools_of_ours):
            return
        by = f" by {transaction.program} (pid {transaction.pid})" if transaction.program else ""
        self._on_change(space.name, touched, f"rules changed{by}")

    def _lost(self) -> None:
        log.warning("iptables_events_lost", next="all rules are read again")
        for space in self._spaces.values():
            space.chains.void()
            self._on_change(space.name, None, "events were lost")

    def _forget(self, space: Space) -> None:
        if space.identity is not None and self._by_nsid.get(space.identity.nsid) is space:
            del self._by_nsid[space.identity.nsid]
        space.identity = None
        space.chains = Chains()

    def _name_news(self, arrivals: NameWatch) -> None:
        names = arrivals.take()
        for name in {*self.visitor.names(), *self._spaces} - {HOST} if names is None else names:
            self._named(name)

    def made_anew(self, name: str) -> None:
        """Another namespace stands behind this name. Mounted over the old file, it makes no event in the directory."""
        self._named(name)

    def _named(self, name: str) -> None:
        """This name came or went."""
        space = self._spaces.pop(name, None)
        if space is not None:
            self._forget(space)
        if self._tasks is not None and name not in self._arriving:
            task = self._tasks.create_task(self._arrive(name), name=f"namespace-{name}")
            self._arriving[name] = task
            task.add_done_callback(lambda _: self._arriving.pop(name, None))

    async def _arrive(self, name: str) -> None:
        for pause in _MOUNTING:
            try:
                await self.visitor.identity(name)
            except NotReady:
                if name not in self.visitor.names():
                    break
                await asyncio.sleep(pause)
            except DriverError:
                break  # the pass meets it again, and says it
            else:
                break
        self._on_change(name, None, "namespace came or went")
