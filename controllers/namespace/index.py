"""Which namespaces have to do with one another: made once for each declared state. Pure.

A pair of devices has an end in each of two namespaces, and a port of Open vSwitch comes from the host; what happens in
one is then news for the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from controllers.drivers.netlink.inside import HOST
from controllers.drivers.netlink.registry import ITSELF
from desired.kinds.namespace import Inside, LinkSpec, NamespaceSpec
from desired.resource import Resources

_NONE: frozenset[str] = frozenset()


class Index:
    """Of all that is declared for the node."""

    def __init__(self, everything: Resources) -> None:
        self.everything = everything
        self.names: set[str] = set()
        self._peers: dict[str, set[str]] = {}
        self._users: dict[tuple[str, str], set[str]] = {}
        """(namespace, device) -> the namespaces whose links have to do with that device."""
        self.nics: dict[str, str] = {}
        """Devices of the host that are declared to be ports of an Open vSwitch bridge, also in a bond: that bridge."""
        for rid, resource in everything.items():
            match resource.spec:
                case NamespaceSpec():
                    self.names.add(rid.name)
                case LinkSpec() as spec:
                    self.names.add(spec.namespace)
                    self._link(spec)
                case Inside() as spec:
                    self.names.add(spec.namespace)
                case spec if rid.kind in {"port", "bond"}:
                    alone = (rid.name,) if getattr(spec, "type", "") == "system" else ()
                    devices = getattr(spec, "interfaces", alone)
                    self.nics.update(dict.fromkeys(devices, str(getattr(spec, "bridge", ""))))

    def _link(self, spec: LinkSpec) -> None:
        where = spec.namespace
        if spec.type == "ovs":
            self._users.setdefault((HOST, spec.port), set()).add(where)
        if spec.parent is not None:
            self._users.setdefault((HOST, spec.parent), set()).add(where)
        if spec.peer is not None:
            there = spec.peer.namespace
            self._peers.setdefault(where, set()).add(there)
            for name in filter(None, (spec.peer.name, spec.peer.bridge)):
                self._users.setdefault((there, name), set()).add(where)

    def peers(self, name: str) -> Iterable[str]:
        """Other namespaces in which ends of this one's pairs are."""
        return self._peers.get(name, _NONE) - {name, HOST}

    def waiting_for(self, name: str, devices: AbstractSet[str]) -> set[str]:
        """The namespaces for which changes of these devices are news."""
        found = {other for device in devices for other in self._users.get((name, device), ())}
        if ITSELF in devices:
            found |= {other for other, peers in self._peers.items() if name in peers}
        return found
