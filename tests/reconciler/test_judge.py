"""What people are told of a pass: statuses, the journal's line, when to look again. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from desired.resource import ResourceId
from reconciler.contract import Change, Finding, Group, Outcome, PassRecord, ResourceStatus, Scope, Verb
from reconciler.errors import DriverError, NotReady
from reconciler.gates.admission import Decision
from reconciler.gates.base import Withheld
from reconciler.judge import Judgement, journal_entry, judge, planned, scope_id
from reconciler.pipeline import Failure, PassResult
from reconciler.status import SEVERITY, StatusBook, worst
from tests.reconciler.fakes import HERE, WALL, thing

A = ResourceId("thing", "a")
CHANGE = Change(A, Verb.UPDATE, "action", "value differs", "x", "v")


def judged(result: PassResult, **extra: Any) -> Judgement:
    given: dict[str, Any] = {"declared": {A: thing("a")}, "failed_until": {}, "fights": {}, "wall": WALL, **extra}
    return judge(result, **given)


def told(result: PassResult, **extra: Any) -> tuple[Outcome, str, str]:
    status = judged(result, **extra).found[A]
    return status.outcome, status.gate, status.reason


def withheld(gate: str = "paused", outcome: Outcome = Outcome.PENDING, at: float | None = None) -> Decision:
    return Decision(Group((CHANGE,)), Withheld(gate, "because", at, outcome))


def entry(result: PassResult, known: dict[ResourceId, ResourceStatus] | None = None) -> PassRecord | None:
    frame = PassRecord(1, WALL, HERE, "event", "rev", Outcome.CONVERGED, 0.1, 0.2)
    return journal_entry(result, judged(result), known=known or {}, is_drift=lambda _: True, entry=frame)


def status(outcome: Outcome, reason: str = "", gate: str = "", rid: ResourceId = A) -> ResourceStatus:
    return ResourceStatus(rid, outcome, reason, WALL, gate)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (PassResult(HERE, withheld=[withheld()]), (Outcome.PENDING, "paused", "value differs; because")),
        (PassResult(HERE, withheld=[withheld("backoff", Outcome.FAILED)]),
         (Outcome.FAILED, "backoff", "value differs; because")),
        (PassResult(HERE, failed=[Failure(CHANGE, DriverError("no"))]), (Outcome.FAILED, "", "no")),
        (PassResult(HERE, left=[CHANGE]), (Outcome.PENDING, "", "value differs")),
        (PassResult(HERE, findings=[Finding(A, Outcome.CONFLICT, "theirs")]), (Outcome.CONFLICT, "", "theirs")),
        (PassResult(HERE, findings=[Finding(A, Outcome.PENDING, "waits")], failed=[Failure(CHANGE, DriverError("no"))]),
         (Outcome.FAILED, "", "no")),
    ],
)  # fmt: skip
def test_a_status_says_what_is_wrong_and_which_gate_holds_it(
    result: PassResult, expected: tuple[Outcome, str, str]
) -> None:
    assert told(result) == expected


def test_a_fight_is_told_with_its_evidence_and_looked_at_again() -> None:
    verdict = judged(PassResult(HERE, done=[CHANGE], ended=5.0), fights={A: "somebody sets 'x'"})
    assert verdict.found[A].outcome is Outcome.CONTENDED
    assert "somebody sets 'x'" in verdict.found[A].reason
    assert verdict.retry_at is not None


def test_the_earliest_reason_to_look_again_counts() -> None:
    later = Finding(ResourceId("thing", "b"), Outcome.PENDING, "waits", recheck=2.0)
    result = PassResult(HERE, withheld=[withheld(at=9.0)], findings=[later], ended=5.0)
    assert judged(result).retry_at == 7.0
    result = PassResult(HERE, withheld=[withheld()], ended=5.0)
    assert judged(result).retry_at is None


def test_what_is_waited_for_is_gathered_from_findings_and_gates() -> None:
    ref = ResourceId("box", "b")
    blocked = Decision(Group((CHANGE,)), Withheld("refs", "waits", waits_for=(ref,)))
    finding = Finding(A, Outcome.PENDING, "waits", (Scope("world", "there"),))
    assert judged(PassResult(HERE, withheld=[blocked], findings=[finding])).waits_for == {ref, Scope("world", "there")}


@pytest.mark.parametrize(
    ("error", "outcome"), [(NotReady("away"), Outcome.PENDING), (DriverError("deaf"), Outcome.FAILED)]
)
def test_a_blind_pass_is_told_of_the_scope(error: Any, outcome: Outcome) -> None:
    verdict = judged(PassResult(HERE, blind=error))
    assert scope_id(HERE) == ResourceId("world", "here/*")
    assert scope_id(Scope("ovsdb")) == ResourceId("ovsdb", "*")
    assert verdict.found[scope_id(HERE)].outcome is outcome


def test_an_idle_pass_has_no_line() -> None:
    assert entry(PassResult(HERE)) is None


def test_a_line_says_what_was_done_and_what_failed_with_the_target_s_words() -> None:
    line = entry(PassResult(HERE, done=[CHANGE], failed=[Failure(CHANGE, DriverError("no room"))]))
    assert line is not None
    assert [(a.result, a.why, a.before, a.after, a.detail, a.drift) for a in line.actions] == [
        ("done", "value differs", "x", "v", "", True),
        ("failed", "value differs", "x", "v", "no room", True),
    ]
    assert (line.pass_id, line.trigger, line.since_event) == (1, "event", 0.2)


def test_what_is_withheld_is_told_once_and_again_when_another_gate_holds_it() -> None:
    result = PassResult(HERE, withheld=[withheld()])
    assert entry(result) is not None
    assert entry(result, {A: status(Outcome.PENDING, "value differs; because", "paused")}) is None
    assert entry(result, {A: status(Outcome.PENDING, "", "backoff")}) is not None


def test_a_finding_is_told_when_it_is_news() -> None:
    result = PassResult(HERE, findings=[Finding(A, Outcome.CONFLICT, "theirs")])
    assert entry(result) is not None
    assert entry(result, {A: status(Outcome.CONFLICT, "theirs")}) is None
    assert entry(result, {A: status(Outcome.CONFLICT, "somebody else's")}) is not None


def test_a_blind_scope_is_told_once() -> None:
    result = PassResult(HERE, blind=NotReady("away"))
    assert entry(result) is not None
    assert entry(result, {scope_id(HERE): status(Outcome.PENDING, "away", rid=scope_id(HERE))}) is None


def test_a_plan_s_lines_name_the_gate_that_would_hold_each_change() -> None:
    lines = planned(PassResult(HERE, withheld=[withheld("dry_run"), withheld("refs")]))
    assert [(line.result, line.gate) for line in lines] == [("planned", "dry_run"), ("planned", "refs")]


# -- the book ----------------------------------------------------------------------------------------------------------


def test_the_worst_is_a_failure_then_a_conflict_and_nothing_is_right() -> None:
    assert worst(reversed(SEVERITY)) is Outcome.FAILED
    assert worst([Outcome.CONFLICT, Outcome.CONTENDED, Outcome.PENDING]) is Outcome.CONFLICT
    assert worst([]) is Outcome.CONVERGED


def test_a_scope_is_settled_when_all_of_it_was_looked_at_and_nothing_is_wrong() -> None:
    book = StatusBook()
    book.update(HERE, frozenset([A]), {})
    assert HERE not in book.settled
    book.update(HERE, None, {A: status(Outcome.PENDING)})
    assert HERE not in book.settled
    assert not book.converged(A)
    book.update(HERE, frozenset([A]), {})
    assert HERE in book.settled
    book.unsettle(HERE)
    assert HERE not in book.settled
    assert not book.seen(HERE)


def test_a_narrowed_look_keeps_what_it_did_not_look_at() -> None:
    book = StatusBook()
    other = ResourceId("thing", "b")
    book.update(HERE, None, {A: status(Outcome.FAILED), other: status(Outcome.PENDING, rid=other)})
    book.update(HERE, frozenset([A]), {})
    assert [s.resource for s in book.not_right()] == [other]


def test_since_is_when_it_became_so_and_not_when_it_was_seen_again() -> None:
    book = StatusBook()
    book.update(HERE, None, {A: status(Outcome.FAILED, "one")})
    later = ResourceStatus(A, Outcome.FAILED, "two", WALL + 60)
    assert not book.update(HERE, None, {A: later})
    (kept,) = book.not_right()
    assert (kept.since, kept.reason) == (WALL, "two")


def test_a_blind_scope_has_to_be_looked_at_wholly_and_a_forgotten_one_says_nothing() -> None:
    book = StatusBook()
    book.update(HERE, None, {A: status(Outcome.FAILED)})
    book.blind(HERE, {scope_id(HERE): status(Outcome.PENDING, rid=scope_id(HERE))})
    assert [s.resource for s in book.not_right()] == [scope_id(HERE)]
    assert not book.seen(HERE)
    assert book.troubled() == {HERE}
    book.forget(HERE)
    assert book.not_right() == []
    assert book.outcome() is Outcome.CONVERGED


def test_counts_add_up_to_what_is_declared_and_what_is_left_over() -> None:
    book = StatusBook()
    stray = ResourceId("thing", "stray")
    declared = {r.id: r for r in (thing("a"), thing("b"))}
    book.update(HERE, None, {A: status(Outcome.FAILED), stray: status(Outcome.PENDING, rid=stray)})
    assert book.counts({"thing": 2}, declared) == {
        ("thing", Outcome.CONVERGED): 1, ("thing", Outcome.FAILED): 1, ("thing", Outcome.PENDING): 1,
    }  # fmt: skip
