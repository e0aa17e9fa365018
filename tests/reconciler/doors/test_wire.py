"""What goes over the wire comes back the same, whatever is in it."""

import dataclasses
import json
import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desired.resource import ResourceId
from reconciler import contract, report
from reconciler.contract import (
    Change,
    Finding,
    Group,
    Outcome,
    PassRecord,
    Plan,
    ResourceStatus,
    Scope,
    Verb,
    View,
)
from reconciler.doors import wire
from tests.reconciler.doors.fakes import REPAIR, STATUS

KINDS = st.text(st.characters(exclude_characters="/", codec="utf-8"), min_size=1, max_size=5)
SHORT = st.text(max_size=8)
RESOURCES = st.builds(ResourceId, KINDS, SHORT.filter(bool))
SCOPES = st.builds(Scope, KINDS, SHORT)

CARRIED = [
    one
    for module in (report, contract)
    for one in vars(module).values()
    if dataclasses.is_dataclass(one) and one.__module__ == module.__name__
]
INTERNAL = {View, Change, Group, Plan, contract.GroupResult}
"""Not data for the doors: they hold specs, a controller's own actions and focus, texts to be made, and exceptions."""


st.register_type_strategy(ResourceId, RESOURCES)
st.register_type_strategy(Scope, SCOPES)


def tupled(value):
    """Sequences come back as tuples."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: tupled(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, float) and not math.isfinite(value):
        return 0.5
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list) or (isinstance(value, tuple) and not hasattr(value, "_fields")):
        return tuple(map(tupled, value))
    return value


@pytest.mark.parametrize("hint", [one for one in CARRIED if one not in INTERNAL], ids=lambda hint: hint.__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_every_record_round_trips(hint, data):
    value = tupled(data.draw(st.from_type(hint)))
    text = wire.dumps(value)
    assert "\n" not in text
    assert wire.loads(hint, text) == value


def test_records_are_written_as_people_write_them():
    data = wire.encode(REPAIR)
    assert data["scope"] == "ovsdb"
    assert data["actions"][0]["resource"] == "port/patch-tun"
    assert data["actions"][0]["verb"] == "create"
    assert data["findings"][0]["waits_for"] == [{"resource": "port/tap9"}, {"scope": "ovsdb"}]
    assert json.loads(wire.dumps(STATUS))["outcome"] == "conflict"


def test_a_newer_daemon_s_fields_are_ignored_and_an_older_one_s_gaps_are_filled():
    data = wire.encode(STATUS) | {"invented_later": [1]}
    del data["notices"]
    assert wire.decode(report.NodeStatus, data).notices == ()


@pytest.mark.parametrize(
    ("hint", "data", "names"),
    [
        (report.Pause, {"what": "node", "reason": "r"}, "Pause lacks at"),
        (report.Pause, {"what": "node", "reason": 5, "at": 1}, "Pause.reason"),
        (report.Pause, {"what": "node", "reason": "r", "at": True}, "Pause.at"),
        (report.Pause, [], "expected dict"),
        (ResourceStatus, {"resource": "x", "outcome": "failed", "reason": "", "since": 0}, "KIND/NAME"),
        (ResourceStatus, {"resource": "x/y", "outcome": "fine", "reason": "", "since": 0}, "no Outcome"),
        (Finding, {"resource": "x/y", "outcome": "failed", "reason": "", "waits_for": [{}]}, "a resource or a scope"),
        (Outcome, "sideways", "no Outcome"),
        (Verb, 3, "no Verb"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field_s_name(hint, data, names):
    with pytest.raises(wire.WireError, match=names):
        wire.decode(hint, data)


def test_what_is_no_json_is_refused():
    with pytest.raises(wire.WireError, match="not JSON"):
        wire.loads(PassRecord, b"{")


def test_a_type_without_a_form_is_a_defect_not_a_guess():
    with pytest.raises(TypeError):
        wire.encode(View(Scope("a"), {}))
