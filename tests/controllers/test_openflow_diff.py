"""What the diff of flows plans: verbs, words, order in the bundle, conflicts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.drivers.openflow.flows import AddFlow, DeleteFlow, Flow, FlowKey
from controllers.openflow.diff import diff
from controllers.openflow.state import Observed
from controllers.openflow.table import Entry, Table
from controllers.ownership import cookie
from desired.resource import Resource, ResourceId
from reconciler.contract import Change, Outcome, Plan, Scope, Verb, View
from tests.controllers.fakes.compiler import compiled
from tests.controllers.fakes.node import MINE, bridge, flow, key, theirs

BR, SHARED = bridge("br0"), bridge("br0", flows="shared")
ONE = flow("br0", "priority=1,actions=drop")
K1, K2 = key("priority=1"), key("priority=2")
MARKED = Flow(b"", cookie(ONE.id))


def plan(
    wanted: list[Resource], found: Mapping[FlowKey, Flow], keys: frozenset[FlowKey] | None = None, **table: Any
) -> Plan:
    every = {r.id: r for r in wanted}
    flows = {rid: r for rid, r in every.items() if rid.kind == "flow"}
    entries = {}
    for rid, r in flows.items():
        made: Any = compiled(getattr(r.spec, "flow", ""), {})
        entries[made.key] = Entry(rid, made.key, made.flow(cookie(rid)))
    view = View(Scope("flow", "br0"), flows, "rev", frozenset(), every)
    return diff(view, Observed("br0", found, Table(entries, **table), keys))


def changes(made: Plan) -> list[Change]:
    return [c for g in made.groups for c in g.changes]


def test_what_is_right_plans_nothing_and_is_counted_as_ours() -> None:
    made = plan([BR, ONE], {K1: MARKED})
    assert not made
    assert made.owned["flow"] == 1


def test_all_changes_of_a_bridge_are_one_bundle_additions_first_that_waits_for_the_bridge() -> None:
    made = plan([BR, ONE], {K2: theirs("normal")})
    (group,) = made.groups
    assert group.divisible
    assert group.after == (ResourceId("bridge", "br0"),)
    assert [type(c.action) for c in group.changes] == [AddFlow, DeleteFlow]


def test_on_a_bridge_that_is_not_declared_nothing_foreign_is_deleted() -> None:
    made = plan([ONE], {K2: theirs("normal")})
    assert [c.verb for c in changes(made)] == [Verb.CREATE]
    assert made.groups[0].after == ()


def test_flows_of_a_bridge_that_is_to_go_are_left_to_go_with_it() -> None:
    seen = Observed("br0", {K1: MARKED}, Table({}))
    view = View(Scope("flow", "br0"), {}, "rev")
    assert changes(diff(view, seen))
    assert not changes(diff(view, replace(seen, orphan=True)))


def test_each_difference_is_named() -> None:
    changed = MARKED._replace(instructions=b"normal", idle_timeout=5, cookie=MINE | 3)
    (change,) = changes(plan([BR, ONE], {K1: changed}))
    assert change.verb is Verb.UPDATE
    assert change.why == "actions, cookie, idle_timeout of the flow differ"
    assert change.after == "priority=1,actions=drop"
    assert change.action == AddFlow(K1, MARKED)


def test_a_delete_is_of_exactly_the_flow_that_was_seen() -> None:
    (change,) = changes(plan([BR, ONE], {K1: MARKED, K2: Flow(b"", MINE | 7)}))
    assert change.action == DeleteFlow(K2, MINE | 7, 0xFFFF_FFFF_FFFF_FFFF)
    assert (change.prune, change.why) == (True, "no longer declared")
    (change,) = changes(plan([BR, ONE], {K1: MARKED, K2: theirs("normal")}))
    assert not change.prune


def test_a_foreign_flow_of_a_declared_match_is_a_conflict_only_where_flows_are_shared() -> None:
    (finding,) = plan([SHARED, ONE], {K1: theirs("normal")}).findings
    assert (finding.outcome, finding.resource) == (Outcome.CONFLICT, ONE.id)
    assert [c.verb for c in changes(plan([BR, ONE], {K1: theirs("normal")}))] == [Verb.UPDATE]
    adopting = flow("br0", "priority=1,actions=drop", adopt=True)
    assert [c.verb for c in changes(plan([SHARED, adopting], {K1: theirs("normal")}))] == [Verb.UPDATE]


def test_what_cannot_be_compared_is_said_with_what_it_waits_for() -> None:
    rid = ResourceId("flow", "br0/x")
    (finding,) = plan([BR], {}, waiting={rid: ("p0", "p1")}).findings
    assert (finding.outcome, finding.waits_for) == (
        Outcome.PENDING, (ResourceId("port", "p0"), ResourceId("port", "p1")),
    )  # fmt: skip
    (finding,) = plan([BR], {}, invalid={rid: "unknown action x"}).findings
    assert finding.outcome is Outcome.FAILED
    assert finding.reason.endswith(": unknown action x")


HEADS = ["priority=1", "priority=2", "priority=3,x=1"]
FLOWS = st.builds(
    theirs, st.sampled_from(["drop", "normal"]), st.sampled_from([0, MINE | 1, cookie(ONE.id)]),
    hard_timeout=st.sampled_from([0, 60]),
)  # fmt: skip
FOUND = st.dictionaries(st.sampled_from([key(h) for h in [*HEADS, "priority=9"]]), FLOWS)
WANTED = st.lists(st.sampled_from(HEADS), unique=True)


@given(
    heads=WANTED, found=FOUND, keys=st.frozensets(st.sampled_from([K1, K2, key("priority=9")])), shared=st.booleans()
)
@settings(max_examples=100)
def test_a_narrowed_look_finds_the_same_as_a_full_one_for_what_it_looks_at(
    heads: list[str], found: dict[FlowKey, Flow], keys: frozenset[FlowKey], *, shared: bool
) -> None:
    wanted = [SHARED if shared else BR, *(flow("br0", f"{head},actions=drop") for head in heads)]
    whole, narrow = plan(wanted, found), plan(wanted, found, keys)
    assert narrow.looked_at is not None
    assert {c for c in changes(whole) if c.action.key in keys} == set(changes(narrow))
    assert {f for f in whole.findings if f.resource in narrow.looked_at} == set(narrow.findings)
    assert narrow.owned == {}


@given(heads=WANTED, found=FOUND, shared=st.booleans())
@settings(max_examples=100)
def test_doing_what_is_planned_leaves_nothing_to_plan_and_learned_flows_where_they_are(
    heads: list[str], found: dict[FlowKey, Flow], *, shared: bool
) -> None:
    wanted = [SHARED if shared else BR, *(flow("br0", f"{head},actions=drop") for head in heads)]
    after = dict(found)
    for change in changes(plan(wanted, found)):
        if isinstance(change.action, AddFlow):
            after[change.action.key] = change.action.flow
        else:
            held = after.pop(change.action.key)
            assert not (held.idle_timeout or held.hard_timeout)
    assert not plan(wanted, after).groups
