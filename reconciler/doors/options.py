"""Options and arguments that several verbs share, with their help texts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reconciler.settings_values import parse_duration

WITHOUT = "none"


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


def duration(text: str) -> float:
    """Seconds; a mistake is wrong usage."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if seconds <= 0:
        raise typer.BadParameter("must be more than 0")
    return seconds


OutputOption = Annotated[
    Output | None, typer.Option("--output", help="text (for people, the default) or json (for programs).")
]
OnlyOption = Annotated[
    str | None, typer.Option("--only", metavar="KIND[/NAME]", help="Only this kind or this one resource.")
]
TimeoutOption = Annotated[
    float,
    typer.Option("--timeout", metavar="TIME", parser=duration, help="How long at most, e.g. 30, 90s or 5m."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Go past a daemon that holds the node and does not answer.")]
RoleOption = Annotated[
    list[str] | None, typer.Option("--role", metavar="ROLE", help="As if the node had this role (may be repeated).")
]
NodeOption = Annotated[str | None, typer.Option("--node", metavar="NAME", help="As if this were that node.")]
DirArgument = Annotated[
    Path | None, typer.Argument(metavar="[DIR]", help="Directory or file of YAML; the setting 'desired' if not given.")
]
