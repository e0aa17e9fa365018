"""Hundreds of namespaces with 10 NAT rules, 3 links and 3 routes each: convergence, a warm pass, the cost of idling."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from tests.benchmarks.daemon import Daemon, switch
from tests.benchmarks.report import Table, ms, percentile, say

SIZES = (200, 1_000)
PASSES = 5
IDLE = 30.0
PATIENCE = 300.0


def spaces(count: int) -> str:
    """The desired state; JSON is YAML."""
    return json.dumps(
        {
            "namespaces": {f"q{number}": _space(number) for number in range(count)},
            "rules": {f"q{number}": _rules(number) for number in range(count)},
        }
    )


def _space(number: int) -> dict[str, object]:
    near = f"10.{number >> 8 & 255}.{number & 255}"
    links = {
        "b0": {"type": "bridge", "addresses": [f"{near}.1/24"]},
        "b1": {"type": "bridge"},
        "b2": {"type": "bridge"},
    }
    routes = [{"to": f"172.{16 + at}.0.0/16", "via": f"{near}.7"} for at in range(3)]
    return {"links": links, "routes": routes}


def _rules(number: int) -> dict[str, object]:
    """Of the same form in every namespace, with other addresses: as routers have them."""
    near = f"10.{number >> 8 & 255}.{number & 255}"
    listed = [f"-d 203.0.{at}.{number & 255}/32 -j DNAT --to-destination {near}.{10 + at}" for at in range(10)]
    return {"raw": {"nat": {"PREROUTING": listed}}}


def table(directory: Path) -> Table:
    rows, raw = [], {}
    for count in SIZES:
        with switch(directory, f"scale{count}") as ovs:
            daemon = Daemon(ovs)
            daemon.declare(spaces(count))
            # While the kernel takes down an earlier run's namespaces it makes no new one, for ten seconds and more.
            subprocess.run(["unshare", "--net", "true"], check=True)
            began = time.monotonic()
            daemon.start()
            first = daemon.settled(PATIENCE) - began
            daemon.quiet()
            daemon.end()
            began = time.monotonic()
            daemon.start()
            again = daemon.settled(PATIENCE) - began
            daemon.quiet()
            warm = [_once(daemon) for _ in range(PASSES)]
            daemon.quiet()
            files = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
            pss = daemon.pss()
            before, began = daemon.cpu_exact(), time.monotonic()
            time.sleep(IDLE)
            share = (daemon.cpu_exact() - before) / (time.monotonic() - began)
            daemon.end()
        raw[str(count)] = {
            "first_seconds": first, "start_seconds": again, "warm_seconds": warm,
            "files": files, "pss_bytes": pss, "idle_cpu_share": share,
        }  # fmt: skip
        row = [
            f"{count:,}", f"{first:.1f} s", f"{again:.1f} s", ms(percentile(warm, 0.5)), ms(max(warm)),
            f"{pss / 2**20:.0f}", str(files), f"{share:.2%}",
        ]  # fmt: skip
        say("  ".join(row))
        rows.append(row)
    notes = (
        "each namespace has 10 NAT rules, 3 links, 3 routes. First: from nothing to converged; start: on the converged",
        f"node; both with process start. Warm: {PASSES} times --once of the running daemon, ms (aim for 1,000: 500).",
        f"PSS in MiB after that. Idle: of one core over {IDLE:g} s, all threads (aim 0.5 %).",
    )
    columns = ("namespaces", "first", "start", "warm p50", "max", "PSS", "files", "idle CPU")
    return Table("Many namespaces", columns, rows, notes, raw)


def _once(daemon: Daemon) -> float:
    began = time.monotonic()
    result = json.loads(daemon.post("/api/v1/once", {}))
    assert result["exit_code"] == 0, result
    return time.monotonic() - began
