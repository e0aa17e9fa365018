"""The objects of Neutron as resources of the model, kept up to date object by object.

Most objects become one resource each. A router's interfaces are its ports', a node is what its agents say, and a port
is an interface once its router says so: `put` notes what a change concerns, `settle` makes just that anew. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

from desired.network import openstack
from desired.network.model import NeutronPortSpec, NodeSpec, Owner, RouterSpec
from desired.network.openstack import Body, Kind, Untranslatable
from desired.resource import Resource, ResourceId, Resources

Key = tuple[Kind, str]
"""An object by kind and id; of an agent's node, by its host."""

_SIMPLE = {
    Kind.NETWORK: openstack.network,
    Kind.SUBNET: openstack.subnet,
    Kind.FLOATINGIP: openstack.floating_ip,
}
_MADE = {
    Kind.NETWORK: "network", Kind.SUBNET: "subnet", Kind.FLOATINGIP: "neutron_floating_ip",
    Kind.PORT: NeutronPortSpec.kind, Kind.ROUTER: RouterSpec.kind, Kind.AGENT: NodeSpec.kind,
}  # fmt: skip
_OF_ROUTERS = frozenset({Owner.ROUTER_INTERFACE, Owner.ROUTER_GATEWAY})


@dataclass(frozen=True, slots=True)
class Settled:
    """The resources that changed, what a full read would have to tell, and what is newly left out and why."""

    changed: frozenset[ResourceId]
    lacking: tuple[str, ...]
    wrong: tuple[str, ...]


