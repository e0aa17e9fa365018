"""A private Open vSwitch for one test: its own network namespace, sockets and database, ready in 20 to 60 ms.

Everything that lasts is a child of a `Holder` and ends with it, also when pytest was killed. Nothing appears in the
machine's own network, ``/run`` or ``/var``. All calls block and are thread-safe, so that they serve plain and async
tests alike (``asyncio.to_thread`` where a call would last). The fixtures are in ``tests/conftest.py``; benchmarks use
`PrivateOvs` directly.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.lab.holder import PATIENCE, Holder, NeedsRootError, Spawned, ToolFailedError, call

__all__ = ["Host", "NeedsRootError", "PingTally", "PrivateOvs", "Spawned", "ToolFailedError"]

SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_QUIET = ("-vconsole:off", "-vsyslog:off", "-vfile:info")
_PLUG = """
ip netns add "$1"
ip link add "$1" type veth peer name eth0 netns "$1"
ip link set "$1" up
ip -n "$1" link set lo up
ip -n "$1" link set eth0 up
ip -n "$1" addr add "$2" dev eth0
"""


class PrivateOvs:
    """One ovsdb-server and one ovs-vswitchd (userspace datapath only) under `directory`, in namespaces of their own.

    Bridges need ``datapath_type=netdev``; `add_bridge` sets it. `directory` must exist and be short: the paths of the
    sockets in it are limited to 107 bytes. Use it as a context manager, or call `close`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rundir = directory / "run"
        if len(str(self.rundir)) > 84:  # leaves room for a bridge of 15 bytes and ".snoop"
            raise ValueError(f"{self.rundir} is too long for the sockets in it: choose a shorter --basetemp")
        path = f"{os.environ.get('PATH', '')}:{SBIN}"
        if shutil.which("ovs-vswitchd", path=path) is None:
            raise RuntimeError("ovs-vswitchd is not installed: ./check installs it (Debian: openvswitch-switch)")
        self.rundir.mkdir()
        names = ("OVS_RUNDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "OVS_LOGDIR")
        self.env = {**os.environ, **dict.fromkeys(names, str(self.rundir)), "PATH": path}
        self.db = f"unix:{self.rundir}/db.sock"
        self._processes: dict[str, Spawned] = {}
        self._starts = 0
        self.holder = Holder(self.env)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._call("ovsdb-tool", "create", str(self.rundir / "conf.db"), str(SCHEMA))
            self.start_ovsdb()
            self.vsctl("--no-wait", "init")
            self.start_vswitchd()
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process and both namespaces. May be called twice."""
        self.holder.close()

    # The tools. They need no namespace: their sockets are files.

    def vsctl(self, *args: str, timeout: float = PATIENCE) -> str:
        """Run ovs-vsctl (it waits until vswitchd has done it, unless ``--no-wait``); its output, stripped."""
        return self._call("ovs-vsctl", f"--timeout={max(1, round(timeout))}", *args, timeout=timeout + 2).strip()

    def ofctl(self, *args: str, stdin: str | None = None, timeout: float = PATIENCE) -> str:
        """Run ovs-ofctl, with OpenFlow 1.4 unless ``-O…`` says otherwise: ``ofctl("del-flows", "br0")``."""
        version = () if any(arg.startswith(("-O", "--protocols")) for arg in args) else ("-OOpenFlow14",)
        return self._call("ovs-ofctl", *version, *args, stdin=stdin, timeout=timeout)

    def flows(self, bridge: str) -> list[str]:
        """The bridge's flows as ovs-ofctl prints them, sorted, without statistics."""
        return sorted(line.strip() for line in self.ofctl("--no-stats", "dump-flows", bridge).splitlines())

    def appctl(self, *args: str, target: str = "ovs-vswitchd", timeout: float = PATIENCE) -> str:
        """Run ovs-appctl against ovs-vswitchd, or ``target="ovsdb-server"``."""
        return self._call("ovs-appctl", "-t", str(self.rundir / f"{target}.ctl"), *args, timeout=timeout)

    def add_bridge(self, name: str, *settings: str) -> None:
        """Make a userspace bridge, e.g. ``add_bridge("br0", "fail_mode=secure")``."""
        self.vsctl("add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", *settings)

    # The two processes.

    @property
    def vswitchd(self) -> Spawned:
        return self._processes["ovs-vswitchd"]

    @property
    def ovsdb(self) -> Spawned:
        return self._processes["ovsdb-server"]

    def start_ovsdb(self) -> None:
        self._start("ovsdb-server", f"--remote=punix:{self.rundir}/db.sock", str(self.rundir / "conf.db"))
        self._until("ovsdb-server", lambda: _listens(self.rundir / "db.sock"))

    def start_vswitchd(self, *, wait: bool = True) -> None:
        """Start ovs-vswitchd; with `wait`, until it has applied the database (its bridges and their sockets exist)."""
        self._start("ovs-vswitchd", self.db, "--disable-system")
        if wait:
            self._starts += 1
            self.vsctl("set", "Open_vSwitch", ".", f"system_version=start-{self._starts}")

    def stop_vswitchd(self, sig: signal.Signals = signal.SIGTERM) -> None:
        self.vswitchd.end(sig)

    def stop_ovsdb(self, sig: signal.Signals = signal.SIGTERM) -> None:
        self.ovsdb.end(sig)

    def restart_vswitchd(self, sig: signal.Signals = signal.SIGTERM, *, wait: bool = True) -> None:
        self.stop_vswitchd(sig)
        self.start_vswitchd(wait=wait)

    def restart_ovsdb(self, sig: signal.Signals = signal.SIGTERM) -> None:
        self.stop_ovsdb(sig)
        self.start_ovsdb()

    def _start(self, name: str, *args: str) -> None:
        common = (f"--unixctl={self.rundir}/{name}.ctl", f"--pidfile={self.rundir}/{name}.pid")
        log = f"--log-file={self.rundir}/{name}.log"
        self._processes[name] = self.holder.spawn([name, *_QUIET, *common, log, *args], self.rundir / f"{name}.out")

    def _until(self, name: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            if time.monotonic() > deadline or not self._processes[name].alive():
                log = self.rundir / f"{name}.log"
                said = self._processes[name].text() + (log.read_text() if log.exists() else "")
                raise RuntimeError(f"{name} did not start:\n{said[-2000:]}")
            time.sleep(0.002)

    # The network namespace, and hosts plugged into bridges.

    @property
    def netns(self) -> Path:
        """The switch's network namespace as a file, for setns or ``nsenter --net=``."""
        return Path(f"/proc/{self.holder.pid}/ns/net")

    def run(self, *argv: str, timeout: float = PATIENCE, stdin: str | None = None) -> str:
        """Run a command in the switch's namespaces; its output. Raises ToolFailedError with what it said."""
        return self._call(*self.holder.enter(), *argv, stdin=stdin, timeout=timeout)

    def spawn(self, argv: Sequence[str], output: Path, env: Mapping[str, str] | None = None) -> Spawned:
        """Start a lasting process in the switch's namespaces (a daemon under test); it ends with the switch."""
        return self.holder.spawn(argv, output, env)

    def add_host(self, name: str, address: str, bridge: str, *settings: str) -> Host:
        """Plug a tiny host into `bridge`: nested namespace `name` with `address` (CIDR) on its eth0, by port `name`.

        `settings` are for the port, e.g. ``tag=5``. The name is an interface name (at most 15 bytes).
        """
        self.add_veth(name, address)
        self.vsctl("add-port", bridge, name, *(("--", "set", "port", name, *settings) if settings else ()))
        return Host(self, name, address.partition("/")[0])

    def add_veth(self, name: str, address: str) -> None:
        """The same without the port: device `name` is there, to be plugged (type system) by whoever is tested."""
        self.run("sh", "-ec", _PLUG, "sh", name, address)

    def host(self, name: str, address: str) -> Host:
        """The host that `add_veth` made."""
        return Host(self, name, address.partition("/")[0])

    def _call(self, *argv: str, stdin: str | None = None, timeout: float = PATIENCE) -> str:
        return call(argv, env=self.env, stdin=stdin, timeout=timeout)


@dataclass(frozen=True, slots=True)
class PingTally:
    """What became of a running ping. The packet in flight when it was stopped counts neither way."""

    sent: int
    received: int
    lost: tuple[int, ...]
    """Sequence numbers, from 1, that were never answered."""


@dataclass(slots=True)
class Pinging:
    """A ping that runs; `tally` is there after the ``with`` block."""

    tally: PingTally | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """A nested network namespace with one address, plugged into a bridge."""

    ovs: PrivateOvs
    name: str
    address: str

    def run(self, *argv: str, timeout: float = PATIENCE) -> str:
        return self.ovs.run("ip", "netns", "exec", self.name, *argv, timeout=timeout)

    def reaches(self, other: Host, *, within: float = 5.0) -> bool:
        """Whether a ping is answered within so many seconds."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            with contextlib.suppress(ToolFailedError):
                self.run("ping", "-n", "-c1", "-W0.2", other.address)
                return True
        return False

    @contextlib.contextmanager
    def pinging(self, other: Host, *, every: float = 0.01) -> Iterator[Pinging]:
        """Ping `other` every so many seconds within this block, after one that was answered.

        ``with a.pinging(b) as ping: …`` and then ``assert ping.tally.lost == ()``.
        """
        if not self.reaches(other):
            raise AssertionError(f"{self.name} does not reach {other.name} at all")
        output = self.ovs.directory / f"ping-{self.name}-{time.monotonic_ns()}"
        argv = ("ip", "netns", "exec", self.name, "ping", "-n", f"-i{every}", other.address)
        running, ping = self.ovs.spawn(argv, output), Pinging()
        try:
            yield ping
        finally:
            time.sleep(2 * every)
            running.end(signal.SIGINT)
            ping.tally = _tally(output.read_text())


def _listens(path: Path) -> bool:
    """Whether somebody accepts connections there: the file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as knock, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        knock.connect(str(path))
        return True
    return False


def _tally(text: str) -> PingTally:
    counted = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    if counted is None:
        raise AssertionError(f"ping did not say what it sent:\n{text[-500:]}")
    sent = int(counted[1])
    seen = {int(number) for number in re.findall(r"bytes from .*icmp_seq=(\d+)", text)}
    lost = sorted(set(range(1, sent)) - seen)
    return PingTally(sent, len(seen), tuple(lost))
