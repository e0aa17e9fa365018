"""Compare what is declared for one namespace with what is in it. Pure; the result is a plan.

All changes are one divisible group, in the order in which they can be carried out: what goes first (what is on devices
before the devices), then the namespace, its devices, what is on them. A change whose namespace or device is withheld
finds that out when it is done, and waits.
"""

from __future__ import annotations

from collections import Counter

from controllers.drivers.netlink.inside import HOST
from controllers.namespace import contents, links, namespaces
from controllers.namespace.draft import Draft
from controllers.namespace.state import Observed
from controllers.ownership import LINK_GROUP, PROTO
from reconciler.contract import Change, Group, Plan, View

_GOES = {"policy_rule": 0, "neighbour": 1, "route": 2, "address": 3, "link": 4, "namespace": 5}


def diff(view: View, observed: Observed) -> Plan:
    """The plan for one namespace."""
    draft = Draft(view, observed)
    if namespaces.look(draft):
        links.look(draft)
        contents.look(draft)
    deletes = sorted(draft.deletes, key=lambda change: _GOES[change.resource.kind])
    changes: tuple[Change, ...] = (*deletes, *draft.changes)
    groups = (Group(changes, divisible=True),) if changes else ()
    return Plan(groups, tuple(draft.findings), _owned(draft))


def _owned(draft: Draft) -> dict[str, int]:
    space = draft.observed.space
    if space is None:
        return {}
    counts = Counter({"namespace": int(draft.name != HOST and draft.ours)})
    counts["link"] = sum(link.group == LINK_GROUP for link in space.links.values())
    counts["address"] = sum(row.proto == PROTO for row in space.addresses.values())
    counts["route"] = sum(row.proto == PROTO for found in space.routes.values() for row in found)
    counts["policy_rule"] = sum(row.proto == PROTO for row in space.rules)
    counts["neighbour"] = sum(row.proto == PROTO for row in space.neighbours.values())
    return {kind: number for kind, number in counts.items() if number}
