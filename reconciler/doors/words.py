"""The data of a node in words: pure functions from records to short texts, shared by terminal and status page.

Text that came from outside (names in OVSDB, what a switch said) goes through `clean`, so that it cannot steer a
terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from reconciler.contract import ActionRecord, Disruption, Finding, Outcome, PassRecord, ResourceStatus, Verb
from reconciler.report import NodeStatus, Pause, Problem, Stream

_CALLED = {"ini": "INI key", "rule": "raw rule"}
"""Kinds that people know by another name."""

DRY_RUN = "dry_run"
"""The gate that withholds everything in a plan, and is no news there."""

STORY_LINES = 20
"""More than this of one pass is summed up."""

_DONE = {
    (Verb.CREATE, True): "created again",
    (Verb.CREATE, False): "created",
    (Verb.UPDATE, True): "set back",
    (Verb.UPDATE, False): "changed",
    (Verb.DELETE, True): "deleted",
    (Verb.DELETE, False): "deleted",
}


class Story(NamedTuple):
    """One line of what happened: when, to what, the story, how long, and the outcome it is coloured by."""

    time: str
    what: str
    story: str
    took: str
    outcome: Outcome


def clean(text: str) -> str:
    """`text` on one line, with everything that is not printable shown as its escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def duration(seconds: float) -> str:
    """A length of time as a person says it: 1.4 ms, 12.0 s, 3 min, 2 h, 4 d."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    for size, unit, digits in ((60, "s", 1), (3600, "min", 0), (172800, "h", 0)):
        if seconds < size:
            return f"{seconds / {'s': 1, 'min': 60, 'h': 3600}[unit]:.{digits}f} {unit}"
    return f"{seconds / 86400:.0f} d"


def count(number: int, kind: str) -> str:
    """``2 bridges``, ``1 held port``, ``3 addresses``, ``2 INI keys``."""
    name = _CALLED.get(kind, kind.replace("_", " "))
    plural = "es" if name.endswith("s") else "s"
    return f"{number} {name}{'' if number == 1 else plural}"


def declared(status: NodeStatus) -> str:
    """``2 bridges, 5 ports``; before anything was read, that it is not known yet."""
    if not status.revision:
        return "nothing usable yet" if status.config_problems else "not known yet: still reading what is declared"
    return ", ".join(count(number, kind) for kind, number in sorted(status.resources.items())) or "nothing"


def clock(at: float) -> str:
    """Local time of day with milliseconds."""
    return _local(at).strftime("%H:%M:%S.%f")[:-3]


def moment(at: float) -> str:
    """Local date and time to the second."""
    return _local(at).strftime("%Y-%m-%d %H:%M:%S")


def ago(at: float | None, now: float) -> str:
    return "never" if not at else f"{duration(now - at)} ago"


def problem(found: Problem) -> str:
    """``file:line:column: path: message (hint)``."""
    place = ":".join(str(part) for part in (found.file, found.line, found.column) if part)
    path = f"{found.path}: " if found.path and repr(found.path) not in found.message else ""
    hint = f" ({found.hint})" if found.hint else ""
    return clean(f"{place}{': ' if place else ''}{path}{found.message}{hint}")


def why(status: ResourceStatus) -> str:
    gate = f" [withheld by {status.gate}]" if status.gate else ""
    origin = f" (declared at {status.origin})" if status.origin and str(status.origin) not in status.reason else ""
    return clean(f"{status.reason}{gate}{origin}")


def pause(found: Pause, now: float) -> str:
    end = "until 'reconcile resume'" if found.until is None else f"for another {duration(found.until - now)}"
    by = f" by {found.by}" if found.by else ""
    return clean(f"{found.what} is paused{by} since {moment(found.at)}, {end}: {found.reason}")


def stream(found: Stream) -> str:
    state = "listening" if found.ready else "not listening"
    return clean(f"{state}: {found.detail}" if found.detail else state)


def stories(entry: PassRecord, limit: int = STORY_LINES) -> Iterator[Story]:
    """The lines of one pass, the actions first; what is beyond `limit` is summed up by kind and result."""
    time, took = clock(entry.at), duration(entry.since_event)
    for action in entry.actions[:limit]:
        done = action.result == "done"
        outcome = Outcome.CONVERGED if done else Outcome.FAILED if action.result == "failed" else Outcome.PENDING
        yield Story(time, clean(str(action.resource)), clean(_told(action)), took if done else "", outcome)
    if rest := entry.actions[limit:]:
        sums = Counter((action.resource.kind, action.verb, action.result) for action in rest)
        text = ", ".join(f"{n} {kind} ({verb}: {result})" for (kind, verb, result), n in sorted(sums.items()))
        yield Story(time, f"… {len(rest)} more", text, took, entry.outcome)
    for finding in entry.findings[:limit]:
        yield Story(time, clean(str(finding.resource)), clean(_waiting(finding)), "", finding.outcome)
    if len(entry.findings) > limit:
        yield Story(time, f"… {len(entry.findings) - limit} more", "not as declared", "", entry.outcome)


def _told(action: ActionRecord) -> str:
    if action.result == "omitted":
        return action.detail
    change = f" ({action.before} -> {action.after})" if action.verb is Verb.UPDATE and action.before else ""
    detail = f": {action.detail}" if action.detail else ""
    if action.result == "done":
        end = _DONE[action.verb, action.drift]
    elif action.result == "withheld":
        end = f"{action.verb} withheld by {action.gate}{detail}"
    elif action.result == "planned":
        hurt = "" if action.disruption is Disruption.NONE else f" (disruption: {action.disruption})"
        waits = "" if action.gate in {"", DRY_RUN} else f", but it waits [withheld by {action.gate}]"
        end = f"would {action.verb}{hurt}{waits}"
    else:
        end = f"{action.verb} {action.result}{detail}"
    return f"{action.why}{change} -> {end}" if action.why else f"{end}{change}"


def _waiting(finding: Finding) -> str:
    known = finding.waits_for and "waits for" not in finding.reason
    waits = f" (waits for {', '.join(map(str, finding.waits_for))})" if known else ""
    return f"{finding.outcome}: {finding.reason}{waits}"


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone()
