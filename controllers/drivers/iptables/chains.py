"""The rules of one namespace as pure bookkeeping: a dump, and what transactions do to it.

Only chains that matter are here: the kernel's own and ours. A transaction is applied only when it is the next one
(its generation is ours plus one) and when it says beyond doubt where a rule went; otherwise the whole is *void* and
has to be read again. So a lost message can never leave a wrong picture. `tables` feeds this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controllers.drivers.iptables.nftables import (
    ChainAdded,
    ChainGone,
    Generation,
    Notice,
    RuleAdded,
    RuleGone,
    TableGone,
)
from controllers.drivers.iptables.rules import ChainKey, Held


@dataclass(frozen=True, slots=True)
class Reading:
    """A dump, and the generation it shows (0 where there is none)."""

    chains: Mapping[ChainKey, list[Held]]
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one commit did, and the process that did it."""

    generation: int
    notices: Sequence[Notice] = ()
    pid: int = 0
    program: str = ""


@dataclass(frozen=True, slots=True)
class Touched:
    """What a transaction touched: rules of ours by their mark, and chains as such. None: anything may be different."""

    rules: frozenset[tuple[ChainKey, str]] = frozenset()
    chains: frozenset[ChainKey] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.rules or self.chains)


_GENERATIONS = 0xFFFF_FFFF


@dataclass(slots=True)
class Chains:
    """`held` is to be read by others and changed by nobody else. A chain that does not exist is no key of it."""

    held: dict[ChainKey, list[Held]] = field(default_factory=dict)
    generation: int = 0
    known: bool = False
    reading: bool = False
    _late: list[Transaction] = field(default_factory=list)

    def begin(self) -> None:
        """A dump is under way: what is committed meanwhile is kept, to be applied on top of it."""
        self.reading = True
        self._late.clear()

    def abandon(self) -> None:
        self.reading = False
        self._late.clear()
        self.void()

    def finish(self, reading: Reading) -> bool:
        """Take a dump. True when it differs from what was known."""
        late, self._late, self.reading = self._late, [], False
        before = self.held if self.known else None
        self.held = {key: list(rules) for key, rules in reading.chains.items()}
        self.generation, self.known = reading.generation, True
        for transaction in late:
            if (transaction.generation - self.generation - 1) & _GENERATIONS < _GENERATIONS // 2:
                self.apply(transaction)
        return self.held != before

    def void(self) -> None:
        self.known = False

    def apply(self, transaction: Transaction) -> Touched | None:
        """Take a commit. None when the picture is void after it and everything has to be looked at."""
        if self.reading:
            self._late.append(transaction)
            return None
        if not self.known:
            return None
        if transaction.generation == self.generation:
            return Touched()
        if transaction.generation != (self.generation + 1) & _GENERATIONS:
            self.void()
            return None
        self.generation = transaction.generation
        step = _Step(self.held)
        if not all(step.take(notice) for notice in transaction.notices):
            self.void()
            return None
        return Touched(frozenset(step.rules), frozenset(step.chains))

    def own_chains(self) -> Iterable[ChainKey]:
        return (key for key in self.held if key.chain.startswith("reconciler-"))


@dataclass(slots=True)
class _Step:
    """One transaction under way."""

    held: dict[ChainKey, list[Held]]
    rules: set[tuple[ChainKey, str]] = field(default_factory=set)
    chains: set[ChainKey] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)

    def take(self, notice: Notice) -> bool:
        """Apply one notice; False when it does not say enough."""
        match notice:
            case RuleAdded():
                self.touch(notice.key, notice.rule)
                return self.added(notice)
            case RuleGone(key, rule):
                self.touch(key, rule)
                return self.removed(key, rule)
            case ChainAdded(key):
                self.chains.add(key)
                self.held.setdefault(key, [])
            case ChainGone(key):
                self.chains.add(key)
                self.held.pop(key, None)
            case TableGone(family, table):
                for key in [key for key in self.held if key.family == family and key.table == table]:
                    self.chains.add(key)
                    del self.held[key]
            case Generation():
                return True
        return True

    def touch(self, key: ChainKey, rule: Held) -> None:
        self.rules.add((key, rule.mark))

    def added(self, notice: RuleAdded) -> bool:
        rules = self.held.setdefault(notice.key, [])
        if notice.rule.handle in self.gone:
            return False  # replaced in place: the handle stays, and the position is not always told
        if notice.after is None:
            rules.insert(len(rules) if notice.last else 0, notice.rule)
            return True
        for index in range(len(rules) - 1, -1, -1):
            if rules[index].handle == notice.after:
                rules.insert(index + 1, notice.rule)
                return True
        return False

    def removed(self, key: ChainKey, rule: Held) -> bool:
        self.gone.add(rule.handle)
        rules = self.held.get(key, [])
        for index, known in enumerate(rules):
            if known.handle == rule.handle:
                del rules[index]
                return True
        return False
