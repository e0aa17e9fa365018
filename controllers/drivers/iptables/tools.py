"""Running iptables-restore and iptables-save inside a namespace: an argument list, a timeout, a clear error.

The process is started in the thread that is in the namespace, and so is in it, too; waiting for it is done on the
loop. Input is line-based, so nothing that is not one printable line comes here (`rules.quoted`).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from controllers.drivers.iptables.netns import Visitor
from controllers.drivers.iptables.rules import Family, Variant
from controllers.drivers.tools import ToolMissingError, ended, find
from reconciler.errors import DriverError

_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"}
_LOCKED: Final = 4
FOR_A_WHILE: Final = ("Resource temporarily unavailable", "Device or resource busy", "Cannot allocate memory")
"""What iptables says when nothing is wrong with the rule."""
_OUTPUT: Final = 1 << 28


class LockedError(DriverError):
    """Somebody else holds the xtables lock."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a tool ended with and wrote."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The first lines of what it complained about, in one."""
        lines = [re.sub(r"^\S+ v[0-9.]+ \([a-z_]+\): ?", "", line.strip()) for line in self.err.splitlines()]
        said = [line for line in lines if line and not line.startswith(("Try `", "Error occurred at line"))]
        return " ".join(said)[:400] or f"exit status {self.code}"

    @property
    def lines(self) -> frozenset[int]:
        """The lines of its input that it names."""
        return frozenset(int(number) for number in re.findall(r"\bline:? (\d+)", self.err))


@dataclass(slots=True)
class Tools:
    """The node's iptables of one variant. `target` is a name of a namespace or the descriptor of an open one."""

    visitor: Visitor
    variant: Variant
    timeout: float = 20.0
    lock_wait: int = 5
    _paths: dict[str, str] = field(default_factory=dict)

    async def restore(
        self,
        target: str | int,
        family: Family,
        text: str,
        *,
        flush: bool = False,
        on_start: Callable[[int], None] = lambda _pid: None,
    ) -> Ended:
        """Feed `text` to iptables-restore; `flush` replaces whole tables. `on_start` is told the pid, in a thread.

        Raises LockedError, DriverError and NotReady; that iptables refuses something is no exception.
        """
        arguments = ["-w", str(self.lock_wait), *([] if flush else ["--noflush"])]
        ended = await self.run(target, self._name(family, "restore"), arguments, text, on_start)
        if ended.code == _LOCKED and "xtables lock" in ended.err:
            raise LockedError(
                f"cannot change the rules: another program has held the xtables lock for {self.lock_wait} s;"
                " trying again"
            )
        return ended

    async def save(self, target: str | int, family: Family) -> str:
        """What iptables-save prints of all tables."""
        ended = await self.run(target, self._name(family, "save"), [])
        if ended.code:
            raise DriverError(f"iptables-save ended with {ended.code}: {ended.complaint}")
        return ended.out

    def _name(self, family: Family, verb: str) -> str:
        return f"{'iptables' if family is Family.IPV4 else 'ip6tables'}-{self.variant}-{verb}"

    async def run(
        self,
        target: str | int,
        tool: str,
        arguments: Sequence[str],
        stdin: str = "",
        on_start: Callable[[int], None] = lambda _pid: None,
    ) -> Ended:
        """Run `tool` in a namespace to its end. Raises DriverError when it cannot be run or lasts too long."""
        path = self._paths.get(tool) or find(tool) or find(tool.replace(f"-{self.variant}-", "-"))
        if path is None:
            raise ToolMissingError(tool)
        self._paths[tool] = path
        files = [os.memfd_create(f"{tool}-{name}") for name in ("in", "out", "err")]
        try:
            _write_all(files[0], stdin.encode())
            os.lseek(files[0], 0, os.SEEK_SET)
            process = await self._started(target, [path, *arguments], files, on_start)
            await ended(process, tool, self.timeout)
            out, err = (os.pread(file, _OUTPUT, 0).decode("utf-8", "replace") for file in files[1:])
        finally:
            for file in files:
                os.close(file)
        return Ended(process.returncode, out, err)

    async def _started(
        self, target: str | int, argv: Sequence[str], files: Sequence[int], on_start: Callable[[int], None]
    ) -> subprocess.Popen[bytes]:
        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen(  # noqa: S603  (an argument list of ours, never a shell)
                argv, stdin=files[0], stdout=files[1], stderr=files[2], env=_ENVIRONMENT
            )
            on_start(process.pid)
            return process

        try:
            if isinstance(target, int):
                return await self.visitor.visit_fd(target, start)
            return await self.visitor.visit(target, start)
        except OSError as error:
            raise DriverError(f"cannot run {argv[0]}: {error.strerror}; trying again") from error


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


async def detect(visitor: Visitor, timeout: float = 5.0) -> Variant:
    """Which variant the node's own `iptables` is. Raises ToolMissingError, DriverError."""
    said = await Tools(visitor, Variant.NFT, timeout).run("host", "iptables", ["-V"])
    return Variant.LEGACY if "legacy" in said.out or "nf_tables" not in said.out else Variant.NFT
