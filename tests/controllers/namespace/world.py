"""A kernel in small, for the laws of the diff: it interprets actions on one namespace and refuses as Linux does."""

from __future__ import annotations

from dataclasses import dataclass, field

from controllers.drivers.netlink.inside import HOST
from controllers.drivers.netlink.replica import Space, destination
from controllers.drivers.netlink.rows import Address, Link, Neighbour, Route, Rule
from controllers.namespace.diff import diff
from controllers.namespace.index import OVSDB, Index
from controllers.namespace.state import (
    Action,
    AddRule,
    CreateLink,
    CreateNamespace,
    DeleteAddress,
    DeleteLink,
    DeleteNamespace,
    DeleteNeighbour,
    DeleteRoute,
    DeleteRule,
    Observed,
    SetAddress,
    SetLink,
    SetNeighbour,
    SetRoute,
    SetSysctl,
    TakeNamespace,
)
from controllers.namespace.wanted import wanted
from controllers.ownership import LINK_GROUP, PROTO
from desired.kinds.sections import SECTIONS
from desired.resource import Resource, ResourceId
from desired.schema.reading import read_file
from reconciler.contract import Change, Plan, Scope, View

MARK = "reconciler=test"
NAME = "q"


class RefusedError(Exception):
    pass


def resources(text: str) -> dict[ResourceId, Resource]:
    content = read_file(text.encode(), "t.yaml", SECTIONS)
    assert not content.problems, [str(problem) for problem in content.problems]
    return {one.resource.id: one.resource for document in content.documents for one in document.declared}


def link(index: int, name: str, *, group: int = 0, kind: str = "bridge", up: bool = True, alias: str = "") -> Link:
    return Link(index, name, up, "02:00:00:00:00:01", 1500, kind, group, alias, 0, 0, 0, loopback=name == "lo")


@dataclass
class World:
    """One namespace, absent or there, and a host."""

    space: Space | None = None
    host: Space = field(default_factory=lambda: World.new(HOST, ""))
    next: int = 100
    name: str = NAME
    untouchable: frozenset[str] = frozenset()
    attached: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def new(name: str, alias: str) -> Space:
        space = Space(name)
        space.doubt.clear()
        space.load({"links": [link(1, "lo", kind="", alias=alias)]})
        space.load_sysctls({"net/ipv4/ip_forward": "0"})
        return space

    @property
    def here(self) -> Space:
        space = self.host if self.name == HOST else self.space
        if space is None:
            raise RefusedError("no such namespace")
        return space

    def plan(self, declared: dict[ResourceId, Resource], *, known: bool = False) -> Plan:
        view = View(Scope("namespace", self.name), declared, "r", everything=declared)
        index = Index()
        index.follow({OVSDB: declared})
        spaces = {HOST: self.host} | ({NAME: self.space} if self.space is not None else {})
        observed = Observed(
            self.name,
            wanted(declared),
            spaces,
            MARK,
            known,
            self.untouchable,
            True,
            index.nics,
            self.attached,
        )
        return diff(view, observed)

    def converge(self, declared: dict[ResourceId, Resource], *, rounds: int = 4) -> list[Change]:
        """Carry out plans until there is nothing to do. AssertionError when that does not come."""
        done: list[Change] = []
        for _ in range(rounds):
            changes = [change for group in self.plan(declared).groups for change in group.changes]
            if not changes:
                return done
            self.carry_out(changes)
            done += changes
        raise AssertionError(f"not converged: {[(str(c.resource), c.why) for c in changes]}")

    def carry_out(self, changes: list[Change]) -> None:
        for change in changes:
            self.do(change.action)

    def do(self, action: Action) -> None:
        match action:
            case CreateNamespace():
                if self.space is not None:
                    raise RefusedError("exists")
                self.space = World.new(NAME, MARK)
            case TakeNamespace():
                self._put(self.here.links[1]._replace(alias=MARK, up=True))
            case DeleteNamespace():
                self.space = None
            case CreateLink(spec=spec, instead=instead):
                for _, dev in instead:
                    self._drop(dev)
                if spec.dev in self.here.by_name():
                    raise RefusedError("exists")
                self.next += 1
                new = link(self.next, spec.dev, group=LINK_GROUP, kind=spec.type, up=bool(spec.wants_up))
                self._put(new._replace(mac=spec.mac or new.mac, mtu=spec.mtu or new.mtu))
            case DeleteLink(dev=dev):
                self._drop(dev)
            case SetLink():
                self._set_link(action)
            case SetSysctl(key=key, value=value):
                self.here.sysctls[key] = value
            case _:
                self._inside(action)

    def _inside(self, action: Action) -> None:
        here = self.here
        match action:
            case SetAddress(dev=dev, address=address):
                index = self._index(dev)
                here.addresses[index, address] = Address(index, address, PROTO, False, True, False)
            case DeleteAddress(dev=dev, address=address):
                here.addresses.pop((self._index(dev), address), None)
            case SetRoute(row=row, dev=dev):
                index = self._index(dev) if dev else 0
                if dev and not here.links[index].up:
                    raise RefusedError("network is down")
                here.routes[destination(row)] = (row._replace(ifindex=index),)
            case DeleteRoute(row=row):
                here.routes.pop(destination(row), None)
            case AddRule(row=row):
                here.rules.add(row)
            case DeleteRule(row=row):
                here.rules.discard(row)
            case SetNeighbour(dev=dev, ip=ip, mac=mac):
                index = self._index(dev)
                here.neighbours[index, ip] = Neighbour(index, ip, mac, PROTO)
            case DeleteNeighbour(row=row):
                here.neighbours.pop((row.ifindex, row.ip), None)

    def _index(self, dev: str) -> int:
        found = self.here.by_name().get(dev)
        if found is None:
            raise RefusedError(f"no device {dev}")
        return found.ifindex

    def _put(self, row: Link) -> None:
        self.here.load({"links": [*(r for r in self.here.links.values() if r.ifindex != row.ifindex), row]})

    def _drop(self, dev: str) -> None:
        here, index = self.here, self._index(dev)
        here.load({"links": [row for row in here.links.values() if row.ifindex != index]})
        here.addresses = {key: row for key, row in here.addresses.items() if key[0] != index}
        here.neighbours = {key: row for key, row in here.neighbours.items() if key[0] != index}
        here.routes = {key: found for key, found in here.routes.items() if found[0].ifindex != index}

    def _set_link(self, action: SetLink) -> None:
        row = self.here.links[self._index(action.dev)]
        up = row.up if action.up is None else action.up
        self._put(
            row._replace(up=up, mac=action.mac or row.mac, mtu=action.mtu or row.mtu, group=action.mark or row.group)
        )
        if not up:
            here = self.here
            here.routes = {key: found for key, found in here.routes.items() if found[0].ifindex != row.ifindex}


def foreign_route(to: str, index: int, proto: int = 4) -> Route:
    return Route(2, 254, to, 0, 1, proto, "", index, "", onlink=False, paths=b"")


def foreign_rule(priority: int) -> Rule:
    return Rule(2, priority, 1, 100, "10.0.0.0/8", "", 0, 0, "", "", 4, b"")
