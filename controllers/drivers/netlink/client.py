"""All network namespaces of a node: a replica of each one that is of interest, and visits to them. One per process.

`run` listens; `space` gives the replica of one namespace, read anew where it is in doubt; `perform` does work in a
visit and reads back what it touched. Built by the composition root, used by the namespace controller. It decides
nothing about what should be there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from controllers.drivers.netlink.inside import HOST, Inside, Session
from controllers.drivers.netlink.listener import BUFFER, Listener, NameWatch
from controllers.drivers.netlink.netns import FLUX
from controllers.drivers.netlink.registry import ITSELF, Loaded, News, Order, Registry
from controllers.drivers.netlink.replica import ALL, Space
from controllers.drivers.netlink.wire import RefusedError
from reconciler.errors import DriverError, NotReady

RUN_NETNS = Path("/run/netns")
_RETRIES = (0.0003, 0.0006, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.25)
"""Seconds between the looks at a name on which no namespace is mounted yet: inotify comes before the mount."""
_BATCH = 50
_ROUNDS = 5

OnChange = Callable[[str | None, frozenset[str], str], None]
"""Told the namespace to look at again (None: all), which of its devices came, went or changed, and why.

Without a reason the namespace itself need not be looked at, only others that have to do with these devices."""

Result = TypeVar("Result")


class Netlink:
    """`ready` says that the streams are heard; otherwise `problem` says what is wrong."""

    def __init__(
        self,
        *,
        mark: str,
        on_change: OnChange,
        directory: Path = RUN_NETNS,
        timeout: float = 5.0,
        buffer: int = BUFFER,
    ) -> None:
        """`mark` is the alias of `lo` in namespaces of ours; `timeout` bounds an answer of the kernel, in seconds."""
        self.mark = mark
        self.ready = False
        self.problem = "not listening yet"
        self.last_event = 0.0
        self._inside = Inside(directory, timeout)
        self._registry = Registry(self._inside.names, mark, lambda name: on_change(name, frozenset({ITSELF}), ""))
        self._on_change = on_change
        self._buffer = buffer
        self._listener: Listener | None = None
        self._watch: NameWatch | None = None
        self._visiting = False
        self._settling: asyncio.TimerHandle | None = None
        self._remounted = False
        """Has the mount table changed since it was last looked at?"""
        self._expected: dict[str, asyncio.TimerHandle] = {}
        self._ended: asyncio.Future[None] | None = None
        self._alone = asyncio.Lock()
        """Held while the replicas are read, and while something is done that they are to show."""

    # -- what the controller asks -----------------------------------------------------------------------------------

    @property
    def lost(self) -> int:
        """How often the kernel dropped messages."""
        return self._registry.lost

    def marked(self) -> Sequence[str]:
        """Names of the namespaces that carry our mark; the same object until they change."""
        return self._registry.marked()

    def is_marked(self, name: str) -> bool:
        return self._registry.is_marked(name)

    def known(self, name: str) -> Space | None:
        """The replica as it stands, in doubt or not; None when there is none."""
        return self._registry.spaces.get(name)

    def want(self, name: str, *, sysctls: Iterable[str], neighbours: bool) -> None:
        """Say what else than links, addresses, routes and rules is of interest in a namespace."""
        first = self._registry.want(name, tuple(sysctls), neighbours=neighbours)
        if first and self._listener is not None:
            self._listener.hear_neighbours()

    async def space(self, name: str) -> Space | None:
        """The replica of one namespace, as `spaces` gives it; None when there is no such namespace."""
        return (await self.spaces([name])).get(name)

    async def spaces(self, names: Sequence[str], *, quiet: str = "") -> dict[str, Space]:
        """The replicas of those namespaces that are there, with nothing in doubt.

        News of namespace `quiet` are not reported: its pass is under way. Raises NotReady, DriverError.
        """
        async with self._alone:
            for _ in range(_ROUNDS):
                self._need_ready()
                while self.drain(quiet=quiet):
                    await asyncio.sleep(0)
                doubtful = [name for name in names if not self._certain(name)]
                if not doubtful:
                    break
                await self._load(doubtful)
            else:
                # They change faster than they can be read: what was just read was true a moment ago.
                for name in doubtful:
                    self._on_change(name, frozenset(), "it keeps changing")
            found = {name: self._registry.spaces.get(name) for name in names}
        return {name: space for name, space in found.items() if space is not None}

    def _certain(self, name: str) -> bool:
        """Is all known of this namespace, or that there is none?"""
        registry = self._registry
        if not registry.same(name):
            registry.drop(name)
        space = registry.spaces.get(name)
        if space is None:
            return not registry.there(name)
        if registry.doubted(space):
            return False
        if space.later:
            space.doubt |= space.later
            space.later.clear()
            # Said when the pass that asks here waits for the kernel, or has ended: the repair does not wait for it.
            loop = asyncio.get_running_loop()
            loop.call_soon(self._on_change, name, frozenset(), "what may have gone with it")
        return True

    async def perform(self, name: str, work: Callable[[Session], Result], *, tables: Collection[str] = ALL) -> Result:
        """Do `work` in a visit and read these tables of the namespace back. Raises as `work` and `space` do.

        What became of devices is told by the kernel before it answers; of them only the doubtful are read back.
        """
        self._need_ready()
        space = self._registry.spaces.get(name)
        order = self._registry.order(name, ALL if space is None else tables)

        def do_and_read(session: Session) -> tuple[Result, Loaded]:
            return work(session), self._registry.read(session, order)

        async with self._alone:
            result, loaded = await self._visit(do_and_read)
            self._registry.register(loaded)
        return result

    async def prove(self, names: Sequence[str]) -> None:
        """Read these namespaces anew, all of each: some in one visit, so that a repair waits for a few of them only."""
        for at in range(0, len(names), _BATCH):
            async with self._alone:
                await self._prove(names[at : at + _BATCH])

    async def _prove(self, names: Sequence[str]) -> None:
        registry = self._registry
        self.drain()
        spaces = [space for space in map(registry.spaces.get, names) if space is not None]
        await self._carry_out(
            [registry.order(s.name, ALL, known=s.version == s.loaded and not s.doubt) for s in spaces]
        )

    def certain(self, names: Iterable[str]) -> dict[str, Space] | None:
        """What `spaces` would give, as far as it is known without reading anything; None if something is in doubt."""
        names = list(names)
        if not (self.ready and all(map(self._certain, names))):
            return None
        return {name: space for name in names if (space := self._registry.spaces.get(name)) is not None}

    def _need_ready(self) -> None:
        if not self.ready:
            raise NotReady(f"network namespaces: {self.problem}")

    async def _visit(self, work: Callable[[Session], Result]) -> Result:
        """Do `work` while no event is taken: one that came after a dump must not be overwritten by it.

        They wait in the socket, and are applied to the dump in their order; those older than it end where it began.
        Only called with `_alone` held. The thread begins first: no event is taken before the loop has its next turn.
        """
        running = self._inside.begin(work)
        self._visiting = True
        self._listen(on=False)
        try:
            return await self._inside.ended(running)
        finally:
            self._visiting = False
            self._listen(on=True)
            if self._remounted:
                asyncio.get_running_loop().call_soon(self._readable)

    def _listen(self, *, on: bool) -> None:
        loop = asyncio.get_running_loop()
        listener, watch = self._listener, self._watch
        if listener is None or watch is None:
            return
        for descriptor, heard in ((listener.socket.fileno(), self._hear), (watch.descriptor, self._readable)):
            if on:
                loop.add_reader(descriptor, heard)
            else:
                loop.remove_reader(descriptor)

    async def _load(self, names: Sequence[str]) -> None:
        await self._carry_out([self._registry.order(name) for name in names])

    async def _carry_out(self, orders: Sequence[Order]) -> None:
        """In one visit."""
        registry = self._registry

        def read(session: Session) -> list[Loaded]:
            return [registry.read(session, order) for order in orders]

        for loaded in await self._visit(read) if orders else ():
            registry.register(loaded)

    # -- the streams ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen until cancelled. Raises DriverError when the streams break; the caller starts it again."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._listener = listener = Listener(self._buffer)
        watch: NameWatch | None = None
        try:
            self._watch = watch = NameWatch(self._inside.names.directory)
            loop.add_writer(watch.mounts, self._mounts_changed)
            if self._registry.wants_neighbours:
                listener.hear_neighbours()
            self._ended = ended
            async with self._alone:
                await self._scan()
            self.ready, self.problem = True, ""
            self._on_change(None, frozenset(), "listening")
            await ended
        finally:
            self.ready, self.problem = False, "the netlink stream ended"
            loop.remove_reader(listener.socket.fileno())
            listener.close()
            if watch is not None:
                loop.remove_reader(watch.descriptor)
                loop.remove_writer(watch.mounts)
                watch.close()
            self._listener = self._watch = None
            for timer in (*self._expected.values(), *([self._settling] if self._settling is not None else [])):
                timer.cancel()
            self._settling = None
            self._expected.clear()
            self._registry.clear()

    def close(self) -> None:
        self._inside.close()

    async def _scan(self) -> None:
        """Find the namespaces that carry our mark, and read the host."""
        await self._load([HOST])
        names = self._inside.names.all()
        for at in range(0, len(names), _BATCH):
            await self._load(await self._visit(self._ours_among(names[at : at + _BATCH])))

    def _ours_among(self, names: Sequence[str]) -> Callable[[Session], list[str]]:
        return lambda session: [name for name in names if self._is_ours(session, name)]

    def _is_ours(self, session: Session, name: str) -> bool:
        try:
            loop = session.link(name, "lo")
        except (NotReady, RefusedError):
            return False
        return loop is not None and loop.alias == self.mark

    def _mounts_changed(self) -> None:
        """Whoever deletes a name unmounts first: let him remove the file, which inotify tells of, before we look."""
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(FLUX, self._mounts_settled)

    def _mounts_settled(self) -> None:
        self._settling = None
        self._remounted = True
        if not self._visiting:
            self._readable()

    def _hear(self) -> None:
        """The rtnetlink socket alone: names have a callback of their own, and no repair waits for a look at them."""
        self._readable(names=False)

    def _readable(self, *, names: bool = True) -> None:
        try:
            self.drain(names=names)
        except DriverError as error:
            self.ready, self.problem = False, str(error)
            if self._ended is not None and not self._ended.done():
                self._ended.set_exception(error)

    def drain(self, *, quiet: str = "", names: bool = True) -> bool:
        """Take what the streams have now into the replicas, and report the news. True when there may be more.

        Raises DriverError.
        """
        listener, watch = self._listener, self._watch
        if listener is None or watch is None:
            return False
        news = News()
        for heard in listener.take():
            self._registry.heard(heard, news)
        if names:
            for name in self._registry.named(watch.take(), news):
                self._expect(name, 0)
        if self._remounted:
            self._remounted = False
            self._registry.remounted(news)
        if news.devices or news.everything:
            self._report(news, quiet)
        return listener.more

    def _report(self, news: News, quiet: str) -> None:
        self.last_event = asyncio.get_running_loop().time()
        if not self.ready:
            return
        if news.everything:
            self._on_change(None, frozenset(), news.everything)
            return
        for name, devices in news.devices.items():
            if name != quiet or devices:
                self._on_change(name, frozenset(devices), "netlink event" if name != quiet else "")

    def _expect(self, name: str, attempt: int) -> None:
        """Look again soon: the name is there before the namespace is."""
        timer = self._expected.pop(name, None)
        if timer is not None:
            timer.cancel()
        if attempt < len(_RETRIES) and self._inside.names.path(name).exists():
            loop = asyncio.get_running_loop()
            self._expected[name] = loop.call_later(_RETRIES[attempt], self._look_at_name, name, attempt + 1)

    def _look_at_name(self, name: str, attempt: int) -> None:
        del self._expected[name]
        if not self._registry.there(name):
            self._expect(name, attempt)
        elif name not in self._registry.spaces and self.ready:
            self._on_change(name, frozenset({ITSELF}), "namespace appeared")
