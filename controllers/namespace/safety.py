"""What a plan may not do to the interfaces by which the node is reached. Pure.

Protected on the host are the devices that a default route leaves by and those the settings call untouchable. What would
take one of them down, away, or its addresses and routes from it is withheld, unless all of these are declared for
another device (a NIC moved into a bridge), or the device is named in `host: {release: […]}`. `guarded` says the same to
whoever else might take a device away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from controllers.drivers.netlink.inside import HOST
from controllers.drivers.netlink.replica import Space
from controllers.drivers.netlink.rows import MAIN_TABLE, RTN_UNICAST, Address, Link, Route
from controllers.namespace.draft import Draft
from controllers.namespace.state import SetLink
from controllers.namespace.wanted import Wanted
from desired.kinds.namespace import DEFAULTS
from desired.resource import ResourceId

_DEFAULTS = frozenset(DEFAULTS.values())


def protected_names(space: Space, wanted: Wanted, untouchable: Collection[str]) -> frozenset[str]:
    """Devices of the host that are not to be hurt, whatever is declared for others."""
    found = set(untouchable)
    for index in {index for row in _defaults(space) for index in row.indexes()}:
        link = space.links.get(index)
        if link is not None and not link.loopback:
            found.add(link.name)
    return frozenset(found) - frozenset(wanted.spec.release)


def guarded(space: Space, wanted: Wanted, untouchable: Collection[str]) -> Mapping[str, str]:
    """Devices of the host that are not to be hurt, each with the reason and what would let it through, in words."""
    links = space.by_name()
    return {
        name: f"{_because(name, untouchable)}; {_way_out(name)}"
        for name in sorted(protected_names(space, wanted, untouchable))
        if name not in links or not _carried_over(space, wanted, links[name])
    }


def protected(draft: Draft) -> frozenset[str]:
    """Names of the devices that are not to be hurt in this namespace."""
    if draft.name != HOST or draft.space is None:
        return frozenset()
    return protected_names(draft.space, draft.wanted, draft.observed.untouchable)


def _defaults(space: Space) -> Iterator[Route]:
    for (table, to, _), found in space.routes.items():
        if table == MAIN_TABLE and to in _DEFAULTS:
            yield from (row for row in found if row.type == RTN_UNICAST)


def of_link(draft: Draft, link: Link, action: SetLink) -> str:
    """Why this change of a device is withheld; '' when it is not."""
    hurts = [
        words
        for words, harmful in (
            ("take it down", action.up is False),
            ("change its mac", bool(action.mac)),
            ("make it a port of a bridge", bool(action.master)),
            ("rename it", bool(action.rename)),
        )
        if harmful
    ]
    return _withheld(draft, link, " and ".join(hurts)) if hurts else ""


def of_deletion(draft: Draft, link: Link) -> str:
    """Why a device that is no longer declared is not deleted; '' when it is."""
    return _withheld(draft, link, "delete it")


def of_address(draft: Draft, link: Link, row: Address) -> str:
    """Why an address of this device is not taken away; '' when it may be."""
    return _withheld(draft, link, f"take the address {row.address} from it") or _too_early(draft, link)


def of_route(draft: Draft, row: Route, *, by: Collection[str]) -> str:
    """Why a route is not taken away, or not replaced by one that leaves by the devices `by`."""
    links = {} if draft.space is None else draft.space.links
    for link in (links[index] for index in sorted(row.indexes()) if index in links):
        if link.name not in by:
            what = f"take the route to {row.to} from it"
            reason = _withheld(draft, link, what) or ("" if by else _too_early(draft, link))
            if reason:
                return reason
    return ""


def _withheld(draft: Draft, link: Link, what: str) -> str:
    if link.name not in protected(draft) or carried_over(draft, link):
        return ""
    because = _because(link.name, draft.observed.untouchable)
    return f"withheld: would {what}, and {because} ({link.name}); {_way_out(link.name)}"


def _too_early(draft: Draft, link: Link) -> str:
    if link.name not in protected(draft) or not carried_over(draft, link) or _arrived(draft, link):
        return ""
    return f"stays until all addresses and default routes of {link.name} are on the device they are declared for"


def _because(name: str, untouchable: Collection[str]) -> str:
    return "the settings call it untouchable" if name in untouchable else "the default route leaves by it"


def _way_out(name: str) -> str:
    return (
        "declare its addresses and default routes for another device,"
        f" or 'host: {{release: [{name}]}}' to let it through"
    )


def carried_over(draft: Draft, link: Link) -> bool:
    """Are all addresses and default routes of a device declared for others?"""
    assert draft.space is not None
    return _carried_over(draft.space, draft.wanted, link)


def _carried_over(space: Space, wanted: Wanted, link: Link) -> bool:
    addresses = [row.address for row in space.addresses.values() if row.ifindex == link.ifindex and not row.link_local]
    elsewhere = {address for dev, address in wanted.addresses if dev != link.name}
    routes = {row.to for row in _defaults(space) if link.ifindex in row.indexes()}
    others = {route.row.to for route in wanted.routes.values() if route.devices - {link.name}}
    return bool(addresses) and elsewhere.issuperset(addresses) and others >= routes


# -- a NIC that is moved into a bridge ------------------------------------------------------------------------------


def uplink(draft: Draft, route: Route, devices: Collection[str]) -> ResourceId | None:
    """The NIC that has to become a port of a bridge before a default route may leave by that bridge."""
    if route.to not in _DEFAULTS or route.table != MAIN_TABLE:
        return None
    attached = draft.observed.attached
    for name in sorted(protected(draft)):
        bridge = _bridge(draft, name)
        if bridge in devices and attached.get(name, bridge) != bridge:
            return ResourceId("port", name)
    return None


def moved(draft: Draft, link: Link) -> str:
    """The bridge that a NIC was moved into, if all that the NIC had is there and works; '' otherwise.

    What is left on the NIC then is a second copy, which draws answers to the wrong device.
    """
    bridge = _bridge(draft, link.name)
    return bridge if bridge and carried_over(draft, link) and _arrived(draft, link, on=bridge) else ""


def _arrived(draft: Draft, link: Link, on: str = "") -> bool:
    """Is all that a device has also on others (on that one), which are up?"""
    space = draft.space
    assert space is not None
    up = {
        index for index, other in space.links.items() if other.up and index != link.ifindex and on in {"", other.name}
    }
    addresses = {row.address for row in space.addresses.values() if row.ifindex in up}
    defaults = {row.to for row in _defaults(space) if row.indexes() & up}
    has = {row.address for row in space.addresses.values() if row.ifindex == link.ifindex and not row.link_local}
    return addresses >= has and defaults >= {row.to for row in _defaults(space) if link.ifindex in row.indexes()}


def _bridge(draft: Draft, name: str) -> str:
    """The bridge, of Open vSwitch or the kernel, that a device of the host is declared to be a port of."""
    if draft.name != HOST:
        return ""
    link = draft.wanted.links.get(name)
    master = getattr(link.spec, "master", None) if link is not None else None
    return draft.observed.nics.get(name) or master or ""
