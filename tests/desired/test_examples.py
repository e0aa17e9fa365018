"""Every example is valid for each of its nodes, without a warning, and has a page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.examples import ALL, EXAMPLES, Example, trees

NODES = [pytest.param(example, node, id=f"{example.name}-{node}") for example in ALL.values() for node in example.nodes]


def test_every_directory_is_an_example_that_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == ALL.keys()
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"]({name}/README.md)" in index for name in ALL)


@pytest.mark.parametrize(("example", "node"), NODES)
def test_it_is_valid_without_warnings(example: Example, node: str, tmp_path: Path) -> None:
    argv = (sys.executable, "-m", "reconciler.doors.cli", "--config", str(tmp_path / "none.toml"))
    (tmp_path / "none.toml").touch()
    verb = ("validate", str(example.directory), "--node", node)
    both = subprocess.STDOUT
    done = subprocess.run((*argv, *verb), stdout=subprocess.PIPE, stderr=both, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.count("\n"), "valid" in done.stdout) == (0, 1, True), done.stdout
    done = subprocess.run((*argv, *verb, "--output", "json"), capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("example", ALL.values(), ids=ALL)
def test_its_page_tells_of_its_files_and_nodes_and_what_to_break(example: Example) -> None:
    page = (example.directory / "README.md").read_text(encoding="utf-8")
    assert all(name in page for name in (*example.nodes, *(path.name for path in trees(example))))
    assert all(heading in page for heading in ("## Run it", "## Break it"))
