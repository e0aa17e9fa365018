"""Ports of Open vSwitch that live in a namespace, held by the whole daemon: moved in, repaired, moved in again."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.functional.daemon import Node
from tests.ovs import PrivateOvs

DESIRED = {
    "bridges": {"br-int": {"fail_mode": "standalone"}},
    "ports": {"qr-1": {"bridge": "br-int", "tag": 5}, "qr-2": {"bridge": "br-int"}},
    "namespaces": {
        "qrouter": {
            "links": {
                "qr-1": {"type": "ovs", "mac": "fa:16:3e:00:00:01", "addresses": ["10.0.0.1/24"]},
                "inner": {"type": "ovs", "device": "qr-2", "mtu": 1400, "addresses": ["10.0.1.1/24"]},
            },
            "routes": [{"to": "default", "via": "10.0.0.254"}],
            "sysctls": {"net.ipv4.ip_forward": 1},
        }
    },
}


@pytest.fixture
def node(ovs: PrivateOvs) -> Iterator[Node]:
    node = Node(ovs)
    node.declare(**DESIRED)
    node.start()
    yield node
    assert node.stop() == 0
    assert node.crashes() == []


def address(node: Node) -> str:
    return node.ovs.run("ip", "-n", "qrouter", "addr")


def test_ports_are_moved_in_and_renamed_and_work(node: Node) -> None:
    shown = address(node)
    assert "fa:16:3e:00:00:01" in shown
    assert "10.0.0.1/24" in shown
    assert "inner" in shown
    assert "qr-2" not in shown
    assert "default via 10.0.0.254" in node.ovs.run("ip", "-n", "qrouter", "route")


def test_everything_comes_back_after_vswitchd_was_restarted(node: Node) -> None:
    node.ovs.restart_vswitchd()
    node.until(lambda: "10.0.0.1/24" in address(node) and "10.0.1.1/24" in address(node), "moved in again")
    node.converged()


def test_a_device_moved_back_to_the_host_is_moved_in_again(node: Node) -> None:
    with node.repairs("link/qrouter/qr-1"):
        node.ovs.run("ip", "-n", "qrouter", "link", "set", "qr-1", "netns", str(node.ovs.holder.pid))
    assert "10.0.0.1/24" in address(node)


def test_a_port_that_was_deleted_comes_back_into_its_namespace(node: Node) -> None:
    """A vswitchd that hears of both at once keeps the device where it is."""
    with node.repairs("port/qr-1"):
        node.ovs.vsctl("--no-wait", "del-port", "qr-1")
    node.until(lambda: "10.0.0.1/24" in address(node), "it is in its namespace", 5)
    node.converged()


def test_a_namespace_deleted_with_ports_in_it_comes_back_whole(node: Node) -> None:
    with node.repairs("namespace/qrouter"):
        node.ovs.run("ip", "netns", "del", "qrouter")
    assert "10.0.0.1/24" in address(node)


def test_after_a_cold_boot_everything_comes_back_in_one_go(node: Node) -> None:
    assert node.stop() == 0
    node.ovs.stop_vswitchd()
    node.ovs.run("ip", "netns", "del", "qrouter")
    node.ovs.start_vswitchd()
    node.start()
    assert "10.0.0.1/24" in address(node)
    assert "10.0.1.1/24" in address(node)


def test_a_device_deleted_in_its_namespace_is_made_anew(node: Node) -> None:
    with node.repairs("link/qrouter/qr-1"):
        node.ovs.run("ip", "-n", "qrouter", "link", "del", "qr-1")
    assert "10.0.0.1/24" in address(node)


def test_a_device_renamed_in_its_namespace_is_not_said_to_have_died(node: Node) -> None:
    with node.repairs("link/qrouter/qr-1"):
        node.ovs.run("sh", "-ec", "ip -n qrouter link set qr-1 down; ip -n qrouter link set qr-1 name other")
    assert "10.0.0.1/24" in address(node)
    assert "other" not in node.ovs.run("ip", "-n", "qrouter", "-o", "link")
    reasons = [action.why for entry in node.entries("port/qr-1") for action in entry.actions]
    assert any("renamed" in why for why in reasons)
    assert not any("died" in why for why in reasons)


def mac(node: Node, dev: str) -> str:
    found = re.search(rf"{dev}: .*link/ether (\S+)", node.ovs.run("ip", "-n", "qrouter", "-o", "link"))
    return "" if found is None else found[1]


def test_the_mac_and_mtu_of_a_port_are_held_where_its_device_is(node: Node) -> None:
    """vswitchd gives a mac to a device of the host only, and notices nothing in a namespace."""
    ports = {**DESIRED["ports"], "qr-2": {"bridge": "br-int", "mac": "fa:16:3e:00:00:02", "mtu": 1300}}
    before = node.status().revision
    node.declare(**{**DESIRED, "ports": ports})
    node.until(lambda: node.status().revision != before, "the declaration is taken")
    node.converged()
    assert mac(node, "inner") == "fa:16:3e:00:00:02"
    with node.repairs("link/qrouter/inner"):
        node.ovs.run("ip", "-n", "qrouter", "link", "set", "inner", "address", "fe:16:3e:77:00:77")
    assert mac(node, "inner") == "fa:16:3e:00:00:02"
    for _ in range(3):
        node.ovs.restart_vswitchd()
        node.until(lambda: mac(node, "inner") == "fa:16:3e:00:00:02" and "10.0.1.1/24" in address(node), "moved in")
        node.converged()
        node.until(lambda: "mtu 1400" in address(node), "the link's own word wins")


def test_a_namespace_that_somebody_made_anew_while_the_daemon_was_down_is_taken_again(node: Node) -> None:
    """The store remembers that it was ours; without it, it would be a conflict."""
    assert node.stop() == 0
    node.ovs.run("sh", "-c", "ip netns del qrouter; ip netns add qrouter")
    node.start()
    assert "10.0.0.1/24" in address(node)
    assert node.stop() == 0
    node.ovs.run("sh", "-c", "ip netns del qrouter; ip netns add qrouter; ip -n qrouter link add x type bridge")
    node.start(converged=False)
    node.until(lambda: "is not ours" in str(node.status().not_right), "what others put into it makes it theirs")
    assert "10.0.0.1/24" not in address(node)
    node.ovs.run("ip", "netns", "del", "qrouter")
    node.converged()
