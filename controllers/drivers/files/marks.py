"""How a whole file says that it is ours: a header line, and the same as an extended attribute.

Both name the path, so that a copy or a renamed file is nobody's mistake: it is not ours. The attribute survives a
writer who truncates the file, the header a tool that copies without attributes; either is enough.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from controllers.drivers.files.disk import XATTR, FileState

_HEADER = "X-Reconciler-Owner="
_WORDS = "held as declared, edits are undone"
_LOOKED_AT = 1024
SYSTEM = "/etc"
"""Where files of ours that are no longer declared are looked for at the start."""


def xattr(owner: str, path: str) -> str:
    return f"{owner} {path}"


def header(owner: str, path: str, comment: str) -> str:
    """The line that marks a file, without its newline; '' when the file has no comments."""
    return f"{comment} {_HEADER}{owner} {path} ({_WORDS})" if comment else ""


def with_header(content: bytes, owner: str, path: str, comment: str) -> bytes:
    """The content with the header line: first, or second after ``#!``."""
    line = header(owner, path, comment).encode()
    if not line:
        return content
    if content.startswith(b"#!"):
        first, _, rest = content.partition(b"\n")
        return b"\n".join((first, line, rest))
    return line + b"\n" + content


def is_ours(state: FileState, owner: str) -> bool:
    return state.mark == xattr(owner, state.path) or _says(state.content, owner, state.path)


def _says(content: bytes, owner: str, path: str) -> bool:
    mark = f"{_HEADER}{owner} {path} (".encode()
    return any(mark in line for line in content[:_LOOKED_AT].split(b"\n", 2)[:2])


def find(owner: str, top: str = SYSTEM, *, deep: bool = True) -> Iterator[str]:
    """The whole files of ours below `top`. Blocking: some 10 microseconds a file. What cannot be read is not ours."""
    pending = [top]
    while pending:
        directory = pending.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if deep:
                    pending.append(entry.path)
            elif entry.is_file(follow_symlinks=False) and _marked(entry.path, owner):
                yield entry.path


def _marked(path: str, owner: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if _says(os.read(fd, _LOOKED_AT), owner, path):
            return True
        return os.getxattr(fd, XATTR).decode(errors="replace") == xattr(owner, path)
    except OSError:  # no such attribute
        return False
    finally:
        os.close(fd)
