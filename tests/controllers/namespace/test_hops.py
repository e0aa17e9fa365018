"""Routes with several next hops, IPv4 and IPv6: made, known again in the kernel's own form, repaired, changed."""

from __future__ import annotations

import pytest

from controllers.drivers.netlink.inside import HOST
from controllers.drivers.netlink.requests import paths
from controllers.drivers.netlink.rows import Hop
from desired.kinds.sections import SECTIONS
from desired.schema.reading import read_file
from tests.controllers.drivers.netlink.private import ip, privately
from tests.controllers.namespace.support import Node, running
from tests.controllers.namespace.test_repairs import repairs
from tests.controllers.namespace.world import World, foreign_route, link, resources

ECMP = """
namespaces:
  q:
    links:
      v: {type: veth, peer: {name: vh}, addresses: [10.0.0.1/24, fd00::1/64]}
      w: {type: veth, peer: {name: wh}, addresses: [10.0.1.1/24, fd01::1/64]}
    routes:
      - {to: default, hops: [{via: 10.0.0.254}, {via: 10.0.1.254, dev: w, weight: 3}]}
      - to: 10.9.0.0/16
        table: 100
        metric: 7
        hops: [{dev: w}, {dev: v, weight: 256}, {via: 192.0.2.1, dev: v, onlink: true}]
      - {to: "::/0", hops: [{via: "fd01::fe", dev: w, weight: 2}, {via: "fd00::fe"}, {via: "fd00::fd"}]}
"""
V4 = ("default", "nexthop via 10.0.0.254 dev v weight 1", "nexthop via 10.0.1.254 dev w weight 3")
V6 = (
    "nexthop via fd00::fe dev v weight 1",
    "nexthop via fd00::fd dev v weight 1",
    "nexthop via fd01::fe dev w weight 2",
)

REPAIRS: tuple[tuple[str, ...], ...] = (
    ("route/q/default", "route del default"),
    ("route/q/default", "route replace default via 10.0.0.254"),
    ("route/q/default", "route replace default nexthop via 10.0.0.254 nexthop via 10.0.1.254 weight 2"),
    ("route/q/10.9.0.0/16@100#7", "route flush table 100"),
    ("route/q/::/0", "-6 route del default via fd00::fd dev v"),
    ("route/q/::/0", "-6 route append default via fd01::fd dev w metric 1024"),
    ("route/q/::/0", "-6 route replace default via fd00::fe dev v metric 1024"),
    ("link/q/w", "link set w down"),
    ("link/q/w", "link del w"),
)


async def right(node: Node) -> None:
    found = ip("route", ns="q")
    assert all(text in found for text in V4), found
    found = ip("-6", "route", ns="q")
    assert all(text in found for text in V6), found
    assert "nexthop via 192.0.2.1 dev v weight 1 onlink" in ip("route", "show", "table", "100", ns="q")
    await node.plans_nothing()


@privately
async def test_several_next_hops_are_made_known_again_and_repaired() -> None:
    async with running(ECMP) as node:
        for end in ("vh", "wh"):
            ip("link", "set", end, "up")
        await node.converged()
        await right(node)
        for resource, *breaking in REPAIRS:
            await repairs(node, resource, *breaking)
            ip("link", "set", "wh", "up")
            await node.converged()
            await right(node)
    async with running(ECMP) as node:
        assert node.journal.done() == [], "a restarted daemon knows them"


@privately
async def test_the_declaration_may_change_between_one_and_several() -> None:
    one = ECMP.replace("hops: [{via: 10.0.0.254}, {via: 10.0.1.254, dev: w, weight: 3}]", "via: 10.0.0.254")
    one = one.replace(
        'hops: [{via: "fd01::fe", dev: w, weight: 2}, {via: "fd00::fe"}, {via: "fd00::fd"}]', 'via: "fd00::fe"'
    )
    async with running(one) as node:
        assert "default via 10.0.0.254 dev v" in ip("route", ns="q")
        node.declare(ECMP)
        await node.converged()
        await right(node)
        node.declare(one)
        await node.converged()
        assert "nexthop" not in ip("route", ns="q")
        assert "nexthop" not in ip("-6", "route", ns="q")
        await node.plans_nothing()
        node.declare(ECMP)
        await node.converged()
        node.declare(ECMP.partition("    routes:")[0])
        await node.converged()
        assert "default" not in ip("route", ns="q") + ip("-6", "route", ns="q")


def test_each_device_of_a_default_route_with_several_is_protected() -> None:
    world = World(name=HOST)
    world.host.load({"links": [world.host.links[1], link(2, "eth0", kind=""), link(3, "eth1", kind="")]})
    ways = paths([Hop("192.0.2.1", 2, 1, onlink=False), Hop("198.51.100.1", 3, 1, onlink=False)])
    world.host.routes[254, "0.0.0.0/0", 0] = (foreign_route("0.0.0.0/0", 0)._replace(paths=ways, ifindex=0),)
    for name in ("eth0", "eth1"):
        plan = world.plan(resources(f"host: {{links: {{{name}: {{up: false}}}}}}"))
        assert "the default route leaves by it" in plan.findings[0].reason
    plan = world.plan(resources("host: {routes: [{to: default, via: 192.0.2.1, dev: eth0}]}"))
    assert "take the route to 0.0.0.0/0 from it, and the default route leaves by it (eth1)" in plan.findings[0].reason


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (
            "{to: default, via: [10.0.0.1, 10.0.0.2]}",
            "several next hops are written as hops: [{via: A}, {via: B, weight: 2}]",
        ),
        ("{to: default, hops: [{via: 10.0.0.1}]}", "hops has one next hop; write it as via and dev"),
        ("{to: default, via: 10.0.0.1, hops: [{via: 10.0.0.1}, {via: 10.0.0.2}]}", "hops stands instead of via"),
        ("{to: 10.0.0.0/8, type: blackhole, hops: [{dev: a}, {dev: b}]}", "for a unicast route only"),
        ("{to: default, hops: [{via: 10.0.0.1}, {via: 'fd00::1'}]}", "of another family than the route to 0.0.0.0/0"),
        ("{to: default, hops: [{via: 10.0.0.1}, {via: 10.0.0.1, weight: 2}]}", "the same next hop twice"),
        ("{to: default, hops: [{weight: 2}, {via: 10.0.0.1}]}", "a next hop needs one of them"),
        ("{to: default, hops: [{via: 10.0.0.1, weight: 0}, {via: 10.0.0.2}]}", "1"),
    ],
)
def test_what_cannot_be_a_route_with_several_next_hops_is_said(route: str, said: str) -> None:
    text = f"namespaces: {{q: {{routes: [{route}]}}}}"
    problems = read_file(text.encode(), "t.yaml", SECTIONS).problems
    assert any(said in str(problem) for problem in problems), [str(problem) for problem in problems]
