"""The laws of the table of declared flows: compiled once, for the numbers it depends on, and never stale."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.drivers.openflow.compiler import Compiled, CompileFault
from controllers.openflow.table import TableBuilder
from controllers.ownership import cookie, is_our_cookie
from desired.resource import Resource, Resources
from tests.controllers.fakes.compiler import FakeCompiler
from tests.controllers.fakes.node import flow, key
from tests.reconciler.fakes import virtually

NOTHING: frozenset[str] = frozenset()
P0, P1 = flow("br0", "priority=1,in_port=p0,actions=drop"), flow("br0", "priority=2,x=1,actions=output:p1")
PLAIN = flow("br0", "priority=3,actions=normal")


def index(*resources: Resource) -> Resources:
    return {resource.id: resource for resource in resources}


async def test_every_flow_is_ready_waits_or_is_wrong() -> None:
    builder = TableBuilder(FakeCompiler())
    bad, double = flow("br0", "priority=4,actions=invalid"), flow("br0", "priority=3,table=0,actions=drop")
    resources = index(P0, P1, PLAIN, bad, double)
    table = await builder.build(resources, {"p1": 8}, frozenset({"p0"}))
    assert {entry.resource for entry in table.entries.values()} == {P1.id, PLAIN.id}
    assert table.waiting == {P0.id: ("p0",)}
    assert table.invalid == {bad.id: "unknown action invalid"}
    assert table.doubles == {double.id: PLAIN.id}
    assert table.users == {"p0": [P0.id], "p1": [P1.id]}
    assert set(table.keys) == {P1.id, PLAIN.id}


async def test_a_flow_that_names_what_nobody_declared_waits_for_it_by_the_compiler_s_word() -> None:
    table = await TableBuilder(FakeCompiler()).build(index(P0), {}, NOTHING)
    assert table.waiting == {P0.id: ("p0",)}
    assert table.invalid == {}


async def test_each_flow_has_a_cookie_of_ours_that_says_which_it_is() -> None:
    table = await TableBuilder(FakeCompiler()).build(index(PLAIN), {}, NOTHING)
    (entry,) = table.entries.values()
    assert entry.flow.cookie == cookie(PLAIN.id)
    assert is_our_cookie(entry.flow.cookie)


async def test_what_was_compiled_is_compiled_again_only_when_a_number_it_uses_changes() -> None:
    compiler = FakeCompiler()
    builder = TableBuilder(compiler)
    resources = index(P0, P1, PLAIN)
    first = await builder.build(resources, {"p0": 1, "p1": 2}, NOTHING)
    assert len(compiler.texts) == 3
    assert await builder.build(resources, {"p0": 1, "p1": 2}, NOTHING) is first
    again = await builder.build(resources, {"p0": 1, "p1": 9}, NOTHING)
    assert len(compiler.texts) == 4
    assert again.entries[key("priority=2,x=1")].flow.instructions == b"output:9"
    await builder.build(index(P0, PLAIN), {"p0": 1, "p1": 9, "p2": 3}, NOTHING)
    assert len(compiler.texts) == 4


async def test_the_number_of_a_port_that_no_flow_names_costs_nothing() -> None:
    builder = TableBuilder(FakeCompiler())
    resources = index(P0)
    ports = {"p0": 1, "other": 2}
    first = await builder.build(resources, ports, NOTHING)
    assert await builder.build(resources, {**ports, "other": 7}, NOTHING) is first
    del ports["other"]
    assert await builder.build(resources, ports, NOTHING) is first


async def test_a_port_that_appears_is_looked_for_in_flows_that_were_refused_for_it() -> None:
    builder = TableBuilder(FakeCompiler())
    resources = index(P0)
    assert (await builder.build(resources, {}, NOTHING)).waiting
    assert P0.id in (await builder.build(resources, {"p0": 4}, NOTHING)).keys


class Slow(FakeCompiler):
    """Ports change their numbers while it works."""

    def __init__(self, ports: dict[str, int], then: dict[str, int]) -> None:
        super().__init__()
        self._ports, self._then = ports, then

    async def compile(
        self, texts: Iterable[str], ports: Mapping[str, int], awaited: Collection[str] = ()
    ) -> dict[str, Compiled | CompileFault]:
        answer = await super().compile(texts, ports, awaited)
        self._ports.clear()
        self._ports.update(self._then)
        return answer


async def test_numbers_that_change_while_flows_are_compiled_are_seen_by_the_next_look() -> None:
    ports = {"p0": 1, "p1": 2}
    then = {"p0": 2}
    builder = TableBuilder(Slow(ports, then))
    resources = index(P0, P1, PLAIN)
    await builder.build(resources, ports, NOTHING)
    table = await builder.build(resources, ports, NOTHING)
    expected = await TableBuilder(FakeCompiler()).build(resources, then, frozenset({"p1"}))
    assert table.entries == expected.entries
    assert table.waiting == expected.waiting


NAMES = st.sampled_from(["p0", "p1", "p2", "br0"])
TEXTS = st.builds(
    lambda n, head, actions: f"priority={n},{head}actions={actions}",
    st.integers(0, 3),
    st.sampled_from(["", "in_port=p0,", "in_port=p1,", "x=1,"]),
    st.sampled_from(["drop", "normal", "output:p0", "output:p2", "invalid"]),
)
STEP = st.tuples(st.lists(TEXTS, max_size=6), st.dictionaries(NAMES, st.integers(1, 9)), st.frozensets(NAMES))


@given(steps=st.lists(STEP, max_size=6))
@settings(max_examples=80, deadline=None)
def test_a_builder_with_a_past_says_what_a_fresh_one_says(
    steps: list[tuple[list[str], dict[str, int], frozenset[str]]],
) -> None:
    async def main() -> None:
        builder = TableBuilder(FakeCompiler())
        for texts, ports, declared in steps:
            resources = index(*(flow("br0", text) for text in texts))
            table = await builder.build(resources, ports, declared)
            fresh = await TableBuilder(FakeCompiler()).build(resources, ports, declared)
            assert (table.entries, table.invalid, table.doubles) == (fresh.entries, fresh.invalid, fresh.doubles)
            assert table.waiting == fresh.waiting
            assert {n: set(u) for n, u in fresh.users.items()}.items() <= {
                n: set(u) for n, u in table.users.items()
            }.items()

    virtually(main)
