"""Laws of the pure part, over any state of a chain: what is planned leads to what is declared, and to nothing else."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from controllers.drivers.iptables.nftables import Delete, Insert
from controllers.drivers.iptables.rules import ChainKey, Family, Held, Text
from controllers.rules.diff import common, diff, longest_increasing
from controllers.rules.patch import patch
from controllers.rules.script import scripts
from controllers.rules.state import Drop, Jump, Observed, Want, Wanted
from controllers.rules.wanted import jump_mark
from desired.resource import ResourceId
from reconciler.contract import Scope, View
from reconciler.gates.budget import counted

KERNEL = ChainKey(Family.IPV4, "nat", "PREROUTING")
OWN = KERNEL._replace(chain="reconciler-PREROUTING")
JUMP = Held((jump_mark(OWN), b"jump"), 0, "jump")
MARKS = "abcdefgh"


def want(mark: str) -> Want:
    key = OWN._replace(chain="PREROUTING")
    raw = mark.encode()
    return Want(ResourceId("rule", mark), mark, (b"form " + raw,), Text(key, mark, ("-j", mark)), b"body " + raw)


def wanted(marks: list[str]) -> Wanted:
    if not marks:
        return Wanted()
    wants = tuple(want(mark) for mark in marks)
    mark, text = jump_mark(OWN), Text(KERNEL, jump_mark(OWN), ("-j", "JUMP"))
    jump = Jump(OWN, KERNEL, True, mark, b"jump", text, wants[0].resource, b"body JUMP")
    return Wanted(
        {OWN: wants},
        {OWN: jump},
        {},
        {(OWN, w.mark): w.resource for w in wants} | {(KERNEL, jump.mark): jump.resource},
        {OWN: [(w.mark, form) for w in wants for form in w.forms]},
        {KERNEL: (jump,)},
        {(OWN, w.mark): index for index, w in enumerate(wants)},
    )


declared = st.lists(st.sampled_from(MARKS), unique=True, max_size=8)
right = st.sampled_from(MARKS).map(lambda m: Held((m, b"form " + m.encode()), 0, f"rule/{m}"))
changed = st.sampled_from(MARKS).map(lambda m: Held((m, b"other"), 0, f"rule/{m}"))
foreign = st.sampled_from("xyz").map(lambda m: Held(("", m.encode())))
final = st.just(Held(("", b"reject"), 0, "", True))
own_rules = st.none() | st.lists(right | changed | foreign, max_size=10)
kernel_rules = st.lists(foreign | final | st.just(JUMP) | st.just(JUMP._replace(id=(JUMP.mark, b"bent"))), max_size=5)


def world(own: list[Held] | None, kernel: list[Held]) -> dict[ChainKey, list[Held]]:
    chains = {KERNEL: list(kernel)} if kernel else {}
    if own is not None:
        chains[OWN] = list(own)
    number = 0
    for rules in chains.values():
        for index, rule in enumerate(rules):
            number += 1
            rules[index] = rule._replace(handle=number)
    if own is None and OWN not in chains:  # nothing can jump to a chain that is not there
        chains[KERNEL] = [rule for rule in chains.get(KERNEL, []) if rule.mark != JUMP.mark]
    return chains


def plan(held: dict[ChainKey, list[Held]], want: Wanted):
    view = View(Scope("rules", "q1"), {}, "r1")
    found = diff(view, Observed("q1", held, want))
    return [change for group in found.groups for change in group.changes]


def restore(held: dict[ChainKey, list[Held]], text: str, made: dict[str, Held]) -> None:
    """iptables-restore --noflush, as far as the scripts use it; fails where the real one fails."""
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        if line in {"COMMIT", ""} or line.startswith("*"):
            continue
        command, chain, *rest = line.replace(":", ": ", 1).split(" ") if line.startswith(":") else line.split(" ")
        key = ChainKey(Family.IPV4, table, chain)
        rules = held.setdefault(key, []) if key.chain == "PREROUTING" else held.get(key)
        match command:
            case ":":
                held[key] = []
            case "-D":
                assert rules is not None and int(rest[0]) <= len(rules), "Index of deletion too big"
                del rules[int(rest[0]) - 1]
            case "-I":
                assert rules is not None and int(rest[0]) <= len(rules) + 1, "Index of insertion too big"
                rules.insert(int(rest[0]) - 1, made[rest[-1]])
            case "-A":
                assert rules is not None, "No chain"
                rules.append(made[rest[-1]])
            case "-F":
                assert rules is not None, "No chain"
                rules.clear()
            case "-X":
                assert rules == [], "not empty"
                assert not any(rule.label == "jump" for rule in held.get(KERNEL, [])), "in use"
                del held[key]
            case _:
                raise AssertionError(line)


def made(want: Wanted) -> dict[str, Held]:
    rules = {w.mark: Held((w.mark, w.forms[0]), 0, f"rule/{w.mark}") for ws in want.chains.values() for w in ws}
    return rules | {"JUMP": JUMP}


def check(held: dict[ChainKey, list[Held]], want: Wanted, kernel: list[Held]) -> None:
    assert [rule.id for rule in held.get(OWN, [])] == want.ids.get(OWN, [])
    assert plan(held, want) == []
    others = [rule.id for rule in kernel if rule.mark != JUMP.mark]
    assert [rule.id for rule in held.get(KERNEL, []) if rule.mark != JUMP.mark] == others
    if want.chains:
        assert held[KERNEL][0].id == JUMP.id
    else:
        assert OWN not in held


@given(declared, own_rules, kernel_rules)
def test_from_any_state_one_script_leads_to_what_is_declared_and_leaves_what_is_others(marks, own, kernel):
    want, held = wanted(marks), world(own, kernel)
    before = list(held.get(KERNEL, []))
    changes = plan(held, want)
    for script in scripts(held, want, changes):
        restore(held, script.text, made(want))
    for script in scripts(held, want, plan(held, want)):  # an unwanted chain that was empty is found in a second look
        restore(held, script.text, made(want))
    check(held, want, before)


@given(declared.filter(bool), own_rules.filter(lambda rules: rules is not None), kernel_rules)
def test_the_fast_path_leads_to_the_same_and_touches_as_little(marks, own, kernel):
    want, held = wanted(marks), world(own, kernel)
    before = list(held.get(KERNEL, []))
    operations = patch(held, want, plan(held, want))
    if operations is None:
        assert plan(held, want) == []
        return
    rules = {b"body " + name.encode(): rule for name, rule in made(want).items()}
    for operation in operations:
        chain = held.setdefault(operation.key, [])
        handles = [rule.handle for rule in chain]
        if isinstance(operation, Delete):
            del chain[handles.index(operation.handle)]
        else:
            assert isinstance(operation, Insert)
            at = len(chain) if operation.before is None else handles.index(operation.before)
            chain.insert(at, rules[operation.body])
    check(held, want, before)


@given(declared, own_rules, kernel_rules, st.data())
def test_after_any_part_of_a_plan_the_rest_still_leads_there(marks, own, kernel, data):
    want, held = wanted(marks), world(own, kernel)
    before = list(held.get(KERNEL, []))
    changes = plan(held, want)
    part = [change for change in changes if data.draw(st.booleans())]
    for chosen in (part, None, None):
        for script in scripts(held, want, plan(held, want) if chosen is None else chosen):
            restore(held, script.text, made(want))
    check(held, want, before)


@given(declared, own_rules)
def test_only_what_is_not_declared_is_a_deletion_and_only_what_is_ours_is_a_prune(marks, own):
    for change in plan(world(own, []), wanted(marks)):
        if isinstance(change.action, Drop):
            assert change.action.mark not in marks
            assert change.prune == bool(change.action.mark)


@given(declared, own_rules, kernel_rules)
def test_no_more_is_counted_as_deleted_than_as_owned(marks, own, kernel):
    """Neither the jump nor the chain counts, and what makes several rules (here: is there twice) counts once."""
    held = world(own, [*kernel, JUMP])
    found = diff(View(Scope("rules", "q1"), {}, "r1"), Observed("q1", held, wanted(marks)))
    for group in found.groups:
        deleted = counted(change for change in group.changes if change.prune)
        assert {kind: len(rids) for kind, rids in deleted.items() if len(rids) > found.owned.get(kind, 0)} == {}
    if not marks:
        ours = {rule.mark for rule in own or () if rule.mark}
        assert found.owned.get("rule", 0) == len(ours)
        assert sum(len(rids) for group in found.groups for rids in counted(group.changes).values()) == len(ours)


@given(st.lists(st.integers(), unique=True, max_size=12))
def test_the_longest_increasing_run_increases_and_none_is_longer(values):
    found = [values[index] for index in longest_increasing(values)]
    assert found == sorted(found)
    best = [1] * len(values)
    for i in range(len(values)):
        best[i] = 1 + max((best[j] for j in range(i) if values[j] < values[i]), default=0)
    assert len(found) == max(best, default=0)


@given(st.lists(st.integers(0, 1), max_size=3000), st.lists(st.integers(0, 1), max_size=5), st.integers(0, 3000))
def test_the_common_start_is_found_by_blocks_as_one_by_one(left, tail, cut):
    right = left[:cut] + tail
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    assert common(left, right) == count


def test_marks_are_in_every_line_that_makes_a_rule():
    want = wanted(["a"])
    (script,) = scripts({}, want, plan({}, want))
    assert re.search(r"^:reconciler-PREROUTING", script.text, re.MULTILINE)
