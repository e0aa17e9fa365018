"""The verbs that make the node do something: run, --once, plan, approve, pause, resume.

With a daemon running it does the work; without one, it is done here, through `reconciler.daemon`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from reconciler.doors import stored, words
from reconciler.doors.options import ForceOption, OnlyOption, OutputOption, TimeoutOption, duration
from reconciler.doors.session import Session, caller, now
from reconciler.doors.show import Line, Lines, once_lines
from reconciler.lock import LockHeldError
from reconciler.report import Budget, ExitCode, OnceResult, Pause

WAIT_SECONDS = 5.0
DEFAULT_TIMEOUT = "60"

WhatArgument = Annotated[
    str, typer.Argument(metavar="WHAT", help="node, a kind (flow), or one resource (port/patch-tun).")
]


def once(session: Session, *, only: str | None, dry_run: bool, timeout: float) -> int:
    """``reconcile --once``: asks the daemon, or works here when nobody holds the node."""
    result: OnceResult | None = None
    while result is None:
        daemon = session.daemon_or_none(wait=timeout)
        if daemon is not None:
            result = daemon.once(only=only, dry_run=dry_run, timeout=timeout)
        else:
            result = _once_here(session, only, dry_run=dry_run, timeout=timeout)
    session.printer.answer(result, once_lines(result, dry_run=dry_run))
    return result.exit_code


def _once_here(session: Session, only: str | None, *, dry_run: bool, timeout: float) -> OnceResult | None:
    """None when somebody took the node's lock in the moment before we could."""
    run_once = session.here().run_once
    try:
        return asyncio.run(run_once(session.settings, only=only, dry_run=dry_run, timeout=timeout, force=session.force))
    except LockHeldError:
        return None


def run(ctx: typer.Context) -> int:
    """Run the daemon in the foreground.

    Until SIGTERM or Ctrl-C; SIGHUP reads the settings again. systemd starts it like this; on a terminal it tells
    what it finds and does.
    """
    from reconciler import daemon  # noqa: PLC0415 (the engine and its libraries)

    session: Session = ctx.obj
    return asyncio.run(daemon.run_daemon(session.settings))


def plan(
    ctx: typer.Context,
    only: OnlyOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,  # type: ignore[assignment]  # its parser makes a float of it
    force: ForceOption = False,  # noqa: FBT002 (a flag)
    output: OutputOption = None,
) -> int:
    """Show what would be done and why; change nothing.

    The same as --once --dry-run.

    Exit code 0: nothing to do. 2: there are changes. 3: something waits. 4: a conflict.

    Example: reconcile plan --only flow
    """
    session: Session = ctx.obj
    session.take(output, force=force)
    return once(session, only=only, dry_run=True, timeout=timeout)


def approve(
    ctx: typer.Context,
    revision: Annotated[
        str | None, typer.Argument(metavar="[REVISION]", help="Which one; the current one if not given.")
    ] = None,
    output: OutputOption = None,
) -> int:
    """Let through deletes that the budget withholds.

    They wait because they are more than one change should take away. 'reconcile status' and 'reconcile plan' show
    what waits, and the revision that wants it.

    Example: reconcile approve 3f2a91c07b1e
    """
    session: Session = ctx.obj
    session.take(output)
    daemon = session.daemon_or_none(wait=WAIT_SECONDS)
    if daemon is not None:
        through = daemon.approve(revision)
        session.printer.answer(through, _approved(through), Sequence[Budget])
        return ExitCode.CONVERGED
    chosen = stored.approve(session, revision)
    text = f"the deletes of revision {chosen} are approved; the next 'reconcile --once' or 'run' carries them out"
    session.printer.answer((), [Line(text)], Sequence[Budget])
    return ExitCode.CONVERGED


def pause(
    ctx: typer.Context,
    what: WhatArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown in status and kept in the journal.")],
    for_: Annotated[
        float | None,
        typer.Option("--for", metavar="TIME", parser=duration, help="Ends by itself after e.g. 30m or 2h."),
    ] = None,
    output: OutputOption = None,
) -> int:
    """Stop repairing the node, a kind or one resource. Drift is still seen and shown.

    Example: reconcile pause port/patch-tun --reason "cable work, ticket 4711" --for 30m
    """
    session: Session = ctx.obj
    session.take(output)
    daemon = session.daemon_or_none(wait=WAIT_SECONDS)
    if daemon is not None:
        made = daemon.pause(what, reason=reason, seconds=for_, by=caller())
    else:
        made = stored.pause(session, what, reason, for_)
    session.printer.answer(made, [Line(words.pause(made, now()))])
    return ExitCode.CONVERGED


def resume(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(metavar="[WHAT]", help="What was paused, or all.")] = "all",
    output: OutputOption = None,
) -> int:
    """End a pause, or all of them.

    What drifted meanwhile is repaired at once.

    Example: reconcile resume port/patch-tun
    """
    session: Session = ctx.obj
    session.take(output)
    daemon = session.daemon_or_none(wait=WAIT_SECONDS)
    ended = daemon.resume(what, by=caller()) if daemon is not None else stored.resume(session, what)
    session.printer.answer(ended, _resumed(ended, what), Sequence[Pause])
    return ExitCode.CONVERGED


def _approved(through: Sequence[Budget]) -> Lines:
    for budget in through:
        yield Line(f"approved: {budget.wanted} deletes of {budget.kind} (revision {budget.revision})", "green")
    if not through:
        yield Line("nothing waited for an approval")


def _resumed(ended: Sequence[Pause], what: str) -> Lines:
    for pause_ in ended:
        yield Line(f"{words.clean(pause_.what)} is repaired again", "green")
    if not ended:
        yield Line("nothing was paused" if what == "all" else f"{words.clean(what)} was not paused")
