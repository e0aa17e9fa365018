"""Laws of framing, and how a link treats a peer that ovsdb-server never is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.drivers.ovsdb.jsonrpc import Framer, ProtocolError, words
from tests.controllers.drivers.ovsdb.support import Followed
from tests.controllers.drivers.patience import running, until

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)
BLANKS = st.text(alphabet=" \n\r\t", max_size=2)


@given(st.lists(st.tuples(OBJECTS, BLANKS, st.booleans())), st.data())
def test_objects_come_out_whole_and_in_order_however_the_stream_was_split(
    items: list[tuple[dict[str, object], str, bool]], data: st.DataObject
) -> None:
    stream = "".join(blank + json.dumps(one, ensure_ascii=ascii_only) for one, blank, ascii_only in items)
    octets = stream.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=8)))
    framer = Framer()
    out = []
    for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        out += framer.feed(octets[start:end])
    assert out == [one for one, _, _ in items]


@given(OBJECTS)
def test_every_octet_alone_is_as_good_as_all_at_once(one: dict[str, object]) -> None:
    octets = json.dumps(one).encode() * 2
    framer = Framer()
    assert [out for octet in octets for out in framer.feed(bytes([octet]))] == [one, one]


@pytest.mark.parametrize("octets", [b'{"a":}', b"[1]}", b'{"a":1}}', b"17 {}", b'{"\xff"}', b'{"a":1}x{}'])
def test_what_cannot_become_objects_is_told_at_once(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        Framer().feed(octets)


def test_an_error_is_told_in_ovsdbs_own_words() -> None:
    assert words({"error": "constraint violation", "details": "no"}) == "constraint violation: no"
    assert words({"error": "aborted", "details": None}) == "aborted"
    assert words("canceled") == "canceled"


Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
MONITORED = {"id": 1, "result": {}, "error": None}


@contextlib.asynccontextmanager
async def peer(tmp_path: Path, behave: Peer) -> AsyncIterator[str]:
    """A server that does as told with every connection."""

    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await behave(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    try:
        yield f"unix:{tmp_path / 's'}"
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.wait(filter(None, serving), timeout=5)


def send(writer: asyncio.StreamWriter, message: object) -> None:
    writer.write(json.dumps(message).encode())


async def test_an_echo_of_the_server_is_answered(tmp_path: Path) -> None:
    answers: list[object] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        send(writer, MONITORED)
        send(writer, {"id": "echo", "method": "echo", "params": ["ü"]})
        answers.append(json.loads(await reader.read(65536)))
        await reader.read()

    async with peer(tmp_path, behave) as remote:
        followed = Followed(remote)
        async with running(followed.ovsdb):
            await until(lambda: answers)
    assert answers == [{"id": "echo", "result": ["ü"], "error": None}]


async def test_a_silent_server_is_probed_and_dropped_when_it_does_not_answer(tmp_path: Path) -> None:
    requests: list[object] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        send(writer, MONITORED)
        while data := await reader.read(65536):
            requests.append(json.loads(data))

    async with peer(tmp_path, behave) as remote:
        followed = Followed(remote, silence=0.05, timeout=0.2)
        async with running(followed.ovsdb):
            await until(lambda: len(followed.events) >= 3)
    assert [(request["method"], request["params"]) for request in requests[:1]] == [("echo", [])]
    assert followed.events[:3] == [(None, "connected"), (None, "OVSDB connection lost"), (None, "connected")]


@pytest.mark.parametrize(
    "noise",
    [
        {"id": None, "method": "monitor_canceled", "params": [None]},
        {"id": None, "method": "update2", "params": [None, {"Bridge": {"u": {"delete": None}}}]},
        {"id": None, "method": "update2", "params": [None, {"Bridge": {"u": {"modify": {"ports": 5}}}}]},
        {"id": None, "method": "update2", "params": [None, {"Nothing": {"u": {"insert": {}}}}]},
        {"id": None, "method": "update2", "params": [None, {"Bridge": {"u": {"insert": {"nothing": 1}}}}]},
        {"id": 99, "result": [], "error": None},
        {"id": 7, "method": "steal", "params": []},
    ],
    ids=str,
)
async def test_a_stream_that_makes_no_sense_is_dropped_and_read_anew(tmp_path: Path, noise: object) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        send(writer, {"id": 1, "result": {"Bridge": {"x": {"initial": {"name": "br0"}}}}, "error": None})
        send(writer, noise)
        writer.write(b"{}")
        await reader.read()

    async with peer(tmp_path, behave) as remote:
        followed = Followed(remote)
        async with running(followed.ovsdb):
            await until(lambda: len(followed.events) >= 3)
    assert followed.events[:3] == [(None, "connected"), (None, "OVSDB connection lost"), (None, "connected")]


async def test_a_server_without_the_database_is_a_problem_in_its_own_words_and_tried_again(tmp_path: Path) -> None:
    attempts: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(await reader.read(65536))
        send(writer, {"id": 1, "result": None, "error": {"error": "unknown database", "details": "Open_vSwitch"}})
        await reader.read()

    async with peer(tmp_path, behave) as remote:
        followed = Followed(remote)
        async with running(followed.ovsdb):
            await until(lambda: len(attempts) >= 3)
            assert "unknown database: Open_vSwitch" in followed.ovsdb.problem
            assert not followed.ovsdb.ready
    assert followed.events == []
