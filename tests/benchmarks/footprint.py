"""What the daemon costs when nothing happens: memory (PSS) at 10 and at 10,000 flows, CPU while idle."""

from __future__ import annotations

import time
from pathlib import Path

from tests.benchmarks.daemon import Daemon, switch
from tests.benchmarks.nodes import node
from tests.benchmarks.report import Table, say

IDLE = 30.0


def table(directory: Path) -> Table:
    """A node each; memory after everything converged and was looked at once more, CPU over half a minute."""
    rows, raw = [], {}
    for flows in (10, 10_000):
        with switch(directory, f"idle{flows}") as ovs:
            daemon = Daemon(ovs)
            daemon.declare(node(flows=flows, pairs=1))
            daemon.start()
            daemon.settled()
            daemon.quiet()
            first = daemon.pss()
            daemon.post("/api/v1/once", {})
            daemon.quiet()
            later = daemon.pss()
            before, began = daemon.cpu_exact(), time.monotonic()
            time.sleep(IDLE)
            share = (daemon.cpu_exact() - before) / (time.monotonic() - began)
            daemon.end()
        row = [f"{flows:,}", _mib(first), _mib(later), f"{share:.2%}"]
        say("  ".join(row))
        rows.append(row)
        raw[str(flows)] = {"pss_bytes": first, "pss_after_once_bytes": later, "idle_cpu_share": share}
    notes = (
        f"PSS in MiB (/proc/PID/smaps_rollup); CPU of one core over {IDLE:g} s, all threads, nobody scraping.",
        "Aims: 90 MiB at 10 flows, 150 MiB at 10,000; idle CPU under 0.3 %.",
    )
    return Table("Footprint", ("flows", "PSS converged", "PSS after --once", "idle CPU"), rows, notes, raw)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"
