"""Laws of the OpenFlow codec: what is encoded is what is read, for any bytes; nonsense is told and never believed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.codec import Abbrev, Malformed, Monitor, Part, PortStatus, Type, Update
from controllers.drivers.openflow.flows import (
    AddFlow,
    DeleteFlow,
    DeleteGroup,
    DeleteMeter,
    Flow,
    FlowKey,
    SetGroup,
    SetMeter,
)
from controllers.drivers.openflow.refusals import Refusal

u8, u16 = st.integers(0, 0xFF), st.integers(0, 0xFFFF)
u32, u64 = st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFFFFFFFFFF)
matches = st.binary(max_size=60)
instructions = st.binary(max_size=12).map(lambda data: data * 8)
keys = st.builds(FlowKey, st.integers(0, 253), u16, matches)
flows = st.builds(Flow, instructions, u64, u16, u16, st.sampled_from([0, 1, 8, 16, 25]), u16)


def padded(match: bytes) -> bytes:
    size = 4 + len(match)
    return struct.pack("!HH", 1, size) + match + bytes(-size & 7)


def stats_entry(key: FlowKey, flow: Flow) -> bytes:
    body = padded(key.match) + flow.instructions
    head = struct.pack("!HBxII", 48 + len(body), key.table, 1, 2)
    middle = struct.pack("!HHHHH2x", key.priority, flow.idle_timeout, flow.hard_timeout, flow.flags, flow.importance)
    return head + middle + struct.pack("!QQQ", flow.cookie, 3, 4) + body


def full_update(event: int, key: FlowKey, flow: Flow) -> bytes:
    body = padded(key.match) + flow.instructions
    head = struct.pack("!HHBBHHH4xQ", 24 + len(body), event, key.table, 0, flow.idle_timeout, flow.hard_timeout,
                       key.priority, flow.cookie)  # fmt: skip
    return head + body


def reply(part: Part, body: bytes, xid: int = 7) -> bytes:
    return codec.multipart_reply(part, xid, body, more=False)


@given(keys, flows, u32)
def test_a_flow_mod_is_read_as_it_was_written(key: FlowKey, flow: Flow, xid: int) -> None:
    frame = codec.encode(AddFlow(key, flow), xid)
    assert codec.frames(frame) == ([frame], b"")
    assert codec.flow_mod(frame) == (0, key, flow)


@given(keys, u64, u64)
def test_a_strict_deletion_names_its_flow_and_cookie(key: FlowKey, cookie: int, mask: int) -> None:
    frame = codec.encode(DeleteFlow(key, cookie, mask), 1)
    command, told, flow = codec.flow_mod(frame)
    assert (command, told, flow.cookie) == (4, key, cookie)
    assert struct.unpack_from("!Q", frame, 16) == (mask,)


@given(st.dictionaries(keys, flows, max_size=8))
def test_a_dump_is_sliced_into_exactly_its_flows(held: dict[FlowKey, Flow]) -> None:
    frame = reply(Part.FLOW, b"".join(stats_entry(key, flow) for key, flow in held.items()))
    assert codec.flow_entries(frame) == held


@given(st.lists(st.tuples(st.integers(0, 3), keys, flows), max_size=8))
def test_flow_updates_are_sliced_in_order(told: list[tuple[int, FlowKey, Flow]]) -> None:
    frame = reply(Part.FLOW_MONITOR, b"".join(full_update(*update) for update in told))
    assert list(codec.monitor_updates(frame)) == [
        Update(key, None if event == 2 else Flow(*flow[:4])) for event, key, flow in told
    ]


@given(u32)
def test_the_short_updates_are_told_apart(xid: int) -> None:
    frame = reply(Part.FLOW_MONITOR, struct.pack("!HHI HHI HHI", 8, 4, xid, 8, 5, 0, 8, 6, 0))
    assert list(codec.monitor_updates(frame)) == [Abbrev(xid), Monitor.PAUSED, Monitor.RESUMED]


@given(st.lists(st.tuples(st.sampled_from(Type), u32, st.binary(max_size=50))), st.data())
def test_a_stream_is_cut_into_the_same_messages_however_it_arrives(
    sent: list[tuple[Type, int, bytes]], data: st.DataObject
) -> None:
    expected = [codec.message(*parts) for parts in sent]
    stream = b"".join(expected)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    rest, found = b"", []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        frames, rest = codec.frames(rest + stream[begin:end])
        found += frames
    assert (found, rest) == (expected, b"")


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_called_malformed(body: bytes) -> None:
    readers = (
        codec.flow_entries, codec.port_entries, codec.group_entries, codec.meter_entries, codec.port_status,
        lambda frame: list(codec.monitor_updates(frame)), codec.refusal, codec.flow_mod, codec.part_of, codec.versions,
    )  # fmt: skip
    frame = reply(Part.FLOW, body)
    for read in readers:
        for data in (frame, frame[: len(body) % 20]):
            try:
                read(data)
            except (Malformed, ValueError):
                continue


def test_a_message_shorter_than_its_header_is_malformed() -> None:
    with pytest.raises(Malformed):
        codec.frames(bytes((5, 0, 0, 7, 0, 0, 0, 0)))


def port(number: int, name: bytes, more: bytes = b"") -> bytes:
    return struct.pack("!IHxx6sxx16sII", number, 40 + len(more), bytes(6), name, 0, 0) + more


def test_ports_are_read_with_or_without_properties() -> None:
    frame = reply(Part.PORT_DESC, port(1, b"patch-tun", bytes(32)) + port(0xFFFFFFFE, b"br-int"))
    assert codec.port_entries(frame) == {"patch-tun": 1, "br-int": 0xFFFFFFFE}
    status = codec.message(Type.PORT_STATUS, 0, bytes((1, *bytes(7))) + port(3, b"qvo-0123456789a"))
    assert codec.port_status(status) == PortStatus(deleted=True, name="qvo-0123456789a", number=3)


@given(u32, st.binary(min_size=1, max_size=3), st.binary(max_size=5).map(lambda data: data * 8))
def test_groups_and_meters_keep_their_opaque_bodies(identity: int, head: bytes, body: bytes) -> None:
    kind = head[:1]
    entry = struct.pack("!H", 8 + len(body)) + kind + b"\0" + struct.pack("!I", identity) + body
    assert codec.group_entries(reply(Part.GROUP_DESC, entry)) == {identity: kind + body}
    assert codec.encode(SetGroup(identity, kind + body), 9)[8:] == b"\0\0" + kind + b"\0" + entry[4:]
    assert codec.encode(SetGroup(identity, kind + body, exists=True), 9)[8:10] == b"\0\1"
    flags = (head + b"\0\0")[:2]
    entry = struct.pack("!H", 8 + len(body)) + flags + struct.pack("!I", identity) + body
    assert codec.meter_entries(reply(Part.METER_CONFIG, entry)) == {identity: flags + body}
    assert codec.encode(SetMeter(identity, flags + body), 9)[8:] == b"\0\0" + flags + entry[4:]
    assert codec.encode(DeleteGroup(identity), 9)[8:10] == codec.encode(DeleteMeter(identity), 9)[8:10] == b"\0\2"


def test_a_hello_offers_what_its_bitmap_says_or_all_up_to_its_version() -> None:
    assert codec.versions(codec.hello(1)) == {5}
    assert codec.versions(bytes((4, 0, 0, 8, 0, 0, 0, 1))) == {1, 2, 3, 4}


def test_refusals_are_told_in_words() -> None:
    def error(body: bytes) -> Refusal:
        return codec.refusal(codec.message(Type.ERROR, 3, body))

    assert str(error(struct.pack("!HH", 2, 4) + b"request")) == "BAD_ACTION/BAD_OUT_PORT"
    assert str(error(struct.pack("!HHI", 0xFFFF, 15, 0x2320))) == "NICIRA/BAD_CONJUNCTION"
    assert (
        str(error(struct.pack("!HH", 0, 0) + b"no common version")) == "HELLO_FAILED/INCOMPATIBLE (no common version)"
    )
    assert str(error(struct.pack("!HH", 99, 7))) == "error type 99/code 7"
