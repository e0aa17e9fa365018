"""What is known of one namespace: its tables, fed by dumps and by events, and which of them are in doubt.

An event that says plainly what became of one row is applied; one that leaves a question (an IPv4 route goes without a
word when its device goes down) puts its table in doubt, which `client` reads again before anybody looks at it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controllers.drivers.netlink import rows
from controllers.drivers.netlink.wire import F_REPLACE, Message, messages

TABLES = ("links", "addresses", "routes", "rules", "neighbours")
ALL = frozenset((*TABLES, "sysctls"))

Tables = Mapping[str, Sequence[Any]]
"""Rows by table, as a dump found them."""


def read(table: str, chunks: Sequence[bytes]) -> list[Any]:
    """The rows of a dump's answers."""
    answers = [Message(kind, flags, body) for chunk in chunks for kind, flags, _, body in messages(chunk)]
    match table:
        case "links":
            return [rows.link(m.body) for m in answers if m.type == rows.RTM_NEWLINK]
        case "addresses":
            return [rows.address(m.body) for m in answers if m.type == rows.RTM_NEWADDR]
        case "routes":
            found = (rows.route(m.body) for m in answers if m.type == rows.RTM_NEWROUTE)
            return [row for row in found if row is not None]
        case "rules":
            rules = (rows.rule(m.body) for m in answers if m.type == rows.RTM_NEWRULE)
            return [row for row in rules if row is not None]
        case _:
            neighbours = (rows.neighbour(m.body) for m in answers if m.type == rows.RTM_NEWNEIGH)
            return [row for row in neighbours if row is not None]


def destination(row: rows.Route) -> tuple[int, str, int]:
    """What makes a route the only one: of two with the same, the second replaces the first."""
    return row.table, row.to, row.metric


