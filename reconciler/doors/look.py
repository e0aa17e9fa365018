"""The verbs that look at a running node: status, history, events, log-level, doctor. They change nothing on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from reconciler.contract import PassRecord
from reconciler.doors import wire
from reconciler.doors.client import DaemonAbsentError, DaemonSilentError
from reconciler.doors.options import OutputOption, duration
from reconciler.doors.session import Session, now
from reconciler.doors.show import Line, Lines, status_lines, story_lines
from reconciler.report import ExitCode

RECENT = 20


def status(
    ctx: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All resources, and the streams.")] = False,  # noqa: FBT002
    output: OutputOption = None,
) -> int:
    """Show how the node stands.

    What is not as declared and why, deletes that wait, pauses, mistakes in the YAML.

    Exit code 0: all is as declared. 1: something failed. 3: something waits. 4: a conflict. 5: no daemon answers.
    """
    session: Session = ctx.obj
    session.take(output)
    found = session.daemon("'status'").status()
    session.printer.answer(found, status_lines(found, now(), verbose=verbose))
    return found.exit_code


def history(
    ctx: typer.Context,
    resource: Annotated[
        str | None, typer.Argument(metavar="[RESOURCE]", help="Only what concerned this one, e.g. port/patch-tun.")
    ] = None,
    since: Annotated[
        float | None, typer.Option("--since", metavar="TIME", parser=duration, help="Only the last e.g. 1h or 2d.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many passes at most.")] = 50,
    output: OutputOption = None,
) -> int:
    """Show what was found and done, newest first.

    The journal: each change with its reason, what gates withheld, and how long it took from the event.

    Works without the daemon too: the journal is read from the store.

    Example: reconcile history port/patch-tun --since 1d
    """
    from reconciler.doors import stored  # noqa: PLC0415

    session: Session = ctx.obj
    session.take(output)
    after = None if since is None else now() - since
    try:
        records = session.client.history(resource=resource, since=after, limit=limit)
    except DaemonAbsentError:
        records = stored.history(session, resource, after, limit)
    except DaemonSilentError as error:
        session.printer.complain(f"{error}; reading the store")
        records = stored.history(session, resource, after, limit)
    session.printer.answer(records, _journal(records), Sequence[PassRecord])
    return ExitCode.CONVERGED


def events(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, live, until Ctrl-C.")] = False,  # noqa: FBT002
    limit: Annotated[int, typer.Option("--limit", min=0, max=1000, help="How many past ones first.")] = RECENT,
    output: OutputOption = None,
) -> int:
    """Show what the daemon does, with -f as it happens.

    Oldest first. With --output json each pass is one line of JSON.
    """
    session: Session = ctx.obj
    session.take(output)
    daemon = session.daemon("'events'")
    live = daemon.events() if follow else None
    past = daemon.history(resource=None, since=None, limit=limit) if limit else ()
    _tell(session, reversed(past))
    if live is not None:
        known = max((record.pass_id for record in past), default=0)
        _tell(session, (record for record in live if record.pass_id > known))
        session.printer.complain("the daemon has ended the live stream")
    return ExitCode.CONVERGED


def log_level(
    ctx: typer.Context,
    level: Annotated[str, typer.Argument(metavar="LEVEL", help="debug, info, warning or error.")],
    output: OutputOption = None,
) -> int:
    """Change how much the running daemon logs.

    Until it is restarted: the setting is log_level.
    """
    session: Session = ctx.obj
    session.take(output)
    before = session.daemon("'log-level'").set_log_level(level)
    answer = {"level": level, "before": before}
    session.printer.answer(answer, [Line(f"log level {level} (before: {before})")], dict[str, str])
    return ExitCode.CONVERGED


def doctor(ctx: typer.Context, output: OutputOption = None) -> int:
    """Check what the daemon needs on this machine.

    Each with a verdict, and what to do when it is bad: rights, tools, Open vSwitch, YAML, store, disk, daemon.

    Exit code 0: all well. 1: something is wrong. 5: Open vSwitch does not answer.
    """
    from reconciler.doors import doctor as checks  # noqa: PLC0415

    session: Session = ctx.obj
    session.take(output)
    found = checks.examine(session)
    session.printer.answer(found, checks.lines(found), Sequence[checks.Check])
    return checks.exit_code(found)


def _journal(records: Sequence[PassRecord]) -> Lines:
    for record in records:
        yield from story_lines(record, date=True)
    if not records:
        yield Line("the journal has nothing of that")


def _tell(session: Session, records: Iterable[PassRecord]) -> None:
    for record in records:
        if session.as_json:
            session.printer.line(Line(wire.dumps(record)))
        else:
            session.printer.lines(story_lines(record))
