"""The switch driver against a real Open vSwitch: nothing others do is missed, nothing of ours is reported as theirs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from controllers.drivers.openflow.flows import (
    LOCAL,
    AddFlow,
    BundleError,
    DeleteFlow,
    DeleteGroup,
    DeleteMeter,
    Flow,
    FlowKey,
    SetGroup,
    SetMeter,
)
from controllers.drivers.openflow.switch import Switch
from reconciler.errors import DriverError, NotReady
from tests.controllers.drivers.openflow.support import MARK, Followed, following, output, some, to_ip
from tests.controllers.drivers.patience import running, until
from tests.ovs import PrivateOvs

NOWHERE = 0xFFFFFFF1
"""A port number that no port can have: Open vSwitch refuses to send there."""


@pytest.fixture
def br0(ovs_module: PrivateOvs) -> PrivateOvs:
    """A bridge br0 with no flow."""
    ovs_module.vsctl("--if-exists", "del-br", "br0")
    ovs_module.add_bridge("br0", "fail_mode=secure")
    return ovs_module


async def test_what_others_add_change_and_delete_is_reported_and_known(br0: PrivateOvs) -> None:
    async with following(br0, "br0") as followed:
        switch = followed.switch
        assert switch.flows == {}
        key = FlowKey(3, 7, to_ip(1))
        br0.ofctl("add-flow", "br0", "table=3,priority=7,cookie=5,ip,nw_dst=10.0.0.1,actions=output:1")
        await until(lambda: key in followed.reported())
        assert switch.flows == {key: Flow(output(1), cookie=5)}
        followed.events.clear()
        br0.ofctl("mod-flows", "br0", "table=3,ip,actions=output:2")  # the cookie stays as it is
        await until(lambda: key in followed.reported())
        assert switch.flows == {key: Flow(output(2), cookie=5)}
        followed.events.clear()
        br0.ofctl("del-flows", "br0", "table=3")
        await until(lambda: key in followed.reported())
        assert switch.flows == {}
        await followed.proven()


async def test_a_change_of_flags_alone_is_seen(br0: PrivateOvs) -> None:
    async with following(br0, "br0") as followed:
        key = FlowKey(3, 7, to_ip(1))
        await followed.switch.apply([AddFlow(key, Flow(output(1), cookie=5))])
        br0.ofctl("add-flow", "br0", "table=3,priority=7,cookie=5,ip,nw_dst=10.0.0.1,send_flow_rem,actions=output:1")
        await until(lambda: followed.switch.flows[key].flags == 1)
        assert key in followed.reported()


async def test_a_learned_flow_is_known_by_its_timeout(br0: PrivateOvs) -> None:
    async with following(br0, "br0") as followed:
        br0.ofctl("add-flow", "br0", "table=20,hard_timeout=300,priority=1,dl_vlan=5,actions=output:1")
        await until(lambda: followed.switch.flows)
        assert [flow.hard_timeout for flow in followed.switch.flows.values()] == [300]


async def test_our_own_changes_are_known_and_not_reported(br0: PrivateOvs) -> None:
    async with following(br0, "br0") as followed:
        switch, adds = followed.switch, some(50)
        await switch.apply_and_read_back(adds[:1])
        assert switch.flows == {adds[0].key: adds[0].flow}
        assert await switch.apply_and_read_back(adds) == {}
        assert switch.flows == {add.key: add.flow for add in adds}
        other = Flow(output(2), cookie=MARK + 9)
        await switch.apply([DeleteFlow(adds[0].key), AddFlow(adds[-1].key, other)])
        assert adds[0].key not in switch.flows
        assert switch.flows[adds[-1].key] == other
        await followed.settled()
        assert followed.events == []
        await followed.proven()


async def test_a_deletion_spares_a_flow_of_another_cookie(br0: PrivateOvs) -> None:
    async with following(br0, "br0") as followed:
        switch, add = followed.switch, some(2)[0]
        await switch.apply([add])
        await switch.apply_and_read_back([DeleteFlow(add.key, cookie=MARK + 77, cookie_mask=0xFFFFFFFFFFFFFFFF)])
        assert switch.flows == {add.key: add.flow}
        await switch.apply_and_read_back([DeleteFlow(add.key, cookie=MARK, cookie_mask=0xFFFFFFFF00000000)])
        assert switch.flows == {}
        await followed.proven()


@pytest.mark.parametrize("count", [1, 5, 300])
async def test_a_bundle_with_a_bad_flow_names_it_and_changes_nothing(br0: PrivateOvs, count: int) -> None:
    async with following(br0, "br0") as followed:
        switch, adds = followed.switch, some(count + 1)[:count]
        bad = count // 2
        adds[bad] = AddFlow(adds[bad].key, Flow(output(NOWHERE), cookie=MARK))
        with pytest.raises(BundleError, match="BAD_ACTION/BAD_OUT_PORT") as refused:
            await switch.apply_and_read_back(adds)
        assert refused.value.index == bad
        assert switch.flows == {}
        await followed.proven()
        assert switch.ready


async def test_a_bundle_refused_at_its_commit_names_the_flow_and_changes_nothing(br0: PrivateOvs) -> None:
    async with following(br0, "br0") as followed:
        adds = some(9)
        to_group = bytes.fromhex("0004001000000000") + bytes.fromhex("0016000800000063")  # group 99 does not exist
        adds[4] = AddFlow(adds[4].key, Flow(to_group, cookie=MARK))
        with pytest.raises(BundleError, match="BAD_ACTION/BAD_OUT_GROUP") as refused:
            await followed.switch.apply(adds)
        assert refused.value.index == 4
        assert followed.switch.flows == {}
        await followed.proven()


async def test_ten_thousand_deletions_at_once_leave_a_true_replica(br0: PrivateOvs) -> None:
    async with following(br0, "br0") as followed:
        switch, adds = followed.switch, some(10_000)
        await switch.apply_and_read_back(adds)
        assert switch.flows == {add.key: add.flow for add in adds}
        assert followed.events == []
        await asyncio.to_thread(br0.ofctl, "del-flows", "br0")
        await until(lambda: not switch.flows)
        assert followed.reported() == {add.key for add in adds} or (None, "flow monitor resumed") in followed.events
        await followed.proven()


async def test_changes_of_ours_and_theirs_that_cross_leave_a_true_replica(br0: PrivateOvs) -> None:
    async with following(br0, "br0") as followed:
        switch, adds = followed.switch, some(4000)
        stop = asyncio.Event()

        def breaker() -> None:
            for number in range(12):
                br0.ofctl("del-flows", "br0", f"table=5,ip,nw_dst=10.0.{number}.0/24")
                br0.ofctl("add-flow", "br0", f"table=5,priority=100,ip,nw_dst=10.0.0.{number},actions=output:9")

        async def dumper() -> None:
            while not stop.is_set():
                await switch.dump()
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(dumper(), name="dumper")
            broken = tasks.create_task(asyncio.to_thread(breaker), name="breaker")
            for add in adds[:2000]:
                await switch.apply_and_read_back([add])
            await switch.apply(adds)
            await broken
            stop.set()
        await followed.settled()
        await followed.proven()


async def test_nothing_is_missed_while_the_monitor_is_paused(br0: PrivateOvs) -> None:
    """Open vSwitch pauses the monitor when nobody reads, and then does not tell of flows that came and went."""
    async with following(br0, "br0") as followed:
        switch, ours = followed.switch, some(2)[0]
        channel = switch._channel
        assert channel is not None
        assert isinstance(channel._transport, asyncio.Transport)
        channel._transport.pause_reading()
        theirs = "".join(f"table=9,priority={number},actions=output:1\n" for number in range(1, 12_000))
        await asyncio.to_thread(br0.ofctl, "--bundle", "add-flows", "br0", "-", stdin=theirs)
        changing = asyncio.create_task(switch.apply([ours]))
        await asyncio.sleep(0.05)  # it has been carried out, and its answer waits to be read
        await asyncio.to_thread(br0.ofctl, "del-flows", "br0", "table=5")
        await asyncio.to_thread(br0.ofctl, "del-flows", "br0", "table=9,priority=5", "--strict")
        channel._transport.resume_reading()
        await changing
        await until(lambda: (None, "flow monitor resumed") in followed.events)
        await until(lambda: len(switch.flows) == 11_998)
        assert ours.key not in switch.flows
        assert ours.key in followed.reported()
        await followed.proven()


async def test_an_abandoned_change_leaves_a_true_replica(br0: PrivateOvs) -> None:
    async with following(br0, "br0") as followed:
        switch, adds = followed.switch, some(200)
        for rounds in range(8):
            changing = asyncio.create_task(switch.apply_and_read_back(adds))
            for _ in range(rounds):
                await asyncio.sleep(0)
            changing.cancel()
            await asyncio.gather(changing, return_exceptions=True)
        await followed.settled()
        await followed.proven()
        await switch.apply_and_read_back(adds)
        assert switch.flows == {add.key: add.flow for add in adds}


async def test_a_dump_corrects_a_wrong_replica_and_says_so(br0: PrivateOvs) -> None:
    async with following(br0, "br0") as followed:
        switch, adds = followed.switch, some(5)
        await switch.apply(adds)
        switch._replica.flows.pop(adds[0].key)
        assert await switch.dump() == {adds[0].key}
        assert await switch.dump() == frozenset()
        switch._replica.flows[adds[1].key] = Flow(b"")
        switch._replica.flows[FlowKey(9, 9, b"")] = Flow(b"")
        keys = [adds[0].key, adds[1].key, FlowKey(9, 9, b"")]
        assert await switch.read_back(keys) == {adds[1].key, FlowKey(9, 9, b"")}
        assert followed.events == []
        switch._replica.flows.pop(adds[2].key)
        assert await switch.read_back([adds[-1].key, *(FlowKey(9, number, b"") for number in range(99))]) == frozenset()
        assert followed.reported() == {adds[2].key}, "what else was found is reported"
        assert switch.flows == {add.key: add.flow for add in adds}


async def test_ports_are_known_by_name_and_renumbering_is_reported(br0: PrivateOvs) -> None:
    br0.vsctl("add-port", "br0", "p1", "--", "set", "interface", "p1", "type=internal", "ofport_request=7")
    async with following(br0, "br0") as followed:
        switch = followed.switch
        assert switch.ports == {"br0": LOCAL, "p1": 7}
        br0.vsctl("set", "interface", "p1", "ofport_request=9")
        await until(lambda: switch.ports.get("p1") == 9)
        assert frozenset({"p1"}) in followed.ports
        br0.vsctl(
            "del-port", "br0", "p1", "--", "add-port", "br0", "p2", "--", "set", "interface", "p2", "type=internal"
        )
        await until(lambda: switch.ports.keys() == {"br0", "p2"})
        assert {"p1", "p2"} <= frozenset().union(*followed.ports)


async def test_groups_and_meters_are_set_read_and_deleted(br0: PrivateOvs) -> None:
    async with following(br0, "br0") as followed:
        switch = followed.switch
        br0.ofctl("add-group", "br0", "group_id=1,type=all,bucket=actions=output:1")
        body = (await switch.groups())[1]
        await switch.apply([SetGroup(2, body)])
        await switch.apply([SetGroup(2, body, exists=True), SetGroup(3, body)])
        assert await switch.groups() == {1: body, 2: body, 3: body}
        br0.ofctl("add-flow", "br0", "actions=group:2")
        await until(lambda: switch.flows)
        await switch.apply([DeleteGroup(2)])
        await until(lambda: not switch.flows, what="the flows of a deleted group are gone with it")
        with pytest.raises(BundleError, match="GROUP_EXISTS"):
            await switch.apply([SetGroup(3, body)])
        br0.ofctl("add-meter", "br0", "meter=1,kbps,band=type=drop,rate=1000")
        body = (await switch.meters())[1]
        await switch.apply_meters([SetMeter(2, body), SetMeter(3, body)])
        assert await switch.meters() == {1: body, 2: body, 3: body}
        with pytest.raises(BundleError, match="METER_EXISTS") as refused:
            await switch.apply_meters([SetMeter(4, body), SetMeter(2, body)])
        assert refused.value.index == 1
        await switch.apply_meters([DeleteMeter(number) for number in (1, 2, 3, 4)])
        assert await switch.meters() == {}


# The connection


async def test_a_restarted_vswitchd_is_found_again_with_its_new_flows(ovs: PrivateOvs) -> None:
    ovs.add_bridge("br0", "fail_mode=secure")
    async with following(ovs, "br0") as followed:
        switch = followed.switch
        await switch.apply(some(20))
        await asyncio.to_thread(ovs.stop_vswitchd)
        await until(lambda: not switch.ready)
        assert (None, "switch connection lost") in followed.events
        assert switch.flows == {}
        assert switch.ports == {}
        with pytest.raises(NotReady, match="br0"):
            await switch.apply(some(2))
        await asyncio.to_thread(ovs.start_vswitchd)
        await until(lambda: switch.ready)
        assert followed.events[-1] == (None, "connected")
        assert switch.flows == {}
        await switch.apply_and_read_back(some(20))
        await followed.proven()


async def test_a_vswitchd_that_does_not_answer_is_told_and_left(ovs: PrivateOvs) -> None:
    ovs.add_bridge("br0", "fail_mode=secure")
    async with following(ovs, "br0", timeout=0.3, probe_after=0.2) as followed:
        switch = followed.switch
        with ovs.vswitchd.frozen():
            with pytest.raises(DriverError, match=r"did not answer within 0\.3 s"):
                await switch.apply(some(1))
            await until(lambda: not switch.ready)
            await until(lambda: "did not answer" in switch.problem)
        await until(lambda: switch.ready)
        await followed.proven()


async def test_a_silent_switch_is_probed_and_left_when_it_does_not_answer(ovs: PrivateOvs) -> None:
    ovs.add_bridge("br0", "fail_mode=secure")
    async with following(ovs, "br0", timeout=0.2, probe_after=0.1) as followed:
        await asyncio.sleep(0.5)
        assert followed.events == []
        assert asyncio.get_running_loop().time() - followed.switch.last_event < 0.3
        with ovs.vswitchd.frozen():
            await until(lambda: (None, "switch connection lost") in followed.events)
        await until(lambda: followed.switch.ready)


async def test_a_bridge_without_openflow14_is_told_so(br0: PrivateOvs) -> None:
    br0.vsctl("set", "bridge", "br0", "protocols=OpenFlow13")
    followed = Followed(br0, "br0")
    async with running(followed.switch):
        await until(lambda: "protocols lack OpenFlow14" in followed.switch.problem)
        assert followed.events == []
        br0.vsctl("set", "bridge", "br0", "protocols=OpenFlow13,OpenFlow14")
        followed.switch.poke()
        await until(lambda: followed.switch.ready)


async def test_a_missing_bridge_is_told_and_found_at_once_when_poked(ovs_module: PrivateOvs) -> None:
    ovs_module.vsctl("--if-exists", "del-br", "later")
    followed = Followed(ovs_module, "later")
    async with running(followed.switch):
        await asyncio.sleep(0.7)  # by now it tries every half second or less
        assert "No such file" in followed.switch.problem
        ovs_module.add_bridge("later")
        followed.switch.poke()
        begun = time.monotonic()
        await until(lambda: followed.switch.ready)
        assert time.monotonic() - begun < 0.3


async def test_a_switch_can_be_stopped_at_any_time(tmp_path: Path) -> None:
    followed = Switch("none", tmp_path, on_change=lambda _keys, _why: None)
    task = asyncio.create_task(followed.run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
