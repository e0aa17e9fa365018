"""A change of few rules as operations on handles, for the fast path of iptables-nft. Pure.

It is for the everyday repair: the chains are there, and single rules of ours are missing, changed or too many, or the
jump to them is not where it must be. Whatever else there is to do is done by iptables-restore (`script`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controllers.drivers.iptables.nftables import Delete, Insert
from controllers.drivers.iptables.rules import ChainKey, Held
from controllers.drivers.iptables.writing import MANY, protocol_of
from controllers.rules.diff import last_final
from controllers.rules.state import Drop, Jump, Put, Wanted
from reconciler.contract import Change

Operation = Insert | Delete


@dataclass(slots=True)
class _Orders:
    """What is to be done, by chain of ours."""

    puts: dict[ChainKey, set[str]] = field(default_factory=dict)
    drops: dict[ChainKey, set[tuple[str, bytes]]] = field(default_factory=dict)
    jumps: set[ChainKey] = field(default_factory=set)


def patch(held: Mapping[ChainKey, Sequence[Held]], wanted: Wanted, changes: Iterable[Change]) -> list[Operation] | None:
    """The operations, or None when it takes more than rules of our chains and the jumps to them, or too many."""
    orders = _orders(wanted, changes)
    if orders is None or sum(map(len, orders.puts.values())) > MANY:
        return None
    operations: list[Operation] = []
    for key in dict.fromkeys([*orders.puts, *orders.drops]):
        rules = held.get(key)
        found = None if rules is None else _chain(key, rules, wanted, orders)
        if found is None:
            return None
        operations += found
    for own in sorted(orders.jumps):
        jump = wanted.jumps[own]
        if own not in held or not jump.body or len(wanted.kernel[jump.kernel]) > 1:
            return None
        operations += _jump(jump, held.get(jump.kernel, ()))
    return operations if 0 < len(operations) <= MANY else None


def _orders(wanted: Wanted, changes: Iterable[Change]) -> _Orders | None:
    orders = _Orders()
    for change in changes:
        match change.action:
            case Put(spots, jumps):
                orders.jumps.update(jumps)
                for key, mark in spots:
                    orders.puts.setdefault(key, set()).add(mark)
            case Drop(key, mark, form) if key in wanted.chains:
                orders.drops.setdefault(key, set()).add((mark, form))
            case _:
                return None
    return orders


def _chain(key: ChainKey, rules: Sequence[Held], wanted: Wanted, orders: _Orders) -> list[Operation] | None:
    puts, drops = orders.puts.get(key, set()), orders.drops.get(key, set())
    operations: list[Operation] = [Delete(key, rule.handle) for rule in rules if rule.id[0] in puts or rule.id in drops]
    wants = wanted.chains[key]
    for index in sorted(wanted.at[key, mark] for mark in puts):
        want = wants[index]
        protocol = protocol_of(want.text.tokens)
        if not want.body or protocol is None:
            return None
        operations.append(Insert(key, want.body, _before(index, rules, wanted, key, puts), *protocol))
    return operations


def _jump(jump: Jump, rules: Sequence[Held]) -> list[Operation]:
    """Put the only jump of ours in one of the kernel's chains where it has to be."""
    operations: list[Operation] = [Delete(jump.kernel, rule.handle) for rule in rules if rule.mark == jump.mark]
    left = [rule for rule in rules if rule.mark != jump.mark]
    at = 0 if jump.first else last_final(left)
    before = left[at].handle if at < len(left) else None
    return [*operations, Insert(jump.kernel, jump.body, before)]


def _before(index: int, rules: Sequence[Held], wanted: Wanted, key: ChainKey, puts: set[str]) -> int | None:
    """The handle of the next declared rule that is there and stays."""
    wants = wanted.chains[key]
    for later in range(index + 1, len(wants)):
        mark = wants[later].mark
        if mark not in puts:
            for rule in rules:
                if rule.id[0] == mark:
                    return rule.handle
    return None
