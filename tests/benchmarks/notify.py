"""From a notification to the flow it leads to: a port is created elsewhere, and this node must reach it.

The daemon as shipped, on a real switch, told by a real broker, with 1,000 ports in its model. The clock runs from
before `port.create.end` is handed to its publisher until a flow monitor of another process sees the port's flow in
br-tun. In turns with a program that knows nothing but how to make this one flow of such a message.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.flows import AddFlow, FlowKey
from tests.benchmarks.cloud import EXCHANGE, Cloud, channel, followed, mac
from tests.benchmarks.daemon import Daemon, switch, unit_nice
from tests.benchmarks.report import Table, ms, percentile, say
from tests.benchmarks.wire import FlowWire, promptly, until
from tests.oslo import Publisher
from tests.ovs import PrivateOvs
from tests.rabbitmq import RabbitServer

HERE = Path(__file__).parent
BRIDGE = "br-tun"
UNICAST = 20
"""The table of a port's own flow."""
PORTS = 1000
LAYOUTS = {"20 networks": 20, "one network": 1}
ROUNDS, BLOCK, WARM = 100, 25, 3
PAUSE = 0.15
STAGES = {
    "broker to mirror": "reconciler_notification_age_seconds",
    "mirror to desired state": "reconciler_compose_seconds",
    "pass over the flows": 'reconciler_pass_seconds{controller="flow"}',
}


@dataclass(slots=True)
class _Found:
    floor: list[float] = field(default_factory=list)
    kombu: list[float] = field(default_factory=list)
    oslo: list[float] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)


def table(directory: Path) -> Table:
    """Both layouts of the same thousand ports."""
    server = RabbitServer()
    try:
        with Publisher() as publisher:
            found = {name: _measured(server, publisher, directory, n) for name, n in LAYOUTS.items()}
    finally:
        server.close()
    rows = []
    for name, one in found.items():
        for who, times in (("floor", one.floor), ("daemon", one.kombu), ("daemon, oslo.messaging", one.oslo)):
            rows.append([f"{name}: {who}", str(len(times)), ms(percentile(times, 0.5)), ms(percentile(times, 0.99))])
        rows += [[f"{name}: mean of {stage}", "", ms(seconds), ""] for stage, seconds in one.stages.items()]
    return Table(
        f"notify: port.create.end to the flow in {BRIDGE}, {PORTS:,} ports in the model, ms",
        ("", "ports", "p50", "p99"),
        rows,
        (
            "from before it is published until a flow monitor of a third process sees the flow; published with kombu,",
            f"and with oslo.messaging in a process of its own; blocks of {BLOCK} in turns with the floor, {WARM}",
            "uncounted before each. The broker is reached through a relay of this process. Aim: p50 under 30 ms.",
        ),
        {name: {"floor_s": one.floor, "kombu_s": one.kombu, "oslo_s": one.oslo} for name, one in found.items()},
    )


def _measured(server: RabbitServer, publisher: Publisher, directory: Path, networks: int) -> _Found:
    found = _Found()
    with (
        switch(directory, f"notify{networks}") as ovs,
        followed(ovs, server) as daemon,
        channel(server.url()) as publishing,
    ):
        cloud = Cloud(publishing, networks)
        daemon.start()
        daemon.until(lambda: listens(daemon), "does not listen to the broker")
        cloud.lay()
        for number in range(PORTS):
            cloud.tell("port.create.end", {"port": cloud.port(number)})
        with contextlib.closing(_Watcher(ovs)) as watcher:
            until(lambda: watcher.reached() >= PORTS, "not all ports are reached", 60.0, 0.05)
            daemon.quiet()
            say(f"{networks} networks, {PORTS:,} ports: followed")
            flow = watcher.example()
            numbers = iter(range(PORTS, 60_000))
            publish = {
                "kombu": lambda number: cloud.tell("port.create.end", {"port": cloud.port(number)}),
                "oslo": lambda number: publisher.notify(server.url(), "port.create.end", {"port": cloud.port(number)}),
            }
            for _ in range(ROUNDS // BLOCK):
                with daemon.stopped(), _floor(ovs, server, flow):
                    found.floor += _block(watcher, numbers, publish["kombu"])
                before = daemon.metrics()
                found.kombu += _block(watcher, numbers, publish["kombu"])
                after = daemon.metrics()
                for stage, name in STAGES.items():
                    found.stages[stage] = found.stages.get(stage, 0.0) + _mean(before, after, name) * BLOCK / ROUNDS
                found.oslo += _block(watcher, numbers, publish["oslo"])
        daemon.end()
    return found


def listens(daemon: Daemon) -> bool:
    try:
        return any(stream["name"] == "amqp" and stream["ready"] for stream in daemon.status()["streams"])
    except OSError:
        return False


def _mean(before: dict[str, float], after: dict[str, float], name: str) -> float:
    bare, brace, labels = name.partition("{")
    total, count = (
        after[key] - before.get(key, 0.0) for key in (f"{bare}_sum{brace}{labels}", f"{bare}_count{brace}{labels}")
    )
    return total / count if count else 0.0


def _block(watcher: _Watcher, numbers: Iterator[int], publish: Callable[[int], None]) -> list[float]:
    times = []
    for at in range(WARM + BLOCK):
        number = next(numbers)
        watcher.wire.drain()
        with promptly():
            began = time.monotonic()
            publish(number)
            seen = watcher.sees(mac(number))
        if at >= WARM:
            times.append(seen - began)
        time.sleep(PAUSE)
    return times


class _Watcher:
    """Sees the ports that are reached through br-tun."""

    def __init__(self, ovs: PrivateOvs) -> None:
        until((ovs.rundir / f"{BRIDGE}.mgmt").exists, f"there is no {BRIDGE}")
        self.wire = FlowWire(ovs.rundir, BRIDGE)
        self.wire.watch()

    def close(self) -> None:
        self.wire.close()

    def reached(self) -> int:
        return sum(_unicast(key) for key in self.wire.dump())

    def example(self) -> AddFlow:
        """The flow of port 0."""
        found = [(key, flow) for key, flow in self.wire.dump().items() if _unicast(key) and mac(0) in key.match]
        ((key, flow),) = found
        return AddFlow(key, flow)

    def sees(self, address: bytes) -> float:
        for at, update in self.wire.updates():
            if _unicast(update.key) and address in update.key.match and update.flow is not None:
                return at
        raise AssertionError


def _unicast(key: FlowKey) -> bool:
    return key.table == UNICAST and key.priority > 1


@contextlib.contextmanager
def _floor(ovs: PrivateOvs, server: RabbitServer, flow: AddFlow) -> Iterator[None]:
    spec, output = ovs.directory / "floor.json", ovs.directory / "floor.out"
    said = {
        "url": server.url(), "exchange": EXCHANGE, "hello": codec.hello(1).hex(),
        "flow": codec.encode(flow, 2).hex(), "mac": mac(0).hex(),
    }  # fmt: skip
    spec.write_text(json.dumps(said))
    output.unlink(missing_ok=True)
    argv = ["nice", "-n", str(unit_nice()), sys.executable, str(HERE / "floor_notify.py")]
    running = ovs.spawn([*argv, str(ovs.rundir / f"{BRIDGE}.mgmt"), str(spec)], output)
    try:
        until(lambda: "ready" in running.text(), f"the floor program is not ready: {running.text()}")
        yield
    finally:
        running.end()