@dataclass(slots=True)
class Space:
    """One namespace. `cookie` is its incarnation, `nsid` the number that its events carry (None: the host itself)."""

    name: str
    cookie: int = 0
    nsid: int | None = None
    links: dict[int, rows.Link] = field(default_factory=dict)
    addresses: dict[tuple[int, str], rows.Address] = field(default_factory=dict)
    routes: dict[tuple[int, str, int], tuple[rows.Route, ...]] = field(default_factory=dict)
    rules: set[rows.Rule] = field(default_factory=set)
    neighbours: dict[tuple[int, str], rows.Neighbour] = field(default_factory=dict)
    sysctls: dict[str, str | None] = field(default_factory=dict)
    doubt: set[str] = field(default_factory=lambda: set(ALL))
    later: set[str] = field(default_factory=set)
    """Tables in which something else may have changed, too: read again after what is known has been seen to."""
    unsure: set[int] = field(default_factory=set)
    """Devices to be looked at one by one."""
    digests: dict[str, int] = field(default_factory=dict)
    """Of the dumps that the tables were last read from."""
    version: int = 0
    loaded: int = 0
    """The version when a dump was last taken over."""
    _names: dict[str, rows.Link] | None = None

    def by_name(self) -> Mapping[str, rows.Link]:
        if self._names is None:
            self._names = {link.name: link for link in self.links.values()}
        return self._names

    def load(self, tables: Tables) -> bool:
        """Take over what a dump found, whole tables. True when anything was not known."""
        changed = False
        for table, found in tables.items():
            new = _indexed(table, found)
            if new != getattr(self, table):
                setattr(self, table, new)
                changed = True
            self.doubt.discard(table)
            self.later.discard(table)
        if changed:
            self._changed()
        return changed

    def load_links(self, found: Mapping[int, rows.Link | None]) -> None:
        """Take over single devices; None for one that is gone."""
        for index, row in found.items():
            self.unsure.discard(index)
            if row is None:
                self.links.pop(index, None)
            else:
                self.links[index] = row
        if found:
            self.digests.pop("links", None)
            self._changed()

    def load_sysctls(self, values: Mapping[str, str | None]) -> bool:
        changed = any(self.sysctls.get(key, "") != value for key, value in values.items())
        self.sysctls.update(values)
        self.doubt.discard("sysctls")
        if changed:
            self.version += 1
        return changed

    def _changed(self) -> None:
        self.version += 1
        self._names = None

    def apply(self, kind: int, flags: int, body: bytes, link: rows.Link | None = None) -> bool:
        """Take over one event. True when what is known changed, or came into doubt. `link` is `body`, read already."""
        doubted = len(self.doubt)
        match kind:
            case rows.RTM_NEWLINK | rows.RTM_DELLINK:
                changed = self._link(link or rows.link(body), gone=kind == rows.RTM_DELLINK, body=body)
            case rows.RTM_NEWADDR | rows.RTM_DELADDR:
                changed = self._address(rows.address(body), gone=kind == rows.RTM_DELADDR)
            case rows.RTM_NEWROUTE | rows.RTM_DELROUTE:
                changed = self._route(
                    rows.route(body), gone=kind == rows.RTM_DELROUTE, replaces=bool(flags & F_REPLACE)
                )
            case rows.RTM_NEWRULE | rows.RTM_DELRULE:
                changed = self._rule(rows.rule(body), gone=kind == rows.RTM_DELRULE)
            case rows.RTM_NEWNEIGH | rows.RTM_DELNEIGH:
                changed = self._neighbour(body, gone=kind == rows.RTM_DELNEIGH)
            case rows.RTM_NEWNETCONF | rows.RTM_DELNETCONF:
                changed = bool(self.sysctls)
                if changed:
                    self.doubt.add("sysctls")
            case _:
                return False
        if changed:
            self._changed()
        return changed or len(self.doubt) != doubted

    def _link(self, row: rows.Link, *, gone: bool, body: bytes) -> bool:
        if body[0]:
            return False  # AF_BRIDGE: what a bridge says of its ports, no state of the device
        known = self.links.get(row.ifindex)
        if gone:
            if known is None:
                return False
            del self.links[row.ifindex]
            # Addresses and IPv4 routes of a device that is gone are not all reported one by one.
            self.doubt |= {"addresses", "routes", "neighbours"}
            return True
        if row.kind == "veth" and not row.peer:
            self.unsure.add(row.ifindex)  # told before the pair was joined; what it is joined to is told by no event
        if row == known:
            return False
        self.links[row.ifindex] = row
        if known is not None and known.up and not row.up:
            self.later.add("routes")  # IPv4's go with it without a word
        return True

    def _address(self, row: rows.Address, *, gone: bool) -> bool:
        key = row.ifindex, row.address
        if gone:
            # Routes that prefer it as their source go with it, silently; so do the others of its subnet (reported).
            known = self.addresses.pop(key, None) is not None
            if known:
                self.later.add("routes")
            return known
        if self.addresses.get(key) == row:
            return False
        self.addresses[key] = row
        return True

    def _route(self, row: rows.Route | None, *, gone: bool, replaces: bool) -> bool:
        if row is None:
            return False
        key = destination(row)
        known = self.routes.get(key, ())
        one_of_several = gone and any(other.paths for other in known)  # IPv6 tells of each next hop by itself
        if (row in known) != gone and not one_of_several:
            return False
        if gone and known == (row,):
            del self.routes[key]
            return True
        if not gone and (not known or (replaces and len(known) == 1)):
            self.routes[key] = (row,)
            return True
        if _apart(known, row) and not replaces:
            self.routes[key] = tuple(other for other in known if other != row) if gone else (*known, row)
            return True
        self.doubt.add("routes")  # several next hops: which of them are left is for a dump to say
        return True

    def _rule(self, row: rows.Rule | None, *, gone: bool) -> bool:
        if row is None or (row in self.rules) != gone:
            return False
        if gone:
            self.doubt.add("rules")  # the same rule may be there twice
            self.rules.discard(row)
        else:
            self.rules.add(row)
        return True

    def _neighbour(self, body: bytes, *, gone: bool) -> bool:
        _, index, _, _, _ = rows.NEIGHBOUR.unpack_from(body)
        row = rows.neighbour(body)
        if row is not None and not gone:
            key = index, row.ip
            if self.neighbours.get(key) == row:
                return False
            self.neighbours[key] = row
            return True
        if any(key[0] == index for key in self.neighbours):
            self.doubt.add("neighbours")  # it may be a permanent one that has become an ordinary one
        return False


def _apart(known: Sequence[rows.Route], row: rows.Route) -> bool:
    """Do these routes to one destination come and go each by itself, as every device's own to fe80::/64 do?

    IPv6 routes without a gateway are never next hops of one another. Two that look the same cannot be told apart.
    """
    return all(r.family == rows.INET6 and not (r.via or r.paths) for r in (*known, row)) and known.count(row) < 2


def _indexed(table: str, found: Sequence[Any]) -> Any:
    match table:
        case "links":
            return {row.ifindex: row for row in found}
        case "addresses":
            return {(row.ifindex, row.address): row for row in found}
        case "routes":
            routes: dict[tuple[int, str, int], tuple[rows.Route, ...]] = {}
            for row in found:
                key = destination(row)
                routes[key] = (*routes.get(key, ()), row)
            return routes
        case "rules":
            return set(found)
        case _:
            return {(row.ifindex, row.ip): row for row in found}
