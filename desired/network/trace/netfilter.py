"""What rules do with one new packet, read from what iptables-save prints. Pure.

Matches that cannot be judged from a packet's addresses, protocol, port and devices are not guessed: a rule that has one
is passed over, and named in `Verdict.unjudged`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

_DEPTH = 16
"""Chains within chains; more is a loop, which the kernel refuses anyway."""

_ENDS = frozenset({"ACCEPT", "DROP", "REJECT", "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"})
_MARK = re.compile(r"reconciler:\S+ (.+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet as a chain sees it. Devices are '' where there is none yet."""

    source: str
    to: str
    protocol: str
    port: int
    comes: str = ""
    leaves: str = ""
    translated: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its tokens without the chain, and its whole line."""

    tokens: tuple[str, ...]
    line: str

    @property
    def declared(self) -> str:
        """The resource that our comment names, '' without one."""
        for token in self.tokens:
            found = _MARK.fullmatch(token)
            if found:
                return found.group(1)
        return ""

    @property
    def plain(self) -> str:
        """The line without our comment, which says it twice."""
        return re.sub(r' -m comment --comment ("reconciler:(?:[^"\\]|\\.)*"|reconciler:\S+)', "", self.line)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`target` is what ended it (ACCEPT, DROP, DNAT, …), `value` its argument; `rule` is None for the policy."""

    target: str
    value: str = ""
    rule: Rule | None = None
    unjudged: tuple[str, ...] = ()

    @property
    def lets_through(self) -> bool:
        return self.target not in {"DROP", "REJECT"}


@dataclass(frozen=True, slots=True)
class Rules:
    """All tables: policies of the kernel's chains, and the rules of each chain."""

    policies: Mapping[tuple[str, str], str] = field(default_factory=dict)
    chains: Mapping[tuple[str, str], Sequence[Rule]] = field(default_factory=dict)

    def judge(self, table: str, chain: str, seen: Seen) -> Verdict:
        """What a chain of the kernel does with a packet."""
        unjudged: list[str] = []
        found = self._run(table, chain, seen, unjudged, _DEPTH)
        verdict = found or Verdict(self.policies.get((table, chain), "ACCEPT"))
        return Verdict(verdict.target, verdict.value, verdict.rule, tuple(unjudged))

    def _run(self, table: str, chain: str, seen: Seen, unjudged: list[str], depth: int) -> Verdict | None:
        for rule in self.chains.get((table, chain), ()) if depth else ():
            matches, target, value = _read(rule, seen)
            if matches is None:
                unjudged.append(rule.plain)
                continue
            if not matches:
                continue
            if target in _ENDS:
                return Verdict(target, value, rule)
            if target == "RETURN":
                return None
            if (table, target) in self.chains:
                found = self._run(table, target, seen, unjudged, depth - 1)
                if found is not None:
                    return found
        return None


def read_rules(saved: str) -> Rules:
    """The output of iptables-save."""
    policies: dict[tuple[str, str], str] = {}
    chains: dict[tuple[str, str], list[Rule]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            chains.setdefault((table, name), [])
            if policy != "-":
                policies[table, name] = policy
        elif line.startswith("-A "):
            _, name, *tokens = shlex.split(line)
            chains.setdefault((table, name), []).append(Rule(tuple(tokens), line))
    return Rules(policies, chains)


def _read(rule: Rule, seen: Seen) -> tuple[bool | None, str, str]:
    """Does it match (None: that cannot be judged), its target, and the target's argument."""
    matches: bool | None = True
    target, value = "", ""
    for negated, name, argument in _options(rule.tokens):
        if name in {"-j", "-g"}:
            target = argument
        elif name in {"--to-destination", "--to-source", "--to-ports"}:
            value = argument
        elif name in {"-m", "--comment"} or target:
            continue
        else:
            fits = _fits(name, argument, seen)
            if fits is not None and fits == negated:
                return False, target, value
            matches = None if fits is None else matches
    return matches, target, value


def _options(tokens: Sequence[str]) -> Iterator[tuple[bool, str, str]]:
    """``! -o eth0`` as (True, "-o", "eth0")."""
    negated, at = False, 0
    while at < len(tokens):
        word = tokens[at]
        at += 1
        if word == "!":
            negated = True
            continue
        argument = ""
        if at < len(tokens) and not tokens[at].startswith("-") and tokens[at] != "!":
            argument = tokens[at]
            at += 1
        yield negated, word, argument
        negated = False


def _fits(name: str, argument: str, seen: Seen) -> bool | None:
    """Does the packet have it? None when that cannot be told from a packet."""
    told: Mapping[str, Callable[[], bool]] = {
        "-s": lambda: ip_address(seen.source) in ip_network(argument, strict=False),
        "-d": lambda: ip_address(seen.to) in ip_network(argument, strict=False),
        "-i": lambda: _device(seen.comes, argument),
        "-o": lambda: _device(seen.leaves, argument),
        "-p": lambda: _protocol(argument, seen.protocol),
        "--dport": lambda: _in_range(seen.port, argument),
        "--dports": lambda: any(_in_range(seen.port, part) for part in argument.split(",")),
        "--ctstate": lambda: bool({"NEW", *(["DNAT"] if seen.translated else [])} & set(argument.split(","))),
        "--icmp-type": lambda: argument in {"8", "echo-request", "any"},
        "--icmpv6-type": lambda: argument in {"128", "echo-request"},
    }
    return told[name]() if name in told else None


def _device(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _protocol(asked: str, protocol: str) -> bool:
    same = {"icmp": {"icmp", "icmpv6", "ipv6-icmp", "1", "58"}, "tcp": {"tcp", "6"}, "udp": {"udp", "17"}}
    return asked in {"all", "0"} or asked in same.get(protocol, {protocol})


def _in_range(port: int, text: str) -> bool:
    first, _, last = text.partition(":")
    return int(first or 0) <= port <= int(last or first)
