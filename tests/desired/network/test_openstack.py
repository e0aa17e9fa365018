"""Translation: Neutron's words, of all releases, in those of the model; a faulty object is named, never raised."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desired.network import openstack
from desired.network.model import Gateway, NeutronPortSpec, NodeSpec, Owner, RouterInterface, RouterSpec, SubnetSpec
from desired.network.openstack import FIELDS, Kind, Untranslatable
from desired.network.translated import Translated
from desired.resource import Origin, ResourceId
from tests.desired.network.neutron import floating_ip, network, port, router, subnet, uid
from tests.desired.network.test_notice import EVERYTHING


def test_a_network_is_named_by_its_id_and_shown_by_its_name() -> None:
    made = openstack.network(network(6, name="web\n"))
    assert made.id == ResourceId("network", uid(6))
    assert made.origin == Origin("openstack", path="network 00000000-0000-0000-0000-000000000006 (web)")
    spec = made.spec.model_dump(exclude_defaults=True)
    assert spec == {"id": uid(6), "display": "web", "segmentation_id": 6, "mtu": 1450}


def test_an_external_flat_network() -> None:
    flat = {"provider:network_type": "flat", "provider:physical_network": "ext", "provider:segmentation_id": 0}
    made = openstack.network(network(1, **{"router:external": True}, **flat))
    assert made.spec.model_dump(include={"type", "physical_network", "segmentation_id", "external"}) == {
        "type": "flat", "physical_network": "ext", "segmentation_id": None, "external": True,
    }  # fmt: skip


def test_a_subnet_without_a_gateway_has_none_and_an_untold_one_is_the_first_address() -> None:
    def gateway(body: dict[str, Any]) -> str | None:
        spec = openstack.subnet(body).spec
        assert isinstance(spec, SubnetSpec)
        return spec.gateway_ip

    body = subnet(2, 1)
    assert gateway(body | {"gateway_ip": None}) is None
    del body["gateway_ip"]
    assert gateway(body) == "10.0.2.1"


def test_a_subnet_has_its_pools_routes_and_modes() -> None:
    spec = openstack.subnet(subnet(2, 1, enable_dhcp=False)).spec
    assert isinstance(spec, SubnetSpec)
    assert (spec.network, spec.dns, spec.dhcp) == (uid(1), ("9.9.9.9",), False)
    assert [(pool.start, pool.end) for pool in spec.allocation_pools] == [("10.0.2.2", "10.0.2.254")]
    assert [(route.to, route.via) for route in spec.host_routes] == [("10.9.0.0/16", "10.0.2.9")]
    six = {
        "cidr": "2001:db8::/64",
        "gateway_ip": "fe80::1",
        "allocation_pools": [],
        "host_routes": [],
        "dns_nameservers": [],
    }
    spec = openstack.subnet(subnet(3, 1, ipv6_ra_mode="slaac", ipv6_address_mode="slaac", **six)).spec
    assert isinstance(spec, SubnetSpec)
    assert spec.ipv6_mode == "slaac"


@pytest.mark.parametrize(
    ("device_owner", "owner"),
    [
        ("compute:nova", Owner.INSTANCE),
        ("compute:None", Owner.INSTANCE),
        ("", Owner.INSTANCE),
        (None, Owner.INSTANCE),
        ("network:dhcp", Owner.DHCP),
        ("network:router_interface", Owner.ROUTER_INTERFACE),
        ("network:router_interface_distributed", Owner.ROUTER_INTERFACE),
        ("network:router_gateway", Owner.ROUTER_GATEWAY),
        ("network:floatingip", Owner.FLOATING_IP),
        ("neutron:LOADBALANCER", Owner.OTHER),
    ],
)
def test_what_a_port_is_for(device_owner: str | None, owner: Owner) -> None:
    spec = openstack.port(port(3, 1, 2, device_owner=device_owner)).spec
    assert isinstance(spec, NeutronPortSpec)
    assert (spec.owner, spec.node, spec.device) == (owner, "compute1", uid(900_003))


def test_a_port_that_is_bound_nowhere_has_no_node() -> None:
    for host in ("", None):
        spec = openstack.port(port(3, 1, 2, **{"binding:host_id": host})).spec
        assert isinstance(spec, NeutronPortSpec)
        assert spec.node is None


def test_a_router_is_made_of_its_ports_and_lives_where_its_gateway_is_bound() -> None:
    inside = port(3, 1, 2, device_owner="network:router_interface", device_id=uid(9), **{"binding:host_id": "net2"})
    outside = port(4, 5, 6, device_owner="network:router_gateway", device_id=uid(9), **{"binding:host_id": "net1"})
    info = {"network_id": uid(5), "enable_snat": False, "external_fixed_ips": [{"ip_address": "172.24.4.7"}]}
    routes = [{"destination": "10.7.0.1/16", "nexthop": "10.0.2.7"}]
    spec = openstack.router(router(9, external_gateway_info=info, routes=routes), [inside, outside]).spec
    assert isinstance(spec, RouterSpec)
    assert spec.interfaces == (RouterInterface(subnet=uid(2), ip="10.0.2.5"),)
    assert spec.gateway == Gateway(network=uid(5), ips=("172.24.4.7",), snat=False)
    assert [(route.to, route.via) for route in spec.routes] == [("10.7.0.0/16", "10.0.2.7")]
    assert spec.node == "net1"


def test_the_gateway_of_grizzly_has_a_network_only() -> None:
    spec = openstack.router({"id": uid(9), "name": "r", "external_gateway_info": {"network_id": uid(5)}}).spec
    assert isinstance(spec, RouterSpec)
    assert spec.gateway == Gateway(network=uid(5))


def test_a_floating_ip_that_is_not_connected_has_no_fixed_address() -> None:
    free = openstack.floating_ip(floating_ip(8, 5, fixed_ip_address="10.0.2.5", router_id=uid(9))).spec
    assert free.model_dump(exclude_defaults=True) == {"id": uid(8), "floating": "172.24.4.8", "network": uid(5)}
    used = openstack.floating_ip(floating_ip(8, 5, port_id=uid(3), fixed_ip_address="10.0.2.5", router_id=uid(9))).spec
    assert used.model_dump(include={"port", "fixed", "router"}) == {
        "port": uid(3), "fixed": "10.0.2.5", "router": uid(9),
    }  # fmt: skip


def test_a_node_is_what_its_agents_say() -> None:
    switch = {"tunneling_ip": "10.10.0.11", "bridge_mappings": {"physnet1": "br-ex"}, "tunnel_types": ["vxlan"]}
    agents = [
        {"id": uid(1), "host": "net1", "agent_type": "Open vSwitch agent", "configurations": switch},
        {"id": uid(2), "host": "net1", "agent_type": "L3 agent", "configurations": {"routers": 3}},
    ]
    made = openstack.node("net1", agents)
    expected = NodeSpec(
        roles=("compute", "network"), tunnel_ip="10.10.0.11", bridge_mappings={"physnet1": "br-ex"}
    )  # fmt: skip
    assert (made.id, made.spec) == (ResourceId("node", "net1"), expected)


@pytest.mark.parametrize(
    ("make", "body", "said"),
    [
        (openstack.network, network(1, segments=[{}, {}]), "several segments"),
        (openstack.network, network(1, **{"provider:network_type": "stt"}), "type: Input should be 'gre'"),
        (openstack.network, network(1, **{"provider:segmentation_id": 2**30}), "segmentation_id of a vxlan network"),
        (openstack.subnet, subnet(2, 1, cidr="10.0.0.1/24"), "right would be 10.0.0.0/24"),
        (openstack.subnet, subnet(2, 1, dns_nameservers="x"), "dns_nameservers must be a list"),
        (openstack.port, port(3, 1, 2, mac_address="zz"), "is no MAC address"),
        (openstack.port, port(3, 1, 2, fixed_ips=["10.0.0.1"]), "fixed_ips must hold mappings"),
        (openstack.router, router(9, distributed=True), "distributed: true"),
        (openstack.router, router(9, ha=True), "ha: true"),
        (openstack.router, router(9, admin_state_up=False), "switched off"),
        (openstack.router, router(9, external_gateway_info={"a": 1}), "external_gateway_info has no network_id"),
        (openstack.floating_ip, floating_ip(8, 5, floating_ip_address="x"), "is no IPv4 or IPv6 address"),
        (lambda agents: openstack.node("n", agents), [{"agent_type": "NIC Switch agent"}], "none of its agents"),
    ],
)
def test_what_cannot_be_made_is_named(make: Any, body: Any, said: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        make(body)
    assert said in str(caught.value)
    assert "left out" in str(caught.value)
    assert not caught.value.lacking


def test_what_its_owner_may_not_see_is_lacking() -> None:
    body = network(1)
    del body["provider:network_type"]
    with pytest.raises(Untranslatable, match="nobody has told its provider:network_type yet") as caught:
        openstack.network(body)
    assert caught.value.lacking


@given(st.data())
def test_nothing_in_an_object_is_raised(data: st.DataObject) -> None:
    made = Translated()
    for number, kind in enumerate(Kind):
        fields = data.draw(st.dictionaries(st.sampled_from(sorted(FIELDS[kind])), EVERYTHING))
        fields |= {"subnet_ids": [uid(1)]} if kind is Kind.INTERFACE else {}
        made.put((kind, uid(number)), {**fields, "id": uid(number)})
    made.settle()
    assert all(isinstance(said, str) and said for said in made.problems.values())
