"""A storm: 5,000 flow deletions and 500 port deletions within a second, by raw means, on a node of 10,000 and 1,000."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.flows import DeleteFlow
from tests.benchmarks.daemon import Daemon, meanwhile, switch
from tests.benchmarks.lag import Lags, watched
from tests.benchmarks.nodes import node
from tests.benchmarks.report import Table, ms, say
from tests.benchmarks.wire import FlowWire, OvsdbWire, until

FLOWS, PAIRS = 10_000, 500
DELETED, FLAPS = 5_000, 500
STEPS = 100


@dataclass(slots=True)
class _Seen:
    """What /metrics said while it went on: (seconds since the storm began, depth, age of the oldest event)."""

    samples: list[tuple[float, float, float]] = field(default_factory=list)
    scrapes: list[float] = field(default_factory=list)


def table(directory: Path) -> Table:
    """Break for a second, then wait until flows and ports are all there, and the daemon says so."""
    with switch(directory, "storm") as ovs:
        daemon = Daemon(ovs)
        daemon.declare(node(flows=FLOWS, pairs=PAIRS))
        daemon.start()
        daemon.settled(180.0)
        daemon.quiet()
        with contextlib.ExitStack() as stack:
            flows = stack.enter_context(contextlib.closing(FlowWire(ovs.rundir, "br-int")))
            rows = stack.enter_context(contextlib.closing(OvsdbWire(ovs.rundir / "db.sock")))
            before = daemon.metrics()
            began = time.monotonic()
            with _sampled(daemon, began) as seen, watched(daemon) as lags:
                broke = _storm(flows, rows)
                ended = time.monotonic()
                say(f"storm of {broke:.2f} s is over, {flows.count():,} flows and {_ports(rows)} ports are there")
                whole = until(
                    lambda: flows.count() == FLOWS and _ports(rows) == 2 * PAIRS, "not all came back", 120.0, 0.05
                )
                said = daemon.settled(120.0)
            daemon.quiet()
            after = daemon.metrics()
        daemon.end()
    return _table(before, after, seen, lags, (broke, whole - ended, said - ended))


def _storm(flows: FlowWire, rows: OvsdbWire) -> float:
    """Evenly over a second; how long it really took."""
    deletes = [codec.encode(DeleteFlow(key), 10_000 + n) for n, key in enumerate(sorted(flows.dump())[:DELETED])]
    ports = {row["name"]: row["_uuid"] for row in rows.rows("Port", ("_uuid", "name"))}
    flaps = [(f"pt{n}", "br-int") for n in range(PAIRS)][:FLAPS]
    began = time.monotonic()
    for step in range(STEPS):
        flows.send(b"".join(deletes[step * DELETED // STEPS : (step + 1) * DELETED // STEPS]))
        for name, bridge in flaps[step * FLAPS // STEPS : (step + 1) * FLAPS // STEPS]:
            mutations = [["ports", "delete", ports[name]]]
            rows.send(
                "transact",
                ["Open_vSwitch", {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
                                  "mutations": mutations}],
            )  # fmt: skip
        rows.discard()
        time.sleep(max(0.0, began + (step + 1) / STEPS - time.monotonic()))
    flows.barrier()
    return time.monotonic() - began


def _ports(rows: OvsdbWire) -> int:
    return sum(row["name"][:2] in {"pt", "pi"} for row in rows.rows("Port", ("name",)))


@contextlib.contextmanager
def _sampled(daemon: Daemon, began: float) -> Iterator[_Seen]:
    """Scrape /metrics ten times a second meanwhile."""
    seen = _Seen()

    def scrape(stop: threading.Event) -> None:
        while not stop.wait(0.1):
            at = time.monotonic()
            metrics = daemon.metrics()
            seen.scrapes.append(time.monotonic() - at)
            depth, age = metrics["reconciler_queue_depth"], metrics["reconciler_queue_oldest_seconds"]
            seen.samples.append((at - began, depth, age))

    with meanwhile(scrape, "scraper"):
        yield seen


def _table(
    before: dict[str, float], after: dict[str, float], seen: _Seen, lags: Lags, took: tuple[float, float, float]
) -> Table:
    broke, whole, said = took

    def grown(name: str) -> float:
        return sum(value - before.get(key, 0.0) for key, value in after.items() if key.startswith(name))

    passes = {name: grown(f'reconciler_passes_total{{controller="{name}"') for name in ("ovsdb", "flow")}
    oldest = max((age for _, _, age in seen.samples), default=0.0)
    rows = [
        ["the storm itself", f"{broke:.2f} s"],
        ["end of storm to all flows and ports back", f"{whole:.2f} s"],
        ["end of storm to converged, says the daemon", f"{said:.2f} s"],
        ["passes over OVSDB (1 scope)", f"{passes['ovsdb']:.0f}"],
        ["passes over flows (2 scopes)", f"{passes['flow']:.0f}"],
        lags.row(),
        ["samples of /metrics meanwhile", str(len(seen.samples))],
        ["slowest of these scrapes", f"{ms(max(seen.scrapes))} ms"],
        ["oldest waiting event seen in them", f"{ms(oldest)} ms"],
    ]
    notes = (
        f"{DELETED:,} of {FLOWS:,} flows and {FLAPS} of {2 * PAIRS:,} ports deleted one by one within a second.",
        "Aims: fewer than 20 passes per scope, loop lag under 50 ms, queue age visible throughout.",
    )
    raw = {"passes": passes, "samples": seen.samples, "whole_seconds": whole, "said_seconds": said, "lags_s": lags.seen}
    return Table("Storm", ("what", "value"), rows, notes, raw)
