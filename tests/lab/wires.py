"""The wires between booted nodes: bridges ``mgmt``, ``data`` and ``ext``, and hosts plugged into them.

They are in the network namespace of a `Holder`, so nothing shows on the machine. A host is a namespace in it with one
NIC on a bridge: ``outside`` is the rest of the world on ``ext``. Used by ``tests/lab/cluster.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab.holder import PATIENCE, Holder, call

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
    ! command -v ethtool >/dev/null || ip netns exec "$1" ethtool -K eth0 tx off >/dev/null
    """
    call((*holder.enter(), "sh", "-ec", script, "sh", name, address, bridge))
    return Host(holder, name, address.partition("/")[0])
