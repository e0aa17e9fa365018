"""A topology written down by hand: two tenants' networks, one with a router to the outside, one without any.

``outside`` 203.0.113.0/24 ── qg [router] qr ── ``one`` 172.16.1.0/24 and fd00:1::/64      ``two`` 169.254.1.0/24
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from desired.network import dhcp, hosts, metadata, routers
from desired.network.model import (
    Gateway,
    NetworkSpec,
    NodeSpec,
    OptionsSpec,
    Owner,
    RouterInterface,
    RouterSpec,
    SubnetSpec,
    Via,
)
from desired.network.topology import Address, FloatingIp, Network, Node, Port, Router, Subnet, Topology
from desired.resource import Origin, Resource

NODE = "network"


def identity(number: int) -> str:
    """The number, as an id."""
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def origin(line: int) -> Origin:
    return Origin("file", "model.yaml", line, 3)


ONE, TWO, OUTSIDE = identity(1), identity(2), identity(3)
ONE_V4, ONE_V6, TWO_V4, OUTSIDE_V4 = identity(0x11), identity(0x12), identity(0x21), identity(0x31)
ROUTER = identity(0x40)


def subnet(number: str, network: str, cidr: str, line: int, **more: Any) -> Subnet:
    return Subnet(number, f"subnet of {network}", SubnetSpec(network=network, cidr=cidr, **more), origin(line))


def port(
    number: int,
    network: str,
    owner: Owner,
    *addresses: Address,
    name: str = "",
    plug: str = "internal",
    node: str = NODE,
    device: str = "",
) -> Port:
    own = identity(number)
    mac = f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}"
    return Port(own, name or own, network, mac, addresses, node, owner, device, plug, origin(number))


DHCP_ONE = port(0x101, ONE, Owner.DHCP, Address("172.16.1.2", 24, ONE_V4), Address("fd00:1::2", 64, ONE_V6))
DHCP_TWO = port(0x201, TWO, Owner.DHCP, Address("169.254.1.2", 24, TWO_V4))
INSTANCE = port(
    0x102, ONE, Owner.INSTANCE, Address("172.16.1.5", 24, ONE_V4), Address("fd00:1::5", 64, ONE_V6), plug="held"
)
EUI64 = "f816:3eff:fe00:102"
"""The end of the address that INSTANCE makes for itself."""
HOST = port(0x103, ONE, Owner.INSTANCE, Address("172.16.1.6", 24, ONE_V4), name="web", plug="namespace")
LONELY = port(0x202, TWO, Owner.INSTANCE, Address("169.254.1.5", 24, TWO_V4), plug="held")
INNER = port(0x401, ONE, Owner.ROUTER_INTERFACE, Address("172.16.1.1", 24, ONE_V4), device=ROUTER)
INNER_V6 = port(0x402, ONE, Owner.ROUTER_INTERFACE, Address("fd00:1::1", 64, ONE_V6), device=ROUTER)
OUTER = port(0x403, OUTSIDE, Owner.ROUTER_GATEWAY, Address("203.0.113.10", 24, OUTSIDE_V4), device=ROUTER)
FLOATING = FloatingIp(identity(0x500), "203.0.113.50", "172.16.1.5", origin(0x500))
ELSEWHERE = Via(to="10.9.0.0/16", via="172.16.1.9")
VLANS = {ONE: 1, TWO: 2, OUTSIDE: 3}


def network(own: str, name: str, subnets: Iterable[Subnet], ports: Iterable[Port], line: int, **spec: Any) -> Network:
    ports = tuple(sorted(ports, key=lambda port: port.id))
    nodes = tuple(sorted({port.node for port in ports if port.owner is Owner.DHCP}))
    return Network(own, name, NetworkSpec(**spec), origin(line), tuple(subnets), ports, nodes)


def topology(*, v6: str | None = "dhcpv6-stateful", **options: Any) -> Topology:
    """All of the picture; `options` are of the model."""
    settings = OptionsSpec.model_validate({"metadata": {"upstream": "/run/metadata"}, **options})
    one = network(
        ONE,
        "one",
        (
            subnet(ONE_V4, "one", "172.16.1.0/24", 11, dns=("9.9.9.9",), host_routes=(ELSEWHERE,)),
            subnet(ONE_V6, "one", "fd00:1::/64", 12, ipv6_mode=v6),
        ),
        (DHCP_ONE, INSTANCE, HOST, INNER, INNER_V6),
        10,
        type="gre",
        segmentation_id=1,
    )  # fmt: skip
    two = network(
        TWO, "two", (subnet(TWO_V4, "two", "169.254.1.0/24", 21),), (DHCP_TWO, LONELY), 20,
        type="gre", segmentation_id=999,
    )  # fmt: skip
    outside = network(
        OUTSIDE, "outside", (subnet(OUTSIDE_V4, "outside", "203.0.113.0/24", 31, dhcp=False),), (OUTER,), 30,
        type="flat", physical_network="physnet1", external=True,
    )  # fmt: skip
    spec = RouterSpec(
        interfaces=(RouterInterface(subnet="one"), RouterInterface(subnet="one-v6")),
        gateway=Gateway(network="outside"),
        routes=(Via(to="10.8.0.0/16", via="172.16.1.9"),),
    )
    router = Router(ROUTER, "edge", spec, origin(40), NODE, (INNER, INNER_V6), OUTER, (FLOATING,))
    node = Node(NODE, NodeSpec(roles=("network",), tunnel_ip="10.0.0.1"), origin(1))
    networks = {found.id: found for found in (one, two, outside)}
    return Topology(settings, {NODE: node}, networks, {ROUTER: router})


def with_network(before: Topology, changed: Network) -> Topology:
    return replace(before, networks={**before.networks, changed.id: changed})


def with_router(before: Topology, **changes: Any) -> Topology:
    return replace(before, routers={ROUTER: replace(before.routers[ROUTER], **changes)})


def on_node(model: Topology) -> list[Resource]:
    """What the fragments make of it, all of them."""
    made: list[Resource] = [*metadata.relay(model, origin(2))]
    for found in model.networks.values():
        made += dhcp.fragment(model, found, NODE, VLANS[found.id])
        for each in found.ports:
            made += hosts.fragment(model, found, each, VLANS[found.id])
        made += hosts.routes(model, found, NODE)
    for router in model.routers.values():
        made += routers.fragment(model, router, NODE, VLANS)
    return made


def named(resources: Iterable[Resource]) -> dict[str, Resource]:
    """By ``KIND/NAME``; no name is made twice."""
    found: dict[str, Resource] = {}
    for resource in resources:
        assert str(resource.id) not in found, f"{resource.id} is made twice"
        found[str(resource.id)] = resource
    return found
