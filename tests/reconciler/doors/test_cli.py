"""The command line as a user meets it: verbs, help, exit codes, with and without a daemon."""

import asyncio
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import threading

import pytest

from reconciler.doors.cli import app, main
from reconciler.doors.control import ControlServer
from reconciler.metrics import Metrics
from tests.reconciler.doors.fakes import REPAIR, FakeNode

VERBS = sorted(
    [(command.name or command.callback.__name__) for command in app.registered_commands],
)
GOOD = "bridges:\n  br-int: {datapath_type: netdev}\nflows:\n  br-int: ['priority=1,actions=normal']\n"


@pytest.fixture
def home(short_dir, monkeypatch):
    """Settings that keep everything in one directory, and YAML that is right."""
    (short_dir / "desired").mkdir()
    (short_dir / "desired" / "net.yaml").write_text(GOOD)
    names = {"state_dir": "state", "run_dir": "run", "desired": "desired", "ovs_rundir": "ovs"}
    config = "".join(f'{name} = "{short_dir}/{place}"\n' for name, place in names.items())
    (short_dir / "reconciler.toml").write_text(config + 'listen = ""\nnode = "n1"\n')
    (short_dir / "run").mkdir()
    monkeypatch.setenv("RECONCILER_CONFIG", str(short_dir / "reconciler.toml"))
    return short_dir


@pytest.fixture
def daemon(home):
    """A node behind the control socket, in a thread with a loop of its own."""
    node = FakeNode()
    started, stop = threading.Event(), asyncio.Event()
    loops = []

    async def serve():
        server = ControlServer(home / "run" / "control.sock", node, Metrics())
        await server.start()
        loops.append(asyncio.get_running_loop())
        started.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    node.call = loops[0].call_soon_threadsafe
    yield node
    loops[0].call_soon_threadsafe(stop.set)
    thread.join(10)


def run(capsys, *argv):
    code = main(argv)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(capsys, verb):
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert f"Usage: reconcile {verb}" in out
    assert len(out.splitlines()) > 5


def test_every_verb_of_the_design_is_there():
    of_the_design = "run plan approve pause resume validate render schema config status history events log-level doctor"
    of_the_design += " release support explain trace fleet"
    assert sorted(of_the_design.split()) == VERBS


