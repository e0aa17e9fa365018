"""The verb `explain`: in words, what something on this node is for, or what on this node serves an object.

The words are `desired.network.explain`'s; what is declared comes from the running daemon, or else from the YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from desired.resource import ResourceId
from reconciler.contract import ResourceStatus
from reconciler.doors.client import DaemonAbsentError
from reconciler.doors.options import OutputOption
from reconciler.doors.session import Session
from reconciler.doors.show import Line, Lines
from reconciler.doors.stored import TreeError, as_problems
from reconciler.doors.words import clean
from reconciler.errors import ConfigError
from reconciler.report import Declared, ExitCode, NodeStatus

if TYPE_CHECKING:
    from desired.network.explain import Explained
    from desired.network.words import Names
    from desired.resource import Resources


def explain(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A resource (flow/br-tun/...), or a port, network, router or floating IP: by name, id, MAC, address.",
        ),
    ],
    output: OutputOption = None,
) -> int:
    """Say what something is for, or what serves it.

    Of a flow, tag, rule or namespace: what it does, in words, and the declared line that made it. Of a port, a MAC, an
    address, a network, a router, "vlan 3": what it is, and everything on this node that serves it.

    Examples: reconcile explain fa:16:3e:11:00:01; reconcile explain namespace/qrouter-1f0a
    """
    from desired.network.explain import explain as told  # noqa: PLC0415 (the model, which other verbs do without)

    session: Session = ctx.obj
    session.take(output)
    resources, names, wrong, note = _what_is_there(session)
    try:
        found = told(what, resources, names, wrong)
    except LookupError as error:
        raise ConfigError(str(error.args[0])) from error
    if session.as_json:
        session.printer.data(_as_data(found))
    else:
        session.printer.lines(_lines(found, note))
    return ExitCode.CONVERGED


def _what_is_there(session: Session) -> tuple[Resources, Names, Mapping[ResourceId, str], str]:
    """The resources, what names stand for, what is not right, and a sentence when it is not from the running node."""
    from desired.network.build import build  # noqa: PLC0415
    from desired.network.words import Names  # noqa: PLC0415

    try:
        declared = session.client.declared()
    except DaemonAbsentError:
        composed = session.here().compose_desired(session.settings, session.settings.node, session.settings.roles)
        if composed.loaded.problems:
            raise TreeError(as_problems(composed.loaded.problems)) from None
        names = Names(build(composed.model), composed.allocations.vlans, session.settings.node)
        note = "no daemon runs here: this is what the YAML says; local VLANs are those of an empty node"
        return {resource.id: resource for resource in composed.loaded.resources}, names, {}, note
    return (*of_daemon(declared), not_right(session.client.status()), "")


def not_right(status: NodeStatus) -> Mapping[ResourceId, str]:
    """Why each thing is not right that is not."""
    return {each.resource: _why(each) for each in status.not_right}


def _why(status: ResourceStatus) -> str:
    return clean(f"{status.reason} [withheld by {status.gate}]" if status.gate else status.reason)


def of_daemon(declared: Declared) -> tuple[Resources, Names]:
    from controllers.catalog import spec_classes  # noqa: PLC0415 (every kind there is)
    from desired.network.build import build  # noqa: PLC0415
    from desired.network.model import KINDS, Model  # noqa: PLC0415
    from desired.network.words import Names  # noqa: PLC0415
    from reconciler.declared import resources_of  # noqa: PLC0415

    resources = {resource.id: resource for resource in resources_of(declared.resources, spec_classes())}
    model = Model.of(resources_of(declared.objects, {kind.kind: kind for kind in KINDS}))
    return resources, Names(build(model), declared.vlans, declared.node)


def _lines(found: Explained, note: str) -> Lines:
    if note:
        yield Line(note, "yellow")
    for sentence in found.subject:
        yield Line(sentence, "bold")
    place = ""
    for told in found.told:
        if told.place != place:
            place = told.place
            yield Line(place, "cyan")
        yield Line(f"  {told.words}")
        path = f", {told.origin.path}" if told.origin.path else ""
        yield Line(f"      {told.resource}   ({told.origin}{path})", "dim")
        if told.wrong:
            yield Line(f"   !! not as declared: {told.wrong}", "red")
    if not found.told:
        yield Line("nothing on this node serves it")


def _as_data(found: Explained) -> dict[str, object]:
    told = [
        {
            "resource": str(one.resource),
            "words": one.words,
            "place": one.place,
            "origin": str(one.origin),
            "path": one.origin.path,
            "not_right": one.wrong,
        }
        for one in found.told
    ]
    return {"subject": list(found.subject), "resources": told}
