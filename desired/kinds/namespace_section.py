"""How namespaces are written: nested, with what is in them; read into one resource for each single thing.

    namespaces:
      qrouter-1:
        links:
          qr-1: {type: ovs, addresses: [10.0.0.1/24, {address: 10.0.0.9/32, announce: true}]}
        routes: [{to: default, via: 10.0.0.254}]
        sysctls: {net.ipv4.ip_forward: 1}

`host` has the same body without a name. `adopt` and `mode` of a namespace hold for everything in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from desired.kinds.names import InterfaceName
from desired.kinds.namespace import (
    HOST,
    KINDS,
    AddressSpec,
    LinkSpec,
    NamespaceName,
    NamespaceSpec,
    NeighbourSpec,
    RouteSpec,
    RuleSpec,
    SysctlSpec,
    resource_name,
)
from desired.resource import Resource, Spec
from desired.schema.check import Entry
from desired.schema.problem import did_you_mean
from desired.schema.render import Lines, body_of, quoted
from desired.schema.section import Section, inlined, name_ok
from desired.schema.text import MapNode, Node, Scalar
from desired.schema.walk import Walker

_LISTS: Mapping[str, type[Spec]] = {"routes": RouteSpec, "rules": RuleSpec, "neighbours": NeighbourSpec}
_PARTS = ("links", "routes", "rules", "neighbours", "sysctls")
_GIVEN = frozenset({"namespace", "dev"})
_INHERITED = ("mode",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spaces(Section):
    """``NAME: {links, routes, rules, neighbours, sysctls, …}``; with `single`, the one body of the host."""

    single: bool = False

    @property
    def specs(self) -> tuple[type[Spec], ...]:
        return KINDS

    def entries(self, walker: Walker, node: Node) -> Iterator[Entry]:
        if self.single:
            yield from self._space(walker, Scalar(HOST, plain=False, line=node.line, column=node.column), node, HOST)
            return
        for name, (key, body) in walker.mapping(node, self.name, hint=self.hint).items():
            path = f"{self.name}.{name}"
            if name == HOST:
                walker.problems.add("the host is no namespace of its own", key, path=path, hint="write it as 'host:'")
            elif name_ok(walker, NamespaceName, key, path):
                yield from self._space(walker, key, body, path)

    def _space(self, walker: Walker, name: Scalar, node: Node, path: str) -> Iterator[Entry]:
        body = walker.mapping(node, path, hint=self.hint)
        own = [key for key in NamespaceSpec.model_fields if key != "adopt" or not self.single]
        for key, (at, _) in body.items():
            if key not in (*_PARTS, *own):
                known = [*_PARTS, *own]
                hint = did_you_mean(key, known) or f"known here: {', '.join(known)}"
                walker.problems.add(f"unknown key {key!r}", at, path=f"{path}.{key}", hint=hint)
        yield Entry(NamespaceSpec, name, path, name.text, body=_only(node, body, frozenset(own)), hint=self.hint)
        given = {"namespace": name}
        mode = body.get("mode")
        inherited = {"mode": mode} if mode is not None else {}
        for part in _PARTS:
            if part in body:
                for entry in self._part(walker, part, body[part][1], f"{path}.{part}", given):
                    yield replace(entry, body=_with(entry.body, inherited, entry.at))

    def _part(self, walker: Walker, part: str, node: Node, path: str, given: Mapping[str, Scalar]) -> Iterator[Entry]:
        if part == "links":
            yield from self._links(walker, node, path, given)
        elif part == "sysctls":
            for key, (at, value) in walker.mapping(node, path, hint=self.hint).items():
                if isinstance(value, Scalar) and not value.null:
                    yield Entry(SysctlSpec, at, f"{path}.{key}", given={**given, "key": at, "value": value})
                else:
                    walker.problems.add("must be the value of a sysctl", value, path=f"{path}.{key}")
        else:
            for index, item in enumerate(walker.items(node, path, hint=self.hint)):
                yield Entry(_LISTS[part], item, f"{path}[{index}]", given=given, body=item, hint=self.hint)

    def _links(self, walker: Walker, node: Node, path: str, given: Mapping[str, Scalar]) -> Iterator[Entry]:
        for dev, (key, body) in walker.mapping(node, path, hint=self.hint).items():
            at = f"{path}.{dev}"
            if not name_ok(walker, InterfaceName, key, at):
                continue
            inner = walker.mapping(body, at, hint=self.hint)
            on_link = {**given, "dev": key}
            own = frozenset(inner) - {"addresses"}
            yield Entry(LinkSpec, key, at, given=on_link, body=_only(body, inner, own), hint=self.hint)
            if "addresses" not in inner:
                continue
            for index, item in enumerate(walker.items(inner["addresses"][1], f"{at}.addresses", hint=self.hint)):
                place = f"{at}.addresses[{index}]"
                if isinstance(item, Scalar) and not item.null:
                    yield Entry(AddressSpec, item, place, given={**on_link, "address": item})
                else:
                    yield Entry(AddressSpec, item, place, given=on_link, body=item, hint=self.hint)

    def resource_name(self, entry: Entry, spec: Spec) -> str:
        return resource_name(spec, entry.name)

    def schema(self, body: Mapping[str, Any]) -> dict[str, Any]:
        listed = {"type": ["array", "null"]}
        sysctl = {"type": ["string", "number", "boolean"]}
        link = inlined(LinkSpec, _GIVEN)
        address = {"anyOf": [{"type": "string"}, inlined(AddressSpec, _GIVEN)]}
        link["properties"]["addresses"] = {**listed, "items": address}
        link["type"] = ["object", "null"]
        space = inlined(NamespaceSpec, frozenset())
        space["properties"] |= {
            "links": {"type": ["object", "null"], "additionalProperties": link},
            "sysctls": {"type": ["object", "null"], "additionalProperties": sysctl},
            **{part: {**listed, "items": inlined(spec, _GIVEN - {"dev"})} for part, spec in _LISTS.items()},
        }
        space["type"] = ["object", "null"]
        return space if self.single else {"type": ["object", "null"], "additionalProperties": space}

    def takes(self, resource: Resource) -> bool:
        return (_space_of(resource) == HOST) == self.single

    def render(self, resources: Iterable[Resource]) -> Lines:
        for name, members in groupby(sorted(resources, key=_space_of), key=_space_of):
            inside = list(members)
            own = next((r for r in inside if isinstance(r.spec, NamespaceSpec)), None)
            if not self.single:
                yield f"  {quoted(name)}:", None if own is None else own.origin
            indent = "  " if self.single else "    "
            for line in body_of(own.spec, frozenset()) if own is not None else ():
                yield f"{indent}{line}", None
            for line, origin in _inside(inside):
                yield f"{indent}{line}", origin


def _space_of(resource: Resource) -> str:
    return str(getattr(resource.spec, "namespace", resource.id.name))


def _inside(resources: list[Resource]) -> Lines:
    yield from _links(resources)
    for part, kind in _LISTS.items():
        members = [r for r in resources if isinstance(r.spec, kind)]
        if members:
            yield f"{part}:", None
        for member in members:
            yield from _item("  ", member, frozenset({"namespace"}))
    sysctls = [r for r in resources if isinstance(r.spec, SysctlSpec)]
    if sysctls:
        yield "sysctls:", None
    for sysctl in sysctls:
        assert isinstance(sysctl.spec, SysctlSpec)
        yield f"  {quoted(sysctl.spec.key)}: {quoted(sysctl.spec.value)}", sysctl.origin


def _links(resources: list[Resource]) -> Lines:
    links = [r for r in resources if isinstance(r.spec, LinkSpec)]
    if links:
        yield "links:", None
    for link in links:
        spec = link.spec
        assert isinstance(spec, LinkSpec)
        yield f"  {quoted(spec.dev)}:", link.origin
        for line in body_of(spec, _GIVEN):
            yield f"    {line}", None
        addresses = [r for r in resources if isinstance(r.spec, AddressSpec) and r.spec.dev == spec.dev]
        if addresses:
            yield "    addresses:", None
        for address in addresses:
            yield from _item("      ", address, _GIVEN)


def _item(indent: str, resource: Resource, given: frozenset[str]) -> Lines:
    first, *rest = body_of(resource.spec, given)
    yield f"{indent}- {first}", resource.origin
    for line in rest:
        yield f"{indent}  {line}", None


def _only(node: Node, body: Mapping[str, tuple[Scalar, Node]], names: frozenset[str]) -> Node:
    """The mapping with these of its keys."""
    return MapNode(node.line, node.column, [entry for key, entry in body.items() if key in names])


def _with(body: Node | None, more: Mapping[str, tuple[Scalar, Node]], at: Node) -> Node | None:
    """The body with what it inherits and does not say itself."""
    if not more:
        return body
    if body is None:
        return MapNode(at.line, at.column, list(more.values()))
    if not isinstance(body, MapNode):
        return body
    said = {key.text for key, _ in body.pairs if isinstance(key, Scalar)}
    return MapNode(body.line, body.column, [*body.pairs, *(entry for key, entry in more.items() if key not in said)])
