"""Compare declared flows with the switch's. Pure; bytes are compared with bytes, never text with text.

All changes of a bridge are one divisible group, which is one bundle: additions and changes first, deletions last.
Learned flows (with a timeout, and not declared) are the switch's own and never part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from controllers.drivers.openflow.flows import AddFlow, DeleteFlow, Flow, FlowKey
from controllers.openflow.describe import describe, describe_instructions
from controllers.openflow.numbered import NumberedDiff, diff_numbered
from controllers.openflow.state import Observed
from controllers.openflow.table import Entry
from controllers.ownership import cookie, is_our_cookie
from desired.kinds.ovs import BridgeSpec
from desired.resource import Mode, ResourceId
from reconciler.contract import Change, Disruption, Finding, Group, Outcome, Plan, Verb, View


@dataclass(slots=True)
class _Draft:
    changes: list[Change] = field(default_factory=list)
    deletes: list[Change] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    cookies: dict[int, ResourceId] | None = None

    def declared_with(self, value: int, view: View) -> ResourceId | None:
        """The declared flow whose cookie this is. Only strays are asked for, so it is mostly not even built."""
        if self.cookies is None:
            self.cookies = {cookie(rid): rid for rid in view.resources}
        return self.cookies.get(value)


def diff(view: View, observed: Observed) -> Plan:
    """The plan for one bridge's flows, or for the keys that `observed` narrows to."""
    draft = _Draft()
    exclusive = is_exclusive(view, observed)
    entries, flows = observed.table.entries, observed.flows
    for key in entries if observed.keys is None else observed.keys:
        entry = entries.get(key)
        if entry is not None:
            _declared(draft, view, observed, entry, exclusive=exclusive)
    odd = {form.key for key, form in observed.forms.items() if key in entries} if observed.forms else frozenset()
    for key in flows if observed.keys is None else observed.keys:
        if key in flows and key not in entries and key not in odd:
            _undeclared(draft, view, observed, key, exclusive=exclusive)
    looked_at = None if observed.keys is None else frozenset(_looked_at(observed))
    _unready(draft, observed, looked_at)
    groups, meters = _numbered(view, observed, exclusive=exclusive)
    findings = (*draft.findings, *groups.findings, *meters.findings)
    bundle = (*groups.first, *draft.changes, *draft.deletes, *groups.last)
    bridge = ResourceId("bridge", observed.bridge)
    after = (bridge,) if bridge in view.everything else ()
    # Meters cannot be in a bundle; flows use them, so they come before it and go after it.
    planned = tuple(Group(c, after, divisible=True) for c in (meters.first, bundle, meters.last) if c)
    return Plan(planned, findings, _owned(observed), looked_at)


def _numbered(view: View, observed: Observed, *, exclusive: bool) -> tuple[NumberedDiff, NumberedDiff]:
    """Groups and meters; a narrowed look does not see them."""
    if observed.numbered is None:
        return NumberedDiff(), NumberedDiff()
    numbered, bridge = observed.numbered, observed.bridge
    groups, meters = (diff_numbered(view, kind, bridge, numbered, exclusive=exclusive) for kind in ("group", "meter"))
    return groups, meters


def is_exclusive(view: View, observed: Observed) -> bool:
    """Is a foreign flow drift here? On a declared bridge with `flows: exclusive`, once flows are declared for it.

    A bridge in standalone mode without any declared flow lives by the switch's own NORMAL flow. Of a bridge that is
    only observed nothing is deleted that was not declared.
    """
    bridge = view.everything.get(ResourceId("bridge", observed.bridge))
    if bridge is None or not isinstance(bridge.spec, BridgeSpec) or bridge.spec.flows != "exclusive":
        return False
    if bridge.spec.mode is Mode.OBSERVE:
        return False
    return bridge.spec.fail_mode == "secure" or bool(view.resources)


