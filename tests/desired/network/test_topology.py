"""Ports that follow from other objects, where things are put, and what is made of what OpenStack declares."""

from __future__ import annotations

import hashlib
from ipaddress import ip_address

from desired.network.build import build
from desired.network.here import patch_name, tunnel_name
from desired.network.model import (
    Model,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    NodeSpec,
    OptionsSpec,
    Owner,
    RouterSpec,
    SubnetSpec,
)
from desired.network.placing import placed
from desired.network.topology import Network, Port, Topology
from desired.resource import Resource
from tests.desired.network.support import of, with_objects

BASE = (
    of(NodeSpec, "n1", roles=["network"], tunnel_ip="10.0.0.1"),
    of(NodeSpec, "n2", roles=["network"], tunnel_ip="10.0.0.2"),
    of(NodeSpec, "c1", roles=["compute"], tunnel_ip="10.0.0.3"),
    of(NetworkSpec, "one", type="vxlan", segmentation_id=5),
    of(NetworkSpec, "out", type="flat", physical_network="p", external=True),
    of(SubnetSpec, "one", network="one", cidr="192.168.1.0/24"),
    of(SubnetSpec, "out", network="out", cidr="203.0.113.0/24", gateway="203.0.113.1"),
)


def topology(*more: Resource) -> Topology:
    return build(with_objects(Model.of(BASE), *more))


def network(found: Topology, name: str) -> Network:
    return next(one for one in found.networks.values() if one.name == name)


def ports(found: Topology, name: str, owner: Owner) -> list[Port]:
    return [port for port in network(found, name).ports if port.owner is owner]


def ips(port: Port) -> list[str]:
    return [address.ip for address in port.addresses]


def test_a_dhcp_subnet_gets_a_server_with_the_last_free_address() -> None:
    taken = of(NeutronPortSpec, "vm", network="one", fixed_ips=["192.168.1.254"], node="c1")
    found = topology(taken)
    (server,) = ports(found, "one", Owner.DHCP)
    assert ips(server) == ["192.168.1.253"]
    assert server.node in {"n1", "n2"}
    assert network(found, "one").dhcp_nodes == (server.node,)


def test_an_external_network_gets_a_server_only_where_one_is_declared() -> None:
    assert not ports(topology(), "out", Owner.DHCP)
    port = of(NeutronPortSpec, "d", network="out", owner="dhcp", fixed_ips=["203.0.113.9"], node="c1")
    assert network(topology(port), "out").dhcp_nodes == ("c1",)


def test_a_declared_server_stands_for_the_implied_one() -> None:
    port = of(NeutronPortSpec, "d", network="one", owner="dhcp", fixed_ips=["192.168.1.2"], node="c1")
    (server,) = ports(topology(port), "one", Owner.DHCP)
    assert (server.name, server.node, ips(server)) == ("d", "c1", ["192.168.1.2"])


def test_several_servers_are_on_different_nodes_with_the_addresses_of_the_subnet() -> None:
    subnet = of(SubnetSpec, "one", network="one", cidr="192.168.1.0/24", dhcp_addresses=["192.168.1.7", "192.168.1.8"])
    found = ports(topology(of(OptionsSpec, "options", dhcp_servers=2), subnet), "one", Owner.DHCP)
    assert sorted(server.node for server in found) == ["n1", "n2"]
    assert sorted(ip for server in found for ip in ips(server)) == ["192.168.1.7", "192.168.1.8"]


def test_a_router_gets_its_legs() -> None:
    found = topology(of(RouterSpec, "r", interfaces=["one"], gateway="out", node="n2"))
    (router,) = found.routers.values()
    assert router.node == "n2"
    assert [ips(port) for port in router.interfaces] == [["192.168.1.1"]]
    assert router.gateway is not None
    (outside,) = ips(router.gateway)
    assert 128 <= int(ip_address(outside)) & 255 < 255
    assert {port.node for port in (*router.interfaces, router.gateway)} == {"n2"}
    assert router.gateway in network(found, "out").ports


def test_another_router_moves_no_address() -> None:
    first = of(RouterSpec, "r0", gateway="out")
    more = [of(RouterSpec, f"r{n}", gateway="out") for n in range(1, 6)]
    alone, among = topology(first), topology(first, *more)
    own = next(iter(alone.routers))
    assert among.routers[own].gateway == alone.routers[own].gateway


