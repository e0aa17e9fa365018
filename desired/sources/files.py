"""The source that most nodes have: a directory of YAML, loaded off the loop and loaded again when it changes.

`watch` is fed by watchfiles and kept honest by a poll of what the files look like (time, size, inode): a directory
that appears later, a tree exchanged by a rename or a link, a network file system, a watch that died silently. A
change that the poll sees first proves that the watch is not listening to this tree, and starts it anew.
Used by the composition root; what is to become of a `Loaded` with problems is decided there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import watchfiles

from desired.network.load import load
from desired.schema import Cache, Loaded, Problem, Section, find_files

Signature = tuple[tuple[str, int, int, int], ...]
"""What each file looks like from outside: path, mtime in ns, size, inode."""

_POLL = 0.5
"""Seconds between two polls of a small tree: with `quiet` and a load, a change is in effect within a second."""

_POLL_SHARE = 500
"""A poll that takes t seconds is followed by at least t times this: large trees cost at most 0.2 % of a core."""

_PATIENCE = 10
"""Wait for quiet at most this many times `quiet`: a file that is written all the time must not hide the others."""

_STEP_MS = 200
"""How often watchfiles' thread gathers what inotify said; it wakes as often when nothing happens."""

_RESTART = 1.0
"""Seconds from a watch that ended to the next."""

_STOP = 5.0
"""Seconds to wait for a watch to end."""


class FilesSource:
    """Loads and watches one directory for one node. `quiet` is in seconds."""

    name = "files"

    def __init__(
        self,
        directory: str | Path,
        *,
        node: str,
        roles: frozenset[str],
        sections: Sequence[Section],
        quiet: float = 0.2,
    ) -> None:
        self.directory = Path(directory)
        self._node = node
        self._roles = roles
        self._sections = tuple(sections)
        self._quiet = quiet
        self._cache = Cache()
        self._loading = asyncio.Lock()
        self._watch: _Watch | None = None

    @property
    def detail(self) -> str:
        """What is wrong with watching, for `status`; empty when nothing is."""
        return self._watch.detail if self._watch is not None else "not watched"

    async def load(self) -> Loaded:
        """Load the tree as it is now, in a thread. Nothing is raised for what is in it."""
        async with self._loading:
            return await asyncio.to_thread(
                load,
                self.directory,
                node=self._node,
                roles=self._roles,
                sections=self._sections,
                cache=self._cache,
            )

    async def watch(self) -> AsyncGenerator[Loaded, None]:
        """Yield the tree at once, and again whenever its content or its problems changed and it was quiet.

        It never ends by itself; close the iterator (`contextlib.aclosing`) to stop the watch behind it.
        """
        async with _Watch(self.directory) as watch:
            self._watch = watch
            last: str | None = None
            while True:
                seen = await watch.look()
                loaded = await self.load()
                if loaded.digest != last:
                    last = loaded.digest
                    yield loaded
                await watch.changed(seen)
                await watch.quiet(self._quiet)


class _Watch:
    """Tells when a tree changed. Owns the task that listens, and ends it."""

    def __init__(self, directory: Path) -> None:
        self.detail = ""
        self._directory = directory
        self._news = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._poll = _POLL

    async def __aenter__(self) -> Self:
        self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def look(self) -> Signature:
        """Return what the tree looks like now; what changes from here on is news."""
        self._news.clear()
        signature, seconds = await asyncio.to_thread(_signature, self._directory)
        self._poll = max(_POLL, seconds * _POLL_SHARE)
        return signature

    async def changed(self, seen: Signature) -> None:
        """Wait until the watch reports a change, or the tree no longer looks as it was `seen`."""
        while not await self._news_within(self._poll):
            signature, _ = await asyncio.to_thread(_signature, self._directory)
            if signature != seen:
                if not self._news.is_set():
                    await self._stop()
                    self._listen()
                return

    async def quiet(self, seconds: float) -> None:
        """Wait until nothing was reported for `seconds`, at most ten times as long."""
        deadline = asyncio.get_running_loop().time() + seconds * _PATIENCE
        while asyncio.get_running_loop().time() < deadline:
            self._news.clear()
            if not await self._news_within(seconds):
                return

    async def _news_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._news.wait()
        except TimeoutError:
            return False

    def _listen(self) -> None:
        self._listener = asyncio.create_task(self._report(), name=f"watch {self._directory}")

    async def _stop(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            done, _ = await asyncio.wait([self._listener], timeout=_STOP)
            for listener in done:
                if not listener.cancelled():
                    listener.result()

    async def _report(self) -> None:
        """Set `news` for what watchfiles reports. Where it cannot watch, the poll sees changes meanwhile."""
        while True:
            if await asyncio.to_thread(self._directory.exists):
                try:
                    self.detail = ""
                    async for _ in watchfiles.awatch(
                        self._directory, watch_filter=None, step=_STEP_MS, debounce=_STEP_MS
                    ):
                        self._news.set()
                except (OSError, RuntimeError) as error:
                    self.detail = f"cannot be watched, is polled: {error}"
                    self._news.set()
            await asyncio.sleep(_RESTART)


def _signature(directory: Path) -> tuple[Signature, float]:
    """Return the tree's signature and the seconds it took. What cannot be read has zeros."""
    began = time.perf_counter()
    problems: list[Problem] = []
    found = []
    for file in find_files(directory, problems):
        try:
            status = file.stat()
        except OSError:
            found.append((str(file), 0, 0, 0))
        else:
            found.append((str(file), status.st_mtime_ns, status.st_size, status.st_ino))
    found += [(problem.file, 0, 0, 0) for problem in problems]
    return tuple(sorted(found)), time.perf_counter() - began
