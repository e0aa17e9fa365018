"""What the tracer may ask of the node, and what an answer is. Each question names the type of its answer.

A question that the node refuses (a namespace that is gone, no route) has an answer that says so; that a tool does not
answer at all is an error of the driver and ends the trace.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")


class Question(Generic[T]):
    """Base of all questions; `T` is what the answer is."""

    __slots__ = ()


Asking = Generator[Question[Any], Any, R]
"""Something that asks questions on its way to an `R`."""


def ask(question: Question[T]) -> Asking[T]:
    """Put one question and wait for its answer, with ``yield from``."""
    answer = yield question
    return cast("T", answer)


# -- Open vSwitch -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Device:
    """An interface of Open vSwitch. `ofport` is -1 without a device; `odp` is its number in the datapath, if any."""

    name: str
    bridge: str
    ofport: int
    type: str = ""
    tag: int | None = None
    iface_id: str = ""
    peer: str = ""
    remote_ip: str = ""
    error: str = ""
    odp: int | None = None

    @property
    def works(self) -> bool:
        return self.ofport > 0 and not self.error


@dataclass(frozen=True, slots=True)
class Switch:
    """All bridges and interfaces of the node, by name."""

    devices: Mapping[str, Device]
    bridges: frozenset[str] = frozenset()

    def of_port(self, port_id: str) -> Device | None:
        """The device plugged for a port of the model; one that works, if there are several."""
        found = [device for device in self.devices.values() if device.iface_id == port_id]
        return next((device for device in found if device.works), found[0] if found else None)

    def at(self, bridge: str, ofport: int) -> Device | None:
        return next((d for d in self.devices.values() if d.bridge == bridge and d.ofport == ofport), None)

    def numbered(self, odp: int) -> Device | None:
        return next((device for device in self.devices.values() if device.odp == odp), None)


@dataclass(frozen=True, slots=True)
class AskSwitch(Question[Switch]):
    """Which bridges and interfaces are there?"""


@dataclass(frozen=True, slots=True)
class Step:
    """One flow that a packet met. `match` has ports as numbers; `priority` is -1 when no flow matched."""

    bridge: str
    table: str
    match: str
    priority: int
    actions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.priority < 0:
            return f"table {self.table}: no flow matches"
        match = f"{self.match}," if self.match else ""
        return f"table={self.table},priority={self.priority},{match}actions={','.join(self.actions)}"


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """A copy that leaves in a tunnel to the address `to`; `key` is unknown (None) where nothing said it."""

    to: str
    key: int | None = None


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What the switch does with a packet: the flows it meets, and where copies of it leave.

    `ports` are numbers of the datapath; `unresolved` are ends of tunnels whose MAC the switch does not know yet;
    `unrouted`: to the end of some tunnel it knows no route.
    """

    steps: tuple[Step, ...]
    ports: tuple[int, ...] = ()
    tunnels: tuple[Tunnelled, ...] = ()
    unresolved: tuple[str, ...] = ()
    unrouted: bool = False
    datapath: str = ""

    def bridges(self) -> frozenset[str]:
        return frozenset(step.bridge for step in self.steps)


@dataclass(frozen=True, slots=True)
class AskFlows(Question[Forwarding]):
    """What does a bridge do with a packet? `flow` is in the syntax of ``ovs-appctl ofproto/trace``."""

    bridge: str
    flow: str


# -- namespaces ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """A device in a namespace with its addresses."""

    name: str
    up: bool
    mac: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inside:
    """What is in a namespace. `there` is False when there is no such namespace."""

    there: bool
    links: Mapping[str, Link] = field(default_factory=dict)
    forwards: bool = False


@dataclass(frozen=True, slots=True)
class AskInside(Question[Inside]):
    """Which devices and addresses are in a namespace, and does it forward packets of this IP version?"""

    namespace: str
    version: int


@dataclass(frozen=True, slots=True)
class Way:
    """The kernel's decision. `refused` says why there is none; `local`: the namespace itself is the receiver."""

    dev: str = ""
    via: str = ""
    source: str = ""
    local: bool = False
    route: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class AskRoute(Question[Way]):
    """Where would the kernel send this? Without `dev` it is the namespace itself that sends it."""

    namespace: str
    to: str
    source: str = ""
    dev: str = ""


@dataclass(frozen=True, slots=True)
class AskNeighbour(Question[tuple[str, str]]):
    """The MAC that the kernel knows for a neighbour, and the state of that knowledge ('' and '' for none)."""

    namespace: str
    ip: str
    dev: str


@dataclass(frozen=True, slots=True)
class AskRules(Question[str]):
    """The rules of a namespace, as iptables-save prints them."""

    namespace: str
    version: int


@dataclass(frozen=True, slots=True)
class AskListening(Question[bool]):
    """Does somebody in the namespace listen at this port?"""

    namespace: str
    protocol: str
    port: int
