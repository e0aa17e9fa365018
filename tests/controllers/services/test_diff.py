"""Laws of what is done to a unit, whatever state it is in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controllers.drivers.files.disk import FileState, Kind
from controllers.drivers.files.marks import xattr
from controllers.drivers.netlink.whereabouts import Place
from controllers.drivers.systemd.units import UnitState
from controllers.services.diff import HAND_OVER, SETTLE, diff, scope_of
from controllers.services.state import (
    Apply,
    Fitness,
    Health,
    Mask,
    Observed,
    Reload,
    ReloadUnit,
    Restart,
    Start,
    Stop,
    Tries,
)
from desired.kinds.service import ServiceSpec
from desired.resource import Origin, Resource, ResourceId
from reconciler.contract import Outcome, Plan, View

NAME = "x.service"
WALL = 1000.0

units = st.builds(
    UnitState,
    name=st.just(NAME),
    load=st.sampled_from(["loaded", "masked", "not-found"]),
    active=st.sampled_from(["active", "inactive", "failed", "activating", "deactivating", "reloading"]),
    sub=st.just("sub"),
    file_state=st.sampled_from(["enabled", "disabled", "static", "masked", ""]),
    job=st.sampled_from([0, 7]),
    result=st.sampled_from(["success", "signal", "start-limit-hit"]),
    restart=st.sampled_from(["no", "always", "on-failure"]),
    started=st.sampled_from([0.0, 500.0, WALL - 0.1]),
    ended=st.sampled_from([0.0, 600.0, WALL - HAND_OVER / 2]),
    stopped=st.booleans(),
)
healths = st.builds(
    Health,
    ok=st.sampled_from([None, True, False]),
    words=st.just("bad"),
    failed=st.integers(0, 4),
    passed=st.booleans(),
)
tries = st.builds(Tries, vain=st.integers(0, 7), next_at=st.sampled_from([0.0, 50.0, 150.0]))
specs = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["running", "stopped", None]),
        "enabled": st.sampled_from([True, False, None]),
        "checks": st.just([{"tcp": "127.0.0.1:1"}]),
        "restart_on": st.just(["/etc/x"]),
        "requires": st.just(["other"]),
    },
)


def planned(spec: dict[str, Any], unit: UnitState, health: Health, tried: Tries, **more: Any) -> Plan:
    checked = ServiceSpec(name=NAME, **spec)
    rid = ResourceId("service", NAME)
    resource = Resource(rid, checked, Origin("test"), checked.generation())
    others = {"other.service": more.pop("other", Fitness(works=True))}
    observed = Observed(unit, "me/service", 100.0, WALL, others=others, health=health, tries=tried, **more)
    return diff(View(scope_of(NAME), {rid: resource}, everything={rid: resource}), observed)


def steps(plan: Plan) -> tuple[Any, ...]:
    changes = [change for group in plan.groups for change in group.changes]
    assert len(changes) <= 1
    return changes[0].action.steps if changes and isinstance(changes[0].action, Apply) else ()


def kinds(plan: Plan) -> set[type]:
    return {type(step) for step in steps(plan)}


@given(specs, units, healths, tries)
def test_nothing_is_both_started_and_stopped_and_nothing_wanted_is_left_unsaid(
    spec: dict[str, Any], unit: UnitState, health: Health, tried: Tries
) -> None:
    plan = planned(spec, unit, health, tried)
    assert len(kinds(plan) & {Start, Stop, Restart}) <= 1
    runs = unit.active in {"active", "reloading"}
    wanted = spec.get("state", "running")
    if wanted == "running" and not runs:
        assert plan, "it does not run, and that is a change or is told"
    if wanted == "stopped":
        assert not kinds(plan) & {Start, Restart}
    if wanted is None:
        assert not kinds(plan) & {Start, Stop, Restart}


@given(specs, units, healths, tries)
def test_what_systemd_is_at_work_on_is_waited_for(
    spec: dict[str, Any], unit: UnitState, health: Health, tried: Tries
) -> None:
    if unit.active in {"activating", "deactivating"} or (unit.job and unit.active in {"inactive", "failed"}):
        assert not kinds(planned(spec, unit, health, tried)) & {Start, Restart}


@given(specs, units, healths, tries)
def test_a_spent_budget_or_one_whose_time_has_not_come_starts_nothing(
    spec: dict[str, Any], unit: UnitState, health: Health, tried: Tries
) -> None:
    found = [step for step in steps(planned(spec, unit, health, tried)) if isinstance(step, Start | Restart)]
    if tried.vain >= 5 or tried.next_at > 100.0:
        assert not found


@given(units, tries)
def test_a_check_that_has_not_failed_often_enough_restarts_nothing(unit: UnitState, tried: Tries) -> None:
    spec: dict[str, Any] = {"checks": [{"tcp": "127.0.0.1:1"}], "failures": 3}
    plan = planned(spec, unit, Health(ok=False, words="bad", failed=2, passed=True), tried)
    assert Restart not in kinds(plan)


@given(units, healths, tries)
def test_without_what_it_requires_nothing_is_started(unit: UnitState, health: Health, tried: Tries) -> None:
    lame = Fitness(works=False, why="is inactive", hopeless=True)
    assert Start not in kinds(planned({"requires": ["other"]}, unit, health, tried, other=lame))


@given(units, healths, tries)
def test_behind_a_member_that_is_down_nothing_is_started_stopped_or_called_right(
    unit: UnitState, health: Health, tried: Tries
) -> None:
    lame = Fitness(works=False, why="is failed", hopeless=True)
    spec = {"group": "core", "order": 2, "checks": [{"tcp": "127.0.0.1:1"}]}
    plan = planned(spec, unit, health, tried, other=lame, before=("other.service",))
    assert not kinds(plan) & {Start, Stop, Restart}
    assert any(finding.outcome is not Outcome.CONVERGED for finding in plan.findings)
    if unit.active == "active" and unit.installed:
        assert "before it in group core comes other.service, which is failed" in plan.findings[0].reason


@given(specs, units, healths, tries)
def test_a_group_whose_first_members_work_changes_nothing(
    spec: dict[str, Any], unit: UnitState, health: Health, tried: Tries
) -> None:
    alone = planned(spec, unit, health, tried)
    member = planned({**spec, "group": "core"}, unit, health, tried, before=("other.service",))
    assert (steps(alone), alone.findings) == (steps(member), member.findings)


def running(**more: Any) -> UnitState:
    return UnitState(NAME, load="loaded", active="active", sub="running", started=500.0, **more)


def test_a_newer_file_restarts_once_it_is_left_alone() -> None:
    spec = {"restart_on": ["/etc/x"]}
    assert steps(planned(spec, running(), Health(), Tries(), newest=(400.0, "/etc/x"))) == ()
    assert steps(planned(spec, running(), Health(), Tries(), newest=(600.0, "/etc/x"))) == (Restart(fault=False),)
    soon = planned(spec, running(), Health(), Tries(), newest=(WALL - SETTLE / 2, "/etc/x"))
    assert (steps(soon), soon.findings[0].outcome) == ((), Outcome.PENDING)
    assert steps(planned(spec, running(), Health(), Tries(), newest=(WALL + 3600, "/etc/x"))) == (), "a clock that lies"


def test_what_a_reload_reads_again_is_no_restart_and_waits_for_the_file_to_be_right() -> None:
    spec = {"reload_on": ["/etc/x"]}
    assert steps(planned(spec, running(), Health(), Tries())) == ()
    plan = planned(spec, running(), Health(), Tries(), unread=("/etc/x", "digest"))
    assert steps(plan) == (ReloadUnit("digest"),)
    both = planned({**spec, "restart_on": ["/etc/y"]}, running(), Health(), Tries(), unread=("/etc/x", "digest"))
    assert steps(both) == (ReloadUnit("digest"),)
    both = planned(
        {**spec, "restart_on": ["/etc/y"]}, running(), Health(), Tries(),
        unread=("/etc/x", "digest"), newest=(600.0, "/etc/y"),
    )  # fmt: skip
    assert steps(both) == (Restart(fault=False),), "a restart reads everything"


def test_a_unit_in_a_namespace_that_was_made_anew_is_restarted_there() -> None:
    spec = {"namespace": "q"}
    assert not planned(spec, running(), Health(), Tries(), place=Place.THERE)
    assert steps(planned(spec, running(), Health(), Tries(), place=Place.ELSEWHERE)) == (Restart(fault=False),)
    just_started = replace(running(), started=WALL - 0.1)
    early = planned(spec, just_started, Health(), Tries(), place=Place.ELSEWHERE)
    assert not early.groups
    assert early.findings[0].recheck is not None  # on its way into it, as systemd starts a unit


@given(units, healths, tries)
def test_without_its_namespace_nothing_is_started_and_it_is_said_for_what_it_waits(
    unit: UnitState, health: Health, tried: Tries
) -> None:
    plan = planned({"namespace": "q"}, unit, health, tried, place=Place.NOWHERE)
    assert not kinds(plan) & {Start, Restart}
    if unit.installed and unit.active in {"active", "reloading"}:
        assert [finding.waits_for for finding in plan.findings] == [(ResourceId("namespace", "q"),)]


def test_a_running_unit_that_works_is_left_in_peace() -> None:
    assert not planned({"checks": [{"tcp": "127.0.0.1:1"}]}, running(), Health(ok=True, passed=True), Tries())


def test_a_unit_that_goes_with_its_namespace_is_no_deletion_of_its_own() -> None:
    path = f"/etc/systemd/system/{NAME}"
    files = {path: FileState(path, Kind.REGULAR, path, mark=xattr("me/service", path))}
    inside = []
    everythings: list[dict[ResourceId, Any]] = [{}, {ResourceId("namespace", "q"): None}]
    for everything in everythings:
        observed = Observed(running(), "me/service", 100.0, WALL, files, namespace="q")
        view: Any = View(scope_of(NAME), {}, everything=everything)
        ((change,),) = (group.changes for group in diff(view, observed).groups)
        inside.append(change.inside)
    assert inside == [ResourceId("namespace", "q"), None]


def test_a_mask_is_laid_before_there_is_a_unit() -> None:
    """Else the package that brings the unit starts it, before anybody can say no."""
    missing = UnitState(name=NAME, load="not-found", active="inactive", file_state="")
    assert steps(planned({"masked": True}, missing, Health(), Tries())) == (Mask(), Reload())
    laid = replace(missing, load="masked", file_state="masked")
    assert not planned({"masked": True}, laid, Health(), Tries())
