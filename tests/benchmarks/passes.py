"""Passes over a node of 10,000 flows and 1,000 ports, and a full dump-and-compare against ``ovs-ofctl dump-flows``."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from controllers.catalog import Catalog
from desired.snapshot import Snapshot
from reconciler.assembly import load_desired
from reconciler.book import DesiredBook
from reconciler.contract import Scope
from reconciler.settings import Settings
from tests.benchmarks.daemon import Daemon, switch
from tests.benchmarks.nodes import node
from tests.benchmarks.report import Table, ms, percentile, say
from tests.ovs import PrivateOvs

FLOWS, PAIRS = 10_000, 500
ROUNDS = 15


def table(directory: Path) -> Table:
    """First convergence, cold start on a converged node, warm full passes, and the dump-and-compare."""
    with switch(directory, "passes") as ovs:
        daemon = Daemon(ovs)
        daemon.declare(node(flows=FLOWS, pairs=PAIRS))
        rows, raw = [], {}

        def found(what: str, times: list[float], note: str = "") -> None:
            rows.append([what, str(len(times)), ms(percentile(times, 0.5)), ms(max(times)), note])
            raw[what] = times
            say("  ".join(rows[-1]))

        found("from an empty Open vSwitch to converged", [_start(daemon)], "process start included")
        daemon.quiet()
        daemon.end()
        cold = []
        for _ in range(3):
            cold.append(_start(daemon))
            daemon.quiet()
            daemon.end()
        found("cold: converged node, start to converged", cold, "process start included")
        daemon.start()
        daemon.settled()
        daemon.quiet()
        every = [_warm(daemon) for _ in range(ROUNDS)]
        for part in every[0]:
            found(part, [times[part] for times in every])
        daemon.end()
        ours, theirs, observed = asyncio.run(_compare(ovs, daemon))
        found("dump and compare all flows (driver and diff)", ours)
        found("compare alone (observe and diff)", observed)
        found("ovs-ofctl dump-flows", theirs)
        ratio = percentile(ours, 0.5) / percentile(theirs, 0.5)
    notes = (
        f"milliseconds; {FLOWS:,} flows and {2 * PAIRS:,} ports; the last three were interleaved.",
        f"dump and compare / ovs-ofctl dump-flows: {ratio:.2f}. Aim: under 1.5.",
    )
    return Table("Passes", ("what", "times", "p50", "max", ""), rows, notes, {**raw, "ratio": ratio})


def _start(daemon: Daemon) -> float:
    began = time.monotonic()
    daemon.start()
    return daemon.settled() - began


def _warm(daemon: Daemon) -> dict[str, float]:
    """One ``--once`` of the running daemon: everything is dumped, proven and compared."""
    before = daemon.metrics()
    began = time.monotonic()
    result = json.loads(daemon.post("/api/v1/once", {}))
    took = time.monotonic() - began
    assert result["exit_code"] == 0, result
    after = daemon.metrics()
    times = {"warm: --once asked of the daemon": took}
    for controller in ("ovsdb", "flow"):
        name = f'reconciler_pass_seconds_sum{{controller="{controller}"}}'
        times[f"  of it passes over {controller} (observe, diff)"] = after[name] - before[name]
    return times


async def _compare(ovs: PrivateOvs, daemon: Daemon) -> tuple[list[float], list[float], list[float]]:
    """The real driver and the real diff, in this process, alternating with ovs-ofctl."""
    settings = Settings.load(daemon.settings)
    catalog = Catalog.build(settings)
    book = DesiredBook(catalog.all())
    book.take(Snapshot.of(load_desired(settings).resources))
    scope = Scope("flow", "br-int")
    view = book.view(scope, frozenset())
    controller = catalog.openflow

    async def follow() -> None:
        async for _ in controller.watch():
            pass

    async def compare() -> None:
        plan = controller.diff(view, await controller.observe(view, None))
        assert not plan, plan

    async def prove() -> None:
        await controller.prove(scope)
        await compare()

    async def dump() -> None:
        argv = ("ovs-ofctl", "-OOpenFlow14", "dump-flows", "br-int")
        process = await asyncio.create_subprocess_exec(*argv, env=ovs.env, stdout=subprocess.DEVNULL)
        assert await process.wait() == 0

    watching = asyncio.create_task(follow(), name="watch")
    try:
        await asyncio.sleep(0)
        await compare()
        ours, theirs, observed = [], [], []
        for _ in range(ROUNDS):
            ours.append(await _timed(prove))
            theirs.append(await _timed(dump))
            observed.append(await _timed(compare))
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return ours, theirs, observed


async def _timed(what: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await what()
    return time.perf_counter() - began
