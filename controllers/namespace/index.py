"""Which namespaces have to do with one another: kept up with what is declared, namespace by namespace. Pure.

A pair of devices has an end in each of two namespaces, and a port of Open vSwitch comes from the host; what happens in
one is then news for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from controllers.drivers.netlink.inside import HOST
from controllers.drivers.netlink.registry import ITSELF
from controllers.namespace.state import NAME
from desired.kinds.namespace import LinkSpec
from desired.resource import Resources
from reconciler.contract import Scope

_NONE: frozenset[str] = frozenset()
OVSDB = Scope("ovsdb")
"""Where bridges and ports are declared."""


class Index:
    """Of all that is declared for the node's namespaces."""

    def __init__(self) -> None:
        self._scopes: Mapping[Scope, Resources] = {}
        self._known: dict[str, Resources] = {}
        self._peers: dict[str, set[str]] = {}
        self._users: dict[tuple[str, str], set[str]] = {}
        """(namespace, device) -> the namespaces whose links have to do with that device."""
        self.nics: dict[str, str] = {}
        """Devices of the host that are declared to be ports of an Open vSwitch bridge, also in a bond: that bridge."""
        self._ports: Resources | None = None

    def follow(self, scopes: Mapping[Scope, Resources]) -> None:
        """Take over what is declared now; quick for every namespace for which nothing else is."""
        if scopes is self._scopes:
            return
        self._scopes = scopes
        self._follow_ports(scopes.get(OVSDB, {}))
        now = {scope.name: resources for scope, resources in scopes.items() if scope.controller == NAME}
        for name in [name for name, resources in self._known.items() if now.get(name) is not resources]:
            for user in _used(self._known.pop(name)):
                self._users[user].discard(name)
            self._peers.pop(name, None)
        for name in now.keys() - self._known.keys():
            self._known[name] = now[name]
            for user in _used(now[name]):
                self._users.setdefault(user, set()).add(name)
            peers = {spec.peer.namespace for spec in _links(now[name]) if spec.peer is not None}
            if peers:
                self._peers[name] = peers

    def _follow_ports(self, ports: Resources) -> None:
        if self._ports is ports:
            return
        self._ports, self.nics = ports, {}
        for rid, resource in ports.items():
            if rid.kind in {"port", "bond"}:
                alone = (rid.name,) if getattr(resource.spec, "type", "") == "system" else ()
                devices = getattr(resource.spec, "interfaces", alone)
                self.nics.update(dict.fromkeys(devices, str(getattr(resource.spec, "bridge", ""))))

    @property
    def names(self) -> AbstractSet[str]:
        """The namespaces in which something is declared."""
        return self._known.keys()

    def peers(self, name: str) -> Iterable[str]:
        """Other namespaces in which ends of this one's pairs are."""
        return self._peers.get(name, _NONE) - {name, HOST}

    def waiting_for(self, name: str, devices: AbstractSet[str]) -> set[str]:
        """The namespaces for which changes of these devices are news."""
        found = {other for device in devices for other in self._users.get((name, device), ())}
        if ITSELF in devices:
            found |= {other for other, peers in self._peers.items() if name in peers}
        return found


def _links(resources: Resources) -> Iterator[LinkSpec]:
    return (resource.spec for resource in resources.values() if isinstance(resource.spec, LinkSpec))


def _used(resources: Resources) -> Iterator[tuple[str, str]]:
    """The devices elsewhere that these links have to do with, each with its namespace."""
    for spec in _links(resources):
        if spec.type == "ovs":
            yield HOST, spec.port
        if spec.parent is not None:
            yield HOST, spec.parent
        if spec.peer is not None:
            for name in filter(None, (spec.peer.name, spec.peer.bridge)):
                yield spec.peer.namespace, name
