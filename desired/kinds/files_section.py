"""The section `files` of a document: by path, whole files, or blocks and INI keys held in files of others.

    files:
      /etc/sysctl.d/60-net.conf: {content: "...", mode: 0644}
      /etc/neutron/l3_agent.ini: {ini: {DEFAULT: {external_network_bridge: ""}}, group: neutron, mode: 0640}
      /etc/hosts: {blocks: {cluster: "10.0.0.1 controller"}}

Each file, block and key is a resource of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from desired.kinds.file import BlockSpec, FilePath, FileSpec, InFile, IniSpec, name_of
from desired.resource import Resource, Spec
from desired.schema.check import Entry
from desired.schema.render import Lines, body_of, quoted
from desired.schema.section import Section, name_ok
from desired.schema.text import ListNode, MapNode, Node, Scalar
from desired.schema.walk import Entries, Walker

_PLACE = frozenset({"path", "name", "section", "key"})
_INI, _BLOCKS = "ini", "blocks"
_OF_WHOLE = frozenset({"content", "source", "comment", "secret"})
_FOR_ALL = frozenset({"adopt", "mode"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Files(Section):
    """``PATH: {content | source | blocks | ini}``, each with owner, group and mode."""

    HINTS: ClassVar[Mapping[str, str]] = {
        _INI: 'like ini: {DEFAULT: {external_network_bridge: ""}}; a key that must not be there is null',
        _BLOCKS: "like blocks: {cluster: |- and the lines}",
    }

    @property
    def specs(self) -> tuple[type[Spec], ...]:
        return (FileSpec, BlockSpec, IniSpec)

    @property
    def given(self) -> frozenset[str]:
        return frozenset({"path"})

    def entries(self, walker: Walker, node: Node) -> Iterator[Entry]:
        for name, (key, body) in walker.mapping(node, self.name, hint=self.hint).items():
            path = f"{self.name}.{name}"
            if not name_ok(walker, FilePath, key, path):
                continue
            fields = walker.mapping(body, path, hint=self.hint)
            if not fields:
                message = "says nothing about this file"
                walker.problems.add(message, key, path=path, hint=self.hint)
                continue
            parts = fields.keys() & {_INI, _BLOCKS}
            whole = sorted(fields.keys() & {"content", "source"})
            if parts and whole:
                message = f"{whole[0]!r} declares the whole file, {min(parts)!r} a part of another's: choose one"
                walker.problems.add(message, fields[whole[0]][0], path=f"{path}.{whole[0]}")
                continue
            yield from self._parts(walker, path, key, fields)
            rest = {n: p for n, p in fields.items() if n not in parts and not (parts and n in _OF_WHOLE)}
            if any(name not in _FOR_ALL or _is_bits(name, pair) for name, pair in rest.items()):
                yield Entry(FileSpec, key, path, given={"path": key}, body=_body(key, rest), hint=self.hint)

    def _parts(self, walker: Walker, path: str, at: Scalar, fields: Entries) -> Iterator[Entry]:
        """The blocks and INI keys. What is said for the file, such as `secret`, is said for each of them."""
        passed_on = {*_FOR_ALL, "secret"}
        shared = {name: pair for name, pair in fields.items() if name in passed_on and not _is_bits(name, pair)}
        if _BLOCKS in fields:
            common = {**shared, **{name: fields[name] for name in ("comment",) if name in fields}}
            where = f"{path}.{_BLOCKS}"
            for name, (key, node) in walker.mapping(fields[_BLOCKS][1], where, hint=self.HINTS[_BLOCKS]).items():
                body = _bodied(key, "text", node, common)
                yield Entry(BlockSpec, key, f"{where}.{name}", given={"path": at, "name": key}, body=body)
        if _INI in fields:
            where = f"{path}.{_INI}"
            for section, (section_key, keys) in walker.mapping(fields[_INI][1], where, hint=self.HINTS[_INI]).items():
                here = f"{where}.{section}"
                for name, (key, node) in walker.mapping(keys, here, hint=self.HINTS[_INI]).items():
                    given = {"path": at, "section": section_key, "key": key}
                    body = _bodied(key, "value", node, shared)
                    yield Entry(IniSpec, key, f"{here}.{name}", given=given, body=body)

    def resource_name(self, entry: Entry, spec: Spec) -> str:
        assert isinstance(spec, InFile)
        return name_of(spec)

    # -- writing ----------------------------------------------------------------------------------------------------

    def schema(self, body: Mapping[str, Any]) -> dict[str, Any]:
        scalar = {"type": ["string", "number", "boolean", "null"]}
        key = {"anyOf": [scalar, {"type": "array", "items": scalar}, _schema(IniSpec)]}
        keys = {"type": ["object", "null"], "additionalProperties": key}
        block = {"anyOf": [scalar, _schema(BlockSpec)]}
        file = _schema(FileSpec)
        modes = {"anyOf": [file["properties"]["mode"], {"type": ["string", "integer"]}]}
        file["properties"] |= {
            "mode": modes,
            _INI: {"type": ["object", "null"], "additionalProperties": keys},
            _BLOCKS: {"type": ["object", "null"], "additionalProperties": block},
        }
        return {"type": ["object", "null"], "propertyNames": {"pattern": "^/"}, "additionalProperties": file}

    def render(self, resources: Iterable[Resource]) -> Lines:
        by_path: dict[str, list[Resource]] = {}
        for resource in resources:
            assert isinstance(resource.spec, InFile)
            by_path.setdefault(resource.spec.path, []).append(resource)
        for path in sorted(by_path):
            found = by_path[path]
            whole = [resource for resource in found if isinstance(resource.spec, FileSpec)]
            yield f"  {quoted(path)}:", whole[0].origin if whole else None
            for resource in whole:
                for line in body_of(resource.spec, _PLACE):
                    yield f"    {line}", None
            yield from _rendered_blocks([r for r in found if isinstance(r.spec, BlockSpec)])
            yield from _rendered_keys([r for r in found if isinstance(r.spec, IniSpec)])


def _is_bits(name: str, pair: tuple[Scalar, Node]) -> bool:
    """Is this `mode` the permissions of the file, and not enforce or observe?"""
    return name == "mode" and isinstance(pair[1], Scalar) and bool(re.fullmatch(r"(0o)?[0-9]+", pair[1].text))


def _body(at: Scalar, fields: Entries) -> MapNode:
    """The body of a file, in which `mode: 0640` is written for its permissions."""
    renamed: Entries = {}
    for name, (key, node) in fields.items():
        if _is_bits(name, (key, node)) and isinstance(node, Scalar):
            bits = replace(node, text=node.text.removeprefix("0o"))
            renamed.setdefault("permissions", (replace(key, text="permissions"), bits))
        else:
            renamed[name] = (key, node)
    return MapNode(at.line, at.column, [*renamed.values()], renamed)


def _bodied(at: Scalar, text: str, node: Node, shared: Entries) -> MapNode:
    """A body: as it is written, or made of the bare text, list or null that stands instead of it."""
    if isinstance(node, MapNode):
        own = {key.text for key, _ in node.pairs if isinstance(key, Scalar)}
        return MapNode(node.line, node.column, [*node.pairs, *(p for name, p in shared.items() if name not in own)])
    assert isinstance(node, Scalar | ListNode)
    return MapNode(at.line, at.column, [(replace(at, text=text), node), *shared.values()])


def _schema(spec: type[Spec]) -> dict[str, Any]:
    schema = spec.model_json_schema(mode="validation")
    schema["properties"]["mode"] = {"enum": ["enforce", "observe"]}
    schema.pop("$defs", None)
    schema["properties"] = {name: rule for name, rule in schema["properties"].items() if name not in _PLACE}
    schema.pop("required", None)
    return schema


def _rendered_blocks(resources: list[Resource]) -> Lines:
    if resources:
        yield f"    {_BLOCKS}:", None
    for resource in resources:
        assert isinstance(resource.spec, BlockSpec)
        yield f"      {quoted(resource.spec.name)}:", resource.origin
        for line in _or_null("text", resource.spec):
            yield f"        {line}", None


def _rendered_keys(resources: list[Resource]) -> Lines:
    if resources:
        yield f"    {_INI}:", None
    section: str | None = None
    for resource in resources:
        spec = resource.spec
        assert isinstance(spec, IniSpec)
        if spec.section != section:
            section = spec.section
            yield f"      {quoted(section)}:", None
        yield f"        {quoted(spec.key)}:", resource.origin
        for line in _or_null("value", spec):
            yield f"          {line}", None


def _or_null(text: str, spec: Spec) -> list[str]:
    return body_of(spec, _PLACE) or [f"{text}: null"]
