"""The interface by which a node is reached, moved into a bridge: not by accident, and when it is meant, with a ping.

The node's way in is eth0 (network mgmt) with a default route; another host on that network pings it all the time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.report import ExitCode
from tests.lab import service, wires
from tests.lab.cluster import Cluster, Node, lab
from tests.lab.wires import Host

GATEWAY = "172.31.0.1"
EMPTY: dict[str, Any] = {"bridges": {"br-int": {}}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("wayin") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> Host:
    """Somebody who logs in from elsewhere, through the gateway."""
    host = wires.plug(cluster.holder, "operator", f"{GATEWAY}/24", "mgmt")
    host.run("ip", "addr", "add", "198.51.100.9/32", "dev", "lo")
    return host


@pytest.fixture
def node(cluster: Cluster, operator: Host) -> Iterator[Node]:
    """As an installation leaves it: address and default route on eth0."""
    node = cluster.nodes["wayin"]
    node.run("ip", "route", "replace", "default", "via", GATEWAY, "dev", "eth0")
    service.enable(node, json.dumps(EMPTY))
    yield node
    node.sh(
        "systemctl stop reconciler; ovs-vsctl --if-exists del-br br-ex; ip addr replace "
        f"{node.mgmt}/24 dev eth0; ip link set eth0 up; ip route replace default via {GATEWAY} dev eth0"
    )


def declare(node: Node, *parts: dict[str, Any]) -> None:
    before = service.status(node).revision
    node.write(service.DESIRED, json.dumps({key: value for part in (EMPTY, *parts) for key, value in part.items()}))
    assert node.eventually(lambda: service.status(node).revision != before), node.try_run("reconcile", "validate")


def told(node: Node, resource: str) -> str:
    return next((s.reason for s in service.status(node).not_right if str(s.resource) == resource), "")


def bridge(node: Node, **port: Any) -> dict[str, Any]:
    """The NIC as a port of br-ex, on which every frame may pass."""
    return {
        "bridges": {"br-int": {}, "br-ex": {}},
        "ports": {"eth0": {"bridge": "br-ex", "type": "system", **port}},
        "flows": {"br-ex": ["priority=1,actions=NORMAL"]},
    }


def carried(node: Node) -> dict[str, Any]:
    return {
        "host": {
            "links": {"br-ex": {"up": True, "addresses": [f"{node.mgmt}/24"]}},
            "routes": [{"to": "default", "via": GATEWAY, "dev": "br-ex"}],
        }
    }


def ports(node: Node) -> list[str]:
    return node.try_run("ovs-vsctl", "list-ports", "br-ex").split()


def test_the_interface_of_the_default_route_is_not_taken_into_a_bridge(node: Node, operator: Host) -> None:
    with operator.pinging(node.mgmt) as ping:
        declare(node, bridge(node))
        assert node.eventually(lambda: "withheld" in told(node, "port/eth0")), node.try_run("reconcile", "status")
        said = told(node, "port/eth0")
        assert "the default route leaves by it" in said
        assert "host: {release: [eth0]}" in said
        assert "withheld" in node.reconcile("plan", expect=(ExitCode.WITHHELD, ExitCode.CHANGES))
    assert ping.lost == ()
    assert ports(node) == []
    bond = {"bonds": {"bond0": {"bridge": "br-ex", "interfaces": ["eth0", "eth2"]}}}
    declare(node, {"bridges": {"br-int": {}, "br-ex": {}}}, bond)
    assert node.eventually(lambda: "take eth0 into bridge br-ex" in told(node, "bond/bond0"))
    assert ports(node) == []


def test_it_is_taken_when_it_is_released_by_name(node: Node) -> None:
    declare(node, bridge(node), {"host": {"release": ["eth0"]}})
    assert node.eventually(lambda: ports(node) == ["eth0"]), node.try_run("reconcile", "status")


def test_it_moves_with_its_addresses_and_routes_when_these_are_declared_for_the_bridge(
    node: Node, operator: Host
) -> None:
    far = node.run("ip", "-o", "route", "get", "198.51.100.9")
    assert "dev eth0" in far
    with operator.pinging(node.mgmt) as ping:
        declare(node, bridge(node), carried(node))
        assert node.eventually(lambda: service.converged(node)), node.try_run("reconcile", "status")
        assert node.eventually(lambda: operator.reaches(node.mgmt))
    print(f"lost {len(ping.lost)} of {ping.sent} pings, one every 10 ms")
    assert len(ping.lost) < ping.sent / 2
    assert ports(node) == ["eth0"]
    assert node.mgmt not in node.run("ip", "-o", "addr", "show", "dev", "eth0")
    assert f"{node.mgmt}/24" in node.run("ip", "-o", "addr", "show", "dev", "br-ex")
    assert "dev br-ex" in node.run("ip", "-o", "route", "get", "198.51.100.9")
    assert operator.run("ping", "-n", "-c1", "-W2", "-I", "198.51.100.9", node.mgmt)
    with operator.pinging(node.mgmt) as ping:
        declare(node)
        assert node.eventually(lambda: "withheld" in told(node, "bridge/br-ex")), node.try_run("reconcile", "status")
        assert node.eventually(lambda: "withheld" in told(node, "port/eth0"))
        node.run("systemctl", "restart", "reconciler", timeout=30)
        assert node.eventually(lambda: "withheld" in told(node, "bridge/br-ex"))
    assert ping.lost == ()
