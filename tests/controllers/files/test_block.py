"""Laws of blocks between marker lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controllers.files.block import absent, edit, get, markers

lines = st.lists(st.sampled_from(["", "127.0.0.1 localhost", "# remark", "x", "y"]), max_size=6)
texts = lines.map("\n".join)
damaged = st.lists(st.sampled_from(["x", "y", "", *markers("one", "#"), *markers("two", "#")]), max_size=8).map(
    "\n".join
)


@given(texts, texts.map(lambda text: text.strip("\n")))
def test_a_block_says_what_was_declared_and_taking_it_away_restores_the_file(text: str, body: str) -> None:
    written = edit(text, "one", "#", body)
    assert get(written, "one", "#") == body
    assert edit(written, "one", "#", None).rstrip("\n") == text.rstrip("\n")


@given(damaged, texts.map(lambda text: text.strip("\n")))
def test_whatever_became_of_the_markers_there_is_one_block_afterwards(text: str, body: str) -> None:
    written = edit(text, "one", "#", body)
    assert get(written, "one", "#") == body
    assert edit(written, "one", "#", body) == written
    assert absent(edit(written, "one", "#", None), "one", "#")


@given(texts, st.sampled_from(["x", "a\nb"]), st.sampled_from(["y", "c"]))
def test_blocks_do_not_touch_one_another(text: str, one: str, two: str) -> None:
    both = edit(edit(text, "one", "#", one), "two", "#", two)
    assert (get(both, "one", "#"), get(both, "two", "#")) == (one, two)
    assert get(edit(both, "one", "#", None), "two", "#") == two


def test_a_deleted_end_marker_does_not_double_the_block() -> None:
    text = edit("127.0.0.1 localhost\n", "c", "#", "10.0.0.1 a\n10.0.0.2 b") + "other\n"
    damaged_text = text.replace(markers("c", "#")[1] + "\n", "")
    assert edit(damaged_text, "c", "#", "10.0.0.1 a\n10.0.0.2 b") == text


def test_a_block_keeps_its_place() -> None:
    text = edit("first\n", "c", "#", "old") + "last\n"
    begin, end = markers("c", "#")
    assert edit(text, "c", "#", "new") == f"first\n{begin}\nnew\n{end}\nlast\n"
