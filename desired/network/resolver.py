"""References of the model: a name or an id, the name first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from desired.network.addresses import number
from desired.network.model import (
    Model,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    RouterSpec,
    SubnetSpec,
)
from desired.resource import Resource, ResourceId, Spec

EMPTY: frozenset[ResourceId] = frozenset()
Faults = Mapping[ResourceId, tuple[str, ...]]
"""What is wrong with an object, by its resource id."""


@dataclass(frozen=True, slots=True)
class Ids:
    """The Neutron id of each object, the object of each (kind, id), and those left out because their id is taken."""

    own: Mapping[ResourceId, str]
    by_id: Mapping[tuple[str, str], ResourceId]
    doubled: frozenset[ResourceId]


class Resolver:
    """Finds what a reference means in one model."""

    def __init__(self, model: Model, ids: Ids) -> None:
        self._objects = model.objects
        self._ids = ids

    def find(self, kind: type[Spec], ref: str) -> Resource | None:
        rid: ResourceId | None = ResourceId(kind.kind, ref)
        found = self._objects.get(ResourceId(kind.kind, ref))
        if found is not None and rid not in self._ids.doubled:
            return found
        rid = self._ids.by_id.get((kind.kind, ref))
        return None if rid is None else self._objects.get(rid)

    def _id(self, kind: type[Spec], ref: str) -> str | None:
        found = self.find(kind, ref)
        return None if found is None else self._ids.own[found.id]

    def own(self, resource: Resource) -> str:
        return self._ids.own[resource.id]

    def network(self, ref: str) -> str | None:
        """The id of a network."""
        return self._id(NetworkSpec, ref)

    def router(self, ref: str) -> str | None:
        """The id of a router."""
        return self._id(RouterSpec, ref)

    def subnet(self, ref: str) -> Resource | None:
        return self.find(SubnetSpec, ref)

    def port(self, ref: str) -> Resource | None:
        return self.find(NeutronPortSpec, ref)

    def float_network(self, spec: NeutronFloatingIpSpec) -> str | None:
        """The id of the network of a floating address: the one that is named, or the external one that has it."""
        if spec.network is not None:
            return self.network(spec.network)
        version, value = number(spec.floating)
        for network, first, last in self._external[version]:
            if first <= value <= last:
                return network
        return None

    @cached_property
    def _external(self) -> dict[int, list[tuple[str, int, int]]]:
        found: dict[int, list[tuple[str, int, int]]] = {4: [], 6: []}
        for resource in self._objects.values():
            spec = resource.spec
            if not isinstance(spec, SubnetSpec) or resource.id in self._ids.doubled:
                continue
            network = self.find(NetworkSpec, spec.network)
            if network is not None and isinstance(network.spec, NetworkSpec) and network.spec.external:
                first, last = spec.bounds
                found[spec.version].append((self._ids.own[network.id], first, last))
        return {version: sorted(spans) for version, spans in found.items()}
