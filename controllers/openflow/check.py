"""Is the flow syntax right? Asked of ovs-ofctl itself, without any switch: for `reconcile validate`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controllers.drivers.openflow.compiler import CompileFault, FlowCompiler
from controllers.drivers.openflow.ofctl import words
from desired.kinds.openflow import FlowSpec, GroupSpec, MeterSpec
from desired.resource import Resource
from desired.schema import Problem


async def misspelt(resources: Iterable[Resource], *, timeout: float) -> Sequence[Problem]:
    """What ovs-ofctl refuses of the flows, groups and meters, each at its place. Names that may be ports are none.

    Raises DriverError when ovs-ofctl is not installed or does not answer.
    """
    compiler = FlowCompiler(timeout=timeout)
    flows = {r: r.spec.flow for r in resources if isinstance(r.spec, FlowSpec)}
    groups = {r: r.spec.group for r in resources if isinstance(r.spec, GroupSpec)}
    meters = {r: r.spec.meter for r in resources if isinstance(r.spec, MeterSpec)}
    ports = {rid.name for rid in (r.id for r in resources) if rid.kind in {"port", "bond", "bridge"}}
    awaited = ports | {word for text in (*flows.values(), *groups.values()) for word in words(text) if "-" in word}
    problems = []
    for texts, answers in (
        (flows, await compiler.compile(flows.values(), {}, awaited) if flows else {}),
        (groups, await compiler.compile_groups(groups.values(), {}, awaited) if groups else {}),
        (meters, await compiler.compile_meters(meters.values()) if meters else {}),
    ):
        for resource, text in texts.items():
            fault = answers[text]
            if isinstance(fault, CompileFault) and not fault.ports:
                at = resource.origin
                message = f"invalid {resource.id.kind}: {fault.message}"
                hint = "see ovs-fields(7) and ovs-actions(7)"
                problems.append(Problem(message, at.file, at.line, at.column, at.path, hint))
    return problems
