"""Network devices: declared against what is there, here and at the other end of a pair. Pure; writes into a draft."""

from __future__ import annotations

from controllers.drivers.netlink.inside import HOST
from controllers.drivers.netlink.replica import Space
from controllers.drivers.netlink.requests import MACVLAN_MODES
from controllers.drivers.netlink.rows import Link
from controllers.namespace import safety
from controllers.namespace.draft import Draft
from controllers.namespace.namespaces import OVS_KINDS
from controllers.namespace.state import CreateLink, DeleteLink, MoveLink, SetLink
from controllers.ownership import LINK_GROUP, PEER_GROUP
from desired.kinds.namespace import LinkSpec, VethPeer
from desired.resource import Resource, ResourceId
from reconciler.contract import Disruption, Outcome, Verb

LOST_AFTER = 0.5
"""Seconds after which a port without any device is reported as lost; a restart of vswitchd takes 0.1 to 0.3."""


def look(draft: Draft) -> None:
    """Compare the devices: bridges first, because others name them as their master."""
    links = draft.wanted.links
    for resource in sorted(links.values(), key=lambda r: (getattr(r.spec, "type", "") != "bridge", r.id)):
        spec = resource.spec
        assert isinstance(spec, LinkSpec)
        _link(draft, resource, spec)
    _undeclared(draft)


def _link(draft: Draft, resource: Resource, spec: LinkSpec) -> None:
    link = draft.links().get(spec.dev)
    if spec.master is not None and draft.here(spec.master) is None and spec.master not in draft.fresh:
        draft.pending(resource, f"waits for its master {spec.master} in namespace {draft.name}")
        return
    if spec.type == "existing":
        if link is not None:
            _attributes(draft, resource, spec, link)
        elif draft.new and spec.dev == "lo":
            draft.fresh.add("lo")
            _attributes_of_new_loopback(draft, resource, spec)
        else:
            draft.pending(resource, f"waits for the device {spec.dev}, which others make")
        return
    if spec.type == "ovs":
        _ovs(draft, resource, spec, link)
    else:
        _made(draft, resource, spec, link)


def _attributes_of_new_loopback(draft: Draft, resource: Resource, spec: LinkSpec) -> None:
    if spec.mtu or spec.up is False:
        action = SetLink(draft.name, spec.dev, up=spec.up, mtu=spec.mtu or 0)
        draft.change(resource, action, "lo of a new namespace", verb=Verb.UPDATE)


# -- ports of Open vSwitch ------------------------------------------------------------------------------------------


def _ovs(draft: Draft, resource: Resource, spec: LinkSpec, link: Link | None) -> None:
    """The newest device of the port is the one that vswitchd drives: one on the host is newer than one in here."""
    outside = draft.host.by_name().get(spec.port)
    spec = _as_its_port(draft, spec)
    if outside is None:
        if link is not None:
            _attributes(draft, resource, spec, link)
        else:
            port = ResourceId("port", spec.port)
            reason = f"waits for {port}: there is no device of this name"
            draft.find(resource, Outcome.PENDING, reason, (port,), LOST_AFTER)
        return
    if outside.kind not in OVS_KINDS:
        draft.conflict(resource, f"the device {spec.port} of the host is no internal port of Open vSwitch (it)")
        return
    why = "the port's device is on the host" if link is None else "the port has a new device; the one here is dead"
    after = f"{spec.dev} in namespace {draft.name}"
    verb = Verb.CREATE if link is None else Verb.UPDATE
    draft.fresh.add(spec.dev)
    draft.change(resource, MoveLink(draft.name, spec, dead=link is not None), why, verb=verb, after=after)


def _as_its_port(draft: Draft, spec: LinkSpec) -> LinkSpec:
    """With the mac and mtu that are declared for the port: vswitchd gives them to a device on the host only.

    It makes the device first and gives it the mac after, so that one moved in between would never get it.
    """
    port = draft.view.everything.get(ResourceId("port", spec.port))
    if port is None:
        return spec
    missing = {
        name: value
        for name in ("mac", "mtu")
        if getattr(spec, name) is None and (value := getattr(port.spec, name, None)) is not None
    }
    return spec.model_copy(update=missing) if missing else spec


# -- devices that we make -------------------------------------------------------------------------------------------


