"""The canonicaliser: what a rule's text means, said by the system itself, in a throw-away network namespace.

Texts are restored there by the same iptables and read back by the same reader as everywhere, so their forms can be
compared with what a real namespace has. Cached by text. A text that iptables refuses is a `Refusal`, found before
anything real is touched; its neighbours go on. What is read back is never fed in again: a few rules change their
meaning on a second round.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controllers.drivers.iptables import reading
from controllers.drivers.iptables.rules import KERNEL_CHAINS, ChainKey, Family, Held, Text, Variant
from controllers.drivers.iptables.tools import FOR_A_WHILE, Ended, Tools
from reconciler.errors import DriverError

Meaning = tuple[Held, ...]
"""The rules that a text makes: one, or several when it names several addresses."""

_BUILT_IN = frozenset({"ACCEPT", "DROP", "RETURN", "QUEUE"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """iptables does not take this text. `message` is what it says."""

    message: str


@dataclass(slots=True)
class Scratch:
    """One throw-away namespace, made at the first need. `targets` are chains of others that rules may jump to."""

    tools: Tools
    _namespace: int | None = None
    _cache: dict[Text, Meaning | Refusal] = field(default_factory=dict)
    _asked: dict[Text, None] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def close(self) -> None:
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None

    async def meanings(self, texts: Sequence[Text]) -> Mapping[Text, Meaning | Refusal]:
        """What each text means. Raises DriverError when the canonicaliser itself fails: then nothing is known."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._cache]
        if missing:
            self._asked.update(dict.fromkeys(missing))
            async with self._turn:
                # What others have asked for meanwhile comes along: a thousand namespaces are not a thousand runs.
                asked, self._asked = dict.fromkeys([*missing, *self._asked]), {}
                await self._learn([text for text in asked if text not in self._cache])
        found = {text: self._cache[text] for text in texts}
        if len(self._cache) > 2 * len(found) + 20_000:
            self._cache = dict(found)
        return found

    async def _learn(self, texts: Sequence[Text]) -> None:
        for family in Family:
            waiting = [[text for text in texts if text.key.family is family]]
            while waiting:
                batch = waiting.pop()
                if batch:
                    waiting.extend(await self._batch(family, batch))

    async def _batch(self, family: Family, batch: Sequence[Text]) -> list[list[Text]]:
        """Learn a batch. Returns the batches to try instead when it was refused."""
        lines, at = _restorable(batch)
        ended = await self._restored(family, lines)
        if not ended.code:
            return _halves(await self._take(family, batch))
        if any(words in ended.err for words in FOR_A_WHILE):
            raise DriverError(f"the rules cannot be canonicalised now: {ended.complaint}; trying again")
        if len(batch) == 1:
            self._cache[batch[0]] = Refusal(ended.complaint)
            return []
        blamed = {at[number] for number in ended.lines if number in at}
        innocent = [text for text in batch if text not in blamed]
        if blamed and innocent and len(blamed) <= 64:
            # The line may be off by one: whoever is blamed is tried alone.
            return [innocent, *([text] for text in blamed)]
        return _halves(batch)

    async def _restored(self, family: Family, lines: Iterable[str]) -> Ended:
        if self._namespace is None:
            self._namespace = await self.tools.visitor.fresh()
        return await self.tools.restore(self._namespace, family, "\n".join(lines) + "\n", flush=True)

    async def _take(self, family: Family, batch: Sequence[Text]) -> list[Text]:
        """Learn what was restored. Returns what is not there, although iptables said yes, and has to be tried again."""
        found: dict[tuple[ChainKey, str], list[Held]] = {}
        for key, rules in (await self._read(family)).items():
            for rule in rules:
                found.setdefault((key, rule.mark), []).append(rule._replace(handle=0))
        missing = []
        for text in batch:
            meaning = found.get((text.key, text.mark))
            if meaning:
                self._cache[text] = tuple(meaning)
            elif len(batch) == 1:
                self._cache[text] = Refusal("iptables takes it and makes no rule of it")
            else:
                missing.append(text)
        return missing

    async def _read(self, family: Family) -> Mapping[ChainKey, Sequence[Held]]:
        assert self._namespace is not None
        if self.tools.variant is Variant.LEGACY:
            return reading.read_saved(await self.tools.save(self._namespace, family), family)
        return (await self.tools.visitor.visit_fd(self._namespace, lambda: reading.read_nft(whole=True))).chains


def _halves(batch: Sequence[Text]) -> list[list[Text]]:
    middle = len(batch) // 2
    return [list(half) for half in (batch[:middle], batch[middle:]) if half]


def _restorable(batch: Sequence[Text]) -> tuple[list[str], dict[int, Text]]:
    """The input for iptables-restore, and which text stands on which line (counted from 1)."""
    tables: dict[str, list[Text]] = {}
    for text in batch:
        tables.setdefault(text.key.table, []).append(text)
    lines: list[str] = []
    at: dict[int, Text] = {}
    for table, texts in tables.items():
        lines.append(f"*{table}")
        chains = {text.key.chain for text in texts} | {target for text in texts for target in _jumps(text)}
        lines += [f":{chain} - [0:0]" for chain in sorted(chains - KERNEL_CHAINS)]
        for text in texts:
            lines.append(f"-A {text.key.chain} {text.line}")
            at[len(lines)] = text
        lines.append("COMMIT")
    return lines, at


def _jumps(text: Text) -> Iterable[str]:
    """Chains that the rule may jump to. A target of iptables never has a lower-case letter or a dash in its name."""
    for option, target in zip(text.tokens, text.tokens[1:], strict=False):
        if option in {"-j", "--jump", "-g", "--goto"} and target not in _BUILT_IN and _is_chain(target):
            yield target


def _is_chain(target: str) -> bool:
    return any(letter.islower() or letter in "-." for letter in target)


def check_meaning(found: Meaning | Refusal) -> Meaning:
    """The meaning, for texts of our own that must have one. Raises DriverError."""
    if isinstance(found, Refusal):
        raise DriverError(f"the canonicaliser refuses a rule of our own: {found.message}")
    return found