def test_what_openstack_declares_of_a_router_stands() -> None:
    router = of(RouterSpec, "r", interfaces=["one"], gateway={"network": "out", "snat": False}, node="n1")
    inside = of(
        NeutronPortSpec, "i", network="one", owner="router_interface", device="r", fixed_ips=["192.168.1.77"], node="n2"
    )
    outside = of(NeutronPortSpec, "g", network="out", owner="router_gateway", device="r", fixed_ips=["203.0.113.50"])
    found = topology(router, inside, outside)
    (made,) = found.routers.values()
    assert made.node == "n2"
    assert [port.name for port in made.interfaces] == ["i"]
    assert made.gateway is not None
    assert (made.gateway.name, made.gateway.node) == ("g", "n2")
    assert found.problems == ()


def test_floating_ips_and_gateways_are_not_given_to_anybody_else() -> None:
    small = of(SubnetSpec, "out", network="out", cidr="203.0.113.0/29", gateway="203.0.113.1")
    floats = [of(NeutronFloatingIpSpec, f"203.0.113.{n}", floating=f"203.0.113.{n}") for n in (4, 5, 6)]
    routers = [of(RouterSpec, f"r{n}", gateway="out") for n in range(2)]
    found = topology(small, *floats, *routers)
    given = {ip for router in found.routers.values() if router.gateway for ip in ips(router.gateway)}
    assert given == {"203.0.113.2", "203.0.113.3"}
    full = topology(small, *floats, *routers, of(RouterSpec, "r2", gateway="out"))
    assert any("no free address for a router" in message for _, message in full.problems)


def test_ids_and_names_are_references_and_the_name_is_first() -> None:
    own = "00000000-0000-4000-8000-000000000001"
    by_id = of(NetworkSpec, "x", type="vxlan", segmentation_id=6, id=own)
    port = of(NeutronPortSpec, "p", network=own, node="c1")
    assert [p.name for p in network(topology(by_id, port), "x").ports] == ["p"]
    named = of(NetworkSpec, own, type="vxlan", segmentation_id=7)
    assert [p.name for p in network(topology(by_id, port, named), own).ports] == ["p"]


def test_an_id_written_twice_leaves_the_second_out() -> None:
    own = "00000000-0000-4000-8000-000000000001"
    twins = [of(NetworkSpec, name, type="vxlan", segmentation_id=n, id=own) for n, name in enumerate("xy", 6)]
    found = topology(*twins)
    assert found.networks[own].name == "x"
    assert [str(resource.id) for resource, _ in found.problems] == ["network/y"]


def test_without_network_nodes_it_is_said_what_is_not_served() -> None:
    gone = [of(NodeSpec, name, roles=["compute"], tunnel_ip=f"10.0.0.{n}") for n, name in enumerate(("n1", "n2"), 1)]
    found = topology(*gone, of(RouterSpec, "r", interfaces=["one"]))
    assert {str(resource.id) for resource, message in found.problems if "role 'network'" in message} == {
        "network/one",
        "router/r",
    }


def test_ipv6_hosts_of_advertised_prefixes_make_their_address_from_their_mac() -> None:
    six = of(SubnetSpec, "six", network="one", cidr="fd00::/64", ipv6_mode="slaac")
    (server,) = ports(topology(six), "one", Owner.DHCP)
    made = next(ip for ip in ips(server) if ":" in ip)
    assert made.startswith("fd00::f816:3eff:fe")


def test_a_node_that_goes_moves_only_what_was_on_it() -> None:
    nodes = [f"n{n}" for n in range(10)]
    before = {key: placed(key, nodes) for key in map(str, range(200))}
    after = {key: placed(key, nodes[:-1]) for key in before}
    assert {before[key] for key in before if before[key] != after[key]} == {"n9"}
    assert len(set(before.values())) == 10


def test_long_patch_names_end_with_a_hash() -> None:
    assert patch_name("int-", "br-ex") == "int-br-ex"
    assert patch_name("int-", "br-elevench") == "int-br-elevench"
    assert patch_name("phy-", "br-twelvechr") == f"phy-br-tw{hashlib.sha1(b'br-twelvechr').hexdigest()[:6]}"


def test_tunnel_names_are_neutron_s() -> None:
    assert tunnel_name("vxlan", "10.10.10.30") == "vxlan-0a0a0a1e"
    assert tunnel_name("gre", "fd00::1").startswith("gre-")
    assert len(tunnel_name("geneve", "fd00::1")) == 15