def _made(draft: Draft, resource: Resource, spec: LinkSpec, link: Link | None) -> None:
    blocked = _needs(draft, spec)
    if link is None:
        if blocked:
            draft.pending(resource, blocked)
        else:
            _create(draft, resource, spec, "device is missing", ())
        return
    if link.group != LINK_GROUP and not resource.spec.adopt:
        draft.conflict(resource, f"device {spec.dev}")
        return
    wrong = _wrong(draft, spec, link)
    if wrong and blocked:
        draft.pending(resource, f"{wrong}; {blocked}")
    elif wrong:
        _create(draft, resource, spec, wrong, ((draft.name, spec.dev),), before=_shown(link))
    else:
        _attributes(draft, resource, spec, link)
        if spec.peer is not None:
            _peer(draft, resource, spec, spec.peer, link)


def _needs(draft: Draft, spec: LinkSpec) -> str:
    """What the device cannot be made without, in words."""
    if spec.type == "macvlan" and spec.parent is not None and spec.parent not in draft.host.by_name():
        return f"waits for its parent {spec.parent} on the host"
    if spec.peer is None:
        return ""
    space = _peer_space(draft, spec.peer)
    if space is None and not (draft.new and spec.peer.namespace == draft.name):
        return f"waits for namespace/{spec.peer.namespace}, where its other end is to be"
    bridge = spec.peer.bridge
    if bridge is not None and space is not None and bridge not in space.by_name() and not _planned_here(draft, spec):
        return f"waits for the bridge {bridge} in namespace {spec.peer.namespace}, of which its other end is a port"
    return ""


def _planned_here(draft: Draft, spec: LinkSpec) -> bool:
    assert spec.peer is not None
    return spec.peer.namespace == draft.name and spec.peer.bridge in draft.fresh


def _peer_space(draft: Draft, peer: VethPeer) -> Space | None:
    return draft.space if peer.namespace == draft.name else draft.observed.spaces.get(peer.namespace)


def _create(  # noqa: PLR0913 - what tells one creation from another
    draft: Draft, resource: Resource, spec: LinkSpec, why: str, instead: tuple[tuple[str, str], ...], before: str = ""
) -> None:
    if spec.peer is not None:
        space = _peer_space(draft, spec.peer)
        taken = None if space is None else space.by_name().get(spec.peer.name)
        if taken is not None:
            if taken.group not in {LINK_GROUP, PEER_GROUP} and not spec.adopt:
                what = f"device {spec.peer.name} in namespace {spec.peer.namespace}, where its other end is to be,"
                draft.conflict(resource, what)
                return
            instead = (*instead, (spec.peer.namespace, spec.peer.name))
    draft.fresh.add(spec.dev)
    verb = Verb.UPDATE if before else Verb.CREATE
    disruption = Disruption.OUTAGE if before else Disruption.NONE
    action = CreateLink(draft.name, spec, instead)
    draft.change(resource, action, why, verb=verb, before=before, after=_described(spec), disruption=disruption)


def _wrong(  # noqa: PLR0911 - a reason each
    draft: Draft, spec: LinkSpec, link: Link
) -> str:
    """Why the device has to be made anew; '' when it has not."""
    if link.kind != spec.type:
        return f"it is a {link.kind or 'physical device'}, not a {spec.type}"
    if spec.type == "macvlan":
        parent = draft.host.by_name().get(spec.parent or "")
        if parent is not None and parent.ifindex != link.peer:
            return f"it does not sit on {spec.parent}"
        if link.mode != MACVLAN_MODES[spec.macvlan_mode]:
            return f"its mode is not {spec.macvlan_mode}"
    if spec.peer is not None:
        space = _peer_space(draft, spec.peer)
        if space is None:
            return f"its other end is not in namespace {spec.peer.namespace}"
        if other_end(space, link) is None:
            return f"its other end is not in namespace {spec.peer.namespace}"
        taken = space.by_name().get(spec.peer.name)
        if taken is not None and not _joined(taken, link):
            return f"{spec.peer.name} in namespace {spec.peer.namespace} is not its other end"
    return ""


def _joined(one: Link, two: Link) -> bool:
    return one.kind == two.kind == "veth" and one.peer == two.ifindex and two.peer == one.ifindex


def other_end(space: Space, link: Link) -> Link | None:
    """The other end of a veth in `space`, whatever its name."""
    found = space.links.get(link.peer)
    return found if found is not None and _joined(found, link) else None


def _peer(draft: Draft, resource: Resource, spec: LinkSpec, peer: VethPeer, link: Link) -> None:
    space = _peer_space(draft, peer)
    end = None if space is None else other_end(space, link)
    if space is None or end is None:
        return
    if end.name != peer.name:
        rename = SetLink(peer.namespace, end.name, rename=peer.name)
        why = f"its other end is named {end.name}, not {peer.name}"
        draft.change(resource, rename, why, verb=Verb.UPDATE, before=end.name, after=peer.name)
        return
    action, before, after = _differences(
        space, end, peer.namespace, up=spec.wants_up, mac=peer.mac, mtu=spec.mtu, master=peer.bridge, group=PEER_GROUP
    )
    if action is not None:
        why = f"its other end {peer.name} differs: {', '.join(after)}"
        draft.change(resource, action, why, verb=Verb.UPDATE, before=", ".join(before), after=", ".join(after))


