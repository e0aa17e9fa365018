"""The bookkeeping of a namespace's rules: exact while it is sure, void as soon as it is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controllers.drivers.iptables.chains import Chains, Reading, Transaction
from controllers.drivers.iptables.nftables import ChainAdded, ChainGone, RuleAdded, RuleGone, TableGone
from controllers.drivers.iptables.rules import ChainKey, Family, Held

KEY = ChainKey(Family.IPV4, "nat", "PREROUTING")
OWN = KEY._replace(chain="reconciler-PREROUTING")


def rule(handle: int, mark: str = "") -> Held:
    return Held((mark, b"%d" % handle), handle)


def known(*handles: int) -> Chains:
    chains = Chains()
    chains.begin()
    chains.finish(Reading({OWN: [rule(handle) for handle in handles]}, 10))
    return chains


def handles(chains: Chains) -> list[int]:
    return [held.handle for held in chains.held.get(OWN, [])]


def test_a_transaction_moves_the_picture_as_the_kernel_moved_the_rules():
    chains = known(1, 2, 3)
    notices = [
        RuleGone(OWN, rule(2)),
        RuleAdded(OWN, rule(4, "m"), 1, last=False),
        RuleAdded(OWN, rule(5), None, last=True),
        RuleAdded(OWN, rule(6), None, last=False),
    ]
    touched = chains.apply(Transaction(11, notices))
    assert handles(chains) == [6, 1, 4, 3, 5]
    assert touched is not None
    assert (OWN, "m") in touched.rules
    assert chains.known
    assert chains.generation == 11


def test_a_missed_generation_voids_and_a_repeated_one_changes_nothing():
    chains = known(1)
    assert chains.apply(Transaction(10, [RuleGone(OWN, rule(1))])) is not None
    assert handles(chains) == [1]
    assert chains.apply(Transaction(12, [])) is None
    assert not chains.known


def test_what_is_not_told_for_sure_voids():
    for notices in (
        [RuleAdded(OWN, rule(4), 99, last=False)],
        [RuleGone(OWN, rule(99))],
        [RuleGone(OWN, rule(1)), RuleAdded(OWN, rule(1), None, last=True)],  # replaced: the place may be any
    ):
        chains = known(1, 2, 3)
        assert chains.apply(Transaction(11, notices)) is None
        assert not chains.known


def test_what_is_committed_during_a_dump_is_applied_on_top_of_it_and_what_it_shows_already_is_not():
    chains = Chains()
    chains.begin()
    assert chains.apply(Transaction(10, [RuleAdded(OWN, rule(1), None, last=True)])) is None
    assert chains.apply(Transaction(11, [RuleAdded(OWN, rule(2), None, last=True)])) is None
    assert chains.finish(Reading({OWN: [rule(1)]}, 10))
    assert handles(chains) == [1, 2]
    assert chains.generation == 11


def test_chains_and_tables_come_and_go():
    chains = known(1)
    chains.apply(Transaction(11, [ChainAdded(KEY), ChainGone(OWN)]))
    assert set(chains.held) == {KEY}
    chains.apply(Transaction(12, [TableGone(Family.IPV4, "nat")]))
    assert not chains.held


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8)), max_size=12))
def test_any_run_of_single_changes_ends_as_a_dump_would_show_it(steps):
    chains, truth, number = known(1, 2), [1, 2], 2
    for generation, (what, where) in enumerate(steps, 11):
        if what == 0 and truth:
            gone = truth.pop(where % len(truth))
            notice = RuleGone(OWN, rule(gone))
        else:
            number += 1
            at = where % (len(truth) + 1)
            truth.insert(at, number)
            first, last = at == 0, at == len(truth) - 1
            after = None if first or last else truth[at - 1]
            notice = RuleAdded(OWN, rule(number), after, last=last)
        chains.apply(Transaction(generation, [notice]))
        assert handles(chains) == truth
        assert chains.known
