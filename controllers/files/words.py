"""How files and their differences are told to people: short, one line, no secret."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from controllers.drivers.files.disk import FileState, Kind
from desired.kinds.file import SECRET

_LONGEST = 120


def permissions(uid: int, gid: int, bits: int) -> str:
    return f"{uid}:{gid} {bits:04o}"


def shown(value: str | Sequence[str] | None, *, secret: bool = False) -> str:
    """A value, or the values of a key's lines; '' when there is none."""
    if value is None or (not isinstance(value, str) and not value):
        return ""
    if secret:
        return SECRET
    text = repr(value) if isinstance(value, str) else ", ".join(map(repr, value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def difference(state: FileState, content: bytes) -> tuple[str, str]:
    """Before and after of the first line that differs, and how many lines there are."""
    if state.kind is not Kind.REGULAR:
        return state.kind.value, f"{len(content)} bytes"
    old, new = (text.decode(errors="replace").split("\n") for text in (state.content, content))
    for number, (before, after) in enumerate(zip_longest(old, new), 1):
        if before != after:
            return f"line {number}: {_line(before)}", f"line {number}: {_line(after)}"
    return f"{len(state.content)} bytes", f"{len(content)} bytes"


def _line(text: str | None) -> str:
    return "not there" if text is None else shown(text)
