"""Groups and meters: what flows refer to by number. Compiled like flows, compared as opaque bytes, whole dumps only.

They have no mark. On a bridge with `flows: exclusive` all of them are ours, and an undeclared one is pruned; on a
shared bridge only the declared numbers are held, and what is no longer declared stays. Flows use them, so they are
set before the flows and deleted after them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from controllers.drivers.openflow.compiler import CompileFault
from controllers.drivers.openflow.flows import DeleteGroup, DeleteMeter, SetGroup, SetMeter
from controllers.drivers.openflow.ofctl import words
from desired.kinds.openflow import GroupSpec, MeterSpec
from desired.resource import Resource, ResourceId, Resources
from reconciler.contract import Change, Disruption, Finding, Outcome, Verb, View

_BURST = 1 << 2
LAST_METER = 0xFFFF0000
"""Above it are the switch's own (slow path, controller)."""


class Compiler(Protocol):
    """Makes bodies of text; see `controllers.drivers.openflow.compiler.FlowCompiler`."""

    async def compile_groups(
        self, texts: Any, ports: Mapping[str, int], awaited: Any = ()
    ) -> Mapping[str, bytes | CompileFault]: ...

    async def compile_meters(self, texts: Any) -> Mapping[str, bytes | CompileFault]: ...


@dataclass(frozen=True, slots=True)
class Numbered:
    """Declared and present groups and meters of one bridge: kind -> number -> what it is."""

    wanted: Mapping[str, Mapping[int, tuple[ResourceId, bytes | CompileFault]]] = field(default_factory=dict)
    found: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)


class NumberedBuilder:
    """Compiles the declared groups and meters of one bridge and keeps what was compiled."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._cache: dict[tuple[str, tuple[tuple[str, int], ...]], bytes | CompileFault] = {}

    async def build(
        self, resources: Resources, ports: Mapping[str, int], awaited: frozenset[str]
    ) -> Mapping[str, Mapping[int, tuple[ResourceId, bytes | CompileFault]]]:
        """Declared number -> (resource, body or fault), by kind. Raises DriverError."""
        groups = [r for r in resources.values() if isinstance(r.spec, GroupSpec)]
        meters = [r for r in resources.values() if isinstance(r.spec, MeterSpec)]
        if not groups and not meters:
            return {}
        keys = {r.id: _key(r, ports) for r in (*groups, *meters)}
        fresh_groups = [_text(r) for r in groups if keys[r.id] not in self._cache]
        fresh_meters = [_text(r) for r in meters if keys[r.id] not in self._cache]
        bodies: dict[str, bytes | CompileFault] = {}
        if fresh_groups:
            bodies |= await self._compiler.compile_groups(fresh_groups, ports, awaited)
        if fresh_meters:
            bodies |= await self._compiler.compile_meters(fresh_meters)
        known = {key: self._cache.get(key) or bodies[key[0]] for key in keys.values()}
        self._cache = {key: body for key, body in known.items() if not isinstance(body, CompileFault)}
        return {
            "group": {_number(r): (r.id, known[keys[r.id]]) for r in groups},
            "meter": {_number(r): (r.id, known[keys[r.id]]) for r in meters},
        }


def _text(resource: Resource) -> str:
    spec = resource.spec
    assert isinstance(spec, GroupSpec | MeterSpec)
    return spec.group if isinstance(spec, GroupSpec) else spec.meter


def _number(resource: Resource) -> int:
    spec = resource.spec
    assert isinstance(spec, GroupSpec | MeterSpec)
    return spec.group_id if isinstance(spec, GroupSpec) else spec.meter_id


def _key(resource: Resource, ports: Mapping[str, int]) -> tuple[str, tuple[tuple[str, int], ...]]:
    text = _text(resource)
    return text, tuple(sorted((name, ports[name]) for name in words(text) & ports.keys()))


@dataclass(frozen=True, slots=True)
class NumberedDiff:
    """`first` go before flows, `last` after them."""

    first: tuple[Change, ...] = ()
    last: tuple[Change, ...] = ()
    findings: tuple[Finding, ...] = ()


def diff_numbered(view: View, kind: str, bridge: str, numbered: Numbered, *, exclusive: bool) -> NumberedDiff:
    """What differs in groups (`kind` "group") or meters ("meter"). Pure."""
    wanted, found = numbered.wanted.get(kind, {}), numbered.found.get(kind, {})
    findings = tuple(_findings(wanted.values()))
    first = tuple(_sets(view, kind, wanted, found))
    last = tuple(_deletes(kind, bridge, wanted, found)) if exclusive else ()
    return NumberedDiff(first, last, findings)


def _findings(wanted: Any) -> Iterator[Finding]:
    for rid, body in wanted:
        if not isinstance(body, CompileFault):
            continue
        if body.ports:
            names = ", ".join(sorted(body.ports))
            refs = tuple(ResourceId("port", name) for name in sorted(body.ports))
            yield Finding(rid, Outcome.PENDING, f"waits for port {names}", refs)
        else:
            yield Finding(rid, Outcome.FAILED, f"invalid {rid.kind}: {body.message}")


def _sets(
    view: View, kind: str, wanted: Mapping[int, tuple[ResourceId, bytes | CompileFault]], found: Mapping[int, bytes]
) -> Iterator[Change]:
    for number, (rid, body) in sorted(wanted.items()):
        if isinstance(body, CompileFault):
            continue
        if number in found and (found[number] == body or (kind == "meter" and _same_meter(found[number], body))):
            continue
        exists = number in found
        action = (SetGroup if kind == "group" else SetMeter)(number, body, exists)
        verb = Verb.UPDATE if exists else Verb.CREATE
        why = f"{kind} differs" if exists else f"{kind} is missing"
        before = f"0x{found[number].hex()}" if exists else ""
        disruption = Disruption.BRIEF if exists else Disruption.NONE
        yield Change(rid, verb, action, why, before, _text(view.resources[rid]), disruption)


def _same_meter(one: bytes, other: bytes) -> bool:
    """Without OFPMF_BURST the burst of a band means nothing (OpenFlow 1.4, 7.3.4.4), and switches fill it in."""
    return _without_idle_burst(one) == _without_idle_burst(other)


def _without_idle_burst(body: bytes) -> bytes:
    if int.from_bytes(body[:2], "big") & _BURST:
        return body
    meaning, at = bytearray(body), 2
    while at + 12 <= len(body):
        meaning[at + 8 : at + 12] = bytes(4)
        at += max(12, int.from_bytes(body[at + 2 : at + 4], "big"))
    return bytes(meaning)


def _deletes(kind: str, bridge: str, wanted: Mapping[int, Any], found: Mapping[int, bytes]) -> Iterator[Change]:
    for number in sorted(found.keys() - wanted.keys()):
        if kind == "meter" and number > LAST_METER:
            continue
        action = (DeleteGroup if kind == "group" else DeleteMeter)(number)
        rid = ResourceId(kind, f"{bridge}/{number}")
        before = f"0x{found[number].hex()}"
        yield Change(rid, Verb.DELETE, action, "no longer declared", before, "", Disruption.BRIEF, prune=True)
