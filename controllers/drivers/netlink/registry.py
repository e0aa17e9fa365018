"""The replicas of a node's namespaces, and what dumps and events do to them: which number is whose, what is in doubt.

`client` does the IO and asks here; the one exception is `read`, which is done in a visit. It reports nothing by
itself: what an event brought is added to the `News` that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from controllers.drivers.netlink import rows
from controllers.drivers.netlink.inside import HOST, Session
from controllers.drivers.netlink.listener import Heard, Lost
from controllers.drivers.netlink.netns import Names
from controllers.drivers.netlink.replica import ALL, TABLES, Space, Tables
from controllers.drivers.netlink.wire import attributes
from reconciler.errors import NotReady

ITSELF = "*"
"""Stands for a device in what is reported: the namespace itself came or went."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a visit read of one namespace; `tables` None when it is not there."""

    name: str
    cookie: int = 0
    nsid: int | None = None
    tables: Tables | None = None
    digests: dict[str, int] = field(default_factory=dict)
    links: dict[int, rows.Link | None] = field(default_factory=dict)
    sysctls: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """What a visit is to read of one namespace. `digests` are those of what is known already."""

    name: str
    tables: tuple[str, ...]
    links: tuple[int, ...] = ()
    sysctls: tuple[str, ...] = ()
    digests: dict[str, int] = field(default_factory=dict)
    cookie: int = 0
    nsid: int | None = None


@dataclass(slots=True)
class News:
    """What one look at the streams brought, by namespace."""

    devices: dict[str, set[str]] = field(default_factory=dict)
    everything: str = ""

    def add(self, name: str, devices: Iterable[str] = ()) -> None:
        self.devices.setdefault(name, set()).update(devices)


