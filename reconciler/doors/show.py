"""What the verbs print: lines with a style each, coloured on a terminal, plain elsewhere, or JSON.

The functions that make lines are pure; `Printer` is the only thing that writes. Rich is imported when a terminal is
there to be coloured (and ``NO_COLOR`` is not set).
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TextIO

from reconciler.contract import Outcome, PassRecord, ResourceStatus
from reconciler.doors import wire, words
from reconciler.report import Budget, NodeStatus, OnceResult, Problem

SHOWN = 20
"""Resources of a status that are listed without --verbose."""

BUDGET = "budget"
"""The gate whose sentence stands above all that it withholds."""

STYLES = {
    Outcome.CONVERGED: "green",
    Outcome.PENDING: "yellow",
    Outcome.CONTENDED: "magenta",
    Outcome.CONFLICT: "magenta",
    Outcome.FAILED: "red",
}


class Line(NamedTuple):
    text: str
    style: str = ""


Lines = Iterator[Line]


class Printer:
    """Writes answers to standard output and complaints to standard error."""

    def __init__(self, *, as_json: bool = False, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self._out, self._err = out or sys.stdout, err or sys.stderr

    def answer(self, value: Any, lines: Iterable[Line], hint: Any = None) -> None:
        """The answer of a verb: `value` as JSON (of type `hint`), or `lines`."""
        if self.as_json:
            self.line(Line(json.dumps(wire.encode(value, hint), indent=2, allow_nan=False)))
        else:
            self.lines(lines)

    def data(self, value: Any) -> None:
        """JSON-ready data, whatever --output says."""
        self.line(Line(json.dumps(value, indent=2)))

    def lines(self, lines: Iterable[Line]) -> None:
        _write(self._out, lines)

    def line(self, line: Line) -> None:
        _write(self._out, [line])

    def complain(self, text: str) -> None:
        """A sentence to a person who waits for something else."""
        _write(self._err, [Line(f"reconcile: {words.clean(part)}", "red") for part in text.splitlines()])


class OutputClosedError(Exception):
    """Whoever read the output has gone, as in ``reconcile history | head``."""


def _write(stream: TextIO, lines: Iterable[Line]) -> None:
    try:
        _put(stream, lines)
    except BrokenPipeError as error:
        raise OutputClosedError from error


def _put(stream: TextIO, lines: Iterable[Line]) -> None:
    if stream.isatty() and not os.environ.get("NO_COLOR"):
        _color(stream, lines)
    else:
        stream.writelines(f"{line.text}\n" for line in lines)
        stream.flush()


def _color(stream: TextIO, lines: Iterable[Line]) -> None:
    from rich.console import Console  # noqa: PLC0415 (heavy, and only for terminals)
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=stream, highlight=False, soft_wrap=True)
    for line in lines:
        console.print(Text(line.text, style=line.style))


def status_lines(status: NodeStatus, now: float, *, verbose: bool = False) -> Lines:
    """`reconcile status`. `now` is wall-clock seconds."""
    yield Line(f"{status.node}: {status.outcome}", f"bold {STYLES[status.outcome]}")
    yield Line(f"  declared        {words.declared(status)}")
    yield Line(f"  revision        {status.revision or 'none yet'}")
    yield Line(f"  last converged  {words.ago(status.last_converged, now)}")
    yield Line(f"  daemon          {status.version}, pid {status.pid}, up {words.duration(now - status.started)}")
    yield Line(f"  store           {words.clean(status.store) or 'none'}")
    for notice in status.notices:
        yield Line(f"  note: {words.clean(notice)}", "yellow")
    if status.config_problems:
        yield Line("mistakes in the desired state (the last good revision is held):", "red")
        yield from _indented(problem_lines(status.config_problems))
    for pause in status.pauses:
        yield Line(words.pause(pause, now), "yellow")
    limit = None if verbose else SHOWN
    yield from _waiting_deletes(status.budgets, status.not_right, limit)
    yield from _not_right(_but_deletes(status.budgets, status.not_right), now, limit)
    if verbose or not all(stream.ready for stream in status.streams):
        yield Line("streams:")
        wide = max([14, *(len(stream.name) for stream in status.streams)])
        for stream in status.streams:
            # Where silence means nothing, nobody says when there was an event.
            last = "" if stream.last_event is None else f", last event {words.ago(stream.last_event, now)}"
            yield Line(f"  {stream.name:{wide}}  {words.stream(stream)}{last}", "" if stream.ready else "yellow")


def once_lines(result: OnceResult, *, dry_run: bool) -> Lines:
    """`--once` and `plan`: what was, or would be, done and why; then how it stands."""
    for entry in result.passes:
        if entry.actions:
            yield from story_lines(replace(entry, findings=()))  # what is still so is told below, once
    yield from problem_lines(result.config_problems)
    left = [status for status in result.not_right if not (dry_run and status.gate == words.DRY_RUN)]
    yield from _waiting_deletes(result.budgets, () if dry_run else left, None)  # a plan has named them already
    yield from _not_right(_but_deletes(result.budgets, left), None, None)
    acted = Counter(action.result for entry in result.passes for action in entry.actions)
    what = ", ".join(f"{acted[name]} {name}" for name in ("planned", "done", "failed", "withheld") if acted[name])
    if not what:
        what = "nothing can be done now" if left or result.config_problems else "nothing to do"
    end = "; the time was over before it was done" if result.timed_out else ""
    word = "plan" if dry_run else str(result.outcome)
    took = words.duration(result.seconds)
    yield Line(f"{word}: {what} (revision {result.revision or 'none'}, {took}){end}", f"bold {STYLES[result.outcome]}")


def story_lines(entry: PassRecord, *, date: bool = False) -> Lines:
    """One pass as `events` and `history` print it: ``12:03:04.123  port/patch-tun  was deleted -> created again``."""
    day = f"{words.moment(entry.at).partition(' ')[0]} " if date else ""
    told = False
    for story in words.stories(entry):
        told = True
        text = f"{day}{story.time}  {story.what:30}  {story.story}"
        yield Line(f"{text:100}  {story.took:>10}".rstrip(), STYLES[story.outcome])
    if not told:
        text = f"{day}{words.clock(entry.at)}  {words.clean(str(entry.scope)):30}  {entry.outcome} ({entry.trigger})"
        yield Line(words.clean(text), STYLES[entry.outcome])


def problem_lines(problems: Iterable[Problem]) -> Lines:
    """``file:line:column: path: message``, and below it what would be right."""
    for problem in problems:
        bare = Problem(problem.message, problem.file, problem.line, problem.column, problem.path)
        yield Line(words.problem(bare), "red")
        if problem.hint:
            yield Line(f"    {words.clean(problem.hint)}", "cyan")


def budget_lines(budgets: Sequence[Budget]) -> Lines:
    for budget in budgets:
        wanted = words.count(budget.wanted - budget.recent, budget.kind)
        allowed = f"revision {budget.revision} may delete {budget.allowed} of the {budget.owned} we own"
        if budget.recent:
            allowed += f", and {budget.recent} were deleted a short while ago"
        advice = f"'reconcile approve {budget.revision}' lets them through"
        yield Line(f"deletes of {wanted} wait: {allowed}; {advice}", "yellow")
        for resource in budget.resources[:SHOWN]:
            yield Line(f"  {words.clean(resource)}")
        if len(budget.resources) > SHOWN:
            yield Line(f"  … {len(budget.resources) - SHOWN} more")


def _waiting_deletes(budgets: Sequence[Budget], statuses: Sequence[ResourceStatus], limit: int | None) -> Lines:
    """Each budget's sentence once, then what waits for it, of any kind."""
    yield from budget_lines([replace(budget, resources=()) for budget in budgets])
    if budgets:
        yield from _members([status for status in statuses if status.gate == BUDGET], "  ", limit)


