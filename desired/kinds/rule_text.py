"""A rule's text as iptables-restore reads it: cut into tokens, and checked for what would not be a rule.

Called by `desired.kinds.rules`. Nothing is normalised here; what a text means is said by iptables itself, later.
"""

from __future__ import annotations

import re

_LONGEST = 2000
_SHORT = frozenset("psdiomjgf")
_SETS = frozenset({"match-set", "add-set", "del-set", "map-set"})
_COMMANDS = frozenset({
    "append", "delete", "check", "insert", "replace", "list", "list-rules", "flush", "zero", "new-chain",
    "delete-chain", "rename-chain", "policy", "table", "numeric", "verbose", "wait", "wait-interval", "exact",
    "version", "help", "line-numbers", "modprobe", "set-counters", "ipv4", "ipv6",
})  # fmt: skip


def split_rule(text: str) -> tuple[str, ...]:
    """Cut into tokens: at spaces, but not within double quotes, where a backslash keeps the next character.

    Raises ValueError for an open quote, and for options that are commands or would change more than this rule.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"a rule of {len(text)} characters is too long; at most {_LONGEST}")
    tokens = _tokens(text)
    if not tokens:
        raise ValueError("a rule cannot be empty; right would be like '-s 10.0.0.0/24 -j ACCEPT'")
    for token in tokens:
        _check(token)
    if not {"-j", "--jump", "-g", "--goto"} & {*tokens}:
        raise ValueError("a rule needs a target: '-j ACCEPT', or '-j RETURN' to do nothing")
    return tuple(tokens)


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    current: list[str] | None = None
    inside = escaped = False
    for letter in text:
        if escaped:
            escaped = False
        elif inside and letter == "\\":
            escaped = True
            continue
        elif letter == '"':
            inside = not inside
            current = [] if current is None else current
            continue
        elif letter == " " and not inside:
            if current is not None:
                tokens.append("".join(current))
            current = None
            continue
        current = [] if current is None else current
        current.append(letter)
    if inside or escaped:
        raise ValueError("a double quote is opened and not closed")
    if current is not None:
        tokens.append("".join(current))
    return tokens


def _check(token: str) -> None:
    if not token.startswith("-") or len(token) == 1:
        return
    if not token.startswith("--"):
        if len(token) == 2 and token[1] in _SHORT:
            return
        hint = " (write '-p tcp', with a space)" if token[1] in _SHORT else ""
        raise ValueError(f"{token!r} cannot be in a rule{hint}: chain and table are said by where it is written")
    name = token[2:].partition("=")[0]
    if name in _COMMANDS or (len(name) > 1 and "modprobe".startswith(name)):
        raise ValueError(f"{token!r} cannot be in a rule: it is a command to iptables itself")
    if name in _SETS:
        raise ValueError(
            f"{token!r} names an ipset, and such rules are not held: the rule contains the number of the set, which"
            " is another one in each namespace. Write the addresses out (-s A,B,C), or leave the rule to whoever makes"
            " the set, in a chain that is not ours"
        )


def chain_name(name: str) -> str:
    """Check the name of a chain of ours. Raises ValueError."""
    if len(name) > 28 or not re.fullmatch(r"reconciler-[A-Za-z0-9_.][A-Za-z0-9_.-]*", name):
        raise ValueError(
            f"{name!r} is neither a chain of the kernel (PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING) nor a name"
            " for a chain of yours: that begins with 'reconciler-' and has at most 28 letters, digits and _ . -"
        )
    if name.removeprefix("reconciler-").removesuffix("-end") in {
        "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING",
    }:  # fmt: skip
        raise ValueError(f"{name!r} is where the daemon keeps the rules of the kernel's chain; choose another name")
    return name
