"""The way of a packet by answers that are written down here: what no real node can easily be brought to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from desired.kinds.ovs import PortSpec
from desired.network.allocations import Allocations
from desired.network.build import build
from desired.network.compiler import compile_node
from desired.network.model import MetadataSettings
from desired.network.trace.course import Asked, NotHereError, trace
from desired.network.trace.questions import (
    AskFlows,
    AskInside,
    AskListening,
    AskNeighbour,
    AskRoute,
    AskRules,
    AskSwitch,
    Device,
    Forwarding,
    Inside,
    Link,
    Step,
    Switch,
    Tunnelled,
    Way,
)
from desired.network.trace.scene import Scene
from desired.network.trace.told import Traced
from desired.network.words import Names
from tests.desired.network.support import MACS, three_nodes

TOPOLOGY = build(three_nodes("multi-table"))
ROUTER = next(iter(TOPOLOGY.routers.values()))
QROUTER = f"qrouter-{ROUTER.id}"
COMPUTE = "10.10.10.30"


@dataclass
class World:
    """A node that is as declared, whose switch brings everything where it has to get; tests change its answers."""

    node: str = "network"
    flows: Callable[[AskFlows], Forwarding | None] = lambda _: None
    routes: dict[str, Way] = field(default_factory=dict)
    neighbours: dict[str, tuple[str, str]] = field(default_factory=dict)
    rules: str = ""
    without: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        compiled = compile_node(three_nodes("multi-table"), self.node, Allocations())
        self.resources = {resource.id: resource for resource in compiled.resources.values()}
        self.names = Names(TOPOLOGY, compiled.allocations.vlans, self.node)
        ports = [(r.id.name, r.spec) for r in self.resources.values() if isinstance(r.spec, PortSpec)]
        self.devices = {
            name: Device(
                name, spec.bridge, at, spec.type if spec.type != "internal" else "internal", spec.tag,
                spec.interface_external_ids.get("iface-id", ""), spec.peer or "", spec.remote_ip or "", odp=100 + at,
            )
            for at, (name, spec) in enumerate(ports, 1)
            if name not in self.without
        }  # fmt: skip
        for network in TOPOLOGY.networks.values():
            for at, port in enumerate(network.ports):
                if port.owner == "instance" and port.node == self.node:
                    vlan = compiled.allocations.vlans[network.id]
                    self.devices[f"vm{at}{vlan}"] = Device(
                        f"vm{at}{vlan}", "br-int", 50 + at, "", vlan, port.id, odp=150 + at
                    )

    def odp(self, mac: str) -> tuple[int, ...]:
        ids = {port.id for network in TOPOLOGY.networks.values() for port in network.ports if port.mac == mac}
        return tuple(d.odp for d in self.devices.values() if d.iface_id in ids and d.odp is not None)

    def answer(self, question: Any) -> Any:
        match question:
            case AskSwitch():
                return Switch(self.devices, frozenset({"br-int", "br-tun", "br-ex"}))
            case AskFlows(_, flow):
                return self.flows(question) or self._carried(flow)
            case AskInside():
                links = {name: Link(name, up=True, mac="", addresses=self._addresses(name)) for name in self.devices}
                return Inside(there=True, links=links, forwards=True)
            case AskRoute(_, to):
                return self.routes.get(to, Way(refused="Network is unreachable"))
            case AskNeighbour(_, ip, _):
                return self.neighbours.get(ip, ("", ""))
            case AskRules():
                return self.rules
            case AskListening():
                return True
        raise AssertionError(question)

    def _addresses(self, device: str) -> tuple[str, ...]:
        own = self.devices[device].iface_id
        return tuple(
            str(a) for network in TOPOLOGY.networks.values() for p in network.ports if p.id == own for a in p.addresses
        )

    def _carried(self, flow: str) -> Forwarding:
        """To everybody: all ports here, and the tunnel to the compute node with the key of the receiver's network."""
        steps = tuple(Step(bridge, "0", "", 1, ("NORMAL",)) for bridge in ("br-int", "br-tun", "br-ex"))
        key = 999 if MACS["vm2"] in flow else 1
        return Forwarding(
            steps, tuple(d.odp for d in self.devices.values() if d.odp is not None), (Tunnelled(COMPUTE, key),)
        )

    def trace(self, source: str, to: str, **more: Any) -> Traced:
        way = trace(Asked(source, to, **more), Scene(self.names, self.resources, {}))
        try:
            question = next(way)
            while True:
                question = way.send(self.answer(question))
        except StopIteration as end:
            found: Traced = end.value
            return found


def missing(found: Traced) -> list[str]:
    return [one for hop in found.hops for one in hop.missing]


