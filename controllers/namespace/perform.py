"""Carrying out actions in a visit to the kernel: each change by itself, in the order of the plan.

Called in the driver's thread. A change that is refused does not stop the others; one whose namespace or device is not
there (its own change was withheld or refused) waits for it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from controllers.drivers.netlink import announce, requests, rows
from controllers.drivers.netlink.inside import HOST, Session
from controllers.drivers.netlink.requests import LinkEnd
from controllers.drivers.netlink.wire import Message, RefusedError
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
    MoveLink,
    SetAddress,
    SetLink,
    SetNeighbour,
    SetRoute,
    SetSysctl,
    TakeNamespace,
)
from controllers.ownership import LINK_GROUP, PEER_GROUP, PROTO
from desired.kinds.namespace import LinkSpec, VethPeer
from reconciler.contract import Change
from reconciler.errors import DriverError, NotReady, ReconcilerError

_GONE = frozenset({errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL})
"""What the kernel says of something that is not there: whoever wanted it gone has it so."""


def perform(
    session: Session, changes: Sequence[Change], mark: str, cookies: Mapping[str, int]
) -> list[ReconcilerError | None]:
    """Carry out `changes`; for each the error, if there was one.

    `cookies` are those of the namespaces that were looked at. Nothing is done in one that took the name of another
    meanwhile: it may be somebody else's, and what we put into it would make it look used.
    """
    results: list[ReconcilerError | None] = []
    visit = _Visit(session, mark)
    lost: ReconcilerError | None = _replaced(session, cookies)
    for change in changes:
        if lost is not None:
            results.append(lost)
            continue
        try:
            visit.carry_out(change.action)
        except ReconcilerError as error:
            results.append(error)
            if isinstance(change.action, CreateNamespace):
                lost = NotReady(f"waits for {change.resource}")
        else:
            results.append(None)
    return results


def _replaced(session: Session, cookies: Mapping[str, int]) -> ReconcilerError | None:
    """A failure, not a wait: what tells of the change may have been heard already, in this very pass."""
    for name, cookie in cookies.items():
        try:
            now = session.channel(name).cookie
        except ReconcilerError as error:
            return DriverError(f"namespace {name} was taken away meanwhile ({error}); tried again soon")
        if now != cookie:
            return DriverError(f"namespace {name} is another one now than the one looked at; tried again soon")
    return None


_TOUCHED = {
    "namespace": ("links", "addresses", "routes"),
    "link": ("addresses", "routes"),
    "address": ("addresses", "routes"),
    "route": ("routes",),
    "policy_rule": ("rules",),
    "neighbour": ("neighbours",),
    "sysctl": ("sysctls",),
}


def touched(changes: Sequence[Change]) -> frozenset[str]:
    """The tables in which these changes may have had an effect, besides on devices."""
    return frozenset(table for kind in {change.resource.kind for change in changes} for table in _TOUCHED[kind])


class _Visit:
    """One visit; it remembers the numbers of devices that it has looked up."""

    def __init__(self, session: Session, mark: str) -> None:
        self._session = session
        self._mark = mark
        self._indexes: dict[tuple[str, str], int] = {}

    def carry_out(self, action: Action) -> None:
        """Raises ReconcilerError."""
        if isinstance(action, SetLink | DeleteLink | CreateLink | MoveLink | DeleteNamespace | CreateNamespace):
            self._indexes.clear()
        doing: dict[type, Callable[..., None]] = {
            CreateNamespace: self._create_namespace,
            TakeNamespace: self._take_namespace,
            DeleteNamespace: self._delete_namespace,
            CreateLink: self._create_link,
            MoveLink: self._move_link,
            SetLink: self._set_link,
            DeleteLink: self._delete_link,
            SetAddress: self._set_address,
            DeleteAddress: self._delete_address,
            SetRoute: self._set_route,
            DeleteRoute: self._delete_route,
            AddRule: self._add_rule,
            DeleteRule: self._delete_rule,
            SetNeighbour: self._set_neighbour,
            DeleteNeighbour: self._delete_neighbour,
            SetSysctl: self._set_sysctl,
        }
        doing[type(action)](action)

    # -- looking things up ------------------------------------------------------------------------------------------

    def _index(self, namespace: str, dev: str) -> int:
        found = self._indexes.get((namespace, dev)) or self._session.index(namespace, dev)
        if not found:
            raise NotReady(f"there is no device {dev} in namespace {namespace}")
        self._indexes[namespace, dev] = found
        return found

    def _ask(self, namespace: str, message: Message, what: str) -> None:
        self._session.ask(namespace, message, f"{what} in namespace {namespace}")

    @contextlib.contextmanager
    def _gone_already(self) -> Iterator[None]:
        try:
            yield
        except RefusedError as error:
            if error.code not in _GONE:
                raise
        except NotReady:
            return

    # -- namespaces -------------------------------------------------------------------------------------------------

    def _create_namespace(self, action: CreateNamespace) -> None:
        if not self._session.names.in_flux(action.name) and self._session.names.mounted(action.name):
            raise DriverError(f"namespace {action.name} was made by another meanwhile; tried again soon")
        self._session.create(action.name, self._mark)

    def _take_namespace(self, action: TakeNamespace) -> None:
        message = requests.set_link(1, up=True, alias=self._mark)
        self._ask(action.name, message, "marking it as ours")

    def _delete_namespace(self, action: DeleteNamespace) -> None:
        for dev in action.release:
            with self._gone_already():
                index = self._index(action.name, dev)
                message = requests.set_link(index, netns=self._session.descriptor(HOST))
                self._ask(action.name, message, f"moving {dev} back to the host")
        self._session.delete(action.name)

    # -- links ------------------------------------------------------------------------------------------------------

    def _create_link(self, action: CreateLink) -> None:
        spec = action.spec
        for namespace, dev in action.instead:
            self._delete_link(DeleteLink(namespace, dev))
        where = action.namespace
        end = LinkEnd(spec.dev, bool(spec.wants_up), spec.mac or "", spec.mtu or 0, group=LINK_GROUP)
        what = f"creating the {spec.type} {spec.dev}"
        if spec.type == "veth" and spec.peer is not None:
            self._create_veth(where, spec, spec.peer, end)
        elif spec.type == "macvlan":
            self._create_macvlan(where, spec, end)
        else:
            self._ask(where, requests.new_link(end, spec.type), what)
        if spec.master is not None:
            self._enslave(where, spec.dev, spec.master)

    def _create_veth(self, where: str, spec: LinkSpec, other: VethPeer, end: LinkEnd) -> None:
        """Neither end can be up before they are joined."""
        netns = self._session.descriptor(other.namespace)
        peer = LinkEnd(other.name, up=False, mac=other.mac or "", mtu=spec.mtu or 0, netns=netns, group=PEER_GROUP)
        what = f"creating the veth {spec.dev} and {other.name}"
        self._ask(where, requests.new_veth(replace(end, up=False), peer), what)
        if other.bridge is not None:
            self._enslave(other.namespace, other.name, other.bridge)
        if not spec.wants_up:
            return
        for namespace, dev in ((where, spec.dev), (other.namespace, other.name)):
            index = self._index(namespace, dev)
            self._ask(namespace, requests.set_link(index, up=True), f"taking {dev} up")

    def _create_macvlan(self, where: str, spec: LinkSpec, end: LinkEnd) -> None:
        parent = self._index(HOST, spec.parent or "")
        netns = self._session.descriptor(where)
        placed = LinkEnd(end.name, end.up, end.mac, end.mtu, netns, end.group)
        message = requests.new_macvlan(placed, parent, spec.macvlan_mode)
        self._ask(HOST, message, f"creating the macvlan {spec.dev} on {spec.parent} for {where}")

    def _enslave(self, namespace: str, dev: str, master: str) -> None:
        above = self._index(namespace, master) if master else 0
        message = requests.set_link(self._index(namespace, dev), master=above)
        self._ask(namespace, message, f"making {dev} a port of {master or 'nothing'}")

    def _move_link(self, action: MoveLink) -> None:
        spec, where = action.spec, action.namespace
        if action.dead:
            self._delete_link(DeleteLink(where, spec.dev))
        outside = self._index(HOST, spec.port)
        netns = self._session.descriptor(where)
        message = requests.set_link(outside, netns=netns, name=spec.dev)
        self._ask(HOST, message, f"moving {spec.port} to namespace {where}")
        inside = self._index(where, spec.dev)
        if spec.mac or spec.mtu:
            change = requests.set_link(inside, mac=spec.mac or "", mtu=spec.mtu or 0)
            self._ask(where, change, f"setting mac and mtu of {spec.dev}")
        if spec.master is not None:
            self._enslave(where, spec.dev, spec.master)
        if spec.wants_up is not None:
            self._ask(where, requests.set_link(inside, up=spec.wants_up), f"setting the state of {spec.dev}")

    def _set_link(self, action: SetLink) -> None:
        index = self._index(action.namespace, action.dev)
        what = f"changing {action.dev}"
        if action.rename:
            self._rename(action, index)
            return
        if action.master is not None:
            self._enslave(action.namespace, action.dev, action.master)
        if action.mac or action.mtu or action.mark:
            message = requests.set_link(index, mac=action.mac, mtu=action.mtu, group=action.mark)
            self._ask(action.namespace, message, what)
        if action.up is not None:
            self._ask(action.namespace, requests.set_link(index, up=action.up), what)

    def _rename(self, action: SetLink, index: int) -> None:
        """A device that is up can be renamed since Linux 6.2 only; take it down for the moment otherwise."""
        what = f"renaming {action.dev} to {action.rename}"
        try:
            self._ask(action.namespace, requests.set_link(index, name=action.rename), what)
        except RefusedError as error:
            if error.code != errno.EBUSY:
                raise
            self._ask(action.namespace, requests.set_link(index, up=False, name=action.rename), what)
            self._ask(action.namespace, requests.set_link(index, up=True), what)

    def _delete_link(self, action: DeleteLink) -> None:
        with self._gone_already():
            index = self._index(action.namespace, action.dev)
            self._ask(action.namespace, requests.delete_link(index), f"deleting {action.dev}")
        self._indexes.clear()

    # -- addresses, routes, rules, neighbours, sysctls --------------------------------------------------------------

    def _set_address(self, action: SetAddress) -> None:
        index = self._index(action.namespace, action.dev)
        message = requests.set_address(index, action.address, scope=action.scope, proto=PROTO)
        self._ask(action.namespace, message, f"adding {action.address} to {action.dev}")
        if action.announce:
            with contextlib.suppress(DriverError):  # the device is down, say; it is said again in a second
                link = self._session.link(action.namespace, action.dev)
                if link is not None:
                    announce.announce(self._session, action.namespace, link, action.address)

    def _delete_address(self, action: DeleteAddress) -> None:
        with self._gone_already():
            index = self._index(action.namespace, action.dev)
            message = requests.delete_address(index, action.address)
            self._ask(action.namespace, message, f"deleting {action.address} from {action.dev}")

    def _set_route(self, action: SetRoute) -> None:
        row = action.row
        if action.dev:
            row = row._replace(ifindex=self._index(action.namespace, action.dev))
        if action.hops:
            ways = [
                way.hop._replace(ifindex=self._index(action.namespace, way.dev) if way.dev else 0)
                for way in action.hops
            ]
            row = row._replace(paths=requests.paths(ways))
        self._ask(action.namespace, requests.set_route(row), f"setting the route to {row.to}")

    def _delete_route(self, action: DeleteRoute) -> None:
        with self._gone_already():
            self._ask(action.namespace, requests.delete_route(action.row), f"deleting the route to {action.row.to}")

    def _add_rule(self, action: AddRule) -> None:
        try:
            self._ask(action.namespace, requests.add_rule(action.row), f"adding the rule {action.row.priority}")
        except RefusedError as error:
            if error.code != errno.EEXIST:
                raise

    def _delete_rule(self, action: DeleteRule) -> None:
        with self._gone_already():
            self._ask(action.namespace, requests.delete_rule(action.row), f"deleting the rule {action.row.priority}")

    def _set_neighbour(self, action: SetNeighbour) -> None:
        index = self._index(action.namespace, action.dev)
        row = rows.Neighbour(index, action.ip, action.mac, PROTO)
        self._ask(action.namespace, requests.set_neighbour(row), f"setting the neighbour {action.ip} on {action.dev}")

    def _delete_neighbour(self, action: DeleteNeighbour) -> None:
        with self._gone_already():
            message = requests.delete_neighbour(action.row)
            self._ask(action.namespace, message, f"deleting the neighbour {action.row.ip}")

    def _set_sysctl(self, action: SetSysctl) -> None:
        self._session.write_sysctl(action.namespace, action.key, action.value)
