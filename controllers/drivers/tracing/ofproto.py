"""Reading what Open vSwitch's tools print: ofproto/trace of 2.17 to 3.x, dpif/show, and ovs-vsctl's JSON. Pure.

Ports are numbers in what ofproto/trace prints (`--names` came with 3.1), so they are looked up elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from desired.network.trace.questions import Device, Forwarding, Step, Switch, Tunnelled

_BRIDGE = re.compile(r'(?P<indent> *)bridge\("(?P<name>[^"]+)"\)')
_STEP = re.compile(r"(?P<indent> *)(?P<table>[\w-]+)\. (?:(?P<match>\S+), )?priority (?P<priority>\d+)")
_NO_MATCH = re.compile(r"(?P<indent> *)(?P<table>[\w-]+)\. No match\.")
_INTERNAL = frozenset({"reg0=0x1", "reg0=0x2"})
"""Flows of the switch's own that stand for "no flow of this table matches"."""

_KEY = re.compile(r"(?:set_field:(0x[0-9a-f]+|\d+)->tun_id|set_tunnel(?:64)?:(0x[0-9a-f]+|\d+)|->NXM_NX_TUN_ID)")
_TUNNELLING = re.compile(r"tunneling to (\S+) via")
_UNRESOLVED = re.compile(r"neighbor cache miss for (\S+) on")
_UNROUTED = "native tunnel routing failed"


@dataclass(slots=True)
class _Open:
    """A step whose actions are still being read."""

    indent: int
    bridge: str
    table: str
    match: str
    priority: int
    actions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def closed(self) -> Step:
        return Step(self.bridge, self.table, self.match, self.priority, tuple(self.actions), tuple(self.notes))


def read_trace(text: str) -> Forwarding:
    """What ``ovs-appctl ofproto/trace`` printed."""
    steps = list(_steps(text))
    datapath = " ".join(re.findall(r"^Datapath actions: (.*)$", text, re.MULTILINE))
    ports, tunnels = _leaves(datapath)
    noted = list(_noted(steps))
    known = {tunnel.to for tunnel in tunnels}
    told = [note for step in steps for note in step.notes]
    return Forwarding(
        tuple(steps),
        tuple(ports),
        (*tunnels, *(tunnel for tunnel in noted if tunnel.to not in known)),
        tuple(found.group(1) for note in told if (found := _UNRESOLVED.search(note))),
        any(_UNROUTED in note for note in told),
        datapath,
    )


def _steps(text: str) -> Iterator[Step]:
    found: list[_Open] = []
    bridges: list[tuple[int, str]] = []
    for line in text.splitlines():
        if line.startswith(("Flow:", "Final flow:", "Megaflow:", "Datapath actions:")) or not line.strip():
            continue
        if head := _BRIDGE.match(line):
            bridges = [(at, name) for at, name in bridges if at < len(head["indent"])]
            bridges.append((len(head["indent"]), head["name"]))
        elif head := _STEP.match(line) or _NO_MATCH.match(line):
            found.append(_opened(head, bridges[-1][1] if bridges else ""))
        else:
            _continue(found, line)
    return (step.closed() for step in found)


def _opened(head: re.Match[str], bridge: str) -> _Open:
    groups = head.groupdict()
    match = groups.get("match") or ""
    if "priority" not in groups or match in _INTERNAL:
        return _Open(len(head["indent"]), bridge, head["table"], "", -1)
    return _Open(len(head["indent"]), bridge, head["table"], match, int(groups["priority"]))


def _continue(found: list[_Open], line: str) -> None:
    """An action, or a remark on one, of the innermost step that it is indented under."""
    indent = len(line) - len(line.lstrip())
    step = next((step for step in reversed(found) if step.indent < indent), None)
    said = line.strip()
    if step is None or set(said) == {"-"}:
        return
    if said.startswith(("->", ">>")):
        step.notes.append(said[2:].strip())
    else:
        step.actions.append(said)


def _noted(steps: list[Step]) -> Iterator[Tunnelled]:
    """Tunnels that remarks speak of, with the key that was set last on that bridge."""
    keys: dict[str, int | None] = {}
    for step in steps:
        for action in step.actions:
            if found := _KEY.search(action):
                number = found.group(1) or found.group(2)
                keys[step.bridge] = int(number, 0) if number else None
        for note in step.notes:
            if found := _TUNNELLING.search(note):
                yield Tunnelled(found.group(1), keys.get(step.bridge))


