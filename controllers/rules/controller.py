"""The controller of rules: joins the pure diff with the replica of each namespace's rules and the canonicaliser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controllers.drivers.iptables.chains import Touched
from controllers.drivers.iptables.rules import ChainKey, Variant
from controllers.drivers.iptables.rules import Held as HeldRule
from controllers.drivers.iptables.tables import Tables
from controllers.drivers.iptables.tools import FOR_A_WHILE
from controllers.rules.diff import diff
from controllers.rules.patch import patch
from controllers.rules.script import scripts
from controllers.rules.state import Drop, DropChain, Observed, Put, Spot, Wanted
from controllers.rules.wanted import WantedBuilder
from desired.kinds.rules import SPECS, RuleSpec
from desired.resource import Resource, ResourceId, Resources, Spec
from reconciler.contract import Change, Event, Focus, Group, GroupResult, Plan, Scope, View
from reconciler.errors import DriverError, NotReady, ReconcilerError, TerminalError
from reconciler.logs import get_logger
from reconciler.stream import EventStream

NAME = "rules"

AHEAD = 500
"""So many texts are canonicalised in one go at a start."""

Held = Mapping[ChainKey, Sequence[HeldRule]]
log = get_logger("rules")


@dataclass(slots=True)
class _Namespace:
    """What is kept for one namespace while the daemon lives."""

    builder: WantedBuilder = field(default_factory=WantedBuilder)
    forms: dict[str, tuple[tuple[bytes, ...], tuple[bytes, ...]]] = field(default_factory=dict)
    names: dict[str, ResourceId] = field(default_factory=dict)
    """Marks that were declared once and are no longer."""


class RulesController:
    """One scope per namespace, named as the namespace; ``host`` is the host's own."""

    name = NAME
    specs: tuple[type[Spec], ...] = SPECS

    def __init__(self, *, timeout: float, variant: Variant | None = None) -> None:
        self.tables = Tables(self._changed, timeout=timeout, variant=variant)
        self._namespaces: dict[str, _Namespace] = {}
        self._ahead: set[str] = set()
        """Namespaces whose rules were canonicalised before they were looked at, or with others."""
        self._quiet: dict[str, tuple[Resources, tuple[int, int] | None]] = {}
        """Of which resources, and of which rules, the last look at all of a namespace found nothing to do."""
        self.events = EventStream()

    def scope(self, resource: Resource) -> Scope:
        assert isinstance(resource.spec, RuleSpec)
        return Scope(NAME, resource.spec.namespace)

    def scopes(self) -> Sequence[Scope]:
        return [Scope(NAME, name) for name in self.tables.with_own_chains()]

    def other_variant(self) -> Mapping[str, tuple[str, ...]]:
        """By namespace, tables that the other variant of iptables has there: for the doors to show."""
        return self.tables.other_variant()

    def namespace_made(self, name: str) -> None:
        """The namespace of this name was made, perhaps in place of another: what was known of it is void."""
        self.tables.made_anew(name)

    def _changed(self, namespace: str, touched: Touched | None, why: str) -> None:
        if namespace not in self._namespaces and not self.tables.has_own_chains(namespace):
            return  # nothing is declared there, and nothing of ours was there when it was looked at
        spots: Focus = None
        if touched is not None:
            spots = touched.rules | {(key, "") for key in touched.chains}
        self.events.put_nowait(Event(Scope(NAME, namespace), spots, why))

    # -- the pass ---------------------------------------------------------------------------------------------------

    async def observe(self, view: View, focus: Focus) -> Observed:
        name = view.scope.name
        known = self._namespaces.setdefault(name, _Namespace())
        try:
            await self.tables.look(name)
        except NotReady:
            if view.resources:
                raise
            self._quiet.pop(name, None)
            self._namespaces.pop(name, None)  # nothing is declared there, so nothing is waited for
            return Observed(name, {}, Wanted())
        if view.resources and name not in self._ahead:
            await self._read_ahead(view)
        before = known.builder.wanted
        wanted = await known.builder.build(view.resources, self.tables.meanings)
        if wanted is not before:
            known.names.update({mark: rid for (_, mark), rid in before.spots.items()})
            for _, mark in wanted.spots:
                known.names.pop(mark, None)
        space = await self.tables.look(name)
        spots: frozenset[Spot] | None = None
        if focus is not None:
            spots = frozenset(item for item in focus if isinstance(item, tuple))
        return Observed(name, space.chains.held, wanted, spots, known.forms, known.names)

    async def _read_ahead(self, view: View) -> None:
        """Have the rules of the next namespaces canonicalised with those of this one: at a start there may be many."""
        self._ahead.add(view.scope.name)
        texts = await self._namespaces[view.scope.name].builder.texts(view.resources)
        for scope, resources in view.scopes.items():
            if len(texts) >= AHEAD:
                break
            if scope.controller == NAME and scope.name not in self._ahead:
                self._ahead.add(scope.name)
                texts += await self._namespaces.setdefault(scope.name, _Namespace()).builder.texts(resources)
        await self.tables.meanings(texts)

    def diff(self, view: View, observed: Any) -> Plan:
        plan = diff(view, observed)
        if plan:
            self._quiet.pop(observed.namespace, None)
        elif observed.spots is None:
            self._quiet[observed.namespace] = view.resources, self.tables.seen(observed.namespace)
        return plan

    def focus_on(self, scope: Scope, resources: Collection[ResourceId]) -> Focus:
        return None

    def focus(self, changes: Sequence[Change]) -> Focus:
        return frozenset(spot for change in changes for spot in _spots(change))

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        loop = asyncio.get_running_loop()
        results = []
        for group in groups:
            started = loop.time()
            error, culprits = await self._apply(scope.name, group)
            results.append(GroupResult(group, error, culprits, loop.time() - started))
        return results

    async def _apply(self, name: str, group: Group) -> tuple[ReconcilerError | None, frozenset[ResourceId]]:
        known = self._namespaces.setdefault(name, _Namespace())
        try:
            if await self._patched(name, known, group):
                return None, frozenset()
            error, culprits = await self._restored(name, known, group)
            space = await self.tables.look(name)
        except ReconcilerError as failed:
            return failed, frozenset()
        _learn(known, space.chains.held, group)
        return error, culprits

    async def _patched(self, name: str, known: _Namespace, group: Group) -> bool:
        """Try the fast path. False when it is not for this, was refused, or did not make it so."""
        space = await self.tables.look(name)
        operations = patch(space.chains.held, known.builder.wanted, group.changes)
        if operations is None:
            return False
        refused = await self.tables.write(name, operations)
        if refused is not None:
            log.debug("fast_path_refused", namespace=name, reason=refused.reason, next="iptables-restore does it")
            return False
        space = await self.tables.look(name)
        spots = {spot for change in group.changes if isinstance(change.action, Put) for spot in change.action.spots}
        return not _unlike(known.builder.wanted, space.chains.held, spots)

    async def _restored(
        self, name: str, known: _Namespace, group: Group
    ) -> tuple[ReconcilerError | None, frozenset[ResourceId]]:
        culprits: set[ResourceId] = set()
        error: ReconcilerError | None = None
        space = await self.tables.look(name)
        for script in scripts(space.chains.held, known.builder.wanted, group.changes):
            ended = await self.tables.change(name, script.family, script.text)
            if ended.code:
                error = _refused(name, ended.complaint)
                culprits.update(script.blame[line] for line in ended.lines if line in script.blame)
        return error, frozenset(culprits)

    async def prove(self, scope: Scope) -> None:
        await self.tables.prove(scope.name)

    async def unchanged(self, views: Sequence[View]) -> Collection[Scope]:
        proven = await self.tables.proven([view.scope.name for view in views])
        return {view.scope for view in views if view.scope.name in proven and self._is_quiet(view)}

    def _is_quiet(self, view: View) -> bool:
        """Did the last look at all of it have nothing to do, and is nothing that it was made from different?"""
        resources, seen = self._quiet.get(view.scope.name, (None, None))
        return resources is view.resources and seen is not None and seen == self.tables.seen(view.scope.name)

    # -- the streams ------------------------------------------------------------------------------------------------

    async def watch(self) -> AsyncIterator[Event]:
        async with asyncio.TaskGroup() as group:
            run = group.create_task(self.tables.run(), name="iptables")
            try:
                while True:
                    yield await self.events.get()
            finally:
                run.cancel()


