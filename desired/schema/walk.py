"""Walking a document's nodes: mappings with their duplicate keys found and `<<` merged, lists, plain values.

A walk is bounded: aliases can make a small file mean a huge tree (the "billion laughs"), so the entries that are
visited are counted against the size of the file. `desired.schema.section` and `desired.schema.check` walk with this.
"""

from __future__ import annotations

from typing import Any

from desired.schema.problem import Problems
from desired.schema.text import ListNode, MapNode, Node, Scalar
from desired.schema.words import text_shown

Entries = dict[str, tuple[Scalar, Node]]
"""Key text to key node and value node, in the order of the file."""

_VISITS = 1_000_000


class TooMuchError(Exception):
    """Aliases expand to more entries than any node could have."""


class Walker:
    """Reads nodes of one file and adds what is wrong to `problems`."""

    def __init__(self, problems: Problems, size: int) -> None:
        self.problems = problems
        self._left = _VISITS + size

    def mapping(self, node: Node, path: str, *, hint: str = "") -> Entries:
        """Return the entries of a mapping; of anything else a problem and nothing. Null is an empty mapping."""
        if isinstance(node, MapNode):
            if node.entries is None:
                node.entries = self._entries(node, path)
            self._spend(len(node.entries))
            return node.entries
        if not (isinstance(node, Scalar) and node.null):
            self.problems.add(f"must be a mapping, not {shown(node)}", node, path=path, hint=hint)
        return {}

    def items(self, node: Node, path: str, *, hint: str = "") -> list[Node]:
        """Return the items of a list; of anything else a problem and nothing. Null is an empty list."""
        if isinstance(node, ListNode):
            self._spend(len(node.items))
            return node.items
        if not (isinstance(node, Scalar) and node.null):
            self.problems.add(f"must be a list, not {shown(node)}", node, path=path, hint=hint)
        return []

    def value(self, node: Node, path: str) -> Any:
        """Return text, None, list or dict. A dict's keys are sorted, so that their order is no change of intent."""
        if isinstance(node, Scalar):
            return None if node.null else node.text
        if isinstance(node, ListNode):
            return [self.value(item, f"{path}[{index}]") for index, item in enumerate(self.items(node, path))]
        entries = self.mapping(node, path)
        return {key: self.value(entries[key][1], f"{path}.{key}") for key in sorted(entries)}

    def _spend(self, entries: int) -> None:
        self._left -= entries
        if self._left < 0:
            raise TooMuchError

    def _entries(self, node: MapNode, path: str) -> Entries:
        own: Entries = {}
        merged: Entries = {}
        for key, value in node.pairs:
            if not isinstance(key, Scalar):
                self.problems.add(f"a key must be a text, not {shown(key)}", key, path=path)
            elif key.plain and key.text == "<<":
                self._merge(merged, value, path)
            elif key.text in own:
                first = own[key.text][0]
                message = f"{key.text!r} is written twice in one mapping, first at line {first.line}"
                hint = "keep one of them" if first.line == key.line else f"keep line {first.line} or line {key.line}"
                at = f"{path}.{key.text}" if path else key.text
                self.problems.add(message, key, path=at, hint=hint, hides=False)
            else:
                own[key.text] = (key, value)
        return {**merged, **own} if merged else own

    def _merge(self, merged: Entries, value: Node, path: str) -> None:
        """YAML's merge key: earlier sources win over later ones, a mapping's own keys over all."""
        for source in value.items if isinstance(value, ListNode) else [value]:
            if not isinstance(source, MapNode):
                self.problems.add(f"'<<' takes a mapping or a list of them, not {shown(source)}", source, path=path)
                continue
            for key, entry in self.mapping(source, path).items():
                merged.setdefault(key, entry)


def shown(node: Node) -> str:
    """Say what a node is: its text, shortened, or that it is a list or a mapping."""
    if isinstance(node, Scalar):
        if node.null:
            return "nothing"
        return text_shown(node.text)
    return "a list" if isinstance(node, ListNode) else "a mapping"
