"""The controller of namespaces and what is in them: joins the pure diff with the netlink driver."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from controllers.drivers.netlink.client import RUN_NETNS, Netlink
from controllers.drivers.netlink.inside import HOST
from controllers.drivers.netlink.registry import ITSELF
from controllers.drivers.netlink.replica import Space
from controllers.namespace.announcements import Announcements
from controllers.namespace.diff import diff
from controllers.namespace.index import OVSDB, Index
from controllers.namespace.links import LOST_AFTER
from controllers.namespace.namespaces import is_marked
from controllers.namespace.perform import perform, touched
from controllers.namespace.safety import guarded, protected_names
from controllers.namespace.state import NAME, CreateNamespace, Observed, SetAddress
from controllers.namespace.wanted import Wanted, wanted
from controllers.ownership import Owner, alias
from desired.kinds.namespace import KINDS, Inside, LinkSpec
from desired.resource import Resource, ResourceId, Resources, Spec
from reconciler.contract import Change, Event, Focus, Group, GroupResult, Plan, Scope, View
from reconciler.errors import NotReady, ReconcilerError
from reconciler.stream import EventStream

_KINDS = frozenset(spec.kind for spec in KINDS)
_ADDRESS_MARKS = (5, 18)
"""The kernel that keeps the proto of an address."""


class NamespaceController:
    """One scope for each namespace, and one for the host. `untouchable` are interfaces that no plan may hurt."""

    name = NAME
    specs: tuple[type[Spec], ...] = KINDS

    def __init__(
        self,
        *,
        owner: Owner,
        untouchable: Iterable[str] = (),
        timeout: float = 5.0,
        directory: Path = RUN_NETNS,
        buffer: int = 8 << 20,
    ) -> None:
        self._mark = alias(owner)
        self.driver = Netlink(
            mark=self._mark, on_change=self._changed, directory=directory, timeout=timeout, buffer=buffer
        )
        self._announcements = Announcements(self.driver)
        self._untouchable = frozenset(untouchable)
        self.events = EventStream()
        self._known: set[str] = set()
        self._wanted: dict[str, tuple[Resources, Wanted]] = {}
        self._quiet: dict[str, tuple[Resources, Resources, tuple[int, ...], Plan]] = {}
        self._index = Index()
        self._host: tuple[Resources | None, Wanted] = (None, Wanted())
        """What is declared for the host, of everything that is declared."""
        self.on_lost: list[Callable[[str], None]] = []
        """Told the port of Open vSwitch whose device is nowhere, though it may say otherwise."""
        self.bridge_of: Callable[[str], str] | None = None
        """Told by Open vSwitch: the bridge that a device is a port of, '' if of none."""
        self.on_made: list[Callable[[str], None]] = []
        """Told the name of a namespace that was made, by us or by somebody else."""
        self._cookies: dict[str, int] = {}
        self._missing: dict[str, float] = {}
        self._inside: dict[str, frozenset[str]] = {}
        """The ports of Open vSwitch whose devices were in a namespace when it was last looked at."""
        self._looked_at: dict[str, Mapping[str, int]] = {}
        """Which namespaces were looked at for a scope: what is done is done to these, or not at all."""
        self._scopes: tuple[Sequence[str], Sequence[Scope]] = ((), (Scope(NAME, HOST),))
        self._address_marks = _kernel() >= _ADDRESS_MARKS

    def knew(self, names: Iterable[str]) -> None:
        """Namespaces that were ours when this node was last as declared, before this process."""
        self._known.update(names)

    def scope(self, resource: Resource) -> Scope:
        spec = resource.spec
        return Scope(NAME, spec.namespace if isinstance(spec, Inside) else resource.id.name)

    def scopes(self) -> Sequence[Scope]:
        names = self.driver.marked()
        if names is not self._scopes[0]:
            self._scopes = (names, (Scope(NAME, HOST), *(Scope(NAME, name) for name in names)))
        return self._scopes[1]

    # -- the pass ---------------------------------------------------------------------------------------------------

    async def observe(self, view: View, focus: Focus) -> Observed:
        name = view.scope.name
        here = self._declared(name, view.resources)
        self._index.follow(view.scopes)
        self.driver.want(name, sysctls=here.sysctls, neighbours=bool(here.neighbours))
        spaces = await self.driver.spaces(self._in_sight(name), quiet=name)
        self._look_for_ports(name, here, spaces)
        self._looked_at[name] = {each: space.cookie for each, space in spaces.items() if each != HOST}
        own = spaces.get(name)
        if own is not None and name != HOST and is_marked(own, self._mark):
            self._known.add(name)
        if own is not None and self._cookies.setdefault(name, own.cookie) != own.cookie:
            self._cookies[name] = own.cookie
            self._tell_made(name)
        attached: dict[str, str] = {}
        if name == HOST and own is not None and self.bridge_of is not None:
            attached = {nic: self.bridge_of(nic) for nic in protected_names(own, here, self._untouchable)}
        return Observed(
            name,
            here,
            spaces,
            self._mark,
            name in self._known,
            self._untouchable,
            self._address_marks,
            self._index.nics,
            attached,
        )

    async def guarded(self, everything: Resources) -> Mapping[str, str]:
        """Devices of the host by which the node is reached, and why they are not to be hurt.

        Raises NotReady, DriverError while nothing certain is known of them.
        """
        if self._host[0] is not everything:
            here = {rid: r for rid, r in everything.items() if rid.kind in _KINDS and self.scope(r).name == HOST}
            self._host = (everything, wanted(here))
        space = await self.driver.space(HOST)
        assert space is not None
        return guarded(space, self._host[1], self._untouchable)

    def _in_sight(self, name: str) -> Sequence[str]:
        """The namespaces that a look at this one takes in."""
        return list(dict.fromkeys([*self._index.peers(name), HOST, name]))

    def _look_for_ports(self, name: str, here: Wanted, spaces: Mapping[str, Space]) -> None:
        """A device that died with its namespace is not missed by vswitchd: somebody has to tell.

        At once when it was in a namespace that is gone; else after a while, because vswitchd may just be restarting.
        """
        now = asyncio.get_running_loop().time()
        own, before = spaces.get(name), self._looked_at.get(name, {}).get(name)
        were_inside = self._inside.get(name, frozenset())
        died = were_inside if before is not None and (own is None or own.cookie != before) else frozenset()
        found = set()
        for dev, resource in here.links.items():
            spec = resource.spec
            if not isinstance(spec, LinkSpec) or spec.type != "ovs":
                continue
            inside = own is not None and dev in own.by_name()
            if inside:
                found.add(spec.port)
            if inside or spec.port in spaces[HOST].by_name():
                self._missing.pop(spec.port, None)
            elif now - self._missing.setdefault(spec.port, now) >= LOST_AFTER or spec.port in died:
                self._missing[spec.port] = now
                for listener in self.on_lost:
                    listener(spec.port)
        self._inside[name] = frozenset(found)

    def _declared(self, name: str, resources: Resources) -> Wanted:
        kept = self._wanted.get(name)
        if kept is None or kept[0] is not resources:
            kept = self._wanted[name] = (resources, wanted(resources))
        return kept[1]

    def diff(self, view: View, observed: Any) -> Plan:
        """A namespace in which nothing was wrong and nothing has changed since needs no second comparison."""
        assert isinstance(observed, Observed)
        plan = self._quiet_plan(view, observed.spaces)
        if plan is not None:
            return plan
        plan = diff(view, observed)
        if plan:
            self._quiet.pop(observed.name, None)
        else:
            self._quiet[observed.name] = (view.resources, view.of(OVSDB), _stamp(observed.spaces), plan)
        return plan

    def _quiet_plan(self, view: View, spaces: Mapping[str, Space]) -> Plan | None:
        """The plan of the last look, if it had nothing to do and nothing it was made from is different."""
        kept = self._quiet.get(view.scope.name)
        if kept is None or kept[0] is not view.resources or kept[1] is not view.of(OVSDB):
            return None
        return kept[3] if kept[2] == _stamp(spaces) else None

    def focus_on(self, scope: Scope, resources: Collection[ResourceId]) -> Focus:
        return None

    def focus(self, changes: Sequence[Change]) -> Focus:
        return None

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        """What was refused is a result of its own, so that its neighbours are done all the same."""
        loop = asyncio.get_running_loop()
        results: list[GroupResult] = []
        for group in groups:
            started = loop.time()
            results += await self._carry_out(scope, group, started)
        return results

    async def _carry_out(self, scope: Scope, group: Group, started: float) -> Sequence[GroupResult]:
        loop = asyncio.get_running_loop()
        try:
            errors = await self.driver.perform(
                scope.name,
                lambda session: perform(session, group.changes, self._mark, self._looked_at.get(scope.name, {})),
                tables=touched(group.changes),
            )
        except ReconcilerError as failed:
            return [GroupResult(group, failed, seconds=loop.time() - started)]
        seconds = loop.time() - started
        done = tuple(change for change, error in zip(group.changes, errors, strict=True) if error is None)
        results = [GroupResult(replace(group, changes=done), seconds=seconds)] if done else []
        if any(isinstance(change.action, CreateNamespace) for change in done):
            self._tell_made(scope.name)
        for change in done:
            if isinstance(change.action, SetAddress) and change.action.announce:
                self._announcements.add(change.action)
        for change, error in zip(group.changes, errors, strict=True):
            if error is not None:
                results.append(
                    GroupResult(replace(group, changes=(change,)), error, frozenset([change.resource]), seconds)
                )
        return results

    def _tell_made(self, name: str) -> None:
        for listener in self.on_made:
            listener(name)

    async def prove(self, scope: Scope) -> None:
        if not self.driver.ready:
            raise NotReady(f"network namespaces: {self.driver.problem}")
        await self.driver.prove([scope.name])

    async def unchanged(self, views: Sequence[View]) -> Collection[Scope]:
        await self.driver.prove([view.scope.name for view in views])
        self.driver.drain()
        return {view.scope for view in views if self._is_unchanged(view)}

    def _is_unchanged(self, view: View) -> bool:
        """Is all that a pass looks at certain, and what the last one found nothing in?"""
        name = view.scope.name
        self._index.follow(view.scopes)
        spaces = self.driver.certain(self._in_sight(name))
        return spaces is not None and self._quiet_plan(view, spaces) is not None

    def close(self) -> None:
        """End the driver's thread."""
        self.driver.close()

    # -- the streams ------------------------------------------------------------------------------------------------

    async def watch(self) -> AsyncIterator[Event]:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.driver.run(), name="netlink-driver")
            saying = group.create_task(self._announcements.run(), name="announcements")
            try:
                while True:
                    yield await self.events.get()
            finally:
                running.cancel()
                saying.cancel()

    def _changed(self, name: str | None, devices: frozenset[str], reason: str) -> None:
        if name is None:
            names = {HOST, *self.driver.marked(), *self._index.names}
            for each in sorted(names):
                self.events.put_nowait(Event(Scope(NAME, each), None, reason))
            return
        if reason and (name in self._index.names or name == HOST or self.driver.is_marked(name)):
            self.events.put_nowait(Event(Scope(NAME, name), None, reason))
        elif reason and ITSELF in devices:  # of one that is declared it is told when it has been looked at
            self._tell_made(name)
        for other in self._index.waiting_for(name, devices):
            if other != name:
                self.events.put_nowait(Event(Scope(NAME, other), None, f"a device of namespace {name} changed"))


def _stamp(spaces: Mapping[str, Space]) -> tuple[int, ...]:
    """What is another one when anything in these namespaces is."""
    return (*(space.version for space in spaces.values()), *(space.cookie for space in spaces.values()))


def _kernel() -> tuple[int, ...]:
    numbers = os.uname().release.split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())
