"""The interface by which the node is reached cannot be cut by a plan, unless its addresses are carried over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controllers.drivers.netlink.inside import HOST
from controllers.drivers.netlink.rows import Address
from controllers.namespace.safety import guarded
from controllers.namespace.wanted import wanted
from controllers.ownership import LINK_GROUP, PROTO
from desired.resource import ResourceId
from reconciler.contract import Plan
from tests.controllers.drivers.netlink.private import ip, privately
from tests.controllers.namespace.support import running
from tests.controllers.namespace.world import World, foreign_route, link, resources


def host(*, untouchable: frozenset[str] = frozenset()) -> World:
    """eth0 has the default route and an address of ours, eth1 has neither."""
    world = World(name=HOST, untouchable=untouchable)
    rows = [link(2, "eth0", kind=""), link(3, "eth1", kind=""), link(4, "br0")]
    world.host.load({"links": [world.host.links[1], *rows]})
    for address, index, proto in (("192.0.2.9/24", 2, 0), ("192.0.2.10/24", 2, PROTO), ("10.1.0.1/24", 3, PROTO)):
        world.host.addresses[index, address] = Address(index, address, proto, False, True, False)
    world.host.routes[254, "0.0.0.0/0", 0] = (foreign_route("0.0.0.0/0", 2)._replace(via="192.0.2.1"),)
    return world


def withheld(plan: Plan) -> dict[str, str]:
    return {str(f.resource): f.reason for f in plan.findings if f.reason.startswith("withheld")}


def planned(plan: Plan) -> set[str]:
    return {str(change.resource) for group in plan.groups for change in group.changes}


def test_the_interface_of_the_default_route_is_not_taken_down_nor_changed_nor_enslaved() -> None:
    for setting in ("up: false", "mac: 'fa:16:3e:00:00:01'", "master: br0"):
        plan = host().plan(resources(f"host: {{links: {{eth0: {{{setting}}}}}}}"))
        assert "the default route leaves by it" in withheld(plan)["link/host/eth0"]
        assert "link/host/eth0" not in planned(plan)


def test_its_addresses_and_routes_are_not_taken_away() -> None:
    plan = host().plan(resources("host: {}"))
    assert "address/host/eth0/192.0.2.10/24" in withheld(plan)
    assert planned(plan) == {"address/host/eth1/10.1.0.1/24"}
    moved = host().plan(resources("host: {links: {eth1: {}}, routes: [{to: default, via: 10.1.0.9, dev: eth1}]}"))
    assert "take the route" in withheld(moved)["route/host/default"]


def test_an_interface_that_the_settings_call_untouchable_is_protected_too() -> None:
    plan = host(untouchable=frozenset({"eth1"})).plan(resources("host: {links: {eth1: {up: false}}}"))
    assert "untouchable" in withheld(plan)["link/host/eth1"]


def test_it_is_done_when_the_interface_is_released_by_name() -> None:
    plan = host().plan(resources("host: {release: [eth0], links: {eth0: {up: false}}}"))
    assert not withheld(plan)
    assert "link/host/eth0" in planned(plan)


def test_it_is_done_when_all_its_addresses_and_routes_are_declared_for_another_device() -> None:
    body: dict[str, Any] = {
        "links": {
            "eth0": {"master": "br0"},
            "br0": {"type": "existing", "addresses": ["192.0.2.9/24", "192.0.2.10/24"]},
        },
        "routes": [{"to": "default", "via": "192.0.2.1", "dev": "br0"}],
    }
    plan = host().plan(resources(str({"host": body}).replace("'", '"')))
    assert not withheld(plan)
    assert {"link/host/eth0", "route/host/default", "address/host/br0/192.0.2.9/24"} <= planned(plan)
    body["links"]["br0"]["addresses"] = ["192.0.2.10/24"]
    assert "link/host/eth0" in withheld(host().plan(resources(str({"host": body}).replace("'", '"'))))


NIC: dict[str, Any] = {
    "ports": {"eth0": {"bridge": "br0", "type": "system"}},
    "bridges": {"br0": {}},
    "host": {
        "links": {"br0": {"type": "existing", "up": True, "addresses": ["192.0.2.9/24", "192.0.2.10/24"]}},
        "routes": [{"to": "default", "via": "192.0.2.1", "dev": "br0"}],
    },
}


BOND: dict[str, Any] = {"bonds": {"bond0": {"bridge": "br0", "interfaces": ["eth0", "eth9"]}}}


@pytest.mark.parametrize("way", ["port", "bond"])
def test_of_a_nic_moved_into_a_bridge_the_route_waits_for_the_port_and_the_rest_goes_last(way: str) -> None:
    declared = resources(json.dumps(NIC if way == "port" else {**NIC, "ports": {}, **BOND}))
    world = host()
    world.attached = {"eth0": ""}
    plan = world.plan(declared)
    waits = {str(finding.resource): finding for finding in plan.findings}["route/host/default"]
    assert waits.waits_for == ((ResourceId("port", "eth0"),) if way == "port" else ())
    assert "waits until eth0 is a port" in waits.reason
    assert planned(plan) - {"address/host/eth1/10.1.0.1/24"} == {
        "address/host/br0/192.0.2.9/24",
        "address/host/br0/192.0.2.10/24",
    }
    world.attached = {"eth0": "br0"}
    world.converge(declared)
    left = {(index, address) for index, address in world.host.addresses if address.startswith("192.0.2.")}
    assert left == {(4, "192.0.2.9/24"), (4, "192.0.2.10/24")}, "what is on the bridge now is not left on the NIC"
    assert {row.ifindex for row in world.host.routes[254, "0.0.0.0/0", 0]} == {4}
    assert not world.plan(declared)


def test_what_others_may_not_take_is_told_with_the_way_out() -> None:
    world = host(untouchable=frozenset({"eth9"}))
    told = guarded(world.host, wanted({}), frozenset({"eth9"}))
    assert set(told) == {"eth0", "eth9"}
    assert "the default route leaves by it" in told["eth0"]
    assert "host: {release: [eth0]}" in told["eth0"]
    assert "untouchable" in told["eth9"]
    for carried in ("host: {release: [eth0]}", json.dumps({"host": NIC["host"]})):
        assert "eth0" not in guarded(world.host, wanted(resources(carried)), frozenset())


def test_a_device_of_ours_that_leads_to_the_node_is_not_deleted_when_it_is_no_longer_declared() -> None:
    world = host()
    world.host.links[2] = link(2, "eth0", group=LINK_GROUP)
    assert "would delete it" in withheld(world.plan(resources("host: {}")))["link/host/eth0"]


def test_an_interface_of_others_keeps_what_is_not_declared_for_it() -> None:
    world = host()
    world.converge(resources("host: {links: {eth1: {mtu: 1400, addresses: [10.2.0.1/24]}}, release: [eth0]}"))
    assert world.host.links[3].mtu == 1400
    assert (3, "10.2.0.1/24") in world.host.addresses
    assert (2, "192.0.2.9/24") in world.host.addresses
    assert world.host.links[3].mac == "02:00:00:00:00:01"


@privately
async def test_on_the_real_kernel_a_held_interface_keeps_its_own_and_gets_what_is_declared() -> None:
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "wire")
    ip("link", "set", "wire", "up")
    ip("link", "set", "eth0", "up")
    ip("addr", "add", "192.0.2.9/24", "dev", "eth0")
    ip("route", "add", "default", "via", "192.0.2.1")
    text = "host: {links: {eth0: {addresses: [198.51.100.7/32], %s}}, sysctls: {net.ipv4.conf.eth0.proxy_arp: 1}}"
    async with running(text % "mtu: 1400") as node:
        assert "198.51.100.7/32" in ip("addr", "show", "eth0")
        assert "192.0.2.9/24" in ip("addr", "show", "eth0")
        assert "mtu 1400" in ip("link", "show", "eth0")
        node.declare(text % "up: false")
        await node.until(lambda: "withheld" in node.wrong().get("link/host/eth0", ""), "withheld")
        assert "state UP" in ip("link", "show", "eth0")
        node.declare("host: {release: [eth0]}")
        await node.converged()
        assert "198.51.100.7" not in ip("addr", "show", "eth0"), "ours, and no longer declared"
        assert "default via 192.0.2.1" in ip("route")