def _but_deletes(budgets: Sequence[Budget], statuses: Sequence[ResourceStatus]) -> Sequence[ResourceStatus]:
    return [status for status in statuses if not (budgets and status.gate == BUDGET)]


def _not_right(statuses: Sequence[ResourceStatus], now: float | None, limit: int | None) -> Lines:
    """What is not right for the same reason is told together: the reason once, then the things."""
    if not statuses:
        return
    yield Line("not as declared:")
    alike: dict[tuple[Outcome, str, str], list[ResourceStatus]] = {}
    for status in statuses:
        alike.setdefault((status.outcome, status.gate, status.reason), []).append(status)
    left = len(statuses) if limit is None else limit
    for members in alike.values():
        if left <= 0:
            break
        first = members[0]
        since = f" for {words.duration(now - min(s.since for s in members))}" if now is not None else ""
        named = words.clean(str(first.resource)) if len(members) == 1 else f"{len(members)} alike"
        why = words.why(first if len(members) == 1 else replace(first, origin=""))
        yield Line(f"  {named:30}  {first.outcome}{since}: {why}", STYLES[first.outcome])
        shown = members[:left]
        if len(members) > 1:
            yield from _members(shown, "    ", None)
        left -= len(shown)
    if limit is not None and len(statuses) > limit:
        yield Line(f"  … {len(statuses) - limit} more (-v shows all)")


def _members(statuses: Sequence[ResourceStatus], indent: str, limit: int | None) -> Lines:
    for status in statuses[:limit]:
        origin = f"  (declared at {status.origin})" if status.origin else ""
        yield Line(f"{indent}{words.clean(f'{status.resource}{origin}')}")
    if limit is not None and len(statuses) > limit:
        yield Line(f"{indent}… {len(statuses) - limit} more (-v shows all)")


def _indented(lines: Iterable[Line]) -> Lines:
    for line in lines:
        yield Line(f"  {line.text}", line.style)