# -- attributes -----------------------------------------------------------------------------------------------------


def _attributes(draft: Draft, resource: Resource, spec: LinkSpec, link: Link) -> None:
    space = draft.space
    assert space is not None
    group = 0 if spec.type in {"existing", "ovs"} else LINK_GROUP
    action, before, after = _differences(
        space, link, draft.name, up=spec.wants_up, mac=spec.mac, mtu=spec.mtu, master=spec.master, group=group
    )
    if action is None:
        return
    forbidden = safety.of_link(draft, link, action)
    if forbidden:
        draft.pending(resource, forbidden)
        return
    if action.up:
        draft.raised.add(spec.dev)
    disruption = Disruption.NONE if action.up and len(after) == 1 else Disruption.BRIEF
    if action.up is False:
        disruption = Disruption.OUTAGE
    why = f"{', '.join(text.split()[0] for text in after)} of the device differs"
    draft.change(
        resource, action, why, verb=Verb.UPDATE, before=", ".join(before), after=", ".join(after), disruption=disruption
    )


def _differences(  # noqa: PLR0913 - the attributes, each by name
    space: Space,
    link: Link,
    namespace: str,
    *,
    up: bool | None,
    mac: str | None,
    mtu: int | None,
    master: str | None,
    group: int,
) -> tuple[SetLink | None, list[str], list[str]]:
    """The action that makes `link` as wanted, with what is and what will be in words.

    `group` is the mark of a device that we made, whose master is held whole; 0 for one of others.
    """
    before: list[str] = []
    after: list[str] = []

    def differs(is_now: str, wanted: str) -> None:
        before.append(is_now)
        after.append(wanted)

    masters = space.links.get(link.master)
    has_master = "" if masters is None else masters.name
    set_up = set_mac = set_mtu = set_master = None
    mark = 0
    if mac is not None and link.mac != mac:
        set_mac = mac
        differs(f"mac {link.mac}", f"mac {mac}")
    if mtu is not None and link.mtu != mtu:
        set_mtu = mtu
        differs(f"mtu {link.mtu}", f"mtu {mtu}")
    if has_master != (master or "") and (master is not None or (group and has_master != "" and _is_bridge(masters))):
        set_master = master or ""
        differs(f"master {has_master or 'none'}", f"master {master or 'none'}")
    if up is not None and link.up != up:
        set_up = up
        differs(f"state {_state(link.up)}", f"state {_state(up)}")
    if group and link.group != group:
        mark = group
        differs("mark none", "mark ours")
    if not after:
        return None, before, after
    action = SetLink(namespace, link.name, set_up, set_mac or "", set_mtu or 0, set_master, mark=mark)
    return action, before, after


def _is_bridge(master: Link | None) -> bool:
    """Open vSwitch is the master of its ports, too; that is not ours to undo."""
    return master is not None and master.kind == "bridge"


def _state(up: bool) -> str:  # noqa: FBT001 - a word for it
    return "up" if up else "down"


def _shown(link: Link) -> str:
    return f"{link.kind or 'device'}, mac {link.mac}, mtu {link.mtu}, {_state(link.up)}"


def _described(spec: LinkSpec) -> str:
    words: list[str] = [spec.type]
    if spec.peer is not None:
        words.append(f"with {spec.peer.name} in namespace {spec.peer.namespace}")
    if spec.parent is not None:
        words.append(f"on {spec.parent}")
    words += [f"{name} {value}" for name in ("master", "mac", "mtu") if (value := getattr(spec, name)) is not None]
    return ", ".join([" ".join(words[:2]), *words[2:], _state(bool(spec.wants_up))])


# -- devices that are not declared ----------------------------------------------------------------------------------


def _undeclared(draft: Draft) -> None:
    exclusive = "links" in draft.wanted.spec.exclusive and draft.name != HOST
    for name, link in sorted(draft.links().items()):
        if name in draft.wanted.links or link.loopback or link.group == PEER_GROUP:
            continue
        ours = link.group == LINK_GROUP
        if not ours and not (exclusive and link.kind):
            continue
        rid = ResourceId("link", f"{draft.name}/{name}")
        forbidden = safety.of_deletion(draft, link)
        if forbidden:
            draft.find_id(rid, forbidden)
            continue
        draft.going.add(name)
        draft.delete(rid, DeleteLink(draft.name, name), ours=ours, before=_shown(link))
