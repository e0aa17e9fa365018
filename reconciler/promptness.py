"""Ask the scheduler for short turns that come soon, for the thread that repairs.

`ovs-vswitchd` runs at nice -10 and rebuilds what it has at the very moment at which there is something to repair. Woken
on its core, the daemon waited until it had done (a millisecond, the other core idle). A thread that asks for shorter
turns goes before one of longer turns as soon as it is woken; its share of the processor stays what its niceness makes
it. Called by the composition root, once; under a filter of system calls that forbids it (that of the unit), whoever
starts the daemon asks for it: ``python -m reconciler.promptness PID``.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from reconciler.errors import DriverError

TURN = 0.0001
"""Seconds, the least that the kernel takes."""

_SET, _GET = {"x86_64": (314, 315), "aarch64": (274, 275)}.get(os.uname().machine, (-1, -1))
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period (the last three in nanoseconds)."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def take_short_turns(pid: int = 0, turn: float = TURN) -> None:
    """For a process's first thread, and what it starts from then on; 0: the calling thread.

    Kernels before 6.12 accept it and change nothing.

    Raises DriverError when it is refused (a filter of system calls, a machine whose numbers are not known).
    """
    nice = os.getpriority(os.PRIO_PROCESS, pid)  # not os.nice(0): the unit's filter takes it for a change
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, round(turn * 1e9), 0, 0)
    if _LIBC.syscall(_SET, pid, attributes, 0) != 0:
        words = os.strerror(ctypes.get_errno())
        raise DriverError(f"sched_setattr for turns of {turn * 1000:g} ms: {words}")


def turn_taken(pid: int = 0) -> tuple[float, int]:
    """(turn in seconds, niceness) of a process's first thread, as the kernel has them. Raises DriverError."""
    buffer = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if _LIBC.syscall(_GET, pid, buffer, _ATTRIBUTES.size, 0) != 0:
        raise DriverError(f"sched_getattr: {os.strerror(ctypes.get_errno())}")
    _, _, _, nice, _, runtime, _, _ = _ATTRIBUTES.unpack(buffer.raw)
    return runtime / 1e9, nice


if __name__ == "__main__":
    try:
        take_short_turns(int(sys.argv[1]))
    except DriverError as refused:
        sys.exit(str(refused))
