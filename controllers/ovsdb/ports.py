"""Ports, bonds and attributes held on others' ports: declared against the rows. Pure; writes into a draft."""

from __future__ import annotations

from collections.abc import Sequence

from controllers.drivers.ovsdb.rows import InterfaceRow, PortRow
from controllers.ovsdb.draft import Draft, described, differences
from controllers.ovsdb.guard import not_to_be_deleted, not_to_be_moved, not_to_be_taken
from controllers.ovsdb.part import NOTHING, Part
from controllers.ovsdb.patches import loop_guards, usable_peer
from controllers.ovsdb.state import CreatePort, DeletePort, Remind, SetPort
from controllers.ovsdb.wanted import DEAD_PEER, WantedRow
from desired.kinds.ovs import BondSpec, BridgeSpec, HeldPortSpec, PortSpec
from desired.resource import Mode, Resource, ResourceId
from reconciler.contract import Change, Disruption, Finding, Later, Outcome, Scope, Verb

REVIVAL = 0.1
"""Seconds between the deletion of a port and its creation, at the least: vswitchd has to see both."""

VSWITCHD_DEADLINE = 10.0
"""Seconds that vswitchd may take to give a port its number before we call that a failure."""

OLD_AFTER = 0.05
"""Seconds that a patch port may have an error although its peer is there, before vswitchd is asked to look again."""

PEER_DEADLINE = 0.5
"""Seconds of that after which the error is taken for the truth, and the pair is joined again."""


def look(draft: Draft, name: str) -> None:
    """Compare the port or bond `name`."""
    bond = draft.declared(ResourceId("bond", name))
    resource = bond or draft.declared(ResourceId("port", name))
    row = draft.replica.ports.get(name)
    if resource is None:
        if row is not None:
            _undeclared(draft, row)
        return
    assert isinstance(resource.spec, PortSpec | BondSpec)
    bridge = resource.spec.bridge
    if row is None:
        _missing(draft, resource, resource.spec)
        return
    if not draft.may_hold(row, resource):
        draft.conflict(resource, f"port {name}")
        return
    has = draft.replica.bridge_of_port(name)
    if has != bridge:
        if not not_to_be_moved(draft, resource, has) and _bridge_ready(draft, resource, bridge):
            _create(draft, resource, resource.spec, f"port is on bridge {has}, not on {bridge}", instead_of=row)
        return
    if name in draft.observed.lost:
        _lost(draft, resource, row)
        return
    _compare(draft, resource, resource.spec, row)


def _lost(draft: Draft, resource: Resource, row: PortRow) -> None:
    """Vswitchd makes a new device only for a port that was gone: a row replaced in one step changes nothing."""
    why = "no device has its name any more: deleted with its namespace or by 'ip link', renamed, or moved elsewhere"
    action = DeletePort(resource.spec.refs()[0].name, row.name, row.uuid, to_revive=True)
    draft.changes.append(
        Change(resource.id, Verb.UPDATE, action, why, "a port without a device", "made anew", Disruption.OUTAGE)
    )


def _missing(draft: Draft, resource: Resource, spec: PortSpec | BondSpec) -> None:
    if not_to_be_taken(draft, resource, spec.bridge):
        return
    if resource.id.name in draft.observed.lost:
        reason = "is made anew in a moment: vswitchd has to forget the one whose device is gone"
        draft.findings.append(Finding(resource.id, Outcome.PENDING, reason, recheck=REVIVAL))
    elif _bridge_ready(draft, resource, spec.bridge):
        _create(draft, resource, spec, "port is missing")


def _bridge_ready(draft: Draft, resource: Resource, bridge: str) -> bool:
    """Is the bridge there, or created in this same plan? Else the port waits, and says so."""
    declared = draft.view.resources.get(ResourceId("bridge", bridge))
    row = draft.replica.bridges.get(bridge)
    if declared is None and row is not None:
        return True
    if declared is not None:
        planned = declared.spec.mode is Mode.ENFORCE and any(c.resource == declared.id for c in draft.changes)
        ours = row is not None and draft.may_hold(row, declared)
        if ours or (row is None and planned):
            return True
    waits = ResourceId("bridge", bridge)
    why = f"waits for {waits}" if declared is not None else f"waits for {waits}, which is neither declared nor there"
    draft.findings.append(Finding(resource.id, Outcome.PENDING, why, (waits,)))
    return False


def _guards(draft: Draft, spec: PortSpec | BondSpec, name: str = "") -> tuple[Scope, ...]:
    """What a patch port must wait for before it is joined. The port `name` that is joined already is never cut off."""
    if isinstance(spec, BondSpec):
        return ()
    interface = draft.replica.interfaces.get(name)
    if interface is not None and interface.options.get("peer") == spec.peer:
        return ()
    return loop_guards(draft, spec)


