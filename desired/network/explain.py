"""`reconcile explain`: what a thing on this node is for and which declared line made it, and what serves an object.

Both ways: from a resource (``flow/br-tun/…``, ``namespace/qrouter-…``) to the object of the model that it serves, and
from an object to all resources of this node that serve it. Which objects there are and how they are called is in
`subjects`, the words for resources in `describe`. Pure: `reconciler.doors.explain` asks the daemon and prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from desired.kinds.namespace import Inside
from desired.kinds.openflow import FlowSpec
from desired.kinds.ovs import HeldPortSpec, PortSpec
from desired.kinds.rules import RuleSpec
from desired.kinds.service import ServiceSpec
from desired.network.describe import describe
from desired.network.hosts import PREFIX as VIRTUAL_HOST
from desired.network.subjects import Subject, known_names, made_for, subject_of
from desired.network.words import Names
from desired.resource import Origin, Resource, ResourceId, Resources
from desired.schema.problem import did_you_mean

NOTHING_WRONG: Mapping[ResourceId, str] = {}


@dataclass(frozen=True, slots=True)
class Told:
    """One resource in words. `place` is the bridge or namespace it is in; `wrong` says what is not right about it."""

    resource: ResourceId
    words: str
    origin: Origin
    place: str = ""
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Explained:
    """`subject` are sentences about what was asked for; `told` the resources of this node that serve it, by place."""

    subject: tuple[str, ...]
    told: tuple[Told, ...]


def explain(
    query: str, resources: Resources, names: Names, wrong: Mapping[ResourceId, str] = NOTHING_WRONG
) -> Explained:
    """Explain a resource or an object. `wrong` says of what is not as declared why.

    Raises LookupError saying what would be near when nothing is meant.
    """
    kind, slash, name = query.strip().partition("/")
    rid = ResourceId(kind, name)
    if slash and rid in resources:
        resource = resources[rid]
        made = f"made by {resource.origin.path or 'it'}, declared at {resource.origin}"
        return Explained((*made_for(resource.origin, names), made), (_one(resource, names, wrong),))
    subject = subject_of(query.strip().lower(), names)
    if subject is None:
        in_text = [resource for resource in resources.values() if _mentions(resource, {query.strip().lower()})]
        if in_text:
            said = f"{query} is no object of the model; these resources name it"
            return Explained((said,), _told(in_text, names, wrong))
        raise LookupError(_unknown(query, resources, names))
    return Explained(subject.sentences, _told(_serving(subject, resources.values(), wrong), names, wrong))


def _serving(subject: Subject, resources: Iterable[Resource], wrong: Mapping[ResourceId, str]) -> Iterator[Resource]:
    wanted = {word for word in subject.words if word}
    for resource in resources:
        named = wanted and _mentions(resource, wanted)
        if (resource.origin in subject.origins and not _apart(resource, subject, wrong)) or named:
            yield resource


def _apart(resource: Resource, subject: Subject, wrong: Mapping[ResourceId, str]) -> bool:
    """Is it another port's, or of a whole namespace, although the question is about one port?"""
    if not subject.one or resource.origin in subject.one or resource.id in wrong:
        return False
    return resource.id.kind == "sysctl" or _place(resource)[1].startswith(f"namespace {VIRTUAL_HOST}")


def _mentions(resource: Resource, wanted: set[str]) -> bool:
    """Does one of the words stand in it, whole?"""
    text = f"{resource.id.name} {resource.spec.model_dump_json()}".lower()
    return any(
        word in text and re.search(rf"(?<![0-9a-z.:-]){re.escape(word)}(?![0-9a-z-]|[.:][0-9a-f])", text)
        for word in wanted
    )


def _told(resources: Iterable[Resource], names: Names, wrong: Mapping[ResourceId, str]) -> tuple[Told, ...]:
    ordered = sorted(resources, key=lambda each: (*_place(each), _ORDER.get(each.id.kind, 99), each.id))
    return tuple(_one(resource, names, wrong) for resource in ordered)


def _one(resource: Resource, names: Names, wrong: Mapping[ResourceId, str]) -> Told:
    place = _place(resource)[1]
    return Told(resource.id, describe(resource, names), resource.origin, place, wrong.get(resource.id, ""))


def _place(resource: Resource) -> tuple[int, str]:
    """Where a resource is, after Open vSwitch the namespaces, then the machine itself; and its rank in that order."""
    spec, kind = resource.spec, resource.id.kind
    found = 2, "this machine"
    if kind in {"bridge", "namespace"}:
        found = int(kind == "namespace"), f"{kind} {resource.id.name}"
    elif isinstance(spec, FlowSpec | PortSpec):
        found = 0, f"bridge {spec.bridge}"
    elif isinstance(spec, HeldPortSpec):
        found = 0, "instances' ports"
    elif isinstance(spec, Inside | RuleSpec) or (isinstance(spec, ServiceSpec) and spec.namespace is not None):
        found = 1, f"namespace {spec.namespace}"
    return found


_ORDER = {
    kind: place
    for place, kind in enumerate(
        (
            "bridge", "port", "held_port", "flow", "namespace", "link", "address", "route", "sysctl",
            "floating_ip", "redirect", "snat", "rule", "service", "file",
        )
    )
}  # fmt: skip


def _unknown(query: str, resources: Resources, names: Names) -> str:
    near = did_you_mean(query, [*map(str, resources), *known_names(names)])
    hint = near or "name a resource (KIND/NAME), a port, a network, a router, a floating IP, a MAC or an address"
    return f"nothing on this node and nothing in its model is {query!r}; {hint}"


__all__ = ["Explained", "Told", "describe", "explain"]
