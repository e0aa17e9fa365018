"""What one node's desired state is made of: what YAML declares for it, and what the network model means for it.

The model comes from YAML and from OpenStack. Where both have an object, YAML wins and the overlap is told; a mistake in
YAML refuses the revision, an object of OpenStack that is at fault is left out and told. What YAML declares for the node
itself wins over what the model compiles to, and that is told, too. Pure, and incremental: a `Composer` is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from desired.network.allocations import Allocations
from desired.network.build import build
from desired.network.check import Fault, faults
from desired.network.compiler import Compiled, Compiler
from desired.network.model import KIND_NAMES, Model, NodeSpec, object_id
from desired.network.symbolic import dealt
from desired.resource import Difference, Resource, ResourceId, copied
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
    step: Difference | None = None
    """How `loaded.resources` came from those of this composer's last good state; None when that was not followed."""
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
        objects = {r.id: r for r in loaded.resources if r.id.kind in KIND_NAMES and r.id not in loaded.unread}
        ids = frozenset((r.id.kind, object_id(r)) for r in objects.values() if not isinstance(r.spec, NodeSpec))
        rest = {r.id: r for r in loaded.resources if r.id.kind not in KIND_NAMES}
        return cls(loaded, MappingProxyType(objects), ids, MappingProxyType(rest))

    def declares(self, rid: ResourceId) -> bool:
        """Whether an object of OpenStack is declared here as well."""
        return rid in self.objects or (rid.kind, rid.name) in self.ids


@dataclass(frozen=True, slots=True)
class _Joined:
    """The model of both sources. `overlaps` are OpenStack's objects that YAML declares as well."""

    yaml: _Yaml
    model: Model
    overlaps: Objects

    @classmethod
    def of(cls, yaml: _Yaml, openstack: Objects) -> _Joined:
        overlaps = {rid: resource for rid, resource in openstack.items() if yaml.declares(rid)}
        rest = openstack if not overlaps else {rid: each for rid, each in openstack.items() if rid not in overlaps}
        return cls(yaml, Model(MappingProxyType({**rest, **yaml.objects})), overlaps)

    def after(self, openstack: Objects, changed: Iterable[ResourceId]) -> _Joined:
        """The same with these objects as OpenStack has them now."""
        objects, overlaps = copied(self.model.objects), dict(self.overlaps)
        for rid in changed:
            resource = openstack.get(rid)
            overlaps.pop(rid, None)
            if self.yaml.declares(rid):
                overlaps.update({} if resource is None else {rid: resource})
            elif resource is None:
                objects.pop(rid, None)
            else:
                objects[rid] = resource
        return _Joined(self.yaml, Model(MappingProxyType(objects)), overlaps)

    def notices(self) -> list[str]:
        return [f"{_said(resource)} is declared in YAML as well, which wins" for resource in self.overlaps.values()]


