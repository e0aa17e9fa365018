"""The floor for iptables: an asyncio program that knows some rules only, and puts each back by one iptables-restore.

``python floor_iptables.py NAMESPACE SPEC.json`` with ``{"answers": {text in the rule: input of iptables-restore}}``. It
enters the namespace, listens for nf_tables' events there, and when a rule with a known text in it is deleted it feeds
the answer to iptables-restore; the same answer not again until the tool has ended. No replica, no gates, no
verification, no journal. It prints "ready" when it listens.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

RESTORE = "/usr/sbin/iptables-nft-restore"
DELETED = 0xA08


class Floor:
    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = {text.encode(): answer.encode() for text, answer in answers.items()}
        self.running: dict[bytes, subprocess.Popen[bytes]] = {}
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 12)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        self.socket.bind((0, 0))
        self.socket.setsockopt(270, 1, 7)

    def readable(self) -> None:
        try:
            while True:
                data = self.socket.recv(1 << 17)
                if int.from_bytes(data[4:6], "little") == DELETED:
                    for text, answer in self.answers.items():
                        if text in data:
                            self.put_back(text, answer)
        except BlockingIOError:
            return

    def put_back(self, text: bytes, answer: bytes) -> None:
        before = self.running.get(text)
        if before is not None and before.poll() is None:
            return
        process = subprocess.Popen([RESTORE, "--noflush"], stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(answer)
        process.stdin.close()
        self.running[text] = process


async def main() -> None:
    namespace, spec = sys.argv[1:]
    descriptor = os.open(namespace, os.O_RDONLY)
    if ctypes.CDLL(None).setns(descriptor, 0x4000_0000):
        raise OSError(f"cannot enter {namespace}")
    floor = Floor(json.loads(Path(spec).read_text())["answers"])
    asyncio.get_running_loop().add_reader(floor.socket, floor.readable)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
