"""The verbs at the end of things: release (our marks come off the node), support (what a bug report needs)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.doors import words
from reconciler.doors.options import OutputOption
from reconciler.doors.session import Session, now
from reconciler.doors.show import Line, Lines
from reconciler.errors import TerminalError
from reconciler.lock import LockHeldError, node_lock
from reconciler.report import ExitCode

if TYPE_CHECKING:
    from controllers.release import Released


def release(ctx: typer.Context, output: OutputOption = None) -> int:
    """Take our marks off this node, and leave what we made in place, working.

    For a node that shall be held by nobody, or by something else. The daemon must be stopped first. Bridges, ports,
    flows, namespaces and links stay as they are, and traffic with them; they are nobody's afterwards. Flows are
    replaced by themselves with cookie 0, so their counters begin anew. A daemon that is started again finds a conflict
    in each declared bridge, port and namespace until it says adopt: true. What stays recognizable: iptables chains by
    their name, files by their first line, addresses and routes by their protocol number.

    Example: systemctl disable --now reconciler && reconcile release
    """
    from controllers import release as releasing  # noqa: PLC0415 (drivers)
    from controllers.ownership import Owner  # noqa: PLC0415
    from reconciler import logs  # noqa: PLC0415

    session: Session = ctx.obj
    session.take(output)
    settings = session.settings
    logs.configure("warning", settings.log_format)
    try:
        with node_lock(settings.lock_path):
            work = releasing.release(
                settings.ovsdb, settings.ovs_rundir, Owner(settings.owner), timeout=settings.timeouts.ovsdb
            )
            released = asyncio.run(work)
    except LockHeldError as error:
        raise TerminalError(
            f"nothing was released: {error}, and would mark everything again; stop it first, with "
            "'systemctl disable --now reconciler'"
        ) from error
    session.printer.answer(released, _released(released), Sequence[releasing.Released])
    return ExitCode.CONVERGED


def support(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to; a .tar.gz in the current directory if not given.")
    ] = None,
    output: OutputOption = None,
) -> int:
    """Pack what a bug report needs, without secrets.

    Status, the last 1000 passes of the journal, settings and YAML, versions, doctor, what Open vSwitch and the kernel
    say. Passwords, keys and tokens are taken out; look into it before you send it all the same.

    Example: reconcile support /tmp/node1.tar.gz
    """
    from reconciler.doors import support as packing  # noqa: PLC0415

    session: Session = ctx.obj
    session.take(output)
    packed = packing.pack(session, file.absolute() if file else packing.default_path(session, now()))
    session.printer.answer(packed, _packed(packed.path, packed.bytes, packed.missing))
    return ExitCode.CONVERGED


def _released(released: Sequence[Released]) -> Lines:
    for each in released:
        kind, name, count = (getattr(each, field) for field in ("kind", "name", "count"))
        yield Line(
            f"released  {words.clean(f'{kind}/{name}')}" + (f"  ({words.count(count, kind)})" if count > 1 else "")
        )
    yield Line(
        "the marks are off; everything stays as it is" if released else "nothing here carried our mark", "bold green"
    )


def _packed(path: str, size: int, missing: Sequence[str]) -> Lines:
    yield Line(f"{words.clean(path)} ({size / 1024:,.0f} KiB): look into it before you send it", "green")
    for name in missing:
        yield Line(f"  nothing to be had of {words.clean(name)} (why: see there)", "yellow")
