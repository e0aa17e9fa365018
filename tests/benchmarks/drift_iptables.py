"""What is broken in a namespace's rules: one of few or many, all, the jump. By iptables, seen by nf_tables."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import re
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.wire import NeverSeenError
from tests.ovs import PrivateOvs

SPACE = "q1"
NEW_RULE, DEL_RULE = 0xA06, 0xA08
WITHIN = 20.0


class Watcher:
    """A thread that listens in a namespace; when each rule came or went: (monotonic, message type, bytes)."""

    def __init__(self, namespace: Path) -> None:
        self.seen: queue.SimpleQueue[tuple[float, int, bytes]] = queue.SimpleQueue()
        self._namespace = namespace
        self._over = False
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        if not ready.wait(5):
            raise RuntimeError(f"cannot listen in {namespace}")

    def _run(self, ready: threading.Event) -> None:
        descriptor = os.open(self._namespace, os.O_RDONLY)
        try:
            if ctypes.CDLL(None).setns(descriptor, 0x4000_0000):
                return
        finally:
            os.close(descriptor)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock:
            sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
            sock.bind((0, 0))
            sock.setsockopt(270, 1, 7)
            sock.settimeout(0.2)
            ready.set()
            while not self._over:
                try:
                    data = sock.recv(1 << 17)
                except TimeoutError:
                    continue
                now, at = time.monotonic(), 0
                while at + 16 <= len(data):
                    length = int.from_bytes(data[at : at + 4], "little")
                    kind = int.from_bytes(data[at + 4 : at + 6], "little")
                    if kind in {NEW_RULE, DEL_RULE}:
                        self.seen.put((now, kind, data[at : at + length]))
                    at += (length + 3) & ~3

    def drain(self) -> None:
        while not self.seen.empty():
            self.seen.get()

    def next(self) -> tuple[float, int, bytes]:
        try:
            return self.seen.get(timeout=WITHIN)
        except queue.Empty:
            raise NeverSeenError("no event of nf_tables") from None

    def close(self) -> None:
        self._over = True
        self._thread.join(5)


class _Rules:
    program = "floor_iptables.py"
    share = 1.0
    pause = (0.15, 0.3)
    count = 10

    @property
    def title(self) -> str:
        return f"one NAT rule of {self.count:,}"

    def desired(self) -> str:
        listed = [
            f"-d 10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32 -j DNAT --to-destination 172.16.0.1"
            for n in range(self.count)
        ]
        return json.dumps({"rules": {SPACE: {"raw": {"nat": {"PREROUTING": listed}}}}})

    def prepare(self, ovs: PrivateOvs) -> None:
        ovs.run("ip", "netns", "add", SPACE)

    def connect(self, ovs: PrivateOvs) -> None:
        self.ovs = ovs
        self.watcher = Watcher(Path(f"/proc/{ovs.holder.pid}/root/run/netns") / SPACE)
        self.rules = [line for line in self._saved().splitlines() if line.startswith("-A reconciler-")]
        self.jump = next(line for line in self._saved().splitlines() if line.startswith("-A PREROUTING"))
        self.picked = list(range(0, len(self.rules), max(1, len(self.rules) // 200)))

    def close(self) -> None:
        if hasattr(self, "watcher"):
            self.watcher.close()

    def _saved(self) -> str:
        return self._iptables("iptables-save", "-t", "nat")

    def _iptables(self, *argv: str) -> str:
        return self.ovs.run("ip", "netns", "exec", SPACE, *argv)

    def floor(self) -> tuple[Path, dict[str, Any]]:
        answers = {}
        for number in self.picked:
            line = self.rules[number].replace("-A reconciler-PREROUTING", f"-I reconciler-PREROUTING {number + 1}")
            answers[mark(self.rules[number])] = f"*nat\n{line}\nCOMMIT\n"
        return Path("/run/netns") / SPACE, {"answers": answers}

    def break_one(self, number: int) -> tuple[float, float]:
        at = self.picked[number % len(self.picked)]
        return self._deleted(mark(self.rules[at]), "-D", "reconciler-PREROUTING", str(at + 1))

    def _deleted(self, text: str, *command: str) -> tuple[float, float]:
        """Run iptables; when the rule with this text was gone, and when it was there again."""
        self.watcher.drain()
        argv = [*self.ovs.holder.enter(), "ip", "netns", "exec", SPACE, "iptables", "-t", "nat", *command]
        with subprocess.Popen(argv, env=self.ovs.env) as tool:
            gone = 0.0
            while True:
                when, kind, data = self.watcher.next()
                if text.encode() in data:
                    if kind == DEL_RULE:
                        gone = when
                    elif gone:
                        break
            tool.wait(WITHIN)
        return gone, when


def mark(line: str) -> str:
    """The hash in a rule's comment."""
    found = re.search(r"reconciler:\w+", line)
    assert found is not None, line
    return found[0]


class OneRuleOfFew(_Rules):
    """One NAT rule of ten is deleted."""


class OneRuleOfMany(_Rules):
    """One NAT rule of ten thousand is deleted."""

    count = 10_000
    share = 0.5
    pause = (0.3, 0.5)


class Jump(_Rules):
    """The jump to our chain is deleted."""

    title = "jump to 10 NAT rules"

    def floor(self) -> tuple[Path, dict[str, Any]]:
        line = self.jump.replace("-A PREROUTING", "-I PREROUTING")
        return Path("/run/netns") / SPACE, {"answers": {mark(self.jump): f"*nat\n{line}\nCOMMIT\n"}}

    def break_one(self, number: int) -> tuple[float, float]:
        time.sleep(0.5)  # one and the same thing again and again is what contention is for
        return self._deleted(mark(self.jump), "-D", "PREROUTING", "1")


class AllRules(_Rules):
    """``iptables -t nat -F`` with twenty rules: the last one's return counts."""

    count = 20
    title = "all of 20 NAT rules, and the jump"

    def floor(self) -> tuple[Path, dict[str, Any]]:
        lines = "\n".join([*self.rules, self.jump])
        return Path("/run/netns") / SPACE, {"answers": {mark(self.rules[-1]): f"*nat\n{lines}\nCOMMIT\n"}}

    def break_one(self, number: int) -> tuple[float, float]:
        time.sleep(0.5)
        return self._deleted(mark(self.rules[-1]), "-F")
