"""Addresses, routes, rules, neighbours and sysctls: declared against what is there. Pure; writes into a draft."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from controllers.drivers.netlink.rows import RTPROT_KERNEL, RTPROT_RA, Address, Route, Rule
from controllers.namespace import safety
from controllers.namespace.draft import Draft
from controllers.namespace.state import (
    AddRule,
    DeleteAddress,
    DeleteNeighbour,
    DeleteRoute,
    DeleteRule,
    SetAddress,
    SetNeighbour,
    SetRoute,
    SetSysctl,
)
from controllers.namespace.wanted import WantedRoute
from controllers.ownership import PROTO
from desired.kinds.namespace import DEFAULTS, MAIN, AddressSpec, NeighbourSpec, SysctlSpec, route_name
from desired.resource import Resource, ResourceId
from reconciler.contract import Disruption, Outcome, Verb

SOON = 0.2
"""Seconds after which it is looked again whether a NIC has become a port of its bridge."""
_DEFAULTS = frozenset(DEFAULTS.values())
_KERNELS = frozenset({RTPROT_KERNEL, RTPROT_RA})


def look(draft: Draft) -> None:
    """Compare everything that is in the namespace besides devices, in the order in which it can be made."""
    for resource in draft.wanted.sysctls.values():
        _sysctl(draft, resource)
    for resource in draft.wanted.addresses.values():
        _address(draft, resource)
    for route in draft.wanted.routes.values():
        _route(draft, route)
    for rule, resource in draft.wanted.rules.items():
        _rule(draft, rule, resource)
    for resource in draft.wanted.neighbours.values():
        _neighbour(draft, resource)
    if draft.space is not None:
        _undeclared_rules(draft)
        _undeclared_neighbours(draft)
        _undeclared_routes(draft)
        _undeclared_addresses(draft)


def _device_comes(draft: Draft, resource: Resource, dev: str) -> bool:
    """Is the device made by this same plan? Else what is on it waits, and says so."""
    if dev in draft.fresh:
        return True
    draft.pending(resource, f"waits for {ResourceId('link', f'{draft.name}/{dev}')}")
    return False


# -- sysctls --------------------------------------------------------------------------------------------------------


def _sysctl(draft: Draft, resource: Resource) -> None:
    spec = resource.spec
    assert isinstance(spec, SysctlSpec)
    space = draft.space
    value = None if space is None else space.sysctls.get(spec.key)
    comes = draft.new or any(dev in spec.key.split("/") for dev in draft.fresh)
    if value == spec.value and not comes:
        return
    dev = _of_device(spec.key)
    if dev in draft.wanted.links and draft.here(dev) is None and not _device_comes(draft, resource, dev):
        return
    if value is None and not comes:
        draft.pending(resource, f"waits: namespace {draft.name} has no such setting (a device or module is missing)")
        return
    why = "the namespace or the device is new" if comes else "the value differs"
    before = "" if comes or value is None else value
    draft.change(
        resource, SetSysctl(draft.name, spec.key, spec.value), why, verb=Verb.UPDATE, before=before, after=spec.value
    )


def _of_device(key: str) -> str:
    """The device that a setting is one of: net/ipv4/conf/DEV/proxy_arp."""
    words = key.split("/")
    return words[3] if len(words) == 5 and words[2] in {"conf", "neigh"} else ""


# -- addresses ------------------------------------------------------------------------------------------------------


def _address(draft: Draft, resource: Resource) -> None:
    spec = resource.spec
    assert isinstance(spec, AddressSpec)
    link = draft.here(spec.dev)
    if link is None:
        if not _device_comes(draft, resource, spec.dev):
            return
        found = None
    else:
        assert draft.space is not None
        found = draft.space.addresses.get((link.ifindex, spec.address))
    action = SetAddress(draft.name, spec.dev, spec.address, spec.scope, spec.announce)
    if found is None:
        draft.change(resource, action, "address is missing", after=f"{spec.address} on {spec.dev}")
    elif found.dad_failed:
        reason = f"another host on the link of {spec.dev} has {spec.address}: duplicate address detection failed"
        draft.find(resource, Outcome.FAILED, reason)
    elif not found.permanent:
        why = "the address has a lifetime, which somebody else gave it"
        draft.change(resource, action, why, verb=Verb.UPDATE, before="temporary", after="permanent")
    elif draft.ours and draft.observed.address_marks and found.proto != PROTO:
        why = "the address has lost our mark"
        draft.change(resource, action, why, verb=Verb.UPDATE, before=f"proto {found.proto}", after=f"proto {PROTO}")


def _undeclared_addresses(draft: Draft) -> None:
    space = draft.space
    assert space is not None
    exclusive = "addresses" in draft.wanted.spec.exclusive
    for (index, address), row in sorted(space.addresses.items()):
        link = space.links.get(index)
        if link is None or draft.here(link.name) is None or (link.name, address) in draft.wanted.addresses:
            continue
        rid = ResourceId("address", f"{draft.name}/{link.name}/{address}")
        bridge = "" if row.link_local else safety.moved(draft, link)
        if bridge:
            draft.delete_moved(rid, DeleteAddress(draft.name, link.name, address), to=bridge, before=address)
            continue
        ours = row.proto == PROTO
        if not ours and not (exclusive and _removable(row, loopback=link.loopback)):
            continue
        forbidden = safety.of_address(draft, link, row)
        if forbidden:
            draft.find_id(rid, forbidden)
        else:
            draft.delete(rid, DeleteAddress(draft.name, link.name, address), ours=ours, before=address)


def _removable(row: Address, *, loopback: bool) -> bool:
    return row.permanent and not row.link_local and not loopback


# -- routes ---------------------------------------------------------------------------------------------------------


def _route(draft: Draft, route: WantedRoute) -> None:
    for dev in sorted(route.devices):
        if draft.here(dev) is None and not _device_comes(draft, route.resource, dev):
            return
    link = draft.here(route.dev) if route.dev else None
    nic = safety.uplink(draft, route.row, route.devices)
    if nic is not None:
        reason = f"waits until {nic.name} is a port of its bridge: before, the default route is not to leave by that"
        ports = (nic,) if nic in draft.view.everything else ()  # else it is one of a bond's
        draft.find(route.resource, Outcome.PENDING, reason, ports, SOON)
        return
    space = draft.space
    found = () if space is None else space.routes.get((route.row.table, route.row.to, route.row.metric), ())
    found = tuple(row for row in found if not _goes_with_its_device(draft, row))
    index = 0 if link is None else link.ifindex
    action = SetRoute(draft.name, route.row, route.dev, route.hops)
    after = shown(route.row, route.dev, *(way.words() for way in route.hops))
    if route.devices & draft.fresh or not found:
        ways = ((route.row.via, route.row.onlink), *((way.hop.via, way.hop.onlink) for way in route.hops))
        waits = next((via for via, onlink in ways if via and not onlink and _waits_for_an_address(draft, via)), "")
        if waits:
            draft.pending(route.resource, f"waits for an address in whose network its gateway {waits} is")
        else:
            draft.change(route.resource, action, "route is missing", after=after)
        return
    same = next((row for row in found if _same(route.row, row, index) and _same_ways(draft, route, row)), None)
    if same is not None:
        if draft.ours and same.proto != PROTO and same.proto not in _KERNELS:
            why, before = "the route has lost our mark", f"proto {same.proto}"
            draft.change(route.resource, action, why, verb=Verb.UPDATE, before=before, after=f"proto {PROTO}")
        return
    forbidden = safety.of_route(draft, found[0], by=route.devices)
    if forbidden:
        draft.pending(route.resource, forbidden)
        return
    before = shown(found[0], _device(draft, found[0]))
    draft.change(
        route.resource, action, "the route goes elsewhere", verb=Verb.UPDATE, before=before, after=after,
        disruption=Disruption.BRIEF,
    )  # fmt: skip


def _goes_with_its_device(draft: Draft, row: Route) -> bool:
    """Is the device that it leads to replaced or deleted by this plan? The kernel takes the route along."""
    dev = _device(draft, row)
    return bool(dev) and (dev in draft.fresh or dev in draft.going)


def _waits_for_an_address(draft: Draft, via: str) -> bool:
    """Is the gateway out of reach as yet, and does an address that waits, too, have it in its network?"""
    waiting = {finding.resource for finding in draft.findings if finding.resource.kind == "address"}
    if not waiting:
        return False
    gateway = ip_address(via)
    near = [
        resource.id
        for (_, address), resource in draft.wanted.addresses.items()
        if (":" in address) == (":" in via) and gateway in ip_interface(address).network
    ]
    return bool(near) and waiting.issuperset(near)


def _same(wanted: Route, row: Route, index: int) -> bool:
    if row.type != wanted.type or row.via != wanted.via or (wanted.src and row.src != wanted.src):
        return False
    return (not index or row.ifindex == index) and row.onlink == wanted.onlink


def _same_ways(draft: Draft, route: WantedRoute, row: Route) -> bool:
    """Are the next hops those declared, in whatever order? One by a device that is gone is none."""
    links = {} if draft.space is None else draft.space.links
    left = [hop for hop in row.hops() if hop.ifindex in links]
    for way in route.hops:
        link = draft.here(way.dev) if way.dev else None
        same = next(
            (h for h in left if h == way.hop._replace(ifindex=h.ifindex if link is None else link.ifindex)), None
        )
        if same is None:
            return False
        left.remove(same)
    return not left and bool(route.hops) == bool(row.paths)


def _device(draft: Draft, row: Route) -> str:
    link = None if draft.space is None else draft.space.links.get(row.ifindex)
    return "" if link is None else link.name


def shown(row: Route, dev: str, *ways: str) -> str:
    """A route in words, as `ip route` has them; `ways` are its next hops in words."""
    words = [("via", row.via), ("dev", dev), ("src", row.src)]
    shown = ways or tuple(f"nexthop via {hop.via} weight {hop.weight}" for hop in row.hops())
    pairs = (f"{word} {value}" for word, value in words if value)
    return " ".join([row.to, *pairs, *shown, *(["onlink"] * row.onlink)])


def _undeclared_routes(draft: Draft) -> None:
    space = draft.space
    assert space is not None
    exclusive = "routes" in draft.wanted.spec.exclusive
    for key, found in sorted(space.routes.items()):
        if key in draft.wanted.routes:
            continue
        for row in found:
            ours = row.proto == PROTO
            dev = _device(draft, row)
            link = draft.here(dev) if dev else None
            if dev and link is None:
                continue
            bridge = safety.moved(draft, link) if link is not None and key[0] == MAIN and row.to in _DEFAULTS else ""
            if not (ours or bridge) and not (exclusive and row.proto not in _KERNELS):
                continue
            rid = ResourceId("route", route_name(draft.name, row.to, row.table, _declared_metric(row)))
            if bridge:
                draft.delete_moved(rid, DeleteRoute(draft.name, row), to=bridge, before=shown(row, dev))
                continue
            forbidden = safety.of_route(draft, row, by=())
            if forbidden:
                draft.find_id(rid, forbidden)
            else:
                draft.delete(rid, DeleteRoute(draft.name, row), ours=ours, before=shown(row, dev))


def _declared_metric(row: Route) -> int:
    """As it would be declared: IPv6's default metric is not written."""
    return 0 if ":" in row.to and row.metric == 1024 else row.metric


