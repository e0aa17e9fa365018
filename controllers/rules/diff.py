"""Compare declared rules with those that are there. Pure; forms are compared with forms, never text with text.

A chain that is equal from end to end costs one comparison of lists. Otherwise what is equal at both ends is set aside,
and in the rest the longest run of rules in their declared order stays untouched: the fewest rules move, and the
counters of all others survive.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

from controllers.drivers.iptables.rules import KERNEL_CHAINS, OWN_PREFIX, ChainKey, Held
from controllers.rules.state import Drop, DropChain, Jump, Observed, Put, Spot, Want, Wanted
from desired.resource import ResourceId
from reconciler.contract import Change, Disruption, Finding, Group, Outcome, Plan, Verb, View

MISSING = "rule is missing"
TWICE = "rule is there more than once"
_ID = itemgetter(0)


@dataclass(slots=True)
class _Repair:
    """What one resource needs, gathered over its chains. `known`: some of it is there, or was until just now."""

    known: bool = False
    why: list[str] = field(default_factory=list)
    spots: list[Spot] = field(default_factory=list)
    jumps: list[ChainKey] = field(default_factory=list)


@dataclass(slots=True)
class _Draft:
    observed: Observed
    repairs: dict[ResourceId, _Repair] = field(default_factory=dict)
    drops: list[Change] = field(default_factory=list)

    def repair(self, rid: ResourceId, why: str, *, known: bool) -> _Repair:
        repair = self.repairs.setdefault(rid, _Repair())
        repair.known |= known
        if why not in repair.why:
            repair.why.append(why)
        return repair


def diff(view: View, observed: Observed) -> Plan:
    """The plan for one namespace, or for the chains that `observed` narrows to."""
    draft = _Draft(observed)
    wanted = observed.wanted
    for key in _chains(observed):
        if key.chain in KERNEL_CHAINS:
            _kernel_chain(draft, key, wanted.kernel.get(key, ()))
        else:
            _own_chain(draft, key)
    changes = (*_puts(draft), *draft.drops)
    namespace = ResourceId("namespace", observed.namespace)
    after = (namespace,) if namespace in view.everything else ()
    groups = (Group(changes, after, divisible=True),) if changes else ()
    findings = tuple(
        Finding(rid, Outcome.FAILED, f"iptables refuses it: {message}")
        for rid, message in wanted.invalid.items()
        if observed.spots is None
    )
    looked_at = None if observed.spots is None else frozenset(_looked_at(observed, changes))
    return Plan(groups, findings, _owned(observed), looked_at)


def _chains(observed: Observed) -> Iterator[ChainKey]:
    """The chains to look at: ours that are there or wanted, and the kernel's with a jump of ours."""
    wanted, held = observed.wanted, observed.held
    if observed.spots is not None:
        yield from dict.fromkeys(key for key, _ in observed.spots)
        return
    yield from wanted.chains
    yield from wanted.kernel
    for key, rules in held.items():
        if key.chain.startswith(OWN_PREFIX):
            if key not in wanted.chains:
                yield key
        elif key not in wanted.kernel and any(rule.mark and rule.label == "jump" for rule in rules):
            yield key


# -- our own chains -------------------------------------------------------------------------------------------------


def _own_chain(draft: _Draft, key: ChainKey) -> None:
    observed = draft.observed
    wants = observed.wanted.chains.get(key, ())
    rules = observed.held.get(key)
    if rules is None:
        for want in wants:
            draft.repair(want.resource, MISSING, known=False).spots.append((key, want.mark))
        return
    if not wants:
        _unwanted_chain(draft, key, rules)
        return
    if list(map(_ID, rules)) == observed.wanted.ids[key]:
        return
    wrong = compare(wants, rules, observed.wanted.ids[key], observed.forms)
    _doubles(wrong, observed.wanted, key)
    for want in wrong.puts:
        why = wrong.reasons.get(want.mark, MISSING)
        draft.repair(want.resource, why, known=want.mark in wrong.reasons).spots.append((key, want.mark))
    for rule in wrong.strays:
        _stray(draft, key, rule)


@dataclass(slots=True)
class Wrong:
    """What is wrong in a chain: rules to be put (again), why where it is not that they are missing, and strays."""

    puts: list[Want] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    strays: list[Held] = field(default_factory=list)


