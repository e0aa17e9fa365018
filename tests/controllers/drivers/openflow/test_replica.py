"""The replica's law: however reads overlap with changes, it ends as the switch is."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.drivers.openflow.codec import PortStatus, Update
from controllers.drivers.openflow.flows import AddFlow, DeleteFlow, Flow, FlowKey
from controllers.drivers.openflow.replica import Read, Replica

KEYS = [FlowKey(0, number, b"") for number in range(4)]
keys = st.sampled_from(KEYS)
flows = st.builds(Flow, st.sampled_from([b"", b"a"]), st.integers(0, 1), st.just(0), st.just(0), st.integers(0, 1))
steps = st.one_of(
    st.tuples(st.just("theirs"), keys, st.none() | flows),
    st.tuples(st.just("ours"), keys, st.none() | flows),
    st.tuples(st.just("ask"), keys, st.booleans()),
    st.tuples(st.just("hear"), st.integers(1, 4), st.none()),
)


class World:
    """A switch, a replica, and the stream between them, in which messages wait to be heard."""

    def __init__(self) -> None:
        self.truth: dict[FlowKey, Flow] = {}
        self.replica = Replica()
        self.stream: list[Callable[[], object]] = []

    def theirs(self, key: FlowKey, flow: Flow | None) -> None:
        self._set(key, flow)
        told = None if flow is None else Flow(*flow[:4])  # updates lack flags and importance
        self.stream.append(lambda: self.replica.update(Update(key, told)))

    def ours(self, key: FlowKey, flow: Flow | None) -> None:
        self._set(key, flow)
        mod = DeleteFlow(key) if flow is None else AddFlow(key, flow)
        self.stream.append(lambda: self.replica.settle([mod]))

    def ask(self, key: FlowKey, everything: bool) -> None:
        """Ask now; the switch looks when the request arrives, which is at once here, and the answer queues up."""
        if everything:
            self._ask(Read(found=dict(self.truth)))
        else:
            self._narrowly(key, self.replica.flows[key].cookie if key in self.replica.flows else None)

    def _narrowly(self, key: FlowKey, cookie: int | None) -> None:
        held = self.truth.get(key)
        seen = {key: held} if held is not None and cookie in {None, held.cookie} else {}
        self._ask(Read({key: cookie}, seen))

    def _ask(self, read: Read) -> None:
        self.replica.begin(read)
        self.stream.append(lambda: self._answered(read))

    def _answered(self, read: Read) -> None:
        if read.wanted is None:
            self.replica.finish_dump(read)
            return
        _, again = self.replica.finish_read(read)
        for key, cookie in again.items():
            self._narrowly(key, cookie)

    def hear(self, count: int, _: None = None) -> None:
        for _number in range(min(count, len(self.stream))):
            self.stream.pop(0)()

    def _set(self, key: FlowKey, flow: Flow | None) -> None:
        if flow is None:
            self.truth.pop(key, None)
        else:
            self.truth[key] = flow


@settings(max_examples=500, deadline=None)
@given(st.lists(steps, max_size=40))
def test_the_replica_ends_as_the_switch_is(script: list[tuple[str, object, object]]) -> None:
    world = World()
    for name, *arguments in script:
        getattr(world, name)(*arguments)
    while world.stream:
        world.hear(1)
    told = {key: flow[:4] for key, flow in world.replica.flows.items()}
    assert told == {key: flow[:4] for key, flow in world.truth.items()}
    for key, flow in world.truth.items():
        if key not in world.replica.unsure:
            assert world.replica.flows[key] == flow, "flags are known, or known to be in doubt"
    for key in tuple(world.replica.unsure):
        world.ask(key, False)
        world.hear(9)
    assert world.replica.flows == world.truth
    assert not world.replica.unsure


ports = st.dictionaries(st.integers(1, 5), st.sampled_from("abcd"), max_size=4).map(
    lambda by_number: {name: number for number, name in by_number.items()}
)


@given(ports, ports)
def test_what_is_heard_of_a_port_after_the_list_stays_on_top(before: dict[str, int], after: dict[str, int]) -> None:
    replica = Replica()
    replica.add_ports(before)
    for name in before.keys() - after.keys():
        assert replica.port(PortStatus(deleted=True, name=name, number=before[name])) == {name}
    for name, number in after.items():
        replica.port(PortStatus(deleted=False, name=name, number=number))
    assert replica.ports == after


@given(ports, st.sampled_from("abcd"), st.integers(1, 5))
def test_a_number_belongs_to_one_port(held: dict[str, int], name: str, number: int) -> None:
    replica = Replica()
    replica.add_ports(held)
    replica.port(PortStatus(deleted=False, name=name, number=number))
    assert replica.ports[name] == number
    assert [other for other, its in replica.ports.items() if its == number] == [name]
    replica.port(PortStatus(deleted=True, name=name, number=number + 1))
    assert name in replica.ports, "an old number is gone, not the port"
    replica.port(PortStatus(deleted=True, name=name, number=number))
    assert name not in replica.ports