class Registry:
    """Replicas by name. `on_new` is told the name of a namespace whose replica is new."""

    def __init__(self, names: Names, mark: str, on_new: Callable[[str], None]) -> None:
        self.spaces: dict[str, Space] = {}
        self.lost = 0
        """How often the kernel dropped messages."""
        self._names = names
        self._mark = mark
        self._on_new = on_new
        self._inodes: dict[str, int] = {}
        self._numbers: dict[int, str] = {}
        self._strangers: set[int | None] = set()
        """Numbers from which something came that belong to no replica (yet)."""
        self._sysctls: dict[str, tuple[str, ...]] = {}
        self._neighbours: set[str] = set()
        self._ours: set[str] = set()
        self._marked: tuple[str, ...] | None = None

    def marked(self) -> Sequence[str]:
        """Names of the namespaces that carry our mark; the same object until they change."""
        if self._marked is None:
            self._marked = tuple(sorted(self._ours))
        return self._marked

    def is_marked(self, name: str) -> bool:
        return name in self._ours

    def there(self, name: str) -> bool:
        return name == HOST or self._names.mounted(name)

    def want(self, name: str, sysctls: tuple[str, ...], *, neighbours: bool) -> bool:
        """Note what else is of interest in a namespace. True when neighbours are for the first time."""
        if sysctls != self._sysctls.get(name, ()):
            self._sysctls[name] = sysctls
            self.doubt(name, ("sysctls",))
        if not neighbours or name in self._neighbours:
            return False
        self._neighbours.add(name)
        self.doubt(name, ("neighbours",))
        return True

    @property
    def wants_neighbours(self) -> bool:
        return bool(self._neighbours)

    def clear(self) -> None:
        """Nothing is heard any more, so nothing is known."""
        for kept in (self.spaces, self._inodes, self._numbers, self._strangers, self._ours):
            kept.clear()
        self._marked = None

    def doubted(self, space: Space) -> bool:
        if not space.doubt:
            return bool(space.unsure)
        relevant = set(space.doubt)
        if space.name not in self._neighbours:
            relevant.discard("neighbours")
        if not self._sysctls.get(space.name):
            relevant.discard("sysctls")
        return bool(relevant or space.unsure)

    def doubt(self, name: str, tables: Collection[str]) -> None:
        space = self.spaces.get(name)
        if space is not None:
            space.doubt |= set(tables)

    def same(self, name: str) -> bool:
        """Is the namespace of this name still the one that the replica is of?"""
        if name == HOST or name not in self.spaces:
            return True
        return self._inode(name) == self._inodes.get(name)

    def drop(self, name: str) -> None:
        space = self.spaces.pop(name, None)
        self._inodes.pop(name, None)
        self._unmark(name)
        if space is not None and space.nsid is not None and self._numbers.get(space.nsid) == name:
            del self._numbers[space.nsid]

    def order(self, name: str, tables: Collection[str] = (), *, known: bool = False) -> Order:
        """What is in doubt, and `tables` besides. `known`: what was read last still stands, if it reads the same."""
        space = self.spaces.get(name)
        wanted = set(tables) | (ALL if space is None else space.doubt)
        if name not in self._neighbours:
            wanted.discard("neighbours")
        return Order(
            name,
            tuple(table for table in TABLES if table in wanted),
            () if space is None else tuple(space.unsure),
            self._sysctls.get(name, ()) if "sysctls" in wanted else (),
            dict(space.digests) if space is not None and known else {},
            0 if space is None else space.cookie,
            None if space is None else space.nsid,
        )

    def read(self, session: Session, order: Order) -> Loaded:
        """In the thread: carry out an order; a namespace that is not the one that was meant is read wholly."""
        name = order.name
        try:
            cookie = session.channel(name).cookie
            nsid = order.nsid
            if name != HOST and (nsid is None or cookie != order.cookie):
                nsid = session.number(name)  # for as long as it lives it keeps the one that it has
            if cookie != order.cookie:
                tables = tuple(table for table in TABLES if table != "neighbours" or name in self._neighbours)
                order = Order(name, tables, sysctls=self._sysctls.get(name, ()))
            found, digests = {}, {}
            for table in order.tables:
                digests[table], read = session.table(name, table, order.digests.get(table))
                if read is not None:
                    found[table] = read
            links = {index: session.link(name, index) for index in order.links}
            sysctls = session.read_sysctls(name, order.sysctls)
        except NotReady:
            return Loaded(name)
        return Loaded(name, cookie, nsid, found, digests, links, sysctls)

    def register(self, loaded: Loaded) -> None:
        """A dump is newer than what was heard before it; what was heard since is applied to it when it is taken."""
        name = loaded.name
        inode = self._inode(name)
        if loaded.tables is None or (inode is None and name != HOST):
            self.drop(name)
            return
        space = self.spaces.get(name)
        if space is None or space.cookie != loaded.cookie:
            self.drop(name)
            space = self.spaces[name] = Space(name, loaded.cookie)
            self._on_new(name)
        self._inodes[name] = inode or 0
        self._give_number(space, loaded.nsid)
        whole = space.version == space.loaded
        space.load(loaded.tables)
        space.load_links(loaded.links)
        if loaded.sysctls or not self._sysctls.get(name):
            space.load_sysctls(loaded.sysctls)
        space.digests |= loaded.digests
        if whole or len(loaded.digests) >= len(TABLES) - 1:
            space.loaded = space.version
        if loaded.nsid in self._strangers:
            self._strangers.discard(loaded.nsid)
            space.doubt |= ALL  # something was heard from it before its number was known
        self._note_mark(space)

    def _give_number(self, space: Space, nsid: int | None) -> None:
        if nsid is None or (space.nsid == nsid and self._numbers.get(nsid) == space.name):
            return
        other = self._numbers.get(nsid)
        if other is not None and other != space.name:
            self.doubt(other, ALL)
        if space.nsid is not None:
            self._numbers.pop(space.nsid, None)
        space.nsid = nsid
        self._numbers[nsid] = space.name

    def _inode(self, name: str) -> int | None:
        try:
            return self._names.path(name).stat().st_ino
        except OSError:
            return None

    def _note_mark(self, space: Space) -> None:
        loop = space.links.get(1)
        if space.name != HOST and loop is not None and loop.alias == self._mark:
            if space.name not in self._ours:
                self._ours.add(space.name)
                self._marked = None
        else:
            self._unmark(space.name)

    def _unmark(self, name: str) -> None:
        if name in self._ours:
            self._ours.discard(name)
            self._marked = None

    def heard(self, heard: Heard | Lost, news: News) -> None:
        if isinstance(heard, Lost):
            self.lost += 1
            for space in self.spaces.values():
                space.doubt |= ALL
            news.everything = "netlink events were lost"
            return
        if heard.nsid is None and heard.kind in {rows.RTM_NEWNSID, rows.RTM_DELNSID}:
            self._numbered(heard, news)
            return
        name = HOST if heard.nsid is None else self._numbers.get(heard.nsid)
        found = self.spaces.get(name) if name is not None else None
        if found is None:
            if heard.nsid is not None:
                self._strangers.add(heard.nsid)
            return
        if not heard.kind:
            if not found.doubt >= ALL:
                found.doubt |= ALL
                news.add(found.name)
        elif heard.kind in {rows.RTM_NEWLINK, rows.RTM_DELLINK}:
            self._link(found, heard, news)
        elif found.apply(heard.kind, heard.flags, heard.body):
            news.add(found.name)

    def _link(self, space: Space, heard: Heard, news: News) -> None:
        """Others may wait for a device by name: both its names, if it was renamed, are news."""
        row = rows.link(heard.body)
        before = space.links.get(row.ifindex)
        if space.apply(heard.kind, heard.flags, heard.body, row):
            news.add(space.name, {row.name} | ({before.name} if before is not None else set()))
            if row.ifindex == 1:
                self._note_mark(space)

    def _numbered(self, heard: Heard, news: News) -> None:
        if heard.kind != rows.RTM_DELNSID:
            return
        value = attributes(heard.body, 4).get(1, b"")
        name = self._numbers.get(int.from_bytes(value, "little", signed=True))
        if name is not None:
            self.drop(name)  # the namespace has ended, or this number was given anew: it is looked at in any case
            news.add(name, {ITSELF})

    def remounted(self, news: News) -> None:
        """Something was mounted or unmounted somewhere: what is no longer under its name is news."""
        for name in [each for each in self.spaces if each != HOST and not self.same(each)]:
            self.drop(name)
            news.add(name, {ITSELF})

    def named(self, names: dict[str, bool] | None, news: News) -> list[str]:
        """Names came or went (None: nobody knows which). Returns those on which no namespace is mounted (yet)."""
        if names is None:
            news.everything = "the directory of namespaces was replaced"
            for name in [n for n in self.spaces if not self.same(n)]:
                self.drop(name)
            return []
        for name, gone in names.items():
            if gone:
                self.drop(name)
                news.add(name, {ITSELF})
        present = {name for name in names if self.there(name)}
        for name in present - self.spaces.keys():
            news.add(name, {ITSELF})
        return [name for name in names if name not in present]
