"""Notifications: how soon one is in the mirror, and what 50,000 that wait at the broker do to the event loop.

The real broker, the real source, mirror and SQLite store, as a daemon has them; what the mirror's changes lead to is
not in it. The flood is of ports: each created and then changed, 20,000 of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import kombu

from desired.network.mirror import Changed, Mirror
from desired.sources.amqp import AmqpSource
from desired.sources.following import Following
from desired.sql import SqlStore
from reconciler.clock import SystemClock
from reconciler.settings_sections import AmqpSettings
from reconciler.writer import StoreWriter
from tests.benchmarks.report import Table, ms, percentile, say
from tests.desired.network.neutron import message, network, port, subnet
from tests.rabbitmq import RabbitServer

FLOOD, PORTS, SINGLES = 50_000, 20_000, 200
TICK = 0.005


def table(directory: Path) -> Table:
    """Flood first: what it leaves is the mirror that the single notifications come into."""
    server = RabbitServer()
    try:
        return asyncio.run(_measured(server, directory))
    finally:
        server.close()


class _Node:
    """What a daemon has between the broker and the compiler."""

    def __init__(self, url: str, directory: Path) -> None:
        settings = AmqpSettings(url=url, queue="reconciler.bench", declare_exchanges=True)
        clock = SystemClock()
        self.store = SqlStore(f"sqlite:///{directory}/mirror.db", "bench")
        self.writer = StoreWriter(lambda: self.store, wall=clock.wall)
        self.source = AmqpSource(settings, "bench", clock=clock, on_gap=lambda _: None)
        self.changed_at: list[float] = []
        self.longest_take = 0.0
        self.following = Following(self.source, Mirror(), self.writer, self._changed, lambda _: None)

    def _changed(self, changed: Changed) -> None:
        self.changed_at.append(time.perf_counter())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.following.run())
            while not self.source.ready:
                await asyncio.sleep(0.01)
            yield
            task.cancel()


async def _measured(server: RabbitServer, directory: Path) -> Table:
    node = _Node(server.url(), directory)
    node.writer.start()
    async with node.running():
        pass  # now there is a queue
    say(f"queueing {FLOOD:,} messages for the floor, and again")
    await asyncio.to_thread(_publish, server.url(), _flood())
    floor = await asyncio.to_thread(_floor, server.url())
    await asyncio.to_thread(_publish, server.url(), _flood())
    before = resource.getrusage(resource.RUSAGE_SELF)
    lags: list[float] = []
    ticking = asyncio.create_task(_tick(lags))
    await asyncio.sleep(5.0)
    idle_lags = list(lags)
    lags.clear()
    began = time.perf_counter()
    received = node.source.received
    async with node.running():
        while node.source.received - received < FLOOD:
            await asyncio.sleep(0.01)
        mirrored = time.perf_counter() - began
        while await asyncio.to_thread(_queued, server.url()):
            await asyncio.sleep(0.05)
        acknowledged = time.perf_counter() - began
        flood_lags = list(lags)
        after = resource.getrusage(resource.RUSAGE_SELF)
        singles = await _singles(node, server.url())
    ticking.cancel()
    await node.writer.close(30.0)
    rows = [
        ("floor: received and decoded", f"{FLOOD / floor:,.0f}/s", f"{floor:.1f} s"),
        ("flood, into the mirror", f"{FLOOD / mirrored:,.0f}/s", f"{mirrored:.1f} s"),
        ("flood, stored and acknowledged", f"{FLOOD / acknowledged:,.0f}/s", f"{acknowledged:.1f} s"),
    ]
    rows += [
        (f"{what} p50/p99/max ms", "", "/".join(ms(value) for value in (
            percentile(values, 0.5), percentile(values, 0.99), max(values))))
        for what, values in (("loop lag while idle", idle_lags), ("loop lag in the flood", flood_lags),
                             ("one: published to mirror", singles))
    ]  # fmt: skip
    rows.append(("memory grown in the flood", "", f"{(after.ru_maxrss - before.ru_maxrss) / 1024:.0f} MiB"))
    return Table(
        f"notifications: {FLOOD:,} of {PORTS:,} ports wait at the broker; then {SINGLES} one by one",
        ("", "rate", ""),
        rows,
        (
            f"broker, source, mirror ({len(node.following.mirror):,} objects) and SQLite store on one machine",
            f"{_cpu(after) - _cpu(before):.1f} s of CPU in this process; a tick is due every {TICK * 1000:.0f} ms",
        ),
        {
            "floor_s": floor,
            "mirrored_s": mirrored,
            "acknowledged_s": acknowledged,
            "idle_lags_s": idle_lags,
            "lags_s": flood_lags,
            "singles_s": singles,
        },
    )


def _cpu(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


async def _tick(lags: list[float]) -> None:
    while True:
        due = time.perf_counter() + TICK
        await asyncio.sleep(TICK)
        lags.append(max(0.0, time.perf_counter() - due))


async def _singles(node: _Node, url: str) -> list[float]:
    found = []
    with _channel(url) as channel:
        for number in range(SINGLES):
            body = message("port.update.end", {"port": port(number + 10, 1, 2, name=f"again {number}")}, 1e6 + number)
            seen = len(node.changed_at)
            began = time.perf_counter()
            _send(channel, body)
            while len(node.changed_at) == seen:
                await asyncio.sleep(0)
            found.append(node.changed_at[seen] - began)
            await asyncio.sleep(0.01)
    return found


def _flood() -> Iterator[bytes]:
    yield message("network.create.end", {"network": network(1)}, 1.0)
    yield message("subnet.create.end", {"subnet": subnet(2, 1)}, 2.0)
    for number in range(PORTS):
        yield message("port.create.end", {"port": port(number + 10, 1, 2)}, 10.0 + number)
    for number in range(FLOOD - PORTS - 2):
        body = port(number % PORTS + 10, 1, 2, name=f"changed {number}")
        yield message("port.update.end", {"port": body}, 1e5 + number)


def _publish(url: str, bodies: Iterator[bytes]) -> None:
    with _channel(url) as channel:
        for body in bodies:
            _send(channel, body)


def _floor(url: str) -> float:
    """What kombu and json alone take for the same messages: received, decoded, acknowledged a hundred at a time."""
    began, got = time.perf_counter(), 0
    with kombu.Connection(url) as connection, connection.channel() as channel:

        def take(raw: Any) -> None:
            nonlocal got
            json.loads(json.loads(raw.body)["oslo.message"])
            got += 1
            if got % 100 == 0:
                channel.basic_ack(raw.delivery_info["delivery_tag"], multiple=True)

        channel.basic_qos(0, 500, a_global=False)
        channel.basic_consume("reconciler.bench", callback=take)
        while got < FLOOD:
            connection.drain_events(timeout=60)
    return time.perf_counter() - began


def _send(channel: Any, body: bytes) -> None:
    channel.basic_publish(channel.prepare_message(body), "neutron", "notifications.info")


def _queued(url: str) -> int:
    """Ready or not acknowledged: with nobody consuming, all that is left."""
    with _channel(url) as channel:
        return int(channel.queue_declare("reconciler.bench", passive=True).message_count)


@contextlib.contextmanager
def _channel(url: str) -> Iterator[Any]:
    with kombu.Connection(url) as connection, connection.channel() as channel:
        yield channel
