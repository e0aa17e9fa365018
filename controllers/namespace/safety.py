"""What a plan may not do to the interfaces by which the node is reached. Pure.

Protected on the host are the devices that a default route leaves by and those the settings call untouchable. What would
take one of them down, away, or its addresses and routes from it is withheld, unless all of these are declared for
another device (a NIC moved into a bridge), or the device is named in `host: {release: […]}`.
"""

from __future__ import annotations

from collections.abc import Iterator

from controllers.drivers.netlink.inside import HOST
from controllers.drivers.netlink.replica import Space
from controllers.drivers.netlink.rows import MAIN_TABLE, RTN_UNICAST, Address, Link, Route
from controllers.namespace.draft import Draft
from controllers.namespace.state import SetLink
from desired.kinds.namespace import DEFAULTS

_DEFAULTS = frozenset(DEFAULTS.values())


def protected(draft: Draft) -> frozenset[str]:
    """Names of the devices that are not to be hurt in this namespace."""
    space = draft.space
    if draft.name != HOST or space is None:
        return frozenset()
    found = set(draft.observed.untouchable)
    for row in _defaults(space):
        link = space.links.get(row.ifindex)
        if link is not None and not link.loopback:
            found.add(link.name)
    return frozenset(found) - frozenset(draft.wanted.spec.release)


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
    if not hurts or link.name not in protected(draft) or carried_over(draft, link):
        return ""
    return _withheld(draft, link.name, " and ".join(hurts))


def of_address(draft: Draft, link: Link, row: Address) -> str:
    """Why an address of this device is not taken away; '' when it may be."""
    if link.name not in protected(draft) or carried_over(draft, link):
        return ""
    return _withheld(draft, link.name, f"take the address {row.address} from it")


def of_route(draft: Draft, row: Route, *, by: str) -> str:
    """Why a route is not taken away, or not replaced by one that leaves by the device `by`."""
    space = draft.space
    link = None if space is None else space.links.get(row.ifindex)
    if link is None or link.name == by or link.name not in protected(draft) or carried_over(draft, link):
        return ""
    return _withheld(draft, link.name, f"take the route to {row.to} from it")


def _withheld(draft: Draft, name: str, what: str) -> str:
    untouchable = name in draft.observed.untouchable
    because = "the settings call it untouchable" if untouchable else "the default route leaves by it"
    return (
        f"withheld: would {what}, and {because} ({name}); declare its addresses and default routes for another device,"
        f" or 'host: {{release: [{name}]}}' to let it through"
    )


def carried_over(draft: Draft, link: Link) -> bool:
    """Are all addresses and default routes of a device declared for others?"""
    space = draft.space
    assert space is not None
    addresses = [row.address for row in space.addresses.values() if row.ifindex == link.ifindex and not row.link_local]
    elsewhere = {address for dev, address in draft.wanted.addresses if dev != link.name}
    routes = {row.to for row in _defaults(space) if row.ifindex == link.ifindex}
    others = {route.row.to for route in draft.wanted.routes.values() if route.dev not in {"", link.name}}
    return bool(addresses) and elsewhere.issuperset(addresses) and others >= routes