def compare(
    wants: Sequence[Want],
    rules: Sequence[Held],
    ids: Sequence[tuple[str, bytes]],
    forms: Mapping[str, tuple[tuple[bytes, ...], tuple[bytes, ...]]],
) -> Wrong:
    """Compare a chain of ours with what is declared for it; `ids` are those of all rules that `wants` make."""
    if len(ids) == len(wants):  # each makes one rule: the everyday case, where thousands can be set aside at once
        there = list(map(_ID, rules))
        head = common(there, ids)
        there.reverse()
        tail = min(common(there, ids[::-1]), len(rules) - head, len(wants) - head)
        wants, rules = wants[head : len(wants) - tail], rules[head : len(rules) - tail]
    wrong = Wrong()
    where: dict[str, list[int]] = {}
    for index, rule in enumerate(rules):
        where.setdefault(rule.mark, []).append(index)
    right: list[tuple[int, Want]] = []
    marks = {want.mark for want in wants}
    for want in wants:
        at = where.get(want.mark, [])
        if at and _is_right(want, [rules[index] for index in at], forms) and at[-1] - at[0] == len(at) - 1:
            right.append((at[0], want))
        elif at:
            wrong.reasons[want.mark] = _how(want, [rules[index] for index in at])
    stays = {right[index][1].mark for index in longest_increasing([at for at, _ in right])}
    for _, want in right:
        if want.mark not in stays:
            wrong.reasons[want.mark] = "rule is not in its place"
    wrong.puts = [want for want in wants if want.mark not in stays]
    wrong.strays = [rule for rule in rules if rule.mark not in marks]
    return wrong


def _doubles(wrong: Wrong, wanted: Wanted, key: ChainKey) -> None:
    """A stray that is a further copy of a declared rule which stays: all copies go, and the rule is put anew."""
    strays, wrong.strays = wrong.strays, []
    for rule in strays:
        index = wanted.at.get((key, rule.mark))
        if index is None:
            wrong.strays.append(rule)
        elif rule.mark not in wrong.reasons:
            wrong.reasons[rule.mark] = TWICE
            wrong.puts.append(wanted.chains[key][index])


def _how(want: Want, rules: Sequence[Held]) -> str:
    if any(rule.form not in want.forms for rule in rules):
        return "rule says something else (its comment is unchanged)"
    return TWICE if len(rules) > len(want.forms) else "a part of the rule is missing"


def common(left: Sequence[object], right: Sequence[object]) -> int:
    """How many items from the start are equal: by whole blocks, because that is one comparison for each."""
    at, end = 0, min(len(left), len(right))
    block = 1024
    while block:
        while at + block <= end and left[at : at + block] == right[at : at + block]:
            at += block
        block //= 4
    return at


def _is_right(
    want: Want, rules: Sequence[Held], forms: Mapping[str, tuple[tuple[bytes, ...], tuple[bytes, ...]]]
) -> bool:
    if len(rules) == 1 == len(want.forms) and rules[0].mark == want.mark and rules[0].form == want.forms[0]:
        return True
    found = tuple(sorted(rule.form for rule in rules))
    if any(rule.mark != want.mark for rule in rules):
        return False
    return found == want.forms or forms.get(want.mark) == (want.forms, found)


def longest_increasing(values: Sequence[int]) -> list[int]:
    """The indices of a longest strictly increasing subsequence."""
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values):
        length = bisect_left(tails, value)
        before.append(ends[length - 1] if length else -1)
        if length == len(tails):
            tails.append(value)
            ends.append(index)
        else:
            tails[length], ends[length] = value, index
    found: list[int] = []
    index = ends[-1] if ends else -1
    while index >= 0:
        found.append(index)
        index = before[index]
    return found[::-1]


def _unwanted_chain(draft: _Draft, key: ChainKey, rules: Sequence[Held]) -> None:
    for rule in dict.fromkeys(rule._replace(handle=0) for rule in rules):
        _stray(draft, key, rule)
    if not rules:
        rid = ResourceId("rule", f"{draft.observed.namespace}/chain {key}")
        why = "chain of ours for which nothing is declared"
        draft.drops.append(_with_its_rules(Change(rid, Verb.DELETE, DropChain(key), why, str(key), "", prune=True)))


