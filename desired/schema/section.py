"""The shapes a section of a document may have: how its entries are written, read, rendered, and shown to an editor.

A kind comes into YAML by one line in a table of sections (`desired.kinds.sections`): the section's name, the spec,
and one of these shapes. A section may yield entries of any spec, several for one line (`Pairs` does), so a layer
that is compiled into resources adds sections in the same way. Nothing here knows a kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from desired.resource import Resource, Spec
from desired.schema.check import Entry
from desired.schema.render import Lines, body_of, quoted
from desired.schema.text import MapNode, Node, Scalar
from desired.schema.walk import Walker, shown

Claim = tuple[str, str]
"""A name that only one resource of a node may have: a namespace such as ``port``, and the name in it."""


def no_claims(_name: str, _spec: Any) -> Iterable[Claim]:
    """Claim nothing beyond the resource's own id."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(ABC):
    """One key of a document. `example` is shown in hints; `claims` are names shared with other kinds."""

    name: str
    spec: type[Spec]
    example: str
    description: str = ""
    claims: Callable[[str, Any], Iterable[Claim]] = no_claims
    judged_whole: bool = False
    """Its entries are checked against each other later on: where each of their fields is written is kept for that."""

    @abstractmethod
    def entries(self, walker: Walker, node: Node) -> Iterator[Entry]:
        """Yield what is declared in this section of a document."""

    @abstractmethod
    def resource_name(self, entry: Entry, spec: Spec) -> str:
        """Return the name, unique within its kind on a node."""

    @abstractmethod
    def schema(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON Schema of the section. `body` is the schema of an entry's body."""

    @abstractmethod
    def render(self, resources: Iterable[Resource]) -> Lines:
        """Return the section's lines for resources of its spec, indented under its name."""

    @property
    def specs(self) -> tuple[type[Spec], ...]:
        """Every spec of which this section has entries."""
        return (self.spec,)

    def takes(self, resource: Resource) -> bool:
        """Is this the section that renders `resource`, of those that have entries of its spec?"""
        return True

    @property
    def given(self) -> frozenset[str]:
        """Fields of the spec that are not written in a body, because the place says them."""
        return frozenset()

    @property
    def hint(self) -> str:
        return f"like {self.name}: {self.example}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named(Section):
    """``NAME: {settings}``. `name_type` is what the name must be, an annotated type."""

    name_type: Any

    def entries(self, walker: Walker, node: Node) -> Iterator[Entry]:
        for name, (key, body) in walker.mapping(node, self.name, hint=self.hint).items():
            path = f"{self.name}.{name}"
            if name_ok(walker, self.name_type, key, path):
                yield Entry(self.spec, key, path, name, body=body, hint=self.hint)

    def resource_name(self, entry: Entry, spec: Spec) -> str:
        return entry.name

    def schema(self, body: Mapping[str, Any]) -> dict[str, Any]:
        names = TypeAdapter(self.name_type).json_schema()
        return {"type": ["object", "null"], "propertyNames": names, "additionalProperties": dict(body)}

    def render(self, resources: Iterable[Resource]) -> Lines:
        for resource in resources:
            yield f"  {quoted(resource.id.name)}:", resource.origin
            for line in body_of(resource.spec, self.given):
                yield f"    {line}", None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped(Section):
    """Entries below the thing they belong to: ``BRIDGE: [TEXT | {settings}]``. `text` is the field of a bare TEXT."""

    within: str
    text: str
    name_of: Callable[[Any], str]

    def resource_name(self, entry: Entry, spec: Spec) -> str:
        return self.name_of(spec)

    @property
    def given(self) -> frozenset[str]:
        return frozenset({self.within})

    def one(self, node: Node, path: str, given: Mapping[str, Scalar]) -> Entry:
        """Return the entry of a bare text or of a body."""
        if isinstance(node, Scalar) and not node.null:
            return Entry(self.spec, node, path, given={**given, self.text: node})
        return Entry(self.spec, node, path, given=given, body=node, hint=self.hint)

    def schema(self, body: Mapping[str, Any]) -> dict[str, Any]:
        one = {"anyOf": [{"type": "string"}, dict(body)]}
        return {"type": ["object", "null"], "additionalProperties": self.members(one)}

    def render(self, resources: Iterable[Resource]) -> Lines:
        within: str | None = None
        for resource in resources:
            if getattr(resource.spec, self.within) != within:
                within = getattr(resource.spec, self.within)
                yield f"  {quoted(str(within))}:", None
            lines = body_of(resource.spec, self.given)
            if len(lines) == 1:
                yield f"    {self.lead(resource.spec)} {lines[0].removeprefix(f'{self.text}: ')}", resource.origin
                continue
            yield f"    {self.lead(resource.spec)}", resource.origin
            for line in lines:
                yield f"      {line}", None

    @abstractmethod
    def members(self, one: Mapping[str, Any]) -> dict[str, Any]:
        """Return the schema of what stands under one bridge."""

    @abstractmethod
    def lead(self, spec: Spec) -> str:
        """Return what begins an entry: ``-``, or its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Grouped):
    """``BRIDGE: [TEXT, {settings}]``."""

    def entries(self, walker: Walker, node: Node) -> Iterator[Entry]:
        for name, (key, members) in walker.mapping(node, self.name, hint=self.hint).items():
            path, given = f"{self.name}.{name}", {self.within: key}
            for index, item in enumerate(walker.items(members, path, hint=self.hint)):
                yield self.one(item, f"{path}[{index}]", given)

    def members(self, one: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": ["array", "null"], "items": dict(one)}

    def lead(self, spec: Spec) -> str:
        return "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered(Grouped):
    """``BRIDGE: {NUMBER: TEXT | {settings}}``. `number` is the field of the number."""

    number: str

    def entries(self, walker: Walker, node: Node) -> Iterator[Entry]:
        for name, (key, members) in walker.mapping(node, self.name, hint=self.hint).items():
            path = f"{self.name}.{name}"
            for number, (number_key, item) in walker.mapping(members, path, hint=self.hint).items():
                entry = self.one(item, f"{path}.{number}", {self.within: key, self.number: number_key})
                yield replace(entry, at=number_key)

    @property
    def given(self) -> frozenset[str]:
        return frozenset({self.within, self.number})

    def members(self, one: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": ["object", "null"], "propertyNames": {"pattern": "^[0-9]+$"}, "additionalProperties": dict(one)}

    def lead(self, spec: Spec) -> str:
        return f"{getattr(spec, self.number)}:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs(Section):
    """``- {BRIDGE: PORT, BRIDGE: PORT}``: two things in one line, each of them told of the other.

    `ends` maps the fields that are the same on both to their text; `within` is the field for the bridge, `other` the
    field for the name of the opposite end. They are rendered as what they are, in the section of their spec.
    """

    name_type: Any
    within: str
    other: str
    ends: Mapping[str, str]

    def entries(self, walker: Walker, node: Node) -> Iterator[Entry]:
        for index, item in enumerate(walker.items(node, self.name, hint=self.hint)):
            path = f"{self.name}[{index}]"
            pair = walker.mapping(item, path, hint=self.hint)
            if len(pair) != 2:
                if isinstance(item, MapNode):
                    message = f"a pair needs two bridges, each with its port; here {_are(len(pair))}"
                    walker.problems.add(message, item, path=path, hint=self.hint)
                continue
            (one, _), (two, _) = pair.values()
            ports = [self._port(walker, f"{path}.{bridge.text}", port) for bridge, port in pair.values()]
            if ports[0] is not None and ports[1] is not None:
                yield self._end(f"{path}.{one.text}", one, ports[0], ports[1])
                yield self._end(f"{path}.{two.text}", two, ports[1], ports[0])

    def _port(self, walker: Walker, path: str, port: Node) -> Scalar | None:
        if not isinstance(port, Scalar) or port.null:
            walker.problems.add(f"must be the name of a port, not {shown(port)}", port, path=path, hint=self.hint)
            return None
        return port if name_ok(walker, self.name_type, port, path) else None

    def _end(self, path: str, bridge: Scalar, port: Scalar, peer: Scalar) -> Entry:
        given = {name: replace(port, text=text) for name, text in self.ends.items()}
        given |= {self.within: bridge, self.other: peer}
        return Entry(self.spec, port, path, port.text, given=given)

    def resource_name(self, entry: Entry, spec: Spec) -> str:
        return entry.name

    def schema(self, body: Mapping[str, Any]) -> dict[str, Any]:
        names = TypeAdapter(self.name_type).json_schema()
        pair = {"type": "object", "minProperties": 2, "maxProperties": 2, "additionalProperties": names}
        return {"type": ["array", "null"], "items": pair}

    def render(self, resources: Iterable[Resource]) -> Lines:
        yield from ()


@lru_cache
def _adapter(name_type: Any) -> TypeAdapter[str]:
    return TypeAdapter(name_type)


def _are(count: int) -> str:
    return "is one" if count == 1 else f"are {count}"


def name_ok(walker: Walker, name_type: Any, node: Scalar, path: str, hint: str = "") -> bool:
    """Check a name against its annotated type; False after adding a problem."""
    try:
        _adapter(name_type).validate_python(node.text)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            empty = "a name must not be empty" if detail["type"] in {"too_short", "string_too_short"} else detail["msg"]
            walker.problems.add(str(detail.get("ctx", {}).get("error", empty)), node, path=path, hint=hint)
        return False
    return True


def inlined(model: type[Spec], given: frozenset[str]) -> dict[str, Any]:
    """Return the JSON Schema of a body without the `given` fields, its definitions in place."""
    schema = model.model_json_schema()
    defs = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolved(defs[str(value["$ref"]).rpartition("/")[2]])
            return {key: resolved(inner) for key, inner in value.items()}
        return [resolved(inner) for inner in value] if isinstance(value, list) else value

    found: dict[str, Any] = resolved(schema)
    found["properties"] = {name: rule for name, rule in found["properties"].items() if name not in given}
    required = [name for name in found.pop("required", []) if name not in given]
    return found | ({"required": required} if required else {}) | {"additionalProperties": False}