def _leaves(datapath: str) -> tuple[list[int], list[Tunnelled]]:
    """Ports of the datapath that get a copy, and tunnels; the port that carries a tunnel's packets is none of them."""
    ports: list[int] = []
    tunnels: list[Tunnelled] = []
    pending: Tunnelled | None = None
    for action in _split(datapath):
        name, _, inside = action.partition("(")
        if name in {"clone", "sample", "check_pkt_len"}:
            deeper = inside.removesuffix(")")
            more_ports, more_tunnels = _leaves(re.sub(r"^(sample=[^,]*,)?actions\(", "", deeper))
            ports += [] if more_tunnels and name == "clone" else more_ports
            tunnels += more_tunnels
        elif name == "tnl_push":
            pending = _pushed(action)
            tunnels.append(pending)
        elif name == "set" and inside.startswith("tunnel("):
            pending = _set(action)
            tunnels.append(pending)
        elif re.fullmatch(r"\d+", action):
            if pending is None:
                ports.append(int(action))
            pending = None
    return ports, tunnels


def _pushed(action: str) -> Tunnelled:
    to = re.search(r"ipv[46]\(src=[^,]+,dst=([^,)]+)", action)
    key = re.search(r"\b(?:key|vni)=(0x[0-9a-f]+|\d+)", action)
    return Tunnelled(to.group(1) if to else "", int(key.group(1), 0) if key else None)


def _set(action: str) -> Tunnelled:
    to = re.search(r"\b(?:ipv6_)?dst=([^,)]+)", action)
    key = re.search(r"\btun_id=(0x[0-9a-f]+|\d+)", action)
    return Tunnelled(to.group(1) if to else "", int(key.group(1), 0) if key else None)


def _split(actions: str) -> Iterator[str]:
    depth, start = 0, 0
    for at, char in enumerate(actions):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char in ", " and depth == 0:
            if actions[start:at].strip():
                yield actions[start:at].strip()
            start = at + 1
    if actions[start:].strip():
        yield actions[start:].strip()


# -- which ports there are ----------------------------------------------------------------------------------------

_DPIF_BRIDGE = re.compile(r"^\s+([^\s:]+):$")
_DPIF_PORT = re.compile(r"^\s+(\S+) (\d+)/(\d+|none):")


def read_switch(interfaces: str, ports: str, bridges: str, dpif: str) -> Switch:
    """The three tables as ``ovs-vsctl --format=json`` prints them, and ``ovs-appctl dpif/show``."""
    tags = {row["name"]: row["tag"] for row in _rows(ports)}
    owners = {
        interface: (bridge["name"], port["name"])
        for bridge in _rows(bridges)
        for port in _rows(ports)
        if port["_uuid"] in _as_set(bridge["ports"])
        for interface in _as_set(port["interfaces"])
    }
    numbers = dict(_numbers(dpif))
    devices = {}
    for row in _rows(interfaces):
        name = row["name"]
        bridge, port = owners.get(row["_uuid"], ("", ""))
        ids, options, tag = row["external_ids"], row["options"], tags.get(port)
        devices[name] = Device(
            name,
            bridge,
            row["ofport"] if isinstance(row["ofport"], int) else -1,
            row["type"],
            tag if isinstance(tag, int) else None,
            ids.get("iface-id", ""),
            options.get("peer", ""),
            options.get("remote_ip", ""),
            row["error"] if isinstance(row["error"], str) else "",
            numbers.get((bridge, name)),
        )
    return Switch(devices, frozenset(row["name"] for row in _rows(bridges)))


def _rows(table: str) -> list[dict[str, Any]]:
    read = json.loads(table)
    return [dict(zip(read["headings"], map(_value, row), strict=True)) for row in read["data"]]


def _value(value: Any) -> Any:
    """An OVSDB value: maps as dicts, uuids as text, sets of one as what is in them, other sets as tuples."""
    if not isinstance(value, list):
        return value
    kind, inner = value
    if kind == "map":
        return {str(_value(key)): _value(one) for key, one in inner}
    if kind == "set":
        return tuple(_value(one) for one in inner)
    return str(inner)


def _as_set(value: Any) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,)


def _numbers(dpif: str) -> Iterator[tuple[tuple[str, str], int]]:
    bridge = ""
    for line in dpif.splitlines():
        if head := _DPIF_BRIDGE.match(line):
            bridge = head.group(1)
        elif (port := _DPIF_PORT.match(line)) and port.group(3) != "none":
            yield (bridge, port.group(1)), int(port.group(3))
