"""The topics under which nodes speak over MQTT, and what stands in their payloads. Pure; ``MQTT.md`` tells others.

`Topics` names them. `report` makes of a node's status the one that stands retained, `event_payload` of a pass what is
sent as it happens; both are bounded whatever the node is like. What comes in is read by `read_report`, which believes
nothing. Used by the publisher (`mqtt`), the view of the fleet and the doctor.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.contract import ActionRecord, Finding, Outcome, PassRecord
from reconciler.doors import wire
from reconciler.doors.wire import WireError
from reconciler.report import ExitCode, NodeStatus

FORMAT = 1
"""Counts up when a reader of before could not read what is sent now; added fields do not count."""

SHOWN = 10
"""Resources, notices, actions or findings that one payload names at most."""

TEXT = 200
"""Characters of one text at most."""

LARGEST = 16 * 1024
"""Bytes of an event at most."""

READABLE = 64 * 1024
"""Bytes of a status that are looked at: ours are far smaller."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics below one prefix."""

    prefix: str

    @property
    def every_status(self) -> str:
        return f"{self.prefix}/nodes/+/status"

    @property
    def look(self) -> str:
        """Asks all nodes to look again."""
        return f"{self.prefix}/look"

    def status(self, node: str) -> str:
        return f"{self.prefix}/nodes/{node}/status"

    def events(self, node: str) -> str:
        return f"{self.prefix}/nodes/{node}/events"

    def look_at(self, node: str) -> str:
        """Asks this node to look again."""
        return f"{self.prefix}/nodes/{node}/look"

    def node_of(self, topic: str) -> str:
        """Whose status this topic is; "" for another topic."""
        name = topic.removeprefix(f"{self.prefix}/nodes/").removesuffix("/status")
        return name if name and "/" not in name and topic == self.status(name) else ""


@dataclass(frozen=True, slots=True)
class Wrong:
    """One resource that is not as declared."""

    resource: str
    outcome: Outcome
    reason: str
    since: float
    gate: str = ""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What stands retained under ``…/nodes/NODE/status``. Times are wall-clock seconds of the node's clock.

    An offline one may have nothing but the name: the last will is written before the end is known.
    """

    node: str
    online: bool
    format: int = FORMAT
    time: float = 0.0
    every: float = 0.0
    """Seconds after which the next one comes at the latest; 0 in one that is the last."""
    detail: str = ""
    """Why it is offline, or what is stuck."""
    stuck: bool = False
    outcome: Outcome | None = None
    exit_code: int = int(ExitCode.UNREACHABLE)
    revision: str = ""
    last_converged: float | None = None
    version: str = ""
    started: float = 0.0
    resources: Mapping[str, int] = field(default_factory=dict)
    """How many resources of each kind are declared."""
    wrong: Mapping[str, int] = field(default_factory=dict)
    """How many resources have each outcome other than converged."""
    not_right: Sequence[Wrong] = ()
    """The worst of them."""
    config_problems: int = 0
    budget_waiting: int = 0
    pauses: Sequence[str] = ()
    notices: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """What is sent under ``…/nodes/NODE/events``: a pass that found or repaired something, as the journal has it."""

    node: str
    entry: PassRecord
    format: int = FORMAT
    omitted: int = 0
    """Actions and findings of this pass that were left out."""
    missed: int = 0
    """Passes before this one that were never sent: the broker was away for too long."""


def report(status: NodeStatus, health: tuple[bool, str], *, now: float, every: float) -> NodeReport:
    """The status of a daemon that runs. `health` as `report.Node` gives it."""
    healthy, stuck = health
    wrong = [Wrong(cut(str(s.resource)), s.outcome, cut(s.reason), s.since, s.gate) for s in status.not_right[:SHOWN]]
    return NodeReport(
        status.node,
        online=True,
        time=now,
        every=every,
        detail=cut(stuck),
        stuck=not healthy,
        outcome=status.outcome,
        exit_code=int(status.exit_code),
        revision=status.revision,
        last_converged=status.last_converged,
        version=status.version,
        started=status.started,
        resources=status.resources,
        wrong=dict(sorted(Counter(str(s.outcome) for s in status.not_right).items())),
        not_right=wrong,
        config_problems=len(status.config_problems),
        budget_waiting=sum(budget.wanted for budget in status.budgets),
        pauses=[cut(pause.what) for pause in status.pauses[:SHOWN]],
        notices=[cut(notice) for notice in status.notices[:SHOWN]],
    )


def offline(node: str, detail: str, *, now: float = 0.0) -> NodeReport:
    """What a node leaves behind: said by itself (`now`), or by the broker when the connection broke off."""
    return NodeReport(node, online=False, time=now, detail=detail)


def report_payload(found: NodeReport) -> str:
    return wire.dumps(found)


def read_report(node: str, payload: bytes) -> NodeReport:
    """Raises WireError for anything that is not the status of `node`."""
    if len(payload) > READABLE:
        raise WireError(f"{len(payload)} bytes are no status (at most {READABLE})")
    try:
        found = wire.loads(NodeReport, payload)
    except RecursionError:
        raise WireError("not a status: nested too deeply") from None
    if found.format > FORMAT:
        raise WireError(f"it is of format {found.format!r:.40}, and this program reads {FORMAT}: its node is newer")
    if found.node != node:
        raise WireError(f"it says that it is the status of {found.node!r:.80}")
    if found.exit_code not in set(ExitCode):
        raise WireError(f"exit_code {found.exit_code!r:.40} does not exist")
    times = (found.time, found.every, found.started, found.last_converged or 0.0, *(w.since for w in found.not_right))
    if not all(math.isfinite(each) for each in times):
        raise WireError("a time in it is no number")
    if found.online and found.outcome is None:
        raise WireError("an online node has an outcome")
    return found


def cut(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"


def trimmed(entry: PassRecord) -> tuple[PassRecord, int]:
    """`entry` with `SHOWN` actions and findings at most, and how many were left out. Cheap: texts are not looked at."""
    omitted = max(0, len(entry.actions) - SHOWN) + max(0, len(entry.findings) - SHOWN)
    if not omitted:
        return entry, 0
    return replace(entry, actions=entry.actions[:SHOWN], findings=entry.findings[:SHOWN]), omitted


def event_payload(node: str, entry: PassRecord, *, omitted: int, missed: int) -> str:
    """One event, at most `LARGEST` bytes: more is left out until it fits."""
    entry = replace(
        entry,
        trigger=cut(entry.trigger),
        actions=tuple(_short_action(action) for action in entry.actions),
        findings=tuple(_short_finding(finding) for finding in entry.findings),
    )
    while True:
        text = wire.dumps(NodeEvent(node, entry, omitted=omitted, missed=missed))
        if len(text) <= LARGEST or not (entry.actions or entry.findings):
            return text
        actions, findings = entry.actions, entry.findings
        fewer = replace(entry, actions=actions[: len(actions) // 2], findings=findings[: len(findings) // 2])
        omitted += len(actions) + len(findings) - len(fewer.actions) - len(fewer.findings)
        entry = fewer


def _short_action(action: ActionRecord) -> ActionRecord:
    texts = (action.why, action.before, action.after, action.detail)
    if max(map(len, texts)) <= TEXT:
        return action
    why, before, after, detail = map(cut, texts)
    return replace(action, why=why, before=before, after=after, detail=detail)


def _short_finding(finding: Finding) -> Finding:
    return replace(finding, reason=cut(finding.reason), waits_for=finding.waits_for[:SHOWN])
