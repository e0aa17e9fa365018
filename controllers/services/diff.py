"""Compare a declared unit with what systemd says of it. Pure.

systemd acts first: a unit that it is starting, stopping or about to restart is waited for. We act when it was stopped,
when systemd gave up, when its checks fail, or when a file that it depends on is newer than its start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from controllers.drivers.files.disk import FileState, Kind
from controllers.drivers.files.marks import is_ours, with_header, xattr
from controllers.drivers.netlink.whereabouts import Place
from controllers.drivers.systemd.units import UP, UnitState
from controllers.services.state import (
    NAME,
    UNITS,
    Apply,
    Disable,
    Enable,
    Load,
    Mask,
    Observed,
    Reload,
    ReloadUnit,
    RemoveFile,
    Restart,
    Start,
    Step,
    Stop,
    Unmask,
    WriteFile,
)
from desired.kinds.service import ServiceSpec
from desired.resource import Resource, ResourceId
from reconciler.contract import Change, Disruption, Finding, Group, Outcome, Plan, Scope, Verb, View

SETTLE = 0.5
"""Seconds that a changed file must have been left alone before the restart: several edits are one restart."""
HAND_OVER = 0.2
"""Seconds for which a unit with Restart= looks dead before systemd says that it will restart it."""
ENTERING = 1.0
"""Seconds after a start in which its process may still be outside its namespace: systemd forks first, enters then."""

WAIT = 5.0
"""Seconds after which a unit that systemd is at work on is looked at again, should no event come."""
_NO_INSTALL = frozenset({"static", "generated", "transient"})
_ENABLED = frozenset({"enabled", "enabled-runtime", "alias", "linked", "linked-runtime"})


@dataclass(slots=True)
class _Draft:
    observed: Observed
    rid: ResourceId
    steps: list[Step] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    after: list[ResourceId | Scope] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    disruption: Disruption = Disruption.NONE

    def step(self, why: str, *steps: Step, disruption: Disruption = Disruption.NONE) -> None:
        self.why.append(why)
        self.steps.extend(steps)
        if disruption is not Disruption.NONE:
            self.disruption = disruption

    def find(
        self, outcome: Outcome, reason: str, recheck: float | None = None, waits_for: tuple[ResourceId, ...] = ()
    ) -> None:
        self.findings.append(Finding(self.rid, outcome, reason, waits_for, recheck))


def diff(view: View, observed: Observed) -> Plan:
    """The plan for one unit: at most one change, whose steps are taken in order."""
    draft = _Draft(observed, ResourceId(ServiceSpec.kind, observed.unit.name))
    resource = view.resources.get(draft.rid)
    ours = [path for path, state in observed.files.items() if is_ours(state, observed.owner)]
    owned = {ServiceSpec.kind: int(bool(ours))}
    if resource is None:
        _prune(draft, ours)
    else:
        _declared(draft, view, resource)
    if not draft.steps:
        return Plan((), tuple(draft.findings), owned)
    action = Apply(observed.unit.name, tuple(draft.steps))
    prune = resource is None
    change = Change(
        draft.rid,
        Verb.DELETE if prune else Verb.UPDATE,
        action,
        "; ".join(draft.why),
        before=_state(observed),
        after="" if prune else ", ".join(_word(step) for step in draft.steps),
        disruption=draft.disruption,
        prune=prune,
        inside=_gone(view, observed.namespace) if prune else None,
    )
    return Plan((Group((change,), tuple(draft.after)),), tuple(draft.findings), owned)


def _gone(view: View, namespace: str) -> ResourceId | None:
    """The namespace that a unit was in, if that is no longer declared either: then it is one deletion."""
    rid = ResourceId("namespace", namespace)
    return rid if namespace and rid not in view.everything else None


def _state(observed: Observed) -> str:
    unit = observed.unit
    if not unit.installed:
        return "not installed"
    result = f", {unit.result}" if unit.active == "failed" and unit.result else ""
    return f"{unit.active} ({unit.sub}{result})"


def _word(step: Step) -> str:
    match step:
        case WriteFile() | RemoveFile():
            return f"{'write' if isinstance(step, WriteFile) else 'remove'} {step.path}"
        case _:
            return type(step).__name__.lower()


def _prune(draft: _Draft, ours: list[str]) -> None:
    """Our files go. A unit whose own file is ours is stopped and disabled before; another's is left as it is."""
    if not ours:
        return
    unit = draft.observed.unit
    if f"{UNITS}/{unit.name}" in ours:
        if unit.active in UP:
            draft.disruption = Disruption.OUTAGE
            draft.steps.append(Stop())
        if unit.file_state in _ENABLED:
            draft.steps.append(Disable())
    draft.step(
        "no longer declared", *(RemoveFile(path) for path in sorted(ours)), Reload(), disruption=draft.disruption
    )


