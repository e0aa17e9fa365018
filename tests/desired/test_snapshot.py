"""A snapshot that was made after another is what it would be if it had been made from nothing."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from desired.resource import Origin, Resource
from desired.snapshot import Snapshot
from tests.reconciler.fakes import thing

NAMES = st.sampled_from(["a", "b", "c", "d"])
WORLDS = st.lists(st.dictionaries(NAMES, st.tuples(st.sampled_from("vw"), st.integers(1, 2)), max_size=4), min_size=1)


def resources(world: dict[str, tuple[str, int]]) -> list[Resource]:
    return [replace(thing(n, value), origin=Origin("f", "f", line)) for n, (value, line) in world.items()]


@given(WORLDS)
def test_made_step_by_step_it_is_as_made_from_nothing(worlds: list[dict[str, tuple[str, int]]]) -> None:
    before = Snapshot.of([])
    for world in worlds:
        wanted = resources(world)
        fresh = Snapshot.of(reversed(wanted))
        made = Snapshot.of(wanted, before)
        gone = [rid for rid in before.resources if rid not in fresh.resources]
        changed = before.changed(wanted, gone)
        for step in (made, changed):
            assert step.revision == fresh.revision
            assert step.resources == fresh.resources
            assert set(step.differing(before)) == set(fresh.differing(before))
            assert set(step.moved(before)) <= set(fresh.moved(before))
            told = {*step.differing(before), *step.moved(before)}
            same = {rid for rid in fresh.resources if fresh.resources[rid] == before.resources.get(rid)}
            assert told | same >= fresh.resources.keys() | set(gone)
        before = made


def test_another_place_of_what_means_the_same_is_no_other_revision() -> None:
    here, there = resources({"a": ("v", 1)}), resources({"a": ("v", 2)})
    first = Snapshot.of(here)
    second = Snapshot.of(there, first)
    assert first.revision == second.revision
    assert second.differing(first) == set()
    assert second.moved(first) == {here[0].id}


def test_nothing_is_a_revision_too_and_one_thing_is_another() -> None:
    assert Snapshot().revision == ""
    assert Snapshot.of([]).revision
    assert Snapshot.of([]).revision != Snapshot.of([thing("a")]).revision
