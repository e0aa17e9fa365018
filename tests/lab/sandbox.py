"""A sandboxed node on this machine: ``python3 -m tests.lab.sandbox run -- CMD`` and, from elsewhere, ``… enter``.

`run` makes a node with network, mount, pid, uts, ipc and cgroup namespaces of its own (see ``tests/lab/node.py``),
starts Open vSwitch in it, and runs CMD in the foreground with the terminal. When CMD ends, or this program ends in
whatever way, PID 1 of the node ends and the kernel ends everything in it. On the machine there is nothing but the
process itself: a running sandbox is found by an abstract socket, which is no file and goes with its owner.

    sandbox.py run (this process) ── PID 1 of the node ─┬─ ovsdb-server, ovs-vswitchd (started again when they end)
                                                        └─ CMD

Needs root, and nothing but Python's standard library. It has no systemd: what wants one is ``tests/lab/cluster.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.lab import kernel
from tests.lab.kernel import Clone
from tests.lab.node import SBIN, SandboxError, Services, build_root, spawn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_GRACE = 15.0
_INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True, slots=True)
class Order:
    """What to run. `directory` is the checkout: current directory of CMD, its ``.venv/bin`` comes first in PATH."""

    name: str
    directory: Path
    command: tuple[str, ...]
    seconds: float | None


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code is CMD's (0 when it was ended by ``--for``), 69 when there is no sandbox."""
    order, verb = _arguments(argv)
    if os.geteuid() != 0:
        print("sandbox: needs root (namespaces, overlay mounts, Open vSwitch)", file=sys.stderr)
        return 77
    try:
        return _enter(order) if verb == "enter" else _run(order)
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 69


def _arguments(argv: Sequence[str] | None) -> tuple[Order, str]:
    parser = argparse.ArgumentParser(prog="sandbox", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("verb", choices=["run", "enter"])
    parser.add_argument("--name", default="demo", help="which sandbox; several may run beside each other (demo)")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="the checkout (the current directory)")
    parser.add_argument("--for", dest="seconds", type=float, help="end CMD (SIGINT) after so many seconds")
    parser.epilog = "-- CMD...: what to run; a shell when left out"
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:cut])
    command = tuple(words[cut + 1 :]) or ("bash", "--norc", "-i")
    return Order(given.name, given.dir.resolve(), command, given.seconds), given.verb


# run: the process on the machine.


def _run(order: Order) -> int:
    door = _reserve(order.name)
    owner_read, owner_write = os.pipe()
    terminal = os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    sys.stdout.flush()
    kernel.unshare(Clone.PID)
    node = os.fork()
    if node == 0:
        os.close(owner_write)
        _be_the_node(order, door, owner_read, terminal=terminal)
    os.close(owner_read)
    door.close()
    ending: list[float] = []

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(node, number)
        if not ending:
            ending.append(time.monotonic())
            signal.alarm(round(_GRACE) + 5)

    def give_up(_number: int, _frame: object) -> None:
        os.kill(node, signal.SIGKILL)

    signal.signal(signal.SIGALRM, give_up)
    for sig in _ENDING:
        signal.signal(sig, forward)
    _, status = os.waitpid(node, 0)
    if terminal:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
    os.close(owner_write)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _reserve(name: str) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.bind(_address(name))
    except OSError as error:
        raise SandboxError(
            f"a sandbox named {name!r} runs already. Enter it with `enter`, or end it with Ctrl-C where it runs; "
            f"a second one beside it needs another name: --name {name}2"
        ) from error
    return door


def _address(name: str) -> str:
    return f"\0reconciler-sandbox/{name}"


# run: PID 1 of the node.


def _be_the_node(order: Order, door: socket.socket, owner: int, *, terminal: bool) -> NoReturn:
    """Never returns: PID 1 leaves by `os._exit`, so that nothing of the process it was forked from runs here."""
    code = 69
    try:
        kernel.die_with_parent(signal.SIGKILL)
        if select.select([owner], [], [], 0)[0]:
            os._exit(code)  # the parent was gone before the kernel knew
        signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGCHLD})
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        code = _node(order, door, terminal=terminal)
    except (SandboxError, OSError, subprocess.SubprocessError) as error:
        print(f"sandbox: {error}", file=sys.stderr, flush=True)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _node(order: Order, door: socket.socket, *, terminal: bool) -> int:
    os.environ["PATH"] = f"{order.directory}/.venv/bin:{SBIN}"
    kernel.unshare(Clone.NET | Clone.MOUNT | Clone.UTS | Clone.IPC | Clone.CGROUP)
    socket.sethostname("network")
    build_root((order.directory, Path(sys.base_prefix)))
    kernel.drop_capabilities()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
    services = Services()
    services.start()
    os.environ["SANDBOX"] = order.name
    door.listen()
    command = spawn(list(order.command), cwd=order.directory)
    if terminal:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it may have ended already
            os.tcsetpgrp(0, command.pid)
    return _watch(order, services, command.pid)


def _watch(order: Order, services: Services, command: int) -> int:
    """Reap, revive the services, hand signals on; until the command has ended. Its exit code, as a shell has it."""
    started = time.monotonic()
    end_at = None if order.seconds is None else started + order.seconds
    kill_at: float | None = None
    timed_out = False
    while True:
        for pid, status in _reaped():
            if pid == command:
                code = os.waitstatus_to_exitcode(status)
                code = 128 - code if code < 0 else code
                return 0 if timed_out and code == _INTERRUPTED else code
            if kill_at is None:
                services.revive(pid)
        now = time.monotonic()
        if kill_at is not None and now > kill_at:
            raise SandboxError(f"the command did not end within {_GRACE:.0f} s of being asked to, and is killed")
        got = signal.sigtimedwait({*_ENDING, signal.SIGCHLD}, _next(now, end_at, kill_at))
        sent = signal.Signals(got.si_signo) if got else None
        if end_at is not None and time.monotonic() >= end_at and kill_at is None:
            sent, timed_out = signal.SIGINT, True
        if sent in _ENDING:
            kill_at = kill_at or time.monotonic() + _GRACE
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command, sent)


def _next(now: float, *moments: float | None) -> float:
    return max(0.0, min([60.0, *(moment - now for moment in moments if moment is not None and moment > now)]))


def _reaped() -> list[tuple[int, int]]:
    found = []
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            found.append((pid, status))
    return found


# enter


def _enter(order: Order) -> NoReturn:
    node = find(order.name)
    os.environ["PATH"] = f"{order.directory}/.venv/bin:{SBIN}"
    os.environ["SANDBOX"] = order.name
    os.environ["PS1"] = f"[sandboxed node {order.name}] \\w # "
    namespaces = ("--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup")
    kernel.drop_capabilities()
    argv = ["nsenter", f"--target={node}", *namespaces, f"--wdns={order.directory}", "--", *order.command]
    os.execvp(argv[0], argv)


def find(name: str) -> int:
    """The pid (on the machine) of PID 1 of the running sandbox `name`. Raises SandboxError when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.settimeout(5)
        try:
            knock.connect(_address(name))
        except OSError as error:
            raise SandboxError(
                f"no sandbox named {name!r} runs here, or it is starting still. Start one with `run`"
            ) from error
        pid, uid, _ = struct.unpack("3i", knock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != 0:
        raise SandboxError(f"the sandbox {name!r} belongs to user {uid}, not to root: not entered")
    return int(pid)


if __name__ == "__main__":
    sys.exit(main())
