"""The example ha-services: an address that outlives its node, a database of three members, services in order."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab import service, wires
from tests.lab.cluster import Cluster, Node
from tests.lab.examples import ALL, installed, settled
from tests.lab.holder import ToolFailedError
from tests.lab.wires import Host

EXAMPLE = ALL["ha-services"]
ADDRESS = "172.31.0.100"
ASK = (
    "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.5); print(s.recv(99).decode())"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with installed(EXAMPLE.name) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Host:
    """Somebody on the management network who knows the address and no node."""
    return wires.plug(cluster.holder, "client", "172.31.0.200/24", "mgmt")


def answers(client: Host, port: int = 5000) -> str:
    """The name of the node that answers at the address; '' when none does."""
    try:
        return client.run("python3", "-c", ASK, ADDRESS, str(port)).strip()
    except ToolFailedError:
        return ""


def sql(node: Node, text: str) -> str:
    return node.run("mariadb", "-N", "-e", text).strip()


def answered(node: Node, within: float = 30.0) -> None:
    """The database answers on that node with what was written before; else its journal is told."""
    assert node.eventually(lambda: sql(node, "SELECT k FROM example.t") == "42", within), node.try_run(
        "journalctl", "-u", "mariadb", "-u", "reconciler", "--no-pager", "-o", "short-precise"
    )


def started(node: Node, unit: str) -> int:
    return int(node.run("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", unit))


def cluster_size(node: Node) -> str:
    """What the check says while it is not as declared; '' when it is."""
    said = (s.reason for s in service.status(node).not_right if str(s.resource) == "check/cluster-size")
    return next(said, "")


def test_services_were_started_in_order_on_every_node(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        times = [started(node, unit) for unit in ("keepalived", "identity", "network-api")]
        assert times == sorted(times)
        assert started(node, "mariadb") > times[0]


def test_the_address_is_held_by_one_node_and_serves_every_part(cluster: Cluster, client: Host) -> None:
    holding = [node.name for node in cluster.nodes.values() if ADDRESS in node.run("ip", "-4", "address")]
    assert len(holding) == 1
    assert [answers(client, port) for port in (5000, 9696)] == holding * 2


def test_the_database_is_one_on_three_nodes(cluster: Cluster) -> None:
    sql(cluster.nodes["ha1"], "CREATE DATABASE example; CREATE TABLE example.t (k INT PRIMARY KEY)")
    sql(cluster.nodes["ha2"], "INSERT INTO example.t VALUES (42)")
    assert cluster.nodes["ha3"].eventually(lambda: sql(cluster.nodes["ha3"], "SELECT k FROM example.t") == "42")


def test_a_member_that_sees_no_other_does_not_found_a_second_cluster(cluster: Cluster) -> None:
    first = cluster.nodes["ha1"]
    first.run("unshare", "--net", "sh", "/usr/local/lib/database-first.sh")
    assert first.run("find", "/run/mysqld", "-name", "wsrep-new-cluster") == ""


def test_only_what_is_declared_is_open(cluster: Cluster, client: Host) -> None:
    node = cluster.nodes["ha2"]
    node.spawn("python3", "-m", "http.server", "8888")
    assert node.eventually(lambda: node.run("curl", "-s", "-o", "/dev/null", "http://127.0.0.1:8888/") == "")
    for port, code in ((3306, 0), (4567, 0), (8888, 1)):
        script = f"exec 3<>/dev/tcp/{node.mgmt}/{port}"
        try:
            client.run("timeout", "2", "bash", "-c", script)
            opened = 0
        except ToolFailedError as error:
            opened = error.returncode
        assert (port, opened) == (port, code)


@pytest.mark.parametrize("unit", ["keepalived", "identity", "network-api"])
def test_a_part_that_somebody_stops_serves_again(cluster: Cluster, client: Host, unit: str) -> None:
    for node in cluster.nodes.values():
        node.run("systemctl", "stop", unit)
    for port in (5000, 9696):
        assert cluster.nodes["ha1"].eventually(lambda port=port: answers(client, port), within=20)
    settled(cluster)


def test_a_nodes_death_moves_the_address_within_seconds_and_the_rest_is_told(cluster: Cluster, client: Host) -> None:
    name = answers(client)
    dead = cluster.nodes[name]
    alive = [node for node in cluster.nodes.values() if node is not dead]
    dead.kill()
    died = time.monotonic()
    assert alive[0].eventually(lambda: answers(client) not in {"", name}, within=20)
    took = time.monotonic() - died
    print(f"the address answered again after {took:.1f} s")
    assert took < 10
    for node in alive:
        assert node.eventually(lambda node=node: "2" in cluster_size(node), within=40), node.try_run(
            "reconcile", "status"
        )
        answered(node, 0.0)
    dead.start()
    dead.wait()
    settled(cluster, within=90)
    answered(dead)
