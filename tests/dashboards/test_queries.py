"""A real Prometheus that scrapes a real daemon through a disruption: every query of every panel has something to show.

One node, one daemon and one Prometheus for all tests of this module.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from dashboards.__main__ import ALL
from tests.dashboards.prometheus import Prometheus, running
from tests.dashboards.queries import queries
from tests.functional.daemon import Node

FLOWS = ["priority=1,actions=drop", *(f"ip,nw_dst=10.0.{n}.1,actions=drop" for n in range(50))]
PORTS = {f"tap{n}": {"bridge": "br-int"} for n in range(12)}
DESIRED = {
    "bridges": {"br-int": {}, "br-tun": {}, "br-theirs": {}},
    "ports": PORTS,
    "patches": [{"br-int": "patch-tun", "br-tun": "patch-int"}],
    "flows": {"br-int": ["priority=1,actions=NORMAL"], "br-tun": FLOWS},
    "checks": {"root": {"disk": "/", "max_used": 100, "interval": 1}},
}
SECONDS = 30.0
PATIENCE = 40.0


@pytest.fixture(scope="module")
def prometheus(node_module: Node) -> Iterator[Prometheus]:
    node = node_module
    node.ovs.add_bridge("br-theirs")  # declared and not ours: a conflict, so that something is never right
    node.declare(**DESIRED)
    with running(node) as found:
        node.start(converged=False)
        node.until(lambda: _right_but_for_the_conflict(node), "the node is made")
        # Prometheus takes up its targets 5 s after its start, and what has not been scraped before cannot increase.
        node.until(lambda: found.ranges(["reconciler_drift_total"], 5)[0], "the daemon was scraped")
        _disrupt(node)
        yield found
        if node.running.alive():
            node.stop()


def _disrupt(node: Node) -> None:
    """Ports and flows are deleted, vswitchd is restarted; all of it is repaired."""
    for number in range(3):
        with node.repairs("port/tap0", converged=False):
            node.ovs.vsctl("--no-wait", "del-port", "tap0")
        with node.repairs(f"flow/br-tun/ip,nw_dst=10.0.{number}.1", converged=False):
            node.ovs.ofctl("del-flows", "br-tun")
        time.sleep(0.3)
    node.ovs.restart_vswitchd()
    node.until(lambda: len(node.ovs.flows("br-tun")) == len(FLOWS), "the flows are back")
    node.until(lambda: _right_but_for_the_conflict(node), "all is back")


def _right_but_for_the_conflict(node: Node) -> bool:
    status = node.status()
    return bool(status.revision) and [str(wrong.resource) for wrong in status.not_right] == ["bridge/br-theirs"]


@pytest.mark.parametrize("name", ALL)
def test_every_query_of_every_panel_has_data(prometheus: Prometheus, name: str) -> None:
    asked = list(queries(name))
    empty = [where for where, _ in asked]
    deadline = time.monotonic() + PATIENCE
    while empty and time.monotonic() < deadline:
        answers = prometheus.ranges([expr for _, expr in asked], SECONDS)
        empty = [
            where
            for (where, _), series in zip(asked, answers, strict=True)
            if not any(not math.isnan(float(value)) for one in series for _, value in one["values"])
        ]
    assert empty == []


def test_what_was_repaired_is_seen_as_it_was(prometheus: Prometheus) -> None:
    """Streams are measured once a second."""
    asked = [
        f'reconciler_drift_total{{kind="flow"}} >= {3 * len(FLOWS)}',
        'reconciler_stream_lost_total{stream="openflow"} >= 1',  # vswitchd was restarted
        'instance_outcome:reconciler_unconverged_age_seconds:max{outcome="conflict"} > 0 < 60',
    ]
    prometheus.node.until(lambda: all(prometheus.ranges(asked, 1)), f"{asked} are true")


def test_trouble_raises_its_alert_and_its_end_takes_it_back(prometheus: Prometheus) -> None:
    node = prometheus.node
    _until(prometheus, {"ReconcilerConflict", "ReconcilerNotConverged"})
    fewer = {**DESIRED, "ports": {"tap0": PORTS["tap0"]}}
    node.declare(**fewer)
    _until(prometheus, {"ReconcilerConflict", "ReconcilerNotConverged", "ReconcilerDeletesWaiting"})
    node.write("bridges: {br-int: {tag: seven}}")
    _until(prometheus, {"ReconcilerConfigInvalid"})
    node.declare(**{**DESIRED, "bridges": {"br-int": {}, "br-tun": {}}})
    _until(prometheus, set(), gone={"ReconcilerConflict", "ReconcilerConfigInvalid", "ReconcilerDeletesWaiting"})
    node.ovs.stop_vswitchd()
    _until(prometheus, {"ReconcilerEventStreamSilent", "ReconcilerNotConverged"})
    node.ovs.start_vswitchd()
    _until(prometheus, set(), gone={"ReconcilerEventStreamSilent", "ReconcilerNotConverged"})
    node.kill9()
    _until(prometheus, {"ReconcilerDown"})


def _until(prometheus: Prometheus, there: set[str], gone: set[str] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    alerts = prometheus.alerts()
    while not there <= alerts or (gone or set()) & alerts:
        assert time.monotonic() < deadline, f"alerts are {sorted(alerts)}, not {sorted(there)} without {gone}"
        time.sleep(0.1)
        alerts = prometheus.alerts()
