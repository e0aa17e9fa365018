"""Bridges: declared against the rows. Pure; writes into a draft."""

from __future__ import annotations

from controllers.drivers.ovsdb.rows import BridgeRow, InterfaceRow
from controllers.ovsdb.draft import Draft, described, differences
from controllers.ovsdb.guard import not_to_be_deleted
from controllers.ovsdb.part import NOTHING, Part
from controllers.ovsdb.state import CreateBridge, DeleteBridge, SetBridge
from desired.kinds.ovs import BridgeSpec
from desired.resource import Resource, ResourceId
from reconciler.contract import Change, Disruption, Finding, Later, Outcome, Verb


def look(draft: Draft, name: str) -> None:
    """Compare the bridge `name`."""
    rid = ResourceId("bridge", name)
    resource = draft.declared(rid)
    row = draft.replica.bridges.get(name)
    if resource is None:
        if row is not None and draft.owns(row):
            _prune(draft, rid, row)
        return
    assert isinstance(resource.spec, BridgeSpec)
    if row is None:
        _create(draft, resource, resource.spec)
    elif not draft.may_hold(row, resource):
        draft.conflict(resource, f"bridge {name}")
    else:
        _set(draft, resource, resource.spec, row)


def _create(draft: Draft, resource: Resource, spec: BridgeSpec) -> None:
    rid = resource.id
    wrong = datapath_problem(draft, spec)
    if wrong:
        draft.findings.append(Finding(rid, Outcome.FAILED, wrong))
        return
    wanted, local = draft.observed.wanted.bridge(resource, draft.observed.owner, draft.observed.datapath_type)
    action = CreateBridge(rid.name, wanted.fresh(), local.fresh())
    after = Later(lambda: described(action.columns))
    draft.changes.append(Change(rid, Verb.CREATE, action, "bridge is missing", "", after))


def datapath_problem(draft: Draft, spec: BridgeSpec) -> str:
    """Why this machine cannot have the bridge's datapath type; '' when it can, or when OVS does not say."""
    root = draft.replica.root
    wanted = spec.datapath_type or draft.observed.datapath_type
    known = root.datapath_types if root is not None else ()
    if not known or wanted in known:
        return ""
    return (
        f"this Open vSwitch has no datapath type '{wanted}' (it has {', '.join(known)});"
        " set 'datapath_type' of the bridge, or the node's default setting 'datapath_type', to one of these"
    )


def _set(draft: Draft, resource: Resource, spec: BridgeSpec, row: BridgeRow) -> None:
    rid = resource.id
    wanted, wanted_local = draft.observed.wanted.bridge(resource, draft.observed.owner, draft.observed.datapath_type)
    bridge = wanted.difference(row)
    interface = draft.replica.interfaces.get(rid.name)
    if interface is not None and interface.error:
        reason = datapath_problem(draft, spec) or f"Open vSwitch says of bridge {rid.name}: {interface.error}"
        draft.findings.append(Finding(rid, Outcome.FAILED, reason))
    local = NOTHING if interface is None else wanted_local.difference(interface)
    if not bridge and not local:
        return
    action = SetBridge(rid.name, row.uuid, bridge)
    parts: list[tuple[str, Part, BridgeRow | InterfaceRow]] = [("", bridge, row)]
    if interface is not None and local:
        action = SetBridge(rid.name, row.uuid, bridge, interface.uuid, local)
        parts.append(("interface ", local, interface))
    why, before, after = differences(parts)
    disruption = Disruption.NONE
    if "datapath_type" in bridge.columns:
        disruption = Disruption.OUTAGE
    elif "fail_mode" in bridge.columns:
        disruption = Disruption.BRIEF
    draft.changes.append(Change(rid, Verb.UPDATE, action, why, before, after, disruption))


def _prune(draft: Draft, rid: ResourceId, row: BridgeRow) -> None:
    ports = [port for uuid in row.ports if (port := draft.replica.port_by_uuid(uuid)) is not None]
    foreign = sorted(port.name for port in ports if port.name != rid.name and not draft.owns(port))
    if foreign:
        reason = f"bridge {rid.name} is no longer declared but has ports of others ({', '.join(foreign[:5])}); it stays"
        draft.findings.append(Finding(rid, Outcome.CONFLICT, reason))
        return
    if not_to_be_deleted(draft, rid, rid.name):
        return
    action = DeleteBridge(rid.name, row.uuid)
    why = "no longer declared"
    draft.deletes.append(Change(rid, Verb.DELETE, action, why, "present", "", Disruption.OUTAGE, prune=True))
