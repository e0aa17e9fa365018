"""The few system calls that Python 3.11 does not have: namespaces, mounts, bounding set, death with the parent.

Used by the sandboxed node (``tests/lab/sandbox.py``) and nothing else. Every call raises OSError with what was asked.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from enum import IntEnum, IntFlag

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_MNT_DETACH = 2


class Clone(IntFlag):
    """Namespaces, as unshare(2) has them."""

    MOUNT = 0x00020000
    CGROUP = 0x02000000
    UTS = 0x04000000
    IPC = 0x08000000
    PID = 0x20000000
    NET = 0x40000000


class Mount(IntFlag):
    """Flags of mount(2)."""

    NONE = 0
    READ_ONLY = 1
    NO_SUID = 2
    NO_DEV = 4
    NO_EXEC = 8
    REMOUNT = 32
    BIND = 4096
    RECURSIVE = 16384
    PRIVATE = 1 << 18
    SHARED = 1 << 20


class Capability(IntEnum):
    """Numbers (not bits) of capabilities(7) that a sandboxed node must not have: they act on the whole machine."""

    SYS_MODULE = 16
    SYS_RAWIO = 17
    SYS_BOOT = 22
    SYS_TIME = 25
    MKNOD = 27
    SYSLOG = 34


def unshare(namespaces: Clone) -> None:
    _check(_libc.unshare(int(namespaces)), f"unshare({namespaces!r})")


def mount(source: str, target: str, fstype: str, flags: Mount = Mount.NONE, options: str = "") -> None:
    """mount(2). `source` and `fstype` may be empty for what the flags say alone."""
    words = [word.encode() if word else None for word in (source, target, fstype)]
    done = _libc.mount(*words, ctypes.c_ulong(int(flags)), options.encode() or None)
    _check(done, f"mount {fstype or flags!r} {source} on {target}")


def bind_read_only(source: str, target: str) -> None:
    """Show `source` (a directory with what is mounted in it, or a file) at `target`; nobody can write through it."""
    mount(source, target, "", Mount.BIND | Mount.RECURSIVE)
    mount("", target, "", Mount.BIND | Mount.REMOUNT | Mount.READ_ONLY)


def pivot_root(new_root: str) -> None:
    """Make `new_root` (a mount point) the root of this mount namespace and let go of the old one."""
    os.chdir(new_root)
    # There is no libc function and its number differs between machines; util-linux is part of every Debian.
    subprocess.run(["pivot_root", ".", "."], check=True, timeout=10)
    _check(_libc.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")


def die_with_parent(signal: int) -> None:
    """Have the kernel send `signal` to this process when its parent is gone."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def drop_capabilities() -> None:
    """Take the machine-wide capabilities from the bounding set of whatever this process executes."""
    for capability in Capability:
        _check(_libc.prctl(_PR_CAPBSET_DROP, int(capability), 0, 0, 0), f"drop of CAP_{capability.name}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
