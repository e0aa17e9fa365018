"""Tables as plain text, the numbers behind them as JSON, and which machine they were measured on. Nothing is judged."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """What one benchmark found. `notes` say how it was measured; every cell is printed as it is."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    raw: dict[str, Any] = field(default_factory=dict)
    """Numbers for the JSON file, units in the keys."""

    def text(self) -> str:
        every = [self.columns, *self.rows]
        widths = [max(len(row[at]) for row in every) for at in range(len(self.columns))]
        lines = [self.title, _line(self.columns, widths), "  ".join("-" * width for width in widths)]
        lines += [_line(row, widths) for row in self.rows]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def data(self) -> dict[str, Any]:
        return asdict(self)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = cells
    padded = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
    return "  ".join(padded).rstrip()


def say(text: str) -> None:
    """Progress, on stderr: stdout has the tables alone."""
    print(text, file=sys.stderr, flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that `share` of all do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def ms(seconds: float) -> str:
    """Milliseconds with three digits that mean something."""
    value = seconds * 1000
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def machine() -> dict[str, str]:
    """What a reader needs to compare: cores, CPU, memory, kernel, Open vSwitch, Python, and how busy it was."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    ovs = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, check=False, timeout=10)
    return {
        "cores": str(os.cpu_count()),
        "cpu": cpu[1].strip() if cpu else platform.machine(),
        "memory_GiB": f"{int(memory[1]) / 2**20:.0f}" if memory else "?",
        "kernel": platform.release(),
        "ovs": ovs.stdout.splitlines()[0].rpartition(" ")[2] if ovs.stdout else "?",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def heading(facts: dict[str, str]) -> str:
    return (
        f"{facts['cores']} cores, {facts['cpu']}, {facts['memory_GiB']} GiB; Linux {facts['kernel']}; "
        f"Open vSwitch {facts['ovs']} (userspace datapath); {facts['python']}; load {facts['load']}"
    )
