"""The words every floor shares: what a declared thing is called, where it was declared, and its spec.

Nothing here knows a particular kind. `desired.kinds.*` derive from `Spec`; `desired.schema` builds `Resource`s from
YAML; everything above refers to a resource by its `ResourceId` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class ResourceId(NamedTuple):
    """Identity of a resource: its kind and a name unique within the kind on one node, e.g. ``port/patch-tun``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> ResourceId:
        """Read ``KIND/NAME`` (the name may contain slashes). Raises ValueError when there is no name."""
        kind, slash, name = text.partition("/")
        if not (kind and slash and name):
            raise ValueError(f"{text!r} is not KIND/NAME, as in port/patch-tun")
        return cls(kind, name)


class Mode(StrEnum):
    """`enforce` repairs drift; `observe` shows it and withholds every action."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a thing was declared. Lines and columns count from 1; `path` is the place in the document."""

    source: str
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.file else self.source


class Spec(BaseModel):
    """Base of every kind's spec: what a user may write, checked at the boundary and frozen afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    kind: ClassVar[str]
    word: ClassVar[str] = ""
    """What an operator calls one, where that is not the kind."""

    adopt: bool = Field(default=False, description="Take over a thing of this name that carries no mark of ours.")
    mode: Mode = Field(default=Mode.ENFORCE, description="'observe' shows drift of this resource and never repairs it.")

    @classmethod
    def called(cls) -> str:
        return cls.word or cls.kind.replace("_", " ")

    def refs(self) -> tuple[ResourceId, ...]:
        """What must be there before this can be: creation follows these, deletion goes the other way."""
        return ()

    def generation(self) -> int:
        """63-bit hash of the intent: it changes exactly when what was declared changes. Never from rendered text."""
        digest = hashlib.blake2b(self.model_dump_json().encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True, slots=True)
class Resource:
    """One declared thing of one node."""

    id: ResourceId
    spec: Spec
    origin: Origin
    generation: int

    @property
    def source(self) -> str:
        return self.origin.source

    @property
    def called(self) -> str:
        """What an operator calls it, as in ``port 'vm1'``."""
        word = self.spec.called()
        return word if word == self.id.name else f"{word} {self.id.name!r}"


Resources = Mapping[ResourceId, Resource]


@dataclass(frozen=True, slots=True)
class Difference:
    """What was put into a set of resources, or took the place of what had its id there; and what went out of it."""

    put: tuple[Resource, ...] = ()
    gone: tuple[ResourceId, ...] = ()


def copied(resources: Resources) -> dict[ResourceId, Resource]:
    """A copy to change. (Of a read-only view `dict` would copy item by item, ten times as long.)"""
    return resources.copy() if isinstance(resources, MappingProxyType) else dict(resources)
