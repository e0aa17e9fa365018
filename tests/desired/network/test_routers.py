"""A router's namespace, its ways and its NAT: as golden texts, and the laws that hold for any router."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from desired.kinds.file import FileSpec
from desired.kinds.namespace import AddressSpec, RouteSpec
from desired.kinds.rules import RuleSpec
from desired.kinds.service import ServiceSpec
from desired.network import hosts, metadata, plugs, routers
from desired.network.model import Gateway
from desired.network.topology import Address, FloatingIp, Network, Port, Topology
from desired.resource import Resource
from tests.desired.network import hand
from tests.desired.network.hand import NODE, ONE, OUTSIDE, OUTSIDE_V4, ROUTER, VLANS, named

NAME = f"qrouter-{ROUTER}"


def made(model: Topology) -> dict[str, Resource]:
    return named(routers.fragment(model, model.routers[ROUTER], NODE, VLANS))


def chains(resources: dict[str, Resource]) -> dict[str, list[str]]:
    """The rules in the order in which they stand, by table and chain."""
    specs = [resource.spec for resource in resources.values() if isinstance(resource.spec, RuleSpec)]
    found: dict[str, list[str]] = {}
    for spec in sorted(specs, key=lambda spec: spec.place_in_order()):
        for rule in spec.rules():
            found.setdefault(f"{rule.table} {rule.chain}", []).append(" ".join(rule.tokens))
    return found


def test_nat_of_a_router() -> None:
    assert chains(made(hand.topology())) == {
        "nat PREROUTING": [
            "-d 169.254.169.254/32 -p tcp --dport 80 -j REDIRECT --to-ports 9697",
            "-d 203.0.113.50/32 -j DNAT --to-destination 172.16.1.5",
        ],
        "nat OUTPUT": ["-d 203.0.113.50/32 -j DNAT --to-destination 172.16.1.5"],
        "nat POSTROUTING": [
            "! -o qg-00000403-00 -m conntrack ! --ctstate DNAT -j ACCEPT",
            "-s 172.16.1.5/32 -j SNAT --to-source 203.0.113.50",
            "-s 172.16.1.0/24 -j SNAT --to-source 203.0.113.10",
            "-o qg-00000403-00 -j SNAT --to-source 203.0.113.10",
        ],
        "filter INPUT": ["-i qg-00000403-00 -p tcp --dport 9697 -j DROP"],
    }


def test_without_snat_only_floating_ips_are_translated() -> None:
    model = hand.topology(metadata=None)
    spec = model.routers[ROUTER].spec.model_copy(update={"gateway": Gateway(network="outside", snat=False)})
    found = chains(made(hand.with_router(model, spec=spec)))
    assert [rule for rule in found["nat POSTROUTING"] if "SNAT" in rule] == [
        "-s 172.16.1.5/32 -j SNAT --to-source 203.0.113.50"
    ]
    assert found.keys() == {"nat PREROUTING", "nat OUTPUT", "nat POSTROUTING"}


def test_a_router_without_a_gateway_translates_nothing() -> None:
    model = hand.with_router(hand.topology(metadata=None), gateway=None, floating=())
    resources = made(model)
    assert chains(resources) == {}
    assert not any(isinstance(r.spec, RouteSpec) and r.spec.to == "default" for r in resources.values())


def test_routes_by_the_device_in_whose_network_the_next_hop_is() -> None:
    routes = [r.spec for r in made(hand.topology()).values() if isinstance(r.spec, RouteSpec)]
    assert {(route.to, route.via, route.dev, route.onlink) for route in routes} == {
        ("default", "203.0.113.1", "qg-00000403-00", False),
        ("10.8.0.0/16", "172.16.1.9", "qr-00000401-00", False),
    }


def test_other_external_subnets_are_on_the_wire_and_a_gateway_elsewhere_is_on_link() -> None:
    model = hand.topology()
    outside = model.networks[OUTSIDE]
    (subnet,) = outside.subnets
    far = replace(subnet, spec=subnet.spec.model_copy(update={"gateway": "192.0.2.1"}))
    second = hand.subnet(hand.identity(0x32), "outside", "198.51.100.0/24", 32)
    resources = made(hand.with_network(model, replace(outside, subnets=(far, second))))
    routes = {r.spec.to: r.spec for r in resources.values() if isinstance(r.spec, RouteSpec)}
    assert (routes["default"].via, routes["default"].onlink) == ("192.0.2.1", True)
    assert (routes["198.51.100.0/24"].via, routes["198.51.100.0/24"].dev) == (None, "qg-00000403-00")


def radvd(mode: str | None) -> list[str]:
    contents = [r.spec for r in made(hand.topology(v6=mode)).values() if isinstance(r.spec, FileSpec)]
    return [
        line.strip()
        for spec in contents
        if spec.path.endswith("radvd.conf")
        for line in (spec.content or "").splitlines()
    ]


def test_advertisements_say_what_the_subnets_mode_is() -> None:
    flags = {
        "slaac": (set(), "on"),
        "dhcpv6-stateless": ({"AdvOtherConfigFlag on;"}, "on"),
        "dhcpv6-stateful": ({"AdvManagedFlag on;", "AdvOtherConfigFlag on;"}, "off"),
    }
    for mode, (wanted, autonomous) in flags.items():
        lines = radvd(mode)
        assert {line for line in lines if "Flag" in line} == wanted
        assert lines[:2] == ["interface qr-00000402-00", "{"]
        assert {"AdvLinkMTU 1458;", "prefix fd00:1::/64", f"AdvAutonomous {autonomous};"} <= {*lines}
    assert radvd(None) == []
    assert f"service/{NAME}-radvd.service" not in made(hand.topology(v6=None))


def test_ipv6_is_forwarded_and_never_translated() -> None:
    gateway = replace(hand.OUTER, addresses=(*hand.OUTER.addresses, Address("2001:db8::10", 64, hand.identity(0x32))))
    model = hand.with_router(hand.topology(), gateway=gateway)
    outside = model.networks[OUTSIDE]
    subnets = (*outside.subnets, hand.subnet(hand.identity(0x32), "outside", "2001:db8::/64", 33))
    resources = made(hand.with_network(model, replace(outside, subnets=subnets)))
    assert all(
        rule.family == "ipv4" for r in resources.values() if isinstance(r.spec, RuleSpec) for rule in r.spec.rules()
    )
    routes = {r.spec.to: r.spec.via for r in resources.values() if isinstance(r.spec, RouteSpec)}
    assert routes["::/0"] == "2001:db8::1"
    assert f"sysctl/{NAME}/net.ipv6.conf.all.forwarding" in resources


@given(st.lists(st.integers(60, 200), unique=True, max_size=5))
def test_a_floating_ip_is_an_address_that_is_announced_and_rules_and_nothing_else(lasts: list[int]) -> None:
    model = hand.topology()
    bare = made(hand.with_router(model, floating=()))
    floating = tuple(
        FloatingIp(hand.identity(0x600 + last), f"203.0.113.{last}", f"172.16.1.{last}", hand.origin(last))
        for last in lasts
    )
    found = made(hand.with_router(model, floating=floating))
    assert {name: found[name] for name in bare} == bare
    assert found.keys() - bare.keys() == {
        name
        for each in floating
        for name in (
            f"address/{NAME}/qg-00000403-00/{each.floating}/32",
            f"floating_ip/{NAME}/{each.floating}",
        )
    }
    addresses = [r.spec for name, r in found.items() if isinstance(r.spec, AddressSpec) and name not in bare]
    assert all(spec.announce for spec in addresses)


@given(st.sampled_from(["slaac", "dhcpv6-stateful", None]), st.booleans())
def test_everything_is_in_the_namespace_and_what_is_read_is_written(mode: str | None, served: bool) -> None:
    settings: dict[str, Any] = {} if served else {"metadata": None}
    resources = made(hand.topology(v6=mode, **settings))
    for resource in resources.values():
        assert resource.origin.file == "model.yaml"
        assert getattr(resource.spec, "namespace", NAME) == NAME
        if isinstance(resource.spec, ServiceSpec):
            assert {
                f"file/{path}" for path in (*resource.spec.restart_on, *resource.spec.reload_on)
            } <= resources.keys()


def test_a_router_is_on_one_node_only() -> None:
    model = hand.topology()
    assert list(routers.fragment(model, model.routers[ROUTER], "elsewhere", VLANS)) == []


def test_an_upstream_on_the_network_is_reached_from_the_host() -> None:
    socket = hand.topology()
    assert list(metadata.relay(socket, hand.origin(1))) == []
    model = hand.topology(metadata={"upstream": "10.0.0.9:8775"})
    relay = named(metadata.relay(model, hand.origin(1)))
    assert relay.keys() == {
        "file//etc/reconciler-network/reconciler-metadata.cfg", "service/reconciler-metadata.service"
    }  # fmt: skip
    proxy = made(model)[f"file//etc/reconciler-network/{NAME}-metadata.cfg"].spec
    assert isinstance(proxy, FileSpec)
    assert "server upstream unix@/run/reconciler-metadata/socket\n" in (proxy.content or "")


def test_a_virtual_host_has_its_port_as_eth0_and_the_routes_of_its_subnet() -> None:
    model = hand.topology()
    one = model.networks[ONE]
    resources = named([*hosts.fragment(model, one, hand.HOST, 1), *hosts.routes(model, one, NODE)])
    assert resources.keys() == {
        "port/tap00000103-00",
        "namespace/qvm-web",
        "link/qvm-web/eth0",
        "address/qvm-web/eth0/172.16.1.6/24",
        "sysctl/qvm-web/net.ipv6.conf.eth0.accept_ra",
        "route/qvm-web/default",
        "route/qvm-web/10.9.0.0/16",
    }
    assert {resource.origin for resource in resources.values()} >= {hand.HOST.origin}


def ways(resources: Iterable[Resource]) -> dict[str, str | None]:
    """Next hops by destination."""
    return {spec.to: spec.via for spec in (each.spec for each in resources) if isinstance(spec, RouteSpec)}


def test_a_virtual_host_reaches_metadata_through_its_dhcp_server_where_no_router_is() -> None:
    model = hand.topology()
    two = hand.network(
        hand.TWO, "two", model.networks[hand.TWO].subnets, (hand.DHCP_TWO, replace(hand.LONELY, plug="namespace")), 20,
        type="gre", segmentation_id=999,
    )  # fmt: skip
    assert ways(hosts.routes(model, two, NODE)) == {"default": "169.254.1.1", "169.254.169.254/32": "169.254.1.2"}
    unserved = replace(two, ports=tuple(port for port in two.ports if port != hand.DHCP_TWO))
    for quiet, network in ((hand.topology(metadata=None), two), (model, unserved)):
        assert ways(hosts.routes(quiet, network, NODE)) == {"default": "169.254.1.1"}
    assert ways(hosts.routes(model, two, "elsewhere")) == {}


def test_the_default_route_leads_to_the_subnet_that_has_a_router() -> None:
    """Else answers to what comes from behind the router would leave to a gateway that nobody is."""

    def first(network: Network, port: Port) -> str:
        return next(via for _, via in plugs.first_gateways(network, port, plugs.router_addresses(network)))

    model = hand.topology()
    one, other = model.networks[ONE], Address("10.0.0.2", 24, hand.identity(0x90))
    alone = hand.subnet(hand.identity(0x90), "alone", "10.0.0.0/24", 13)
    network = replace(one, subnets=(alone, *one.subnets))
    for port in (hand.DHCP_ONE, hand.HOST):
        both = replace(port, addresses=(other, *port.addresses))
        assert first(network, both) == "172.16.1.1"
        unrouted = replace(network, ports=tuple(each for each in network.ports if each.device != hand.ROUTER))
        assert first(unrouted, both) == "10.0.0.1"


def test_other_ports_are_plugged_bare_or_by_others() -> None:
    model = hand.topology()
    one = model.networks[ONE]
    bare = named(hosts.fragment(model, one, replace(hand.HOST, plug="internal"), 1))
    assert bare.keys() == {"port/tap00000103-00"}
    assert list(hosts.fragment(model, one, hand.INSTANCE, 1)) == []
    assert [list(hosts.fragment(model, one, port, 1)) for port in (hand.DHCP_ONE, hand.INNER)] == [[], []]


def test_a_name_that_is_no_namespace_is_replaced_by_the_id() -> None:
    odd = replace(hand.HOST, name="my web/server")
    assert hosts.namespace_of(odd) == f"qvm-{hand.HOST.id}"
    assert OUTSIDE_V4 in {address.subnet for address in hand.OUTER.addresses}
