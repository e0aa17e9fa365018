"""Checks as their user has them: conditions that come and go with what they ask about, and never an action."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.daemon import Node

SLEEPS = "import socket,time; s=socket.socket(); s.bind(('{}', 7001)); s.listen(); time.sleep(1000)"


@pytest.fixture
def declared(node: Node) -> Iterator[Node]:
    quick: dict[str, Any] = {"interval": 0.1, "timeout": 2, "failures": 1}
    node.set(owner="test-checks")
    flag = node.directory / "flag"
    flag.write_text("")
    node.ovs.run("ip", "netns", "add", "qrouter-1")
    node.ovs.run("ip", "-n", "qrouter-1", "link", "set", "lo", "up")
    node.declare(
        checks={
            "flag": {"command": ["test", "-e", str(flag)], **quick},
            "disk": {"disk": "/", "max_used": 100},
            "logs": {"directory": str(node.directory), "max_growth": 10**9},
            "inside": {"tcp": "127.0.0.1:7001", "namespace": "qrouter-1", **quick},
            "ping": {"ping": "127.0.0.1", "namespace": "qrouter-1", **quick},
            "size": {"sql": f"sqlite:///{node.directory}/s.db", "query": "select 3", "minimum": 3},
        }
    )
    node.start(converged=False)
    yield node
    assert node.stop() == 0


def test_conditions_come_and_go_and_nothing_is_done(declared: Node) -> None:
    node = declared
    node.says("check/inside", "failed", "tcp 127.0.0.1:7001 in qrouter-1", "refused")
    argv = ["ip", "netns", "exec", "qrouter-1", "python3", "-c", SLEEPS.format("127.0.0.1")]
    listener = node.ovs.spawn(argv, node.directory / "listener")
    node.converged()
    flag = node.directory / "flag"
    flag.unlink()
    node.says("check/flag", "failed", "ended with 1")
    assert node.cli("status").code == 1
    flag.write_text("")
    node.converged()
    node.ovs.run("ip", "-n", "qrouter-1", "link", "set", "lo", "down")
    node.says("check/ping", "failed", "ping 127.0.0.1 in qrouter-1")
    node.ovs.run("ip", "-n", "qrouter-1", "link", "set", "lo", "up")
    node.converged()
    listener.send(signal.SIGKILL)
    node.says("check/inside", "failed")
    passes = node.client.history(resource=None, since=0.0, limit=100)
    assert [action for entry in passes for action in entry.actions] == []
    node.ovs.run("ip", "netns", "del", "qrouter-1")
    node.says("check/inside", "pending", "there is no namespace qrouter-1")


def test_what_a_check_finds_is_a_metric_by_its_name(declared: Node) -> None:
    node = declared

    def metric(name: str, check: str) -> float | None:
        return node.metrics().get(f'reconciler_check_{name}{{check="{check}"}}')

    node.until(lambda: metric("value", "size") == 3, "the value of the query")
    node.until(lambda: metric("ok", "inside") == 0, "a failing check")
    assert 0 < (metric("value", "disk") or 0) <= 100
    assert (metric("seconds", "ping") or 0) > 0
    assert metric("value", "ping") is None, "it measures nothing"
    node.declare(checks={"size": {"sql": f"sqlite:///{node.directory}/s.db", "query": "select 4"}})
    node.until(lambda: metric("value", "size") == 4, "the new value")
    node.until(lambda: metric("ok", "disk") is None, "no longer declared, no longer measured")


def test_an_idle_check_is_silent(declared: Node) -> None:
    node = declared
    node.says("check/inside", "failed")
    since = time.time()
    time.sleep(0.6)
    assert not node.client.history(resource=None, since=since, limit=50)


def test_once_says_what_is_now_and_its_exit_code(node: Node) -> None:
    node.set(owner="test-checks")
    node.declare(checks={"never": {"command": ["false"], "failures": 1}, "good": {"command": ["true"]}})
    said = node.cli("--once")
    assert said.code == 1
    assert "false: ended with 1" in said.text
    node.declare(checks={"good": {"command": ["true"]}})
    assert node.cli("--once").code == 0
