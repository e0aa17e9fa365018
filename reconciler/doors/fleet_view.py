"""The fleet as it is seen over MQTT: from the nodes' messages to rows, lines and an exit code. Pure.

`Fleet` keeps what was heard; `fleet` (the verb) fills it and prints. What came in is believed as far as
`mqtt_format.read_report` lets it through; the rest is a row that says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from reconciler.contract import Outcome
from reconciler.doors import words
from reconciler.doors.mqtt_format import NodeReport, read_report
from reconciler.doors.show import STYLES, Line, Lines
from reconciler.doors.wire import WireError
from reconciler.report import ExitCode

STALE = 3.0
"""So many times the promised interval may pass before a silent node is called stale."""

DEFAULT_INTERVAL = 10.0
MOST_NODES = 20_000
"""Names beyond that are not looked at: somebody publishes garbage."""

_WORST = (
    ExitCode.CONVERGED, ExitCode.CHANGES, ExitCode.WITHHELD, ExitCode.CONFLICT, ExitCode.FAILED, ExitCode.UNREACHABLE,
)  # fmt: skip
_SILENT = "bold red"


@dataclass(frozen=True, slots=True)
class Heard:
    """The last report of one node. `live_at` is when it came (monotonic); None when it had stood retained."""

    report: NodeReport
    live_at: float | None = None
    garbage: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One node. `state` is its outcome, or offline, stale, stuck, unreadable, unknown.

    `age` is how many seconds ago it spoke; None when that is not known.
    """

    node: str
    state: str
    exit_code: int
    detail: str = ""
    age: float | None = None
    report: NodeReport | None = None

    @property
    def news(self) -> Row:
        """What is worth a line when it differs: ages apart."""
        if self.report is None:
            return self
        report = replace(self.report, time=0.0, last_converged=None, not_right=(), every=0.0)
        return replace(self, age=None, report=report)


@dataclass(slots=True)
class Fleet:
    """Everything that was heard. Times: monotonic seconds `now`, wall-clock seconds `wall`."""

    nodes: dict[str, Heard] = field(default_factory=dict)
    left_out: int = 0

    def take(self, node: str, payload: bytes, *, retained: bool, now: float) -> None:
        """One message under the status topic of `node`; an empty one forgets the node."""
        if not payload:
            self.nodes.pop(node, None)
            return
        if node not in self.nodes and len(self.nodes) >= MOST_NODES:
            self.left_out += 1
            return
        before = self.nodes.get(node)
        try:
            found = read_report(node, payload)
        except WireError as error:
            self.nodes[node] = Heard(NodeReport(node, online=False), now, garbage=str(error))
            return
        if not found.online and before is not None and not before.garbage:
            known = before.report  # what the node was like when it was last there
            found = replace(known, online=False, detail=found.detail, time=found.time or known.time, stuck=False)
        self.nodes[node] = Heard(found, None if retained else now)

    def rows(self, now: float, wall: float, only: Collection[str] = ()) -> Sequence[Row]:
        """The worst first. `only`: these nodes, also one that was never heard."""
        chosen = [self._row(node, now, wall) for node in (only or self.nodes)]
        return sorted(chosen, key=lambda row: (-_WORST.index(ExitCode(row.exit_code)), row.node))

    def _row(self, node: str, now: float, wall: float) -> Row:
        heard = self.nodes.get(node)
        if heard is None:
            return Row(node, "unknown", ExitCode.UNREACHABLE, "no status of it stands at the broker")
        if heard.garbage:
            return Row(node, "unreadable", ExitCode.UNREACHABLE, f"its status is no status: {heard.garbage}")
        found = heard.report
        age = _age(heard, now, wall)
        if not found.online:
            return Row(node, "offline", ExitCode.UNREACHABLE, found.detail, age, found)
        every = found.every or DEFAULT_INTERVAL
        if age is not None and age > STALE * every:
            detail = f"it speaks every {words.duration(every)}, and has not for {words.duration(age)}"
            return Row(node, "stale", ExitCode.UNREACHABLE, detail, age, found)
        if found.stuck:
            return Row(node, "stuck", ExitCode.UNREACHABLE, found.detail, age, found)
        return Row(node, str(found.outcome), found.exit_code, _why(found), age, found)


def exit_code(rows: Sequence[Row]) -> ExitCode:
    """The worst of all nodes; a fleet of which nobody speaks does not answer."""
    return max((ExitCode(row.exit_code) for row in rows), key=_WORST.index, default=ExitCode.UNREACHABLE)


def fleet_lines(rows: Sequence[Row], wall: float, *, prefix: str) -> Lines:
    """The table, under one line of verdict."""
    states = Counter(row.state for row in rows)
    code = exit_code(rows)
    if not rows:
        yield Line(f"fleet: no node has ever spoken under {prefix}/nodes, or this user may not read there", _SILENT)
        return
    sums = ", ".join(f"{number} {state}" for state, number in sorted(states.items(), key=lambda item: -item[1]))
    yield Line(f"fleet: {words.count(len(rows), 'node')}: {sums}", "bold green" if code == 0 else "bold yellow")
    table: list[tuple[str, ...]] = [
        ("NODE", "STATE", "WRONG", "DECLARED", "REVISION", "CONVERGED", "HEARD", "DAEMON", "")
    ]
    table += [_cells(row, wall) for row in rows]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(table[0]) - 1)]
    for number, cells in enumerate(table):
        text = "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=False))
        yield Line(f"{text}  {cells[-1]}".rstrip(), _style(rows[number - 1]) if number else "dim")


def row_line(row: Row, at: str) -> Line:
    """One node, when it changed: ``12:00:01  net1  pending  3 pending: port/tap9: …``."""
    text = f"{at}  {words.clean(row.node):20}  {row.state:10}  {words.clean(row.detail)}"
    return Line(text.rstrip(), _style(row))


def _cells(row: Row, wall: float) -> tuple[str, ...]:
    found, age = row.report, "" if row.age is None else _since(row.age)
    if found is None or found.outcome is None:
        return (words.clean(row.node), row.state, "", "", "", "", age, "", words.clean(row.detail))
    return (
        words.clean(row.node),
        row.state,
        str(sum(found.wrong.values())),
        str(sum(found.resources.values())),
        words.clean(found.revision)[:12] or "none",
        words.ago(found.last_converged, wall),
        age,
        words.clean(found.version)[:20],
        words.clean(row.detail),
    )


def _since(age: float) -> str:
    """In whole seconds: it is read while it grows."""
    return "now" if age < 1.5 else f"{words.duration(round(age))} ago"


def _why(found: NodeReport) -> str:
    """The first thing that somebody who looks at this node should know."""
    if found.config_problems:
        return f"{words.count(found.config_problems, 'mistake')} in its desired state"
    if found.budget_waiting:
        return f"{words.count(found.budget_waiting, 'delete')} wait for 'reconcile approve'"
    if found.not_right:
        first = found.not_right[0]
        gate = f" [withheld by {first.gate}]" if first.gate else ""
        return f"{first.resource}: {first.reason}{gate}"
    if found.pauses:
        return f"paused: {', '.join(found.pauses)}"
    return found.notices[0] if found.notices else ""


def _age(heard: Heard, now: float, wall: float) -> float | None:
    """By our own clock when it came while we listened, else by the node's."""
    if heard.live_at is not None:
        return now - heard.live_at
    return max(0.0, wall - heard.report.time) if heard.report.time else None


def _style(row: Row) -> str:
    return STYLES.get(Outcome(row.state), "") if row.state in set(Outcome) else _SILENT
