"""Reading and writing one file: the state of a path, an atomic replacement of it, its marks.

Blocking; writes are called in a thread. A file is replaced by a new one that is written, synced and renamed over it,
with owner, mode and extended attributes of the old one unless others are asked for: a reader sees the old or the new
content whole, whenever the machine stops.
"""
# ruff: noqa: PTH101, PTH102, PTH104, PTH112, PTH108, PTH115, PTH118, PTH120 - what is meant is the system call

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import wraps
from typing import ParamSpec, TypeVar

from reconciler.errors import DriverError

LARGEST = 8 * 2**20
"""Bytes of a file that is held. What is larger is no configuration."""

XATTR = "trusted.reconciler.owner"
"""Extended attribute of a whole file of ours: owner and path, so that a copy elsewhere is not ours."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Kind(StrEnum):
    MISSING = "missing"
    REGULAR = "regular"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Signature:
    """What changes whenever a file does, as far as its inode says."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class FileState:
    """What is at a path. `real` is where the content is when the path is a link that is followed."""

    path: str
    kind: Kind
    real: str = ""
    content: bytes = field(default=b"", repr=False)
    uid: int = 0
    gid: int = 0
    permissions: int = 0
    signature: Signature | None = None
    mark: str = ""
    """The extended attribute, as we write it: ``OWNER PATH``."""
    target: str = ""
    """What a link points to."""

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a replacement is to be. None keeps what the old file has, or the default of a new one."""

    content: bytes = field(repr=False)
    uid: int | None = None
    gid: int | None = None
    permissions: int | None = None
    mark: str | None = None
    mtime_ns: int | None = None


def _mapped(what: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Turn an OSError into a DriverError that says what was attempted on what."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return function(*args, **kwargs)
            except OSError as error:
                raise DriverError(f"{what} {args[0]}: {error.strerror or error}") from error

        return call

    return decorate


@_mapped("reading")
def read(path: str, *, follow: bool) -> FileState:
    """What is at `path`. `follow` says whether a link stands for what it points to.

    Raises DriverError when it cannot be read, is larger than `LARGEST`, or is a link of somebody who is not root.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return FileState(path, Kind.MISSING, path)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(path)
        if not follow:
            return FileState(path, Kind.LINK, path, target=target)
        if status.st_uid not in {0, os.geteuid()}:
            raise DriverError(f"reading {path}: it is a link made by uid {status.st_uid}, which is not followed")
        real = os.path.realpath(path)
        return _content(path, real, target)
    if not stat.S_ISREG(status.st_mode):
        return FileState(path, Kind.OTHER, path)
    return _content(path, path, "")


def _content(path: str, real: str, target: str) -> FileState:
    try:
        fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return FileState(path, Kind.MISSING, real, target=target)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return FileState(path, Kind.OTHER, real, target=target)
        if status.st_size > LARGEST:
            raise DriverError(f"reading {path}: it has {status.st_size} bytes, and at most {LARGEST} are held")
        parts = []
        while part := os.read(fd, LARGEST):
            parts.append(part)
        mark = ""
        with contextlib.suppress(OSError):  # no such attribute, or a file system without any
            mark = os.getxattr(fd, XATTR).decode(errors="replace")
    finally:
        os.close(fd)
    return FileState(
        path,
        Kind.REGULAR,
        real,
        b"".join(parts),
        status.st_uid,
        status.st_gid,
        stat.S_IMODE(status.st_mode),
        _signature(status),
        mark,
        target,
    )


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@_mapped("replacing")
def replace(old: FileState, wanted: Wanted) -> None:
    """Put `wanted` where `old` was read (its `real`). Directories that are missing are made, 0755.

    Raises DriverError, and leaves the old file, when anything fails or `old` is not what is there any more.
    """
    target = old.real
    directory, name = os.path.split(target)
    _make_directory(directory)
    exists = old.kind is Kind.REGULAR
    fresh = os.path.join(directory, f".{name[:200]}.reconciler~")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)  # left by one that was killed here
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _fill(fd, old, wanted, exists=exists)
        _unchanged(target, old)
        os.rename(fresh, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    finally:
        os.close(fd)
    _sync_directory(directory)


def _make_directory(path: str) -> None:
    """It and its parents, 0755 whatever the umask of a hardened service: who reads the file may be another user."""
    if os.path.isdir(path):
        return
    _make_directory(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chmod(path, 0o755)  # noqa: S103 - as directories of /etc are


def _fill(fd: int, old: FileState, wanted: Wanted, *, exists: bool) -> None:
    rest = memoryview(wanted.content)
    while rest:
        rest = rest[os.write(fd, rest) :]
    uid = wanted.uid if wanted.uid is not None else old.uid if exists else os.geteuid()
    gid = wanted.gid if wanted.gid is not None else old.gid if exists else os.getegid()
    permissions = wanted.permissions if wanted.permissions is not None else old.permissions if exists else 0o644
    os.fchown(fd, uid, gid)
    if exists:
        _copy_xattrs(old.real, fd)
    os.fchmod(fd, permissions)  # after the attributes: an ACL's mask is the group's part of the mode
    if wanted.mark is not None:
        _set_mark(fd, wanted.mark)
    if wanted.mtime_ns is not None:
        os.utime(fd, ns=(wanted.mtime_ns, wanted.mtime_ns))
    os.fsync(fd)


def _copy_xattrs(source: str, fd: int) -> None:
    for name in os.listxattr(source, follow_symlinks=False):
        with contextlib.suppress(OSError):  # one that may not be set (a label without the right to) is inherited
            os.setxattr(fd, name, os.getxattr(source, name, follow_symlinks=False))


def _set_mark(target: int | str, mark: str) -> None:
    """Where the file system has no extended attributes, the header line is the only mark."""
    with contextlib.suppress(OSError):
        os.setxattr(target, XATTR, mark.encode())


def _unchanged(target: str, old: FileState) -> None:
    try:
        now = _signature(os.lstat(target))
    except FileNotFoundError:
        now = None
    if now != old.signature:
        raise DriverError(f"replacing {target}: somebody else wrote it at the same moment; it is looked at again")


def _sync_directory(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@_mapped("changing owner and mode of")
def set_attributes(old: FileState, uid: int, gid: int, permissions: int, mark: str | None) -> None:
    """Set what differs, in place."""
    _unchanged(old.real, old)
    fd = os.open(old.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if (uid, gid) != (old.uid, old.gid):
            os.fchown(fd, uid, gid)
        os.fchmod(fd, permissions)  # a change of owner clears setuid and setgid
        if mark is not None:
            _set_mark(fd, mark)
    finally:
        os.close(fd)


@_mapped("deleting")
def delete(old: FileState) -> None:
    """Delete the file that was read. One that is gone is fine."""
    if not os.path.lexists(old.path):
        return
    _unchanged(old.path, old)
    os.unlink(old.path)
    _sync_directory(os.path.dirname(old.path))
