"""The committed JSON and rules: what the code makes, what Grafana can lay out, and nothing that is not measured."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.__main__ import ALL, HERE, rendered
from reconciler.metrics import Metrics
from tests.dashboards.queries import panels, queries

RULES = HERE / "rules"
RULE_FILES = sorted(RULES.glob("*.yml"))
UNIT_TESTS = Path(__file__).with_name("rules_test.yml")


def declared() -> set[str]:
    """The names of all series of a daemon, as Prometheus knows them."""
    metrics = Metrics(controllers=("ovsdb",), kinds=("port",), streams=("ovsdb",))
    metrics.set_revision("abc")
    metrics.check("disk", ok=True, value=1.0, seconds=0.1)
    return {line[7:].split()[0] for line in metrics.render().decode().splitlines() if line.startswith("# TYPE ")}


def measured(expr: str) -> set[str]:
    """The daemon's metrics that a PromQL expression names, without what Prometheus appends to a histogram's."""
    names = set(re.findall(r"(?<![\w:])((?:reconciler|process)_\w+)", expr))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def rules(kind: str) -> dict[str, Any]:
    groups = [group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


@pytest.mark.parametrize("name", ALL)
def test_committed_json_is_what_the_code_makes(name: str) -> None:
    assert (HERE / name).read_text(encoding="utf-8") == rendered(ALL[name]), "run: python -m dashboards"


def test_no_dashboard_is_left_over_that_the_code_does_not_make() -> None:
    assert {path.name for path in HERE.glob("*.json")} == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_panels_fit_the_grid_and_do_not_overlap(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in json.loads((HERE / name).read_text())["panels"]:
        place, title = panel["gridPos"], panel["title"]
        assert place["x"] + place["w"] <= 24, title
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])):  # fmt: skip
            assert cell not in taken, f"{title} lies over {taken[cell]}"
            taken[cell] = title


@pytest.mark.parametrize("name", ALL)
def test_every_panel_says_how_to_read_it_and_asks_the_chosen_source(name: str) -> None:
    seen = set()
    for panel in panels(name):
        assert panel["description"], panel["title"]
        assert panel["targets"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert panel["id"] not in seen
        seen.add(panel["id"])


@pytest.mark.parametrize("name", ALL)
def test_dashboards_ask_for_nothing_that_is_not_measured(name: str) -> None:
    for panel, expr in queries(name):
        assert measured(expr) <= declared(), panel


def test_rules_ask_for_nothing_that_is_not_measured_or_recorded() -> None:
    for rule in {**rules("alert"), **rules("record")}.values():
        assert measured(rule["expr"]) <= declared(), rule
        recorded = set(re.findall(r"\w+:reconciler_\w+:\w+", rule["expr"]))
        assert recorded <= set(rules("record")), rule


def test_every_alert_has_its_runbook_line_here_and_in_the_readme() -> None:
    readme = (HERE / "README.md").read_text()
    for name, rule in rules("alert").items():
        assert rule["labels"]["severity"] in {"critical", "warning"}, name
        assert rule["annotations"]["summary"], name
        assert "`" in rule["annotations"]["runbook"] or "See " in rule["annotations"]["runbook"], name
        assert f"`{name}`" in readme, name


def test_promtool_accepts_the_rules() -> None:
    _promtool("check", "rules", *map(str, RULE_FILES))


def test_every_alert_fires_when_it_should_and_not_for_what_passes_by_itself() -> None:
    tested = UNIT_TESTS.read_text()
    assert [name for name in rules("alert") if name not in tested] == []
    _promtool("test", "rules", str(UNIT_TESTS))


def _promtool(*args: str) -> None:
    done = subprocess.run(["promtool", *args], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