# -- rules and neighbours -------------------------------------------------------------------------------------------


def _is_there(rule: Rule, rules: set[Rule]) -> bool:
    """Equal but for whose it is: the kernel takes the same rule twice, so another's serves as well."""
    return rule in rules or any(row._replace(proto=PROTO) == rule for row in rules if row.priority == rule.priority)


def _rule(draft: Draft, rule: Rule, resource: Resource) -> None:
    space = draft.space
    if space is None or not _is_there(rule, space.rules):
        draft.change(resource, AddRule(draft.name, rule), "rule is missing", after=resource.id.name)


def _undeclared_rules(draft: Draft) -> None:
    space = draft.space
    assert space is not None
    exclusive = "rules" in draft.wanted.spec.exclusive
    for row in sorted(space.rules):
        ours = row.proto == PROTO
        if row in draft.wanted.rules or row.proto == RTPROT_KERNEL or not (ours or exclusive):
            continue
        if row._replace(proto=PROTO) in draft.wanted.rules and not ours:
            continue
        words = [f"{name}:{value}" for name, value in (("from", row.source), ("to", row.to)) if value]
        rid = ResourceId("policy_rule", f"{draft.name}/{','.join([str(row.priority), *words])}")
        draft.delete(rid, DeleteRule(draft.name, row), ours=ours, before=f"table {row.table}")


