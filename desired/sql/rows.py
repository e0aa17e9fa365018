"""Between the rows of `desired.store` and those of the tables: pure functions, both ways.

Text is made to fit here, so that no database refuses a row and holds up all that come behind it: no NUL, no lone
surrogate (both come out of other programs' output), and no more than a column takes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from desired.sql.tables import resource_key
from desired.store import JournalRow, MirrorRow, ResourceRow

LONG = 16_000
"""Characters in a long text: in four bytes each they still fit MariaDB's TEXT."""

SHOWN_LINES = 200
"""How many actions, and how many findings, of one pass a history over all resources reads back."""

_LINE_TEXTS = {"verb": 32, "why": LONG, "before": LONG, "after": LONG, "result": 32, "detail": LONG, "gate": 64}


def fit(text: str, limit: int = LONG) -> str:
    """`text` as every database takes it."""
    if text.isascii() and len(text) <= limit and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()[:limit]


def resource_values(node: str, row: ResourceRow) -> dict[str, Any]:
    """A row of the resource table, without its span. `digest` stands for all of the content, provenance included."""
    values: dict[str, Any] = {
        "node": node,
        "kind": fit(row.kind, 64),
        "name": fit(row.name),
        "spec": dict(row.spec),
        "source": fit(row.source),
        "file": fit(row.file),
        "line": row.line,
        "column": row.column,
        "path": fit(row.path),
    }
    content = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    values["digest"] = hashlib.blake2b(content, digest_size=16).hexdigest()
    return values


def mirror_values(node: str, source: str, row: MirrorRow) -> dict[str, Any]:
    return {
        "node": node,
        "source": fit(source, 64),
        "kind": fit(row.kind, 64),
        "name": fit(row.name, 64),
        "body": None if row.body is None else dict(row.body),
        "at": row.at,
        "revision": row.revision,
        "more": dict(row.more) or None,
    }


def journal_values(node: str, row: JournalRow) -> dict[str, Any]:
    return {
        "node": node,
        "pass_id": row.pass_id,
        "at": row.at,
        "scope": fit(row.scope),
        "trigger": fit(row.trigger),
        "revision": fit(row.revision, 64),
        "outcome": fit(row.outcome, 32),
        "seconds": row.seconds,
        "since_event": row.since_event,
        "actions": len(row.actions),
        "findings": len(row.findings),
    }


def line_values(node: str, journal_id: int, row: JournalRow) -> Iterable[dict[str, Any]]:
    """The rows of the line table for one pass: its actions, then its findings."""
    for part, lines in (("action", row.actions), ("finding", row.findings)):
        for position, line in enumerate(lines):
            yield _line(node, line) | {"journal_id": journal_id, "part": part, "position": position}


def journal_row(row: Row[Any], lines: Sequence[Row[Any]], *, whole: bool) -> JournalRow:
    """One pass with its lines in order. `whole`: the lines are all that was asked for, however many there were."""
    actions = [_mapping(line) for line in lines if line.part == "action"]
    findings = [_mapping(line) for line in lines if line.part == "finding"]
    if not whole and len(actions) < row.actions:
        actions.append(dict.fromkeys(("resource", *_LINE_TEXTS), "") | _omitted("detail", row.actions - len(actions)))
    if not whole and len(findings) < row.findings:
        findings.append({"resource": "", "outcome": ""} | _omitted("reason", row.findings - len(findings)))
    return JournalRow(
        row.pass_id,
        row.at,
        row.scope,
        row.trigger,
        row.revision,
        row.outcome,
        row.seconds,
        row.since_event,
        tuple(actions),
        tuple(findings),
    )


def _omitted(key: str, count: int) -> dict[str, str]:
    return {"result": "omitted", key: f"{count} more; ask for the history of one resource to see its line"}


def _line(node: str, line: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(_LINE_TEXTS)
    values["resource"] = values["resource_key"] = None
    more = {}
    for key, value in line.items():
        if key in _LINE_TEXTS and isinstance(value, str):
            values[key] = fit(value, _LINE_TEXTS[key])
        elif key == "resource" and isinstance(value, str):
            values["resource"] = fit(value)
            values["resource_key"] = resource_key(node, values["resource"])
        else:
            more[key] = value
    values["more"] = more or None
    return values


def _mapping(line: Row[Any]) -> dict[str, Any]:
    columns = line._mapping  # noqa: SLF001  SQLAlchemy's public name for a row as a mapping
    values = {key: columns[key] for key in ("resource", *_LINE_TEXTS) if columns[key] is not None}
    return values | (columns["more"] or {})