def _declared(draft: _Draft, view: View, resource: Resource) -> None:
    spec, unit = resource.spec, draft.observed.unit
    assert isinstance(spec, ServiceSpec)
    if not _files(draft, spec):
        return
    written = bool(draft.steps)
    wanted = spec.wanted
    if spec.one_of is not None and wanted == "running" and draft.observed.chosen != unit.name:
        wanted = "stopped"
    # A mask is laid before a unit is installed as well: else its package would start it first.
    if not unit.installed and not spec.masked and not (written and spec.unit is not None):
        if wanted == "running" or spec.enabled:
            draft.find(Outcome.PENDING, f"{unit.name} is not installed: systemd knows no such unit")
        return
    _install(draft, spec, written=written)
    if wanted == "stopped" and unit.active in UP and not (unit.job and unit.active == "activating"):
        other = draft.observed.chosen if spec.wanted == "running" else ""
        why = f"{other} runs instead" if other else "is to be stopped"
        draft.step(f"runs, and {why}", Stop(), disruption=Disruption.OUTAGE)
    if wanted == "running":
        _running(draft, view, spec, written=written)


# -- unit files and what is installed --------------------------------------------------------------------------------


def _files(draft: _Draft, spec: ServiceSpec) -> bool:
    """Steps for our unit file and drop-ins. False when one of them is another's."""
    observed = draft.observed
    wanted = {f"{UNITS}/{spec.name}.d/{name}.conf": text for name, text in spec.dropins.items()}
    if spec.unit is not None:
        wanted[f"{UNITS}/{spec.name}"] = spec.unit
    for path, text in sorted(wanted.items()):
        state = observed.files.get(path, FileState(path, Kind.MISSING, path))
        content = with_header(text.encode(), observed.owner, path, "#")
        missing = state.kind is Kind.MISSING
        if not (missing or is_ours(state, observed.owner) or spec.adopt):
            reason = f"{path} is there already, without our mark; 'adopt: true' would replace it"
            draft.find(Outcome.CONFLICT, reason)
            return False
        if state.content != content or state.kind is not Kind.REGULAR:
            why = f"{path} {'is missing' if missing else 'differs'}"
            draft.step(why, WriteFile(path, content, xattr(observed.owner, path)))
    for path, state in sorted(observed.files.items()):
        if path not in wanted and is_ours(state, observed.owner):
            draft.step(f"{path} is no longer declared", RemoveFile(path))
    if draft.steps:
        draft.steps.append(Load() if spec.unit is not None and not observed.unit.installed else Reload())
    elif wanted and observed.unit.need_reload:
        draft.step("its files changed and systemd has not read them", Reload())
    return True


def _install(draft: _Draft, spec: ServiceSpec, *, written: bool) -> None:
    """Steps for masked and enabled."""
    unit = draft.observed.unit
    masked = unit.load == "masked" or unit.file_state.startswith("masked")
    if spec.masked and not masked:
        draft.step("is not masked", Mask(), Reload())
    if not spec.masked and masked:
        draft.step("is masked", Unmask(), Reload())
    if spec.masked or spec.enabled is None:
        return
    has = unit.file_state in _ENABLED
    if spec.enabled and not has:
        if unit.file_state in _NO_INSTALL and not written:
            reason = f"{unit.name} cannot be enabled: it is {unit.file_state} (its file has no [Install] section)"
            draft.find(Outcome.FAILED, reason)
            return
        draft.step("is not enabled", Enable(), Reload())
    elif not spec.enabled and has:
        draft.step("is enabled", Disable(), Reload())


# -- running ---------------------------------------------------------------------------------------------------------


def _running(draft: _Draft, view: View, spec: ServiceSpec, *, written: bool) -> None:
    unit = draft.observed.unit
    match unit.active:
        case "active" | "reloading" | "refreshing":
            if not _displaced(draft, spec) and not _outdated(draft, view, spec, written=written):
                _unread(draft, view, spec)
                if not _held(draft, spec):
                    _healthy(draft, spec)
        case "activating" | "deactivating" | "maintenance":
            what = {"activating": "starting", "deactivating": "stopping"}.get(unit.active, unit.active)
            draft.find(Outcome.PENDING, f"systemd is {what} it ({unit.sub})", WAIT)
        case _ if unit.job:
            draft.find(Outcome.PENDING, "systemd has queued a job for it", WAIT)
        case _:
            _start(draft, view, spec)


def _start(draft: _Draft, view: View, spec: ServiceSpec) -> None:
    observed = draft.observed
    if observed.place is Place.NOWHERE:
        _without_namespace(draft, spec, "does not run")
        return
    for name in (*observed.before, *spec.after, *spec.requires):
        other = observed.others[name]
        needed = name in observed.before or name in spec.requires
        if not other.works and (needed or not other.hopeless):
            waits = (ResourceId(ServiceSpec.kind, name),)
            draft.find(Outcome.PENDING, f"waits for {name}, which {other.why}", WAIT, waits)
            return
    dead = observed.wall - observed.unit.ended
    if _will_restart(observed.unit) and 0 <= dead < HAND_OVER:
        draft.find(Outcome.PENDING, "it has ended, and systemd is to restart it", HAND_OVER - dead + 0.001)
        return
    failed = observed.unit.active == "failed"
    why = f"has failed ({observed.unit.result})" if failed else "does not run"
    if _may_try(draft, spec, why):
        draft.step(why, Start())
        draft.after += _files_of(view, (*spec.restart_on, *spec.reload_on))