OUT = Way(dev=next(d for d in World().devices if d.startswith("qg-")), via="10.6.0.1", route="default via 10.6.0.1")
IN = Way(dev=next(d for d in World().devices if d.startswith("qr-")), route="172.16.1.0/24 dev qr")
SNAT = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 172.16.1.0/24 -j SNAT --to-source 10.6.0.2\nCOMMIT\n"


def test_from_another_node_through_the_router_to_the_outside() -> None:
    found = World(
        routes={"8.8.8.8": OUT}, rules=SNAT, neighbours={"10.6.0.1": ("02:00:00:00:00:99", "REACHABLE")}
    ).trace("vm1", "8.8.8.8", via="compute")
    assert (found.arrives, found.end) == (True, "it leaves by eth2 to the outside, as it should")
    assert found.packet.source == "172.16.1.10"
    assert any("its source becomes 10.6.0.2" in hop.sentence for hop in found.hops)


def test_from_the_router_it_goes_on_at_the_node_of_the_receiver() -> None:
    found = World(routes={"172.16.1.10": IN}).trace("eth2", "172.16.1.10")
    assert missing(found) == ["nobody in a network of br-ex has 172.16.1.10"]
    inside = World(routes={"172.16.1.10": Way(dev=IN.dev, route="172.16.1.0/24")}).trace("qr1", "172.16.1.10")
    assert (inside.arrives, inside.node) == (True, "compute")
    assert inside.command == "reconcile trace --from qr1 --to 172.16.1.10 --via network"


def test_a_loop_ends() -> None:
    found = World(routes={"8.8.8.8": replace(IN, via="172.16.1.1")}).trace("vm1", "8.8.8.8", via="compute")
    assert not found.arrives
    assert "after 12 times through Open vSwitch" in found.end


def test_a_tunnel_key_of_another_network_is_named() -> None:
    def wrong(question: AskFlows) -> Forwarding | None:
        steps = tuple(Step(bridge, "0", "", 1, ("NORMAL",)) for bridge in ("br-int", "br-tun"))
        return Forwarding(steps, (), (Tunnelled(COMPUTE, 7),))

    found = World(flows=wrong, routes={"172.16.1.10": IN}).trace("qr1", "172.16.1.10")
    assert missing(found) == ["it leaves with tunnel key 7; network one has 1"]


def test_a_stale_neighbour_of_the_router_is_named() -> None:
    world = World(routes={"172.16.1.10": IN}, neighbours={"172.16.1.10": ("fa:16:3e:99:99:99", "PERMANENT")})
    found = world.trace("qr1", "172.16.1.10")
    assert missing(found) == [f"{QROUTER} takes 172.16.1.10 to be fa:16:3e:99:99:99; it is {MACS['vm1']}"]


def test_a_gateway_outside_that_does_not_answer_is_named() -> None:
    world = World(routes={"8.8.8.8": OUT}, rules=SNAT, neighbours={"10.6.0.1": ("", "FAILED")})
    found = world.trace("vm1", "8.8.8.8", via="compute")
    assert found.end == f"it does not arrive: nobody answers ARP for 10.6.0.1 on {OUT.dev}"


def test_metadata_of_a_network_without_a_router_is_at_its_dhcp_server() -> None:
    world, told = World(node="compute"), "its DHCP server 169.254.1.2 serves metadata"
    for settings, served in ((MetadataSettings(upstream="/run/metadata"), True), (None, False)):
        options = TOPOLOGY.options.model_copy(update={"metadata": settings})
        world.names = Names(replace(TOPOLOGY, options=options), world.names.vlans, world.node)
        found = world.trace("vm2", "169.254.169.254", protocol="tcp", port=80)
        assert any(told in hop.sentence for hop in found.hops) is served


def test_a_port_without_an_address_of_that_version_does_not_send() -> None:
    found = World(node="compute").trace("vm1", "2001:db8::1")
    assert missing(found) == ["port vm1 has no IPv6 address"]


@pytest.mark.parametrize(
    ("source", "to", "via", "said"),
    [
        ("vm3", "8.8.8.8", "", "did you mean 'vm2'?"),
        ("vm1", "8.8.8.8", "", "ask there, on compute: reconcile trace --from vm1 --to 8.8.8.8"),
        ("vm1", "8.8.8.8", "cmopute", "the model has compute, controller, network"),
        ("dhcp1", "somewhere", "", "is no IP address and no port with one"),
    ],
)
def test_what_cannot_be_asked_here_says_what_can(source: str, to: str, via: str, said: str) -> None:
    with pytest.raises(NotHereError, match=said.replace("?", r"\?")):
        World().trace(source, to, via=via)
