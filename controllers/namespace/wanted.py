"""What is declared for one namespace, sorted and in the kernel's form: made once for each declared state. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from controllers.drivers.netlink import requests
from controllers.drivers.netlink.rows import INET, INET6, Hop, Route, Rule
from controllers.ownership import PROTO
from desired.kinds.namespace import (
    AddressSpec,
    LinkSpec,
    NamespaceSpec,
    NeighbourSpec,
    RouteSpec,
    RuleSpec,
    SysctlSpec,
)
from desired.resource import Resource, Resources

_IP6_DEFAULT_METRIC = 1024
_ACTIONS = {"lookup": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}


@dataclass(frozen=True, slots=True)
class WantedHop:
    """One of several next hops as the kernel has it, without its device, which `dev` names ('' when any will do)."""

    hop: Hop
    dev: str

    def words(self) -> str:
        parts = (("via", self.hop.via), ("dev", self.dev), ("weight", self.hop.weight if self.hop.weight > 1 else ""))
        return " ".join(["nexthop", *(f"{word} {value}" for word, value in parts if value)])


@dataclass(frozen=True, slots=True)
class WantedRoute:
    """A declared route as a row without its device, which `dev` names ('' when any will do), or with several hops."""

    resource: Resource
    row: Route
    dev: str
    hops: tuple[WantedHop, ...] = ()

    @property
    def devices(self) -> frozenset[str]:
        """Those that are named."""
        return frozenset(filter(None, (self.dev, *(hop.dev for hop in self.hops))))


@dataclass(slots=True)
class Wanted:
    """By what identifies each thing in the kernel."""

    namespace: Resource | None = None
    links: dict[str, Resource] = field(default_factory=dict)
    addresses: dict[tuple[str, str], Resource] = field(default_factory=dict)
    routes: dict[tuple[int, str, int], WantedRoute] = field(default_factory=dict)
    rules: dict[Rule, Resource] = field(default_factory=dict)
    neighbours: dict[tuple[str, str], Resource] = field(default_factory=dict)
    sysctls: dict[str, Resource] = field(default_factory=dict)

    @property
    def spec(self) -> NamespaceSpec:
        found = self.namespace.spec if self.namespace is not None else NamespaceSpec()
        assert isinstance(found, NamespaceSpec)
        return found


def wanted(resources: Resources) -> Wanted:
    """Sort the resources of one scope."""
    found = Wanted()
    for rid in sorted(resources):
        resource = resources[rid]
        match resource.spec:
            case NamespaceSpec():
                found.namespace = resource
            case LinkSpec() as spec:
                found.links[spec.dev] = resource
            case AddressSpec() as spec:
                found.addresses[spec.dev, spec.address] = resource
            case RouteSpec() as spec:
                row = route_row(spec)
                found.routes[row.table, row.to, row.metric] = WantedRoute(resource, row, spec.dev or "", hops(spec))
            case RuleSpec() as spec:
                found.rules[rule_row(spec)] = resource
            case NeighbourSpec() as spec:
                found.neighbours[spec.dev, spec.ip] = resource
            case SysctlSpec() as spec:
                found.sysctls[spec.key] = resource
    return found


def route_row(spec: RouteSpec) -> Route:
    """The route as the kernel will report it. IPv6 has no metric 0: it becomes 1024."""
    to = spec.destination
    family = INET6 if ":" in to else INET
    metric = spec.metric or (_IP6_DEFAULT_METRIC if family == INET6 else 0)
    kind = requests.ROUTE_TYPES[spec.type]
    return Route(family, spec.table, to, metric, kind, PROTO, spec.via or "", 0, spec.src or "", spec.onlink, b"")


def hops(spec: RouteSpec) -> tuple[WantedHop, ...]:
    """The several next hops of a route; none for most."""
    return tuple(WantedHop(Hop(hop.via or "", 0, hop.weight, hop.onlink), hop.dev or "") for hop in spec.hops)


def rule_row(spec: RuleSpec) -> Rule:
    """The rule as the kernel will report it."""
    mark, _, mask = (spec.fwmark or "0/0").partition("/")
    return Rule(
        INET6 if spec.v6 else INET,
        spec.priority,
        _ACTIONS[spec.action],
        spec.table if spec.action == "lookup" else 0,
        spec.source or "",
        spec.to or "",
        int(mark, 0),
        int(mask, 0),
        spec.iif or "",
        spec.oif or "",
        PROTO,
        b"",
    )
