"""The control socket and its client: every verb over a real socket, and a daemon that is absent, stuck or gone."""

import asyncio
import fcntl
import http.client
import os
import socket
import stat
import threading

import pytest

from reconciler import logs
from reconciler.doors.client import ControlClient, DaemonAbsentError, DaemonSilentError, lock_holder
from reconciler.doors.control import ControlServer
from reconciler.errors import ConfigError, DriverError
from tests.reconciler.doors.fakes import NOW, REPAIR, STATUS


async def ask(method, *args, **kwargs):
    return await asyncio.wait_for(asyncio.to_thread(method, *args, **kwargs), 10)


async def test_the_client_reads_exactly_what_the_node_says(control, client):
    assert await ask(client.status) == STATUS
    assert await ask(client.history, resource=None, since=None, limit=5) == (REPAIR,)
    assert await ask(client.history, resource="port/other", since=None, limit=5) == ()
    assert await ask(client.history, resource="port/patch-tun", since=NOW, limit=5) == ()
    assert await ask(client.ping) == os.getpid()


async def test_once_and_plan(control, client):
    done = await ask(client.once, only=None, dry_run=False, timeout=5)
    assert done.passes == (REPAIR,)
    plan = await ask(client.once, only="port", dry_run=True, timeout=5)
    assert plan.exit_code == 2
    assert {action.result for action in plan.passes[0].actions} == {"planned"}


async def test_pause_resume_and_approve_change_the_node(control, client, node):
    pause = await ask(client.pause, "flow", reason="maintenance", seconds=60.0, by="ann")
    assert pause.until == NOW + 60
    assert node.status().pauses == (pause,)
    assert await ask(client.resume, "all", by="ann") == (pause,)
    assert node.status().pauses == ()
    (through,) = await ask(client.approve, None)
    assert through.revision == "abc123"
    assert node.status().budgets == ()


async def test_the_log_level_is_changed_and_the_one_before_returned(control, client):
    before = logs.get_level()
    assert await ask(client.set_log_level, "debug") == before
    assert await ask(client.set_log_level, before) == "debug"


async def test_errors_arrive_as_what_they_were(control, client):
    with pytest.raises(ConfigError, match="there is no kind 'prot'"):
        await ask(client.once, only="prot", dry_run=True, timeout=5)
    with pytest.raises(DriverError, match="no answer to a dump"):
        await ask(client.once, only="flow", dry_run=False, timeout=5)
    with pytest.raises(ConfigError, match="there is no log level"):
        await ask(client.set_log_level, "chatty")


async def test_events_are_streamed_live_to_every_reader(control, client, node):
    def read(count):
        stream = client.events()
        found = [next(stream) for _ in range(count)]
        stream.close()
        return found

    readers = [asyncio.create_task(ask(read, 2)) for _ in range(2)]
    while len(node.listeners) < 2:
        await asyncio.sleep(0.005)
    node.happened(REPAIR)
    node.happened(REPAIR)
    assert await asyncio.gather(*readers) == [[REPAIR, REPAIR]] * 2
    async with asyncio.timeout(5):
        while node.listeners:  # the server notices readers that left at its next word to them
            node.happened(REPAIR)
            await asyncio.sleep(0.005)


async def test_a_quiet_live_stream_shows_that_the_daemon_is_there(control, client, node, monkeypatch):
    monkeypatch.setattr("reconciler.doors.api.HEARTBEAT", 0.02)
    monkeypatch.setattr("reconciler.doors.client.SILENCE_SECONDS", 0.3)
    stream = await ask(client.events)
    reader = asyncio.create_task(ask(next, stream))
    await asyncio.sleep(0.6)
    node.happened(REPAIR)
    assert await reader == REPAIR
    stream.close()


async def test_a_daemon_that_falls_silent_in_a_live_stream_is_noticed(control, client, monkeypatch):
    monkeypatch.setattr("reconciler.doors.client.SILENCE_SECONDS", 0.1)
    with pytest.raises(DaemonSilentError, match=r"did not answer within 0\.1 s"):
        await ask(lambda: list(client.events()))


