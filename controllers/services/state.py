"""What the controller of services observes of one unit, and the steps it can take: one small class each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controllers.drivers.files.disk import FileState
from controllers.drivers.netlink.whereabouts import Place
from controllers.drivers.systemd.units import UnitState

NAME = "service"
UNITS = "/etc/systemd/system"


@dataclass(frozen=True, slots=True)
class Health:
    """What the checks said since the present start. `ok` None: not asked yet. `failed` counts failures in a row."""

    ok: bool | None = None
    words: str = ""
    failed: int = 0
    passed: bool = False
    """True when all checks succeeded once since the present start."""


@dataclass(frozen=True, slots=True)
class Tries:
    """Starts of ours after which it did not come to work. `next_at` is when the next is due (monotonic seconds)."""

    vain: int = 0
    next_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Fitness:
    """Whether another unit works; `hopeless` when nothing is tried any more."""

    works: bool
    why: str = ""
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """One unit. `files` are our unit file and drop-ins, declared or left; `newest` is what a restart depends on."""

    unit: UnitState
    owner: str
    now: float
    wall: float
    files: Mapping[str, FileState] = field(default_factory=dict)
    newest: tuple[float, str] = (0.0, "")
    unread: tuple[str, str] = ("", "")
    """Of what a reload reads again, a file that this run has not read as it is; and the digest of all of them."""
    place: Place | None = None
    """Where it runs, compared with the namespace that it is to be in; None when that is no matter."""
    others: Mapping[str, Fitness] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    tries: Tries = field(default_factory=Tries)
    chosen: str = ""
    """Of its `one_of`, the unit that is to run; '' without."""
    before: tuple[str, ...] = ()
    """What comes before it in its group, in order; each is in `others`."""
    said: str = ""
    """The last lines of its journal, when it was given up."""
    namespace: str = ""
    """That it is, or was a moment ago, to be in."""


@dataclass(frozen=True, slots=True)
class WriteFile:
    path: str
    content: bytes = field(repr=False)
    mark: str


@dataclass(frozen=True, slots=True)
class RemoveFile:
    path: str


@dataclass(frozen=True, slots=True)
class Reload:
    """daemon-reload."""


@dataclass(frozen=True, slots=True)
class Load:
    """Have systemd read the file of a unit that it did not know. Where it does not find it, daemon-reload."""


@dataclass(frozen=True, slots=True)
class Mask:
    pass


@dataclass(frozen=True, slots=True)
class Unmask:
    pass


@dataclass(frozen=True, slots=True)
class Enable:
    pass


@dataclass(frozen=True, slots=True)
class Disable:
    pass


@dataclass(frozen=True, slots=True)
class Start:
    """systemd's own limit of starts is reset first: how often is ours to say."""


@dataclass(frozen=True, slots=True)
class Stop:
    pass


@dataclass(frozen=True, slots=True)
class Restart:
    """`fault`: because its checks fail, which is counted; else because a file has changed."""

    fault: bool


@dataclass(frozen=True, slots=True)
class ReloadUnit:
    """Have it read its files again, which have this digest."""

    digest: str


Step = WriteFile | RemoveFile | Load | Reload | Mask | Unmask | Enable | Disable | Start | Stop | Restart | ReloadUnit


@dataclass(frozen=True, slots=True)
class Apply:
    """The steps for one unit, in order."""

    unit: str
    steps: tuple[Step, ...]
