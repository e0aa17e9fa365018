"""From a spec that the compiler made to a resource: its name as YAML gives it, and the line of the model it serves.

A compiled resource has the origin of the model object it comes from, so that errors, `render` and `explain` lead to
the line that a person wrote (or to the source `openstack`), and the source that must be in sync before it is deleted.
"""

from __future__ import annotations

from desired.kinds.file import InFile, name_of
from desired.kinds.namespace import Inside, resource_name
from desired.kinds.openflow import FlowSpec, split_flow
from desired.kinds.rules import RuleSpec
from desired.kinds.service import ServiceSpec
from desired.resource import Origin, Resource, ResourceId, Spec


def made(spec: Spec, origin: Origin, name: str = "") -> Resource:
    """The resource of `spec`. `name` is for kinds that are named and not described: bridge, port, namespace."""
    return Resource(ResourceId(spec.kind, name or _name(spec)), spec, origin, spec.generation())


def flow(bridge: str, text: str, origin: Origin) -> Resource:
    """The resource of one flow, in the syntax of ovs-ofctl."""
    return made(FlowSpec(bridge=bridge, flow=text), origin)


def _name(spec: Spec) -> str:
    match spec:
        case FlowSpec():
            return f"{spec.bridge}/{split_flow(spec.flow)[0]}"
        case RuleSpec():
            return f"{spec.namespace}/{spec.words()}"
        case ServiceSpec():
            return spec.name
        case InFile():
            return name_of(spec)
        case Inside():
            return resource_name(spec)
    raise ValueError(f"a {spec.kind} needs a name")
