"""Laws of INI editing: what was asked for is there, and nothing else has changed."""

from __future__ import annotations

import configparser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controllers.files.ini import edit, parse

keys = st.sampled_from(["a", "b", "external_network_bridge", "Key", "k-1"])
sections = st.sampled_from(["", "DEFAULT", "agent", "ml2 x"])
value = st.sampled_from(["", "1", "br-ex", "a = b", "http://u:p@h/", "# no comment", "[x]", "x;y", "two  blanks"])
values = st.lists(value, max_size=3).map(tuple)
line = st.one_of(
    st.builds("{}{}{}".format, keys, st.sampled_from(["=", " = ", ":", " =", ""]), value),
    st.builds("  {}".format, value),
    st.builds("\t{} = {}".format, keys, value),
    st.builds("[{}]".format, st.sampled_from(["DEFAULT", "agent", "ml2 x", " agent "])),
    st.builds("#{} = 1".format, keys),
    st.sampled_from(["", "# remark", "; remark", "   ", "garbage here"]),
)
texts = st.lists(line, max_size=12).flatmap(
    lambda lines: st.sampled_from(["\n".join(lines), "\n".join([*lines, ""]), "\r\n".join([*lines, ""])])
)


@given(texts, sections, keys, values)
@example("[a]\n  k = 1", "DEFAULT", "a", ("x",))
def test_an_edited_key_has_exactly_the_values_asked_for_and_all_others_keep_theirs(
    text: str, section: str, key: str, wanted: tuple[str, ...]
) -> None:
    before, after = dict(parse(text).values), dict(parse(edit(text, section, key, wanted)).values)
    assert after.pop((section, key), ()) == wanted
    before.pop((section, key), None)
    assert after == before


@given(texts, sections, keys, values)
def test_a_second_edit_finds_nothing_to_do(text: str, section: str, key: str, wanted: tuple[str, ...]) -> None:
    once = edit(text, section, key, wanted)
    assert edit(once, section, key, wanted) == once


@given(texts, sections, keys, values)
def test_lines_that_are_not_of_the_key_stay_and_in_their_order(
    text: str, section: str, key: str, wanted: tuple[str, ...]
) -> None:
    mine = {number for item in parse(text).items.get((section, key), ()) for number in range(item.start, item.end)}
    others = iter(edit(text, section, key, wanted).split("\n"))
    for number, old in enumerate(text.split("\n")):
        if number not in mine and old.strip():
            assert any(new.rstrip("\r") == old.rstrip("\r") for new in others)


@given(texts, sections, keys)
def test_a_key_set_to_what_it_says_leaves_every_byte(text: str, section: str, key: str) -> None:
    assert edit(text, section, key, parse(text).get(section, key)) == text


@pytest.mark.parametrize(
    ("text", "section", "key", "wanted", "result"),
    [
        ("[DEFAULT]\n# k = 1\nx = 2\n", "DEFAULT", "k", ("",), "[DEFAULT]\n# k = 1\nk =\nx = 2\n"),
        ("[DEFAULT]\nk=1\n", "DEFAULT", "k", ("2",), "[DEFAULT]\nk=2\n"),
        ("[DEFAULT]\nk = 1\n", "DEFAULT", "k", ("",), "[DEFAULT]\nk =\n"),
        ("[DEFAULT]\nk =\n", "DEFAULT", "k", ("2",), "[DEFAULT]\nk = 2\n"),
        ("[a]\nk = 1\n\n[b]\n", "a", "j", ("2",), "[a]\nk = 1\nj = 2\n\n[b]\n"),
        ("[a]\nk = 1", "b", "j", ("2",), "[a]\nk = 1\n\n[b]\nj = 2\n"),
        ("", "b", "j", ("2",), "[b]\nj = 2\n"),
        ("[a]\nk = 1\nk = 2\n", "a", "k", ("3",), "[a]\nk = 3\n"),
        ("[a]\nk = 1\n  more\nj = 2\n", "a", "k", (), "[a]\nj = 2\n"),
        ("[user]\n\tname = x\n", "user", "mail", ("y",), "[user]\n\tname = x\n\tmail = y\n"),
        ("A=1\n# B=\n", "", "B", ("2",), "A=1\n# B=\nB=2\n"),
        ("[mysqld]\nskip-name-resolve\n", "mysqld", "skip-name-resolve", (), "[mysqld]\n"),
        ("[a]\r\nk = 1\r\n", "a", "k", ("2",), "[a]\r\nk = 2\r\n"),
    ],
)
def test_a_key_is_written_where_and_how_a_person_would(
    text: str, section: str, key: str, wanted: tuple[str, ...], result: str
) -> None:
    assert edit(text, section, key, wanted) == result


def test_what_is_written_is_what_python_s_own_reader_reads() -> None:
    text = edit("[DEFAULT]\n#gateway_external_network_id = \n\n[agent]\n x = 1\n", "agent", "y", ("2",))
    reader = configparser.RawConfigParser()
    reader.read_string(text)
    assert dict(reader["agent"]) == {"x": "1", "y": "2"}
