"""The verb `trace`: where a packet would go from a port of this node, and what is missing on its way.

The way is `desired.network.trace`'s; the daemon says what is declared and what of it is not right, and the node's own
tools (`controllers.drivers.tracing`) answer the questions. Nothing is sent and nothing is changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconciler.doors.options import OutputOption
from reconciler.doors.session import Session
from reconciler.doors.show import Line, Lines
from reconciler.errors import ConfigError
from reconciler.report import ExitCode

if TYPE_CHECKING:
    from desired.network.trace.scene import Scene
    from desired.network.trace.told import Evidence, Hop, Traced


def trace(  # noqa: PLR0913 (the options of the verb)
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Option("--from", metavar="PORT", help="A port: name, id, MAC, address, device; or a NIC."),
    ],
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="Where to: any IP address.")],
    tcp: Annotated[int | None, typer.Option("--tcp", metavar="N", min=1, max=65535, help="TCP to this port.")] = None,
    udp: Annotated[int | None, typer.Option("--udp", metavar="N", min=1, max=65535, help="UDP to this port.")] = None,
    via: Annotated[
        str, typer.Option("--via", metavar="NODE", help="It comes from this node, which has been asked before.")
    ] = "",
    output: OutputOption = None,
) -> int:
    """Say where a packet would go: bridges, tunnels, namespaces, NAT; what is missing is marked with !!.

    A ping, unless --tcp or --udp is given. Asks Open vSwitch (ofproto/trace), the kernel's routes and the rules that
    are really there; sends nothing. Where the packet leaves for another node, the command to ask there is printed.

    Examples: reconcile trace --from fa:16:3e:11:00:01 --to 8.8.8.8; reconcile trace --from vm1 --to 169.254.169.254
    --tcp 80; reconcile trace --from eth2 --to 10.6.0.21 (from outside, to a floating IP).

    Exit codes: 0 it arrives, or leaves to where it should; 2 it does not; 5 the daemon or a tool does not answer.
    """
    from desired.network.trace.course import Asked  # noqa: PLC0415 (the model, which other verbs do without)

    session: Session = ctx.obj
    session.take(output)
    if tcp is not None and udp is not None:
        raise typer.BadParameter("--tcp and --udp exclude one another", ctx)
    protocol = "tcp" if tcp is not None else "udp" if udp is not None else "icmp"
    found = _followed(session, Asked(source, to, protocol, tcp or udp or 0, via))
    if session.as_json:
        session.printer.data(_as_data(found))
    else:
        session.printer.lines(_lines(found))
    return ExitCode.CONVERGED if found.arrives else ExitCode.CHANGES


def _followed(session: Session, asked: Any) -> Traced:
    """Put each question to the node until the way is known."""
    from controllers.drivers.tracing.ask import Asker  # noqa: PLC0415
    from desired.network.trace import course  # noqa: PLC0415

    settings = session.settings
    asker = Asker(settings.ovs_rundir, settings.ovsdb, settings.timeouts.ovsdb)
    way = course.trace(asked, _scene(session))
    try:
        question = next(way)
        while True:
            question = way.send(asker.answer(question))
    except StopIteration as end:
        found: Traced = end.value
        return found
    except course.NotHereError as error:
        raise ConfigError(str(error)) from error


def _scene(session: Session) -> Scene:
    from desired.network.trace.scene import Scene  # noqa: PLC0415
    from reconciler.doors.explain import not_right, of_daemon  # noqa: PLC0415

    client = session.daemon("a trace")
    resources, names = of_daemon(client.declared())
    return Scene(names, resources, not_right(client.status()))


def _lines(found: Traced) -> Lines:
    yield Line(found.packet.words(), "bold")
    for number, hop in enumerate(found.hops, 1):
        yield Line(f"{number:2}. {hop.sentence}")
        yield from _hop(hop)
    yield Line(found.end, "bold green" if found.arrives else "bold red")
    if found.command:
        yield Line(f"on {found.node}: {found.command}", "cyan")


def _hop(hop: Hop) -> Lines:
    for evidence in hop.evidence:
        yield Line(f"      {evidence.text}" + (f"   ({evidence.origin})" if evidence.origin else ""), "dim")
        if evidence.wrong:
            yield Line(f"   !! not as declared: {evidence.wrong}", "red")
    for missing in hop.missing:
        yield Line(f"   !! {missing}", "red")
    for doubt in hop.doubts:
        yield Line(f"    ? {doubt}", "yellow")


def _as_data(found: Traced) -> dict[str, object]:
    packet = found.packet
    return {
        "arrives": found.arrives,
        "end": found.end,
        "packet": {"from": packet.source, "to": packet.to, "protocol": packet.protocol, "port": packet.port or None},
        "hops": [
            {
                "sentence": hop.sentence,
                "evidence": [_evidence(one) for one in hop.evidence],
                "missing": list(hop.missing),
                "doubts": list(hop.doubts),
            }
            for hop in found.hops
        ],
        "node": found.node,
        "command": found.command,
    }


def _evidence(one: Evidence) -> dict[str, str]:
    return {"text": one.text, "resource": one.resource, "origin": one.origin, "not_right": one.wrong}
