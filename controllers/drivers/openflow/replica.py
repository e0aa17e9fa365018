"""The replica of one bridge's flows and ports, as pure bookkeeping: what messages do to it, and nothing of sockets.

A dump or a narrowed read overlaps with the monitor's updates. Each read under way therefore keeps a log of all that
was applied since it was asked for, and replays it on top of its result: whatever was older than the switch's snapshot
is in it anyway, whatever was newer is not lost. `switch` feeds this; readers see `flows` and `ports`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field

from controllers.drivers.openflow import codec
from controllers.drivers.openflow.flows import AddFlow, DeleteFlow, Flow, FlowKey, Mod


@dataclass(slots=True, eq=False)
class Read:
    """A dump (`wanted` is None) or a narrowed read of these keys, with the cookie each was asked by (None: any)."""

    wanted: Mapping[FlowKey, int | None] | None = None
    found: dict[FlowKey, Flow] = field(default_factory=dict)
    log: list[tuple[FlowKey, Flow | None, bool]] = field(default_factory=list)

    def take(self, frame: bytes) -> None:
        self.found.update(codec.flow_entries(frame))


class Replica:
    """`flows` and `ports` are to be read by others and changed by nobody else."""

    def __init__(self) -> None:
        self.flows: dict[FlowKey, Flow] = {}
        self.ports: dict[str, int] = {}
        self.unsure: set[FlowKey] = set()
        """Keys whose flags and importance are not known: the monitor does not tell them."""
        self._reads: list[Read] = []

    def update(self, update: codec.Update) -> bool:
        """Take a monitor update of somebody else's change. True when the replica changed."""
        key, flow = update
        for read in self._reads:
            read.log.append((key, flow, False))
        changed = _put(self.flows, key, flow, exact=False)
        if flow is None or _passing(flow):
            self.unsure.discard(key)
        else:
            self.unsure.add(key)
        return changed

    def settle(self, mods: Iterable[Mod]) -> None:
        """Take our own changes, which the switch has just carried out."""
        for mod in mods:
            match mod:
                case AddFlow(key, flow):
                    self._own(key, flow)
                case DeleteFlow(key, cookie, mask):
                    held = self.flows.get(key)
                    if held is None or not (held.cookie ^ cookie) & mask:
                        self._own(key, None)
                case _:
                    continue

    def _own(self, key: FlowKey, flow: Flow | None) -> None:
        for read in self._reads:
            read.log.append((key, flow, True))
        _put(self.flows, key, flow, exact=True)
        self.unsure.discard(key)

    def begin(self, read: Read) -> None:
        self._reads.append(read)

    def abandon(self, read: Read) -> None:
        if read in self._reads:
            self._reads.remove(read)

    def finish_dump(self, read: Read) -> frozenset[FlowKey]:
        """Replace all flows by what was read. Returns the keys that differed."""
        self.abandon(read)
        before = self.flows
        self.flows, self.unsure = _replayed(read)
        if before == self.flows:
            return frozenset()
        return frozenset(key for key, _ in before.items() ^ self.flows.items())

    def finish_read(self, read: Read) -> tuple[frozenset[FlowKey], dict[FlowKey, int | None]]:
        """Correct what was read. Returns the keys that changed, and those to be asked for again by any cookie.

        A read may find more than it wanted (a match covers narrower ones): that is knowledge, too.
        """
        self.abandon(read)
        wanted = read.wanted or {}
        again: dict[FlowKey, int | None] = {
            key: None
            for key, cookie in wanted.items()
            if cookie is not None and key not in read.found and key in self.flows
        }
        now, unsure = _replayed(read)
        changed: set[FlowKey] = set()
        for key in (wanted.keys() | read.found.keys()) - again.keys():
            flow = now.get(key)
            if flow != self.flows.get(key):
                changed.add(key)
                _put(self.flows, key, flow, exact=True)
            if key not in unsure:
                self.unsure.discard(key)
        return frozenset(changed), again

    def add_ports(self, ports: Mapping[str, int]) -> None:
        """Take a part of the list of all ports, in its place among the changes: what was heard later stays on top."""
        self.ports.update(ports)

    def port(self, status: codec.PortStatus) -> frozenset[str]:
        """Take one change of a port. Returns the names whose number appeared, changed or went."""
        held = self.ports.get(status.name)
        if status.deleted:
            if held != status.number:
                return frozenset()
            del self.ports[status.name]
            return frozenset({status.name})
        if held == status.number:
            return frozenset()
        gone = {name for name, number in self.ports.items() if number == status.number}
        for name in gone:
            del self.ports[name]
        self.ports[status.name] = status.number
        return frozenset(gone | {status.name})

    def void(self) -> None:
        """Nothing is known any more."""
        self.flows, self.ports = {}, {}
        self.unsure.clear()
        self._reads.clear()


def _replayed(read: Read) -> tuple[dict[FlowKey, Flow], set[FlowKey]]:
    """What was read, with what happened meanwhile on top; and the keys whose flags are a guess because of that."""
    now = dict(read.found)
    unsure: set[FlowKey] = set()
    for key, flow, exact in read.log:
        if flow is None or exact:
            _put(now, key, flow, exact=True)
            unsure.discard(key)
        else:
            guess = read.found.get(key, flow)
            now[key] = Flow(*flow[:4], guess.flags, guess.importance)
            if not _passing(flow):
                unsure.add(key)
    return now, unsure


def _passing(flow: Flow) -> bool:
    """Flows with a timeout (learned ones) come and go and are no drift: their flags are not worth a question each."""
    return bool(flow.idle_timeout or flow.hard_timeout)


def _put(flows: MutableMapping[FlowKey, Flow], key: FlowKey, flow: Flow | None, *, exact: bool) -> bool:
    """Set or remove one flow; one that is not `exact` keeps the flags and importance that were known."""
    held = flows.get(key)
    if flow is None:
        flows.pop(key, None)
        return held is not None
    if held is not None and not exact:
        flow = Flow(*flow[:4], held.flags, held.importance)
    flows[key] = flow
    return held != flow