def _unlike(wanted: Wanted, held: Held, spots: Collection[Spot]) -> dict[str, tuple[bytes, ...]]:
    """Of these rules, the marks of those that are there in other forms than the canonicaliser's, with the forms."""
    unlike: dict[str, tuple[bytes, ...]] = {}
    for key in {key for key, _ in spots}:
        marks = {mark for of, mark in spots if of == key}
        found: dict[str, list[bytes]] = {}
        for rule in held.get(key, ()):
            if rule.id[0] in marks:
                found.setdefault(rule.mark, []).append(rule.form)
        for mark, forms in found.items():
            want = wanted.chains[key][wanted.at[key, mark]]
            shown = tuple(sorted(forms))
            if shown != want.forms:
                unlike[mark] = shown
    return unlike


def _learn(known: _Namespace, held: Held, group: Group) -> None:
    """What the kernel shows of a rule right after iptables put it there is its form from then on."""
    spots = {spot for change in group.changes if isinstance(change.action, Put) for spot in change.action.spots}
    wanted = known.builder.wanted
    unlike = _unlike(wanted, held, spots)
    for key, mark in spots:
        want = wanted.chains[key][wanted.at[key, mark]]
        if len(unlike.get(mark, ())) == len(want.forms):
            known.forms[mark] = (want.forms, unlike[mark])
    for change in group.changes:
        if isinstance(change.action, Drop):
            known.names.pop(change.action.mark, None)


def _spots(change: Change) -> Sequence[Spot]:
    match change.action:
        case Put(spots, jumps):
            chains = {key for key, _ in spots} | set(jumps)
            kernel = [(key._replace(chain=_kernel(key.chain)), "") for key in chains]
            return [*spots, *((key, "") for key in jumps), *kernel]
        case Drop(key, mark, _):
            return [(key, mark)]
        case DropChain(key):
            return [(key, "")]
    return []


def _kernel(own: str) -> str:
    return own.removeprefix("reconciler-").removesuffix("-end")


def _refused(name: str, complaint: str) -> ReconcilerError:
    said = f"iptables-restore refuses a change in namespace {name}: {complaint}"
    moved = "too big" in complaint  # the number of a rule that somebody took away meanwhile
    if moved or any(words in complaint for words in FOR_A_WHILE):
        return DriverError(f"{said}; trying again")
    return TerminalError(said)
