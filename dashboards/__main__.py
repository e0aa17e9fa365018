"""``python -m dashboards``: write every dashboard's JSON beside the code that makes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.overview import overview
from dashboards.repairs import repairs
from dashboards.streams import streams

HERE = Path(__file__).parent
ALL: Mapping[str, Callable[[], Dashboard]] = {
    "overview.json": overview,
    "repairs.json": repairs,
    "streams.json": streams,
}
"""What makes each file."""


def rendered(make: Callable[[], Dashboard]) -> str:
    """The JSON text of one dashboard, its panels numbered in order."""
    built = make().build()
    for number, panel in enumerate(built.panels or (), start=1):
        panel.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    for name, make in ALL.items():
        (HERE / name).write_text(rendered(make), encoding="utf-8")


if __name__ == "__main__":
    main()
