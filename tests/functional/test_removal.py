"""What is taken out of the YAML goes from the node, within the budget; what was never said deletes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.functional.daemon import Node

FLOWS = [f"ip,nw_dst=10.0.0.{n},actions=drop" for n in range(40)]
BRIDGES = {"br0": {}, "br1": {}}
PORTS = {f"tap{n}": {"bridge": "br0", "tag": n + 1} for n in range(8)}


@pytest.fixture
def up(node: Node) -> Iterator[Node]:
    node.declare(name="bridges.yaml", bridges=BRIDGES)
    node.declare(name="ports.yaml", ports=PORTS)
    node.declare(name="flows.yaml", flows={"br0": FLOWS})
    node.start()
    yield node
    assert node.stop() == 0


def _flows(node: Node) -> int:
    return len(node.ovs.flows("br0"))


def _ports(node: Node, number: int) -> dict[str, object]:
    return dict(list(PORTS.items())[:number])


def test_removed_flows_and_ports_go(up: Node) -> None:
    up.adopts(lambda: up.declare(name="flows.yaml", flows={"br0": FLOWS[:35]}))
    up.until(lambda: _flows(up) == 35, "the flows are gone", 5)
    up.declare(name="ports.yaml", ports=_ports(up, 6))
    up.until(lambda: len(up.ovs.vsctl("list-ports", "br0").split()) == 6, "the ports are gone", 5)
    up.converged()
    entry = up.entries("port/tap7")[-1]
    assert [(a.verb, a.why, a.result, a.drift) for a in entry.actions] == [
        ("delete", "no longer declared", "done", False)
    ]
    assert up.status().budgets == ()
    assert up.cli("plan").code == 0


def test_removed_bridge_goes_with_all_in_it_and_leaves_no_trace_in_the_status(up: Node) -> None:
    (up.desired / "ports.yaml").unlink()
    (up.desired / "flows.yaml").unlink()
    up.declare(name="bridges.yaml", bridges={"br1": {}})
    up.until(lambda: up.ovs.vsctl("list-br") == "br1", "the bridge is gone", 5)
    up.until(lambda: not any("br0" in stream.name for stream in up.status().streams), "nothing listens to it", 5)
    up.converged()
    up.is_untouched()


def test_removal_over_the_budget_waits_for_an_approval(up: Node) -> None:
    before = up.ovs.flows("br0")
    up.declare(name="flows.yaml", flows={"br0": FLOWS[:20]})
    up.until(lambda: up.status().budgets, "the budget is over", 5)
    budget = up.status().budgets[0]
    assert (budget.kind, budget.wanted, budget.owned, budget.allowed) == ("flow", 20, 40, 10)
    assert up.ovs.flows("br0") == before
    said = up.cli("status")
    assert said.code == 3
    assert f"reconcile approve {budget.revision}" in said.out
    plan = up.cli("plan")
    assert plan.code == 3
    assert plan.out.count("but it waits [withheld by budget]") == 20
    assert plan.out.count("reconcile approve") == 1
    assert f"deletes of 20 flows wait: revision {budget.revision} may delete 10 of the 40 we own" in plan.out
    up.until(lambda: up.metrics()["reconciler_budget_waiting"] == 20, "the metric says it", 5)
    up.ovs.ofctl("del-flows", "br0", "ip,nw_dst=10.0.0.1")
    up.until(lambda: up.ovs.flows("br0") == before, "repairs go on meanwhile", 5)
    assert up.cli("approve", "000000000000").code == 1
    approved = up.cli("approve", budget.revision)
    assert approved.code == 0, approved.text
    up.until(lambda: _flows(up) == 20, "the flows are gone", 5)
    assert up.converged().budgets == ()


def test_over_the_budget_additions_of_the_same_revision_go_through(up: Node) -> None:
    up.declare(name="flows.yaml", flows={"br0": [*FLOWS[:10], "arp,actions=NORMAL"]})
    up.until(lambda: _flows(up) == 41, "the new one is there", 5)
    up.until(lambda: up.status().budgets, "the deletes wait", 5)


def test_taking_the_removal_back_ends_the_waiting(up: Node) -> None:
    before = up.ovs.flows("br0")
    up.declare(name="flows.yaml", flows={"br0": FLOWS[:5]})
    up.until(lambda: up.status().budgets, "the budget is over", 5)
    up.declare(name="flows.yaml", flows={"br0": FLOWS})
    assert up.converged().budgets == ()
    assert up.ovs.flows("br0") == before


def test_approval_outlives_a_kill(up: Node) -> None:
    up.declare(name="flows.yaml", flows={"br0": FLOWS[:5]})
    up.until(lambda: up.status().budgets, "the budget is over", 5)
    up.kill9()
    up.start(converged=False)
    up.until(lambda: up.status().budgets, "it is over the budget after a restart as well", 5)
    assert _flows(up) == 40
    up.kill9()
    said = up.cli("approve")
    assert said.code == 0, said.text
    up.start()
    assert _flows(up) == 5


def test_changed_flow_is_a_replacement_and_no_delete(up: Node) -> None:
    up.adopts(lambda: up.declare(name="flows.yaml", flows={"br0": [flow.replace("10.0", "10.9") for flow in FLOWS]}))
    up.until(lambda: [("10.9.0" in flow) for flow in up.ovs.flows("br0")] == [True] * 40, "the flows are exchanged", 5)


@pytest.mark.parametrize("how", ["empty", "missing", "nobody"])
def test_nothing_declared_is_a_mistake_and_deletes_nothing(up: Node, how: str) -> None:
    before, ports = up.ovs.flows("br0"), up.ovs.vsctl("list-ports", "br0")
    match how:
        case "empty":
            for file in up.desired.iterdir():
                file.unlink()
        case "missing":
            up.desired.rename(up.directory / "elsewhere")
        case "nobody":
            for file in list(up.desired.iterdir())[1:]:
                file.unlink()
            next(up.desired.iterdir()).write_text("apply_to: {nodes: [another]}\nbridges: {br7: {}}\n")
    up.until(lambda: up.status().config_problems, "it is a mistake", 5)
    assert up.cli("status").code == 1
    assert up.cli("plan").code == 1
    assert up.cli("--once").code == 1
    assert up.cli("validate").code == 1
    assert up.metrics()["reconciler_config_valid"] == 0
    assert (up.ovs.flows("br0"), up.ovs.vsctl("list-ports", "br0")) == (before, ports)
    with up.repairs("flow/br0/ip,nw_dst=10.0.0.3", converged=False):
        up.ovs.ofctl("del-flows", "br0", "ip,nw_dst=10.0.0.3")
    assert up.ovs.flows("br0") == before

    up.kill9()
    up.start(converged=False)
    up.until(lambda: up.status().revision, "the last revision is known from the store", 5)
    up.until(lambda: up.status().not_right == () and up.get("/readyz")[0] == 200, "it is enforced", 5)
    with up.repairs("port/tap3", converged=False):
        up.ovs.vsctl("--no-wait", "del-port", "tap3")
    assert (up.ovs.flows("br0"), sorted(up.ovs.vsctl("list-ports", "br0").split())) == (before, sorted(ports.split()))
    assert up.cli("status").code == 1
    if how == "missing":
        (up.directory / "elsewhere").rename(up.desired)
        assert up.converged().config_problems == ()


def test_start_with_nothing_declared_and_nothing_remembered_does_nothing_and_says_so(node: Node) -> None:
    node.ovs.add_bridge("br9")
    node.start(converged=False)
    node.until(lambda: node.status().config_problems, "it is a mistake", 5)
    assert node.status().exit_code == 1
    assert node.get("/readyz")[0] == 503
    assert node.ovs.vsctl("list-br") == "br9"
    node.declare(bridges=BRIDGES)
    node.converged()
    assert node.ovs.vsctl("list-br").split() == ["br0", "br1", "br9"]
    assert node.stop() == 0


def test_once_with_nothing_declared_deletes_nothing(up: Node) -> None:
    up.kill9()
    before = up.ovs.flows("br0")
    shutil.rmtree(up.desired)
    for verb in ("--once", "plan"):
        said = up.cli(verb)
        assert said.code == 1, said.text
        assert str(up.desired) in said.text
    assert up.ovs.flows("br0") == before
    up.desired.mkdir()
    up.declare(name="bridges.yaml", bridges=BRIDGES)
    up.declare(name="ports.yaml", ports=PORTS)
    up.declare(name="flows.yaml", flows={"br0": FLOWS})
    up.start()


def test_checkout_in_flight_deletes_nothing(node: Node) -> None:
    """Files go and come back within the time removals wait: nobody is told, nothing is made anew."""
    node.set(settle_remove=2.0)
    node.declare(name="bridges.yaml", bridges=BRIDGES)
    node.declare(name="flows.yaml", flows={"br0": FLOWS})
    node.start()
    (node.desired / "flows.yaml").unlink()
    node.until(lambda: any(line["event"] == "removals_wait" for line in node.log_lines()), "it is seen", 5)
    node.declare(name="flows.yaml", flows={"br0": FLOWS})
    node.is_untouched(2.5)
    assert _flows(node) == 40
    assert node.stop() == 0