def _neighbour(draft: Draft, resource: Resource) -> None:
    spec = resource.spec
    assert isinstance(spec, NeighbourSpec)
    link = draft.here(spec.dev)
    if link is None:
        if not _device_comes(draft, resource, spec.dev):
            return
        found = None
    else:
        assert draft.space is not None
        found = draft.space.neighbours.get((link.ifindex, spec.ip))
    action = SetNeighbour(draft.name, spec.dev, spec.ip, spec.mac)
    if found is None:
        draft.change(resource, action, "neighbour is missing", after=f"{spec.ip} is at {spec.mac}")
    elif found.mac != spec.mac:
        draft.change(
            resource, action, "the neighbour's mac differs", verb=Verb.UPDATE, before=found.mac, after=spec.mac
        )


def _undeclared_neighbours(draft: Draft) -> None:
    space = draft.space
    assert space is not None
    exclusive = "neighbours" in draft.wanted.spec.exclusive
    for (index, ip), row in sorted(space.neighbours.items()):
        link = space.links.get(index)
        if link is None or draft.here(link.name) is None or (link.name, ip) in draft.wanted.neighbours:
            continue
        ours = row.proto == PROTO
        if ours or exclusive:
            rid = ResourceId("neighbour", f"{draft.name}/{link.name}/{ip}")
            draft.delete(rid, DeleteNeighbour(draft.name, row), ours=ours, before=row.mac)