def _create(
    draft: Draft, resource: Resource, spec: PortSpec | BondSpec, why: str, instead_of: PortRow | None = None
) -> None:
    name = resource.id.name
    wanted = draft.observed.wanted.port(resource, draft.observed.owner, dead_peer=bool(_guards(draft, spec)))
    declared = spec.ofport_request if isinstance(spec, PortSpec) else None
    interfaces = {}
    for interface, columns in wanted.fresh_interfaces.items():
        request = declared or draft.observed.ofports.get(interface)
        interfaces[interface] = columns if request is None else {**columns, "ofport_request": request}
    replaced = None
    if instead_of is not None:
        replaced = (instead_of.uuid, draft.replica.bridge_of_port(name) or spec.bridge)
    action = CreatePort(spec.bridge, name, wanted.fresh, interfaces, replaced)
    verb = Verb.CREATE if instead_of is None else Verb.UPDATE
    disruption = Disruption.NONE if instead_of is None else Disruption.BRIEF
    before = "" if instead_of is None else "present"
    after = Later(lambda: f"{described(wanted.fresh)} on {spec.bridge}; {described(next(iter(interfaces.values())))}")
    draft.changes.append(Change(resource.id, verb, action, why, before, after, disruption))


def _compare(draft: Draft, resource: Resource, spec: PortSpec | BondSpec, row: PortRow) -> None:
    guards = _guards(draft, spec, resource.id.name)
    wanted_port = draft.observed.wanted.port(resource, draft.observed.owner, dead_peer=bool(guards))
    wanted = wanted_port.interfaces
    rows = {i.name: i for uuid in row.interfaces if (i := draft.replica.interface_by_uuid(uuid)) is not None}
    if rows.keys() != wanted.keys():
        why = f"interfaces are {', '.join(sorted(rows)) or 'none'}, declared {', '.join(sorted(wanted))}"
        _create(draft, resource, spec, why, instead_of=row)
        return
    broken = next((i for i in rows.values() if i.error or i.ofport == -1), None)
    unsure = broken if broken is not None and broken.type == "patch" else None
    if unsure is not None and _peer_may_come(draft, resource, unsure):
        broken = None
    port = wanted_port.row.difference(row)
    parts: dict[str, Part] = {name: wanted[name].difference(rows[name]) for name in rows}
    if broken is not None and not parts[broken.name] and not port:
        error = broken.error or "it has no OpenFlow number"
        if broken.type == "patch":
            _rejoin(draft, resource, row, broken)
            return
        _create(draft, resource, spec, f"Open vSwitch could not make it: {error}", instead_of=row)
        return
    for name, interface in rows.items():
        parts[name] = _with_number(parts[name], spec, interface)
    if port or any(parts.values()):
        _set(draft, resource, row, port, [(rows[name], part) for name, part in parts.items() if part])
    elif guards:
        reason = f"is joined to its peer when the flows are settled: {', '.join(guard.name for guard in guards)}"
        draft.findings.append(Finding(resource.id, Outcome.PENDING, reason, guards))
    elif unsure is not None and _may_be_old(draft, resource, unsure):
        why = f"Open vSwitch says {unsure.error!r}, and its peer is there: it is asked to look again"
        action = Remind(resource.id.name)
        draft.changes.append(Change(resource.id, Verb.UPDATE, action, why, "", "", Disruption.NONE))
    elif any(interface.ofport is None or interface.error for interface in rows.values()):
        _waiting(draft, resource)


def _peer_may_come(draft: Draft, resource: Resource, interface: InterfaceRow) -> bool:
    """The error of a patch port is mostly its peer's absence, and vswitchd clears it when the peer is there."""
    waited = draft.observed.waiting.get(resource.id.name, 0.0) >= PEER_DEADLINE
    return not waited or usable_peer(draft.replica, resource.id.name, interface) is None


def _may_be_old(draft: Draft, resource: Resource, interface: InterfaceRow) -> bool:
    """Has vswitchd had the time to clear the error, and was it not asked yet?

    It sets the error while it rebuilds the pair, and does not look again when the pair is whole (Open vSwitch 3.1, one
    repair in ten): traffic passes, and it says the contrary until anything else in OVSDB is changed.
    """
    waited = draft.observed.waiting.get(resource.id.name, 0.0)
    name = resource.id.name
    usable = usable_peer(draft.replica, name, interface) is not None
    return usable and waited >= OLD_AFTER and name not in draft.observed.reminded


def _rejoin(draft: Draft, resource: Resource, row: PortRow, interface: InterfaceRow) -> None:
    """Take a patch port off its peer; the next look joins it again.

    Deleting a port that was the peer once leaves the port that is joined to another now without any (Open vSwitch
    3.1), and making it anew in one transaction changes nothing for vswitchd.
    """
    options = {**interface.options, "peer": DEAD_PEER}
    part = Part({"options": options})
    _, before, after = differences([("interface ", part, interface)])
    action = SetPort(resource.id.name, row.uuid, NOTHING, {interface.uuid: part})
    why = f"Open vSwitch has lost its peer ({interface.error}); it is taken off it and joined again"
    draft.changes.append(Change(resource.id, Verb.UPDATE, action, why, before, after, Disruption.BRIEF))


