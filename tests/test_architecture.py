"""The floors of the house, and habits that a reader relies on, held true for every module."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from controllers.catalog import SECTIONS, spec_classes
from desired.network.model import KIND_NAMES

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for top in ("reconciler", "controllers", "desired") for path in (ROOT / top).rglob("*.py"))

BROAD = {
    "reconciler/cluster.py": 1,
    "reconciler/engine.py": 1,
    "reconciler/openstack.py": 1,
    "reconciler/proving.py": 1,
    "reconciler/supervision.py": 1,
}
"""Where any exception may be caught: the worker and the supervisors of watches, proofs, composing and sources."""


def each(path: Path, kind: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(ast.parse(path.read_text(), str(path))) if isinstance(node, kind))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_go_down_and_libraries_stay_where_they_belong(capsys: pytest.CaptureFixture[str]) -> None:
    broken = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert not broken, capsys.readouterr().out


def floors() -> list[set[str]]:
    """The modules of each layer, from above."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [set(re.findall(r"[\w.]+", layer)) for layer in layers]


def test_every_kind_of_controller_has_its_place_in_the_layers() -> None:
    kinds = {f"controllers.{path.parent.name}" for path in (ROOT / "controllers").glob("*/controller.py")}
    (floor,) = (layer for layer in floors() if "controllers.ovsdb" in layer)
    assert kinds <= floor


def test_every_module_has_its_place_in_the_layers() -> None:
    """`desired.migrations` is run by Alembic and imported by nobody."""
    listed = set().union(*floors()) | {"desired.migrations"}
    named = {
        f"{path.parent.name}.{path.stem}"
        for top in ("reconciler", "controllers", "desired")
        for path in (ROOT / top).iterdir()
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    assert named <= listed


def test_every_section_of_the_yaml_is_held_by_a_controller_or_compiled() -> None:
    kinds = {spec.kind for section in SECTIONS for spec in section.specs}
    assert kinds - KIND_NAMES <= spec_classes().keys()
    assert kinds >= KIND_NAMES


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "it has no docstring"


def test_any_exception_is_caught_only_by_the_worker_and_the_supervisors() -> None:
    found: dict[str, int] = {}
    for path in MODULES:
        for node in each(path, ast.ExceptHandler):
            assert isinstance(node, ast.ExceptHandler)
            caught = ast.unparse(node.type) if node.type is not None else "everything"
            if isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None:
                continue  # it tidies up, and what happened goes on
            if caught in {"everything", "Exception", "BaseException"}:
                found[short(path)] = found.get(short(path), 0) + 1
    assert found == BROAD


def test_every_task_has_a_name() -> None:
    nameless = [
        f"{short(path)}:{node.lineno}"
        for path in MODULES
        for node in each(path, ast.Call)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "create_task"
        and not any(keyword.arg == "name" for keyword in node.keywords)
    ]
    assert nameless == []


def test_every_type_that_is_not_checked_says_why() -> None:
    silent = [
        f"{short(path)}:{number}"
        for path in MODULES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "# type: ignore" in line and not line.partition("# type: ignore")[2].partition("]")[2].strip(" #")
    ]
    assert silent == []


def test_every_test_file_can_be_run_alone() -> None:
    """Fixtures that several files use are in a conftest.py: a plugin that is named here and imported there is too late
    to have its asserts rewritten, which pytest takes as an error, unless another file happened to be read before.
    """
    tests = Path(__file__).parent
    named = {
        short(path) for path in tests.rglob("*.py") for node in each(path, ast.Name) if node.id == "pytest_plugins"
    }
    assert named == set()
