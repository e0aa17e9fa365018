"""The breaker's and the watcher's own connections: plain blocking sockets, the clock read as soon as `recv` returns.

`OvsdbWire` speaks JSON-RPC, `FlowWire` OpenFlow 1.4. One of each breaks, another watches: a switch abbreviates what it
tells of a connection's own changes. Nothing of the daemon's drivers is used but the codec's pure functions.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.codec import Part, Type, Update
from controllers.drivers.openflow.flows import Flow, FlowKey

PATIENCE = 20.0
QUIET = 0.004
"""Seconds without a byte after which what has come is looked at: nothing is parsed while it is being measured."""


class NeverSeenError(Exception):
    """What was waited for did not happen in time."""


def _socket(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(PATIENCE)
    made.connect(str(path))
    return made


def _gathered(connection: socket.socket, peer: str) -> list[tuple[float, bytes]]:
    """What comes until it is quiet for a moment, each read with the time it was there. At least one."""
    found: list[tuple[float, bytes]] = []
    while select.select([connection], [], [], QUIET if found else PATIENCE)[0]:
        data = connection.recv(1 << 20)
        found.append((time.monotonic(), data))
        if not data:
            raise NeverSeenError(f"{peer} closed the connection")
    if not found:
        raise NeverSeenError(f"nothing came from {peer} within {PATIENCE:g} s")
    return found


@contextlib.contextmanager
def promptly() -> Iterator[None]:
    """Within this, this process runs whenever it is woken: what it sees, it sees when it happens.

    Without, a program that repairs within 100 microseconds is done before the watcher had its turn on a busy machine.
    """
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(10))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class OvsdbWire:
    """One connection to ovsdb-server. Monitors are RFC 7047's own, which tell a row's old values."""

    def __init__(self, path: Path) -> None:
        self._socket = _socket(path)
        self._text = ""
        self._decode = json.JSONDecoder().raw_decode
        self._id = 0
        self._waiting: list[tuple[float, dict[str, Any]]] = []

    def close(self) -> None:
        self._socket.close()

    def send(self, method: str, params: Sequence[Any]) -> int:
        self._id += 1
        self._socket.sendall(json.dumps({"method": method, "params": params, "id": self._id}).encode())
        return self._id

    def result(self, ident: int) -> Any:
        """The reply to a request; updates that come before it wait for `updates`."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for at, message in self._receive():
                if message.get("id") == ident and "result" in message:
                    if message["error"]:
                        raise RuntimeError(f"OVSDB refused it: {message['error']}")
                    return message["result"]
                self._keep(at, message)
        raise NeverSeenError("OVSDB did not reply")

    def transact(self, *operations: Mapping[str, Any]) -> Any:
        return checked(self.result(self.send("transact", ["Open_vSwitch", *operations])))

    def rows(self, table: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        (found,) = self.transact({"op": "select", "table": table, "where": [], "columns": list(columns)})
        return list(found["rows"])

    def monitor(self, tables: Mapping[str, Sequence[str]]) -> None:
        wanted = {table: {"columns": list(columns), "select": {"initial": False}} for table, columns in tables.items()}
        self.result(self.send("monitor", ["Open_vSwitch", "watch", wanted]))

    def updates(self) -> Iterator[tuple[float, str, dict[str, Any]]]:
        """(when seen, table, {"old":…, "new":…}) for every changed row, for ever. Raises NeverSeenError."""
        while True:
            waiting, self._waiting = self._waiting, []
            for at, message in waiting:
                for table, rows in message["params"][1].items():
                    for row in rows.values():
                        yield at, table, row
            if not waiting:
                for at, message in self._receive():
                    self._keep(at, message)

    def drain(self) -> None:
        """Forget what has come until now."""
        self.result(self.send("echo", []))
        self._waiting.clear()

    def _keep(self, at: float, message: dict[str, Any]) -> None:
        if message.get("method") == "update":
            self._waiting.append((at, message))
        elif message.get("method") == "echo":
            reply = {"id": message["id"], "result": message["params"], "error": None}
            self._socket.sendall(json.dumps(reply).encode())

    def discard(self) -> None:
        """Read and forget what is there: a client that sends and never reads is not heard any more."""
        while select.select([self._socket], [], [], 0)[0]:
            self._cut([(0.0, self._socket.recv(1 << 20))])

    def _receive(self) -> list[tuple[float, dict[str, Any]]]:
        return self._cut(_gathered(self._socket, "OVSDB"))

    def _cut(self, reads: Sequence[tuple[float, bytes]]) -> list[tuple[float, dict[str, Any]]]:
        messages = []
        for at, data in reads:
            self._text += data.decode()
            while self._text:
                try:
                    message, end = self._decode(self._text)
                except json.JSONDecodeError:
                    break
                messages.append((at, message))
                self._text = self._text[end:].lstrip()
        return messages


def checked(results: Any) -> Any:
    for result in results:
        if isinstance(result, dict) and result.get("error"):
            raise RuntimeError(f"OVSDB refused it: {result}")
    return results


class FlowWire:
    """One OpenFlow 1.4 connection to a bridge's management socket."""

    def __init__(self, rundir: Path, bridge: str) -> None:
        self._socket = _socket(rundir / f"{bridge}.mgmt")
        self._rest = b""
        self._xid = 1000
        self._waiting: list[tuple[float, bytes]] = []
        self._socket.sendall(codec.hello(1))

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def xid(self) -> int:
        self._xid += 1
        return self._xid

    def barrier(self) -> None:
        xid = self.xid()
        self.send(codec.message(Type.BARRIER_REQUEST, xid))
        self._answer(xid)

    def watch(self, key: FlowKey | None = None) -> None:
        """Be told of additions, changes and removals: of all flows, or of those that `key`'s match covers there."""
        self.send(monitor_request(self.xid(), key))
        self.barrier()

    def dump(self) -> dict[FlowKey, Flow]:
        found: dict[FlowKey, Flow] = {}
        xid = self.xid()
        self.send(codec.flow_request(xid))
        for frame in self._answer(xid):
            found.update(codec.flow_entries(frame))
        return found

    def count(self) -> int:
        """How many flows there are (OFPMP_AGGREGATE)."""
        xid = self.xid()
        body = struct.pack("!BxxxIIxxxxQQ", codec.ALL_TABLES, codec.ANY, codec.ANY, 0, 0) + _match(b"")
        self.send(_multipart(2, xid, body))
        (frame,) = self._answer(xid)
        return int(struct.unpack_from("!I", frame, 32)[0])

    def updates(self) -> Iterator[tuple[float, Update]]:
        """(when seen, update), for ever. Raises NeverSeenError."""
        while True:
            waiting, self._waiting = self._waiting, []
            for at, frame in waiting:
                for update in codec.monitor_updates(frame):
                    if isinstance(update, Update):
                        yield at, update
            if not waiting:
                self._waiting = [(at, frame) for at, frame in self._receive() if _is_update(frame)]

    def drain(self) -> None:
        """Forget what has come until now."""
        self.barrier()
        self._waiting.clear()

    def _answer(self, xid: int) -> list[bytes]:
        found: list[bytes] = []
        while True:
            for at, frame in self._receive():
                if int.from_bytes(frame[4:8], "big") == xid:
                    if frame[1] == Type.ERROR:
                        raise RuntimeError(f"the switch refused it: {codec.refusal(frame)}")
                    found.append(frame)
                elif _is_update(frame):
                    self._waiting.append((at, frame))
            if found and not (found[-1][1] == Type.MULTIPART_REPLY and codec.part_of(found[-1])[1]):
                return found

    def _receive(self) -> list[tuple[float, bytes]]:
        found: list[tuple[float, bytes]] = []
        for at, data in _gathered(self._socket, "the switch"):
            frames, self._rest = codec.frames(self._rest + data)
            found += [(at, frame) for frame in frames]
        for _, frame in found:
            if frame[1] == Type.ECHO_REQUEST:
                self.send(codec.message(Type.ECHO_REPLY, int.from_bytes(frame[4:8], "big"), frame[codec.HEADER :]))
        return found


def _is_update(frame: bytes) -> bool:
    return frame[1] == Type.MULTIPART_REPLY and codec.part_of(frame)[0] == Part.FLOW_MONITOR


def _match(match: bytes) -> bytes:
    size = 4 + len(match)
    return struct.pack("!HH", 1, size) + match + bytes(-size & 7)


def _multipart(kind: int, xid: int, body: bytes) -> bytes:
    return struct.pack("!BBHIHHxxxx", codec.VERSION, Type.MULTIPART_REQUEST, 16 + len(body), xid, kind, 0) + body


def monitor_request(xid: int, key: FlowKey | None = None) -> bytes:
    table, match = (codec.ALL_TABLES, b"") if key is None else (key.table, key.match)
    flags = 0x02 | 0x04 | 0x08 | 0x10  # added, removed, modified; with instructions
    body = struct.pack("!IIIHBB", 1, codec.ANY, codec.ANY, flags, table, 0) + _match(match)
    return _multipart(Part.FLOW_MONITOR, xid, body)


def delete_all(xid: int) -> bytes:
    """FLOW_MOD that deletes every flow of every table."""
    body = struct.pack("!QQBBHHHIIIHH", 0, 0, codec.ALL_TABLES, 3, 0, 0, 0, codec.ANY, codec.ANY, codec.ANY, 0, 0)
    return codec.message(Type.FLOW_MOD, xid, body + _match(b""))


def until(found: Callable[[], bool], what: str, within: float = PATIENCE, pause: float = 0.002) -> float:
    """Poll; the time at which it was found. Raises NeverSeenError."""
    deadline = time.monotonic() + within
    while not found():
        if time.monotonic() > deadline:
            raise NeverSeenError(what)
        time.sleep(pause)
    return time.monotonic()
