"""The floor for OVSDB: an asyncio program that knows some rows only, and puts each back with one prepared message.

``python floor_ovsdb.py SOCKET SPEC.json`` with ``{"table", "columns", "select", "watch": [column, wanted or null],
"answers": {name: message}}``. It monitors that table; when a named row is deleted (wanted is null) or its column is
not what is wanted, it writes the message of that name. No replica, no gates, no verification, no journal. It prints
"ready" when it listens. This is what the daemon is compared with, not something to run on a node.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any


class Floor(asyncio.Protocol):
    def __init__(self, spec: dict[str, Any]) -> None:
        self.answers = {name: text.encode() for name, text in spec["answers"].items()}
        self.table = spec["table"]
        self.column, self.wanted = spec["watch"]
        select = {"initial": False, "insert": False, "modify": False, "delete": False, spec["select"]: True}
        monitor = {self.table: {"columns": spec["columns"], "select": select}}
        self.hello = json.dumps({"method": "monitor", "params": ["Open_vSwitch", None, monitor], "id": "hello"})
        self.decode = json.JSONDecoder().raw_decode
        self.text = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.hello.encode())

    def data_received(self, data: bytes) -> None:
        self.text += data.decode()
        while self.text:
            try:
                message, end = self.decode(self.text)
            except json.JSONDecodeError:
                return
            self.text = self.text[end:]
            if message.get("method") == "update":
                self.updated(message["params"][1])
            elif message.get("id") == "hello":
                print("ready", flush=True)

    def updated(self, tables: dict[str, Any]) -> None:
        for row in tables.get(self.table, {}).values():
            if "new" not in row:
                answer = self.answers.get(row["old"]["name"])
            elif self.column and row["new"][self.column] != self.wanted:
                answer = self.answers.get(row["new"]["name"])
            else:
                continue
            if answer is not None:
                self.transport.write(answer)


async def main() -> None:
    path, spec = sys.argv[1:]
    floor = Floor(json.loads(Path(spec).read_text()))
    await asyncio.get_running_loop().create_unix_connection(lambda: floor, path)
    await asyncio.Event().wait()


asyncio.run(main())
