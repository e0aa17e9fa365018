"""Models for the tests of the network model, and random ones with edits of them for the laws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from hypothesis import strategies as st

from desired.network.model import (
    Model,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    NodeSpec,
    OptionsSpec,
    RouterSpec,
    SubnetSpec,
)
from desired.resource import Origin, Resource, ResourceId, Spec

NODES = ("ctl", "net", "net2", "cmp")
MACS = {name: f"fa:16:3e:00:00:{at:02x}" for at, name in enumerate(("dhcp1", "qr1", "vm1", "dhcp2", "vm2", "qg"), 1)}


def declared(name: str, spec: Spec, line: int = 1) -> Resource:
    """A resource as a document of YAML gives it."""
    return Resource(ResourceId(spec.kind, name), spec, Origin("yaml", "model.yaml", line, 1, name), spec.generation())


def of(kind: type[Spec], name: str, **settings: Any) -> Resource:
    return declared(name, kind.model_validate(settings))


def three_nodes(layout: str) -> Model:
    """Controller, network node, compute node; two tenants with GRE keys 1 and 999, the first with a router."""
    port = NeutronPortSpec
    return Model.of(
        (
            of(OptionsSpec, "options", layout=layout),
            of(NodeSpec, "controller", roles=["controller"], tunnel_ip="10.10.10.10"),
            of(
                NodeSpec, "network", roles=["network"], tunnel_ip="10.10.10.20",
                bridge_mappings={"physnet1": "br-ex"}, bridge_interfaces={"br-ex": "eth2"},
            ),
            of(NodeSpec, "compute", roles=["compute"], tunnel_ip="10.10.10.30"),
            of(NetworkSpec, "one", type="gre", segmentation_id=1),
            of(NetworkSpec, "two", type="gre", segmentation_id=999),
            of(NetworkSpec, "outside", type="flat", physical_network="physnet1", external=True),
            of(SubnetSpec, "one", network="one", cidr="172.16.1.0/24"),
            of(SubnetSpec, "two", network="two", cidr="169.254.1.0/24"),
            of(SubnetSpec, "outside", network="outside", cidr="10.6.0.0/15", dhcp=False),
            of(RouterSpec, "router"),
            of(port, "dhcp1", network="one", mac=MACS["dhcp1"], fixed_ips=["172.16.1.2"], owner="dhcp", node="network"),
            of(port, "qr1", network="one", mac=MACS["qr1"], fixed_ips=["172.16.1.1"], owner="router_interface",
               device="router", node="network"),
            of(port, "vm1", network="one", mac=MACS["vm1"], fixed_ips=["172.16.1.10"], node="compute"),
            of(port, "dhcp2", network="two", mac=MACS["dhcp2"], fixed_ips=["169.254.1.2"], owner="dhcp",
               node="network"),
            of(port, "vm2", network="two", mac=MACS["vm2"], fixed_ips=["169.254.1.10"], node="compute"),
            of(port, "qg", network="outside", mac=MACS["qg"], fixed_ips=["10.6.0.2"], owner="router_gateway",
               device="router", node="network"),
        )
    )  # fmt: skip


def with_objects(model: Model, *changed: Resource) -> Model:
    """The model with these objects added or in place of those of their name."""
    return Model(MappingProxyType({**model.objects, **{resource.id: resource for resource in changed}}))


def without(model: Model, *gone: ResourceId) -> Model:
    return Model(MappingProxyType({rid: r for rid, r in model.objects.items() if rid not in gone}))


# Random models: few names, so that references meet, dangle and shadow one another.

_names = st.sampled_from(["a", "b", "c"])
_maybe_names = st.none() | _names
_nodes = st.sampled_from([*NODES, "nowhere"])
_octets = st.integers(1, 12)
_ids = st.sampled_from([None] * 8 + [f"00000000-0000-4000-8000-00000000000{n}" for n in range(4)])


def _ip(octet: int) -> str:
    return f"10.0.0.{octet}"


@st.composite
def _networks(draw: st.DrawFn) -> Mapping[str, Any]:
    network_type = draw(st.sampled_from(["gre", "vxlan", "vlan", "flat", "local"]))
    found: dict[str, Any] = {"type": network_type, "external": draw(st.booleans()), "id": draw(_ids)}
    if network_type in {"gre", "vxlan", "vlan"}:
        found["segmentation_id"] = draw(st.integers(1, 4))
    if network_type in {"vlan", "flat"}:
        found["physical_network"] = draw(st.sampled_from(["p1", "p2"]))
    return found


_prefixes = st.sampled_from(
    [
        {"cidr": "10.0.0.0/28"},
        {"cidr": "10.0.1.0/24", "gateway": "none"},
        {"cidr": "fd00::/64"},
        {"cidr": "fd00:1::/64", "ipv6_mode": "slaac"},
        {"cidr": "fd00:2::/64", "ipv6_mode": "dhcpv6-stateful"},
    ]
)
_subnets = st.builds(
    lambda prefix, network, dhcp, own: {**prefix, "network": network, "dhcp": dhcp, "id": own},
    _prefixes,
    _names,
    st.booleans(),
    _ids,
)
_ports = st.fixed_dictionaries(
    {
        "network": _names,
        "fixed_ips": st.lists(_octets.map(_ip), max_size=2, unique=True),
        "node": st.none() | _nodes,
        "owner": st.sampled_from(["instance", "instance", "instance", "dhcp", "router_interface", "router_gateway"]),
        "device": st.sampled_from(["", "a", "b"]),
        "plug": st.sampled_from(["held", "internal", "namespace"]),
        "id": _ids,
    }
)
_routers = st.fixed_dictionaries(
    {
        "interfaces": st.lists(_names, max_size=2, unique=True),
        "gateway": _maybe_names,
        "node": st.none() | _nodes,
        "id": _ids,
    }
)
_floats = st.fixed_dictionaries(
    {"floating": _octets.map(_ip), "network": _maybe_names, "port": _maybe_names, "router": _maybe_names}
)
_metadata = st.sampled_from([None, {"upstream": "/run/metadata"}, {"upstream": "10.0.0.9:8775"}])
_options = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(["single-table", "multi-table"]),
        "dhcp_servers": st.integers(1, 2),
        "metadata": _metadata,
    }
)
_node_specs = st.fixed_dictionaries(
    {
        "roles": st.lists(st.sampled_from(["network", "compute"]), min_size=1, max_size=2),
        "tunnel_ip": st.none() | st.integers(1, 6).map(lambda n: f"192.0.2.{n}"),
        "bridge_mappings": st.sampled_from([{}, {"p1": "br-ex"}, {"p1": "br-ex", "p2": "br-ex2"}]),
    }
)


def _drawn(kind: type[Spec], names: st.SearchStrategy[str], settings: st.SearchStrategy[Any]) -> Any:
    return st.builds(lambda name, given: of(kind, name, **given), names, settings)


ports = _drawn(NeutronPortSpec, st.sampled_from(["a", "b", "c", "d", "e"]), _ports)
floating_ips = st.builds(lambda given: of(NeutronFloatingIpSpec, given["floating"], **given), _floats)
rare = st.one_of(
    _drawn(OptionsSpec, st.just("options"), _options),
    _drawn(NodeSpec, st.sampled_from(NODES), _node_specs),
    _drawn(NetworkSpec, _names, _networks()),
    _drawn(SubnetSpec, _names, _subnets),
    _drawn(RouterSpec, st.sampled_from(["a", "b"]), _routers),
)
objects = st.one_of(ports, ports, floating_ips, rare, rare)


def skeleton() -> list[Resource]:
    """Something for random objects to be in the way of."""
    mapped = {"p1": "br-ex"}
    return [
        of(NodeSpec, "net", roles=["network"], tunnel_ip="192.0.2.1", bridge_mappings=mapped),
        of(NodeSpec, "net2", roles=["network"], tunnel_ip="192.0.2.2", bridge_mappings=mapped),
        of(NodeSpec, "cmp", roles=["compute"], tunnel_ip="192.0.2.3"),
        of(NetworkSpec, "a", type="vxlan", segmentation_id=1),
        of(NetworkSpec, "b", type="gre", segmentation_id=2),
        of(NetworkSpec, "c", type="flat", physical_network="p1", external=True),
        of(SubnetSpec, "a", network="a", cidr="10.0.0.0/28"),
        of(SubnetSpec, "b", network="b", cidr="10.0.1.0/24"),
        of(SubnetSpec, "c", network="c", cidr="10.0.0.0/28", dhcp=False),
        of(RouterSpec, "a", interfaces=["a", "b"], gateway="c"),
        of(NeutronPortSpec, "a", network="a", fixed_ips=[_ip(5)], node="cmp"),
        of(NeutronPortSpec, "b", network="a", fixed_ips=[_ip(6)], node="net"),
        of(NeutronFloatingIpSpec, _ip(9), floating=_ip(9), port="a"),
    ]


models = st.builds(
    lambda kept, more: [*(r for at, r in enumerate(skeleton()) if at not in kept), *more],
    st.frozensets(st.integers(0, 12), max_size=4),
    st.lists(objects, max_size=12),
)


# Edits that leave no reference dangling, as a cluster that is in order makes them.

_tame_ports = st.fixed_dictionaries(
    {
        "network": _names,
        "fixed_ips": st.lists(_octets.map(_ip), max_size=2, unique=True),
        "node": st.sampled_from([None, "net", "net2", "cmp"]),
        "owner": st.sampled_from(["instance", "dhcp", "router_interface", "router_gateway"]),
        "device": st.just("a"),
    }
)
_tame_routers = st.fixed_dictionaries(
    {
        "interfaces": st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
        "gateway": st.sampled_from([None, "c"]),
        "node": st.sampled_from([None, "net", "net2"]),
    }
)
_tame_floats = st.fixed_dictionaries(
    {
        "floating": _octets.map(_ip),
        "network": st.sampled_from([None, "c"]),
        "port": st.sampled_from(["a", "b"]),
        "router": st.sampled_from([None, None, "a"]),
    }
)
_numbers = st.integers(1, 3)
tame = st.one_of(
    st.builds(lambda n: of(NetworkSpec, f"n{n}", type="vxlan", segmentation_id=10 + n), _numbers),
    st.builds(
        lambda n, network: of(SubnetSpec, f"s{n}", network=network, cidr=f"10.0.{n + 1}.0/24"),
        _numbers,
        st.sampled_from(["a", "b"]),
    ),
    _drawn(RouterSpec, st.sampled_from(["a", "b", "r"]), _tame_routers),
    _drawn(NeutronPortSpec, st.sampled_from(["a", "b", "c", "d"]), _tame_ports),
    st.builds(lambda given: of(NeutronFloatingIpSpec, given["floating"], **given), _tame_floats),
)
REMOVABLE = frozenset({NeutronPortSpec.kind, NeutronFloatingIpSpec.kind})


def edited(model: Model, changed: Iterable[Resource], gone: Iterable[ResourceId]) -> Model:
    return with_objects(without(model, *gone), *changed)
