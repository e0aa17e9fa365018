"""What the controller of files observes of one path and what it can do there: one small class per action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controllers.drivers.files.disk import FileState

NAME = "file"
"""The controller's name, and so that of its scopes: ``file//etc/hosts``."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A path, the files its declarations copy from, and the accounts they name (None: there is no such account)."""

    path: str
    state: FileState
    owner: str
    sources: Mapping[str, FileState] = field(default_factory=dict)
    users: Mapping[str, int | None] = field(default_factory=dict)
    groups: Mapping[str, int | None] = field(default_factory=dict)
    knew: bool = False
    """True when this very inode was a file of ours before, whatever is in it now."""
    half_written: bool = False
    """Somebody is in the middle of writing it: what it says now is not what it will say."""
    service: str = ""
    """The unit that it is, or was a moment ago, a part of."""


@dataclass(frozen=True, slots=True)
class PutFile:
    """Make the whole file what it should be."""

    path: str
    content: bytes = field(repr=False)
    uid: int
    gid: int
    permissions: int
    mark: str


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Set owner and mode in place. `mark` '' for a file of somebody else."""

    path: str
    uid: int
    gid: int
    permissions: int
    mark: str = ""


@dataclass(frozen=True, slots=True)
class DeleteFile:
    path: str


@dataclass(frozen=True, slots=True)
class SetKey:
    """Give a key of an INI file these values, one line each; none takes it away."""

    path: str
    section: str
    key: str
    values: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SetBlock:
    path: str
    name: str
    comment: str
    text: str | None = field(repr=False)


Edit = SetKey | SetBlock
Action = PutFile | SetAttributes | DeleteFile | Edit
