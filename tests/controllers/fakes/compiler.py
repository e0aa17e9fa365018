"""A tiny syntax in place of ovs-ofctl's: ``table=1,priority=5,in_port=NAME,x=1,actions=output:NAME``.

`in_port` and `output` name ports; all other fields are opaque. The action ``invalid`` is no flow, ``refused`` is one
that the switch will not take, ``odd`` one that it reports in other words than it was told.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any

from controllers.drivers.openflow.compiler import Compiled, CompileFault
from controllers.drivers.openflow.flows import FlowKey
from desired.kinds.openflow import split_flow


class FakeCompiler:
    """As `FlowCompiler`; counts what it was asked for."""

    def __init__(self, *, timeout: float = 1.0) -> None:
        self.texts: list[str] = []

    @contextlib.asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        yield

    async def compile(
        self, texts: Iterable[str], ports: Mapping[str, int], awaited: Collection[str] = ()
    ) -> dict[str, Compiled | CompileFault]:
        every = list(texts)
        self.texts += every
        return {text: compiled(text, ports) for text in every}

    async def compile_groups(self, texts: Any, ports: Mapping[str, int], awaited: Any = ()) -> dict[str, Any]:
        return {text: text.encode() for text in texts}

    async def compile_meters(self, texts: Any) -> dict[str, Any]:
        return {text: text.encode() for text in texts}


def compiled(text: str, ports: Mapping[str, int]) -> Compiled | CompileFault:
    head, actions = split_flow(text)
    fields = dict(field.partition("=")[::2] for field in head.split(",") if field)
    missing = {name for name in _names(fields, actions) if name not in ports}
    if missing:
        return CompileFault(f"{min(missing)}: output to unknown port", frozenset(missing))
    if actions == "invalid":
        return CompileFault("unknown action invalid")
    numbers = {name: int(fields.pop(name, 0)) for name in ("table", "priority", "idle_timeout", "hard_timeout")}
    if "in_port" in fields:
        fields["in_port"] = str(ports[fields["in_port"]])
    match = ",".join(f"{name}={value}" for name, value in sorted(fields.items())).encode()
    key = FlowKey(numbers["table"], numbers["priority"], match)
    return Compiled(key, instructions(actions, ports), numbers["idle_timeout"], numbers["hard_timeout"])


def instructions(actions: str, ports: Mapping[str, int]) -> bytes:
    if actions == "drop":
        return b""
    kind, colon, name = actions.partition(":")
    return (f"{kind}:{ports[name]}" if colon else kind).encode()


def _names(fields: Mapping[str, str], actions: str) -> list[str]:
    found = [fields["in_port"]] if "in_port" in fields else []
    return [*found, actions.partition(":")[2]] if actions.startswith("output:") else found
