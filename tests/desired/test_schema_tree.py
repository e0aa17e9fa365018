"""Laws of a tree: which files are read, for whom, merged in any order, never empty without saying so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desired.kinds.sections import SECTIONS
from desired.schema import Cache, Loaded, load_tree
from desired.snapshot import Snapshot

BLOCKS = [
    "bridges: {br-int: {fail_mode: secure}}\n",
    "bridges: {br-tun: }\nflows: {br-tun: ['priority=1,actions=drop']}\n",
    "patches: [{br-int: patch-tun, br-tun: patch-int}]\n",
    "ports: {tap1: {bridge: br-int, tag: 1}}\n",
    "flows: {br-tun: ['priority=2,actions=normal'], br-int: ['actions=normal']}\n",
    "apply_to: {nodes: [other]}\nports: {tap1: {bridge: br-int, tag: 2}}\n",
]


def load(path: Path, *, node: str = "n1", roles: tuple[str, ...] = (), cache: Cache | None = None) -> Loaded:
    return load_tree(path, node=node, roles=frozenset(roles), sections=SECTIONS, cache=cache)


def names(loaded: Loaded) -> set[str]:
    assert loaded.problems == ()
    return {str(resource.id) for resource in loaded.resources}


def bridge(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"bridges: {{{name}: }}\n")


@settings(max_examples=40, deadline=None)
@given(
    blocks=st.permutations(BLOCKS),
    files=st.lists(st.integers(0, 3), min_size=len(BLOCKS), max_size=len(BLOCKS)),
    names=st.permutations("abcd"),
)
def test_neither_the_files_nor_their_order_matter(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[str], files: list[int], names: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("tree")
    (directory / "all.yaml").write_text("---\n".join(BLOCKS))
    whole = load(directory)
    (directory / "all.yaml").unlink()
    texts: dict[int, list[str]] = {}
    for block, file in zip(blocks, files, strict=True):
        texts.setdefault(file, []).append(block)
    for file, members in texts.items():
        (directory / f"{names[file]}.yml").write_text("---\n".join(members))
    parts = load(directory)
    assert (whole.problems, parts.problems) == ((), ())
    assert Snapshot.of(parts.resources).revision == Snapshot.of(whole.resources).revision


def test_hidden_files_and_editors_leftovers_are_not_read(tmp_path: Path) -> None:
    bridge(tmp_path / "a.yaml", "br0")
    bridge(tmp_path / "sub" / "b.yml", "br1")
    for name in (".a.yaml", "a.yaml~", "a.yaml.swp", ".a.yaml.swp", "#a.yaml#", ".#a.yaml", ".git/c.yaml", "README.md"):
        bridge(tmp_path / name, "br9")
    assert names(load(tmp_path)) == {"bridge/br0", "bridge/br1"}


def test_a_mounted_config_map_is_read_once(tmp_path: Path) -> None:
    bridge(tmp_path / "..2026_01_01" / "a.yaml", "br0")
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    assert names(load(tmp_path)) == {"bridge/br0"}


def test_linked_directories_are_followed_and_loops_end(tmp_path: Path) -> None:
    bridge(tmp_path / "elsewhere" / "a.yaml", "br0")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "one").symlink_to(tmp_path / "elsewhere")
    (tree / "two").symlink_to(tmp_path / "elsewhere")
    (tree / "up").symlink_to(tree)
    (tree / "itself").symlink_to("itself")
    loaded = load(tree)
    assert names(loaded) == {"bridge/br0"}


def test_a_link_to_nothing_and_a_pipe_are_problems(tmp_path: Path) -> None:
    bridge(tmp_path / "a.yaml", "br0")
    (tmp_path / "b.yaml").symlink_to("gone")
    os.mkfifo(tmp_path / "c.yaml")
    (tmp_path / "d.yaml").symlink_to("d.yaml")
    loaded = load(tmp_path)
    assert [Path(problem.file).name for problem in loaded.problems] == ["b.yaml", "c.yaml", "d.yaml"]


def test_a_single_file_is_a_tree(tmp_path: Path) -> None:
    bridge(tmp_path / "a.yaml", "br0")
    bridge(tmp_path / "b.yaml", "br1")
    assert names(load(tmp_path / "a.yaml")) == {"bridge/br0"}


@pytest.mark.parametrize(
    ("text", "node", "roles", "applies"),
    [
        ("{nodes: [n1]}", "n1", (), True),
        ("{nodes: ['n?', x]}", "n1", (), True),
        ("{nodes: [N1]}", "n1", (), False),
        ("{roles: [network, compute]}", "n1", ("compute",), True),
        ("{roles: [network]}", "n1", (), False),
        ("{nodes: [n1], roles: [network]}", "n1", ("compute",), False),
        ("{nodes: [n1], roles: [network]}", "n1", ("network",), True),
        ("{}", "n1", (), True),
    ],
)
def test_a_document_is_for_whom_it_says(
    tmp_path: Path, text: str, node: str, roles: tuple[str, ...], *, applies: bool
) -> None:
    (tmp_path / "a.yaml").write_text(f"bridges: {{br0: }}\n---\napply_to: {text}\nbridges: {{br1: }}\n")
    assert ("bridge/br1" in names(load(tmp_path, node=node, roles=roles))) is applies


@pytest.mark.parametrize(
    "text", [None, "", "# nothing\n", "apply_to: {nodes: [other]}\nbridges: {br0: }\n", "x-a: 1\n"]
)
def test_nothing_is_never_declared_silently(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "a.yaml").write_text(text)
    loaded = load(tmp_path)
    assert loaded.resources == ()
    assert [("node n1" in problem.message, "refused" in problem.message) for problem in loaded.problems] == [
        (True, True)
    ]


def test_a_missing_directory_is_a_problem(tmp_path: Path) -> None:
    loaded = load(tmp_path / "gone")
    assert [problem.file for problem in loaded.problems] == [str(tmp_path / "gone")]
    assert loaded.digest


def test_an_empty_file_beside_others_is_fine(tmp_path: Path) -> None:
    bridge(tmp_path / "a.yaml", "br0")
    (tmp_path / "b.yaml").write_text("")
    assert names(load(tmp_path)) == {"bridge/br0"}


def test_documents_for_other_nodes_are_checked_too(tmp_path: Path) -> None:
    bridge(tmp_path / "a.yaml", "br0")
    (tmp_path / "b.yaml").write_text("apply_to: {nodes: [other]}\nports: {tap1: {bridge: br0, tag: x}}\n")
    assert len(load(tmp_path).problems) == 1


def test_an_edit_of_one_file_reads_one_file(tmp_path: Path) -> None:
    bridge(tmp_path / "a.yaml", "br0")
    bridge(tmp_path / "b.yaml", "br1")
    cache = Cache()
    first = load(tmp_path, cache=cache)
    before = dict(cache.entries)
    bridge(tmp_path / "b.yaml", "br2")
    second = load(tmp_path, cache=cache)
    assert names(second) == {"bridge/br0", "bridge/br2"}
    assert first.digest != second.digest
    assert second.digest == load(tmp_path).digest
    same = [path for path, entry in cache.entries.items() if entry is before[path] or entry[1] is before[path][1]]
    assert same == [str(tmp_path / "a.yaml")]


def test_a_file_that_went_is_forgotten(tmp_path: Path) -> None:
    bridge(tmp_path / "a.yaml", "br0")
    bridge(tmp_path / "b.yaml", "br1")
    cache = Cache()
    load(tmp_path, cache=cache)
    (tmp_path / "b.yaml").unlink()
    assert names(load(tmp_path, cache=cache)) == {"bridge/br0"}
    assert list(cache.entries) == [str(tmp_path / "a.yaml")]


def test_a_bridge_of_nearly_the_same_name_is_a_warning_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "bridges: {br-int: }\nports: {tap1: {bridge: br-itn}, tap2: {bridge: br-itn}, tap3: {bridge: foreign}}\n"
    )
    loaded = load(tmp_path)
    assert loaded.problems == ()
    assert [warning.hint for warning in loaded.warnings] == ["did you mean 'br-int'?"]


def test_what_is_written_with_a_mistake_is_not_guessed_to_be_another(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("bridges: {br-int: , br-ext: {fail_mode: no}}\nports: {tap1: {bridge: br-ext}}\n")
    loaded = load(tmp_path)
    assert [problem.path for problem in loaded.problems] == ["bridges.br-ext.fail_mode"]
    assert loaded.warnings == ()