def _without_namespace(draft: _Draft, spec: ServiceSpec, what: str) -> None:
    waits = (ResourceId("namespace", str(spec.namespace)),)
    draft.find(Outcome.PENDING, f"{what}, and there is no namespace {spec.namespace}", WAIT, waits)


def _files_of(view: View, paths: Iterable[str]) -> list[ResourceId | Scope]:
    """The scopes of those files that are declared: they are to be as they should before anybody reads them."""
    declared = {getattr(resource.spec, "path", "") for resource in view.everything.values()} if paths else set()
    return [Scope("file", path) for path in paths if path in declared]


def _will_restart(unit: UnitState) -> bool:
    return unit.restart not in {"", "no"} and unit.result != "start-limit-hit" and not unit.stopped


def _may_try(draft: _Draft, spec: ServiceSpec, why: str) -> bool:
    """Is another start within the budget and its time come?"""
    tries, now = draft.observed.tries, draft.observed.now
    if tries.vain >= spec.restarts:
        said = f"; it said last: {draft.observed.said}" if draft.observed.said else ""
        draft.find(Outcome.FAILED, f"{why}; left after {tries.vain} starts in vain{said}")
        return False
    if now < tries.next_at:
        reason = f"{why}; started {tries.vain} times in vain, again in {tries.next_at - now:.2g} s"
        draft.find(Outcome.FAILED, reason, tries.next_at - now + 0.001)
        return False
    return True


def _outdated(draft: _Draft, view: View, spec: ServiceSpec, *, written: bool) -> bool:
    """Is it older than what it was started with? A restart then, once the files are left alone and as declared."""
    observed = draft.observed
    if written and f"{UNITS}/{spec.name}" in {s.path for s in draft.steps if isinstance(s, WriteFile)}:
        return True  # systemd has to read the file first; its time of change says the rest
    changed, path = observed.newest
    if not (0 < observed.unit.started < changed <= observed.wall + 1):
        return False
    left_alone = observed.wall - changed
    if left_alone < SETTLE:
        draft.find(Outcome.PENDING, f"{path} has changed; restarted when it is left alone", SETTLE - left_alone + 0.001)
        return True
    draft.step(f"{path} has changed since it was started", Restart(fault=False), disruption=Disruption.BRIEF)
    draft.after += _files_of(view, spec.restart_on)
    return True


def _displaced(draft: _Draft, spec: ServiceSpec) -> bool:
    """Does it run in a namespace that was there before? It is of no use to anybody, and is started in the new one."""
    observed = draft.observed
    age = observed.wall - observed.unit.started
    match observed.place:
        case Place.ELSEWHERE if 0 <= age < ENTERING:
            draft.find(Outcome.PENDING, f"it was started just now, on its way into {spec.namespace}", ENTERING - age)
        case Place.ELSEWHERE:
            why = f"it does not run in the present namespace {spec.namespace}"
            draft.step(why, Restart(fault=False), disruption=Disruption.BRIEF)
        case Place.NOWHERE:
            _without_namespace(draft, spec, "it runs in another namespace")
        case _:
            return False
    return True


def _unread(draft: _Draft, view: View, spec: ServiceSpec) -> None:
    path, digest = draft.observed.unread
    if path:
        draft.step(f"{path} has changed since it was read", ReloadUnit(digest))
        draft.after += _files_of(view, spec.reload_on)


def _healthy(draft: _Draft, spec: ServiceSpec) -> None:
    if not spec.checks:
        return
    observed, health = draft.observed, draft.observed.health
    age = observed.wall - observed.unit.started
    if health.ok:
        return
    if health.ok is None:
        draft.find(Outcome.PENDING, "it runs, and its checks have not been answered yet", WAIT)
    elif not health.passed and age < spec.grace:
        draft.find(Outcome.PENDING, f"it runs and does not work yet: {health.words}", spec.grace - age + 0.001)
    elif health.failed < spec.failures:
        draft.find(Outcome.PENDING, f"a check failed once: {health.words}", spec.interval)
    elif _may_try(draft, spec, health.words):
        draft.step(f"runs and does not work: {health.words}", Restart(fault=True), disruption=Disruption.BRIEF)


def _held(draft: _Draft, spec: ServiceSpec) -> bool:
    """It runs, but something before it in its group does not work: left running, not called right, nor restarted."""
    for name in draft.observed.before:
        other = draft.observed.others[name]
        if not other.works:
            waits = (ResourceId(ServiceSpec.kind, name),)
            reason = f"it runs, but before it in group {spec.group} comes {name}, which {other.why}"
            draft.find(Outcome.PENDING, reason, WAIT, waits)
            return True
    return False


def scope_of(name: str) -> Scope:
    return Scope(NAME, name)
