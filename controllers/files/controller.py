"""The controller of files: joins the pure diff with the disk and the kernel's events. One scope per path."""

from __future__ import annotations

import asyncio
import grp
import hashlib
import pwd
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controllers.drivers.files import disk, marks
from controllers.drivers.files.disk import FileState, Kind, Wanted
from controllers.drivers.files.watcher import PathWatcher
from controllers.files import block, ini
from controllers.files.diff import diff
from controllers.files.state import NAME, Action, DeleteFile, Observed, PutFile, SetAttributes, SetBlock, SetKey
from desired.kinds.file import BlockSpec, FileSpec, InFile, IniSpec
from desired.resource import Resource, ResourceId, Spec
from reconciler.clock import SystemClock
from reconciler.contract import Change, Event, Focus, Group, GroupResult, Plan, Scope, View
from reconciler.errors import DriverError, ReconcilerError
from reconciler.logs import get_logger
from reconciler.stream import EventStream

BRIEF = 2.0
"""Seconds of drift after which a repaired file gets its old time of change back (see DESIGN.md)."""

log = get_logger("files")


@dataclass(slots=True)
class _Known:
    """What is kept of a path between passes: the last converged content, our inode, and what was declared."""

    digest: bytes = b""
    mtime_ns: int = 0
    inode: int = 0
    declared: frozenset[ResourceId] = frozenset()
    sources: frozenset[str] = frozenset()
    state: FileState | None = None
    service: str = ""


