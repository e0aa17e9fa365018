"""Whole nodes for a test: ``with lab("network", "compute") as cluster: cluster.network.run("systemctl", "status")``.

Each is booted by ``tests/lab/boot.py`` with a real systemd as PID 1 and Debian's Open vSwitch units, its daemon where
an installation puts it, and wired by ``tests/lab/wires.py``. All of it hangs on a `Holder`: it ends when the ``with``
block does, or when the test process dies in whatever way. All calls block.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from tests.lab import wires
from tests.lab.boot import CGROUPS, address
from tests.lab.holder import PATIENCE, Holder, Spawned, ToolFailedError, call
from tests.lab.kernel import Capability
from tests.lab.wires import Host, Pinging

CHECKOUT = Path(__file__).parents[2]
BOOT_SECONDS = 60.0
OVS = ("openvswitch-switch.service", "lab-underlay.service")
"""What a node starts unless it is told otherwise."""

INSTALLED = "/opt/reconciler/current"
"""Where an installation puts the daemon; in a lab node usually a link to the virtualenv that runs the tests."""

_NAMESPACES = ("--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup")
_WITHOUT = ",".join(f"-{capability.name.lower()}" for capability in Capability)
_PATH = f"{INSTALLED}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BootError(Exception):
    """A node did not come up; the message has what it said."""


@dataclass(slots=True)
class Node:
    """One booted machine. `mgmt` and `underlay` are its addresses on eth0 and on br-phy."""

    cluster: Cluster
    name: str
    number: int
    wants: tuple[str, ...]
    pid: int = 0
    """Of its systemd, on the machine."""
    _process: Spawned | None = None

    @property
    def mgmt(self) -> str:
        return address("mgmt", self.number)

    @property
    def underlay(self) -> str:
        return address("data", self.number)

    # Its power switch.

    def start(self) -> None:
        """Switch it on; `wait` says when it is up. Its disk is as the last `kill` left it."""
        disk = self.cluster.disk(self)
        inside = f"/run/lab/{self.name}"
        (disk / "pid").unlink(missing_ok=True)
        words = (self.name, str(self.number), str(self.cluster.holder.pid), inside, " ".join(self.wants))
        argv = (sys.executable, "-m", "tests.lab.boot", *words, self.cluster.hosts().replace("\n", ";"))
        self._process = self.cluster.holder.spawn(argv, self.cluster.directory / f"{self.name}.boot")
        deadline = time.monotonic() + BOOT_SECONDS
        while not (disk / "pid").exists():
            if time.monotonic() > deadline or not self._process.alive():
                raise BootError(f"{self.name} did not start:\n{self._process.text()[-3000:]}")
            time.sleep(0.005)
        self.pid = int((disk / "pid").read_text())

    def wait(self, *states: str, timeout: float = BOOT_SECONDS) -> str:
        """Wait until systemd has started everything; its state, which must be ``running`` (or one of `states`)."""
        deadline = time.monotonic() + timeout
        state = ""
        while time.monotonic() < deadline:
            if self._process is not None and not self._process.alive():
                raise BootError(f"{self.name} ended while it booted:\n{self._process.text()[-3000:]}")
            with contextlib.suppress(ToolFailedError, subprocess.TimeoutExpired):
                state = self.run("sh", "-c", "systemctl is-system-running --wait || true", timeout=timeout).strip()
                if state in (states or ("running",)):
                    return state
                if state == "degraded":
                    break
            time.sleep(0.02)
        said = self.try_run("sh", "-c", "systemctl --failed --no-legend; systemctl list-jobs; journalctl -b -p 4 -n 40")
        raise BootError(f"{self.name} is {state or 'not answering'} instead of running:\n{said}")

    def kill(self) -> None:
        """Cut its power: every process is gone at once; the disk stays for another `start`."""
        (self.cluster.cgroups() / self.name / "cgroup.kill").write_text("1")
        if self._process is not None:
            self._process.wait()
        self.pid = 0

    def reboot(self) -> None:
        """A cold boot, after a power cut."""
        self.kill()
        self.start()
        self.wait()

    # What a person logged in there could do.

    def run(self, *argv: str, timeout: float = PATIENCE, stdin: str | None = None) -> str:
        """Run a command in it, as root; its output. Raises ToolFailedError with what it said."""
        return call(self._inside(argv), timeout=timeout, stdin=stdin)

    def sh(self, script: str, timeout: float = PATIENCE) -> str:
        """Run a shell script that stops at the first error."""
        return self.run("sh", "-ec", script, timeout=timeout)

    def try_run(self, *argv: str, timeout: float = PATIENCE) -> str:
        """The same as `run`, whatever the exit code: output and complaints together."""
        both = subprocess.STDOUT
        done = subprocess.run(
            self._inside(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=both, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        return done.stdout

    def spawn(self, *argv: str, env: Mapping[str, str] | None = None) -> Spawned:
        """Start a lasting process in it. It ends with the node."""
        output = self.cluster.directory / f"{self.name}-{time.monotonic_ns()}.out"
        return self.cluster.holder.spawn(self._inside(argv), output, env)

    def reconcile(self, *args: str, timeout: float = 60.0, expect: Sequence[int] = (0,)) -> str:
        """Run ``reconcile`` in it. Raises ToolFailedError unless the exit code is one of `expect`."""
        try:
            said = self.run("reconcile", *args, timeout=timeout)
        except ToolFailedError as error:
            if error.returncode not in expect:
                raise
            return error.output
        if 0 not in expect:
            raise ToolFailedError(("reconcile", *args), 0, said)
        return said

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file in one step, as an editor does; its directory is made."""
        self.run(
            "sh", "-ec", 'mkdir -p "$(dirname "$1")"; cat >"$1.part"; chmod "$2" "$1.part"; mv "$1.part" "$1"',
            "sh", path, mode, stdin=text,
        )  # fmt: skip

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def eventually(self, true: Callable[[], object], within: float = 30.0, every: float = 0.02) -> bool:
        """Whether it becomes true in time. A tool that fails meanwhile counts as not yet."""
        deadline = time.monotonic() + within
        while True:
            with contextlib.suppress(ToolFailedError):
                if true():
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(every)

    def plug(self, name: str, cidr: str) -> None:
        """Make a little host in it, whose other end, device `name`, is there to become a port (type system).

        It is namespace `name` with `cidr` on its eth0; its MAC follows from the name.
        """
        script = """
        ip netns add "$1"; ip link add "$1" type veth peer name eth0 netns "$1"
        ip -n "$1" link set eth0 address "$3"
        ip link set "$1" up; ip -n "$1" link set lo up; ip -n "$1" link set eth0 up
        ip -n "$1" addr add "$2" dev eth0
        ip netns exec "$1" ethtool -K eth0 tx off >/dev/null # else TCP through Open vSwitch hangs
        """
        octets = (0x02, 0x1B, *crc32(name.encode()).to_bytes(4, "big"))
        self.run("sh", "-ec", script, "sh", name, cidr, ":".join(f"{octet:02x}" for octet in octets))

    def _inside(self, argv: Sequence[str]) -> tuple[str, ...]:
        if not self.pid:
            raise BootError(f"{self.name} is switched off")
        return inside(self.pid, argv)