class Composer:
    """Makes one node's desired state; what did not change since the last time is not made again."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._compiler = Compiler(node)
        self._yaml = _Yaml.of(Loaded())
        self._joined: _Joined | None = None
        self._before: _Joined | None = None
        self._compiled: _Joined | None = None
        """What was compiled last."""
        self._good: _Yaml | None = None
        """The tree of the last state, if that was a good one."""
        self._faults: tuple[Loaded | None, Sequence[Fault]] = (None, ())

    def model(self, loaded: Loaded, openstack: Objects = _NONE) -> Model:
        """The model of both sources, without judging it."""
        if loaded is not self._yaml.loaded:
            self._yaml = _Yaml.of(loaded)
        return _Joined.of(self._yaml, openstack).model

    def dealt(self, loaded: Loaded) -> Allocations:
        """Local VLANs for where the node's own are not known (see `desired.network.symbolic`)."""
        model = self.model(loaded)
        return dealt(build(model), self._node) if model else Allocations()

    def compose(
        self,
        loaded: Loaded,
        allocations: Allocations,
        openstack: Objects = _NONE,
        *,
        waiting: bool = False,
        changed: Collection[ResourceId] | None = None,
    ) -> Composed:
        """`openstack` is the mirror's objects; `waiting`: it may not have all of them yet, so dangling is no mistake.

        `changed` names what is other in `openstack` than in the call before; None: anything. With problems,
        `loaded.resources` is not to be enforced.
        """
        good, self._good = self._good, None
        joined, before = self._join(loaded, openstack, changed), self._compiled
        model, notices = joined.model, joined.notices()
        problems = [*loaded.problems, *self._yaml_faults(model, dangling=not waiting), *self._missing_node(model)]
        if problems:
            problems.sort(key=lambda each: (each.file, each.line, each.column))
            return Composed(replace(loaded, problems=tuple(problems)), model, allocations, notices)
        if not model:
            return Composed(loaded, allocations=allocations)
        named = changed if before is not None and before is self._before and before.yaml is joined.yaml else None
        compiled = self._compiler.compile(model, allocations, named)
        self._compiled = joined
        said = [f"{_said(resource)}: {message}" for resource, message in compiled.problems]
        remarks = [_remark(resource, message) for resource, message in compiled.problems if resource.origin.file]
        resources, warnings = self._overridden(compiled.resources)
        whole = replace(loaded, resources=tuple(resources.values()), warnings=(*loaded.warnings, *warnings))
        self._good = joined.yaml
        step = self._step(compiled) if good is joined.yaml else None
        return Composed(whole, model, compiled.allocations, (*notices, *said), step, remarks)

    def _join(self, loaded: Loaded, openstack: Objects, changed: Collection[ResourceId] | None) -> _Joined:
        """Both sources. `_before` is what was joined before."""
        self._before = self._joined
        if loaded is not self._yaml.loaded:
            self._yaml = _Yaml.of(loaded)
        before = self._before
        if before is None or changed is None or before.yaml is not self._yaml:
            self._joined = _Joined.of(self._yaml, openstack)
        else:
            self._joined = before.after(openstack, changed)
        return self._joined

    def _step(self, compiled: Compiled) -> Difference | None:
        """What YAML declares for the node itself stays, whatever the model makes."""
        own, step = self._yaml.resources, compiled.step
        if step is None or not own:
            return step
        put = tuple(resource for resource in step.put if resource.id not in own)
        return Difference(put, tuple(rid for rid in step.gone if rid not in own))

    def _yaml_faults(self, model: Model, *, dangling: bool) -> Iterable[Problem]:
        """Looked for once for each tree, and again while something names what OpenStack may have by now.

        What comes from OpenStack afterwards is judged by the topology.
        """
        known, found = self._faults
        if known is not self._yaml.loaded or (dangling and any(fault.dangling for fault in found)):
            own = self._yaml.objects
            loaded = self._yaml.loaded
            every = faults(model, loaded.unread, hiding=loaded.hiding)
            found = [fault for fault in every if own.get(fault.resource.id) is fault.resource]
            self._faults = (loaded, found)
        places = self._yaml.loaded.places
        return [fault.problem(places.get(fault.resource.id, {})) for fault in found if dangling or not fault.dangling]

    def _missing_node(self, model: Model) -> Iterable[Problem]:
        """A model that does not know this node would make nothing here, and take away what is there: refused."""
        declared = [rid.name for rid in self._yaml.objects if rid.kind == NodeSpec.kind]
        own, loaded = ResourceId(NodeSpec.kind, self._node), self._yaml.loaded
        if not declared or own in model.objects or own in loaded.unread or loaded.hiding:
            return
        names = [resource.id.name for resource in model.all(NodeSpec)]
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
    if resource.id.kind not in KIND_NAMES:  # what two objects make, and differently: no object itself
        return f"{resource.origin}, {resource.origin.path}"
    display = getattr(resource.spec, "display", "")
    name = f"{resource.id.name} ({display})" if display else resource.id.name
    return f"{resource.origin}: {resource.spec.called()} {name}"
