"""The flow compiler: every text gets its own meaning or its own fault, and no text can be anything but a flow."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.drivers.openflow import ofctl
from controllers.drivers.openflow.compiler import Compiled, CompileFault, FlowCompiler
from controllers.drivers.openflow.flows import LOCAL, Flow, FlowKey
from controllers.drivers.openflow.ofctl import words
from reconciler.errors import DriverError
from tests.controllers.drivers.openflow.support import output, to_ip

PORTS = {"p1": 1, "patch-tun": 2, "br0": LOCAL}


async def compiled(*texts: str, awaited: tuple[str, ...] = ()) -> list[Compiled | CompileFault]:
    results = await FlowCompiler().compile(texts, PORTS, awaited)
    return [results[text] for text in texts]


async def test_ports_are_resolved_by_name() -> None:
    by_name, by_number, quoted, local = await compiled(
        "table=3,in_port=p1,actions=output:patch-tun", "table=3,in_port=1,actions=output:2",
        'table=3,in_port="p1",actions="patch-tun"', "table=3,in_port=br0,actions=drop",
    )  # fmt: skip
    assert by_name == by_number == quoted
    assert isinstance(local, Compiled)
    assert local.key == FlowKey(3, 32768, bytes.fromhex("80000004fffffffe"))


async def test_all_that_is_not_an_action_is_kept() -> None:
    text = "table=9,priority=7,idle_timeout=5,hard_timeout=6,importance=8,send_flow_rem,ip,nw_dst=10.0.0.1,actions=1"
    (got,) = await compiled(text)
    assert got == Compiled(FlowKey(9, 7, to_ip(1)), output(1), 5, 6, flags=1, importance=8)
    assert isinstance(got, Compiled)
    assert got.flow(99) == Flow(output(1), 99, 5, 6, 1, 8)


async def test_every_wrong_text_is_told_in_the_words_of_ovs_ofctl_and_the_others_compile() -> None:
    texts = [f"priority={number},actions=output:{number}" for number in range(1, 200)]
    wrong = {"actions=bogus": "unknown action bogus", "table=300,actions=drop": 'unknown table "300"',
             "priority=70000,actions=drop": 'invalid priority "70000"', "ip": "must specify an action",
             "ip,nw_src=1.2.3.4/33,actions=drop": "prefix bits not between 0 and 32"}  # fmt: skip
    for at, text in enumerate(wrong):
        texts.insert(at * 30, text)
    results = await FlowCompiler().compile(texts, PORTS)
    assert list(results) != [] and results.keys() == set(texts)
    for text, result in results.items():
        if text in wrong:
            assert isinstance(result, CompileFault)
            assert wrong[text] in result.message
            assert "ovs-ofctl" not in result.message
        else:
            assert isinstance(result, Compiled)
            number = int(text.partition("=")[2].partition(",")[0])
            assert (result.key.priority, result.instructions) == (number, output(number))


async def test_flows_of_other_openflow_versions_are_told_and_do_not_stop_the_others() -> None:
    texts = [f"priority={number},actions=drop" for number in range(60)]
    texts[7] = texts[8] = "priority=7,actions=strip_vlan,output:1"
    texts[40] = "actions=fin_timeout(idle_timeout=10)"
    results = await FlowCompiler().compile(texts, PORTS)
    faults = {text: result for text, result in results.items() if isinstance(result, CompileFault)}
    assert faults.keys() == {texts[7], texts[40]}
    assert all("only OpenFlow10, NXM could" in fault.message for fault in faults.values())


async def test_a_missing_port_is_named_wherever_it_stands() -> None:
    right = "in_port=p1,actions=output:patch-tun"
    texts = ("in_port=tap1,actions=drop", "actions=output:tap1", "actions=resubmit(tap2,5)", "actions=enqueue:tap1:3",
             "actions=output(port=tap1,max_len=64)", "in_port=tap1,actions=output:tap2", right)  # fmt: skip
    *missing, good = await compiled(*texts)
    assert isinstance(good, Compiled)
    assert [fault.ports for fault in missing if isinstance(fault, CompileFault)] == [
        {"tap1"}, {"tap1"}, {"tap2"}, {"tap1"}, {"tap1"}, {"tap1", "tap2"}
    ]  # fmt: skip


async def test_an_awaited_port_is_missing_and_not_a_wrong_action() -> None:
    unknown, named = (await compiled("actions=tap1"))[0], (await compiled("actions=tap1", awaited=("tap1", "p1")))[0]
    assert unknown == CompileFault("unknown action tap1")
    assert named == CompileFault("the bridge has no port tap1", frozenset({"tap1"}))


async def test_thousands_of_flows_that_miss_one_port_take_no_longer_than_a_few_runs() -> None:
    texts = [f"priority={number},actions=output:later" for number in range(3000)]
    begun = time.monotonic()
    results = await FlowCompiler().compile(texts, PORTS)
    assert time.monotonic() - begun < 3
    assert all(
        result == CompileFault("the bridge has no port later", frozenset({"later"})) for result in results.values()
    )


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "#", "actions=drop # comment", "ip,actions=drop\nactions=normal", "ip\r,actions=drop",
        "ip,\0actions=drop",
        "delete", "delete table=0", "delete_strict ip", "modify ip,actions=drop", "add ip,actions=drop", "-", "--help",
        "-O OpenFlow10 actions=drop", "cookie=7,actions=drop", "ip,cookie=0x7,actions=drop", "cookie=1/1,actions=drop",
        "$(touch /tmp/x)", "; true", "a\ud800b,actions=drop",
    ],
)  # fmt: skip
async def test_no_text_is_more_or_less_than_one_added_flow(text: str) -> None:
    before, fault, after = await compiled("table=1,actions=drop", text, "table=2,actions=drop")
    assert isinstance(fault, CompileFault)
    assert fault.message
    assert isinstance(before, Compiled)
    assert isinstance(after, Compiled)
    assert (before.key.table, after.key.table) == (1, 2)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(max_codepoint=0x7F), max_size=30), max_size=5))
def test_any_text_gets_a_result_and_leaves_its_neighbours_alone(texts: list[str]) -> None:
    good = "table=200,actions=output:1"

    async def all_of_them() -> dict[str, Compiled | CompileFault]:
        return await FlowCompiler().compile([*texts, good], PORTS)

    results = asyncio.run(all_of_them())
    assert results.keys() == {*texts, good}
    assert results[good] == Compiled(FlowKey(200, 32768, b""), output(1))


async def test_groups_are_compiled_without_their_id() -> None:
    texts = {
        "type=all,bucket=actions=output:p1": b"\0" + bytes.fromhex("00200000ffffffffffffffff00000000") + output(1)[8:],
        "group_id=5,type=all": CompileFault("'group_id' is given beside the group and cannot be in it"),
        "type=all,bucket=actions=output:tap1": CompileFault("the bridge has no port tap1", frozenset({"tap1"})),
        "type=ff,bucket=watch_port:tap1,actions=1": CompileFault("the bridge has no port tap1", frozenset({"tap1"})),
        "bogus": CompileFault("unknown keyword bogus"),
    }
    results = await FlowCompiler().compile_groups(texts, PORTS)
    assert results == texts


async def test_a_group_that_openflow14_would_cut_short_is_a_fault() -> None:
    text = "type=select,selection_method=hash,fields(ip_dst),bucket=actions=output:1"
    (result,) = (await FlowCompiler().compile_groups([text], PORTS)).values()
    assert isinstance(result, CompileFault)
    assert "OpenFlow 1.5" in result.message


async def test_meters_are_compiled_without_their_id() -> None:
    texts = {
        "kbps,band=type=drop,rate=1000": b"\0\1" + bytes.fromhex("00010010000003e80000000000000000"),
        "meter=7,kbps,band=type=drop,rate=1": CompileFault("'meter' is given beside the meter and cannot be in it"),
        "kbps,band=type=drop": CompileFault("band must have 'rate'"),
        "--help": CompileFault("must specify bands"),
        "": CompileFault("it is empty"),
    }
    assert await FlowCompiler().compile_meters(texts) == texts


def test_words_hold_every_name_a_text_may_refer_to() -> None:
    text = 'in_port="tap0.1",actions=resubmit(qr-1@if3,5),output:patch-tun,learn(table=1,load:a->b[])'
    assert {"tap0.1", "qr-1@if3", "patch-tun", "a", "b"} <= words(text)


async def test_more_ports_than_one_message_holds_are_resolved() -> None:
    ports = {f"tap{number}": number for number in range(1, 2500)}
    text = "in_port=tap2,actions=output:tap2499"
    results = await FlowCompiler().compile([text], ports)
    got = results[text]
    assert isinstance(got, Compiled)
    assert got.instructions == output(2499)


def program(directory: Path, body: str) -> None:
    path = directory / "ovs-ofctl"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


async def test_an_ovs_ofctl_that_hangs_is_killed_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    monkeypatch.setitem(ofctl._ENVIRONMENT, "PATH", f"{tmp_path}:{ofctl._ENVIRONMENT['PATH']}")
    with pytest.raises(DriverError, match=r"ovs-ofctl did not end within 0\.3 s"):
        await FlowCompiler(timeout=0.3).compile(["actions=drop"], PORTS)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


async def test_a_missing_ovs_ofctl_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ofctl._ENVIRONMENT, "PATH", str(tmp_path))
    with pytest.raises(DriverError, match="not installed"):
        await FlowCompiler().compile(["actions=drop"], PORTS)


async def test_an_ovs_ofctl_that_fails_otherwise_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "echo 'out of order' >&2; exit 3")
    monkeypatch.setitem(ofctl._ENVIRONMENT, "PATH", f"{tmp_path}:{ofctl._ENVIRONMENT['PATH']}")
    with pytest.raises(DriverError, match=r"status 3.*out of order"):
        await FlowCompiler().compile(["actions=drop"], PORTS)


async def test_one_that_was_started_ahead_reads_what_a_fresh_one_reads() -> None:
    texts, seen, compiler = ["in_port=p1,actions=output:p2", "in_port=p2,actions=drop"], [], FlowCompiler()
    async with compiler.ready():
        for ports in (
            {"p1": 1, "p2": 2},
            {"p1": 1, "p2": 2, "p3": 3},
            {"p1": 7, "p2": 2},
            {"p2": 2},
            {"p1": 1, "p2": 2},
        ):
            found = await compiler.compile(texts, ports, {"p1"})
            await asyncio.sleep(0.1)  # the next one is started
            fresh = await FlowCompiler().compile(texts, ports, {"p1"})
            assert found == fresh, ports
            seen.append(found[texts[0]])
    assert isinstance(seen[3], CompileFault)
    assert seen[0] == seen[4] != seen[2]


async def test_one_that_was_started_ahead_and_has_died_is_missed_by_nobody() -> None:
    text, compiler = "in_port=p1,actions=drop", FlowCompiler()
    async with compiler.ready():
        first = await compiler.compile([text], {"p1": 1})
        await asyncio.sleep(0.1)
        (child,) = waiting_programs()
        os.kill(child, signal.SIGKILL)
        assert await compiler.compile([text], {"p1": 1}) == first


def waiting_programs() -> list[int]:
    """The ovs-ofctl that this process has started and that have not ended."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(child) for child in children if Path(f"/proc/{child}/comm").read_text() == "ovs-ofctl\n"]


async def test_nothing_is_left_on_the_disk_whenever_the_daemon_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    compiler = FlowCompiler()
    async with compiler.ready():
        results = await compiler.compile(["in_port=p1,actions=output:patch-tun"], PORTS)
        assert all(isinstance(each, Compiled) for each in results.values())
        assert list(tmp_path.iterdir()) == []
