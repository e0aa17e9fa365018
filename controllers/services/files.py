"""The files of units: which there are, which changes are heard, and what a run has read of them.

Unit files and drop-ins of ours, and what `restart_on` and `reload_on` name. What a run has read is remembered at its
cgroup, so that it outlives the daemon and ends with the run (`DESIGN.md`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from controllers.drivers.files import disk, marks
from controllers.drivers.files.disk import FileState, Kind
from controllers.drivers.files.watcher import PathWatcher
from controllers.drivers.systemd import runs
from controllers.drivers.systemd.runs import Reading
from controllers.drivers.systemd.units import UnitState
from controllers.services.kept import Kept
from controllers.services.state import UNITS
from desired.kinds.service import ServiceSpec
from reconciler.errors import DriverError


class UnitFiles:
    """`on_change(unit, why)` is called for each unit that is concerned by a change."""

    def __init__(self, owner: str, on_change: Callable[[str, str], None]) -> None:
        self._owner = owner
        self._on_change = on_change
        self._watcher = PathWatcher(self._changed)
        self._users: dict[str, set[str]] = {}
        self._left: set[str] | None = None

    def listen(self) -> None:
        self._watcher.listen()

    def close(self) -> None:
        self._watcher.close()

    def left(self) -> list[str]:
        """Units of which a file is ours. Looked for once; afterwards they are known."""
        if self._left is None:
            self._left = {_unit_of(path) for path in marks.find(self._owner, UNITS)}
        return sorted(self._left)

    def is_ours(self, state: FileState) -> bool:
        return marks.is_ours(state, self._owner)

    def track(self, name: str, kept: Kept, spec: ServiceSpec | None) -> None:
        """Hear of our unit files and of what the unit restarts with."""
        wanted = {f"{UNITS}/{name}", f"{UNITS}/{name}.d"}
        if spec is not None:
            dropins = (f"{UNITS}/{name}.d/{dropin}.conf" for dropin in spec.dropins)
            kept.depends = frozenset({*spec.restart_on, *dropins, *([f"{UNITS}/{name}"] if spec.unit else [])})
            kept.reloads = frozenset(spec.reload_on)
            wanted |= kept.depends | kept.reloads
        for path in wanted - kept.paths:
            self._users.setdefault(path, set()).add(name)
        for path in wanted:
            self._watcher.track(path)
        for path in kept.paths - wanted:
            self._unuse(path, name)
        kept.paths = frozenset(wanted)

    def forget(self, name: str, kept: Kept) -> None:
        for path in kept.paths:
            self._unuse(path, name)
        if self._left is not None:
            self._left.discard(name)

    def read(self, name: str, spec: ServiceSpec | None) -> dict[str, FileState]:
        """Our unit file and drop-ins, those declared and those that are left."""
        paths = {f"{UNITS}/{name}"}
        directory = Path(f"{UNITS}/{name}.d")
        if directory.is_dir():
            paths |= {str(path) for path in directory.iterdir() if path.suffix == ".conf"}
        declared = {f"{directory}/{dropin}.conf" for dropin in spec.dropins} if spec is not None else set()
        found = {path: disk.read(path, follow=False) for path in paths | declared}
        if self._left is not None and any(self.is_ours(state) for state in found.values()):
            self._left.add(name)
        return {path: state for path, state in found.items() if state.kind is not Kind.MISSING}

    def _unuse(self, path: str, name: str) -> None:
        users = self._users.get(path, set())
        users.discard(name)
        if not users:
            self._users.pop(path, None)
            self._watcher.forget(path)

    def _changed(self, path: str, why: str) -> None:
        """Of '' nobody knows which file it was: all are concerned."""
        for name in sorted(self._users.get(path, set()) if path else set().union(*self._users.values())):
            self._on_change(name, why)


# -- what a run has read ---------------------------------------------------------------------------------------------


def newest(kept: Kept, unit: UnitState) -> tuple[float, str]:
    """The latest time of change of what a restart depends on; what is again as this run has read it is none."""
    latest, now = _digested(kept.depends)
    if not unit.started or not kept.depends:
        return latest
    if latest[0] <= unit.started:
        if kept.loaded != (unit.started, now):
            kept.loaded = (unit.started, now)
            runs.remember(unit.control_group, unit.started, now)
        return latest
    known = kept.loaded[1] if kept.loaded[0] == unit.started else runs.recall(unit.control_group, unit.started)
    return (0.0, "") if known == now else latest


def unread(kept: Kept, unit: UnitState) -> tuple[str, str]:
    """A file of `reload_on` that this run has not read as it is now, and the digest of all of them."""
    if not kept.reloads:
        return "", ""
    (changed, path), now = _digested(kept.reloads)
    known = kept.reloaded[1] if kept.reloaded[0] == unit.started else ""
    known = known or runs.recall(unit.control_group, unit.started, Reading.AT_RELOAD)
    if known != now and changed > unit.started:
        return path, now
    if kept.reloaded != (unit.started, now):
        has_read(kept, unit, now)
    return "", ""


def has_read(kept: Kept, unit: UnitState, digest: str) -> None:
    """Remember that this run has read the files of `reload_on` when they had this digest."""
    kept.reloaded = (unit.started, digest)
    runs.remember(unit.control_group, unit.started, digest, Reading.AT_RELOAD)


def _digested(paths: frozenset[str]) -> tuple[tuple[float, str], str]:
    """The latest time of change of files, with its path, and a digest of them all."""
    latest, digest = (0.0, ""), hashlib.blake2b(digest_size=12)
    for path in sorted(paths):
        try:
            state = disk.read(path, follow=True)
        except DriverError:
            continue  # what cannot be read is no reason for a restart; the kind that holds it says so
        digest.update(f"{path}\0{len(state.content)}\0".encode() + state.content)
        if state.signature is not None:
            latest = max(latest, (state.signature.mtime_ns / 1e9, path))
    return latest, digest.hexdigest()


def _unit_of(path: str) -> str:
    """The unit that a unit file or drop-in is of."""
    parent = Path(path).parent
    return parent.name.removesuffix(".d") if parent.suffix == ".d" else Path(path).name
