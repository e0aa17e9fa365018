"""`reconcile fleet` as a user runs it, against a real Mosquitto and nodes that speak as ``MQTT.md`` says."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
import time
from pathlib import Path

import pytest

from reconciler.contract import Outcome
from reconciler.doors.fleet_view import Fleet, exit_code, fleet_lines
from reconciler.report import ExitCode
from tests.mosquitto import PATIENCE

RECONCILE = str(Path(sys.executable).with_name("reconcile"))
NOW = 1_790_000_000.0


def speech(node, outcome="converged", code=0, **more):
    """A status written by hand from the documentation."""
    return json.dumps(
        {
            "format": 1, "node": node, "online": True, "time": time.time(), "every": 10.0, "outcome": outcome,
            "exit_code": code, "revision": "a1988b1fb54c", "last_converged": time.time() - 3, "version": "0.1.0",
            "resources": {"bridge": 2, "flow": 30}, "wrong": {}, "an unknown key": {"of": "a later version"}, **more,
        }
    ).encode()  # fmt: skip


LOST = json.dumps({"node": "net3", "online": False, "detail": "its connection broke off"}).encode()
PENDING = {
    "wrong": {"pending": 2},
    "not_right": [
        {"resource": "port/tap9", "outcome": "pending", "reason": "not plugged yet", "since": NOW, "gate": ""}
    ],
}


async def say(mosquitto, **statuses):
    async with mosquitto.client() as client:
        for node, payload in statuses.items():
            await client.publish(f"reconciler/nodes/{node}/status", payload, qos=1, retain=True)


def environment(mosquitto, user="reader", **more):
    settings = mosquitto.settings(user)
    return {
        **os.environ, "RECONCILER_MQTT__URL": settings.url, "RECONCILER_MQTT__PASSWORD": settings.password,
        "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **more,
    }  # fmt: skip


async def fleet(mosquitto, *args, **env):
    """Run it to its end: (code, stdout, stderr)."""
    process = await asyncio.create_subprocess_exec(
        RECONCILE, "fleet", *args, env=environment(mosquitto, **env),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def live(mosquitto, *args, **env):
    """Run it beside the test; the lines of its output."""
    process = await asyncio.create_subprocess_exec(
        RECONCILE, "fleet", *args, env=environment(mosquitto, **env),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line_with(process, *words):
    """Read on until a line has all these words."""
    async with asyncio.timeout(PATIENCE):
        while line := (await process.stdout.readline()).decode():
            if all(word in line for word in words):
                return line
    raise AssertionError(f"it ended without a line with {words}")


async def test_one_picture_is_a_table_with_the_worst_first_and_its_code(mosquitto):
    await say(mosquitto, net1=speech("net1"), net2=speech("net2", "pending", 3, **PENDING), net3=LOST)
    code, out, err = await fleet(mosquitto, "--once")
    assert (code, err) == (5, "")
    lines = out.splitlines()
    assert lines[0].startswith("fleet: 3 nodes: ")
    assert lines[1].split()[:4] == ["NODE", "STATE", "WRONG", "DECLARED"]
    assert [line.split()[:2] for line in lines[2:]] == [["net3", "offline"], ["net2", "pending"], ["net1", "converged"]]
    assert "its connection broke off" in lines[2]
    assert "port/tap9: not plugged yet" in lines[3]
    assert "\x1b" not in out
    assert (await fleet(mosquitto, "--once", "net1"))[0] == 0
    code, out, _ = await fleet(mosquitto, "--once", "--output", "json", "net1", "net2")
    assert code == 3
    rows = json.loads(out)
    assert [(row["node"], row["state"], row["exit_code"]) for row in rows] == [
        ("net2", "pending", 3),
        ("net1", "converged", 0),
    ]
    assert rows[1]["report"]["resources"] == {"bridge": 2, "flow": 30}
    assert 0 <= rows[1]["age"] < PATIENCE
    code, out, _ = await fleet(mosquitto, "--once", "net1", "net9")
    assert code == 5
    assert "net9" in out
    assert "unknown" in out


async def test_a_node_that_has_not_spoken_for_long_is_stale(mosquitto):
    await say(mosquitto, net1=speech("net1", time=time.time() - 3600))
    code, out, _ = await fleet(mosquitto, "--once")
    assert code == 5
    assert "stale" in out
    assert "it speaks every 10.0 s, and has not for 1 h" in out or "60 min" in out


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xfe", b"[" * 5000, b"{}", b"null", b"x" * 100_000, b'{"node": "net1", "online": true}',
        speech("net2"), speech("net1", exit_code=77), speech("net1", time=1e999), speech("net1", outcome="splendid"),
        speech("net1", resources=[1]), speech("net1", exit_code=10**400),
        speech("net1", format=2),
    ],
    ids=range(13),
)  # fmt: skip
async def test_garbage_is_a_row_that_says_so(mosquitto, payload):
    await say(mosquitto, net1=payload, good=speech("good"))
    code, out, err = await fleet(mosquitto, "--once", "--output", "json")
    rows = json.loads(out)
    assert (code, err) == (5, "")
    assert [(row["node"], row["state"]) for row in rows] == [("net1", "unreadable"), ("good", "converged")]


async def test_what_a_node_says_cannot_steer_the_terminal(mosquitto):
    evil = "\x1b[2J\x1b]0;owned\x07\nfleet: all is well"
    payload = speech("net1", "failed", 1, version=evil, revision=evil, notices=[evil], wrong={"failed": 1})
    await say(mosquitto, **{"net1": payload, "bad\u202eone": b"?"})
    code, out, _ = await fleet(mosquitto, "--once")
    assert code == 5
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\u202e" not in out
    assert len(out.splitlines()) == 4


async def test_a_broker_nobody_speaks_to_is_no_well_being(mosquitto):
    code, out, _ = await fleet(mosquitto, "--once", RECONCILER_MQTT__PREFIX="other/cluster")
    assert code == 5
    assert "no node has ever spoken under other/cluster/nodes" in out


async def test_a_broker_that_is_not_there_or_refuses_is_5_and_named(mosquitto):
    code, _, err = await fleet(mosquitto, "--once", RECONCILER_MQTT__PASSWORD="s3cret-but-wrong")
    assert code == 5
    assert "refuses user 'reader' with this password: wrong credentials" in err
    assert "s3cret" not in err
    with mosquitto.frozen():
        code, _, err = await fleet(mosquitto, "--once", "--timeout", "1")
        assert (code, "does not answer" in err) == (5, True)
    mosquitto.kill()
    for args in ((), ("--once",)):
        code, _, err = await fleet(mosquitto, *args)
        assert code == 5
        assert f"the MQTT broker mqtt://reader@127.0.0.1:{mosquitto.plain} does not answer" in err
        assert "Connection refused" in err


async def test_without_a_broker_in_the_settings_it_says_what_to_set(mosquitto):
    code, _, err = await fleet(mosquitto, RECONCILER_MQTT__URL="")
    assert code == 1
    assert "set mqtt.url" in err


@pytest.mark.parametrize("args", [("--only", "port"), ("--forget",), ("--timeout", "soon")])
async def test_wrong_usage_is_64(mosquitto, args):
    assert (await fleet(mosquitto, *args))[0] == 64


async def test_piped_it_is_a_table_and_then_a_line_for_each_change(mosquitto):
    await say(mosquitto, net1=speech("net1"), net2=speech("net2"))
    async with live(mosquitto) as process:
        await line_with(process, "fleet: 2 nodes: 2 converged")
        await line_with(process, "net2", "converged")
        await say(mosquitto, net2=speech("net2"))  # nothing new: no line
        await say(mosquitto, net2=speech("net2", "pending", 3, **PENDING))
        assert "port/tap9: not plugged yet" in await line_with(process, "net2")
        await say(mosquitto, net3=LOST)
        await line_with(process, "net3", "offline")
        mosquitto.kill()
        await line_with(process, "broke off")
        mosquitto.start()
        await line_with(process, "answers again")
        await say(mosquitto, net1=speech("net1", "failed", 1))
        await line_with(process, "net1", "failed")
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 130


async def test_json_lines_are_one_node_each(mosquitto):
    await say(mosquitto, net1=speech("net1"))
    async with live(mosquitto, "--output", "json") as process:
        assert json.loads(await line_with(process, "net1"))["state"] == "converged"
        await say(mosquitto, net1=speech("net1", "conflict", 4))
        row = json.loads(await line_with(process, "net1"))
        assert (row["state"], row["exit_code"]) == ("conflict", 4)


async def test_on_a_terminal_the_table_stays_and_is_drawn_anew(mosquitto):
    await say(mosquitto, net1=speech("net1"), net2=speech("net2"))
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    drawn = ""
    process = await asyncio.create_subprocess_exec(
        RECONCILE, "fleet", env=environment(mosquitto, TERM="xterm", COLUMNS="150", LINES="30"),
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip

    async def until(*words):
        nonlocal drawn
        drawn = ""
        async with asyncio.timeout(PATIENCE):
            while not all(word in drawn for word in words):
                with contextlib.suppress(BlockingIOError):
                    drawn += os.read(ours, 65536).decode()
                await asyncio.sleep(0.02)

    try:
        await until("fleet: 2 nodes: 2 converged", "net1", "net2")
        await say(mosquitto, net2=speech("net2", "pending", 3, **PENDING))
        await until("1 pending, 1 converged", "port/tap9: not plugged yet")
        assert "\x1b[1A" in drawn or "\x1b[2K" in drawn, "it is drawn over what was there"
        process.send_signal(signal.SIGINT)
        await until("\x1b[?25h")
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 130
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
        os.close(theirs)


async def test_nodes_are_asked_to_look_again(mosquitto):
    await say(mosquitto, net1=speech("net1"))
    asked = []

    async def listen(client):
        async for message in client.messages:
            asked.append((str(message.topic), message.payload.decode()))

    async with mosquitto.client() as client:
        await client.subscribe("reconciler/#", qos=1)
        task = asyncio.create_task(listen(client))
        try:
            code, _, err = await fleet(mosquitto, "--once", "--look")
            assert (code, "asked all nodes to look again" in err) == (0, True)
            code, _, err = await fleet(mosquitto, "--once", "--look", "--only", "port/tap0", "net1")
            assert (code, "asked net1 to look again at port/tap0" in err) == (0, True)
        finally:
            task.cancel()
            await asyncio.wait({task})
    assert ("reconciler/look", "") in asked
    assert ("reconciler/nodes/net1/look", "port/tap0") in asked


async def test_a_node_that_is_gone_for_good_is_forgotten(mosquitto):
    await say(mosquitto, net1=speech("net1"), net3=LOST)
    assert (await fleet(mosquitto, "--once"))[0] == 5
    code, out, _ = await fleet(mosquitto, "--forget", "net3")
    assert (code, "net3 is forgotten" in out) == (0, True)
    code, out, _ = await fleet(mosquitto, "--once")
    assert (code, "net3" in out) == (0, False)


async def test_thousands_of_nodes_are_all_seen(mosquitto):
    names = [f"node{number:04}" for number in range(3000)]
    async with mosquitto.client() as client:
        for name in names:
            await client.publish(f"reconciler/nodes/{name}/status", speech(name), qos=0, retain=True)
        await client.publish("reconciler/done", qos=1)
    code, out, _ = await fleet(mosquitto, "--once", "--output", "json")
    assert code == 0
    assert [row["node"] for row in json.loads(out)] == names


def test_a_node_that_died_keeps_what_it_was_like():
    fleet = Fleet()
    fleet.take("net3", speech("net3"), retained=True, now=1.0)
    fleet.take("net3", LOST, retained=False, now=5.0)
    (row,) = fleet.rows(6.0, NOW)
    assert (row.state, row.exit_code, row.age, row.detail) == ("offline", 5, 1.0, "its connection broke off")
    assert row.report is not None
    assert row.report.revision == "a1988b1fb54c"


def test_ages_of_live_nodes_do_not_depend_on_their_clocks():
    fleet = Fleet()
    fleet.take("net1", speech("net1", time=12.0), retained=False, now=100.0)
    assert fleet.rows(105.0, NOW)[0].state == "converged"
    assert fleet.rows(131.0, NOW)[0].state == "stale"


def test_the_code_is_that_of_the_worst_and_of_an_empty_fleet_that_nobody_answers():
    fleet = Fleet()
    assert exit_code(fleet.rows(0.0, NOW)) is ExitCode.UNREACHABLE
    for number, (outcome, code) in enumerate(
        [(Outcome.CONVERGED, 0), (Outcome.PENDING, 3), (Outcome.CONFLICT, 4), (Outcome.FAILED, 1)]
    ):
        fleet.take(f"n{number}", speech(f"n{number}", outcome, code), retained=False, now=0.0)
        assert exit_code(fleet.rows(0.0, NOW)) == code
    stuck = speech("n9", stuck=True, detail="worker-1 is in a pass over ovsdb for 31 s")
    fleet.take("n9", stuck, retained=False, now=0.0)
    assert exit_code(fleet.rows(0.0, NOW)) == 5
    assert any("worker-1 is in a pass" in line.text for line in fleet_lines(fleet.rows(0.0, NOW), NOW, prefix="x"))
