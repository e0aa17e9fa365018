"""INI files as text: what a key says, and the text in which it says something else. Pure; all other lines stay.

As oslo.config, crudini and most daemons read them: a key ends at the first ``=`` or ``:``, a line that is indented
deeper than its key goes on with the value, ``#`` and ``;`` begin comments only at the beginning of a line. A key may
stand several times; a section too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

_BLANK = " \t\r"
_HEADER = re.compile(r"\[([^\]]*)\]")
_COMMENTED = re.compile(r"[#;]\s*([^=:#;\s][^=:]*?)\s*[=:]")


class _Item(NamedTuple):
    """One line of a key, with the lines that go on with it: [start, end) in the file's lines."""

    start: int
    end: int
    value: str


@dataclass(slots=True)
class _Section:
    """The lines of one header: [start, end), the header itself included. `last` is its last line with a key."""

    name: str
    start: int
    end: int
    last: int


@dataclass(slots=True)
class Ini:
    """A parsed file. `values` maps (section, key) to the values of its lines, in order."""

    lines: list[str]
    items: dict[tuple[str, str], list[_Item]] = field(default_factory=dict)
    sections: list[_Section] = field(default_factory=list)

    @property
    def values(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        return {place: tuple(item.value for item in items) for place, items in self.items.items()}

    def get(self, section: str, key: str) -> tuple[str, ...]:
        return tuple(item.value for item in self.items.get((section, key), ()))


@lru_cache(maxsize=8)
def parse(text: str) -> Ini:
    """Read a file's text. Nothing in it is an error: what is no key, header or comment is left alone.

    The result is kept, for the edit that follows a look and for the looks at what has not changed: do not change it.
    """
    ini = Ini(text.split("\n"))
    section = _Section("", 0, 0, -1)
    ini.sections.append(section)
    items, key, indent = ini.items, "", 0
    for number, line in enumerate(ini.lines):
        bare = line.strip(_BLANK)
        if not bare or bare[0] in "#;":
            continue
        depth = 0 if line[0] not in _BLANK else len(line) - len(line.lstrip(_BLANK))
        if key and depth > indent:
            _continue(ini, section, key, number, bare)
            continue
        if bare[0] == "[" and (header := _HEADER.match(bare)):
            section.end = number
            section = _Section(header[1].strip(_BLANK), number, 0, number)
            ini.sections.append(section)
            key = ""
            continue
        key, value = _split(bare)
        indent = depth
        item, place = _Item(number, number + 1, value), (section.name, key)
        if place in items:
            items[place].append(item)
        else:
            items[place] = [item]
        section.last = number
    section.end = len(ini.lines)
    return ini


def _continue(ini: Ini, section: _Section, key: str, number: int, bare: str) -> None:
    items = ini.items[section.name, key]

    items[-1] = _Item(items[-1].start, number + 1, f"{items[-1].value}\n{bare}")
    section.last = number


def _split(bare: str) -> tuple[str, str]:
    key, equals, value = bare.partition("=")
    if ":" in key:
        key, equals, value = bare.partition(":")
    return key.rstrip(_BLANK), value.lstrip(_BLANK) if equals else ""


def edit(text: str, section: str, key: str, values: Sequence[str]) -> str:
    """Return the text in which `key` of `section` has exactly these values, one line each; none: it is not there.

    Lines that are there are changed in place. A new one comes after the last of its key, after its commented-out
    default, at the end of its section, or in a new section at the end of the file.
    """
    ini = parse(text)
    if ini.get(section, key) == tuple(values):
        return text
    items = ini.items.get((section, key), [])
    lines: list[str | None] = list(ini.lines)
    ending = "\r" if ini.lines[0].endswith("\r") else ""
    for item, value in zip(items, values, strict=False):
        if item.value != value:
            lines[item.start] = _changed(ini, item.start, value) + ending
            lines[item.start + 1 : item.end] = [None] * (item.end - item.start - 1)
    for item in items[len(values) :]:
        lines[item.start : item.end] = [None] * (item.end - item.start)
    fresh = values[len(items) :]
    if not fresh:
        return _joined(lines)
    equals = _equals(ini)
    wanted = {**ini.values, (section, key): tuple(values)}
    for after, above, indent in _places(ini, section, key):
        added = [*above, *(f"{indent}{key}{equals}{value}".rstrip(_BLANK) for value in fresh)]
        edited = _inserted(lines, after, [f"{line}{ending}" for line in added])
        if parse(edited).values == wanted:
            break
    return edited


def _inserted(lines: Sequence[str | None], after: int, fresh: Sequence[str]) -> str:
    if after == len(lines) - 1 and lines[after] == "":
        after -= 1  # the text ends with a newline, and goes on ending with it
    closing = [""] if after == len(lines) - 1 else []
    return _joined([*lines[: after + 1], *fresh, *closing, *lines[after + 1 :]])


def _joined(lines: Sequence[str | None]) -> str:
    return "\n".join(line for line in lines if line is not None)


def _changed(ini: Ini, number: int, value: str) -> str:
    """The line with another value; its indentation, key and spacing stay."""
    line = ini.lines[number].rstrip(_BLANK)
    found = re.match(r"(\s*[^=:]*?)(\s*)([=:])([ \t]*)(.*)", line)
    if found is None:
        return line + f"{_equals(ini)}{value}".rstrip(_BLANK)
    key, before, sign, after, old = found.groups()
    gap = after if old else (" " if before else after)
    return f"{key}{before}{sign}{gap}{value}".rstrip(_BLANK)


def _equals(ini: Ini) -> str:
    """How this file writes a key and its value: ``k = v``, which is usual, or ``k=v``."""
    tight = wide = 0
    for line in _key_lines(ini):
        found = re.match(r"\s*[^=:]*?(\s*)[=:]", line)
        if found is not None:
            tight, wide = tight + (not found[1]), wide + bool(found[1])
    return "=" if tight > wide else " = "


def _key_lines(ini: Ini) -> Iterator[str]:
    """The lines that begin a key."""
    for items in ini.items.values():
        for item in items:
            yield ini.lines[item.start]


def _places(ini: Ini, section: str, key: str) -> Iterator[tuple[int, list[str], str]]:
    """Where a new line may go, best first: the line before it, what comes above it, its indentation.

    The last is always right: what is indented deeper elsewhere would otherwise go on with our value.
    """
    items = ini.items.get((section, key))
    found = [one for one in ini.sections if one.name == section]
    if items:
        yield items[-1].end - 1, [], _indent(ini.lines[items[-1].start])
    for one in found:
        default = _commented(ini, one, key)
        if default is not None:
            yield default, [], _indent_in(ini, one)
    for one in found:
        yield one.last, [], _indent_in(ini, one)
    if section:
        gap = [""] if any(line.strip(_BLANK) for line in ini.lines) else []
        yield len(ini.lines) - 1, [*gap, f"[{section}]"], ""
    else:
        yield -1, [], ""


def _commented(ini: Ini, section: _Section, key: str) -> int | None:
    """The last line of the section in which the key is commented out."""
    found = None
    for number in range(section.start, section.end):
        line = ini.lines[number].strip(_BLANK)
        if key in line and (said := _COMMENTED.match(line)) and said[1] == key:
            found = number
    return found


def _indent_in(ini: Ini, section: _Section) -> str:
    """As deep as its last key; in an empty section as deep as the header below, which must not go on with ours."""
    keys = sorted(item.start for items in ini.items.values() for item in items)
    mine = [number for number in keys if section.start <= number < section.end]
    if mine:
        return _indent(ini.lines[mine[-1]])
    return _indent(ini.lines[section.end]) if section.end < len(ini.lines) else ""


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(_BLANK))]
