"""Flow texts to the bytes a switch will report for them, by letting ovs-ofctl itself translate.

Text does not round-trip and is never normalised by rules of our own: what ovs-ofctl would send for a text is what is
installed and compared. Each text gets its number as cookie, so that what comes out is told apart even if texts were
read otherwise than as one flow each. Results depend on the text and on the numbers of the ports it names, on nothing
else: caching is the caller's. Used by the flow, group and meter controllers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.codec import Type
from controllers.drivers.openflow.flows import Flow, FlowKey
from controllers.drivers.openflow.ofctl import Ofctl
from reconciler.errors import DriverError

_LINE_ERROR: Final = re.compile(r"^ovs-ofctl: -:(\d+): (.*)", re.MULTILINE | re.DOTALL)
_FORMAT_ERROR: Final = re.compile(r"^ovs-ofctl: none of the usable flow formats \((.*?)\) is among", re.MULTILINE)
_MISSING_PORT: Final = re.compile(
    r"^(?P<before>\S+): (?:invalid or unknown port for|(?:output|enqueue|resubmit) to unknown port|unknown port"
    r"|bad port number)|^output to unknown truncate port: (?P<after>\S+)"
)
_WORD: Final = re.compile(r"[\w.@+-]+")
_FREE_NUMBERS: Final = range(0xFE00, 0x100, -1)
_ADD: Final = 0


@dataclass(frozen=True, slots=True)
class Compiled:
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


def words(text: str) -> frozenset[str]:
    """Everything in a text that may be a port's name: a text must be compiled anew when one of these changes."""
    found = _WORD.findall(text)
    return frozenset(found).union(word.rstrip("-") for word in found if word[-1] == "-")


@dataclass(slots=True)
class _Work:
    """Texts that one call compiles, and what is known of them by now."""

    ofctl: Ofctl
    ports: dict[str, int]
    results: dict[str, Compiled | CompileFault] = field(default_factory=dict)
    stand_ins: dict[str, int] = field(default_factory=dict)
    """Numbers given to ports that are not there, so that the other texts can be read on."""


class FlowCompiler:
    """Compiles flow texts. `timeout` is in seconds, for each run of ovs-ofctl."""

    def __init__(self, *, timeout: float = 10.0) -> None:
        self._timeout = timeout

    async def compile(
        self, texts: Iterable[str], ports: Mapping[str, int], awaited: Collection[str] = ()
    ) -> dict[str, Compiled | CompileFault]:
        """Translate every text, with `ports` (name to number) as the bridge's ports.

        `awaited` are names that may yet become ports: a text that uses one is at fault for the missing port.
        Raises DriverError when ovs-ofctl cannot be run, or says what is not understood.
        """
        async with Ofctl.session(self._timeout) as ofctl:
            work = _Work(ofctl, dict(ports))
            for name in awaited:
                _stand_in(work, name)
            readable = []
            for text in dict.fromkeys(texts):
                problem = _unreadable(text)
                if problem:
                    work.results[text] = CompileFault(problem)
                else:
                    readable.append(text)
            await _compile(work, readable)
            await _find_missing(work, readable)
            return work.results


def _unreadable(text: str) -> str:
    """Why ovs-ofctl would not take this as exactly one flow; empty when it would."""
    if not text.strip():
        return "the flow is empty"
    if not text.isprintable():
        return "a flow must be one printable line"
    if "#" in text:
        return "a flow cannot contain '#', which ovs-ofctl reads as the start of a comment"
    return ""


def _stand_in(work: _Work, name: str) -> None:
    if name not in work.ports:
        used = set(work.ports.values()) | set(work.stand_ins.values())
        work.stand_ins[name] = next(number for number in _FREE_NUMBERS if number not in used)


