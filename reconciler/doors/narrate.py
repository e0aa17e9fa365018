"""What `reconcile run` says while it works: stories on a terminal, log lines elsewhere. A `Sink`.

It speaks after the pass, from the event loop's next turn: no repair waits for a terminal.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

from reconciler.contract import PassRecord
from reconciler.doors.show import Printer, story_lines
from reconciler.logs import get_logger

log = get_logger("pass")

MOST_LINES = 20
"""Actions of one pass that get a log line each; the rest is summed up (the journal has them all)."""


class Narrator:
    """`log_format` as in the settings: console, json, or auto (a terminal gets stories)."""

    def __init__(self, log_format: str) -> None:
        terminal = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
        self._printer = Printer(out=sys.stderr) if terminal else None

    def record(self, entry: PassRecord) -> None:
        asyncio.get_running_loop().call_soon(self._say, entry)

    def _say(self, entry: PassRecord) -> None:
        if self._printer is not None:
            self._printer.lines(story_lines(entry))
            return
        for action in entry.actions[:MOST_LINES]:
            log.info(
                action.result,
                pass_id=entry.pass_id,
                resource=str(action.resource),
                verb=action.verb,
                why=action.why,
                before=action.before,
                after=action.after,
                detail=action.detail,
                gate=action.gate,
                drift=action.drift,
                seconds=round(entry.since_event, 6),
            )
        rest = entry.actions[MOST_LINES:]
        if rest:
            counts = Counter(f"{action.resource.kind} {action.verb} {action.result}" for action in rest)
            log.info("more_actions", pass_id=entry.pass_id, **counts)
        for finding in entry.findings[:MOST_LINES]:
            log.info(str(finding.outcome), pass_id=entry.pass_id, resource=str(finding.resource), reason=finding.reason)
