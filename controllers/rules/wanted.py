"""Declared rules as what iptables makes of them: in chains of ours, in order, each with the form it will have.

The canonicaliser is asked for texts it does not know yet; the result is kept for as long as the declared resources
are the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from controllers.drivers.iptables.rules import HASH_BITS, KERNEL_CHAINS, ChainKey, Family, Text, own_chain
from controllers.drivers.iptables.scratch import Meaning, Refusal, check_meaning
from controllers.rules.state import Jump, Spot, Want, Wanted
from desired.kinds.rules import Rule, RuleSpec
from desired.resource import Mode, Resource, ResourceId, Resources

Canonicaliser = Callable[[Sequence[Text]], Awaitable[Mapping[Text, Meaning | Refusal]]]

_BREATH = 500
"""Resources after which the loop gets a turn."""
_COMMENT_BYTES = 200
_FAMILIES = {"ipv4": Family.IPV4, "ipv6": Family.IPV6}
_ODD = re.compile(r"[^ !#-~]")
"""What is not printed of a name: anything but ASCII, and the quotation mark."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class _Draft:
    """A declared rule before its meaning is known. `own` is the chain of ours that it goes into."""

    resource: Resource
    own: ChainKey
    text: Text
    place: str


@dataclass(slots=True)
class WantedBuilder:
    """One per namespace."""

    wanted: Wanted = field(default_factory=Wanted)
    _resources: Resources | None = None
    _ahead: tuple[Resources, list[_Draft]] | None = None
    """What `texts` made, until it is used."""

    async def texts(self, resources: Resources) -> list[Text]:
        """What `build` will ask the canonicaliser for, if nothing else is declared until then."""
        drafts = await _drafts(resources)
        self._ahead = resources, drafts
        return _texts(drafts, _jumps(drafts))

    async def build(self, resources: Resources, canonicaliser: Canonicaliser) -> Wanted:
        """Raises DriverError when the canonicaliser fails: then nothing may be rewritten."""
        if self._resources is not resources:
            if self._resources != resources:
                ahead, self._ahead = self._ahead, None
                drafts = ahead[1] if ahead is not None and ahead[0] is resources else await _drafts(resources)
                self.wanted = await _build(drafts, canonicaliser)
            self._resources = resources
        return self.wanted


def _texts(drafts: Sequence[_Draft], jumps: Mapping[ChainKey, tuple[Text, bool]]) -> list[Text]:
    return [*(draft.text for draft in drafts), *(text for text, _ in jumps.values())]


async def _build(drafts: Sequence[_Draft], canonicaliser: Canonicaliser) -> Wanted:
    jumps = _jumps(drafts)
    meanings = await canonicaliser(_texts(drafts, jumps))
    invalid: dict[ResourceId, str] = {}
    for draft in drafts:
        meaning = meanings[draft.text]
        if isinstance(meaning, Refusal):
            invalid.setdefault(draft.resource.id, meaning.message)
    chains: dict[ChainKey, list[Want]] = {}
    first: dict[ChainKey, Resource] = {}
    for number, draft in enumerate(drafts):
        if number % _BREATH == _BREATH - 1:
            await asyncio.sleep(0)
        meaning = meanings[draft.text]
        if draft.resource.id in invalid or isinstance(meaning, Refusal):
            continue
        forms = tuple(sorted(held.form for held in meaning))
        body = meaning[0].body if len(meaning) == 1 else b""
        want = Want(draft.resource.id, draft.text.mark, forms, draft.text, body)
        chains.setdefault(draft.own, []).append(want)
        known = first.get(draft.own)
        if known is None or (known.spec.mode is Mode.OBSERVE and draft.resource.spec.mode is Mode.ENFORCE):
            first[draft.own] = draft.resource
    made: dict[ChainKey, Jump] = {}
    for own, (text, head) in jumps.items():
        if own in chains:
            rule = check_meaning(meanings[text])[0]
            made[own] = Jump(own, text.key, head, text.mark, rule.form, text, first[own].id, rule.body)
    return _indexed({key: tuple(wants) for key, wants in chains.items()}, made, invalid)


def _indexed(
    chains: dict[ChainKey, tuple[Want, ...]], jumps: dict[ChainKey, Jump], invalid: dict[ResourceId, str]
) -> Wanted:
    spots: dict[Spot, ResourceId] = {(k, want.mark): want.resource for k, wants in chains.items() for want in wants}
    ids = {key: [(want.mark, form) for want in wants for form in want.forms] for key, wants in chains.items()}
    kernel: dict[ChainKey, tuple[Jump, ...]] = {}
    for jump in jumps.values():
        spots[jump.kernel, jump.mark] = jump.resource
        kernel[jump.kernel] = (*kernel.get(jump.kernel, ()), jump)
    at = {(key, want.mark): index for key, wants in chains.items() for index, want in enumerate(wants)}
    return Wanted(chains, jumps, invalid, spots, ids, kernel, at)


async def _drafts(resources: Resources) -> list[_Draft]:
    drafts: list[_Draft] = []
    ordered = sorted(resources.values(), key=_order)
    for number, resource in enumerate(ordered):
        if number % _BREATH == _BREATH - 1:
            await asyncio.sleep(0)
        assert isinstance(resource.spec, RuleSpec)
        for index, rule in enumerate(resource.spec.rules()):
            drafts.append(_draft(resource, index, rule))
    return drafts


def _order(resource: Resource) -> tuple[int, int, str]:
    assert isinstance(resource.spec, RuleSpec)
    return resource.spec.place_in_order()


def _draft(resource: Resource, index: int, rule: Rule) -> _Draft:
    key = ChainKey(_FAMILIES[rule.family], rule.table, rule.chain)
    own = key
    if rule.chain in KERNEL_CHAINS:
        own = key._replace(chain=own_chain(rule.chain, rule.place))
    mark = intent_hash(str(resource.id), index, own, rule.tokens)
    return _Draft(resource, own, Text(key, mark, (*comment(mark, str(resource.id)), *rule.tokens)), rule.place)


def _jumps(drafts: Sequence[_Draft]) -> dict[ChainKey, tuple[Text, bool]]:
    """The jump into each chain of ours that belongs to one of the kernel's, and whether it stands first there."""
    found: dict[ChainKey, tuple[Text, bool]] = {}
    for draft in drafts:
        key = draft.text.key
        if draft.own != key and draft.own not in found:
            mark = jump_mark(draft.own)
            text = Text(key, mark, (*comment(mark, "jump"), "-j", draft.own.chain))
            found[draft.own] = text, draft.place == "first"
    return found


def comment(mark: str, label: str) -> tuple[str, ...]:
    """Our mark, as tokens: the intent hash and, for whoever reads the rules, which resource it is."""
    plain = _ODD.sub("?", label)
    return "-m", "comment", "--comment", f"reconciler:{mark} {plain}"[:_COMMENT_BYTES]


def intent_hash(name: str, index: int, own: ChainKey, tokens: Sequence[str]) -> str:
    """The hash of what is declared, as 12 letters and digits. Never from what iptables prints."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr((name, index, int(own.family), own.table, own.chain, tuple(tokens))).encode())
    number = int.from_bytes(digest.digest(), "big") >> (64 - HASH_BITS)
    letters = []
    for _ in range(12):
        number, digit = divmod(number, 36)
        letters.append(_DIGITS[digit])
    return "".join(letters)


def jump_mark(own: ChainKey) -> str:
    """The mark of the jump into a chain of ours."""
    return intent_hash("jump", 0, own, ())
