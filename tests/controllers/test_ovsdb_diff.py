"""What the diff of OVSDB plans: verbs, groups, words and disruption, on rows in a replica. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.drivers.ovsdb import ops
from controllers.drivers.ovsdb.replica import Replica
from controllers.ovsdb.diff import diff
from controllers.ovsdb.operations import operations
from controllers.ovsdb.ports import OLD_AFTER, PEER_DEADLINE, VSWITCHD_DEADLINE
from controllers.ovsdb.state import SCOPE, CreateBridge, Observed, Remind, SetPort
from controllers.ovsdb.wanted import DEAD_PEER
from controllers.ownership import Owner
from desired.resource import Mode, Resource, ResourceId
from reconciler.contract import Change, Disruption, Outcome, Plan, Scope, Verb, View
from tests.controllers.fakes.database import Database
from tests.controllers.fakes.node import OURS, bond, bridge, flow, held_port, patches, port

ME = Owner("me")


class Rows:
    """A database and what the diff says of it."""

    def __init__(self) -> None:
        self.database = Database()

    def apply(self, plan: Plan) -> None:
        for group in plan.groups:
            self.database.transact(operations([change.action for change in group.changes]))

    def number(self, **errors: str) -> None:
        """Give every interface a number, or the error named."""
        for count, (uuid, row) in enumerate(self.database.tables["Interface"].items(), 1):
            error = errors.get(row["name"])
            self.database.set("Interface", uuid, ofport=-1 if error else count, error=error)

    def set(self, table: str, name: str, **columns: Any) -> None:
        self.database.transact([ops.update(ops.Row(table, name=name), columns)])

    def plan(
        self,
        wanted: Sequence[Resource],
        *,
        names: frozenset[str] | None = None,
        waiting: Mapping[str, float] | None = None,
        settled: frozenset[Scope] = frozenset(),
        ofports: Mapping[str, int] | None = None,
        guarded: Mapping[str, str] | None = None,
        unsure: str = "",
        reminded: frozenset[str] = frozenset(),
    ) -> Plan:
        replica = Replica()
        replica.load(self.database.initial())
        every = {r.id: r for r in wanted}
        resources = {rid: r for rid, r in every.items() if rid.kind != "flow"}
        bridges = {getattr(r.spec, "bridge", "") for rid, r in every.items() if rid.kind == "flow"}
        scopes = {Scope("flow", name): {rid: r for rid, r in every.items() if rid.kind == "flow"} for name in bridges}
        view = View(SCOPE, resources, "rev", settled, every, scopes)
        held = tuple(rid for rid in resources if rid.kind == "held_port")
        observed = Observed(
            replica, ME, names, ofports or {}, "netdev", waiting or {}, held,
            guarded=guarded or {}, unsure=unsure, reminded=reminded,
        )  # fmt: skip
        return diff(view, observed)


def changes(plan: Plan) -> list[Change]:
    return [change for group in plan.groups for change in group.changes]


def settled(wanted: Sequence[Resource]) -> Rows:
    """Rows as the plan makes them, with numbers."""
    rows = Rows()
    rows.apply(rows.plan(wanted))
    rows.number()
    rows.apply(rows.plan(wanted))
    return rows


SMALL = [bridge("br0"), port("p0", "br0", tag=5), port("p1", "br0")]


def test_nothing_is_planned_for_what_is_right() -> None:
    plan = settled(SMALL).plan(SMALL)
    assert not plan
    assert plan.owned == {"bridge": 1, "port": 2}


def test_a_missing_bridge_and_its_ports_are_one_group_bridges_first() -> None:
    (group,) = Rows().plan([*reversed(SMALL)]).groups
    assert [str(c.resource) for c in group.changes] == ["bridge/br0", "port/p0", "port/p1"]
    assert not group.divisible
    assert {c.verb for c in group.changes} == {Verb.CREATE}


def test_a_patch_pair_is_one_group_and_independent_ports_may_be_split() -> None:
    base = [bridge("br0"), bridge("br1")]
    plan = settled(base).plan([*base, *patches("a", "br0", "b", "br1"), port("c", "br0"), port("d", "br1")])
    groups = {frozenset(str(c.resource) for c in g.changes): g.divisible for g in plan.groups}
    assert groups == {frozenset({"port/a", "port/b"}): False, frozenset({"port/c", "port/d"}): True}


def test_what_is_only_observed_is_connected_with_nothing() -> None:
    plan = Rows().plan([bridge("br0"), port("p0", "br0"), port("p1", "br0", mode=Mode.OBSERVE)])
    groups = [frozenset(str(c.resource) for c in g.changes) for g in plan.groups]
    assert frozenset({"bridge/br0", "port/p0"}) in groups
    plan = Rows().plan([bridge("br0", mode=Mode.OBSERVE), port("p0", "br0")])
    assert [str(c.resource) for c in changes(plan)] == ["bridge/br0"]
    assert [f.waits_for for f in plan.findings] == [(ResourceId("bridge", "br0"),)]


@pytest.mark.parametrize(
    ("table", "name", "columns", "why", "before", "after", "disruption"),
    [
        ("Port", "p0", {"tag": 7}, "tag differs", "tag=7", "tag=5", Disruption.BRIEF),
        ("Port", "p0", {"other_config": {"a": "b"}}, "other_config differs", "other_config={a=b}", "other_config={}",
         Disruption.NONE),
        ("Interface", "p1", {"type": "dummy"}, "interface type differs", "interface type=dummy",
         "interface type=internal", Disruption.BRIEF),
        ("Bridge", "br0", {"fail_mode": None}, "fail_mode differs", "fail_mode=none", "fail_mode=secure",
         Disruption.BRIEF),
        ("Bridge", "br0", {"datapath_type": ""}, "datapath_type differs", "datapath_type=none",
         "datapath_type=netdev", Disruption.OUTAGE),
        ("Bridge", "br0", {"external_ids": {**OURS, "x": "1"}}, "", "", "", Disruption.NONE),
    ],
)  # fmt: skip
def test_a_changed_column_is_set_back_and_told_with_before_and_after(
    table: str, name: str, columns: dict[str, Any], why: str, before: str, after: str, disruption: Disruption
) -> None:
    rows = settled(SMALL)
    rows.set(table, name, **columns)
    plan = rows.plan(SMALL)
    if not why:
        assert not plan
        return
    (change,) = changes(plan)
    assert (change.verb, change.why, change.before, change.after, change.disruption) == (
        Verb.UPDATE, why, before, after, disruption,
    )  # fmt: skip
    rows.apply(plan)
    assert not rows.plan(SMALL)


def test_a_new_port_asks_for_the_number_it_had() -> None:
    plan = settled([bridge("br0")]).plan(SMALL, ofports={"p0": 42})
    asked = {c.action.name: c.action.interfaces[c.action.name].get("ofport_request") for c in changes(plan)}
    assert asked == {"p0": 42, "p1": None}


def test_a_port_in_error_is_made_anew_in_its_place() -> None:
    rows = settled(SMALL)
    rows.number(p0="could not open network device p0")
    (change,) = changes(rows.plan(SMALL))
    assert change.verb is Verb.UPDATE
    assert change.action.instead_of is not None
    assert "could not open network device p0" in change.why


def test_a_port_without_a_number_waits_until_the_deadline() -> None:
    rows = Rows()
    rows.apply(rows.plan(SMALL))
    (early,) = {f.outcome for f in rows.plan(SMALL, waiting={"p0": 1.0, "p1": 1.0}).findings}
    assert early is Outcome.PENDING
    late = rows.plan(SMALL, waiting={"p0": VSWITCHD_DEADLINE, "p1": VSWITCHD_DEADLINE}).findings
    assert {f.outcome for f in late} == {Outcome.FAILED}


def test_deletes_come_last_ports_before_bridges_and_ports_count_inside() -> None:
    rows = settled([*SMALL, bridge("br1"), port("q", "br1")])
    *_, group = rows.plan([bridge("br1"), port("new", "br1")]).groups
    assert [(str(c.resource), c.inside) for c in group.changes] == [
        ("port/p0", ResourceId("bridge", "br0")),
        ("port/p1", ResourceId("bridge", "br0")),
        ("port/q", None),
        ("bridge/br0", None),
    ]
    assert all(c.prune for c in group.changes)


def test_a_datapath_type_that_this_machine_lacks_is_said_with_the_setting_that_helps() -> None:
    rows = Rows()
    (root,) = rows.database.tables["Open_vSwitch"]
    rows.database.set("Open_vSwitch", root, datapath_types=("netdev",))
    plan = rows.plan([bridge("br0", datapath_type="system")])
    (finding,) = plan.findings
    assert not plan.groups
    assert finding.outcome is Outcome.FAILED
    assert "has no datapath type 'system' (it has netdev); set 'datapath_type'" in finding.reason


def test_an_old_error_of_a_whole_pair_is_asked_about_before_the_pair_is_taken_apart() -> None:
    """vswitchd goes on saying it while traffic passes, until it looks again (Open vSwitch 3.1)."""
    wanted = [bridge("br0"), bridge("br1"), *patches("a", "br0", "b", "br1")]
    rows = settled(wanted)
    (uuid,) = (uuid for uuid, row in rows.database.tables["Interface"].items() if row["name"] == "a")
    rows.database.set("Interface", uuid, error="No usable peer 'b' exists in 'netdev' datapath.")
    early = rows.plan(wanted, waiting={"a": 0.01})
    assert (changes(early), [f.recheck for f in early.findings]) == ([], [OLD_AFTER])
    asked = rows.plan(wanted, waiting={"a": OLD_AFTER})
    assert [(change.action, change.disruption) for change in changes(asked)] == [(Remind("a"), Disruption.NONE)]
    rows.apply(asked)
    still = rows.plan(wanted, waiting={"a": OLD_AFTER}, reminded=frozenset({"a"}))
    assert (changes(still), [f.outcome for f in still.findings]) == ([], [Outcome.PENDING])
    (apart,) = changes(rows.plan(wanted, waiting={"a": PEER_DEADLINE}, reminded=frozenset({"a"})))
    assert (type(apart.action), apart.disruption) == (SetPort, Disruption.BRIEF)


def test_a_patch_that_may_loop_names_what_it_waits_for_and_is_joined_when_that_is_settled() -> None:
    loose = [bridge("br0", fail_mode="standalone"), bridge("br1"), *patches("a", "br0", "b", "br1")]
    wanted = [*loose, flow("br0", "actions=drop"), flow("br1", "actions=drop")]
    rows = settled(wanted)
    peers = {row["name"]: row["options"].get("peer") for row in rows.database.tables["Interface"].values()}
    assert (peers["a"], peers["b"]) == (DEAD_PEER, DEAD_PEER)
    both = frozenset({Scope("flow", "br0"), Scope("flow", "br1")})
    assert {frozenset(f.waits_for) for f in rows.plan(wanted).findings} == {both}
    assert not rows.plan(wanted, settled=frozenset({Scope("flow", "br0")})).groups
    rows.apply(rows.plan(wanted, settled=both))
    rows.number()
    assert not rows.plan(wanted)
    rows = settled(loose)
    assert not rows.plan(loose)


def test_the_same_iface_id_twice_is_held_on_both() -> None:
    rows = settled([bridge("br0")])
    for name in ("tap1", "tap2"):
        row = ops.NewPort(name, {name: {"type": "internal", "external_ids": {"iface-id": "vm"}}})
        rows.database.transact(ops.add_ports("br0", [row]))
    plan = rows.plan([bridge("br0"), held_port("vm", tag=3)])
    assert sorted(c.action.name for c in changes(plan)) == ["tap1", "tap2"]


NAMES = ("p0", "p1", "a", "b")


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Resource], Rows]:
    wanted = [bridge("br0"), bridge("br1"), bond("bond0", "br1", interfaces=("e1", "e2"))]
    wanted += [
        port(n, draw(st.sampled_from(["br0", "br1"])), tag=draw(st.sampled_from([None, 1]))) for n in ("p0", "p1")
    ]
    wanted += patches("a", "br0", "b", "br1")
    rows = settled(wanted)
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        what = draw(st.sampled_from(["tag", "gone", "mark", "peer"]))
        found = rows.database.find("Port", name)
        assert found is not None
        if what == "gone":
            on = next(r["name"] for r in rows.database.tables["Bridge"].values() if found[0] in r["ports"])
            rows.database.transact(ops.delete_ports(ops.Row("Bridge", name=on), [found[0]]))
        elif what == "tag":
            rows.set("Port", name, tag=9)
        elif what == "mark":
            rows.set("Port", name, external_ids={})
        else:
            rows.set("Interface", name, options={"peer": "nobody"})
    left = draw(st.lists(st.sampled_from(wanted[2:]), unique_by=lambda r: r.id, min_size=1))
    return [*wanted[:2], *left], rows


@given(world=worlds(), names=st.frozensets(st.sampled_from(["br0", "br1", "bond0", *NAMES])))
@settings(max_examples=60, deadline=None)
def test_a_narrowed_look_finds_the_same_as_a_full_one_for_what_it_looks_at(
    world: tuple[list[Resource], Rows], names: frozenset[str]
) -> None:
    wanted, rows = world
    whole, narrow = rows.plan(wanted), rows.plan(wanted, names=names)
    assert narrow.looked_at is not None
    seen = narrow.looked_at

    def found(plan: Plan) -> set[tuple[Any, ...]]:
        return {(c.resource, c.verb, c.why, c.after) for c in changes(plan) if c.resource in seen} | {
            (f.resource, f.outcome, f.reason) for f in plan.findings if f.resource in seen
        }

    assert found(narrow) == found(whole)
    assert {rid.name for rid in seen} >= names


@given(world=worlds(), dice=st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_declarations_does_not_matter(world: tuple[list[Resource], Rows], dice: Any) -> None:
    wanted, rows = world
    shuffled = list(wanted)
    dice.shuffle(shuffled)

    def content(plan: Plan) -> set[tuple[Any, ...]]:
        return {(frozenset((c.resource, c.verb, c.why) for c in g.changes), g.divisible) for g in plan.groups}

    assert content(rows.plan(wanted)) == content(rows.plan(shuffled))


def test_create_actions_name_their_bridge() -> None:
    (change,) = changes(Rows().plan([bridge("br0")]))
    assert isinstance(change.action, CreateBridge)
    assert change.after == "datapath_type=netdev, external_ids={reconciler=me}, fail_mode=secure"


GUARDED = {"eth0": "the default route leaves by it; release it"}


def test_nothing_is_deleted_under_the_device_by_which_the_node_is_reached() -> None:
    wanted = [bridge("br-ex"), port("eth0", "br-ex", type="system"), port("int-1", "br-ex"), bridge("br0")]
    rows = settled(wanted)
    assert {change.resource.name for change in changes(rows.plan([bridge("br0")]))} == {"br-ex", "eth0", "int-1"}
    plan = rows.plan([bridge("br0")], guarded={"br-ex": GUARDED["eth0"]})
    assert not changes(plan)
    assert all("withheld: would delete" in finding.reason for finding in plan.findings)
    assert {finding.resource.name for finding in plan.findings} == {"br-ex", "eth0", "int-1"}


def test_what_is_a_port_of_the_bridge_by_which_the_node_is_reached_stays_there() -> None:
    wanted = [bridge("br-ex"), port("eth0", "br-ex", type="system"), bridge("br0")]
    moved = [bridge("br-ex"), port("eth0", "br0", type="system"), bridge("br0")]
    assert changes(settled(wanted).plan(moved))
    plan = settled(wanted).plan(moved, guarded={"br-ex": GUARDED["eth0"]})
    assert not changes(plan)
    assert "withheld: would take port/eth0 from bridge br-ex" in plan.findings[0].reason


def test_while_it_is_not_known_which_device_that_is_none_is_taken() -> None:
    wanted = [bridge("br-ex"), port("eth0", "br-ex", type="system"), port("int-1", "br-ex")]
    plan = Rows().plan(wanted, unsure="no netlink")
    assert {change.resource.name for change in changes(plan)} == {"br-ex", "int-1"}
    assert [(finding.resource.name, finding.recheck is not None) for finding in plan.findings] == [("eth0", True)]


def test_the_interface_by_which_the_node_is_reached_is_not_taken_into_a_bridge() -> None:
    wanted = [bridge("br-ex"), port("eth0", "br-ex", type="system"), port("eth1", "br-ex", type="system")]
    plan = Rows().plan(wanted, guarded=GUARDED)
    assert {change.resource.name for change in changes(plan)} == {"br-ex", "eth1"}
    (finding,) = plan.findings
    assert (finding.resource.name, finding.outcome) == ("eth0", Outcome.PENDING)
    assert finding.reason == f"withheld: would take eth0 into bridge br-ex, and eth0: {GUARDED['eth0']}"
