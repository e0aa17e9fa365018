"""What the present run of a unit was started with, remembered where it goes away with the run: at its cgroup.

A restarted daemon so knows whether a file that is newer than a process has other content than the process has read.
Where the cgroup takes no attribute, nothing is remembered, and the time of change of the file decides.
"""

from __future__ import annotations

import contextlib
import os

_CGROUPS = "/sys/fs/cgroup"
_XATTR = "trusted.reconciler.loaded"


def remember(cgroup: str, started: float, digest: str) -> None:
    """`cgroup` as systemd names it (ControlGroup); `started` is the start of the run, wall-clock seconds."""
    if cgroup:
        with contextlib.suppress(OSError):
            os.setxattr(f"{_CGROUPS}{cgroup}", _XATTR, f"{started:.6f} {digest}".encode())


def recall(cgroup: str, started: float) -> str:
    """The digest that was remembered of this very run; '' when none was."""
    if not cgroup:
        return ""
    try:
        kept = os.getxattr(f"{_CGROUPS}{cgroup}", _XATTR).decode(errors="replace")
    except OSError:
        return ""
    when, _, digest = kept.partition(" ")
    return digest if when == f"{started:.6f}" else ""