class Translated:
    """`resources` is live and must not be changed; `problems` has a sentence for each object that is left out."""

    def __init__(self) -> None:
        self._made: dict[ResourceId, Resource] = {}
        self.resources: Resources = MappingProxyType(self._made)
        self.problems: dict[Key, str] = {}
        self._bodies: dict[Key, Body] = {}
        self._related: dict[Key, set[Key]] = {}
        """By router: its ports and interfaces; by subnet: the interfaces in it; by host: its agents."""
        self._stale: set[Key] = set()

    def put(self, key: Key, body: Body | None) -> None:
        """An object is now like this, or gone."""
        old = self._bodies.pop(key, None)
        if old is not None:
            for other in _holders(key, old):
                self._unrelate(other, key)
                self._touch(other)
            self._touch(key)
        if body is not None:
            self._bodies[key] = body
            for other in _holders(key, body):
                self._related.setdefault(other, set()).add(key)
                self._touch(other)
            self._touch(key)

    def settle(self, most: int | None = None) -> Settled:
        """Make anew what the changes concern, `most` resources of it (None: all); `stale`: some are left."""
        changed: set[ResourceId] = set()
        lacking: list[str] = []
        wrong: list[str] = []
        for kind, name in sorted(islice(self._stale, most)):
            self._stale.discard((kind, name))
            rid = ResourceId(_MADE[kind], name)
            before = self._made.pop(rid, None)
            problem = self.problems.pop((kind, name), "")
            try:
                made, lacks = self._make(kind, name)
            except Untranslatable as error:
                made, lacks = None, str(error) if error.lacking else ""
                self.problems[kind, name] = str(error)
                if str(error) != problem:
                    wrong.append(str(error))
            if made is not None:
                self._made[rid] = made
            if before != made:
                changed.add(rid)
            if lacks:
                lacking.append(lacks)
        return Settled(frozenset(changed), tuple(lacking), tuple(wrong))

    @property
    def stale(self) -> bool:
        return bool(self._stale)

    def _unrelate(self, other: Key, key: Key) -> None:
        related = self._related.get(other, set())
        related.discard(key)
        if not related:
            self._related.pop(other, None)

    def _touch(self, key: Key) -> None:
        """Note what is made of this object."""
        kind, name = key
        match kind:
            case Kind.INTERFACE:
                self._stale.add((Kind.PORT, name))
            case Kind.SUBNET:
                self._stale.add(key)
                for _, interface in self._related.get(key, ()):
                    self._touch((Kind.PORT, interface))
            case Kind.PORT:
                self._stale.add(key)
                if hint := self._bodies.get((Kind.INTERFACE, name)):
                    self._stale.add((Kind.ROUTER, str(hint.get("router_id"))))
            case Kind.ROUTER:
                self._stale.add(key)
                self._stale.update(other for other in self._related.get(key, ()) if other[0] is Kind.PORT)
            case _:
                self._stale.add(key)

    def _make(self, kind: Kind, name: str) -> tuple[Resource | None, str]:
        """The resource, None when there is no such object; and what it lacks although it could be made."""
        if kind is Kind.AGENT:
            agents = [self._bodies[key] for key in sorted(self._related.get((kind, name), ()))]
            return (openstack.node(name, agents) if agents else None), ""
        if kind is Kind.PORT:
            return self._port(name)
        body = self._bodies.get((kind, name))
        if body is None:
            return None, ""
        if kind is Kind.ROUTER:
            return self._router(body)
        return _SIMPLE[kind](body), ""

    def _port(self, name: str) -> tuple[Resource | None, str]:
        body, interface = self._bodies.get((Kind.PORT, name)), self._bodies.get((Kind.INTERFACE, name))
        if body is not None:
            current = self._current(body)
            return (None if current is None else openstack.port(current, interface)), ""
        if interface is None:
            return None, ""
        what = f"{openstack.called(Kind.PORT, interface)}: a router's interface of which only the id is known"
        return openstack.port(self._guessed(interface)), what

    def _current(self, port: Body) -> Body | None:
        """A port as it is now. Of a gateway's port only its router's notifications tell; None when it is gone."""
        router = self._bodies.get((Kind.ROUTER, str(port.get("device_id"))))
        if router is None or openstack.owner_of(port) is not Owner.ROUTER_GATEWAY:
            return port
        info = router.get("external_gateway_info")
        if not isinstance(info, Mapping) or info.get("network_id") != port.get("network_id"):
            return None
        return {**port, "fixed_ips": info.get("external_fixed_ips") or port.get("fixed_ips")}

    def _guessed(self, interface: Body) -> Body:
        """A router's port of which only ids are known: Neutron gives it its subnet's gateway address."""
        subnets = [self._bodies.get((Kind.SUBNET, each)) for each in _subnets(interface)]
        known = [subnet for subnet in subnets if subnet is not None]
        return {
            "id": interface["id"],
            "network_id": known[0].get("network_id") if known else None,
            "fixed_ips": [
                {"subnet_id": subnet.get("id"), "ip_address": subnet.get("gateway_ip")}
                for subnet in known
                if subnet.get("gateway_ip")
            ],
            "device_owner": "network:router_interface",
            "device_id": interface.get("router_id"),
        }

    def _router(self, body: Body) -> tuple[Resource, str]:
        ports: list[Body] = []
        interfaces: list[Body] = []
        for key in sorted(self._related.get((Kind.ROUTER, str(body["id"])), ())):
            if key[0] is Kind.PORT:
                current = self._current(self._bodies[key])
                ports.extend([] if current is None else [current])
            elif (Kind.PORT, key[1]) in self._bodies:
                port = self._bodies[Kind.PORT, key[1]]
                if openstack.owner_of(port) not in _OF_ROUTERS:
                    ports.append({**port, "device_owner": "network:router_interface"})
            else:
                interfaces.append(self._bodies[key])
        made = openstack.router(body, ports, interfaces)
        gateways = any(openstack.owner_of(port) is Owner.ROUTER_GATEWAY for port in ports)
        spec = made.spec
        assert isinstance(spec, RouterSpec)
        unknown = spec.gateway is not None and not gateways
        return made, f"{made.origin.path}: the port of its gateway is not known" if unknown else ""


def _holders(key: Key, body: Body) -> Iterator[Key]:
    """What else is made of this object."""
    kind = key[0]
    if kind is Kind.PORT:
        if openstack.owner_of(body) in _OF_ROUTERS and body.get("device_id"):
            yield Kind.ROUTER, str(body["device_id"])
    elif kind is Kind.INTERFACE:
        yield Kind.ROUTER, str(body.get("router_id"))
        for subnet in _subnets(body):
            yield Kind.SUBNET, subnet
    elif kind is Kind.AGENT and body.get("host"):
        yield Kind.AGENT, str(body["host"])


def _subnets(interface: Body) -> Iterable[str]:
    return [str(each) for each in interface.get("subnet_ids") or ()]
