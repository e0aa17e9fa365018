"""A unit without Restart= that is killed, and one that is stopped, on a booted node: drift to repair beside a floor.

Both as a third connection to the node's D-Bus sees them: from the signal that the unit is not active to the one that
it is. In blocks that alternate: in one the daemon's service is stopped and the floor program runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

from tests.benchmarks.report import Table, ms, percentile, say
from tests.benchmarks.wire import NeverSeenError
from tests.lab import service
from tests.lab.cluster import Node, lab

SYSTEMD, ROOT = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_DBUS = "org.freedesktop.DBus"
UNITS = [f"held{number}.service" for number in range(10)]
UNIT = "[Service]\nExecStart=/bin/sleep 100000\n"
BLOCK, WARM = 20, 3
WITHIN = 20.0
_RULE = f"type='signal',sender='{SYSTEMD}',member='PropertiesChanged',path_namespace='{ROOT}/unit'"


class Bus:
    """The node's system bus, from outside: breaks units and sees what becomes of them."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self.paths: dict[str, str] = {}
        self._seen: asyncio.Queue[tuple[float, str, str]] = asyncio.Queue()
        bus.add_message_handler(self._heard)

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, socket: Path) -> AsyncIterator[Bus]:
        found = await MessageBus(bus_address=f"unix:path={socket}", bus_type=BusType.SYSTEM).connect()
        bus = cls(found)
        try:
            await bus.call(
                "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", _RULE
            )
            await bus.order("Subscribe", "")
            for unit in UNITS:
                bus.paths[unit] = (await bus.order("LoadUnit", "s", unit))[0]
            yield bus
        finally:
            found.disconnect()

    async def call(self, to: str, path: str, interface: str, member: str, signature: str, *body: Any) -> list[Any]:
        answer = await self._bus.call(
            Message(to, path, interface, member, signature=signature, body=list(body)),
        )
        assert answer is not None
        assert answer.message_type is not MessageType.ERROR, answer.body
        return list(answer.body)

    async def order(self, member: str, signature: str, *body: Any) -> list[Any]:
        return await self.call(SYSTEMD, ROOT, f"{SYSTEMD}.Manager", member, signature, *body)

    def _heard(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL or message.member != "PropertiesChanged":
            return
        state = message.body[1].get("ActiveState")
        if state is not None:
            self._seen.put_nowait((time.monotonic(), message.path, state.value))

    async def break_one(self, unit: str, how: str) -> float:
        """Seconds from not active to active."""
        while not self._seen.empty():
            self._seen.get_nowait()
        if how == "killed":
            await self.order("KillUnit", "ssi", unit, "main", 9)
        else:
            await self.order("StopUnit", "ss", unit, "replace")
        down = 0.0
        try:
            async with asyncio.timeout(WITHIN):
                while True:
                    at, path, state = await self._seen.get()
                    if path != self.paths[unit]:
                        continue
                    if state in {"failed", "inactive"}:
                        down = down or at
                    elif state == "active" and down:
                        return at - down
        except TimeoutError as error:
            raise NeverSeenError(f"{unit}, {how}, is not active again") from error


def table(directory: Path, breaks: int, seed: int) -> Table:
    with lab("network") as cluster:
        node = cluster.network
        for unit in UNITS:
            node.write(f"/etc/systemd/system/{unit}", UNIT)
        service.enable(node, json.dumps({"services": {unit: {"state": "running"} for unit in UNITS}}))
        assert node.eventually(lambda: service.converged(node)), node.try_run("reconcile", "status")
        found = asyncio.run(_measure(node, directory, breaks, random.Random(seed)))
    rows = [_row(how, *found[how]) for how in found]
    for row in rows:
        say("  ".join(row))
    notes = (
        "milliseconds from the signal that the unit is not active to the one that it is; 10 units without Restart=;",
        f"blocks of {BLOCK} alternate, {WARM} uncounted before each. Aim: p50 within 2x, p99 within 4x. Seed {seed}.",
    )
    columns = ("drift", "breaks", "floor p50", "p99", "ours p50", "p99", "ratio p50", "p99")
    raw = {how: {"floor_seconds": floor, "ours_seconds": ours} for how, (floor, ours) in found.items()}
    return Table("Services", columns, rows, notes, raw)


def _row(how: str, floor: Sequence[float], ours: Sequence[float]) -> list[str]:
    times = [percentile(side, share) for side in (floor, ours) for share in (0.5, 0.99)]
    ratios = [f"{times[2] / times[0]:.2f}", f"{times[3] / times[1]:.2f}"]
    return [f"service {how}, of 10", str(len(ours)), *map(ms, times), *ratios]


async def _measure(
    node: Node, directory: Path, breaks: int, chance: random.Random
) -> dict[str, tuple[list[float], list[float]]]:
    socket = Path(f"/proc/{node.pid}/root/run/dbus/system_bus_socket")
    found: dict[str, tuple[list[float], list[float]]] = {}
    async with Bus.of(socket) as bus:
        for how in ("killed", "stopped"):
            floor, ours = found.setdefault(how, ([], []))
            left = breaks
            while left > 0:
                count = min(BLOCK, left)
                left -= count
                await asyncio.to_thread(node.run, "systemctl", "stop", "reconciler", timeout=30)
                with _floor(socket, bus, directory):
                    floor += await _block(bus, how, count, chance)
                await asyncio.to_thread(service.started, node)
                await asyncio.sleep(2.0)
                ours += await _block(bus, how, count, chance)
    return found


async def _block(bus: Bus, how: str, count: int, chance: random.Random) -> list[float]:
    times = []
    for at in range(WARM + count):
        took = await bus.break_one(UNITS[at % len(UNITS)], how)
        if at >= WARM:
            times.append(took)
        await asyncio.sleep(chance.uniform(0.15, 0.3))
    return times


@contextlib.contextmanager
def _floor(socket: Path, bus: Bus, directory: Path) -> Iterator[None]:
    spec = directory / "floor-services.json"
    spec.write_text(json.dumps({"units": {path: unit for unit, path in bus.paths.items()}}))
    program = Path(__file__).with_name("floor_services.py")
    argv = [sys.executable, str(program), str(socket), str(spec)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            said = running.stdout.readline()
            assert "ready" in said, said
            yield
        finally:
            running.terminate()
