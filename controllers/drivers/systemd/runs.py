"""What the present run of a unit has read, at its start or at a reload, remembered where it ends with it: its cgroup.

A restarted daemon so knows whether a file that is newer than a process has other content than the process has read.
Where the cgroup takes no attribute, nothing is remembered, and the time of change of the file decides.
"""

from __future__ import annotations

import contextlib
import os
from enum import StrEnum

_CGROUPS = "/sys/fs/cgroup"


class Reading(StrEnum):
    """When a run has read the files: at its start, or at its last reload. The attribute's name."""

    AT_START = "trusted.reconciler.loaded"
    AT_RELOAD = "trusted.reconciler.reloaded"


def remember(cgroup: str, started: float, digest: str, reading: Reading = Reading.AT_START) -> None:
    """`cgroup` as systemd names it (ControlGroup); `started` is the start of the run, wall-clock seconds."""
    if cgroup:
        with contextlib.suppress(OSError):
            os.setxattr(f"{_CGROUPS}{cgroup}", reading, f"{started:.6f} {digest}".encode())


def recall(cgroup: str, started: float, reading: Reading = Reading.AT_START) -> str:
    """The digest that was remembered of this very run; '' when none was."""
    if not cgroup:
        return ""
    try:
        kept = os.getxattr(f"{_CGROUPS}{cgroup}", reading).decode(errors="replace")
    except OSError:
        return ""
    when, _, digest = kept.partition(" ")
    return digest if when == f"{started:.6f}" else ""
