"""Rows of the store's journal as the passes they were written from, for `reconcile history` without a daemon.

Not exact where the row is not: a very long pass keeps a summary line ("… more") in place of what was left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from desired.resource import ResourceId
from desired.store import JournalRow
from reconciler.contract import ActionRecord, Finding, Outcome, PassRecord, Scope, Verb
from reconciler.doors import wire

OMITTED = "omitted"
"""The `result` of a line that stands for lines that were left out."""


def pass_record(row: JournalRow) -> PassRecord:
    """Raises WireError for a row that this version cannot read."""
    return PassRecord(
        row.pass_id,
        row.at,
        wire.decode(Scope, row.scope),
        row.trigger,
        row.revision,
        wire.decode(Outcome, row.outcome),
        row.seconds,
        row.since_event,
        tuple(_action(line) for line in row.actions),
        tuple(_finding(line) for line in row.findings),
    )


def _action(line: Mapping[str, Any]) -> ActionRecord:
    if line.get("result") == OMITTED:
        return ActionRecord(ResourceId("", "…"), Verb.UPDATE, "", "", "", OMITTED, str(line.get("detail", "")))
    return wire.decode(ActionRecord, dict(line))


def _finding(line: Mapping[str, Any]) -> Finding:
    if line.get("result") == OMITTED:
        return Finding(ResourceId("", "…"), Outcome.PENDING, str(line.get("reason", "")))
    waits = [{"resource" if "/" in text else "scope": text} for text in line.get("waits_for", ())]
    return wire.decode(Finding, {**line, "waits_for": waits})
