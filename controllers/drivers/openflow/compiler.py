"""Flow texts to the bytes a switch will report for them, by letting ovs-ofctl itself translate.

Text does not round-trip and is never normalised by rules of our own: what ovs-ofctl would send for a text is what is
installed and compared. Each text gets its number as cookie, so that what comes out is told apart even if texts were
read otherwise than as one flow each. Results depend on the text and on the numbers of the ports it names, on nothing
else: caching is the caller's. Used by the flow, group and meter controllers.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.codec import Type
from controllers.drivers.openflow.flows import Flow, FlowKey
from controllers.drivers.openflow.ofctl import Ofctl, words
from controllers.drivers.openflow.prerequisites import dropped
from controllers.drivers.openflow.vlan_tags import ambiguous, rewritten
from reconciler.errors import DriverError

_T = TypeVar("_T")

_LINE_ERROR: Final = re.compile(r"^ovs-ofctl: -:(\d+): (.*)", re.MULTILINE | re.DOTALL)
_FORMAT_ERROR: Final = re.compile(r"^ovs-ofctl: none of the usable flow formats \((.*?)\) is among", re.MULTILINE)
_MISSING_PORT: Final = re.compile(
    r"^(?P<before>\S+): (?:invalid or unknown port for|(?:output|enqueue|resubmit) to unknown port|unknown port"
    r"|bad port number|invalid watch_port)|^output to unknown truncate port: (?P<after>\S+)"
)
_FREE_NUMBERS: Final = range(0xFE00, 0x100, -1)
_ADD: Final = 0
_AFTERWARDS: Final = 0.02
"""Seconds after which the next ovs-ofctl is started: not before the flows of this one are sent."""
_BREATH: Final = 1000
"""So many texts are decoded before others may run: 3 ms."""


class Compiled(NamedTuple):
    """What a text means. `protocol` is the wire version it was encoded for (5: OpenFlow 1.4)."""

    key: FlowKey
    instructions: bytes
    idle_timeout: int = 0
    hard_timeout: int = 0
    flags: int = 0
    importance: int = 0
    protocol: int = codec.VERSION

    def flow(self, cookie: int) -> Flow:
        """As the switch will report it once it is installed with this cookie."""
        return Flow(self.instructions, cookie, self.idle_timeout, self.hard_timeout, self.flags, self.importance)


@dataclass(frozen=True, slots=True)
class CompileFault:
    """Why a text means nothing, in ovs-ofctl's words. `ports` are names it needs that no port of the bridge has."""

    message: str
    ports: frozenset[str] = frozenset()


def group_body(frame: bytes, number: int) -> bytes | CompileFault:
    """The opaque body of a GROUP_MOD that must be for this group."""
    command, kind, identity = struct.unpack_from("!HBxI", frame, codec.HEADER)
    if frame[1] != Type.GROUP_MOD or command != _ADD or identity != number:
        return CompileFault("'group_id' is given beside the group and cannot be in it")
    return bytes((kind,)) + frame[16:]


def meter_body(frame: bytes, number: int) -> bytes | CompileFault:
    """The opaque body of a METER_MOD that must be for this meter."""
    command, identity = struct.unpack_from("!HxxI", frame, codec.HEADER)
    if frame[1] != Type.METER_MOD or command != _ADD or identity != number:
        return CompileFault("'meter' is given beside the meter and cannot be in it")
    return frame[10:12] + frame[16:]


def _flow_meaning(frame: bytes, number: int) -> Compiled | CompileFault:
    if frame[1] != Type.FLOW_MOD:
        raise DriverError(f"ovs-ofctl made a message of type {frame[1]} of a flow; none of the flows is used")
    command, key, (instructions, cookie, idle, hard, flags, importance) = codec.flow_mod(frame)
    if command != _ADD or cookie != number:
        return CompileFault("'cookie' is the daemon's own mark on a flow and cannot be given")
    return Compiled(key, instructions, idle, hard, flags, importance)


