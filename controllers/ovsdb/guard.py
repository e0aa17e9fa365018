"""The devices by which the node is reached: not taken into a bridge, and no bridge or port deleted under them. Pure.

Which they are, and what else is declared for them, is known elsewhere (`Observed.guarded`); here is only what Open
vSwitch would do to them.
"""

from __future__ import annotations

from controllers.drivers.ovsdb.replica import Replica
from controllers.ovsdb.draft import Draft
from desired.kinds.ovs import BondSpec, PortSpec
from desired.resource import Resource, ResourceId, Resources
from reconciler.contract import Finding, Outcome

UNSURE, GUARDED = 0.2, 2.0
"""Seconds after which it is asked again whether a device leads to this node."""


def may_hurt(resources: Resources, replica: Replica, names: frozenset[str] | None) -> bool:
    """Might a pass over these names take a device of the host, or delete a bridge or port?"""
    if names is None:
        return True
    for name in names:
        there = name in replica.bridges or name in replica.ports
        if ResourceId("bridge", name) in resources:
            if not there:
                return True  # its ports come with it
            continue
        resource = resources.get(ResourceId("port", name)) or resources.get(ResourceId("bond", name))
        if there if resource is None else not there and taken(resource):
            return True
    return False


def taken(resource: Resource) -> tuple[str, ...]:
    """Devices of the host that a port or bond would take into its bridge."""
    spec = resource.spec
    if isinstance(spec, BondSpec):
        return spec.interfaces
    return (resource.id.name,) if isinstance(spec, PortSpec) and spec.type == "system" else ()


def not_to_be_taken(draft: Draft, resource: Resource, bridge: str) -> bool:
    """The device by which the node is reached is not taken into a bridge: that could be the end of it."""
    devices, observed = taken(resource), draft.observed
    if devices and observed.unsure:
        reason = f"waits: which interface leads to this node is not known yet ({observed.unsure})"
        draft.findings.append(Finding(resource.id, Outcome.PENDING, reason, recheck=UNSURE))
        return True
    device = next((name for name in devices if name in observed.guarded), None)
    return device is not None and _withheld(draft, resource.id, f"take {device} into bridge {bridge}", device)


def not_to_be_moved(draft: Draft, resource: Resource, has: str | None) -> bool:
    """What is a port of a bridge by whose own device the node is reached stays there."""
    if has is None or has not in draft.observed.guarded:
        return False
    return _withheld(draft, resource.id, f"take {resource.id} from bridge {has}", has)


def not_to_be_deleted(draft: Draft, rid: ResourceId, bridge: str) -> bool:
    """Neither the device itself, nor, of the bridge whose own device it is, anything."""
    device = next((name for name in (rid.name, bridge) if name in draft.observed.guarded), None)
    what = f"delete {rid}, which is not declared"
    return device is not None and _withheld(draft, rid, what, device)


def _withheld(draft: Draft, rid: ResourceId, what: str, device: str) -> bool:
    reason = f"withheld: would {what}, and {device}: {draft.observed.guarded[device]}"
    draft.findings.append(Finding(rid, Outcome.PENDING, reason, recheck=GUARDED))
    return True
