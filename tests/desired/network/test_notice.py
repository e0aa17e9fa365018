"""Envelopes: both versions say the same, and nothing that comes off the wire does harm."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desired.network.notice import Garbage, parse, timestamp
from tests.desired.network.neutron import message, network

EVERYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def test_both_envelopes_say_the_same() -> None:
    payload = {"network": network(1)}
    old = parse(message("network.create.end", payload, 5.25, envelope=1), 9.0)
    new = parse(message("network.create.end", payload, 5.25), 9.0)
    assert old == new
    assert (new.event, new.at, new.key) == ("network.create.end", 5.25, "unetwork.create.end5.25")
    assert new.payload == payload


def test_a_message_without_a_time_was_sent_when_it_was_heard() -> None:
    assert parse(b'{"event_type": "port.delete.end", "payload": {}}', 77.0).at == 77.0


def test_the_payload_of_an_event_that_nobody_wants_is_dropped() -> None:
    assert parse(message("compute.instance.create.end", {"big": "x" * 1000}), 1.0).payload == {}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b"{}", "no event_type"),
        (b'{"event_type": "a b"}', "no event_type"),
        (b'{"oslo.message": "{"}', "an envelope without JSON in it"),
        (b'{"oslo.message": 7}', "an envelope without JSON in it"),
        (b'{"event_type": "port.create.end", "payload": [1]}', "a payload that is no object"),
        (b'"' + b"x" * 5_000_000 + b'"', "more than 4 MiB"),
    ],
)
def test_garbage_is_named(body: bytes, what: str) -> None:
    with pytest.raises(Garbage) as caught:
        parse(body, 0.0)
    assert caught.value.what == what


@given(st.binary(max_size=200) | EVERYTHING.map(lambda value: json.dumps(value).encode()))
def test_anything_is_a_notice_or_garbage(body: bytes) -> None:
    try:
        assert isinstance(parse(body, 1.0).event, str)
    except Garbage as error:
        assert error.what


@pytest.mark.parametrize("text", ["2026-05-28 12:00:00.123456", "2026-05-28T12:00:00.123456Z"])
def test_times_are_utc(text: str) -> None:
    assert timestamp(text) == 1779969600.123456


@pytest.mark.parametrize("text", [None, 7, "", "yesterday", "2026-13-01 00:00:00"])
def test_what_is_no_time_is_none(text: object) -> None:
    assert timestamp(text) is None
