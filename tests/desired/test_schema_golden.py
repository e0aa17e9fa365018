"""Wrong YAML, directory by directory, with what is said about it: tests/desired/golden/CASE/problems.txt."""

from pathlib import Path

import pytest

from desired.kinds.sections import SECTIONS
from desired.schema import load_tree

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


@pytest.mark.parametrize("case", CASES)
def test_every_problem_of_the_tree_is_named_with_its_place_and_what_would_be_right(case: str) -> None:
    directory = GOLDEN / case
    loaded = load_tree(directory, node="n1", roles=frozenset({"network"}), sections=SECTIONS)
    said = [str(problem).replace(f"{directory}/", "").replace(str(directory), "DIR") for problem in loaded.problems]
    assert said == (directory / "problems.txt").read_text().splitlines()


@pytest.mark.parametrize("case", CASES)
def test_no_message_speaks_the_language_of_a_library(case: str) -> None:
    said = (GOLDEN / case / "problems.txt").read_text()
    for jargon in ("Input should", "Value error", "string_type", "NoneType", "dict", "Traceback", "pydantic"):
        assert jargon not in said
