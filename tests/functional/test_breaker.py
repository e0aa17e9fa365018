"""A random breaker with the tools that everybody has: whatever it does, the node is as declared soon after it stops.

``BREAKER_SEED=… BREAKER_SECONDS=…`` replays a run, or makes it longer; the seed is printed when it fails.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

from tests.breaking import Deeds
from tests.functional.daemon import Node
from tests.ovs import ToolFailedError

SECONDS = float(os.environ.get("BREAKER_SECONDS", "15"))
SEED = int(os.environ.get("BREAKER_SEED", str(time.time_ns() % 1_000_000)))
PORTS = [f"tap{n}" for n in range(10)]
TUNNELS = [f"vx{n}" for n in range(4)]
DESIRED = {
    "bridges": {"br-int": {}, "br-tun": {"protocols": ["OpenFlow13", "OpenFlow14"]}, "br-sh": {"flows": "shared"}},
    "ports": {
        **{port: {"bridge": "br-int", "tag": n + 1} for n, port in enumerate(PORTS)},
        **{port: {"bridge": "br-tun", "type": "vxlan", "remote_ip": f"192.0.2.{n}"} for n, port in enumerate(TUNNELS)},
    },
    "patches": [{"br-int": "patch-tun", "br-tun": "patch-int"}],
    "held_ports": {"nova-1": {"tag": 55}},
    "flows": {
        "br-int": [
            "priority=1,actions=NORMAL",
            *(f"priority=7,in_port={port},dl_type=0x88cc,actions=output:patch-tun" for port in PORTS),
            *(f"priority=9,ip,nw_dst=10.0.0.{n},actions=drop" for n in range(150)),
        ],
        "br-tun": [
            "priority=0,actions=drop",
            *(f"priority=3,in_port={port},actions=output:patch-int" for port in TUNNELS),
            f"priority=2,in_port=patch-int,actions={','.join(f'output:{port}' for port in TUNNELS)}",
        ],
        "br-sh": ["priority=4,arp,actions=drop"],
    },
}


class Breaker:
    """Does one wrong thing at a time. What it may not touch is what the test counts as foreign."""

    def __init__(self, node: Node, seed: int) -> None:
        self.ovs, self.chance, self.done = node.ovs, random.Random(seed), 0
        deeds: list[tuple[int, Callable[[], str]]] = [
            (8, lambda: self._vsctl("del-port", self._port())),
            (8, lambda: self._vsctl("set", "port", self._port(), f"tag={self.chance.randrange(4000)}")),
            (4, lambda: self._vsctl("clear", "port", self._port(), "tag")),
            (
                4,
                lambda: self._vsctl(
                    "set", "interface", self._port(), f"ofport_request={self.chance.randrange(1, 500)}"
                ),
            ),
            (4, lambda: self._vsctl("set", "interface", self._tunnel(), "options:remote_ip=192.0.2.99")),
            (3, lambda: self._vsctl("set", "interface", "patch-tun", "options:peer=nowhere")),
            (2, lambda: self._vsctl("clear", "port", self._port(), "external_ids")),
            (2, lambda: self._vsctl("set", "bridge", self._bridge(), "fail_mode=standalone")),
            (2, lambda: self._vsctl("set", "bridge", self._bridge(), "protocols=OpenFlow10")),
            (2, lambda: self._vsctl("set", "bridge", self._bridge(), "other_config:disable-in-band=true")),
            (2, lambda: self._vsctl("set", "port", "nova1", "tag=1")),
            (1, lambda: self._vsctl("del-br", "br-tun")),
            (1, lambda: self._vsctl("add-port", "br-tun", f"new{self.chance.randrange(3)}", "--", "del-port", "vx1")),
            (10, lambda: self._ofctl("del-flows", "br-int", f"ip,nw_dst=10.0.0.{self.chance.randrange(150)}")),
            (
                8,
                lambda: self._ofctl(
                    "mod-flows", "br-int", f"ip,nw_dst=10.0.0.{self.chance.randrange(150)},actions=NORMAL"
                ),
            ),
            (
                4,
                lambda: self._ofctl(
                    "add-flow", self._bridge(), f"priority={self.chance.randrange(65535)},udp,actions=drop"
                ),
            ),
            (4, lambda: self._ofctl("del-flows", self._bridge())),
            (2, lambda: self._ofctl("mod-flows", self._bridge(), "actions=drop")),
            (2, lambda: self._ofctl("del-flows", "br-sh", "arp")),
        ]
        self.deeds = Deeds(self.chance, [(weight, "deed", deed) for weight, deed in deeds])

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.done += self.deeds.one(ToolFailedError)
            if self.chance.random() < 0.1:
                time.sleep(self.chance.uniform(0, 0.3))

    def _port(self) -> str:
        return self.chance.choice([*PORTS, *TUNNELS, "patch-tun", "patch-int"])

    def _tunnel(self) -> str:
        return self.chance.choice(TUNNELS)

    def _bridge(self) -> str:
        return self.chance.choice(["br-int", "br-tun"])

    def _vsctl(self, *args: str) -> str:
        return self.ovs.vsctl("--no-wait", *args)

    def _ofctl(self, *args: str) -> str:
        return self.ovs.ofctl(*args)


def _flows(node: Node, bridge: str) -> list[str]:
    said = node.ovs.ofctl("--no-stats", "--names", "dump-flows", bridge)
    return sorted(line.strip() for line in said.splitlines())


def _rows(node: Node) -> str:
    """What is declared of bridges, ports and interfaces, as ovs-vsctl prints it."""
    ports = sorted([*PORTS, *TUNNELS, "patch-tun", "patch-int", "nova1", "alien"])
    queries = [
        ["get", "bridge", name, "fail_mode", "protocols", "other_config", "external_ids"] for name in DESIRED["bridges"]
    ]
    queries += [["get", "port", name, "tag", "external_ids"] for name in ports]
    queries += [["get", "interface", name, "type", "options"] for name in ports]
    queries += [["port-to-br", name] for name in ports]
    return node.ovs.vsctl(*(word for query in queries for word in ("--", *query)))


def test_node_is_as_declared_within_five_seconds_after_a_random_breaker_stops(node: Node) -> None:
    ovs = node.ovs
    node.declare(**DESIRED)
    node.start(converged=False)
    node.until(lambda: "br-int" in ovs.vsctl("list-br"), "the bridges are there")
    ovs.vsctl(
        "add-port",
        "br-int",
        "nova1",
        "--",
        "set",
        "interface",
        "nova1",
        "type=internal",
        "external_ids:iface-id=nova-1",
    )
    ovs.vsctl(
        "add-port",
        "br-int",
        "alien",
        "--",
        "set",
        "interface",
        "alien",
        "type=internal",
        "--",
        "set",
        "port",
        "alien",
        "tag=99",
    )
    ovs.add_bridge("br-alien", "fail_mode=secure")
    ovs.ofctl("add-flow", "br-alien", "cookie=0x42,priority=3,actions=drop")
    ovs.ofctl("add-flow", "br-sh", "cookie=0x43,priority=5,udp,actions=drop")
    node.converged()
    bridges = [*DESIRED["bridges"], "br-alien"]
    flows, rows = {bridge: _flows(node, bridge) for bridge in bridges}, _rows(node)

    breaker = Breaker(node, SEED)
    print(f"BREAKER_SEED={SEED}")
    breaker.run(SECONDS)
    assert breaker.done > SECONDS * 5
    for foreign in ("new0", "new1", "new2"):  # they are the breaker's, on a bridge with shared ports
        ovs.vsctl("--no-wait", "--if-exists", "del-port", foreign)

    stopped = time.monotonic()
    node.converged(5)
    node.until(lambda: _rows(node) == rows, "the rows are as they were", max(0.1, 5 - (time.monotonic() - stopped)))
    assert {bridge: _flows(node, bridge) for bridge in bridges} == flows
    assert node.status().budgets == (), "no repair was taken for a removal"
    plan = node.cli("plan")
    assert plan.code == 0, plan.out
    assert node.get("/healthz")[0] == 200
    print(f"{breaker.done} things broken in {SECONDS:g} s")
    assert node.stop() == 0
