"""Running one of the node's own tools (ovs-vsctl, ovs-appctl, iptables): an argument list, a timeout, a clear error.

`run` is blocking, for the command line and for threads; the event loop speaks protocols, and where it has started a
tool all the same it waits for it with `ended`. Nothing is ever passed through a shell, and standard input is empty
unless given.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.errors import DriverError

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_SAID = 400
"""Characters of a tool's complaint that an error repeats."""


class ToolMissingError(DriverError):
    """The tool is not installed. `tool` is its name."""

    def __init__(self, tool: str) -> None:
        super().__init__(f"{tool} is not installed (or not in the PATH)")
        self.tool = tool


@dataclass(frozen=True, slots=True)
class Said:
    """What a tool wrote, and the code it ended with."""

    code: int
    out: str
    err: str


def find(tool: str) -> str | None:
    """The path of `tool`, looked for in the directories for administrators too."""
    return shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Said:
    """Run `argv` for `timeout` seconds at most; `env` is added to the process's own, and the locale is C.

    Raises ToolMissingError, and DriverError when it takes longer or (with `check`) ends with another code than 0.
    """
    path = find(argv[0])
    if path is None:
        raise ToolMissingError(argv[0])
    told = " ".join(argv)
    try:
        done = subprocess.run(  # noqa: S603 (an argument list of ours, never a shell)
            [path, *argv[1:]],
            input=stdin.encode(),
            capture_output=True,
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DriverError(f"'{told}' did not answer within {timeout:g} s and was stopped") from error
    except OSError as error:
        raise DriverError(f"'{told}' could not be run: {error.strerror}") from error
    said = Said(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if check and said.code:
        complaint = " ".join((said.err.strip() or said.out.strip() or "nothing")[:_SAID].split())
        raise DriverError(f"'{told}' ended with {said.code} and said: {complaint}")
    return said


async def ended(process: subprocess.Popen[bytes], tool: str, timeout: float) -> None:
    """Wait for the end of `tool` on the loop. After `timeout` seconds it is killed, and DriverError raised."""
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    watched = os.pidfd_open(process.pid)
    loop.add_reader(watched, _resolve, gone)
    try:
        async with asyncio.timeout(timeout):
            await gone
    except TimeoutError as error:
        raise DriverError(f"{tool} did not end within {timeout:g} s and was killed; trying again") from error
    finally:
        loop.remove_reader(watched)
        os.close(watched)
        if process.poll() is None:
            process.kill()
        process.wait()


def _resolve(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)
