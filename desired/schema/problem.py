"""What can be wrong with a tree of YAML: one record for each mistake, and the list they are collected in.

`Problem` has the same fields as `reconciler.report.Problem`, which is what the doors print; this package sits below
the engine and does not import it. Nothing here raises: a mistake is data, and reading goes on to find the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. Lines and columns count from 1, 0 when it is not about a place; `hint` says what would be right."""

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: " if self.file else ""
        where = f"{self.path}: " if self.path else ""
        return f"{place}{where}{self.message}" + (f" ({self.hint})" if self.hint else "")


class Place(Protocol):
    """Anything that knows where it is written."""

    @property
    def line(self) -> int: ...

    @property
    def column(self) -> int: ...


class Problems:
    """The problems of one file, each said once: what an alias repeats is not reported for every use of it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.complete = True
        """False when a document, or for whom one is, could not be read: what it declares is then unknown."""
        self.hiding = False
        """True when a mistake hides things of which not even the names are known."""
        self._found: dict[tuple[int, int, str], Problem] = {}
        self._spoilt: set[tuple[int, int]] = set()

    def add(self, message: str, at: Place, *, path: str = "", hint: str = "", hides: bool = True) -> None:
        """`hides`: what is declared there remains unknown."""
        self.hiding |= hides
        if (at.line, at.column) not in self._spoilt:
            key = (at.line, at.column, message)
            problem = Problem(_visible(message), self.file, at.line, at.column, _visible(path), _visible(hint))
            self._found.setdefault(key, problem)

    def spoil(self, message: str, at: Place, *, hint: str = "") -> None:
        """Report that what stands at `at` cannot be read at all; nothing more is said about that place."""
        self.add(message, at, hint=hint)
        self._spoilt.add((at.line, at.column))

    def spoilt(self, at: Place) -> bool:
        """Whether what stands there cannot be read at all, which is told."""
        return (at.line, at.column) in self._spoilt

    def all(self) -> tuple[Problem, ...]:
        """In the order of the file."""
        return tuple(sorted(self._found.values(), key=lambda problem: (problem.line, problem.column)))


def _visible(text: str) -> str:
    """Escape what a terminal or a log would obey: a key may hold anything."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the nearest known word in any case, or an empty text when none is near."""
    written = {each.lower(): each for each in known}
    near = get_close_matches(word.lower(), list(written), n=1, cutoff=0.6)
    return f"did you mean {written[near[0]]!r}?" if near else ""
