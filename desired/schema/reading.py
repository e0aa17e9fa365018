"""One file of YAML: its documents, what they declare and for whom, and everything that is wrong in it.

Independent of the node, so that the result can be kept by the file's content (`desired.schema.tree` does).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field

from desired.resource import Mode, Origin, Resource, ResourceId, Spec
from desired.schema.check import Entry, Places, check, places
from desired.schema.problem import Problem, Problems, did_you_mean
from desired.schema.section import Claim, Section
from desired.schema.text import MapNode, Node, Scalar, documents
from desired.schema.walk import TooMuchError, Walker, shown

ANCHORS = "x-"
"""Top-level keys beginning with this are free: a place for anchors."""

_FOR_WHOM = 'like apply_to: {roles: [network], nodes: ["node-*"]}'


class ApplyTo(BaseModel):
    """For whom a document is. Every key that is given must match; a list matches if one of its entries does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: tuple[str, ...] | None = Field(None, min_length=1, description="Node names; * ? [] as in a shell.")
    roles: tuple[str, ...] | None = Field(None, min_length=1, description="Roles, as in the node's settings.")

    def matches(self, node: str, roles: frozenset[str]) -> bool:
        by_name = self.nodes is None or any(fnmatchcase(node, glob) for glob in self.nodes)
        return by_name and (self.roles is None or not roles.isdisjoint(self.roles))


class DocumentMode(BaseModel):
    """The one scalar setting of a document."""

    model_config = ConfigDict(frozen=True)

    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True)
class Declared:
    """A resource and the names it claims among the resources of a node; `places` if its section is judged whole."""

    resource: Resource
    claims: tuple[Claim, ...] = ()
    places: Places | None = None


Unread = Mapping[ResourceId, Mapping[str, str]]
"""What is declared with a mistake: its name, and those of its fields that are plain texts."""


@dataclass(frozen=True, slots=True)
class Document:
    """What one document declares. `apply_to` None means every node."""

    apply_to: ApplyTo | None
    declared: tuple[Declared, ...]
    unread: Unread = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileContent:
    """What one file declares. `complete` is False when documents may be missing or it is unclear for whom one is;
    `hiding` is True when more than what is `unread` may be missing.
    """

    documents: tuple[Document, ...] = ()
    problems: tuple[Problem, ...] = ()
    complete: bool = True
    hiding: bool = False


def read_file(raw: bytes, file: str, sections: Sequence[Section]) -> FileContent:
    """Read one file's bytes. Never raises for what is in them."""
    problems = Problems(file)
    reader = _Reader(Walker(problems, len(raw)), sections)
    found: list[Document] = []
    for root in documents(raw, problems):
        try:
            document = reader.document(root)
        except TooMuchError:
            problems.add("aliases in this document expand to more than a million entries", root)
            document = None
        if document is not None:
            found.append(document)
        elif not (isinstance(root, Scalar) and root.null):
            problems.complete = False
    return FileContent(tuple(found), problems.all(), problems.complete, problems.hiding)


class _Reader:
    """Reads the documents of one file."""

    def __init__(self, walker: Walker, sections: Sequence[Section]) -> None:
        self._walker = walker
        self._problems = walker.problems
        self._sections = {section.name: section for section in sections}

    def document(self, root: Node) -> Document | None:
        """Return what a document declares; None when it is empty, or when it is unclear for whom it is."""
        if not isinstance(root, MapNode):
            if not (isinstance(root, Scalar) and root.null):
                known = ", ".join(self._sections)
                message = f"a document must be a mapping of sections, not {shown(root)}"
                self._problems.add(message, root, hint=f"sections are {known}")
            return None
        top = self._walker.mapping(root, "")
        self._unknown(tuple(key for key, _ in top.values()))
        apply_to, clear = None, True
        if "apply_to" in top:
            key, node = top["apply_to"]
            apply_to = check(self._walker, ApplyTo, Entry(Spec, key, "apply_to", body=node, hint=_FOR_WHOM), {})
            clear = apply_to is not None
        defaults = {}
        if "mode" in top:
            key, node = top["mode"]
            given = {"mode": node} if isinstance(node, Scalar) else {}
            if not given:
                self._problems.add(f"mode must be enforce or observe, not {shown(node)}", node, path="mode")
            mode = check(self._walker, DocumentMode, Entry(Spec, key, "mode", given=given), {})
            defaults = {"mode": mode.mode.value} if mode is not None and given else {}
        unread: dict[ResourceId, Mapping[str, str]] = {}
        declared = tuple(
            one
            for name, section in self._sections.items()
            if name in top
            for one in self._declared(section, top[name][1], defaults, unread)
        )
        return Document(apply_to, declared, unread) if clear else None

    def _unknown(self, keys: tuple[Scalar, ...]) -> None:
        known = [*self._sections, "apply_to", "mode"]
        for key in keys:
            if key.text not in known and not key.text.startswith(ANCHORS):
                hint = did_you_mean(key.text, known) or f"known here: {', '.join(known)}, and x-… for anchors"
                self._problems.add(f"unknown section {key.text!r}", key, path=key.text, hint=hint)

    def _declared(
        self, section: Section, node: Node, defaults: dict[str, str], unread: dict[ResourceId, Mapping[str, str]]
    ) -> Iterator[Declared]:
        file = self._problems.file
        for entry in section.entries(self._walker, node):
            hiding = self._problems.hiding
            told = entry.body is not None and self._problems.spoilt(entry.body)
            spec = None if told else check(self._walker, entry.spec, entry, defaults)
            if spec is None:
                self._problems.hiding = hiding  # it hides itself, and that is known by its name
                unread[ResourceId(entry.spec.kind, entry.name)] = _plainly(entry)
            else:
                name = section.resource_name(entry, spec)
                origin = Origin("files", file, entry.at.line, entry.at.column, entry.path)
                resource = Resource(ResourceId(spec.kind, name), spec, origin, spec.generation())
                where = places(entry) if section.judged_whole else None
                yield Declared(resource, tuple(section.claims(name, spec)), where)


def _plainly(entry: Entry) -> Mapping[str, str]:
    entries = entry.body.entries if isinstance(entry.body, MapNode) else None
    texts = {name: node.text for name, (_, node) in (entries or {}).items() if isinstance(node, Scalar)}
    return {**texts, **{name: scalar.text for name, scalar in entry.given.items()}}