def _with_its_rules(change: Change) -> Change:
    """A chain, or the jump to it: it was made for the rules in it, and these count when they are deleted."""
    return replace(change, inside=ResourceId("rule", "those of its chain"))


def _stray(draft: _Draft, key: ChainKey, rule: Held) -> None:
    ours = bool(rule.mark)
    rid = draft.observed.names.get(rule.mark) or _named(rule.label)
    if rid is None:
        rid = ResourceId("rule", f"{draft.observed.namespace}/{key} {rule.mark or rule.form.hex()[:12]}")
    why = "no longer declared" if ours else f"foreign rule in {key.chain}, which is ours"
    action = Drop(key, rule.mark, rule.form)
    draft.drops.append(Change(rid, Verb.DELETE, action, why, f"in {key}", "", Disruption.BRIEF, prune=ours))


def _named(label: str) -> ResourceId | None:
    kind, slash, name = label.partition("/")
    return ResourceId(kind, name) if slash and kind and name else None


# -- the kernel's chains --------------------------------------------------------------------------------------------


def _kernel_chain(draft: _Draft, key: ChainKey, jumps: Sequence[Jump]) -> None:
    observed = draft.observed
    rules = observed.held.get(key, [])
    for jump in jumps:
        problem = jump_problem(jump, rules)
        if problem and (rules or jump.own in observed.held):
            # Where not even our chain is there, its rules are missing, and the jump comes with them.
            draft.repair(jump.resource, problem, known=jump.own in observed.held).jumps.append(jump.own)
    known = {jump.mark for jump in jumps}
    for rule in rules:
        if rule.mark and rule.label == "jump" and rule.mark not in known:
            rid = ResourceId("rule", f"{observed.namespace}/jump from {key}")
            why = "jump of ours for which nothing is declared"
            action = Drop(key, rule.mark, rule.form)
            change = Change(rid, Verb.DELETE, action, why, f"in {key}", "", prune=True)
            draft.drops.append(_with_its_rules(change))


def jump_problem(jump: Jump, rules: Sequence[Held]) -> str:
    """What is wrong with a jump in the kernel's chain; '' when nothing is."""
    at = [index for index, rule in enumerate(rules) if rule.mark == jump.mark]
    what = f"jump from {jump.kernel} to {jump.own.chain}"
    if not at:
        return f"{what} is missing"
    if len(at) > 1:
        return f"{what} is there {len(at)} times"
    if rules[at[0]].form != jump.form:
        return f"{what} was changed"
    if jump.first:
        return "" if at[0] == 0 else f"{what} is no longer first"
    return "" if at[0] < last_final(rules) else f"{what} stands after the final REJECT"


def last_final(rules: Sequence[Held]) -> int:
    """The index of the last rule that rejects or drops everything; the length if there is none."""
    return next((index for index in range(len(rules) - 1, -1, -1) if rules[index].final), len(rules))


# -- what comes of it -----------------------------------------------------------------------------------------------


def _puts(draft: _Draft) -> Iterator[Change]:
    for rid, repair in draft.repairs.items():
        action = Put(tuple(sorted(repair.spots)), tuple(sorted(repair.jumps)))
        after = rid.name.partition("/")[2]
        verb = Verb.UPDATE if repair.known else Verb.CREATE
        disruption = Disruption.BRIEF if repair.known else Disruption.NONE
        yield Change(rid, verb, action, "; ".join(repair.why), "", after, disruption)


def _looked_at(observed: Observed, changes: Sequence[Change]) -> Iterator[ResourceId]:
    assert observed.spots is not None
    yield from (change.resource for change in changes)
    for spot in observed.spots:
        rid = observed.wanted.spots.get(spot)
        if rid is None:
            rid = observed.names.get(spot[1])
        if rid is not None:
            yield rid


def _owned(observed: Observed) -> dict[str, int]:
    """What is declared makes one or more rules; it is counted once."""
    if observed.spots is not None:
        return {}
    own = [(key, rules) for key, rules in observed.held.items() if key.chain.startswith(OWN_PREFIX)]
    names = {rule.label for _, rules in own for rule in rules if rule.mark and "/" in rule.label}
    nameless = {(key, rule.mark) for key, rules in own for rule in rules if rule.mark and "/" not in rule.label}
    return dict(Counter([name.partition("/")[0] for name in names] + ["rule"] * len(nameless)))
