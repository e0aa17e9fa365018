"""What one node's desired state is made of: what YAML declares for it, and what the network model means for it.

The model comes from YAML and from OpenStack. Where both have an object, YAML wins and the overlap is told; a mistake in
YAML refuses the revision, an object of OpenStack that is at fault is left out and told. What YAML declares for the node
itself wins over what the model compiles to, and that is told, too. Pure, and incremental: a `Composer` is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from desired.network.allocations import Allocations
from desired.network.build import build
from desired.network.check import WORDS, Fault, faults
from desired.network.compiler import Compiler
from desired.network.model import KIND_NAMES, Model, NodeSpec, object_id
from desired.network.symbolic import dealt
from desired.resource import Resource, ResourceId
from desired.schema.problem import Problem, did_you_mean
from desired.schema.tree import Loaded

Objects = Mapping[ResourceId, Resource]
_NONE: Objects = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Composed:
    """`loaded` has this node's resources in the place of the model's; `notices` say what of the model is not served.

    `remarks` are those of them that YAML's objects are the reason for, with their place.
    """

    loaded: Loaded
    model: Model = field(default_factory=lambda: Model(_NONE))
    allocations: Allocations = field(default_factory=Allocations)
    notices: Sequence[str] = ()
    remarks: Sequence[Problem] = ()


@dataclass(frozen=True, slots=True)
class _Yaml:
    """One loaded tree, cut into what is for the model and what is for the node."""

    loaded: Loaded
    objects: Objects
    ids: frozenset[tuple[str, str]]
    resources: Objects

    @classmethod
    def of(cls, loaded: Loaded) -> _Yaml:
        objects = {r.id: r for r in loaded.resources if r.id.kind in KIND_NAMES}
        ids = frozenset((r.id.kind, object_id(r)) for r in objects.values() if not isinstance(r.spec, NodeSpec))
        rest = {r.id: r for r in loaded.resources if r.id.kind not in KIND_NAMES}
        return cls(loaded, MappingProxyType(objects), ids, MappingProxyType(rest))


class Composer:
    """Makes one node's desired state; what did not change since the last time is not made again."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._compiler = Compiler(node)
        self._yaml = _Yaml.of(Loaded())
        self._faults: tuple[Loaded | None, Sequence[Fault]] = (None, ())

    def model(self, loaded: Loaded, openstack: Objects = _NONE) -> Model:
        """The model of both sources, without judging it."""
        if loaded is not self._yaml.loaded:
            self._yaml = _Yaml.of(loaded)
        return self._merged(openstack)[0]

    def dealt(self, loaded: Loaded) -> Allocations:
        """Local VLANs for where the node's own are not known (see `desired.network.symbolic`)."""
        model = self.model(loaded)
        return dealt(build(model), self._node) if model else Allocations()

    def compose(
        self, loaded: Loaded, allocations: Allocations, openstack: Objects = _NONE, *, waiting: bool = False
    ) -> Composed:
        """`openstack` is the mirror's objects; `waiting`: it may not have all of them yet, so dangling is no mistake.

        With problems, `loaded.resources` is not to be enforced.
        """
        if loaded.problems:
            return Composed(loaded, allocations=allocations)
        if loaded is not self._yaml.loaded:
            self._yaml = _Yaml.of(loaded)
        model, notices = self._merged(openstack)
        if not model:
            return Composed(loaded, allocations=allocations)
        problems = [*self._yaml_faults(model, dangling=not waiting), *self._missing_node(model)]
        if problems:
            return Composed(replace(loaded, problems=tuple(problems)), model, allocations, notices)
        compiled = self._compiler.compile(model, allocations)
        said = [f"{_said(resource)}: {message}" for resource, message in compiled.problems]
        remarks = [_remark(resource, message) for resource, message in compiled.problems if resource.origin.file]
        resources, warnings = self._overridden(compiled.resources)
        whole = replace(loaded, resources=tuple(resources.values()), warnings=(*loaded.warnings, *warnings))
        return Composed(whole, model, compiled.allocations, (*notices, *said), remarks)

    def _merged(self, openstack: Objects) -> tuple[Model, list[str]]:
        yaml = self._yaml
        if not openstack:
            return Model(yaml.objects), []
        overlaps = [
            resource for rid, resource in openstack.items() if rid in yaml.objects or (rid.kind, rid.name) in yaml.ids
        ]
        notices = [f"{_said(resource)} is declared in YAML as well, which wins" for resource in overlaps]
        taken = {resource.id for resource in overlaps}
        rest = openstack if not taken else {rid: each for rid, each in openstack.items() if rid not in taken}
        return Model(MappingProxyType({**rest, **yaml.objects})), notices

    def _yaml_faults(self, model: Model, *, dangling: bool) -> Iterable[Problem]:
        """Looked for once for each tree: what comes from OpenStack afterwards is judged by the topology."""
        known, found = self._faults
        if known is not self._yaml.loaded:
            own = self._yaml.objects
            found = [fault for fault in faults(model) if own.get(fault.resource.id) is fault.resource]
            self._faults = (self._yaml.loaded, found)
        return [fault.problem() for fault in found if dangling or not fault.dangling]

    def _missing_node(self, model: Model) -> Iterable[Problem]:
        """A model that does not know this node would make nothing here, and take away what is there: refused."""
        names = [resource.id.name for resource in model.all(NodeSpec)]
        declared = [rid.name for rid in self._yaml.objects if rid.kind == NodeSpec.kind]
        if self._node in names or not declared:
            return
        first = self._yaml.objects[ResourceId(NodeSpec.kind, declared[0])].origin
        message = f"node {self._node} is not among the model's nodes, so the model would make nothing here; refused"
        known = ", ".join(sorted(names)[:10])
        hint = did_you_mean(self._node, names) or (
            f"known here: {known}; add it, or say which of them this is (setting node, or --node)"
        )
        yield Problem(message, first.file, first.line, first.column, "model.nodes", hint)

    def _overridden(self, compiled: Objects) -> tuple[Objects, list[Problem]]:
        own = self._yaml.resources
        warnings = [
            Problem(
                f"{rid} is also what the model makes of {compiled[rid].origin.path}; what is declared here wins",
                resource.origin.file,
                resource.origin.line,
                resource.origin.column,
                resource.origin.path,
            )
            for rid, resource in own.items()
            if rid in compiled
        ]
        return ({**compiled, **own} if own else compiled), warnings


def _remark(resource: Resource, message: str) -> Problem:
    at = resource.origin
    return Problem(message, at.file, at.line, at.column, at.path)


def _said(resource: Resource) -> str:
    if resource.id.kind not in WORDS:  # what two objects make, and differently: no object itself
        return f"{resource.origin}, {resource.origin.path}"
    display = getattr(resource.spec, "display", "")
    name = f"{resource.id.name} ({display})" if display else resource.id.name
    return f"{resource.origin}: {WORDS[resource.id.kind]} {name}"
