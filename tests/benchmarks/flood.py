"""50,000 notifications that wait at the broker when a daemon starts: what they do to it, and when they are digested.

Of 2,000 ports: each is created and then moved from node to node, so that every word changes a flow; some are told
twice, and between them is what is no notification. The daemon is as shipped, on a real switch.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.cloud import NODES, Cloud, channel, followed, mac
from tests.benchmarks.daemon import Daemon, meanwhile, switch
from tests.benchmarks.lag import Lags, watched
from tests.benchmarks.notify import BRIDGE, UNICAST, listens
from tests.benchmarks.report import Table, say
from tests.benchmarks.wire import FlowWire, until
from tests.rabbitmq import RabbitServer

FLOOD, PORTS, NETWORKS = 50_000, 2_000, 20
TWICE, GARBAGE = 50, 100
"""One in so many is told twice, one in so many is garbage."""


@dataclass(slots=True)
class _Found:
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    digested: float = 0.0
    cpu: float = 0.0
    lags: Lags = field(default_factory=Lags)
    memory: tuple[int, int, int] = (0, 0, 0)
    """Before, the most of it meanwhile, and after, in bytes."""


def table(directory: Path) -> Table:
    """Publish while the daemon is stopped, then let it go."""
    server = RabbitServer()
    try:
        with switch(directory, "flood") as ovs, followed(ovs, server) as daemon, channel(server.url()) as publishing:
            cloud = Cloud(publishing, NETWORKS)
            daemon.start()
            daemon.until(lambda: listens(daemon), "does not listen to the broker")
            cloud.lay()
            for number in range(PORTS):
                cloud.tell("port.create.end", {"port": cloud.port(number)})
            with contextlib.closing(FlowWire(ovs.rundir, BRIDGE)) as wire:
                until(lambda: _reached(wire) >= PORTS, "not all ports are reached", 120.0, 0.1)
            daemon.quiet()
            found = _Found(memory=(daemon.pss(), 0, 0))
            daemon.end()
            say(f"publishing {FLOOD:,} messages")
            for body in _flood(cloud):
                cloud.send(body)
            say("starting")
            _digest(daemon, found)
            daemon.end()
    finally:
        server.close()
    return _table(found)


def _flood(cloud: Cloud) -> Iterator[bytes]:
    """The last message creates port `PORTS`."""
    sent, number = 0, 0
    while sent < FLOOD - 1:
        at = number % PORTS
        body = cloud.port(at, **{"binding:host_id": f"node{(number // PORTS + at + 1) % NODES}"})
        said = cloud.words("port.create.end" if number < PORTS else "port.update.end", {"port": body})
        number += 1
        for words in (said, *([said] if number % TWICE == 0 else []), *([b"{"] if number % GARBAGE == 0 else [])):
            sent += 1
            yield words
    yield cloud.words("port.create.end", {"port": cloud.port(PORTS)})


def _digest(daemon: Daemon, found: _Found) -> None:
    daemon.start()
    daemon.until(lambda: listens(daemon), "does not listen to the broker")
    began, cpu = time.monotonic(), daemon.cpu()
    found.before = daemon.metrics()
    with (
        contextlib.closing(FlowWire(daemon.ovs.rundir, BRIDGE)) as wire,
        _most(daemon) as most,
        watched(daemon) as found.lags,
    ):
        until(lambda: _there(wire), "the last port is not reached", 300.0, 0.25)
        found.digested = time.monotonic() - began
    found.after, found.cpu = daemon.metrics(), daemon.cpu() - cpu
    daemon.quiet()
    found.memory = (found.memory[0], max(most), daemon.pss())


@contextlib.contextmanager
def _most(daemon: Daemon) -> Iterator[list[int]]:
    """How much memory it has, four times a second."""
    seen = [daemon.pss()]

    def look(stop: threading.Event) -> None:
        while not stop.wait(0.25):
            seen.append(daemon.pss())

    with meanwhile(look, "memory"):
        yield seen


def _reached(wire: FlowWire) -> int:
    return sum(key.table == UNICAST and key.priority > 1 for key in wire.dump())


def _there(wire: FlowWire) -> bool:
    wanted = mac(PORTS)
    return any(key.table == UNICAST and wanted in key.match for key in wire.dump())


def _table(found: _Found) -> Table:
    def grown(name: str) -> float:
        return sum(value - found.before.get(key, 0.0) for key, value in found.after.items() if key.startswith(name))

    passes = {name: grown(f'reconciler_passes_total{{controller="{name}"') for name in ("ovsdb", "flow")}
    composed = grown("reconciler_compose_seconds_count")
    before, most, after = (f"{size / 2**20:.0f}" for size in found.memory)
    rows = [
        ["start to the last one's flow", f"{found.digested:.1f} s ({FLOOD / found.digested:,.0f}/s)"],
        ["CPU of the daemon meanwhile", f"{found.cpu:.1f} s"],
        found.lags.row(),
        ["desired states made", f"{composed:.0f}"],
        ["passes over flows (2 scopes)", f"{passes['flow']:.0f}"],
        ["passes over OVSDB (1 scope)", f"{passes['ovsdb']:.0f}"],
        ["memory before, the most, after", f"{before}, {most}, {after} MiB"],
    ]
    notes = (
        f"{FLOOD:,} messages wait when it starts: {PORTS:,} ports that move from node to node; one in {TWICE} is told",
        f"twice, one in {GARBAGE} is garbage. Aims: p99 of the loop lag under 50 ms, a few passes per scope.",
    )
    raw = {"digested_s": found.digested, "passes": passes, "composed": composed, "lags_s": found.lags.seen}
    return Table("flood: notifications that wait at the broker", ("what", "value"), rows, notes, raw)