def test_the_help_shows_examples_and_exit_codes(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert re.search(r"^ +reconcile --once --only port/tap0 +\.\.\. only for this port$", out, re.MULTILINE)
    assert "64 wrong usage" in out


@pytest.mark.parametrize(
    "argv",
    [
        ["bogus"],
        ["--bogus"],
        ["status", "--bogus"],
        ["pause", "node"],
        ["pause"],
        ["plan", "--timeout", "soon"],
        ["--once", "--timeout", "0"],
        ["history", "--limit", "0"],
        ["--output", "xml", "status"],
        ["--dry-run"],
        ["--only", "port"],
        ["--once", "status"],
        [],
    ],
)
def test_wrong_usage_is_64(capsys, home, argv):
    assert run(capsys, *argv)[0] == 64


def test_status_exits_with_the_node_s_code(capsys, daemon):
    code, out, _ = run(capsys, "status")
    assert code == 4
    assert "net1: conflict" in out
    code, out, _ = run(capsys, "status", "--output", "json")
    assert code == 4
    assert json.loads(out)["node"] == "net1"


def test_once_and_plan_ask_the_daemon(capsys, daemon):
    code, out, _ = run(capsys, "--once")
    assert code == 0
    assert "was deleted -> created again" in out
    for argv in (["plan"], ["--once", "--dry-run"]):
        code, out, _ = run(capsys, *argv)
        assert code == 2
        assert "was deleted -> would create" in out
    code, out, _ = run(capsys, "plan", "--only", "port", "--output", "json")
    assert code == 2
    assert json.loads(out)["passes"][0]["actions"][0]["result"] == "planned"


def test_what_the_daemon_refuses_keeps_its_meaning(capsys, daemon):
    code, _, err = run(capsys, "plan", "--only", "prot")
    assert (code, "there is no kind 'prot'" in err) == (1, True)
    code, _, err = run(capsys, "--once", "--only", "flow")
    assert (code, "no answer to a dump" in err) == (5, True)
    assert run(capsys, "log-level", "chatty")[0] == 1


def test_pause_resume_approve_and_log_level(capsys, daemon):
    code, out, _ = run(capsys, "pause", "flow", "--reason", "cable work", "--for", "30m")
    assert code == 0
    assert "flow is paused" in out
    assert daemon.current.pauses[0].until - daemon.current.pauses[0].at == 1800
    assert "flow is repaired again" in run(capsys, "resume")[1]
    assert "nothing was paused" in run(capsys, "resume")[1]
    assert "approved: 9 deletes of port" in run(capsys, "approve", "abc123")[1]
    assert "nothing waited" in run(capsys, "approve")[1]
    assert run(capsys, "log-level", "info")[0] == 0


def test_history_and_events(capsys, daemon):
    code, out, _ = run(capsys, "history", "port/patch-tun", "--limit", "5")
    assert code == 0
    assert "was deleted -> created again" in out
    code, out, _ = run(capsys, "history", "port/other")
    assert (code, out) == (0, "the journal has nothing of that\n")
    assert "created again" in run(capsys, "events")[1]
    code, out, _ = run(capsys, "events", "--output", "json")
    assert json.loads(out)["pass_id"] == REPAIR.pass_id


def test_events_follow_live_until_interrupted(home, daemon):
    with started("events", "-f", "--limit", "0", "--output", "json") as watcher:
        while not daemon.listeners:
            threading.Event().wait(0.01)
        daemon.call(daemon.happened, REPAIR)
        assert json.loads(watcher.stdout.readline())["pass_id"] == 7
        watcher.send_signal(2)
        assert watcher.wait(10) == 130
        assert b"Traceback" not in watcher.stderr.read()


def started(*argv):
    command = [sys.executable, "-m", "reconciler.doors.cli", *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_output_into_a_closed_pipe_is_no_error(home):
    with started("schema") as writer:
        writer.stdout.close()
        assert writer.wait(20) == 0
        assert writer.stderr.read() == b""


@pytest.mark.parametrize("argv", [["status"], ["events"], ["log-level", "info"]])
def test_verbs_that_need_the_daemon_say_how_to_start_it(capsys, home, argv):
    code, out, err = run(capsys, *argv)
    assert (code, out) == (5, "")
    assert "systemctl start reconciler" in err


def test_a_daemon_that_does_not_answer_is_named_and_force_goes_past_it(capsys, home, monkeypatch):
    monkeypatch.setattr("reconciler.doors.session.ANSWER_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as stuck, (home / "run" / "lock").open("w") as lock:
        stuck.bind(str(home / "run" / "control.sock"))
        stuck.listen()
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = run(capsys, "plan")
        assert code == 5
        assert f"pid {os.getpid()}" in err
        assert "--force" in err
        code, _, err = run(capsys, "plan", "--force", "--timeout", "1s")
        assert code == 5
        assert "going past it" in err
        assert "Open vSwitch does not answer" in err


def test_somebody_who_holds_the_node_is_waited_for_and_then_named(capsys, home):
    with (home / "run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = run(capsys, "plan", "--timeout", "300ms")
        assert code == 5
        assert f"pid {os.getpid()} is at work on this node; waiting for it" in err
        assert f"pid {os.getpid()} holds this node" in err


def test_without_open_vswitch_once_is_5(capsys, home):
    code, _, err = run(capsys, "--once", "--timeout", "500ms")
    assert code == 5
    assert "Open vSwitch does not answer" in err


def test_pause_approve_and_history_work_without_a_daemon(capsys, home):
    code, out, _ = run(capsys, "pause", "node", "--reason", "cable work")
    assert code == 0
    assert "node is paused" in out
    assert run(capsys, "pause", "bogus", "--reason", "x")[0] == 1
    assert "node is repaired again" in run(capsys, "resume", "node")[1]
    assert "the deletes of revision" in run(capsys, "approve")[1]
    assert run(capsys, "history")[:2] == (0, "the journal has nothing of that\n")


def test_validate_is_silent_about_nothing(capsys, home):
    assert run(capsys, "validate") == (0, "2 resources for node n1 from 1 file: valid\n", "")
    (home / "desired" / "net.yaml").write_text("bridges:\n  br-int: {fail_mod: secure}\n  br int: {}\n")
    code, out, _ = run(capsys, "validate")
    assert code == 1
    assert f"{home}/desired/net.yaml:2:12: " in out
    assert "did you mean 'fail_mode'?" in out
    assert "2 mistakes in 1 file: not valid" in out
    code, out, _ = run(capsys, "validate", "--output", "json")
    assert code == 1
    assert {problem["line"] for problem in json.loads(out)} == {2, 3}
    code, _, err = run(capsys, "render")
    assert code == 1
    assert "net.yaml:2:12" in err
    code, _, err = run(capsys, "approve")
    assert code == 1
    assert "net.yaml:2:12" in err


def test_validate_takes_a_directory_a_node_and_roles(capsys, home):
    other = home / "other"
    other.mkdir()
    (other / "a.yaml").write_text("apply_to: {roles: [network]}\n" + GOOD)
    assert run(capsys, "validate", str(other))[0] == 1
    code, out, _ = run(capsys, "validate", str(other), "--node", "n7", "--role", "network")
    assert (code, out) == (0, "2 resources for node n7 from 1 file: valid\n")


def test_render_loads_as_what_it_was_made_of(capsys, home):
    code, out, _ = run(capsys, "render")
    assert code == 0
    assert f"# {home}/desired/net.yaml:2:3" in out
    (home / "again.yaml").write_text(out)
    first = json.loads(run(capsys, "render", "--output", "json")[1])
    second = json.loads(run(capsys, "render", str(home / "again.yaml"), "--output", "json")[1])
    assert [(r["resource"], r["spec"]) for r in first] == [(r["resource"], r["spec"]) for r in second]


def test_schema_is_json_schema(capsys, home):
    code, out, _ = run(capsys, "schema")
    assert code == 0
    assert json.loads(out)["properties"]["bridges"]


def test_config_shows_origins_and_no_password(capsys, home, monkeypatch):
    monkeypatch.setenv("RECONCILER_STORE_URL", "postgresql://u:s3cret@db/x")
    code, out, _ = run(capsys, "--node", "n9", "config")
    assert code == 0
    assert re.search(r"^node = n9 +# flag --node$", out, re.MULTILINE)
    assert re.search(r"^store_url = postgresql://u:\*\*\*@db/x +# environment RECONCILER_STORE_URL$", out, re.MULTILINE)
    assert re.search(rf"^run_dir = \S+ +# {home}/reconciler\.toml:2$", out, re.MULTILINE)
    code, out, _ = run(capsys, "config", "--output", "json")
    assert json.loads(out)["node"] == {"value": "n1", "origin": f"{home}/reconciler.toml:6"}
    assert "s3cret" not in out


def test_wrong_settings_are_all_told(capsys, home):
    (home / "reconciler.toml").write_text('nod = "x"\nlisten = "9464"\n')
    code, out, err = run(capsys, "status")
    assert (code, out) == (1, "")
    assert "reconciler.toml:1: there is no setting 'nod'" in err
    assert "reconciler.toml:2: listen: '9464' is no listen address" in err


def test_a_store_that_does_not_answer_is_5(capsys, home, monkeypatch):
    monkeypatch.setenv("RECONCILER_STORE_URL", f"sqlite:///{home}/desired")
    code, _, err = run(capsys, "history")
    assert code == 5
    assert err


def test_the_plain_verbs_start_without_the_heavy_libraries(home):
    heavy = "{'aiohttp', 'sqlalchemy', 'rich', 'ovsdbapp', 'structlog', 'prometheus_client', 'asyncio.events'}"
    code = f"import sys; from reconciler.doors import cli; cli.main(['status']); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() in ("set()", "{'asyncio.events'}")
