"""What is broken in flow tables: one flow of few or many, all of many. By raw messages, seen by a raw flow monitor."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.codec import Bundle
from controllers.drivers.openflow.flows import AddFlow, DeleteFlow, FlowKey
from tests.benchmarks.wire import FlowWire, NeverSeenError, delete_all, monitor_request, until
from tests.ovs import PrivateOvs

BRIDGE = "br-int"


def flow_texts(count: int, *, port: str = "pt0", bridge: str = BRIDGE) -> str:
    """A section ``flows`` of so many flows of everyday kinds, each of another match, some naming a port."""
    lines = []
    for n in range(count):
        address = f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
        action = (
            "drop",
            f"output:{port}",
            f"mod_vlan_vid:{1 + n % 4000},NORMAL",
            f"set_field:fa:16:3e:00:00:01->eth_dst,output:{port}",
        )[n % 4]
        lines.append(f'    - "table={n % 8},priority={100 + n % 50},ip,nw_dst={address},actions={action}"')
    return f"flows:\n  {bridge}:\n" + "\n".join(lines) + "\n"


class _Flows:
    program = "floor_flows.py"
    share = 1.0
    pause = (0.15, 0.3)
    count = 10
    every = False

    @property
    def title(self) -> str:
        return f"one flow of {self.count:,}"

    def desired(self) -> str:
        head = "bridges:\n  br-int: {}\n  br-tun: {}\npatches:\n  - {br-int: pt0, br-tun: pi0}\n"
        return head + flow_texts(self.count)

    def connect(self, ovs: PrivateOvs) -> None:
        self.rundir, self.path = ovs.rundir, ovs.rundir / f"{BRIDGE}.mgmt"
        self._open()
        self.flows = self.breaker.dump()
        assert len(self.flows) == self.count, f"{len(self.flows)} flows instead of {self.count}"
        self.keys = random.Random(1).sample(sorted(self.flows), min(200, self.count))
        self.begin()

    def reconnect(self) -> None:
        self.close()
        self._open()
        self.begin()

    def _open(self) -> None:
        self.breaker, self.watcher = FlowWire(self.rundir, BRIDGE), FlowWire(self.rundir, BRIDGE)

    def begin(self) -> None:
        self.watcher.watch()

    def close(self) -> None:
        self.breaker.close()
        self.watcher.close()

    def floor(self) -> tuple[Path, dict[str, Any]]:
        answers = {}
        for number, (key, flow) in enumerate(self.flows.items()):
            name = f"{key.table}/{key.priority}/{key.match.hex()}"
            answers[name] = codec.encode(AddFlow(key, flow), 100 + number).hex()
        return self._spec(answers)

    def _spec(self, answers: dict[str, str]) -> tuple[Path, dict[str, Any]]:
        hello = codec.hello(1) + monitor_request(2)
        return self.path, {"hello": hello.hex(), "every": self.every, "answers": answers}

    def break_one(self, number: int) -> tuple[float, float]:
        key = self.keys[number % len(self.keys)]
        self.watcher.drain()
        self.breaker.send(codec.encode(DeleteFlow(key), self.breaker.xid()))
        return self._seen(key)

    def _seen(self, key: FlowKey) -> tuple[float, float]:
        gone = 0.0
        for at, update in self.watcher.updates():
            if update.key == key:
                if update.flow is None:
                    gone = at
                elif gone:
                    return gone, at
        raise AssertionError


class OneOfFew(_Flows):
    """One flow of ten is deleted."""


class OneOfMany(_Flows):
    """One flow of ten thousand is deleted."""

    count = 10_000


class All(_Flows):
    """All flows are deleted. A sentinel's return, and the count, tell when they are back."""

    count = 10_000
    every = True
    share = 0.2
    pause = (1.0, 1.4)

    @property
    def title(self) -> str:
        return f"all flows of {self.count:,}"

    def begin(self) -> None:
        """To be told of ten thousand flows would load the watcher, and so the machine: one of them is watched."""
        self.sentinel = self.keys[0]
        self.watcher.watch(self.sentinel)

    def floor(self) -> tuple[Path, dict[str, Any]]:
        parts = [codec.bundle_control(50, 1, Bundle.OPEN)]
        for xid, (key, flow) in enumerate(self.flows.items(), 100):
            parts.append(codec.bundle_add(xid, 1, codec.encode(AddFlow(key, flow), xid)))
        parts.append(codec.bundle_control(51, 1, Bundle.COMMIT))
        return self._spec({"0/0/": b"".join(parts).hex()})

    def break_one(self, number: int) -> tuple[float, float]:
        self.watcher.drain()
        self.breaker.send(delete_all(self.breaker.xid()))
        seen, back = self._seen(self.sentinel)
        if self.breaker.count() >= self.count:
            return seen, back
        deadline = time.monotonic() + 20
        whole = until(lambda: self.breaker.count() >= self.count, "not all flows came back")
        if whole > deadline:
            raise NeverSeenError("not all flows came back")
        return seen, whole
