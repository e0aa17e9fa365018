"""The status page: one self-contained HTML document made of a `NodeStatus`. No scripts, no assets, all text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from reconciler.contract import PassRecord
from reconciler.doors import words
from reconciler.report import NodeStatus

REFRESH_SECONDS = 5
_STYLE = (
    "body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222;background:#fff}"
    "h1{font-size:1.4em}h2{font-size:1.05em;margin:1.6em 0 .4em}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.2em .8em .2em 0;vertical-align:top;border-bottom:1px solid #ddd}"
    ".converged{color:#087830}.pending{color:#956000}.contended,.conflict{color:#a0409f}.failed{color:#b3261e}"
    "code,td{font-variant-numeric:tabular-nums}@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}"
    "td,th{border-color:#444}.converged{color:#5fd08a}.pending{color:#e6b450}.failed{color:#ff8a80}"
    ".contended,.conflict{color:#e0a0e0}}"
)


def page(status: NodeStatus, passes: Sequence[PassRecord], now: float) -> str:
    """The document. `now` is wall-clock seconds; `passes` is newest first."""
    sections = [
        _headline(status, now),
        _sentences("Notices", status.notices),
        _sentences("Mistakes in the desired state", map(words.problem, status.config_problems)),
        _table(
            "Not as declared",
            ("resource", "outcome", "why", "for"),
            (
                (str(each.resource), each.outcome, words.why(each), words.duration(now - each.since))
                for each in status.not_right
            ),
        ),
        _table(
            "Deletes that wait for 'reconcile approve'",
            ("kind", "revision", "wanted", "allowed", "owned"),
            ((b.kind, b.revision, str(b.wanted), str(b.allowed), str(b.owned)) for b in status.budgets),
        ),
        _sentences("Pauses", (words.pause(pause, now) for pause in status.pauses)),
        _table("Declared", ("kind", "number"), ((kind, str(n)) for kind, n in sorted(status.resources.items()))),
        _table(
            "Streams",
            ("stream", "state", "last event"),
            ((each.name, words.stream(each), words.ago(each.last_event, now)) for each in status.streams),
        ),
        _table(
            "Last passes that found something",
            ("time", "what", "story", "took"),
            ((line.time, line.what, line.story, line.took) for entry in passes for line in words.stories(entry)),
        ),
    ]
    title = escape(f"{status.node}: {status.outcome}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{''.join(sections)}</body></html>\n"
    )


def _headline(status: NodeStatus, now: float) -> str:
    revision = status.revision or f"none yet ({words.declared(status)})"
    details = (
        f"revision {revision}; last converged {words.ago(status.last_converged, now)}; "
        f"version {status.version}, pid {status.pid}, up {words.duration(now - status.started)}; "
        f"store: {status.store or 'none'}"
    )
    outcome = escape(status.outcome)
    return f'<h1>{escape(status.node)}: <span class="{outcome}">{outcome}</span></h1><p>{escape(details)}</p>'


def _sentences(title: str, sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(words.clean(sentence))}</li>" for sentence in sentences)
    return f"<h2>{escape(title)}</h2><ul>{items}</ul>" if items else ""


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(f"<tr>{''.join(_cell(text) for text in row)}</tr>" for row in rows)
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<h2>{escape(title)}</h2><table><tr>{names}</tr>{body}</table>" if body else ""


def _cell(text: str) -> str:
    return f"<td>{escape(words.clean(text))}</td>"
