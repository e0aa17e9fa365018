"""The section `model` of a document: the objects of the network model, each kind by name under a key of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from desired.kinds.names import IpAddress
from desired.kinds.sections import SECTIONS as NODE_SECTIONS
from desired.network.model import (
    KINDS,
    OPTIONS,
    Name,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    NodeSpec,
    OptionsSpec,
    RouterSpec,
    SubnetSpec,
)
from desired.resource import Resource, Spec
from desired.schema.check import Entry
from desired.schema.problem import did_you_mean
from desired.schema.render import Lines, body_of, quoted
from desired.schema.section import Section, inlined, name_ok
from desired.schema.text import Node, Scalar
from desired.schema.walk import Walker

_PARTS: dict[str, type[Spec]] = {
    "nodes": NodeSpec,
    "networks": NetworkSpec,
    "subnets": SubnetSpec,
    "ports": NeutronPortSpec,
    "routers": RouterSpec,
    "floating_ips": NeutronFloatingIpSpec,
}
_FLOATING = "floating_ips"
_EXAMPLES = {
    "options": "{layout: multi-table}",
    "nodes": "{net1: {roles: [network], tunnel_ip: 10.10.10.11}}",
    "networks": "{one: {type: gre, segmentation_id: 1}}",
    "subnets": "{one: {network: one, cidr: 10.0.0.0/24}}",
    "ports": "{vm1: {network: one, node: net1, fixed_ips: [10.0.0.5]}}",
    "routers": "{r1: {interfaces: [one], gateway: public}}",
    "floating_ips": "{203.0.113.9: vm1}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSection(Section):
    """``{options: {settings}, PART: {NAME: {settings}}}``; of a floating IP, ADDRESS: PORT is enough."""

    def entries(self, walker: Walker, node: Node) -> Iterator[Entry]:
        known = ("options", *_PARTS)
        for part, (key, body) in walker.mapping(node, self.name, hint=self.hint).items():
            path = f"{self.name}.{part}"
            if part == "options":
                yield Entry(OptionsSpec, key, path, OPTIONS.name, body=body, hint=_like(part))
            elif part in _PARTS:
                yield from self._part(walker, part, body, path)
            else:
                hint = did_you_mean(part, known) or f"known here: {', '.join(known)}"
                walker.problems.add(f"unknown key {part!r}", key, path=path, hint=hint)

    def _part(self, walker: Walker, part: str, node: Node, path: str) -> Iterator[Entry]:
        spec, hint = _PARTS[part], _like(part)
        for name, (key, body) in walker.mapping(node, path, hint=hint).items():
            at = f"{path}.{name}"
            if not name_ok(walker, IpAddress if part == _FLOATING else Name, key, at, hint):
                continue
            if part != _FLOATING:
                yield Entry(spec, key, at, name, body=body, hint=hint)
            elif isinstance(body, Scalar) and not body.null:
                yield Entry(spec, key, at, name, given={"floating": key, "port": body})
            else:
                yield Entry(spec, key, at, name, given={"floating": key}, body=body, hint=hint)

    def resource_name(self, entry: Entry, spec: Spec) -> str:
        return spec.floating if isinstance(spec, NeutronFloatingIpSpec) else entry.name

    @property
    def specs(self) -> tuple[type[Spec], ...]:
        return KINDS

    def schema(self, body: Mapping[str, Any]) -> dict[str, Any]:
        parts: dict[str, Any] = {"options": inlined(OptionsSpec, frozenset())}
        for part, spec in _PARTS.items():
            one = inlined(spec, frozenset({"floating"}))
            if part == _FLOATING:
                one = {"anyOf": [{"type": "string"}, one]}
            parts[part] = {"type": ["object", "null"], "additionalProperties": one}
        return {"type": ["object", "null"], "properties": parts, "additionalProperties": False}

    def render(self, resources: Iterable[Resource]) -> Lines:
        by_kind: dict[str, list[Resource]] = {}
        for resource in resources:
            by_kind.setdefault(resource.id.kind, []).append(resource)
        for options in by_kind.get(OptionsSpec.kind, ()):
            yield "  options:", options.origin
            for line in body_of(options.spec, frozenset()):
                yield f"    {line}", None
        for part, spec in _PARTS.items():
            if spec.kind in by_kind:
                yield f"  {part}:", None
            for resource in by_kind.get(spec.kind, ()):
                yield f"    {quoted(resource.id.name)}:", resource.origin
                for line in body_of(resource.spec, frozenset({"floating"})):
                    yield f"      {line}", None


def _like(part: str) -> str:
    return f"like {part}: {_EXAMPLES[part]}"


MODEL = ModelSection(
    name="model",
    spec=NetworkSpec,
    judged_whole=True,
    example="{networks: {one: {type: gre, segmentation_id: 1}}, subnets: {one: {network: one, cidr: 10.0.0.0/24}}}",
    description="The network of the whole cluster in Neutron's words; each node gets what it has to hold of it.",
)
SECTIONS: tuple[Section, ...] = (*NODE_SECTIONS, MODEL)
"""All sections of a document."""
