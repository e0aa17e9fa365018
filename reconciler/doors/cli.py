"""The command line `reconcile`: which verbs there are, and what a result or an error means as an exit code.

The verbs are in `work` (they make the node do something), `look` (they look at a running node), `tree` (they are
about the YAML and the settings), `fleet` (all nodes) and `depart` (release, support). Exit codes are the same for all
of them: see `reconciler.report.ExitCode`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from desired.store import StoreError
from reconciler import __version__
from reconciler.doors import depart, fleet, look, tree, work
from reconciler.doors.explain import explain
from reconciler.doors.options import ForceOption, NodeOption, OnlyOption, Output, OutputOption, TimeoutOption
from reconciler.doors.session import Session
from reconciler.doors.show import OutputClosedError, Printer, problem_lines
from reconciler.doors.stored import TreeError
from reconciler.doors.trace import trace
from reconciler.errors import ConflictError, ReconcilerError, TransientError
from reconciler.report import ExitCode
from reconciler.settings import DEFAULT_PATH, SettingsError

ClickError: type[Exception] = typer.BadParameter.__mro__[2]
"""Click's base of all wrong usage; which copy of click it belongs to depends on Typer's version."""

INTERRUPTED = 130

HELP = """Hold this node's network exactly as it was declared.

The daemon ('reconcile run', usually started by systemd) repairs drift the moment it happens. Everything else here
asks it, checks the YAML, or does one round of repair without it.

\b
reconcile validate                   is the YAML right?
reconcile plan                       what would be done, and why?
reconcile --once                     do it now, then end
reconcile --once --only port/tap0    ... only for this port
reconcile status                     how does the node stand?
reconcile events -f                  watch it work
reconcile explain 10.6.0.21          what is this, and what serves it?
reconcile trace --from vm1 --to 8.8.8.8  where would a packet go?
reconcile explain fa:16:3e:11:00:01  what is it, and what serves it here?
reconcile trace --from P --to IP     where would a packet go, and what is missing?
reconcile fleet                      how do all nodes stand?
reconcile pause node --reason "..." --for 30m

Exit codes: 0 as declared, nothing to do; 1 failed or invalid; 2 there are changes (plan, --dry-run); 3 something
waits or is withheld; 4 a conflict; 5 the daemon or Open vSwitch does not answer; 64 wrong usage.
"""

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True, help=HELP)
def root(  # noqa: PLR0913 (the options of --once stand on the program itself)
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", envvar="RECONCILER_CONFIG", help=f"Settings; default {DEFAULT_PATH}."),
    ] = None,
    desired: Annotated[
        Path | None, typer.Option("--desired", metavar="DIR", help="The YAML; default /etc/reconciler/desired.")
    ] = None,
    node: NodeOption = None,
    output: OutputOption = None,
    once: Annotated[bool, typer.Option("--once", help="Repair now what is not as declared, then end.")] = False,  # noqa: FBT002
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --once: only show what would be done.")] = False,  # noqa: FBT002
    only: OnlyOption = None,
    timeout: TimeoutOption = work.DEFAULT_TIMEOUT,  # type: ignore[assignment]  # its parser makes a float of it
    force: ForceOption = False,  # noqa: FBT002
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,  # noqa: FBT002
) -> int:
    ctx.obj = Session(
        config=config.absolute() if config else None,
        overrides={"desired": str(desired.absolute()) if desired else None, "node": node},
        as_json=output is Output.JSON,
        force=force,
    )
    if ctx.invoked_subcommand is not None:
        if once or dry_run or only:
            raise typer.BadParameter(f"--once stands alone, without {ctx.invoked_subcommand!r}", ctx)
        return ExitCode.CONVERGED
    if version:
        typer.echo(f"reconcile {__version__}")
        return ExitCode.CONVERGED
    if once:
        return work.once(ctx.obj, only=only, dry_run=dry_run, timeout=timeout)
    if dry_run or only or force:
        raise typer.BadParameter("--dry-run, --only and --force belong to --once", ctx)
    typer.echo(ctx.get_help())
    return ExitCode.USAGE


for _verb in (work.run, work.plan, work.approve, work.pause, work.resume):
    app.command()(_verb)
for _verb in (look.status, look.history, look.events, look.doctor):
    app.command()(_verb)
app.command()(explain)
app.command()(trace)
app.command("log-level")(look.log_level)
app.command()(fleet.fleet)
for _verb in (depart.release, depart.support):
    app.command()(_verb)
for _verb in (tree.validate, tree.render, tree.schema, tree.config):
    app.command()(_verb)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code. Called by the script `reconcile`."""
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except OutputClosedError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return ExitCode.CONVERGED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def _dispatch(argv: list[str]) -> int:
    printer = Printer()
    try:
        return int(typer.main.get_command(app).main(argv, prog_name="reconcile", standalone_mode=False) or 0)
    except StoreError as error:
        printer.complain(str(error))
        return ExitCode.UNREACHABLE
    except (SettingsError, TreeError) as error:
        printer.complain("\n".join(line.text for line in problem_lines(error.problems)))
    except ConflictError as error:
        printer.complain(str(error))
        return ExitCode.CONFLICT
    except TransientError as error:
        printer.complain(str(error))
        return ExitCode.UNREACHABLE
    except ReconcilerError as error:
        printer.complain(str(error))
    except ClickError as error:
        printer.complain(error.format_message())  # type: ignore[attr-defined]  # see ClickError
        printer.complain("'reconcile --help' and 'reconcile VERB --help' explain every option")
        return ExitCode.USAGE
    return ExitCode.FAILED


if __name__ == "__main__":
    sys.exit(main())