def inside(pid: int, argv: Sequence[str], *environment: str) -> tuple[str, ...]:
    """An argv that runs another one, as root, in the node whose systemd has this pid on the machine."""
    enter = ("nsenter", f"--target={pid}", *_NAMESPACES, "--wdns=/root", "--")
    variables = ("env", f"PATH={_PATH}", "HOME=/root", "LC_ALL=C.UTF-8", *environment)
    return ("setpriv", f"--bounding-set={_WITHOUT}", *enter, *variables, *argv)


@dataclass(slots=True)
class Cluster:
    """The nodes of one lab, by name also as attributes; `outside` is a host on the network ext."""

    holder: Holder
    directory: Path
    outside: Host
    nodes: dict[str, Node] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Node:
        try:
            return self.nodes[name]
        except KeyError:
            raise AttributeError(name) from None

    def hosts(self) -> str:
        """/etc/hosts of every node."""
        lines = [f"{node.mgmt} {node.name}" for node in self.nodes.values()]
        return "\n".join(["127.0.0.1 localhost", "::1 localhost", *lines, ""])

    def disk(self, node: Node) -> Path:
        place = Path(f"/proc/{self.holder.pid}/root/run/lab/{node.name}")
        place.mkdir(parents=True, exist_ok=True)
        return place

    def cgroups(self) -> Path:
        return Path(f"/proc/{self.holder.pid}/root{CGROUPS}/reconciler-lab-{self.holder.pid}")

    @contextlib.contextmanager
    def pinging(self, node: Node, namespace: str, to: str, *, every: float = 0.01) -> Iterator[Pinging]:
        """Ping from a namespace of a node within this block, after one that was answered."""
        inside = ("ip", "netns", "exec", namespace) if namespace else ()
        if not node.eventually(lambda: node.run(*inside, "ping", "-n", "-c1", "-W0.3", to)):
            raise AssertionError(f"{node.name} {namespace} does not reach {to} at all")
        running, ping = node.spawn(*inside, "ping", "-n", f"-i{every}", to), Pinging()
        time.sleep(5 * every)
        try:
            yield ping
        finally:
            time.sleep(5 * every)
            # nsenter forks into the pid namespace: the ping itself is its child, and the one that reports.
            children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
            os.kill(int(children[0]) if children else running.pid, signal.SIGINT)
            running.wait()
            ping.take(running.text())

    def ping(self, node: Node, namespace: str, to: str, within: float = 30.0) -> bool:
        """Whether a ping is answered in time."""
        inside = ("ip", "netns", "exec", namespace) if namespace else ()
        return node.eventually(lambda: node.run(*inside, "ping", "-n", "-c1", "-W0.3", to), within)