async def _compile(work: _Work, texts: Sequence[str]) -> None:
    """Fill in a result for each text.

    ovs-ofctl stops at the first wrong line and names it. The lines before it are right and wait; reading goes on behind
    it; what waited is compiled at the end. So the work is one run for each wrong text, and each text is read twice.
    """
    waiting: list[str] = []
    rest = list(texts)
    while rest:
        status, said = await _run(work, rest)
        if status == 0:
            _take(work, rest)
            break
        wrong = _LINE_ERROR.search(said)
        if wrong is None:
            await _divide(work, rest, status, said)
            break
        at, message = int(wrong[1]) - 1, wrong[2].strip()
        waiting += rest[:at]
        missing = _MISSING_PORT.match(message)
        name = (missing["before"] or missing["after"]).strip('"') if missing else ""
        if name and name not in work.ports and name not in work.stand_ins:
            _stand_in(work, name)
            rest = rest[at:]
        else:
            work.results[rest[at]] = CompileFault(message)
            rest = rest[at + 1 :]
    if waiting:
        await _compile(work, waiting)


async def _divide(work: _Work, texts: Sequence[str], status: int, said: str) -> None:
    """Some texts need another OpenFlow version than others; which, ovs-ofctl does not say."""
    usable = _FORMAT_ERROR.search(said)
    if usable is None:
        raise DriverError(f"ovs-ofctl failed with status {status} when it compiled flows: {said.strip() or 'silently'}")
    if len(texts) == 1:
        _, said = await _run(work, texts, bundle=False)  # bundles exclude the formats older than 1.3 from the answer
        usable = _FORMAT_ERROR.search(said) or usable
        work.results[texts[0]] = CompileFault(
            f"OpenFlow 1.4 cannot express this flow, only {usable[1].replace(',', ', ')} could; mostly the match has to"
            " say what the actions need, as in vlan_tci=0x1000/0x1000 for strip_vlan, or tcp for fin_timeout"
        )
        return
    middle = len(texts) // 2
    await _compile(work, texts[:middle])
    await _compile(work, texts[middle:])


async def _run(work: _Work, texts: Sequence[str], *, bundle: bool = True) -> tuple[int, str]:
    # "add" first: no text can be read as another command
    lines = [f"add cookie={number},{text}" for number, text in enumerate(texts)]
    return await work.ofctl.run({**work.ports, **work.stand_ins}, ("add-flows", "-"), lines, bundle=bundle)


def _take(work: _Work, texts: Sequence[str]) -> None:
    changes = work.ofctl.switch.changes
    if len(changes) != len(texts):
        raise DriverError(f"ovs-ofctl made {len(changes)} flows of {len(texts)} texts; none of them is used")
    for number, (text, change) in enumerate(zip(texts, changes, strict=True)):
        if change[1] != Type.FLOW_MOD:
            raise DriverError(f"ovs-ofctl made a message of type {change[1]} of a flow")
        command, key, flow = codec.flow_mod(change)
        if command != _ADD or flow.cookie != number:
            work.results[text] = CompileFault("'cookie' is the daemon's own mark on a flow and cannot be given")
        else:
            instructions, _, idle, hard, flags, importance = flow
            work.results[text] = Compiled(key, instructions, idle, hard, flags, importance)


async def _find_missing(work: _Work, texts: Sequence[str]) -> None:
    """Texts whose meaning changes with the numbers that stand in for missing ports are the ones that need them."""
    if not work.stand_ins:
        return
    names = work.stand_ins.keys()
    suspects = {text: work.results[text] for text in texts if any(name in text for name in names)}
    suspects = {text: result for text, result in suspects.items() if isinstance(result, Compiled)}
    first = set(work.stand_ins.values())
    work.stand_ins = dict.fromkeys(names, 0)
    used = set(work.ports.values()) | first
    free = (number for number in _FREE_NUMBERS if number not in used)
    work.stand_ins = {name: next(free) for name in names}
    await _compile(work, list(suspects))
    for text, before in suspects.items():
        if work.results[text] != before:
            needed = names & words(text) or {name for name in names if name in text}
            listed = ", ".join(sorted(needed))
            work.results[text] = CompileFault(f"the bridge has no port {listed}", frozenset(needed))
