"""Which paths changed: every directory on the way to a path is watched for as much as is needed to hear of it.

A path that is a link is heard of at the link and at what it points to; a path whose directory is missing is heard of
when that directory appears. `changed(path, why)` may be spurious; path '' when events were lost, which means all.
"""
# ruff: noqa: PTH112, PTH114, PTH115, PTH118, PTH120 - plain strings, which are what inotify's names are compared with

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from controllers.drivers.files.inotify import ATTRIB, CREATE, IS_DIRECTORY, MODIFY, Inotify
from reconciler.errors import DriverError

_LINKS = 8
HALF_WRITTEN = 2.0
"""Seconds after its last write for which a file that was not closed counts as half written."""


class PathWatcher:
    """One per process and kind of use. `track` before reading a path, so that no change after the reading is missed."""

    def __init__(self, changed: Callable[[str, str], None]) -> None:
        self._changed = changed
        self._inotify: Inotify | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._paths: dict[str, frozenset[tuple[str, str]]] = {}
        self._names: dict[tuple[str, str], set[str]] = {}
        self._used: dict[str, int] = {}
        self._writing: dict[str, float] = {}
        self.problem = ""
        """Why changes are not heard of, in words; '' when they are."""

    def listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._inotify is not None:
            self._inotify.listen(self._loop)

    def close(self) -> None:
        """Forget everything."""
        self._loop = None
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._paths.clear()
        self._names.clear()
        self._used.clear()
        self._writing.clear()

    def track(self, path: str) -> None:
        """Hear of `path` from now on. What cannot be watched is said in `problem`, and held by the resync."""
        if path not in self._paths:
            self._follow(path)

    def half_written(self, path: str) -> bool:
        """Is somebody in the middle of writing it, in place? Asked after reading it; its end is an event."""
        if self._inotify is not None:
            self._inotify.drain()
        since = self._writing.get(path)
        return since is not None and asyncio.get_running_loop().time() - since < HALF_WRITTEN

    def forget(self, path: str) -> None:
        self._writing.pop(path, None)
        for place in self._paths.pop(path, ()):
            self._unuse(path, place)

    def _follow(self, path: str) -> None:
        """(Re)compute where `path` is to be heard of."""
        if self._inotify is None:
            self._inotify = Inotify(self._heard)
            if self._loop is not None:
                self._inotify.listen(self._loop)
        old = self._paths.get(path, frozenset())
        try:
            new = self._places(self._inotify, path)
        except DriverError as error:
            self.problem = str(error)
            new = old
        else:
            self.problem = ""
        for place in new - old:
            self._names.setdefault(place, set()).add(path)
            self._used[place[0]] = self._used.get(place[0], 0) + 1
        for place in old - new:
            self._unuse(path, place)
        self._paths[path] = new

    def _still(self, path: str, directory: str, name: str) -> bool:
        """Is `path` this very name in this directory, and no link: is there nowhere else to hear of it?"""
        plain = path == os.path.join(directory, name) and self._paths.get(path) == frozenset({(directory, name)})
        return plain and not os.path.islink(path)

    def _unuse(self, path: str, place: tuple[str, str]) -> None:
        users = self._names.get(place)
        if users is None or path not in users:
            return
        users.discard(path)
        if not users:
            del self._names[place]
        left = self._used[place[0]] = self._used[place[0]] - 1
        if left == 0:
            del self._used[place[0]]
            if self._inotify is not None:
                self._inotify.remove(place[0])

    @staticmethod
    def _places(inotify: Inotify, path: str) -> frozenset[tuple[str, str]]:
        """(directory, name) pairs whose change means that `path` may have changed. Watched before they are read."""
        found: set[tuple[str, str]] = set()
        for _ in range(_LINKS):
            found.add(_heard_at(inotify, path))
            try:
                target = os.readlink(path)
            except OSError:  # no link, or nothing there
                break
            path = os.path.normpath(os.path.join(os.path.realpath(os.path.dirname(path)), target))
        return frozenset(found)

    def _note_writing(self, directory: str, name: str, mask: int) -> None:
        """From its making or its first write until it is closed or replaced, a file is half written."""
        for path in self._names.get((directory, name), ()):
            if mask & MODIFY or (mask & CREATE and not mask & IS_DIRECTORY):
                self._writing[path] = asyncio.get_running_loop().time()
            elif not mask & ATTRIB:
                self._writing.pop(path, None)

    def _heard(self, directory: str, name: str, mask: int) -> None:
        self._note_writing(directory, name, mask)
        if mask & MODIFY:
            return  # its end is the event
        if not directory:
            for path in list(self._paths):
                self._follow(path)
            self._changed("", "events of files were lost")
            return
        if name:
            paths = sorted(self._names.get((directory, name), ()))
        else:  # the directory went away, so whatever is below it may have
            paths = sorted({path for place, users in self._names.items() if place[0] == directory for path in users})
        for path in paths:
            if not self._still(path, directory, name):
                self._follow(path)
            self._changed(path, f"{path} changed" if name else f"{directory} went away")


def _heard_at(inotify: Inotify, path: str) -> tuple[str, str]:
    """The nearest directory that is there, watched, and the name in it that leads to `path`."""
    while True:
        directory, name = os.path.split(path)
        directory = wanted = os.path.realpath(directory)
        while not inotify.add(directory):
            directory, name = os.path.split(directory)
        if directory == wanted or not os.path.isdir(os.path.join(directory, name)):
            return directory, name