@contextlib.contextmanager
def lab(*names: str, wants: Sequence[str] = OVS, installed: bool = True) -> Iterator[Cluster]:
    """Boot a node for each name (at most 10 letters, digits and -), wired together, each ``running``.

    `wants` are the units started at boot. With `installed`, the daemon is where ``./install`` puts it, not started.
    """
    directory = Path(tempfile.mkdtemp(prefix="lab-"))
    holder = Holder()
    try:
        _prepare(holder)
        cluster = Cluster(holder, directory, wires.lay(holder))
        for number, name in enumerate(names, 1):
            cluster.nodes[name] = Node(cluster, name, number, tuple(wants))
        for node in cluster.nodes.values():
            node.start()
        for node in cluster.nodes.values():
            node.wait()
            if installed:
                node.sh(f"mkdir -p /opt/reconciler; ln -sfn {sys.prefix} {INSTALLED}")
        yield cluster
    finally:
        _end(holder, directory)


def _prepare(holder: Holder) -> None:
    """The cgroup tree and a place for disks in the holder's mount namespace; what a killed lab left is removed."""
    script = f"""
    mkdir -p {CGROUPS} /run/lab
    mount -t cgroup2 cgroup2 {CGROUPS}
    mount -t tmpfs -o mode=755 tmpfs /run/lab
    mkdir {CGROUPS}/reconciler-lab-{holder.pid}
    for old in {CGROUPS}/reconciler-lab-*; do
        [ -e /proc/"${{old##*-}}" ] || find "$old" -depth -type d -exec rmdir {{}} \\; 2>/dev/null || true
    done
    """
    call((*holder.enter(), "sh", "-ec", script))


def _end(holder: Holder, directory: Path) -> None:
    """All processes at once, then the cgroups, which only the living can remove."""
    script = f"""
    cd {CGROUPS}/reconciler-lab-{holder.pid} && echo 1 >cgroup.kill && cd ..
    for patience in 1 2 3 4 5 6 7 8 9 10; do
        find reconciler-lab-{holder.pid} -depth -type d -exec rmdir {{}} + 2>/dev/null && break
        sleep 0.05
    done
    """
    with contextlib.suppress(ToolFailedError, subprocess.TimeoutExpired):
        call((*holder.enter(), "sh", "-c", script))
    holder.close()
    shutil.rmtree(directory, ignore_errors=True)
