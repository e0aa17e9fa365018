"""Reading all rules that matter of the namespace this thread is in: over nfnetlink, or from what iptables-legacy saves.

Blocking: called through `netns.Visitor`. The sockets are closed before the visit ends.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from controllers.drivers.iptables import nftables
from controllers.drivers.iptables.chains import Reading
from controllers.drivers.iptables.nftables import Frame, Message
from controllers.drivers.iptables.rules import COMMENT, KERNEL_CHAINS, OWN_PREFIX, ChainKey, Family, Held
from reconciler.errors import DriverError

NETLINK_NETFILTER: Final = 12
_BUFFER: Final = 1 << 18
_ATTEMPTS: Final = 10


class _Interrupted(Exception):
    """Somebody changed the rules while they were read."""


@contextmanager
def _netfilter(timeout: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as sock:
        sock.settimeout(timeout)
        sock.bind((0, 0))
        yield sock


def read_nft(timeout: float = 5.0, *, whole: bool = False) -> Reading:
    """Read every chain that matters, of IPv4 and IPv6, as they were at one moment. Raises DriverError.

    `whole` keeps the rules' bodies, which are large.
    """
    for _ in range(_ATTEMPTS):
        try:
            with _netfilter(timeout) as sock:
                return _read(sock, whole=whole)
        except _Interrupted:
            continue
        except OSError as error:
            raise DriverError(f"cannot read the rules from nf_tables: {error}; trying again") from error
    raise DriverError(f"cannot read the rules: they changed {_ATTEMPTS} times meanwhile; trying again")


def generation(timeout: float = 5.0) -> int:
    """The number of the last commit in this namespace: when it is the known one, nothing has changed."""
    try:
        with _netfilter(timeout) as sock:
            return _generation(sock)
    except OSError as error:
        raise DriverError(f"cannot ask nf_tables for its generation: {error}; trying again") from error


def foreign_tables(timeout: float = 5.0) -> list[str]:
    """The tables that nf_tables has in this namespace, e.g. ``ip nat``: for a node that uses iptables-legacy.

    A kernel that has no nf_tables has no tables in it.
    """
    words = {2: "ip", 10: "ip6"}
    try:
        with _netfilter(timeout) as sock:
            found = list(_ask(sock, Message.GET_TABLE, 0))
    except (OSError, DriverError):
        return []  # only said to people, and on a node that does not use it
    named = ((frame.family, nftables.attributes(frame.body).get(1, b"")) for frame in found)
    return sorted(f"{words[family]} {name[:-1].decode()}" for family, name in named if family in words)


def legacy_tables() -> list[str]:
    """The tables that iptables-legacy has in this namespace: for a node that uses iptables-nft."""
    found = []
    for file, word in (("ip_tables_names", "ip"), ("ip6_tables_names", "ip6")):
        path = Path("/proc/thread-self/net", file)
        try:
            found += [f"{word} {name}" for name in path.read_text().split()]
        except FileNotFoundError:
            continue  # this kernel, or this namespace, has never had any
    return sorted(found)


def _read(sock: socket.socket, *, whole: bool) -> Reading:
    before = _generation(sock)
    chains: dict[ChainKey, list[Held]] = {}
    for family in Family:
        for frame in _ask(sock, Message.GET_CHAIN, family):
            key = nftables.chain_of(frame)
            if key is not None:
                chains[key] = []
    for key, rules in chains.items():
        for frame in _ask(sock, Message.GET_RULE, key.family, nftables.names(key.table, key.chain)):
            found = nftables.rule_of(frame, whole=whole)
            if found is not None:
                rules.append(found[1])
    if _generation(sock) != before:
        raise _Interrupted
    return Reading(chains, before)


def _generation(sock: socket.socket) -> int:
    for frame in _ask(sock, Message.GET_GEN, 0, dump=False):
        return nftables.generation(frame).number
    raise DriverError("nf_tables answered without its generation")


def _ask(
    sock: socket.socket, kind: Message, family: int, attributes: bytes = b"", *, dump: bool = True
) -> Iterator[Frame]:
    """Ask, and give the answers until the end of them."""
    sock.send(nftables.request(kind, family, 1, attributes, dump=dump))
    while True:
        for frame in nftables.frames(sock.recv(_BUFFER)):
            if frame.flags & nftables.DUMP_INTERRUPTED:
                raise _Interrupted
            if frame.kind < 0:
                if frame.error == 2:
                    raise _Interrupted  # the chain went away after it was listed
                if frame.error:
                    raise DriverError(f"nf_tables refuses {kind.name}: error {frame.error}")
                return
            yield frame
            if not dump:
                return


def read_saved(text: str, family: Family) -> dict[ChainKey, list[Held]]:
    """What ``iptables-save`` printed, as chains that matter."""
    chains: dict[ChainKey, list[Held]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            name = line[1:].split(" ", 1)[0]
            if name in KERNEL_CHAINS or name.startswith(OWN_PREFIX):
                chains[ChainKey(family, table, name)] = []
        elif line.startswith("-A "):
            name, _, rule = line[3:].partition(" ")
            rules = chains.get(ChainKey(family, table, name))
            if rules is not None:
                rules.append(held_text(rule))
    return chains


def held_text(rule: str) -> Held:
    """A rule as iptables-save prints it, without ``-A CHAIN``."""
    mark = label = ""
    if "reconciler:" in rule:
        found = COMMENT.search(rule.encode())
        if found is not None:
            mark, label = found[1].decode(), (found[2] or b"").decode("utf-8", "replace").partition('"')[0]
    form = hashlib.blake2b(rule.encode(), digest_size=12).digest()
    return Held((mark, form), 0, label, rule.startswith(("-j REJECT", "-j DROP")))