async def test_a_live_stream_ends_when_the_daemon_stops(control, client, node):
    reader = asyncio.create_task(ask(lambda: list(client.events())))
    while not node.listeners:
        await asyncio.sleep(0.005)
    async with asyncio.timeout(3):
        await control.close()
    assert await reader == []
    assert node.listeners == []


async def test_the_socket_is_for_the_owner_and_group_only(short_dir, node, metrics):
    path = short_dir / "run" / "control.sock"
    server = ControlServer(path, node, metrics)
    await server.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    await server.close()
    assert not path.exists()


async def test_a_socket_left_by_a_killed_daemon_is_replaced(short_dir, node, metrics, client):
    path = short_dir / "control.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    with pytest.raises(DaemonAbsentError):
        client.ping()
    server = ControlServer(path, node, metrics)
    await server.start()
    assert (await ask(client.status)).node == "net1"
    await server.close()


async def test_a_successor_s_socket_survives_the_closing_of_its_predecessor(short_dir, node, metrics, client):
    path = short_dir / "control.sock"
    first, second = ControlServer(path, node, metrics), ControlServer(path, node, metrics)
    await first.start()
    await second.start()
    await first.close()
    assert (await ask(client.status)).node == "net1"
    await second.close()


async def test_what_cannot_be_bound_is_told(short_dir, node, metrics):
    (short_dir / "control.sock").write_text("a file")
    with pytest.raises(DriverError, match="is no socket"):
        await ControlServer(short_dir / "control.sock", node, metrics).start()
    with pytest.raises(DriverError, match="shorter run_dir"):
        await ControlServer(short_dir / ("x" * 100) / "control.sock", node, metrics).start()


def test_a_daemon_that_is_not_there(client, short_dir):
    with pytest.raises(DaemonAbsentError, match=r"no daemon listens on .*control\.sock"):
        client.status()
    with pytest.raises(DaemonAbsentError):
        ControlClient(short_dir / "none" / "control.sock").status()


def test_a_daemon_that_does_not_answer_is_named_by_its_pid(short_dir):
    path = short_dir / "control.sock"
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(path))
        stuck.listen()
        with pytest.raises(DaemonSilentError, match=f"pid {os.getpid()}") as caught:
            ControlClient(path, answer_seconds=0.1).status()
        assert caught.value.pid == os.getpid()


def test_a_daemon_that_is_killed_while_it_answers(short_dir):
    path = short_dir / "control.sock"
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(path))
        dying.listen()

        def die():
            connection, _ = dying.accept()
            connection.recv(100)
            connection.close()

        thread = threading.Thread(target=die)
        thread.start()
        with pytest.raises(DriverError, match="broke off"):
            ControlClient(path).status()
        thread.join()


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/api/v1/once", "{"),
        ("/api/v1/once", "[]"),
        ("/api/v1/once", '{"invented": 1}'),
        ("/api/v1/once", '{"timeout": "soon"}'),
        ("/api/v1/once", '{"timeout": NaN}'),
        ("/api/v1/once", '{"timeout": -1}'),
        ("/api/v1/once", '{"dry_run": 1}'),
        ("/api/v1/pause", '{"what": "node"}'),
        ("/api/v1/pause", '{"what": "node", "reason": "two\\nlines"}'),
        ("/api/v1/pause", '{"what": "node", "reason": "r", "seconds": 0}'),
        ("/api/v1/resume", "{}"),
        ("/api/v1/log-level", '{"level": 5}'),
    ],
)
async def test_a_wrong_request_is_refused_in_words(control, short_dir, target, body):
    def post():
        connection = http.client.HTTPConnection("x")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(short_dir / "control.sock"))
        connection.request("POST", target, body)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, content

    status, content = await ask(post)
    assert status == 400
    assert b'"type": "ConfigError"' in content


def test_the_holder_of_the_lock_is_known_without_touching_it(short_dir):
    path = short_dir / "lock"
    assert lock_holder(path) is None
    with path.open("w") as held:
        assert lock_holder(path) is None
        fcntl.flock(held, fcntl.LOCK_EX)
        assert lock_holder(path) == os.getpid()
    assert lock_holder(path) is None
