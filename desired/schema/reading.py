"""One file of YAML: its documents, what they declare and for whom, and everything that is wrong in it.

Independent of the node, so that the result can be kept by the file's content (`desired.schema.tree` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field

from desired.resource import Mode, Origin, Resource, ResourceId
from desired.schema.check import check
from desired.schema.entry import Entry
from desired.schema.problem import Problem, Problems, did_you_mean
from desired.schema.section import Claim, Section
from desired.schema.text import MapNode, Node, Scalar, documents
from desired.schema.walk import TooMuchError, Walker, shown

ANCHORS = "x-"
"""Top-level keys beginning with this are free: a place for anchors."""


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
    """A resource and the names it claims among the resources of a node."""

    resource: Resource
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """What one document declares. `apply_to` None means every node."""

    apply_to: ApplyTo | None
    declared: tuple[Declared, ...]


@dataclass(frozen=True, slots=True)
class FileContent:
    """What one file declares. `complete` is False when documents may be missing or it is unclear for whom one is."""

    documents: tuple[Document, ...] = ()
    problems: tuple[Problem, ...] = ()
    complete: bool = True


def read_file(raw: bytes, file: str, sections: Sequence[Section]) -> FileContent:
    """Read one file's bytes. Never raises for what is in them."""
    problems = Problems(file)
    reader = _Reader(Walker(problems, len(raw)), file, sections)
    found: list[Document] = []
    complete = True
    roots = documents(raw, problems)
    for root in roots:
        if isinstance(root, Scalar) and root.null:
            continue
        try:
            document = reader.document(root)
        except TooMuchError:
            problems.add("aliases in this document expand to more than a million entries", root)
            document = None
        if document is None:
            complete = False
        else:
            found.append(document)
    return FileContent(tuple(found), problems.all(), complete and roots_ended(problems))
