"""The private RabbitMQ that other tests lean on: users, vhosts, an end without rest, a start that brings back."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from controllers.drivers.probes import amqp
from reconciler.errors import DriverError
from tests.rabbitmq import RabbitServer


async def logs_in(url: str) -> bool:
    try:
        await amqp.log_in(amqp.parse(url))
    except (OSError, DriverError):
        return False
    return True


async def test_users_vhosts_and_passwords_are_there_at_once_and_after_a_crash(rabbit_server: RabbitServer) -> None:
    assert await logs_in(rabbit_server.url())
    rabbit_server.add_vhost("cloud/one")
    rabbit_server.add_user("n", "p@:/", "cloud/one")
    assert await logs_in(rabbit_server.url("n", "p@:/", "cloud/one"))
    assert not await logs_in(rabbit_server.url("n", "p@:/"))
    rabbit_server.set_password("n", "q")
    assert not await logs_in(rabbit_server.url("n", "p@:/", "cloud/one"))
    rabbit_server.kill()
    assert not await logs_in(rabbit_server.url())
    rabbit_server.start()
    assert await logs_in(rabbit_server.url("n", "q", "cloud/one"))
    rabbit_server.delete_user("n")
    assert not await logs_in(rabbit_server.url("n", "q", "cloud/one"))
    with pytest.raises(RuntimeError, match="no_such_user"):
        rabbit_server.set_password("n", "r")


def test_it_ends_with_the_process_that_started_it() -> None:
    script = "from tests.rabbitmq import RabbitServer; s = RabbitServer(); print(*s.pids, flush=1)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{script}; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        pids = [int(word) for word in child.stdout.readline().split()]
        assert len(pids) == 2
        child.kill()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, f"of {pids} something outlives its parent"
        time.sleep(0.05)