def _declared(draft: _Draft, view: View, observed: Observed, entry: Entry, *, exclusive: bool) -> None:
    form = observed.forms.get(entry.key)
    if form is not None and form.sent != entry.flow:
        form = None
    found = observed.flows.get(entry.key if form is None else form.key)
    if found is None:
        add = AddFlow(entry.key, entry.flow)
        text = _text(view, entry.resource)
        draft.changes.append(Change(entry.resource, Verb.CREATE, add, "flow is missing", "", text))
        return
    differing = _differences(entry.flow if form is None else form.flow, found)
    if not differing:
        return
    if not is_our_cookie(found.cookie) and not exclusive:
        resource = view.resources[entry.resource]
        if not resource.spec.adopt:
            reason = (
                f"a flow with this match and cookie {found.cookie:#x} is there, which is not ours;"
                f" 'adopt: true' at {resource.origin} takes it over"
            )
            draft.findings.append(Finding(entry.resource, Outcome.CONFLICT, reason))
            return
    why = f"{', '.join(differing)} of the flow differ{'s' if len(differing) == 1 else ''}"
    before, after = _shown(found), _text(view, entry.resource)
    add = AddFlow(entry.key, entry.flow)
    draft.changes.append(Change(entry.resource, Verb.UPDATE, add, why, before, after, Disruption.BRIEF))


def _differences(wanted: Flow, found: Flow) -> list[str]:
    if found == wanted:
        return []
    names = ["actions"] if found.instructions != wanted.instructions else []
    names += [
        name
        for name in ("cookie", "idle_timeout", "hard_timeout", "flags", "importance")
        if getattr(found, name) != getattr(wanted, name)
    ]
    return names


def _undeclared(draft: _Draft, view: View, observed: Observed, key: FlowKey, *, exclusive: bool) -> None:
    flow = observed.flows[key]
    if flow.idle_timeout or flow.hard_timeout:
        return
    ours = is_our_cookie(flow.cookie)
    if (not ours and not exclusive) or observed.orphan:
        return
    declared = draft.declared_with(flow.cookie, view) if ours else None
    rid = declared or _stray(observed, key)
    if declared is not None:
        why = "not the match that is declared: a port it names has another number or is gone"
    elif ours:
        why = "no longer declared"
    else:
        why = f"foreign flow (cookie {flow.cookie:#x}) on an exclusive bridge"
    delete = DeleteFlow(key, flow.cookie, 0xFFFF_FFFF_FFFF_FFFF)
    prune = ours and declared is None  # else it is a repair of what is declared, which no budget may hold up
    draft.deletes.append(Change(rid, Verb.DELETE, delete, why, _shown(flow), "", Disruption.BRIEF, prune=prune))


def _stray(observed: Observed, key: FlowKey) -> ResourceId:
    return observed.names.get(key) or ResourceId("flow", f"{observed.bridge}/{describe(key)}")


def _looked_at(observed: Observed) -> Iterator[ResourceId]:
    assert observed.keys is not None
    entries = observed.table.entries
    yield from observed.resources
    for key in observed.keys:
        entry = entries.get(key)
        yield entry.resource if entry is not None else _stray(observed, key)


def _unready(draft: _Draft, observed: Observed, looked_at: frozenset[ResourceId] | None) -> None:
    """Declared flows that cannot be compared: they wait for a port, are invalid, or say the same as another."""
    table = observed.table
    if not (table.waiting or table.invalid or table.doubles):
        return

    def wanted(resources: Iterable[ResourceId]) -> Iterator[ResourceId]:
        return (rid for rid in resources if looked_at is None or rid in looked_at)

    for rid in wanted(table.waiting):
        names = table.waiting[rid]
        refs = tuple(ResourceId("port", name) for name in names)
        reason = f"waits for port {', '.join(names)} on bridge {observed.bridge}"
        draft.findings.append(Finding(rid, Outcome.PENDING, reason, refs))
    for rid in wanted(table.invalid):
        draft.findings.append(Finding(rid, Outcome.FAILED, f"invalid flow: {table.invalid[rid]}"))
    for rid in wanted(table.doubles):
        reason = f"means the same match as {table.doubles[rid]}, which is declared, too; only one of them can be"
        draft.findings.append(Finding(rid, Outcome.FAILED, reason))


def _text(view: View, rid: ResourceId) -> str:
    flow = getattr(view.resources[rid].spec, "flow", "")
    return str(flow)


def _shown(flow: Flow) -> str:
    timeouts = f" idle_timeout={flow.idle_timeout} hard_timeout={flow.hard_timeout}"
    shown = timeouts if flow.idle_timeout or flow.hard_timeout else ""
    return f"cookie={flow.cookie:#x}{shown} {describe_instructions(flow.instructions)}"


def _owned(observed: Observed) -> dict[str, int]:
    if observed.keys is not None:
        return {}
    owned = {"flow": sum(is_our_cookie(flow.cookie) for flow in observed.flows.values())}
    if observed.numbered is not None:
        owned |= {kind: len(found) for kind, found in observed.numbered.found.items()}
    return owned
