"""From the model of the cluster to the resources of one node: pure, the same for the same model, in small fragments.

A fragment is what one network, one router or the node itself makes. `Compiler` keeps the fragments of its last run
with what they were made of, and makes again only those whose inputs are other objects; `compile_node` starts from
nothing. Both give the same. What a network makes of each of its ports is kept port by port, so that one that changes
among a thousand costs what one costs, and `Compiled.step` says what is other than the last time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import Any

from desired.network import bridges, dhcp, flows, hosts, metadata, routers
from desired.network.allocations import LAST, Allocations
from desired.network.build import build
from desired.network.here import Here, here
from desired.network.model import TUNNELLED, Model
from desired.network.topology import Network, Port, Problem, Router, Topology
from desired.resource import Difference, Mode, Resource, ResourceId, Spec, copied

Key = tuple[str, ...]
_NOTHING: Mapping[ResourceId, Resource] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Compiled:
    """The resources of a node, the local VLANs to be kept for it, and what of the model could not be used."""

    resources: Mapping[ResourceId, Resource]
    allocations: Allocations
    problems: tuple[Problem, ...] = ()
    step: Difference | None = None
    """How `resources` came from those of the compile before; None when that was not followed."""


@dataclass(frozen=True, slots=True)
class Each:
    """What is made of every port alone: of `ports`, each with what is `common` to them."""

    common: tuple[Any, ...]
    ports: tuple[Port, ...]
    make: Callable[[Port], Iterable[Resource]]


@dataclass(frozen=True, slots=True)
class Part:
    """A fragment still to be made: who it is, everything it depends on, and how to make it.

    `adopt` and `mode` of the options, of the node, of the network or router it is of hold for all that it makes.
    """

    key: Key
    inputs: tuple[Any, ...]
    make: Callable[[], Iterable[Resource]]
    of: tuple[Spec, ...]
    each: Each | None = None

    def fragment(self, before: Fragment | None) -> Fragment:
        """The resources. What `before` made of the same port and the same common things is taken over."""
        adopt = any(spec.adopt for spec in self.of)
        observe = any(spec.mode is Mode.OBSERVE for spec in self.of)
        given = {"adopt": adopt, "mode": Mode.OBSERVE if observe else Mode.ENFORCE} if adopt or observe else {}

        def held(resources: Iterable[Resource]) -> tuple[Resource, ...]:
            return tuple(_with(resource, given) for resource in resources) if given else tuple(resources)

        whole = held(self.make())
        each = self.each
        if each is None:
            return Fragment(self.inputs, whole)
        common = (*each.common, adopt, observe)
        known = before.pieces if before is not None and before.common == common else {}
        pieces = {}
        for port in each.ports:
            old = known.get(port.id)
            pieces[port.id] = old if old is not None and old[0] is port else (port, held(each.make(port)))
        every = (*whole, *chain.from_iterable(resources for _, resources in pieces.values()))
        return Fragment(self.inputs, every, common, pieces)


@dataclass(frozen=True, slots=True)
class Fragment:
    """Resources with the inputs that they were made of."""

    inputs: tuple[Any, ...]
    resources: tuple[Resource, ...]
    common: tuple[Any, ...] = ()
    pieces: Mapping[str, tuple[Port, tuple[Resource, ...]]] = field(default_factory=dict)
    """What is made of each port, by its id."""


@dataclass(frozen=True, slots=True)
class _Merged:
    """`doubled`: made by more than one fragment."""

    resources: Mapping[ResourceId, Resource] = field(default_factory=lambda: _NOTHING)
    problems: tuple[Problem, ...] = ()
    doubled: frozenset[ResourceId] = frozenset()
    step: Difference | None = None


def compile_node(model: Model, node: str, allocations: Allocations | None = None) -> Compiled:
    """What `node` has to hold of `model`. A node that the model does not name holds nothing of it."""
    return Compiler(node).compile(model, allocations)


class Compiler:
    """Compiles one model after the other for `node`. `topology` is that of the last one."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.topology: Topology | None = None
        self._here: Here | None = None
        self._present: dict[str, tuple[Network, bool]] = {}
        self._fragments: dict[Key, Fragment] = {}
        self._merged = _Merged()

    def compile(
        self, model: Model, allocations: Allocations | None = None, changed: Iterable[ResourceId] | None = None
    ) -> Compiled:
        """Compile `model`. `changed` names what differs from the model before; None: find out."""
        topology = self.topology = build(model, self.topology, changed)
        allocations = allocations or Allocations()
        node = topology.nodes.get(self.node)
        if node is None:
            self._fragments, self._here, self._merged = {}, None, _Merged()
            return Compiled(_NOTHING, allocations, topology.problems)
        around = here(topology, node)
        self._here = around = self._here if self._here == around else around
        present = self._present_in(topology)
        allocations, without = allocations.allocate([network.id for network in present])
        full = f"{self.node} has no local VLAN left for it: all {LAST} are taken"
        problems = [(_declared(topology, own), full) for own in without]
        problems += [(_declared(topology, n.id), message) for n in present if (message := _unreachable(around, n))]
        vlans = {network.id: vlan for network in present if (vlan := allocations.get(network.id)) is not None}
        self._make(_parts(topology, around, vlans))
        every = (*topology.problems, *problems, *self._merged.problems)
        return Compiled(self._merged.resources, allocations, every, self._merged.step)

    def _present_in(self, topology: Topology) -> list[Network]:
        """The networks that have a port on this node, by id."""
        known = self._present
        self._present = {
            own: known[own] if own in known and known[own][0] is network else (network, self.node in network.nodes)
            for own, network in topology.networks.items()
        }
        return [self._present[own][0] for own in sorted(self._present) if self._present[own][1]]

    def _make(self, parts: Iterable[Part]) -> None:
        fragments: dict[Key, Fragment] = {}
        other: list[tuple[Fragment | None, Fragment | None]] = []
        for part in parts:
            old = self._fragments.get(part.key)
            if old is not None and old.inputs == part.inputs:
                fragments[part.key] = old
            else:
                fragments[part.key] = part.fragment(old)
                other.append((old, fragments[part.key]))
        other += [(old, None) for key, old in self._fragments.items() if key not in fragments]
        self._merged = (self._fragments and _followed(self._merged, other)) or _merged(fragments)
        self._fragments = fragments


