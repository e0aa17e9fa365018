"""The verbs about what is declared, and about the settings: validate, render, schema, config. No daemon is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from reconciler.doors.options import DirArgument, NodeOption, OutputOption, RoleOption
from reconciler.doors.session import Session
from reconciler.doors.show import Line, Lines, problem_lines
from reconciler.doors.stored import as_problems
from reconciler.doors.words import clean
from reconciler.errors import DriverError
from reconciler.report import ExitCode, Problem

if TYPE_CHECKING:
    from desired.network.compose import Composed
    from desired.schema import Loaded


def validate(
    ctx: typer.Context,
    directory: DirArgument = None,
    node: NodeOption = None,
    role: RoleOption = None,
    output: OutputOption = None,
) -> int:
    """Check the YAML and show every mistake in it.

    Of every file, with its place and what would be right.

    Example: reconcile validate ./desired --node net1 --role network
    """
    session: Session = ctx.obj
    session.take(output)
    composed, name = _composed(session, directory, node, role)
    loaded = composed.loaded
    problems, warnings = as_problems(loaded.problems), as_problems((*loaded.warnings, *composed.remarks))
    misspelt, unchecked = _ask_the_tools(session, loaded)
    problems, warnings = (*problems, *misspelt), (*warnings, *unchecked)
    session.printer.answer(problems, _verdict(loaded, name, problems, warnings), Sequence[Problem])
    return ExitCode.FAILED if problems else ExitCode.CONVERGED


def _ask_the_tools(session: Session, loaded: Loaded) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """What ovs-ofctl says of the flows: (problems, a warning when it cannot be asked)."""
    from controllers.catalog import misspelt  # noqa: PLC0415 (only this verb needs them)

    try:
        found = asyncio.run(misspelt(loaded.resources, timeout=session.settings.timeouts.ofctl))
    except DriverError as error:
        return (), (Problem(f"the syntax of flows was not checked: {error}"),)
    return as_problems(found), ()


def render(
    ctx: typer.Context,
    directory: DirArgument = None,
    node: NodeOption = None,
    role: RoleOption = None,
    output: OutputOption = None,
) -> int:
    """Print what is declared for one node.

    As one document, with the place each thing was declared at; what a network model means for the node is compiled.
    Local VLANs of a model are written as names: which numbers they have, only the node knows.

    Example: reconcile render --node net1 --role network
    """
    from controllers.catalog import SECTIONS  # noqa: PLC0415 (every kind there is)
    from desired.schema import dump_resources  # noqa: PLC0415

    session: Session = ctx.obj
    session.take(output)
    composed, _ = _composed(session, directory, node, role)
    loaded, in_words = composed.loaded, _vlans_in_words(composed)
    if loaded.problems:
        session.printer.complain("\n".join(line.text for line in problem_lines(as_problems(loaded.problems))))
        return ExitCode.FAILED
    if session.as_json:
        session.printer.data([_resource(resource, in_words) for resource in loaded.resources])
    else:
        session.printer.line(Line(in_words(dump_resources(loaded.resources, SECTIONS)).rstrip("\n")))
    return ExitCode.CONVERGED


def _vlans_in_words(composed: Composed) -> Callable[[str], str]:
    """Text with the local VLANs of the model as the names of their networks: which numbers a node has, it knows."""
    if not composed.model:
        return lambda text: text
    from desired.network.build import build  # noqa: PLC0415 (the model, which other verbs do without)
    from desired.network.symbolic import worded  # noqa: PLC0415

    topology = build(composed.model)
    return lambda text: worded(text, composed.allocations, topology)


def schema(ctx: typer.Context) -> int:
    """Print the JSON Schema of the YAML, for editors.

    Example: reconcile schema > ~/.config/reconciler.schema.json, and in the YAML's first line:
    # yaml-language-server: $schema=~/.config/reconciler.schema.json
    """
    from controllers.catalog import SECTIONS  # noqa: PLC0415 (every kind there is)
    from desired.schema import json_schema  # noqa: PLC0415

    session: Session = ctx.obj
    session.printer.data(json_schema(SECTIONS))
    return ExitCode.CONVERGED


def config(ctx: typer.Context, output: OutputOption = None) -> int:
    """Print the settings in effect, with their origin.

    Default, file:line, environment VAR or flag. A setting is changed in /etc/reconciler/reconciler.toml, or by a
    variable: timeouts.ovsdb is RECONCILER_TIMEOUTS__OVSDB. Passwords are not shown.
    """
    session: Session = ctx.obj
    session.take(output)
    effective = session.settings.effective()
    if session.as_json:
        session.printer.data({entry.name: {"value": entry.value, "origin": entry.origin} for entry in effective})
    else:
        texts = [(entry.name, _plain(entry.value), entry.origin) for entry in effective]
        width = max(len(f"{name} = {value}") for name, value, _ in texts)
        session.printer.lines(
            Line(f"{f'{name} = {value}':{width}}  # {origin}", "" if origin == "default" else "bold")
            for name, value, origin in texts
        )
    return ExitCode.CONVERGED


def _load(
    session: Session, directory: Path | None, node: str | None, roles: Sequence[str] | None
) -> tuple[Loaded, str]:
    """What is declared for the node asked for, and that node's name. `roles` given replace the settings'."""
    composed, name = _composed(session, directory, node, roles)
    return composed.loaded, name


def _composed(
    session: Session, directory: Path | None, node: str | None, roles: Sequence[str] | None
) -> tuple[Composed, str]:
    """The same with the model behind it."""
    if directory is not None:
        session.overrides["desired"] = str(directory.absolute())
    settings = session.settings
    name = node or settings.node
    return session.here().compose_desired(settings, name, tuple(roles) if roles else settings.roles), name


def _verdict(loaded: Loaded, node: str, problems: Sequence[Problem], warnings: Sequence[Problem]) -> Lines:
    yield from (Line(line.text, "yellow") for line in problem_lines(warnings))
    yield from problem_lines(problems)
    files = f"{loaded.files} file{'' if loaded.files == 1 else 's'}"
    if problems:
        count = f"{len(problems)} mistake{'' if len(problems) == 1 else 's'}"
        yield Line(f"{count} in {files}: not valid", "bold red")
    else:
        number = f"{len(loaded.resources)} resource{'' if len(loaded.resources) == 1 else 's'}"
        yield Line(f"{number} for node {clean(node)} from {files}: valid", "bold green")


def _resource(resource: Any, in_words: Callable[[str], str]) -> dict[str, Any]:
    spec = resource.spec.model_dump(mode="json", exclude_defaults=True)
    for key, value in spec.items():
        if key == "tag":
            said = in_words(f"tag: {value}").removeprefix("tag: ")
            spec[key] = value if said == str(value) else said
        elif isinstance(value, str):
            spec[key] = in_words(value)
    return {"resource": str(resource.id), "spec": spec, "origin": str(resource.origin)}


def _plain(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "" if value is None else str(value)
