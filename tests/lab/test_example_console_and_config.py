"""The example console-and-config: keys that are held, and services that are restarted when these change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.lab.cluster import Cluster, Node
from tests.lab.examples import ALL, TREE, installed, settled
from tests.lab.holder import ToolFailedError

EXAMPLE = ALL["console-and-config"]
URL = "http://203.0.113.20:6082/"
NOVA, L3 = "/etc/nova/nova.conf", "/etc/neutron/l3_agent.ini"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with installed(EXAMPLE.name) as cluster:
        yield cluster


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.nodes["node"]


def pid(node: Node, unit: str) -> int:
    return int(node.run("systemctl", "show", "-P", "MainPID", unit))


def restarted(node: Node, unit: str, before: int) -> bool:
    return node.eventually(lambda: pid(node, unit) not in {0, before}, within=40)


def proxy_says(cluster: Cluster, words: str) -> Callable[[], bool]:
    return lambda: cluster.outside.run("curl", "-s", "-m", "2", URL).strip() == words


def test_the_console_is_reached_from_outside_before_the_final_reject(cluster: Cluster, node: Node) -> None:
    assert node.eventually(proxy_says(cluster, "vnc False, spice True"))
    chain = node.run("iptables", "-S", "INPUT").splitlines()
    assert chain[-1] == "-A INPUT -j REJECT --reject-with icmp-host-prohibited"
    assert "-j reconciler-INPUT-end" in chain[-2]
    rules = node.run("iptables", "-S", "reconciler-INPUT-end")
    assert "--dports 6082" in rules and "SPICE consoles" in rules


def test_other_ports_stay_closed(cluster: Cluster, node: Node) -> None:
    node.spawn("python3", "-m", "http.server", "6083")
    assert node.eventually(lambda: node.run("curl", "-s", "-o", "/dev/null", "http://127.0.0.1:6083/") == "")
    with pytest.raises(ToolFailedError) as refused:
        cluster.outside.run("curl", "-s", "-m", "2", "http://203.0.113.20:6083/")
    assert refused.value.returncode == 7


def test_comments_and_other_keys_are_as_the_distribution_left_them(node: Node) -> None:
    before, spice = node.read(NOVA).split("[spice]\n")
    assert before == "# Packaged.\n[DEFAULT]\nverbose = True\nvnc_enabled = False\n\n"
    assert sorted(spice.splitlines()) == ["# enabled = False", "enabled = True", "html5proxy_port = 6082"]
    assert sorted(node.read(L3).split("\n")[2:4]) == ["external_network_bridge =", "gateway_external_network_id ="]


def test_a_key_edited_by_hand_is_set_back_before_anybody_read_it(cluster: Cluster, node: Node) -> None:
    before = pid(node, "console-proxy")
    node.run("sed", "-i", "s/vnc_enabled = False/vnc_enabled = True/", NOVA)
    assert node.eventually(lambda: "vnc_enabled = False" in node.read(NOVA))
    settled(cluster)
    assert pid(node, "console-proxy") == before, "it runs with what is declared"


def test_a_file_that_somebody_replaced_is_right_again_and_read_again(cluster: Cluster, node: Node) -> None:
    before = pid(node, "console-proxy")
    node.write(NOVA, "[DEFAULT]\nvnc_enabled = True\n")
    assert restarted(node, "console-proxy", before)
    assert node.eventually(proxy_says(cluster, "vnc False, spice True"), within=40)
    settled(cluster)


def test_a_key_declared_otherwise_restarts_the_service_that_reads_it_and_no_other(cluster: Cluster, node: Node) -> None:
    text = node.read(f"{TREE}/node.yaml")
    proxy, agent = pid(node, "console-proxy"), pid(node, "neutron-l3-agent")
    node.write(f"{TREE}/node.yaml", text.replace('external_network_bridge: ""', "external_network_bridge: br-ex"))
    try:
        assert restarted(node, "neutron-l3-agent", agent)
        assert "external_network_bridge = br-ex" in node.read(L3)
        assert pid(node, "console-proxy") == proxy
    finally:
        node.write(f"{TREE}/node.yaml", text)
    assert node.eventually(lambda: "external_network_bridge =\n" in node.read(L3))
    settled(cluster)


@pytest.mark.parametrize(
    "breaks",
    ["systemctl stop console-proxy", "systemctl kill -s KILL console-proxy", "iptables -F reconciler-INPUT-end",
     "iptables -I INPUT -j REJECT && sleep 0.3 && iptables -D INPUT 1"],
)  # fmt: skip
def test_what_is_broken_comes_back(cluster: Cluster, node: Node, breaks: str) -> None:
    node.sh(breaks)
    assert node.eventually(proxy_says(cluster, "vnc False, spice True"), within=40)
    settled(cluster)