class FlowCompiler:
    """Compiles what ovs-ofctl understands. `timeout` is in seconds, for each run of ovs-ofctl.

    Every method raises DriverError when ovs-ofctl cannot be run, does not end, or says what is not understood.
    """

    def __init__(self, *, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._kept: list[Ofctl] = []

    @contextlib.asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        """Within this an ovs-ofctl is started ahead for the next few flows, once there were some."""
        async with Ofctl.session(self._timeout) as ofctl:
            self._kept.append(ofctl)
            try:
                yield
            finally:
                self._kept.clear()

    @contextlib.asynccontextmanager
    async def _session(self, ports: Mapping[str, int]) -> AsyncIterator[Ofctl]:
        """The one that is kept, unless somebody has it, or one for now."""
        if not self._kept:
            async with Ofctl.session(self._timeout) as ofctl:
                yield ofctl
            return
        ofctl = self._kept.pop()
        try:
            yield ofctl
        finally:
            asyncio.get_running_loop().call_later(_AFTERWARDS, self._keep, ofctl, ports)

    def _keep(self, ofctl: Ofctl, ports: Mapping[str, int]) -> None:
        if ofctl.open:
            ofctl.prepare(ports)
            self._kept.append(ofctl)

    async def compile(
        self, texts: Iterable[str], ports: Mapping[str, int], awaited: Collection[str] = ()
    ) -> dict[str, Compiled | CompileFault]:
        """Translate every flow, with `ports` (name to number) as the bridge's ports.

        `awaited` are names that may yet become ports: a text that uses one is at fault for the missing port.
        """
        # "add" comes first: no text can be read as another command
        kind = _Kind("add-flows", "add cookie={},{}", _flow_meaning)
        results = await self._translate(texts, ports, awaited, kind)
        meant = {
            text: rewritten(text)
            for text, result in results.items()
            if isinstance(result, Compiled) and ambiguous(text, result.key.match)
        }
        if not meant:
            return results
        again = await self._translate(meant.values(), ports, awaited, kind)
        # in write_actions, which 1.0 has not, there is no load, and what 1.4 makes of it is meant
        return results | {text: again[other] for text, other in meant.items() if isinstance(again[other], Compiled)}

    async def compile_groups(
        self, texts: Iterable[str], ports: Mapping[str, int], awaited: Collection[str] = ()
    ) -> dict[str, bytes | CompileFault]:
        """Translate groups, written without their id, to `SetGroup.body`."""
        wanted = list(texts)
        cut = [text for text in wanted if "selection_method" in text]
        kind = _Kind("add-groups", "add group_id={},{}", group_body)
        meant = {text: rewritten(text) for text in wanted if text not in cut}
        compiled = await self._translate(meant.values(), ports, awaited, kind)
        results = {text: compiled[other] for text, other in meant.items()}
        # ovs-ofctl leaves the property out without a word, as it exists in OpenFlow 1.5 only
        return results | {text: CompileFault("selection_method needs OpenFlow 1.5, and 1.4 is spoken") for text in cut}

    async def compile_meters(self, texts: Iterable[str]) -> dict[str, bytes | CompileFault]:
        """Translate meters, written without their id, to `SetMeter.body`. ovs-ofctl takes them one at a time."""
        results: dict[str, bytes | CompileFault] = {}
        async with Ofctl.session(self._timeout) as ofctl:
            for text in dict.fromkeys(texts):
                problem = _unreadable(text)
                if problem:
                    results[text] = CompileFault(problem)
                    continue
                status, said = await ofctl.run({}, ("add-meter", f"meter=1,{text}"), bundle=False)
                changes = ofctl.switch.changes
                if status == 0 and len(changes) == 1:
                    results[text] = meter_body(changes[0], 1)
                else:
                    results[text] = CompileFault(said.strip().removeprefix("ovs-ofctl: ") or f"ended with {status}")
        return results

    async def _translate(
        self, texts: Iterable[str], ports: Mapping[str, int], awaited: Collection[str], kind: _Kind[_T]
    ) -> dict[str, _T | CompileFault]:
        wanted = list(dict.fromkeys(texts))
        async with self._session(ports) as ofctl:
            work = _Work(ofctl, kind, _mentioned(wanted, ports))
            work.stand_in(awaited)
            for text in wanted:
                problem = _unreadable(text)
                if problem:
                    work.results[text] = CompileFault(problem)
            readable = [text for text in wanted if text not in work.results]
            await work.compile(readable)
            await work.find_missing(readable)
            return work.results


def _unreadable(text: str) -> str:
    """Why ovs-ofctl would not take this as exactly one thing; empty when it would."""
    if not text.strip():
        return "it is empty"
    if not text.isprintable():
        return "it must be one printable line"
    if "#" in text:
        return "it cannot contain '#', which ovs-ofctl reads as the start of a comment"
    return ""


def _mentioned(texts: Sequence[str], ports: Mapping[str, int]) -> dict[str, int]:
    """Few texts name few of many ports: telling ovs-ofctl of the others would take most of the time."""
    if len(texts) * 8 > len(ports) or any("\\" in text for text in texts):
        return dict(ports)
    mentioned = frozenset[str]().union(*map(words, texts))
    return {name: number for name, number in ports.items() if name in mentioned}


@dataclass(frozen=True, slots=True)
class _Kind(Generic[_T]):
    """A kind of texts: ovs-ofctl's command, the line for a number and a text, and how to read what becomes of it."""

    command: str
    line: str
    meaning: Callable[[bytes, int], _T | CompileFault]


@dataclass(slots=True)
class _Work(Generic[_T]):
    """Texts that one call compiles, and what is known of them by now."""

    ofctl: Ofctl
    kind: _Kind[_T]
    ports: dict[str, int]
    results: dict[str, _T | CompileFault] = field(default_factory=dict)
    stand_ins: dict[str, int] = field(default_factory=dict)
    """Numbers given to ports that are not there, so that the other texts can be read on."""

    def stand_in(self, names: Iterable[str], avoid: Iterable[int] = ()) -> None:
        """Give a number, used by no other port, to each of these that is no port."""
        used = {*self.ports.values(), *self.stand_ins.values(), *avoid}
        free = (number for number in _FREE_NUMBERS if number not in used)
        for name in names:
            if name not in self.ports and name not in self.stand_ins:
                self.stand_ins[name] = next(free)

    async def compile(self, texts: Sequence[str]) -> None:
        """Fill in a result for each text.

        ovs-ofctl stops at the first wrong line and names it. The lines before it are right and wait; reading goes on
        behind it; what waited is compiled at the end. So it is one run for each wrong text, and two reads of each.
        """
        waiting: list[str] = []
        rest = list(texts)
        while rest:
            status, said = await self._run(rest)
            if status == 0:
                await self._take(rest)
                break
            wrong = _LINE_ERROR.search(said)
            if wrong is None:
                await self._divide(rest, status, said)
                break
            at, message = int(wrong[1]) - 1, wrong[2].strip()
            waiting += rest[:at]
            missing = _MISSING_PORT.match(message)
            name = (missing["before"] or missing["after"]).strip('"') if missing else ""
            if name and name not in self.ports and name not in self.stand_ins:
                self.stand_in((name,))
                rest = rest[at:]
            else:
                self.results[rest[at]] = CompileFault(message)
                rest = rest[at + 1 :]
        if waiting:
            await self.compile(waiting)

    async def _divide(self, texts: Sequence[str], status: int, said: str) -> None:
        """Some texts need another OpenFlow version than others; which, ovs-ofctl does not say."""
        usable = _FORMAT_ERROR.search(said)
        if usable is None:
            words_ = said.strip() or "silently"
            raise DriverError(f"{self.kind.command}: ovs-ofctl failed with status {status}: {words_}; trying again")
        if len(texts) == 1:
            _, said = await self._run(texts, bundle=False)  # a bundle excludes formats older than 1.3 from the answer
            usable = _FORMAT_ERROR.search(said) or usable
            self.results[texts[0]] = CompileFault(
                f"OpenFlow 1.4 cannot express it, only {usable[1].replace(',', ', ')} could; mostly the match has to"
                " say what the actions need, as in vlan_tci=0x1000/0x1000 for strip_vlan, or tcp for fin_timeout"
            )
            return
        middle = len(texts) // 2
        await self.compile(texts[:middle])
        await self.compile(texts[middle:])

    async def _run(self, texts: Sequence[str], *, bundle: bool = True) -> tuple[int, str]:
        lines = [self.kind.line.format(number, text) for number, text in enumerate(texts)]
        return await self.ofctl.run({**self.ports, **self.stand_ins}, (self.kind.command, "-"), lines, bundle=bundle)

    async def _take(self, texts: Sequence[str]) -> None:
        changes = self.ofctl.switch.changes
        if len(changes) != len(texts):
            raise DriverError(f"ovs-ofctl made {len(changes)} messages of {len(texts)} texts; none of them is used")
        for number, (text, change) in enumerate(zip(texts, changes, strict=True)):
            meaning = self.kind.meaning(change, number)
            lost = dropped(text, meaning.key.match) if isinstance(meaning, Compiled) else ""
            self.results[text] = CompileFault(lost) if lost else meaning
            if number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)

    async def find_missing(self, texts: Sequence[str]) -> None:
        """Texts whose meaning changes with the numbers that stand in for missing ports are the ones that need them."""
        names, first = self.stand_ins.keys(), self.stand_ins.values()
        suspects = {text: self.results[text] for text in texts if any(name in text for name in names)}
        suspects = {text: result for text, result in suspects.items() if not isinstance(result, CompileFault)}
        if not suspects:
            return
        self.stand_ins = {}
        self.stand_in(names, avoid=first)
        await self.compile(list(suspects))
        for text, before in suspects.items():
            if self.results[text] != before:
                needed = names & words(text) or {name for name in names if name in text}
                self.results[text] = CompileFault(
                    f"the bridge has no port {', '.join(sorted(needed))}", frozenset(needed)
                )
