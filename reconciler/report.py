"""What the doors may ask of a node and the data they get back. `reconciler.node` answers; the doors only print.

Everything here is plain data: the same for a running daemon (over the control socket) and for `--once` in one process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from desired.resource import ResourceId
from reconciler.contract import Outcome, PassRecord, ResourceStatus


class ExitCode(IntEnum):
    """The same for all verbs."""

    CONVERGED = 0
    FAILED = 1
    CHANGES = 2
    WITHHELD = 3
    CONFLICT = 4
    UNREACHABLE = 5
    USAGE = 64


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the YAML, or one thing wrong with the node. `hint` says what would be right."""

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """A stop that a person ordered. `what` is "node", a kind ("flow") or a resource ("flow/br-int/…").

    `at` and `until` are wall-clock seconds; `until` None means until `resume`.
    """

    what: str
    reason: str
    at: float
    until: float | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """Deletes that wait for `reconcile approve`. Of those `wanted`, `recent` were done in the last ten minutes."""

    revision: str
    kind: str
    wanted: int
    allowed: int
    owned: int
    resources: tuple[str, ...] = ()
    recent: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """One event stream or source: is it listening, and when did it last say something (wall seconds).

    `lost` is how often it broke off since the start.
    """

    name: str
    ready: bool
    detail: str = ""
    last_event: float | None = None
    lost: int = 0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The whole node at a glance. `outcome` is the worst of all resources; `exit_code` what `status` exits with."""

    node: str
    version: str
    pid: int
    started: float
    revision: str
    outcome: Outcome
    exit_code: int
    resources: Mapping[str, int] = field(default_factory=dict)
    """How many resources of each kind are declared."""
    not_right: Sequence[ResourceStatus] = ()
    config_problems: Sequence[Problem] = ()
    pauses: Sequence[Pause] = ()
    budgets: Sequence[Budget] = ()
    streams: Sequence[Stream] = ()
    notices: Sequence[str] = ()
    """Sentences about the node itself: the store is read-only, flow-restore-wait is set, …"""
    last_converged: float | None = None
    store: str = ""


@dataclass(frozen=True, slots=True)
class OnceResult:
    """What `--once`, `plan` or `--dry-run` did or would do. `passes` only has passes that found something."""

    outcome: Outcome
    exit_code: int
    passes: Sequence[PassRecord] = ()
    not_right: Sequence[ResourceStatus] = ()
    config_problems: Sequence[Problem] = ()
    budgets: Sequence[Budget] = ()
    seconds: float = 0.0
    timed_out: bool = False
    revision: str = ""


@dataclass(frozen=True, slots=True)
class DeclaredRow:
    """A declared thing as a door needs it: `spec` is JSON, secrets hidden; then its origin."""

    resource: ResourceId
    spec: str
    source: str
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True)
class Declared:
    """What this node holds and what it was made of: its resources, the network model, and local VLANs by network id."""

    node: str
    resources: Sequence[DeclaredRow] = ()
    objects: Sequence[DeclaredRow] = ()
    vlans: Mapping[str, int] = field(default_factory=dict)


class Node(Protocol):
    """What doors may ask. `only` is KIND or KIND/NAME, None for everything."""

    def status(self) -> NodeStatus: ...

    async def once(self, *, only: str | None, dry_run: bool, timeout: float) -> OnceResult:
        """Passes until nothing changes or `timeout` seconds. Raises ConfigError when `only` names no kind."""
        ...

    async def approve(self, revision: str | None) -> Sequence[Budget]:
        """Let the withheld deletes of `revision` (default: the current one) through; returns what was let through."""
        ...

    async def pause(self, what: str, *, reason: str, seconds: float | None, by: str) -> Pause: ...

    async def resume(self, what: str, *, by: str) -> Sequence[Pause]:
        """Returns the pauses that ended. `what` = "all" ends every one."""
        ...

    async def history(self, *, resource: str | None, since: float | None, limit: int) -> Sequence[PassRecord]:
        """Newest first, from the store (from memory when the store does not answer)."""
        ...

    def declared(self) -> Declared:
        """The desired state in force, with the network model behind it."""
        ...

    def events(self) -> AsyncIterator[PassRecord]:
        """Every pass that found something, live, from now on."""
        ...

    def set_log_level(self, level: str) -> str:
        """Returns the level before. Raises ConfigError for a level that does not exist."""
        ...

    def healthy(self) -> tuple[bool, str]:
        """Worker progress: (True, "") or (False, what is stuck)."""
        ...

    def ready(self) -> tuple[bool, str]:
        """(True, "") once every scope has had its first full pass, else what is waited for."""
        ...
