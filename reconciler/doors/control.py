"""The control socket: everything the doors may ask of the running daemon, over ``<run_dir>/control.sock``.

Who may use it is decided by file permission alone: the directory is 0750 and the socket 0660. The socket is bound
beside its place and renamed over it, so that a socket left by a killed daemon never stands in the way; the caller
holds the node's lock, so there is no living one. The composition root opens and closes it.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from aiohttp import web

from reconciler.doors.api import Api, errors_as_json
from reconciler.errors import DriverError
from reconciler.metrics import Metrics
from reconciler.report import Node

STOP_SECONDS = 1.0
MAX_BODY = 64 * 1024


class ControlServer:
    """`start` binds and serves, `close` ends live streams, stops and removes the socket."""

    def __init__(self, path: Path, node: Node, metrics: Metrics) -> None:
        self._path = path
        self._api = Api(node, metrics)
        self._runner: web.AppRunner | None = None
        self._inode = 0

    async def start(self) -> None:
        """Raises DriverError when the socket cannot be made."""
        app = web.Application(middlewares=[errors_as_json], client_max_size=MAX_BODY)
        app.add_routes([*self._api.read_routes(), *self._api.control_routes()])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
        await runner.setup()
        try:
            bound, self._inode = _bind(self._path)
            await web.SockSite(runner, bound).start()
        except OSError as error:
            await runner.cleanup()
            raise DriverError(
                f"opening the control socket {self._path}: {error.strerror or error}; nobody can ask this daemon"
            ) from error
        self._runner = runner

    async def close(self) -> None:
        self._api.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            _remove(self._path, self._inode)


def _bind(path: Path) -> tuple[socket.socket, int]:
    """A socket that listens at `path` (whatever was there), and its inode."""
    if not path.parent.exists():
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        path.parent.chmod(0o750)
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise OSError(f"{path} is there and is no socket")
    if len(os.fsencode(path)) + 5 > 107:
        raise OSError(f"the path has {len(os.fsencode(path))} bytes; choose a shorter run_dir (a socket takes 102)")
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(beside))
        beside.chmod(0o660)
        bound.listen(16)
        beside.rename(path)
    except OSError:
        bound.close()
        raise
    return bound, path.lstat().st_ino


def _remove(path: Path, inode: int) -> None:
    """Remove our socket, unless a successor has already put its own there."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        pass
