"""A file that is a part of a service: taken away together, they are one deletion to the budget."""

from __future__ import annotations

from controllers.drivers.files.disk import FileState, Kind
from controllers.drivers.files.marks import xattr
from controllers.files.diff import diff
from controllers.files.state import Observed
from desired.kinds.file import FileSpec
from desired.kinds.service import ServiceSpec
from desired.resource import Origin, Resource, ResourceId, Spec
from reconciler.contract import Change, Scope, View
from reconciler.gates.budget import removed

PATH = "/etc/dhcp.hosts"
SERVICE = ResourceId("service", "dhcp.service")


def resource(name: str, spec: Spec) -> Resource:
    return Resource(ResourceId(spec.kind, name), spec, Origin("test"), spec.generation())


OURS = resource(PATH, FileSpec(path=PATH, content="x", service="dhcp.service"))
UNIT = resource("dhcp.service", ServiceSpec(name="dhcp", unit="[Service]\n"))


def pruned(everything: dict[ResourceId, Resource], service: str) -> Change:
    """What becomes of a file of ours that nobody declares any more."""
    state = FileState(PATH, Kind.REGULAR, PATH, b"x", mark=xattr("me", PATH))
    plan = diff(View(Scope("file", PATH), {}, everything=everything), Observed(PATH, state, "me", service=service))
    ((change,),) = (group.changes for group in plan.groups)
    return change


def test_its_file_goes_with_a_service_and_counts_with_it() -> None:
    assert pruned({}, "dhcp.service").inside == SERVICE
    assert pruned({UNIT.id: UNIT}, "dhcp.service").inside is None, "only the file is gone"
    assert pruned({}, "").inside is None, "nobody knows of which service it was"


def test_what_a_new_revision_takes_away_is_counted_so_as_well() -> None:
    both = {OURS.id: OURS, UNIT.id: UNIT}
    assert removed(both, {}) == {"service": 1}
    assert removed(both, {UNIT.id: UNIT}) == {"file": 1}
