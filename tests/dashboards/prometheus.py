"""A real Prometheus beside a daemon under test: Debian's, in the test's own network namespace, ended by its pid.

It scrapes the daemon several times a second and evaluates the project's own rules as often, so that seconds stand for
minutes. Questions are asked in one process for a whole list of them: entering the namespace is what costs.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.functional.daemon import Node
from tests.ovs import Spawned, ToolFailedError

RULES = Path(__file__).parents[2] / "dashboards" / "rules"
EVERY = "200ms"
ADDRESS = "127.0.0.1:9090"
_CONFIG = f"""
global: {{scrape_interval: {EVERY}, scrape_timeout: {EVERY}, evaluation_interval: {EVERY}}}
rule_files: ["{RULES}/*.yml"]
scrape_configs:
  - job_name: reconciler
    static_configs: [{{targets: ["127.0.0.1:9464"]}}]
"""
_ASK = """
import sys, json, urllib.parse, urllib.request, urllib.error
def ask(path):
    try:
        with urllib.request.urlopen("http://ADDRESS" + path, timeout=10) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        text = error.read().decode()
    return json.loads(text) if text.startswith("{") else {"status": text}
json.dump([ask(path) for path in json.load(sys.stdin)], sys.stdout)
""".replace("ADDRESS", ADDRESS)

Series = dict[str, Any]
"""As Prometheus' API has it: ``metric`` (labels), ``values`` ([time, text] each)."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs; `running` makes it."""

    node: Node
    process: Spawned

    def ask(self, paths: Sequence[str]) -> list[Any]:
        """GET each path of its HTTP interface; the answers, in order."""
        text = self.node.ovs.run(sys.executable, "-S", "-c", _ASK, stdin=json.dumps(list(paths)), timeout=60)
        found: list[Any] = json.loads(text)
        return found

    def ranges(self, queries: Sequence[str], seconds: float) -> list[list[Series]]:
        """What each PromQL query returns over the last `seconds`. AssertionError for one that is refused."""
        now = time.time()
        common = {"start": f"{now - seconds:.3f}", "end": f"{now:.3f}", "step": "0.5"}
        answers = self.ask([f"/api/v1/query_range?{_quoted(query=query, **common)}" for query in queries])
        for query, answer in zip(queries, answers, strict=True):
            assert answer["status"] == "success", f"{query}: {answer}"
        return [answer["data"]["result"] for answer in answers]

    def alerts(self) -> set[str]:
        """The names of the alerts that are pending or firing."""
        (answer,) = self.ask(["/api/v1/alerts"])
        return {alert["labels"]["alertname"] for alert in answer["data"]["alerts"]}


def _quoted(**words: str) -> str:
    return urlencode(words)


@contextlib.contextmanager
def running(node: Node) -> Iterator[Prometheus]:
    """A Prometheus that scrapes `node`'s daemon, for this block. Its data is in the node's directory."""
    config = node.directory / "prometheus.yml"
    config.write_text(_CONFIG)
    argv = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={node.directory}/prometheus",
        f"--web.listen-address={ADDRESS}", "--log.level=warn",
    ]  # fmt: skip
    process = node.ovs.spawn(argv, node.directory / "prometheus.log")
    found = Prometheus(node, process)
    try:
        node.until(lambda: _ready(found), "Prometheus is ready")
        yield found
    finally:
        if process.alive():
            process.end(signal.SIGTERM)


def _ready(prometheus: Prometheus) -> bool:
    assert prometheus.process.alive(), f"Prometheus ended: {prometheus.process.text()[-2000:]}"
    try:
        (answer,) = prometheus.ask(["/-/ready"])
    except ToolFailedError:
        return False
    return bool(answer["status"].startswith("Prometheus Server is Ready"))
