"""The wires between booted nodes: bridges ``mgmt``, ``data`` and ``ext``, and hosts plugged into them.

They are in the network namespace of a `Holder`, so nothing shows on the machine. A host is a namespace in it with one
NIC on a bridge: ``outside`` is the rest of the world on ``ext``. Used by ``tests/lab/cluster.py``.
"""

from __future__ import annotations

import contextlib
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.holder import PATIENCE, Holder, ToolFailedError, call

BRIDGES = (("mgmt", 1500), ("data", 1600), ("ext", 1500))
OUTSIDE = "203.0.113.1"


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace with one address, on one of the bridges."""

    holder: Holder
    name: str
    address: str

    def run(self, *argv: str, timeout: float = PATIENCE, stdin: str | None = None) -> str:
        """Its output. Raises ToolFailedError with what it said."""
        inside = (*self.holder.enter(), "ip", "netns", "exec", self.name)
        return call((*inside, *argv), timeout=timeout, stdin=stdin)

    def reaches(self, address: str, within: float = 30.0) -> bool:
        """Whether a ping is answered in time."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            with contextlib.suppress(ToolFailedError):
                self.run("ping", "-n", "-c1", "-W0.3", address)
                return True
        return False

    @contextlib.contextmanager
    def pinging(self, address: str, *, every: float = 0.01) -> Iterator[Pinging]:
        """Ping within this block, after one that was answered."""
        if not self.reaches(address):
            raise AssertionError(f"{self.name} does not reach {address} at all")
        with tempfile.NamedTemporaryFile(prefix="ping-") as said:
            argv = ("ip", "netns", "exec", self.name, "ping", "-n", f"-i{every}", address)
            running, ping = self.holder.spawn(argv, Path(said.name)), Pinging()
            try:
                time.sleep(5 * every)
                yield ping
            finally:
                time.sleep(5 * every)
                running.end(signal.SIGINT)
                ping.take(running.text())


@dataclass(slots=True)
class Pinging:
    """A ping that runs. After the ``with`` block: how many were sent, and which were never answered."""

    sent: int = 0
    lost: tuple[int, ...] = ()

    def take(self, text: str) -> None:
        counted = re.search(r"(\d+) packets transmitted", text)
        if counted is None:
            raise AssertionError(f"ping did not say what it sent:\n{text[-500:]}")
        self.sent = int(counted[1])
        seen = {int(number) for number in re.findall(r"bytes from .*icmp_seq=(\d+)", text)}
        self.lost = tuple(sorted(set(range(1, self.sent)) - seen))  # the last may be under way


def lay(holder: Holder) -> Host:
    """Make the bridges and the host ``outside``; the latter is returned."""
    lines = []
    for bridge, mtu in BRIDGES:
        lines += [f"link add {bridge} mtu {mtu} type bridge forward_delay 0", f"link set {bridge} up"]
    call((*holder.enter(), "ip", "-batch", "-"), stdin="\n".join(lines))
    return plug(holder, "outside", f"{OUTSIDE}/24", "ext")


def plug(holder: Holder, name: str, address: str, bridge: str) -> Host:
    """Plug a host with `address` (CIDR) into a bridge. The name is an interface name (at most 12 bytes)."""
    script = """
    ip netns add "$1"
    ip link add "$1.br" master "$3" type veth peer name eth0 netns "$1"
    ip link set "$1.br" up; ip -n "$1" link set lo up; ip -n "$1" link set eth0 up
    ip -n "$1" addr add "$2" dev eth0
    ip netns exec "$1" ethtool -K eth0 tx off >/dev/null # else TCP through Open vSwitch hangs
    """
    call((*holder.enter(), "sh", "-ec", script, "sh", name, address, bridge))
    return Host(holder, name, address.partition("/")[0])