def _with_number(part: Part, spec: PortSpec | BondSpec, interface: InterfaceRow) -> Part:
    """Keep the number a port has, so that flows that name it survive its re-creation."""
    declared = spec.ofport_request if isinstance(spec, PortSpec) else None
    has = interface.ofport if interface.ofport is not None and interface.ofport > 0 else None
    request = declared or has
    if request is None or interface.ofport_request == request:
        return part
    return Part({**part.columns, "ofport_request": request}, part.keys)


def _set(
    draft: Draft, resource: Resource, row: PortRow, port: Part, parts: Sequence[tuple[InterfaceRow, Part]]
) -> None:
    by_uuid = {interface.uuid: part for interface, part in parts}
    why, before, after = differences([("", port, row), *(("interface ", part, i) for i, part in parts)])
    action = SetPort(resource.id.name, row.uuid, port, by_uuid)
    columns = {column for part in by_uuid.values() for column in part.columns}
    quiet = not port and columns == {"ofport_request"} and not any(part.keys for part in by_uuid.values())
    if quiet:
        why = "its number is to survive a re-creation"
    brief = bool(columns & {"type", "options"} or port.columns.keys() & {"tag", "trunks", "vlan_mode"})
    disruption = Disruption.BRIEF if brief else Disruption.NONE
    draft.changes.append(Change(resource.id, Verb.UPDATE, action, why, before, after, disruption))


def _waiting(draft: Draft, resource: Resource) -> None:
    since = draft.observed.waiting.get(resource.id.name, 0.0)
    interface = draft.replica.interfaces.get(resource.id.name)
    if interface is not None and interface.type == "patch" and interface.error:
        peer = interface.options.get("peer", "")
        # A peer that is there is not waited for: vswitchd clears the error in its own time, which is an event.
        waits = () if peer in draft.replica.ports else (ResourceId("port", peer),)
        reason = f"Open vSwitch says: {interface.error}"
        recheck = PEER_DEADLINE if resource.id.name in draft.observed.reminded else OLD_AFTER
        draft.findings.append(Finding(resource.id, Outcome.PENDING, reason, waits, recheck=recheck))
        return
    if since >= VSWITCHD_DEADLINE:
        reason = (
            f"vswitchd has not made port {resource.id.name} within {VSWITCHD_DEADLINE:.0f} s; is ovs-vswitchd running?"
        )
        draft.findings.append(Finding(resource.id, Outcome.FAILED, reason, recheck=VSWITCHD_DEADLINE))
        return
    reason = "waits for vswitchd to give it a number"
    draft.findings.append(Finding(resource.id, Outcome.PENDING, reason, recheck=VSWITCHD_DEADLINE - since + 0.1))


def _undeclared(draft: Draft, row: PortRow) -> None:
    """Ours and no longer declared: pruned. Foreign: stays, unless its bridge is `ports: exclusive`."""
    bridge = draft.replica.bridge_of_port(row.name)
    if bridge is None or bridge == row.name:
        return
    rid = ResourceId("bond" if len(row.interfaces) > 1 else "port", row.name)
    draft.looked_at.add(rid)
    action = DeletePort(bridge, row.name, row.uuid)
    if draft.owns(row):
        if not_to_be_deleted(draft, rid, bridge):
            return
        change = Change(
            rid, Verb.DELETE, action, "no longer declared", f"on {bridge}", "", Disruption.BRIEF, prune=True
        )
        draft.deletes.append(change)
        return
    resource = draft.view.resources.get(ResourceId("bridge", bridge))
    if resource is None or not isinstance(resource.spec, BridgeSpec) or resource.spec.ports != "exclusive":
        return
    bridge_row = draft.replica.bridges[bridge]
    if draft.owns(bridge_row) and not not_to_be_deleted(draft, rid, bridge):
        why = f"bridge {bridge} has 'ports: exclusive' and this port is not declared"
        draft.deletes.append(Change(rid, Verb.DELETE, action, why, f"on {bridge}", "", Disruption.BRIEF))


def held(draft: Draft, resource: Resource) -> None:
    """Attributes of ports that others plugged; whoever has the iface-id gets them."""
    spec = resource.spec
    assert isinstance(spec, HeldPortSpec)
    draft.looked_at.add(resource.id)
    names = draft.replica.ports_by_iface_id(resource.id.name)
    if not names and not spec.awaited:
        return
    if not names:
        reason = f"no port with external_ids:iface-id={resource.id.name} is plugged"
        draft.findings.append(Finding(resource.id, Outcome.PENDING, reason))
        return
    for name in names:
        row = draft.replica.ports[name]
        keys = {column: kept for column in ("other_config", "external_ids") if (kept := getattr(spec, column))}
        wanted = WantedRow({"tag": spec.tag} if spec.tag is not None else {}, keys)
        part = wanted.difference(row)
        if part:
            why, before, after = differences([("", part, row)])
            action = SetPort(name, row.uuid, part)
            draft.changes.append(
                Change(resource.id, Verb.UPDATE, action, f"{why} on {name}", before, after, Disruption.BRIEF)
            )
