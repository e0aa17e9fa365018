"""From a declared entry, still nodes of YAML, to its checked spec; every complaint gets its exact place.

`Entry` is what a section (`desired.schema.section`) makes of a document, `check` is what `desired.schema.tree` calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from sys import intern
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from desired.resource import Spec
from desired.schema.problem import did_you_mean
from desired.schema.text import ListNode, MapNode, Node, Scalar
from desired.schema.walk import Entries, Walker
from desired.schema.words import Complaint, Loc, complaints


@dataclass(frozen=True, slots=True)
class Entry:
    """A declared thing. `given` are fields that its place in the document says (the bridge a flow is under);
    `hint` says how one is written.
    """

    spec: type[Spec]
    at: Node
    path: str
    name: str = ""
    given: Mapping[str, Scalar] = field(default_factory=dict)
    body: Node | None = None
    hint: str = ""


Model = TypeVar("Model", bound=BaseModel)
_WORD = re.compile(r"\w+")

Places = Mapping[str, tuple[int, int]]
"""Line and column of each field of an entry, by the place in it, as in ``.fixed_ips[0]``."""


def places(entry: Entry) -> Places:
    """Where everything in an entry is written that `check` found right."""
    found: dict[str, tuple[int, int]] = {}
    for name, scalar in entry.given.items():
        found[intern(f".{name}")] = scalar.line, scalar.column
    if isinstance(entry.body, MapNode):
        _note_places(entry.body, "", found)
    return found


def _note_places(node: Node, inside: str, found: dict[str, tuple[int, int]]) -> None:
    if inside:
        found[intern(inside)] = node.line, node.column  # ten thousand ports have the same few
    if isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            _note_places(item, f"{inside}[{index}]", found)
    elif isinstance(node, MapNode):
        for name, (_, value) in (node.entries or {}).items():
            _note_places(value, f"{inside}.{name}", found)


def check(walker: Walker, model: type[Model], entry: Entry, defaults: Mapping[str, str]) -> Model | None:
    """Return the checked spec, or None after adding what is wrong to the walker's problems."""
    nodes: dict[str, Node] = dict(entry.given)
    data: dict[str, Any] = {}
    for name, scalar in entry.given.items():
        number = _number(model, name, scalar)
        data[name] = scalar.text if number is None else number
    complete, meant = True, set[str]()
    if entry.body is not None:
        body = walker.mapping(entry.body, entry.path, hint=entry.hint)
        complete = isinstance(entry.body, MapNode) or (isinstance(entry.body, Scalar) and entry.body.null)
        for name, (key, node) in body.items():
            if name in model.model_fields and name not in entry.given:
                nodes[name] = node
                number = _number(model, name, node)
                data[name] = walker.value(node, f"{entry.path}.{name}") if number is None else number
            else:
                _unknown(walker, model, entry, key)
                complete = False
                meant.update(get_close_matches(key.text.lower(), model.model_fields, n=1))
    for name, text in defaults.items():
        data.setdefault(name, text)
    try:
        checked = model.model_validate(data)
    except ValidationError as error:
        if complete or entry.body is None or isinstance(entry.body, MapNode):
            for complaint in complaints(model, data, error):
                if not complaint.loc and meant & set(_WORD.findall(complaint.message)):
                    continue  # it is there under a misspelt name, and that is told
                _report(walker, entry, nodes, complaint)
        return None
    return checked if complete else None


def _unknown(walker: Walker, model: type[BaseModel], entry: Entry, key: Scalar) -> None:
    known = sorted(set(model.model_fields) - set(entry.given))
    message, hint = f"unknown key {key.text!r}", did_you_mean(key.text, known) or f"known here: {', '.join(known)}"
    if key.text in entry.given:
        message = f"{key.text!r} is already given: {entry.given[key.text].text!r}"
        hint = f"remove it; its place in the document says its {key.text}"
    walker.problems.add(message, key, path=f"{entry.path}.{key.text}", hint=hint)


def _number(model: type[BaseModel], name: str, node: Node) -> int | None:
    """Read what pydantic does not: a hexadecimal or octal number where a number is wanted."""
    if isinstance(node, Scalar) and node.text[:2] in {"0x", "0o"} and node.plain and _is_number(model, name):
        try:
            return int(node.text, 0)
        except ValueError:
            return None
    return None


@lru_cache(maxsize=1024)
def _is_number(model: type[BaseModel], name: str) -> bool:
    return _mentions_int(model.model_fields[name].annotation)


def _mentions_int(annotation: Any) -> bool:
    if get_origin(annotation) in {Union, UnionType}:
        return any(_mentions_int(arg) for arg in get_args(annotation))
    return annotation is int or (get_origin(annotation) is Annotated and _mentions_int(get_args(annotation)[0]))


def _report(walker: Walker, entry: Entry, nodes: Mapping[str, Node], complaint: Complaint) -> None:
    at, path = entry.at, entry.path
    if complaint.loc:
        name = str(complaint.loc[0])
        at = nodes.get(name, entry.at)
        if name not in entry.given:
            path = f"{entry.path}.{name}"
        at, path = _descend(walker, at, complaint.loc[1:], path, on_key=complaint.on_key)
    walker.problems.add(complaint.message, at, path=path, hint=complaint.hint)


def _descend(walker: Walker, node: Node, loc: Loc, path: str, *, on_key: bool) -> tuple[Node, str]:
    key: Node = node
    for step in loc:
        if isinstance(node, MapNode):
            entries: Entries = walker.mapping(node, path)
            key, node = entries[str(step)]
            path = f"{path}.{step}"
        elif isinstance(node, ListNode) and isinstance(step, int):
            node = node.items[step]
            path = f"{path}[{step}]"
    return (key if on_key else node), path
