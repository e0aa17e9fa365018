"""From bytes to a tree of nodes that know their line and column; YAML's own mistakes become problems.

libyaml's C parser gives events, and the tree is built from them here instead of by PyYAML's composer: that one
recurses in C (ten thousand brackets would kill the daemon), and resolves YAML 1.1 types, which turn `on` and
`10:20:30:40:50:10` into something nobody wrote. Scalars stay text; `desired.schema.check` says what a field wants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from desired.schema.problem import Place, Problems

MAX_DEPTH = 50
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TAGS = frozenset({"!"} | {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")})
_COLLECTION_TAGS = frozenset({"!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_ADVICE = {
    "mapping values are not allowed": "a ': ' inside a text needs quotes around the whole text; or the indentation "
    "of this line does not fit the line above",
    "cannot start any token": "indent with spaces, never with tabs; quote a text that begins with @ ` or %",
    "did not find expected key": "look at the indentation of this line and of the one above, and for a missing quote",
    "did not find expected '-' indicator": "a list's lines all begin with '- ' in the same column",
    "did not find expected ',' or": "a bracket or brace is not closed",
    "found unexpected end of stream": "a quote is not closed",
    "did not find expected node content": "a value is missing here, or a bracket is not closed",
    "could not find expected ':'": "a key needs ': ' after it",
    "block sequence entries are not allowed": "put the list on lines of its own below the key",
    "found unknown escape character": "in double quotes write \\\\ for a backslash, or use single quotes",
    "found unexpected ':'": "a ':' between brackets or braces needs a space after it, or quotes around the text",
    "control characters": "remove this character",
}


@dataclass(slots=True, eq=False)
class Scalar:
    """A text as it is written. `plain`: without quotes, so it may stand for null."""

    text: str
    plain: bool
    line: int
    column: int

    @property
    def null(self) -> bool:
        return self.plain and self.text in _NULLS


@dataclass(slots=True, eq=False)
class ListNode:
    line: int
    column: int
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class MapNode:
    line: int
    column: int
    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    entries: dict[str, tuple[Scalar, Node]] | None = None
    """The pairs by key, once `desired.schema.walk` has looked at them."""


Node = Scalar | ListNode | MapNode


@dataclass(frozen=True, slots=True)
class At:
    """A place where there is no node."""

    line: int
    column: int


def documents(raw: bytes, problems: Problems) -> Iterator[Node]:
    """Yield the documents of one file, up to its first YAML mistake, which is added to `problems`."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        at = At(before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1)
        problems.add(f"byte 0x{raw[error.start]:02x} is not UTF-8", at, hint="save the file as UTF-8")
        problems.complete = False
        return
    try:
        yield from _Builder(problems).documents(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        _add_marked(error, problems)
    except yaml.reader.ReaderError as error:
        before_text = text[: error.position]
        at = At(before_text.count("\n") + 1, len(before_text) - (before_text.rfind("\n") + 1) + 1)
        problems.add(f"not valid YAML: {error.reason}", at, hint=_advice(str(error.reason)))
    except _TooDeepError as error:
        problems.add(f"nested more than {MAX_DEPTH} levels deep", error.at, hint="no resource needs so many")
    else:
        return
    problems.complete = False


def _add_marked(error: yaml.MarkedYAMLError, problems: Problems) -> None:
    mark = error.problem_mark or error.context_mark
    at = At(mark.line + 1, mark.column + 1) if mark else At(1, 1)
    hint = _advice(str(error.problem))
    if error.context_mark is not None and error.context_mark.line + 1 != at.line:
        began = f"{error.context or 'in what'} that began at line {error.context_mark.line + 1}"
        hint = f"{hint}; {began}" if hint else began
    problems.add(f"not valid YAML: {error.problem}", at, hint=hint)


def _advice(problem: str) -> str:
    return next((advice for part, advice in _ADVICE.items() if part in problem), "")


class _TooDeepError(Exception):
    def __init__(self, at: At) -> None:
        super().__init__()
        self.at = at


@dataclass(slots=True)
class _Open:
    """A collection that is being built: the key that waits for its value, and the height of what is in it so far."""

    node: ListNode | MapNode
    anchor: str | None
    key: Node | None = None
    height: int = 0

    def attach(self, node: Node) -> None:
        if isinstance(self.node, ListNode):
            self.node.items.append(node)
        elif self.key is None:
            self.key = node
        else:
            self.node.pairs.append((self.key, node))
            self.key = None


class _Builder:
    """Builds nodes from parser events. Anchors live as long as a document; each knows the height of what it names."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._open: list[_Open] = []

    def documents(self, events: Iterator[Any]) -> Iterator[Node]:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                yield self._document(events)

    def _document(self, events: Iterator[Any]) -> Node:
        root: Node | None = None
        for event in events:
            kind = type(event)
            if kind is yaml.DocumentEndEvent:
                break
            if kind is yaml.SequenceEndEvent or kind is yaml.MappingEndEvent:
                self._close()
                continue
            node = self._node(event, kind)
            if self._open:
                self._open[-1].attach(node)
            else:
                root = node
            if kind is yaml.SequenceStartEvent or kind is yaml.MappingStartEvent:
                assert not isinstance(node, Scalar)
                self._check_depth(1, node)
                self._open.append(_Open(node, event.anchor))
        assert root is not None
        return root

    def _close(self) -> None:
        closed = self._open.pop()
        height = closed.height + 1
        if closed.anchor is not None:
            self._anchors[closed.anchor] = (closed.node, height)
        if self._open:
            self._open[-1].height = max(self._open[-1].height, height)

    def _check_depth(self, height: int, at: Place) -> None:
        if len(self._open) + height > MAX_DEPTH:
            raise _TooDeepError(At(at.line, at.column))

    def _node(self, event: Any, kind: type) -> Node:
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        if kind is yaml.AliasEvent:
            return self._alias(event.anchor, At(line, column))
        node: Node
        if kind is yaml.ScalarEvent:
            node = Scalar(event.value, event.implicit[0], line, column)
            if event.anchor is not None:
                self._anchors[event.anchor] = (node, 0)
        else:
            node = MapNode(line, column) if kind is yaml.MappingStartEvent else ListNode(line, column)
        if event.tag is not None and event.tag not in (_TAGS if kind is yaml.ScalarEvent else _COLLECTION_TAGS):
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            self._problems.spoil(f"the tag {tag} is not accepted", node, hint="remove it: values are plain YAML")
        return node

    def _alias(self, name: str, at: At) -> Node:
        if any(outer.anchor == name for outer in self._open):
            self._problems.spoil(f"*{name} stands inside what &{name} names: it would contain itself", at)
        elif name not in self._anchors:
            self._problems.spoil(f"*{name} names nothing: there is no &{name} above it in this document", at)
        else:
            node, height = self._anchors[name]
            self._check_depth(height, at)
            if self._open:
                self._open[-1].height = max(self._open[-1].height, height)
            return node
        return Scalar("", plain=True, line=at.line, column=at.column)
