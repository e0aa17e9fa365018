"""A network and a mount namespace for one thread: what runs in it finds an empty network and an empty /run/netns.

`privately` runs a coroutine function there, to its end, in a loop of its own. Threads and processes that it starts are
in there, too. When the thread ends, the kernel takes everything away: nothing is ever seen on the machine.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import subprocess
import threading
from collections.abc import Callable, Coroutine
from typing import Any

_NEWNS, _NEWNET = 0x20000, 0x40000000
_MS_PRIVATE, _MS_REC = 1 << 18, 0x4000
_LIBC = ctypes.CDLL(None, use_errno=True)
PATIENCE = 60.0


def _enter() -> None:
    if os.geteuid() != 0:
        raise PermissionError("needs root: network namespaces cannot be made without it")
    if _LIBC.unshare(_NEWNS | _NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    if _LIBC.mount(b"", b"/", b"none", _MS_PRIVATE | _MS_REC, None):
        raise OSError(ctypes.get_errno(), "private mounts")
    if _LIBC.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755"):
        raise OSError(ctypes.get_errno(), "tmpfs on /run")
    ip("link", "set", "lo", "up")


def privately(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a plain test of a coroutine function: it runs in namespaces of its own."""

    @functools.wraps(test)
    def plain(*args: Any, **kwargs: Any) -> None:
        failed: list[BaseException] = []

        def run() -> None:
            try:
                _enter()
                with asyncio.Runner() as runner:
                    runner.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE))
            except BaseException as error:  # noqa: BLE001 - carried over to the test's own thread
                failed.append(error)

        thread = threading.Thread(target=run, name=test.__name__)
        thread.start()
        thread.join(PATIENCE + 10)
        assert not thread.is_alive(), "the test does not end"
        if failed:
            raise failed[0]

    return plain


def sh(*argv: str) -> str:
    """Run a command here; its output. Blocks for a moment."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"
    return done.stdout


def ip(*args: str, ns: str = "") -> str:
    """Run ip(8), in the named namespace if one is given."""
    return sh("ip", *(["-n", ns] if ns else []), *args)
