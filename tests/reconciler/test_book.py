"""The desired state cut into scopes: whatever way it came about, it is the same, and what did not change stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from desired.resource import Mode, Resource
from desired.snapshot import Snapshot
from reconciler.book import DesiredBook
from reconciler.contract import Scope
from tests.reconciler.fakes import Lab, thing, virtually

THINGS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.tuples(st.sampled_from("vw"), st.sampled_from(["here", "there"]), st.sampled_from(list(Mode))),
    max_size=3,
)


def resources(world: dict[str, tuple[str, str, Mode]]) -> list[Resource]:
    return [thing(name, value, place=place, mode=mode) for name, (value, place, mode) in world.items()]


def book() -> DesiredBook:
    return Lab().engine.book


@given(st.lists(THINGS, min_size=1, max_size=5))
def test_a_book_with_a_past_says_what_a_fresh_one_says(worlds: list[dict[str, tuple[str, str, Mode]]]) -> None:
    async def main() -> None:
        old = book()
        for world in worlds:
            before = {scope: old.resources(scope) for scope in old.scopes()}
            changed = old.take(Snapshot.of(resources(world), old.snapshot))
            fresh = book()
            fresh.take(Snapshot.of(resources(world)))
            assert {s: dict(old.resources(s)) for s in old.scopes()} == {
                s: dict(fresh.resources(s)) for s in fresh.scopes()
            }
            assert old.observing() == fresh.observing()
            assert {k: n for k, n in old.counts().items() if n} == {k: n for k, n in fresh.counts().items() if n}
            for scope, mine in before.items():
                assert (scope in changed) == (dict(mine) != dict(old.resources(scope)))
                if scope not in changed:
                    assert old.resources(scope) == mine

    virtually(main)


def test_the_resources_of_a_scope_are_the_same_object_until_one_of_them_changes() -> None:
    async def main() -> None:
        mine = book()
        mine.take(Snapshot.of([thing("a"), thing("b", place="there")]))
        there, here = mine.resources(Scope("world", "there")), mine.resources(Scope("world", "here"))
        mine.take(Snapshot.of([thing("a", "w"), thing("b", place="there")], mine.snapshot))
        assert mine.resources(Scope("world", "there")) is there
        assert mine.resources(Scope("world", "here")) is not here

    virtually(main)
