"""The declared flows of one bridge as the switch would report them: compiled by ovs-ofctl, indexed by key.

Text is compiled once for each set of port numbers it depends on, and the result is kept. Flows name ports by name;
which names a text uses is found by looking for the names of known ports among its words, which may find one too many
(harmless: it waits for a port that is declared) and never one too few.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import is_not
from typing import Protocol

from controllers.drivers.openflow.compiler import Compiled, CompileFault
from controllers.drivers.openflow.flows import Flow, FlowKey
from controllers.drivers.openflow.ofctl import words
from controllers.ownership import cookie
from desired.kinds.openflow import FlowSpec
from desired.resource import Resource, ResourceId, Resources

_BREATH = 500
"""Flows after which the event loop gets its turn."""
_FEW = 200
"""Up to so many flows that may differ are put into the table that is there."""
_FEW_NAMES = 20
"""Up to so many new names are looked for in the flows' texts."""


class Compiler(Protocol):
    """Makes flows of text; see `controllers.drivers.openflow.compiler.FlowCompiler`."""

    async def compile(
        self, texts: Sequence[str], ports: Mapping[str, int], awaited: Collection[str] = ()
    ) -> Mapping[str, Compiled | CompileFault]: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One declared flow, ready to be compared and sent."""

    resource: ResourceId
    key: FlowKey
    flow: Flow


@dataclass(frozen=True, slots=True)
class Table:
    """All declared flows of a bridge at one moment. `waiting` names the ports a flow waits for."""

    entries: Mapping[FlowKey, Entry] = field(default_factory=dict)
    invalid: Mapping[ResourceId, str] = field(default_factory=dict)
    waiting: Mapping[ResourceId, tuple[str, ...]] = field(default_factory=dict)
    doubles: Mapping[ResourceId, ResourceId] = field(default_factory=dict)
    """A flow that means the same match as another declared one -> that other one."""
    users: Mapping[str, Sequence[ResourceId]] = field(default_factory=dict)
    """Which flows name a port."""
    keys: Mapping[ResourceId, FlowKey] = field(default_factory=dict)


class TableBuilder:
    """Builds the tables of one bridge, remembering what was compiled."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._cache: dict[str, tuple[tuple[int, ...], Compiled]] = {}
        self._faults: dict[str, tuple[frozenset[str], CompileFault]] = {}
        self._uses: dict[str, tuple[str, ...]] = {}
        self._known: frozenset[str] = frozenset()
        self._resources: Resources | None = None
        self._ports: dict[str, int] = {}
        self.table = Table()

    async def build(self, resources: Resources, ports: Mapping[str, int], declared_ports: frozenset[str]) -> Table:
        """The table for these resources and port numbers; quick when neither has changed. Raises DriverError."""
        if resources is self._resources and self._same_ports(ports, declared_ports):
            return self.table
        ports = dict(ports)  # the switch's own mapping follows it, also while this waits for the compiler
        old, self._resources = self._resources, None  # until it is done: whoever is interrupted starts anew
        known = declared_ports | ports.keys()
        affected = None if old is None else self._affected(old, resources, ports, known)
        if known != self._known:
            self._known = known
            if affected is None:
                self._uses.clear()
        part = None if affected is None else await self._with_changed(affected, resources, ports)
        if part is None:
            flows = [r for r in resources.values() if isinstance(r.spec, FlowSpec)]
            part = await self._tabled(flows, ports)
            self._forget(flows)
        self.table, self._resources, self._ports = part, resources, ports
        return part

    def _same_ports(self, ports: Mapping[str, int], declared: frozenset[str]) -> bool:
        """Numbers of ports that no flow names do not matter, unless a flow was refused for naming an unknown one."""
        if ports == self._ports and declared <= self._known:
            return True
        changed = _renumbered(self._ports, ports)
        new = (ports.keys() | declared) - self._known
        return not new and changed.isdisjoint(self.table.users)

    def _affected(
        self, old: Resources, new: Resources, ports: Mapping[str, int], known: frozenset[str]
    ) -> set[ResourceId] | None:
        """The flows that may be otherwise than in the table; None when they are too many to be looked for.

        When two flows mean the same match it is None, too: who is first is for all of them to say.
        """
        table, added = self.table, known - self._known
        if table.doubles or len(added) > _FEW_NAMES:
            return None
        found = set(compress(new, map(is_not, new.values(), map(old.get, new))))
        if len(new) - len(old) != sum(rid not in old for rid in found):
            found.update(rid for rid in old if rid not in new)
        names = _renumbered(self._ports, ports) | (known ^ self._known)
        if names:
            found.update(table.invalid, table.waiting)
            found.update(rid for name in names for rid in table.users.get(name, ()))
        if known != self._known:
            texts = {_text(r): rid for rid, r in new.items() if isinstance(r.spec, FlowSpec)}
            found.update(rid for text, rid in texts.items() if any(name in text for name in added))
            stale = self._uses.keys() - texts.keys()
            stale.update(text for text, rid in texts.items() if rid in found)
            for text in stale:
                self._uses.pop(text, None)
        return found if len(found) <= _FEW else None

    async def _with_changed(
        self, affected: set[ResourceId], resources: Resources, ports: Mapping[str, int]
    ) -> Table | None:
        """The table with the affected flows put in anew; None when that shows two that mean the same match."""
        table = self.table
        some = (resources[rid] for rid in resources if rid in affected) if affected else ()
        part = await self._tabled([r for r in some if isinstance(r.spec, FlowSpec)], ports)
        entries, keys = dict(table.entries), dict(table.keys)
        for rid in affected:
            key = keys.pop(rid, None)
            if key is not None:
                del entries[key]
        if part.doubles or not entries.keys().isdisjoint(part.entries):
            return None
        entries.update(part.entries)
        keys.update(part.keys)
        users = dict(table.users)
        for name in [name for name, rids in users.items() if not affected.isdisjoint(rids)]:
            users[name] = [rid for rid in users[name] if rid not in affected]
        for name, rids in part.users.items():
            users[name] = [*users.get(name, ()), *rids]
        invalid = {rid: why for rid, why in table.invalid.items() if rid not in affected}
        waiting = {rid: names for rid, names in table.waiting.items() if rid not in affected}
        return Table(entries, {**invalid, **part.invalid}, {**waiting, **part.waiting}, {}, users, keys)

    async def _tabled(self, flows: Sequence[Resource], ports: Mapping[str, int]) -> Table:
        waiting, ready = await self._sort_out(flows, ports)
        return await self._index(flows, waiting, await self._compile(ready, ports))

    async def _sort_out(
        self, flows: Sequence[Resource], ports: Mapping[str, int]
    ) -> tuple[dict[ResourceId, tuple[str, ...]], list[str]]:
        waiting: dict[ResourceId, tuple[str, ...]] = {}
        ready: list[str] = []
        for number, resource in enumerate(flows):
            if number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            text = _text(resource)
            missing = tuple(name for name in self._used(text) if name not in ports)
            if missing:
                waiting[resource.id] = missing
            else:
                ready.append(text)
        return waiting, ready

    def _used(self, text: str) -> tuple[str, ...]:
        used = self._uses.get(text)
        if used is None:
            used = self._uses[text] = tuple(sorted(self._known & words(text)))
        return used

    async def _compile(self, texts: Sequence[str], ports: Mapping[str, int]) -> Mapping[str, Compiled | CompileFault]:
        results: dict[str, Compiled | CompileFault] = {}
        fresh: list[str] = []
        for text in texts:
            numbers = tuple(ports[name] for name in self._used(text))
            cached, fault = self._cache.get(text), self._faults.get(text)
            if cached is not None and cached[0] == numbers:
                results[text] = cached[1]
            elif fault is not None and fault[0] == self._known:
                results[text] = fault[1]
            else:
                fresh.append(text)
        if fresh:
            answers = await self._compiler.compile(fresh, ports, self._known)
            for number, text in enumerate(fresh):
                if number % _BREATH == _BREATH - 1:
                    await asyncio.sleep(0)
                results[text] = self._keep(text, answers[text], ports)
        return results

    def _keep(self, text: str, answer: Compiled | CompileFault, ports: Mapping[str, int]) -> Compiled | CompileFault:
        if isinstance(answer, CompileFault):
            self._faults[text] = (self._known, answer)
            return answer
        self._faults.pop(text, None)
        self._cache[text] = (tuple(ports[name] for name in self._used(text)), answer)
        return answer

    async def _index(
        self,
        flows: Sequence[Resource],
        waiting: Mapping[ResourceId, tuple[str, ...]],
        compiled: Mapping[str, Compiled | CompileFault],
    ) -> Table:
        entries: dict[FlowKey, Entry] = {}
        invalid: dict[ResourceId, str] = {}
        doubles: dict[ResourceId, ResourceId] = {}
        users: dict[str, list[ResourceId]] = {}
        keys: dict[ResourceId, FlowKey] = {}
        unknown = dict(waiting)
        for number, resource in enumerate(flows):
            if number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            text = _text(resource)
            for name in self._used(text):
                users.setdefault(name, []).append(resource.id)
            if resource.id in waiting:
                continue
            result = compiled[text]
            if isinstance(result, CompileFault):
                if result.ports:
                    unknown[resource.id] = tuple(sorted(result.ports))
                else:
                    invalid[resource.id] = result.message
                continue
            first = entries.get(result.key)
            if first is not None:
                doubles[resource.id] = first.resource
                continue
            keys[resource.id] = result.key
            entries[result.key] = Entry(resource.id, result.key, result.flow(cookie(resource.id)))
        return Table(entries, invalid, unknown, doubles, users, keys)

    def _forget(self, flows: Sequence[Resource]) -> None:
        """Drop what is kept for texts that are declared no longer, once it is more than what is."""
        if len(self._uses) > 2 * len(flows) + 100:
            texts = {_text(resource) for resource in flows}
            for text in self._uses.keys() - texts:
                del self._uses[text]
                self._cache.pop(text, None)
                self._faults.pop(text, None)


def _renumbered(old: Mapping[str, int], new: Mapping[str, int]) -> set[str]:
    """The ports that have another number, or one of them has none."""
    return {name for name, _ in old.items() ^ new.items()}


def _text(resource: Resource) -> str:
    assert isinstance(resource.spec, FlowSpec)
    return resource.spec.flow
