"""The replica: dumps and events in any order lead to what the kernel has; what is not plain is in doubt."""

from __future__ import annotations

import asyncio

from controllers.drivers.netlink import requests, rows
from controllers.drivers.netlink.client import Netlink
from controllers.drivers.netlink.replica import Space
from controllers.drivers.netlink.wire import F_REPLACE, attribute, attributes, messages, text, u32
from tests.controllers.drivers.netlink.private import ip, privately, sh

ROUTE = rows.Route(rows.INET, 254, "10.5.0.0/16", 7, 1, 94, "10.0.0.1", 3, "10.0.0.9", onlink=True, paths=b"")


def empty() -> Space:
    space = Space("x")
    space.doubt.clear()
    return space


def test_attributes_are_read_as_they_are_written() -> None:
    data = u32(5, 77) + text(3, "eth0") + attribute(7, b"abc")
    assert attributes(data) == {5: (77).to_bytes(4, "little"), 3: b"eth0\0", 7: b"abc"}
    assert list(messages(b"\1\0")) == []
    assert attributes(b"\1\0\1\0zz") == {}


def test_what_is_asked_for_is_read_back_as_the_same_row() -> None:
    assert rows.route(requests.set_route(ROUTE).body) == ROUTE
    v6 = ROUTE._replace(family=rows.INET6, to="fd00::/64", via="fd01::1", src="", onlink=False, metric=1024)
    assert rows.route(requests.set_route(v6).body) == v6
    rule = rows.Rule(rows.INET, 50, 1, 1000, "10.0.0.0/8", "192.0.2.0/24", 1, 0xFF, "eth0", "", 94, b"")
    assert rows.rule(requests.add_rule(rule).body) == rule
    neighbour = rows.Neighbour(3, "fd00::7", "fa:16:3e:00:00:01", 94)
    assert rows.neighbour(requests.set_neighbour(neighbour).body) == neighbour
    assert rows.address(requests.set_address(3, "10.0.0.1/24", proto=94).body).address == "10.0.0.1/24"


def test_a_route_that_comes_and_goes_is_known_without_a_dump() -> None:
    space, body = empty(), requests.set_route(ROUTE).body
    assert space.apply(rows.RTM_NEWROUTE, 0, body)
    assert not space.apply(rows.RTM_NEWROUTE, 0, body)
    elsewhere = requests.set_route(ROUTE._replace(via="10.0.0.2")).body
    assert space.apply(rows.RTM_NEWROUTE, F_REPLACE, elsewhere)
    assert [row.via for found in space.routes.values() for row in found] == ["10.0.0.2"]
    assert space.apply(rows.RTM_DELROUTE, 0, elsewhere)
    assert not space.routes
    assert not space.doubt


def test_a_second_route_to_the_same_place_puts_the_routes_in_doubt() -> None:
    space = empty()
    space.apply(rows.RTM_NEWROUTE, 0, requests.set_route(ROUTE).body)
    assert space.apply(rows.RTM_NEWROUTE, 0, requests.set_route(ROUTE._replace(via="10.0.0.2")).body)
    assert space.doubt == {"routes"}


def test_every_device_has_its_own_link_local_route_which_comes_and_goes_without_a_dump() -> None:
    space = empty()
    routes = [
        ROUTE._replace(family=rows.INET6, to="fe80::/64", via="", src="", onlink=False, ifindex=i) for i in (3, 4)
    ]
    for row in routes:
        space.apply(rows.RTM_NEWROUTE, 0, requests.set_route(row).body)
    assert space.apply(rows.RTM_DELROUTE, 0, requests.set_route(routes[0]).body)
    assert list(space.routes.values()) == [(routes[1],)]
    assert not space.doubt


