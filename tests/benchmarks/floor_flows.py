"""The floor for flows: an asyncio program that knows some flows only, and puts each back with one prepared message.

``python floor_flows.py SOCKET SPEC.json`` with ``{"hello", "every", "answers": {"table/priority/match": message}}``,
bytes in hexadecimal: `hello` opens the connection and installs a flow monitor. A flow of the answers that is removed
is put back with its answer; if `every`, the first removal makes it send the one answer there is (all flows in one
bundle), and it rests for half a second. No replica, no gates, no verification, no journal. It prints "ready" when it
listens.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from pathlib import Path
from typing import Any

MULTIPART_REPLY, FLOW_MONITOR, REMOVED = 19, 16, 2
REST = 0.5


class Floor(asyncio.Protocol):
    def __init__(self, spec: dict[str, Any]) -> None:
        self.hello = bytes.fromhex(spec["hello"])
        self.every = spec["every"]
        self.answers = {}
        for name, answer in spec["answers"].items():
            table, priority, match = name.split("/")
            self.answers[int(table), int(priority), bytes.fromhex(match)] = bytes.fromhex(answer)
        self.loop = asyncio.get_running_loop()
        self.sent = 0.0
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.hello)

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        at = 0
        while len(data) - at >= 8:
            length = data[at + 2] << 8 | data[at + 3]
            if len(data) - at < length:
                break
            if data[at + 1] == MULTIPART_REPLY and data[at + 9] == FLOW_MONITOR:
                if data[at + 4 : at + 8] != b"\0\0\0\0":
                    print("ready", flush=True)
                else:
                    self.updated(data, at + 16, at + length)
            at += length
        self.rest = data[at:]

    def updated(self, data: bytes, at: int, end: int) -> None:
        while at < end:
            length, event = struct.unpack_from("!HH", data, at)
            if event == REMOVED:
                if self.every:
                    return self.put_all_back()
                table = data[at + 4]
                (priority,) = struct.unpack_from("!H", data, at + 10)
                (size,) = struct.unpack_from("!H", data, at + 26)
                answer = self.answers.get((table, priority, data[at + 28 : at + 24 + size]))
                if answer is not None:
                    self.transport.write(answer)
            at += length
        return None

    def put_all_back(self) -> None:
        now = self.loop.time()
        if now - self.sent > REST:
            self.sent = now
            (answer,) = self.answers.values()
            self.transport.write(answer)


async def main() -> None:
    path, spec = sys.argv[1:]
    floor = Floor(json.loads(Path(spec).read_text()))
    await asyncio.get_running_loop().create_unix_connection(lambda: floor, path)
    await asyncio.Event().wait()


asyncio.run(main())
