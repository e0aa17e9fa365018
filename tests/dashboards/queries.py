"""The queries of the committed dashboards, with Grafana's variables put in as Grafana would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dashboards.__main__ import HERE

WINDOW = "10s"
"""What stands for Grafana's intervals here, where seconds stand for minutes."""


def panels(name: str) -> list[dict[str, Any]]:
    """The panels of one file that show something."""
    return [panel for panel in json.loads((HERE / name).read_text())["panels"] if panel["type"] != "row"]


def queries(name: str) -> Iterator[tuple[str, str]]:
    """(where it stands, PromQL) of every panel, the marks and the choice of nodes of one file."""
    found = json.loads((HERE / name).read_text())
    (everything,) = {v["allValue"] for v in found["templating"]["list"] if v["name"] == "instance"}
    asked = [(f"{name}: {panel['title']}", target["expr"]) for panel in panels(name) for target in panel["targets"]]
    asked += [(f"{name}: {mark['name']}", mark["expr"]) for mark in found["annotations"]["list"]]
    for where, expr in asked:
        text = expr.replace("$instance", everything)
        yield where, text.replace("$__rate_interval", WINDOW).replace("$__range", WINDOW)
