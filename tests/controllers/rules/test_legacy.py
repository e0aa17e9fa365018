"""iptables-legacy: the same rules, held by polling; and what either variant says of the other's rules."""

from __future__ import annotations

import fcntl
from pathlib import Path

from controllers.drivers.iptables.rules import Variant
from reconciler.errors import TransientError
from tests.controllers.rules.support import Bench, inside, ns, sh

ROUTER = """
rules:
  q1:
    floating_ips: {203.0.113.5: 10.0.0.5}
    snat: [{source: 10.0.0.0/24, out: qg-1, to: 203.0.113.1}]
    raw: {nat: {PREROUTING: [{rule: "-d 2001:db8::5 -j DNAT --to-destination fd00::5", family: ipv6}]}}
"""


def saved(tool: str = "iptables") -> list[str]:
    return [line for line in ns("q1", f"{tool}-legacy-save -t nat").splitlines() if line.startswith("-A")]


@inside
async def test_rules_are_held_and_what_others_do_is_found_by_the_poll():
    sh("ip netns add q1")
    async with Bench(Variant.LEGACY) as bench:
        bench.declare(ROUTER)
        await bench.converge("q1")
        ns("q1", "iptables-legacy -t nat -A PREROUTING -s 9.9.9.9 -j ACCEPT")
        before, six = saved(), saved("ip6tables")
        assert before[0].startswith("-A PREROUTING -m comment --comment"), before
        assert "--to-destination fd00::5" in six[1]
        for command in ("-D reconciler-PREROUTING 1", "-D PREROUTING 1", "-I PREROUTING -j ACCEPT"):
            await bench.forget()
            ns("q1", f"iptables-legacy -t nat {command}")
            event = await bench.event("q1", within=10)
            assert event.focus is None
            result = await bench.run("q1")
            assert len(result.done) == 1
            assert [line for line in saved() if line != "-A PREROUTING -j ACCEPT"] == before
        await bench.forget()
        ns("q1", "iptables-legacy -t nat -F")
        await bench.event("q1", within=10)
        await bench.converge("q1")
        assert saved() == [line for line in before if "9.9.9.9" not in line]
    async with Bench(Variant.LEGACY) as fresh:
        fresh.declare(ROUTER)
        assert not (await fresh.converge("q1")).done


@inside
async def test_a_lock_held_by_another_is_waited_for_and_then_named():
    sh("ip netns add q1")
    async with Bench(Variant.LEGACY) as bench:
        bench.declare(ROUTER)
        await bench.controller.observe(bench.view("q1"), None)
        assert bench.controller.tables._tools is not None
        bench.controller.tables._tools.lock_wait = 1
        with Path("/run/xtables.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            result = await bench.run("q1")
        assert result.failed
        assert all(isinstance(failure.error, TransientError) for failure in result.failed)
        assert all("xtables lock" in str(failure.error) for failure in result.failed)
        await bench.converge("q1")


@inside
async def test_rules_of_the_other_variant_are_named_and_left_alone():
    sh("ip netns add q1")
    ns("q1", "iptables-legacy -t nat -A OUTPUT -s 9.9.9.9 -j ACCEPT")
    ns("q1", "iptables-nft -t mangle -A OUTPUT -s 9.9.9.9 -j ACCEPT")
    for variant, other in ((Variant.NFT, "ip nat"), (Variant.LEGACY, "ip mangle")):
        async with Bench(variant) as bench:
            bench.declare(ROUTER)
            await bench.converge("q1")
            assert other in bench.controller.other_variant()["q1"]
    assert "-A OUTPUT -s 9.9.9.9/32 -j ACCEPT" in saved()
    assert "9.9.9.9" in ns("q1", "iptables-nft-save -t mangle")
