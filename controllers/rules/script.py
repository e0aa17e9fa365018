"""A change as iptables-restore reads it with --noflush: only the rules that change, never a whole table. Pure.

It is made at the last moment, from what is there then. Deletions go by number from the end, insertions by number from
the start, so that each number is right when its line is read; the whole is one transaction per table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controllers.drivers.iptables.rules import KERNEL_CHAINS, ChainKey, Family, Held
from controllers.rules.diff import jump_problem, last_final
from controllers.rules.state import Drop, DropChain, Jump, Put, Wanted
from controllers.rules.wanted import jump_mark
from desired.resource import ResourceId
from reconciler.contract import Change


@dataclass(frozen=True, slots=True)
class Script:
    """Input for one iptables-restore. `blame` says of which resource a line (from 1) is; a deletion is nobody's."""

    family: Family
    text: str
    blame: Mapping[int, ResourceId]


@dataclass(slots=True)
class _Table:
    """The lines for one table, in the order in which they have to come."""

    create: list[str] = field(default_factory=list)
    delete: dict[str, set[int]] = field(default_factory=dict)
    insert: list[tuple[str, ResourceId]] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)

    def lines(self) -> Iterable[tuple[str, ResourceId | None]]:
        yield from ((line, None) for line in self.create)
        for chain, doomed in self.delete.items():
            yield from ((f"-D {chain} {index + 1}", None) for index in sorted(doomed, reverse=True))
        yield from self.insert
        yield from ((line, None) for line in self.remove)

    def doom(self, key: ChainKey, indices: Iterable[int]) -> None:
        """Rules of a chain, by index, are to be deleted."""
        found = set(indices)
        if found:
            self.delete.setdefault(key.chain, set()).update(found)

    def __bool__(self) -> bool:
        return bool(self.create or self.delete or self.insert or self.remove)


@dataclass(slots=True)
class _Orders:
    """The changes, by chain."""

    puts: dict[ChainKey, set[str]] = field(default_factory=dict)
    drops: dict[ChainKey, set[tuple[str, bytes]]] = field(default_factory=dict)
    jumps: set[ChainKey] = field(default_factory=set)
    chains: set[ChainKey] = field(default_factory=set)

    @classmethod
    def of(cls, changes: Iterable[Change]) -> _Orders:
        orders = cls()
        for change in changes:
            match change.action:
                case Put(spots, jumps):
                    for key, mark in spots:
                        orders.puts.setdefault(key, set()).add(mark)
                    orders.jumps.update(jumps)
                case Drop(key, mark, form):
                    orders.drops.setdefault(key, set()).add((mark, form))
                case DropChain(key):
                    orders.chains.add(key)
        return orders


def scripts(held: Mapping[ChainKey, Sequence[Held]], wanted: Wanted, changes: Iterable[Change]) -> list[Script]:
    """One script for each family that has something to change."""
    orders = _Orders.of(changes)
    tables: dict[tuple[Family, str], _Table] = {}

    def table(key: ChainKey) -> _Table:
        return tables.setdefault((key.family, key.table), _Table())

    empty = set(orders.chains)
    for key in dict.fromkeys([*orders.puts, *orders.drops]):
        if key.chain in KERNEL_CHAINS:
            table(key).doom(key, _doomed(held.get(key, ()), set(), orders.drops[key]))
            continue
        left = _chain(table(key), key, held.get(key), wanted, orders)
        if left == 0 and key not in wanted.chains:
            empty.add(key)
    for key in sorted(empty):
        _remove(table(key), key, held)
    for kernel, jumps in wanted.kernel.items():
        wrong = [jump for jump in jumps if jump.own in orders.jumps or jump.own in orders.puts]
        wrong = [jump for jump in wrong if jump_problem(jump, held.get(kernel, ()))]
        if wrong:
            _jumps(table(kernel), kernel, wrong, held, orders)
    return [script for family in Family if (script := _script(family, tables)) is not None]


def _script(family: Family, tables: Mapping[tuple[Family, str], _Table]) -> Script | None:
    lines: list[str] = []
    blame: dict[int, ResourceId] = {}
    for (of, name), table in tables.items():
        if of is not family or not table:
            continue
        lines.append(f"*{name}")
        for line, rid in table.lines():
            lines.append(line)
            if rid is not None:
                blame[len(lines)] = rid
        lines.append("COMMIT")
    return Script(family, "\n".join(lines) + "\n", blame) if lines else None


def _doomed(rules: Sequence[Held], marks: set[str], drops: set[tuple[str, bytes]]) -> list[int]:
    return [index for index, rule in enumerate(rules) if rule.id[0] in marks or rule.id in drops]


def _chain(table: _Table, key: ChainKey, rules: Sequence[Held] | None, wanted: Wanted, orders: _Orders) -> int:
    """Put and drop rules of one chain of ours. Returns how many rules it has afterwards."""
    puts, drops = orders.puts.get(key, set()), orders.drops.get(key, set())
    if rules is None:
        if not puts:
            return -1
        table.create.append(f":{key.chain} - [0:0]")
        rules = ()
    doomed = _doomed(rules, puts, drops)
    table.doom(key, doomed)
    gone = set(doomed)
    left = [rule for index, rule in enumerate(rules) if index not in gone] if gone else rules
    after = {rule.mark: index + 1 for index, rule in enumerate(left)}
    anchor = shift = 0
    pending: dict[int, list[tuple[str, ResourceId, int]]] = {}
    for want in wanted.chains.get(key, ()):
        if want.mark in puts:
            pending.setdefault(anchor, []).append((want.text.line, want.resource, len(want.forms)))
        else:
            anchor = after.get(want.mark, anchor)
    for place in sorted(pending):
        for line, rid, count in pending[place]:
            if place == len(left):
                table.insert.append((f"-A {key.chain} {line}", rid))
            else:
                table.insert.append((f"-I {key.chain} {place + shift + 1} {line}", rid))
            shift += count
    return len(left) + shift


def _jumps(
    table: _Table,
    kernel: ChainKey,
    jumps: Sequence[Jump],
    held: Mapping[ChainKey, Sequence[Held]],
    orders: _Orders,
) -> None:
    """Put jumps (again) where they have to be in one of the kernel's chains: first, or before its final REJECT."""
    rules = held.get(kernel, ())
    marks = {jump.mark for jump in jumps}
    table.doom(kernel, (index for index, rule in enumerate(rules) if rule.mark in marks))
    gone = table.delete.get(kernel.chain, set())
    left = [rule for index, rule in enumerate(rules) if index not in gone]
    for shift, jump in enumerate(sorted(jumps, key=lambda jump: not jump.first)):
        if jump.own not in held and jump.own not in orders.puts:
            table.create.append(f":{jump.own.chain} - [0:0]")
        at = 0 if jump.first else last_final(left) + shift
        where = f"-I {kernel.chain} {at + 1}" if at < len(left) + shift else f"-A {kernel.chain}"
        table.insert.append((f"{where} {jump.text.line}", jump.resource))


def _remove(table: _Table, key: ChainKey, held: Mapping[ChainKey, Sequence[Held]]) -> None:
    """Delete a chain of ours, and the jump that leads into it."""
    mark = jump_mark(key)
    for chain in KERNEL_CHAINS:
        kernel = key._replace(chain=chain)
        table.doom(kernel, (index for index, rule in enumerate(held.get(kernel, ())) if rule.mark == mark))
    table.remove += [f"-F {key.chain}", f"-X {key.chain}"]