class FilesController:
    """`owner` is the owner string of this node; it is in the mark of every whole file of ours."""

    name = NAME
    specs: tuple[type[Spec], ...] = (FileSpec, BlockSpec, IniSpec)

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self.events = EventStream()
        self._watcher = PathWatcher(self._changed)
        self._known: dict[str, _Known] = {}
        self._copied: dict[str, set[str]] = {}
        self._left: set[str] | None = None
        self._searched: set[str] = set()

    @property
    def problem(self) -> str:
        """Why changes are not heard of, in words; '' when they are."""
        return self._watcher.problem

    def scope(self, resource: Resource) -> Scope:
        assert isinstance(resource.spec, InFile)
        return Scope(NAME, resource.spec.path)

    def scopes(self) -> Sequence[Scope]:
        """Where a whole file of ours is. Looked for once, below /etc, and beside every declared whole file."""
        if self._left is None:
            self._left = set(marks.find(self._owner))
        return [Scope(NAME, path) for path in sorted(self._left)]

    # -- the pass ---------------------------------------------------------------------------------------------------

    async def observe(self, view: View, focus: Focus) -> Observed:
        path = view.scope.name
        specs = [resource.spec for resource in view.resources.values()]
        known = self._known.setdefault(path, _Known())
        self._watcher.track(path)
        sources = frozenset(s.source for s in specs if isinstance(s, FileSpec | IniSpec) and s.source is not None)
        self._copy_from(path, known, sources)
        whole = not specs or any(isinstance(spec, FileSpec) and spec.whole for spec in specs)
        if whole:
            self._search(str(Path(path).parent))
        state = disk.read(path, follow=not whole)
        knew = state.signature is not None and state.signature.inode == known.inode
        self._remember(path, known, state, view)
        known.service = next((s.service or "" for s in specs if isinstance(s, FileSpec)), known.service)
        users = {s.owner for s in specs if isinstance(s, FileSpec) and s.owner is not None}
        groups = {s.group for s in specs if isinstance(s, FileSpec) and s.group is not None}
        return Observed(
            path,
            state,
            self._owner,
            {source: disk.read(source, follow=True) for source in sources},
            {name: _uid(name) for name in users},
            {name: _gid(name) for name in groups},
            knew,
            self._watcher.half_written(path),
            known.service,
        )

    def _search(self, directory: str) -> None:
        """Look once for what is left of us in a directory where something of ours is declared."""
        if directory in self._searched or f"{directory}/".startswith(f"{marks.SYSTEM}/"):
            return
        self._searched.add(directory)
        for path in marks.find(self._owner, directory, deep=False):
            if path not in self._known:
                self.events.put_nowait(Event(Scope(NAME, path), None, "a file of ours is there"))

    def _copy_from(self, path: str, known: _Known, sources: frozenset[str]) -> None:
        for source in sources - known.sources:
            self._copied.setdefault(source, set()).add(path)
        for source in known.sources - sources:
            users = self._copied[source]
            users.discard(path)
            if not users:
                del self._copied[source]
                if source not in self._known:
                    self._watcher.forget(source)
        for source in sources:
            self._watcher.track(source)
        known.sources = sources

    def _remember(self, path: str, known: _Known, state: FileState, view: View) -> None:
        declared = frozenset(view.resources)
        for rid in known.declared - declared:
            if rid.kind != FileSpec.kind:
                log.info("held_no_more", resource=str(rid), left="as it is")
        known.declared, known.state = declared, state
        ours = state.kind is Kind.REGULAR and marks.is_ours(state, self._owner)
        if self._left is not None and ours:
            self._left.add(path)
        elif self._left is not None:
            self._left.discard(path)
        if ours and state.signature is not None:
            known.inode = state.signature.inode
        if not view.resources and not ours:
            self._forget(path, known)

    def _forget(self, path: str, known: _Known) -> None:
        self._copy_from(path, known, frozenset())
        del self._known[path]
        if path not in self._copied:
            self._watcher.forget(path)

    def diff(self, view: View, observed: Any) -> Plan:
        plan = diff(view, observed)
        known = self._known.get(observed.path)
        signature = observed.state.signature
        if known is not None and not plan and signature is not None:
            known.digest, known.mtime_ns = _digest(observed.state.content), signature.mtime_ns
        return plan

    def focus_on(self, scope: Scope, resources: Collection[ResourceId]) -> Focus:
        return None

    def focus(self, changes: Sequence[Change]) -> Focus:
        return None

    async def act(self, scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
        loop = asyncio.get_running_loop()
        results = []
        for group in groups:
            started = loop.time()
            error: ReconcilerError | None = None
            try:
                await asyncio.to_thread(self._write, scope.name, [change.action for change in group.changes])
            except ReconcilerError as refused:
                error = refused
            results.append(GroupResult(group, error, seconds=loop.time() - started))
        return results

    def _write(self, path: str, actions: Sequence[Action]) -> None:
        """One replacement of the file for all edits. Runs in a thread; the scope is this pass's alone."""
        known = self._known.get(path, _Known())
        first = actions[0]
        state = disk.read(path, follow=not isinstance(first, PutFile | DeleteFile))
        if known.state is not None and state != known.state:
            raise DriverError(f"writing {path}: somebody else wrote it at the same moment; it is looked at again")
        text = edited = state.content
        for action in actions:
            match action:
                case DeleteFile():
                    disk.delete(state)
                case PutFile():
                    wanted = Wanted(
                        action.content,
                        action.uid,
                        action.gid,
                        action.permissions,
                        action.mark,
                        _old_time(known, state, action.content),
                    )
                    disk.replace(state, wanted)
                case SetAttributes():
                    bits = action.permissions
                    disk.set_attributes(state, action.uid, action.gid, bits, action.mark or None)
                    state = disk.read(path, follow=True)
                case SetKey() | SetBlock():
                    edited = _edited(edited, action)
        if edited != text:
            disk.replace(state, Wanted(edited, mtime_ns=_old_time(known, state, edited)))

    async def prove(self, scope: Scope) -> None:
        """A pass reads the file itself: there is nothing to prove."""

    # -- the stream -------------------------------------------------------------------------------------------------

    async def watch(self) -> AsyncIterator[Event]:
        self._watcher.listen()
        for path in self._known:
            self.events.put_nowait(Event(Scope(NAME, path), None, "files are watched"))
        try:
            while True:
                yield await self.events.get()
        finally:
            self._watcher.close()

    def _changed(self, path: str, why: str) -> None:
        paths = [path] if path else list(self._known)
        for one in paths:
            for user in {one, *self._copied.get(one, ())} & self._known.keys():
                self.events.put_nowait(Event(Scope(NAME, user), None, why))


def _edited(content: bytes, action: SetKey | SetBlock) -> bytes:
    text = content.decode("utf-8", "surrogateescape")
    match action:
        case SetKey():
            text = ini.edit(text, action.section, action.key, action.values)
        case SetBlock():
            text = block.edit(text, action.name, action.comment, action.text)
    return text.encode("utf-8", "surrogateescape")


def _old_time(known: _Known, state: FileState, content: bytes) -> int | None:
    """The time of change a file had before a brief drift, when it becomes again what it was; else None."""
    if state.signature is None or _digest(content) != known.digest:
        return None
    age = SystemClock().wall() - state.signature.mtime_ns / 1e9
    return known.mtime_ns if abs(age) < BRIEF else None


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _uid(name: str) -> int | None:
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _gid(name: str) -> int | None:
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
