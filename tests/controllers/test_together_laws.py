"""The law of the whole node: whatever was broken, in whatever order, once it is quiet all is as declared again."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desired.resource import Resource
from reconciler.contract import Outcome
from tests.controllers.fakes.node import (
    Life,
    bridge,
    bridges_of,
    flow,
    flows_of,
    key,
    life,
    patches,
    port,
    ports_of,
    rival_bridge,
    rival_delete_bridge,
    rival_delete_port,
    rival_port,
    rival_set,
    theirs,
)
from tests.controllers.fakes.ovs import Ovs
from tests.reconciler.fakes import virtually

pytestmark = pytest.mark.looptime

NODE: list[Resource] = [
    bridge("br0"),
    bridge("br1", fail_mode="standalone"),
    bridge("br2", flows="shared", fail_mode="standalone"),
    port("p0", "br0", tag=1),
    port("p1", "br0", ofport_request=11),
    port("p2", "br2"),
    *patches("a", "br0", "b", "br1"),
    *patches("c", "br1", "d", "br2"),
    flow("br0", "priority=1,in_port=p0,actions=output:p1"),
    flow("br0", "priority=1,x=1,actions=output:a"),
    flow("br1", "priority=1,in_port=b,actions=output:c"),
    flow("br1", "priority=2,x=1,actions=drop"),
    flow("br2", "priority=1,in_port=d,actions=output:p2"),
]
LESS = [r for r in NODE if r.id.name not in {"p0", "p2"} and "p2" not in r.id.name]
MORE = [*NODE, port("p3", "br1"), flow("br1", "priority=5,in_port=p3,actions=drop"), flow("br0", "actions=invalid")]
PORTS = ("p0", "p1", "p2", "a", "b", "c", "d", "tap")
BRIDGES = ("br0", "br1", "br2")
LOOSE = {"budget": {"minimum": 1000, "share": 1.0}}

HIT = st.tuples(
    st.sampled_from(
        ["port", "bridge", "tag", "peer", "flow", "all flows", "foreign flow", "actions", "tap", "vswitchd", "ovsdb",
         "less", "more", "usual", "resync"]
    ),
    st.sampled_from(PORTS), st.sampled_from(BRIDGES), st.sampled_from([0.0, 0.0003, 0.0007, 0.01, 0.2]),
)  # fmt: skip


def contents(ovs: Ovs) -> dict[str, object]:
    """All that matters, without numbers and without what others plugged."""
    found: dict[str, object] = {}
    for name, row in bridges_of(ovs).items():
        numbers = {number: port_name for port_name, number in ovs.bridges[name].ports.items()}
        ports = {
            port_name: (r["tag"], r["type"], r["options"], r["external_ids"])
            for port_name, r in ports_of(ovs, name).items()
            if port_name != "tap"
        }
        flows = {
            (k.table, k.priority, _named(k.match, numbers), _named(f.instructions, numbers))
            for k, f in flows_of(ovs, name).items()
            if f.cookie >> 32
        }
        found[name] = (row["fail_mode"], row["external_ids"], ports, flows)
    return found


def _named(text: bytes, numbers: dict[int, str]) -> str:
    """Port numbers as names: which number a port has is the switch's own affair."""
    for head in (b"in_port=", b"output:"):
        if text.startswith(head):
            return (head + numbers[int(text.removeprefix(head))].encode()).decode()
    return text.decode()


async def hit(ovs: Ovs, one: Life, what: str, name: str, on: str) -> None:
    """One deed of a rival, of the machine, or of the operator."""
    there = ovs.database.find("Port", name) is not None
    live = ovs.bridges.get(on)
    match what:
        case "port" if there:
            rival_delete_port(ovs, name)
        case "tag" if there:
            rival_set(ovs, "Port", name, tag=99)
        case "peer" if there:
            rival_set(ovs, "Interface", name, options={"peer": "nobody"})
        case "bridge" if on in bridges_of(ovs):
            rival_delete_bridge(ovs, on)
        case "tap" if on in bridges_of(ovs) and ovs.database.find("Port", "tap") is None:
            rival_port(ovs, on, "tap")
        case "flow" if live is not None and live.flows:
            ovs.rival_flow(on, next(iter(live.flows)), None)
        case "all flows" if live is not None:
            for k in list(live.flows):
                ovs.rival_flow(on, k, None)
        case "foreign flow" if live is not None:
            ovs.rival_flow(on, key("priority=77"), theirs("normal"))
        case "actions" if live is not None and live.flows:
            k, f = next(iter(live.flows.items()))
            ovs.rival_flow(on, k, f._replace(instructions=b"x"))
        case "vswitchd":
            ovs.stop_vswitchd()
            await asyncio.sleep(0.001)
            ovs.start_vswitchd()
        case "ovsdb" if one.driver.ready:
            one.driver.disconnect("gone")
            await asyncio.sleep(0.001)
            one.driver.connect()
        case "less" | "more" | "usual":
            one.desire({"less": LESS, "more": MORE, "usual": NODE}[what])
        case "resync":
            one.engine.look(one.engine.scopes(), "resync", prove=True)


@given(hits=st.lists(HIT, max_size=14))
@settings(max_examples=60, deadline=None)
def test_whatever_was_broken_all_is_as_declared_when_it_is_quiet(
    hits: list[tuple[str, str, str, float]],
) -> None:
    async def main() -> None:
        straight, ovs = Ovs(), Ovs()
        async with life(straight, NODE, **LOOSE):
            await asyncio.sleep(5.0)
            expected = contents(straight)
        async with life(ovs, NODE, **LOOSE) as one:
            for what, name, on, pause in hits:
                await hit(ovs, one, what, name, on)
                await asyncio.sleep(pause)
            one.desire(NODE)
            await asyncio.sleep(5.0)
            assert contents(ovs) == expected
            assert one.engine.statuses.not_right() == []
            assert one.engine.converged()
            writes = ovs.writes
            one.engine.look(one.engine.scopes(), "asked", prove=True)
            await asyncio.sleep(1.0)
            assert ovs.writes == writes

    virtually(main)


async def test_a_storm_of_breaks_costs_few_passes() -> None:
    ovs = Ovs()
    many = [flow("br0", f"priority=5,x={n},actions=drop") for n in range(1000)]
    ports = [port(f"q{n}", "br0") for n in range(50)]
    async with life(ovs, [bridge("br0"), *ports, *many]) as one:
        before, passes = flows_of(ovs, "br0"), one.engine._pass_id
        for number, k in enumerate(before):
            ovs.rival_flow("br0", k, None)
            if number % 4 == 0:
                name = f"q{number // 4 % 50}"
                if ovs.database.find("Port", name) is not None:
                    rival_delete_port(ovs, name)
            await asyncio.sleep(0.001)
        await asyncio.sleep(1.0)
        assert flows_of(ovs, "br0") == before
        assert one.engine.converged()
        assert one.engine._pass_id - passes < 60


async def test_a_bridge_that_another_made_meanwhile_is_not_taken() -> None:
    ovs = Ovs()
    async with life(ovs, NODE) as one:
        rival_delete_bridge(ovs, "br0")
        ovs.apply()
        rival_bridge(ovs, "br0", fail_mode="standalone")
        await asyncio.sleep(1.0)
        assert one.status("bridge/br0") is Outcome.CONFLICT
        assert bridges_of(ovs)["br0"]["external_ids"] == {}
        assert all(not f.cookie for f in flows_of(ovs, "br0").values())