def test_what_the_kernel_takes_away_in_silence_is_in_doubt() -> None:
    space = empty()
    up = rows.LINK.pack(0, 0, 3, rows.IFF_UP, 0) + text(3, "eth0")
    down = rows.LINK.pack(0, 0, 3, 0, 0) + text(3, "eth0")
    space.apply(rows.RTM_NEWLINK, 0, up)
    assert not space.doubt
    space.apply(rows.RTM_NEWLINK, 0, down)
    assert space.later == {"routes"}
    space.apply(rows.RTM_DELLINK, 0, down)
    assert space.doubt == {"routes", "addresses", "neighbours"}
    assert not space.links


@privately
async def test_the_replica_says_what_ip_says_after_any_hundred_changes() -> None:
    heard: list[str | None] = []
    driver = Netlink(mark="m", on_change=lambda name, _devices, _why: heard.append(name))
    running = asyncio.create_task(driver.run(), name="driver")
    while not driver.ready:
        await asyncio.sleep(0.001)
    sh("ip", "netns", "add", "a")
    ip("link", "add", "v", "type", "veth", "peer", "name", "w", ns="a")
    ip("link", "set", "v", "up", ns="a")
    ip("link", "set", "w", "up", ns="a")
    assert await driver.space("a") is not None
    for number in range(30):
        ip("addr", "add", f"10.0.{number}.1/24", "dev", "v", ns="a")
        ip("route", "add", f"10.9.{number}.0/24", "via", f"10.0.{number}.7", ns="a")
        if number % 3 == 0:
            ip("addr", "del", f"10.0.{number}.1/24", "dev", "v", ns="a")
        if number % 7 == 0:
            ip("link", "set", "v", "down", ns="a")
            ip("link", "set", "v", "up", ns="a")
            ip("-6", "route", "append", "fd05::/64", "dev", "v", "metric", f"{number + 1}", ns="a")
            ip("-6", "route", "append", "fd05::/64", "dev", "w", "metric", f"{number + 1}", ns="a")
        if number % 14 == 0:
            ip("-6", "route", "del", "fd05::/64", "dev", "w", "metric", f"{number + 1}", ns="a")
    space = await driver.space("a")
    assert space is not None
    names = {row.ifindex: row.name for row in space.links.values()}
    devices = [names[row.ifindex] for found in space.routes.values() for row in found if row.to == "fd05::/64"]
    assert sorted(devices) == sorted(
        line.split()[2] for line in ip("-6", "route", "show", "fd05::/64", ns="a").splitlines()
    )
    shown = ip("-o", "-4", "addr", ns="a")
    for index, address in space.addresses:
        assert f"{names[index]}    inet {address}" in shown or ":" in address
    assert sum(":" not in address for _, address in space.addresses) == len(shown.splitlines())
    assert len([row for found in space.routes.values() for row in found if row.family == rows.INET]) == len(
        ip("-4", "route", ns="a").splitlines()
    )
    version = space.version
    await driver.prove(["a"])
    assert driver.known("a") is space
    assert space.version == version
    assert "a" in heard
    sh("ip", "netns", "del", "a")
    assert await driver.space("a") is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    driver.close()


@privately
async def test_a_device_is_found_by_its_name_in_the_namespace_that_was_entered() -> None:
    driver = Netlink(mark="m", on_change=lambda *_: None)
    sh("ip", "netns", "add", "a")
    ip("link", "add", "a-name-of-15-by", "index", "77", "type", "bridge", ns="a")
    inside = driver._inside
    found = inside.begin(
        lambda s: (s.index("a", "a-name-of-15-by"), s.index("host", "a-name-of-15-by"), s.index("a", "lo"))
    )
    assert await inside.ended(found) == (77, 0, 1)
    driver.close()


@privately
async def test_a_visit_always_comes_back_to_the_host() -> None:
    driver = Netlink(mark="m", on_change=lambda *_: None)
    sh("ip", "netns", "add", "a")
    inside = driver._inside
    there = inside.begin(lambda s: (s.channel("host").cookie, s.channel("a").cookie, s.channel("host").cookie))
    cookies = await inside.ended(there)
    assert cookies[0] == cookies[2] != cookies[1]
    again = await inside.ended(inside.begin(lambda s: s.channel("host").cookie))
    assert again == cookies[0]
    driver.close()
