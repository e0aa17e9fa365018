"""A network and a mount namespace that live exactly as long as the process that opened them, and what runs in them.

The holder is a shell that reads commands from a pipe. It is the parent of everything it is asked to spawn, each of
which asks the kernel to be killed with it (PR_SET_PDEATHSIG). When the pipe closes, because `close` was called or
because the process at the other end died in whatever way, the holder ends, and so does everything in it.
``tests/ovs.py`` builds on this; it knows nothing of Open vSwitch.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 60.0
"""Seconds that setting up, tearing down or a tool may take: how busy the machine is is no finding."""
_END = 10.0
"""Seconds in which a process has to end that was asked to."""
_SETUP = """
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/netns /run/lock && ip link set lo up && echo ready
while read -r line; do eval "$line"; done
"""


class NeedsRootError(Exception):
    """Namespaces and Open vSwitch need root. Raised, never skipped: a suite that tests nothing must not pass."""


class ToolFailedError(Exception):
    """A command failed; the message has the command and what it said. `returncode` is negative for a signal."""

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        super().__init__(f"`{shlex.join(argv)}` ended with {returncode}: {output.strip() or 'it said nothing'}")
        self.returncode = returncode
        self.output = output


def call(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: str | None = None, timeout: float = PATIENCE
) -> str:
    """Run a command to its end; its output. Raises ToolFailedError, or TimeoutExpired after `timeout` seconds."""
    done = subprocess.run(
        argv,
        env=env,
        input="" if stdin is None else stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise ToolFailedError(argv, done.returncode, done.stderr + done.stdout)
    return done.stdout


def _state(task: Path) -> str:
    """The kernel's letter for what a thread does; X when it is gone."""
    try:
        return (task / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


@dataclass(frozen=True, slots=True)
class Spawned:
    """A lasting process in a holder. `pid` is valid on the machine; `output` has its stdout and stderr."""

    holder: Holder
    pid: int
    output: Path

    def send(self, sig: signal.Signals) -> None:
        os.kill(self.pid, sig)

    def end(self, sig: signal.Signals = signal.SIGTERM, timeout: float = _END) -> int:
        """Signal it and wait. After `timeout` seconds it is killed and TimeoutError raised. Its shell exit code."""
        self.send(sig)
        return self.wait(timeout)

    def wait(self, timeout: float = _END) -> int:
        """Wait for its end; the exit code as a shell has it (128 + signal). Killed after `timeout` seconds."""
        if not self._gone(timeout):
            os.kill(self.pid, signal.SIGKILL)
            self.holder.reap(self.pid)
            raise TimeoutError(
                f"process {self.pid} did not end within {timeout} s and was killed\n{self.text()[-2000:]}"
            )
        return self.holder.reap(self.pid)

    def alive(self) -> bool:
        return not self._gone(0)

    def text(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It is stopped (SIGSTOP) within this, all its threads, and continued afterwards."""
        self.send(signal.SIGSTOP)
        try:
            while any(_state(task) not in "TZX" for task in Path(f"/proc/{self.pid}/task").iterdir()):
                time.sleep(0.0005)  # the signal is sent, and a thread on another core still runs
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGCONT)

    def _gone(self, timeout: float) -> bool:
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            readable, _, _ = select.select([pidfd], [], [], timeout)
            return bool(readable)
        finally:
            os.close(pidfd)


class Holder:
    """Owns a network namespace and a mount namespace whose ``/run`` is private (so ``ip netns add`` stays inside)."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        if os.geteuid() != 0:
            raise NeedsRootError("needs root: network namespaces and a private Open vSwitch cannot be made without it")
        self._lock = threading.Lock()
        self._env = dict(os.environ if env is None else env)
        self._shell = subprocess.Popen(
            ["unshare", "--net", "--mount", "--", "sh", "-c", _SETUP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._env,
            start_new_session=True,
        )
        self.pid = self._shell.pid
        if self._answer() != "ready":
            self.close()
            raise RuntimeError("could not set up a network and a mount namespace (its stderr is above)")

    def enter(self) -> tuple[str, ...]:
        """The beginning of an argv that runs a command in these namespaces, in the same directory."""
        return ("nsenter", f"--target={self.pid}", "--net", "--mount", f"--wdns={Path.cwd()}", "--")

    def spawn(self, argv: Sequence[str], output: Path, env: Mapping[str, str] | None = None) -> Spawned:
        """Start `argv` with stdout and stderr appended to `output`; `env` is added to the holder's environment."""
        assigned = [f"{name}={value}" for name, value in (env or {}).items()]
        guarded = ["sh", "-c", f'test "$PPID" = {self.pid} && exec "$@"', "sh"]  # it may have died before prctl
        default = "--default-signal=INT,QUIT"  # a shell ignores these for what it starts with &
        command = ["setpriv", "--pdeathsig", "KILL", "env", default, *assigned, *guarded, *argv]
        line = f"{shlex.join(command)} </dev/null >>{shlex.quote(str(output))} 2>&1 & echo $!"
        if "\n" in line:
            raise ValueError("an argument with a newline cannot be spawned")
        return Spawned(self, int(self._ask(line)), output)

    def reap(self, pid: int) -> int:
        return int(self._ask(f"wait {pid}; echo $?"))

    def close(self) -> None:
        """End the holder; the kernel ends what runs in it. Returns when all are gone. May be called twice."""
        if self._shell.stdin is None or self._shell.stdin.closed:
            return
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        pidfds = [os.pidfd_open(pid) for pid in pids]  # they are the shell's to reap, so the pids are theirs still
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.close()
        self._shell.wait(PATIENCE)
        if self._shell.stdout is not None:
            self._shell.stdout.close()
        for pidfd in pidfds:
            select.select([pidfd], [], [], PATIENCE)
            os.close(pidfd)

    def _ask(self, line: str) -> str:
        with self._lock:
            if self._shell.stdin is None or self._shell.stdin.closed:
                raise RuntimeError("the holder is closed")
            self._shell.stdin.write(line + "\n")
            self._shell.stdin.flush()
            return self._answer()

    def _answer(self) -> str:
        pipe = self._shell.stdout
        if pipe is None or not select.select([pipe], [], [], PATIENCE)[0]:
            raise TimeoutError(f"the holder shell did not answer within {PATIENCE:g} s")
        return pipe.readline().strip()