def _parts(topology: Topology, around: Here, vlans: Mapping[str, int]) -> Iterator[Part]:
    of = around.options, around.node.spec
    yield Part(("node",), (around,), lambda: (*bridges.bridges(around), *flows.base(around)), of)
    yield Part(("tunnels",), (around,), lambda: (*bridges.tunnels(around), *flows.tunnels(around)), of)
    for own, vlan in vlans.items():
        yield _network_part(topology, around, topology.networks[own], vlan)
    mine = [own for own in sorted(topology.routers) if topology.routers[own].node == around.name]
    for own in mine:
        yield from _router_part(topology, around, topology.routers[own], vlans)
    if mine or any(around.name in topology.networks[own].dhcp_nodes for own in vlans):
        yield Part(("metadata",), (around,), lambda: metadata.relay(topology, around.node.origin), of)


def _network_part(topology: Topology, around: Here, network: Network, vlan: int) -> Part:
    """All of a network. What its parts read of the topology besides it is in `around`."""

    def make() -> Iterator[Resource]:
        yield from flows.network(around, network, vlan)
        yield from dhcp.fragment(topology, network, around.name, vlan)
        yield from hosts.routes(topology, network, around.name)

    def of_port(port: Port) -> Iterator[Resource]:
        yield from flows.port(around, network.spec, port, vlan)
        if port.node == around.name and port.owner in bridges.PLUGGED:
            yield from bridges.held(network, port, vlan)
            yield from hosts.fragment(topology, network, port, vlan)

    of = around.options, around.node.spec, network.spec
    each = Each((around, network.spec, network.origin, network.subnets, vlan), network.ports, of_port)
    return Part(("network", network.id), (around, network, vlan), make, of, each)


def _router_part(topology: Topology, around: Here, router: Router, vlans: Mapping[str, int]) -> Iterator[Part]:
    """All of a router, if each of its networks has a VLAN. Of these it reads what is declared and their subnets."""
    ports = (*router.interfaces, *((router.gateway,) if router.gateway else ()))
    networks = [topology.networks[port.network] for port in ports]
    if all(network.id in vlans for network in networks):
        known = tuple((network.spec, network.subnets, vlans[network.id]) for network in networks)

        def make() -> Iterable[Resource]:
            return routers.fragment(topology, router, around.name, vlans)

        of = around.options, around.node.spec, router.spec
        yield Part(("router", router.id), (around, router, known), make, of)


def _with(resource: Resource, given: Mapping[str, Any]) -> Resource:
    spec = resource.spec.model_copy(update=given)
    return Resource(resource.id, spec, resource.origin, spec.generation())


def _unreachable(around: Here, network: Network) -> str | None:
    """Why a network that is on this node ends at it."""
    spec = network.spec
    if spec.type in TUNNELLED and around.node.spec.tunnel_ip is None:
        return f"it is a {spec.type} network with a port on {around.name}, which has no tunnel_ip"
    if spec.physical_network is not None and around.bridge_of(spec) is None:
        return f"it has a port on {around.name}, whose bridge_mappings have no bridge for {spec.physical_network!r}"
    return None


def _declared(topology: Topology, network: str) -> Resource:
    assert topology.memory is not None
    return topology.memory.networks[network].parts.resource


def _merged(fragments: Mapping[Key, Fragment]) -> _Merged:
    """All fragments together. Where two make one resource, the first by key keeps it; that they differ is a problem."""
    found: dict[ResourceId, Resource] = {}
    doubled: set[ResourceId] = set()
    problems: list[Problem] = []
    for key in sorted(fragments):
        for resource in fragments[key].resources:
            first = found.setdefault(resource.id, resource)
            if first is not resource:
                doubled.add(resource.id)
                if first.generation != resource.generation:
                    problems.append((resource, f"{resource.id} is already made for {_whose(first)}, and differs"))
    return _Merged(MappingProxyType(found), tuple(problems), frozenset(doubled))


def _followed(before: _Merged, other: Iterable[tuple[Fragment | None, Fragment | None]]) -> _Merged | None:
    """All together after these fragments took the place of those. None when one resource is made twice by them."""
    gone: dict[ResourceId, Resource] = {}
    put: list[Resource] = []
    for old, new in other:
        was = {id(resource): resource for resource in ([] if old is None else old.resources)}
        put += [resource for resource in ([] if new is None else new.resources) if was.pop(id(resource), None) is None]
        gone.update((resource.id, resource) for resource in was.values())
    if not put and not gone:
        return replace(before, step=Difference())
    if not before.doubled.isdisjoint(gone):
        return None
    found = copied(before.resources)
    for rid in gone:
        del found[rid]
    for resource in put:
        if found.setdefault(resource.id, resource) is not resource:
            return None
        gone.pop(resource.id, None)
    return _Merged(MappingProxyType(found), before.problems, before.doubled, Difference(tuple(put), tuple(gone)))


def _whose(resource: Resource) -> str:
    """Where what a resource was made of is declared: a place in a file, or an object of another source."""
    origin = resource.origin
    return str(origin) if origin.file or not origin.path else f"{origin}, {origin.path}"
