"""Blocks between marker lines in a file of somebody else. Pure; all other lines stay.

    # BEGIN reconciler: NAME
    ...
    # END reconciler: NAME

A block keeps its place; a new one comes at the end. Where somebody deleted one of the markers, what follows (or
precedes) the other counts as the block as far as it is what was declared.
"""

from __future__ import annotations

from collections.abc import Sequence


def markers(name: str, comment: str) -> tuple[str, str]:
    return f"{comment} BEGIN reconciler: {name}", f"{comment} END reconciler: {name}"


def get(text: str, name: str, comment: str) -> str | None:
    """The lines of the block; None when there is none, or more than one, or a marker is missing."""
    begin, end = markers(name, comment)
    lines = _lines(text)
    if lines.count(begin) != 1 or lines.count(end) != 1 or lines.index(begin) > lines.index(end):
        return None
    return "\n".join(lines[lines.index(begin) + 1 : lines.index(end)])


def absent(text: str, name: str, comment: str) -> bool:
    return not set(markers(name, comment)) & set(_lines(text))


def edit(text: str, name: str, comment: str, body: str | None) -> str:
    """Return the text with this block saying `body`; None takes it away."""
    begin, end = markers(name, comment)
    declared = [] if body is None else body.split("\n")
    lines = text.split("\n")
    place: int | None = None
    while (at := _first(lines, begin, end)) is not None:
        start, stop = _extent(lines, at, begin, end, declared)
        del lines[start:stop]
        if place is None:
            place = start
    if body is not None:
        if place is None:
            if lines[-1]:
                lines.append("")
            place = len(lines) - 1
        lines[place:place] = [begin, *declared, end]
    return "\n".join(lines)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.split("\n")]


def _first(lines: Sequence[str], begin: str, end: str) -> int | None:
    return next((number for number, line in enumerate(lines) if line.rstrip() in {begin, end}), None)


def _extent(lines: Sequence[str], at: int, begin: str, end: str, declared: Sequence[str]) -> tuple[int, int]:
    """The lines [start, stop) of the block whose first marker is at `at`."""
    if lines[at].rstrip() == begin:
        for number in range(at + 1, len(lines)):
            if lines[number].rstrip() == end:
                return at, number + 1
            if lines[number].rstrip() == begin:
                break
        stop = at + 1
        for line in declared:
            if stop < len(lines) and lines[stop] == line:
                stop += 1
        return at, stop
    start = at
    for line in reversed(declared):
        if start > 0 and lines[start - 1] == line:
            start -= 1
    return start, at + 1
