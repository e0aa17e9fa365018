"""The namespace itself: is it there, is it ours, may it go. Pure; writes into a draft."""

from __future__ import annotations

from controllers.drivers.netlink.inside import HOST
from controllers.drivers.netlink.replica import Space
from controllers.drivers.netlink.rows import RTPROT_KERNEL, RTPROT_RA, Link
from controllers.namespace.draft import Draft
from controllers.namespace.state import CreateNamespace, DeleteNamespace, SetLink, TakeNamespace
from controllers.ownership import LINK_GROUP, PEER_GROUP
from desired.resource import Resource, ResourceId
from reconciler.contract import Finding, Outcome, Verb

_KERNEL_KINDS = frozenset({"sit", "ipip", "gre", "gretap", "erspan", "ip6tnl", "ip6gre", "vti", "vti6", "ip_vti"})
"""Devices that the kernel itself puts into every new namespace, when their modules are loaded."""

OVS_KINDS = frozenset({"tun", "openvswitch"})
"""What the internal port of a bridge is for the kernel: a tap with the userspace datapath, else a device of its own."""


def look(draft: Draft) -> bool:
    """Compare the namespace. True when what is in it can be compared, too."""
    if draft.name == HOST:
        return True
    resource = draft.wanted.namespace
    space = draft.observed.space
    draft.ours = space is not None and is_marked(space, draft.observed.mark)
    if resource is None:
        if space is not None and draft.ours:
            _undeclared(draft, space)
        return False
    if space is None:
        draft.new = draft.ours = True
        draft.change(resource, CreateNamespace(draft.name), "namespace is missing", after="a namespace with our mark")
        return True
    if not draft.ours:
        if not (resource.spec.adopt or (draft.observed.known and is_bare(space))):
            return _foreign(draft, resource)
        _take(draft, resource)
    _loopback(draft, resource, space)
    return True


def is_marked(space: Space, mark: str) -> bool:
    loop = space.links.get(1)
    return loop is not None and loop.alias == mark


def is_bare(space: Space) -> bool:
    """Is nothing in it but what the kernel puts into every namespace?"""
    strange = [link for link in space.links.values() if not (link.loopback or link.kind in _KERNEL_KINDS)]
    addresses = [row for row in space.addresses.values() if row.ifindex != 1 and not row.link_local]
    routes = [row for rows in space.routes.values() for row in rows if row.proto not in {RTPROT_KERNEL, RTPROT_RA}]
    rules = [row for row in space.rules if row.proto != RTPROT_KERNEL]
    return not (strange or addresses or routes or rules)


def _foreign(draft: Draft, resource: Resource) -> bool:
    draft.conflict(resource, f"namespace {draft.name}")
    for rid, inside in draft.view.resources.items():
        if rid != resource.id:
            draft.pending(inside, f"waits for {resource.id}, which is not ours")
    return False


def _take(draft: Draft, resource: Resource) -> None:
    why = "it came back with nothing in it and without our mark" if draft.observed.known else "adopted"
    draft.ours = True
    draft.change(resource, TakeNamespace(draft.name), why, verb=Verb.UPDATE, before="unmarked", after="our mark")


def _loopback(draft: Draft, resource: Resource, space: Space) -> None:
    """Ours have `lo` up, unless it is declared otherwise."""
    loop = space.links.get(1)
    if loop is None or loop.up or loop.name in draft.wanted.links:
        return
    action = SetLink(draft.name, loop.name, up=True)
    draft.change(resource, action, "lo is down", verb=Verb.UPDATE, before="lo down", after="lo up")


def _undeclared(draft: Draft, space: Space) -> None:
    """Ours and no longer declared: it goes with what we put into it. What others put into it keeps it."""
    rid = ResourceId("namespace", draft.name)
    others = [link for link in space.links.values() if _strange(link)]
    kept = [link.name for link in others if link.kind not in OVS_KINDS]
    if kept:
        reason = (
            f"no longer declared, but others' devices are in it ({', '.join(sorted(kept))});"
            " remove them, or the namespace, by hand"
        )
        draft.findings.append(Finding(rid, Outcome.CONFLICT, reason))
        return
    released = tuple(sorted(link.name for link in others))
    before = f"namespace with {len(space.links)} devices"
    draft.delete(rid, DeleteNamespace(draft.name, released), ours=True, before=before)


def _strange(link: Link) -> bool:
    ours = link.group in {LINK_GROUP, PEER_GROUP}
    return not (ours or link.loopback or link.kind in _KERNEL_KINDS)
