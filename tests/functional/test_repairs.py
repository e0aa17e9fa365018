"""What others do behind the daemon's back to bridges, ports and flows: repaired by the event, and told in the journal.

One node and one daemon for all tests of this module; each leaves it converged.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.functional.daemon import Node

MANY = 2000
FLOWS = [
    "priority=1,actions=NORMAL",
    "priority=2,in_port=patch-tun,actions=drop",
    "priority=3,in_port=patch-tun,dl_vlan=0xffff,actions=mod_vlan_vid:3,NORMAL",
    (
        "table=10,actions=learn(table=20,hard_timeout=300,priority=1,NXM_OF_VLAN_TCI[0..11],"
        "NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0->NXM_OF_VLAN_TCI[],output:NXM_OF_IN_PORT[]),output:patch-tun"
    ),
]
DESIRED = {
    "bridges": {
        "br-int": {"other_config": {"mac-table-size": 4096}, "external_ids": {"purpose": "integration"}},
        "br-tun": {"protocols": ["OpenFlow13", "OpenFlow14"]},
        "br-many": {},
        "br-bare": {},
    },
    "ports": {
        "tap0": {
            "bridge": "br-int",
            "tag": 5,
            "interface_external_ids": {"iface-id": "i-0"},
            "external_ids": {"a": "b"},
        },
        "tap1": {"bridge": "br-int", "trunks": [1, 2], "vlan_mode": "trunk", "mac": "fa:16:3e:00:00:01", "mtu": 1400},
        "tap2": {"bridge": "br-int", "tag": 7},
        "gre0": {"bridge": "br-tun", "type": "gre", "remote_ip": "192.0.2.1", "local_ip": "192.0.2.9", "key": "flow"},
        "vx0": {
            "bridge": "br-tun",
            "type": "vxlan",
            "remote_ip": "192.0.2.2",
            "key": 7,
            "options": {"df_default": True},
        },
        "gen0": {"bridge": "br-tun", "type": "geneve", "remote_ip": "192.0.2.3"},
    },
    "patches": [{"br-int": "patch-tun", "br-tun": "patch-int"}],
    "flows": {
        "br-int": FLOWS,
        "br-tun": [
            "priority=1,actions=drop",
            "in_port=patch-int,actions=output:gre0,output:vx0",
            "in_port=gre0,actions=output:patch-int",
        ],
        "br-many": [f"ip,nw_dst=10.{n >> 8}.{n & 255}.1,actions=mod_vlan_vid:{n % 4000},NORMAL" for n in range(MANY)],
    },
}


@pytest.fixture(scope="module")
def node(node_module: Node) -> Iterator[Node]:
    node_module.declare(**DESIRED)
    node_module.start()
    yield node_module
    assert node_module.stop() == 0


@pytest.fixture(autouse=True)
def converged(node: Node) -> Iterator[None]:
    """Every test ends, wherever it stopped, with the node as it is declared."""
    yield
    node.converged()


def test_deleted_port_comes_back_with_its_number_and_all_it_had(node: Node) -> None:
    number = node.ovs.vsctl("get", "interface", "tap0", "ofport")
    with node.repairs("port/tap0") as repair:
        node.ovs.vsctl("--no-wait", "del-port", "tap0")
    assert node.ovs.vsctl("get", "port", "tap0", "tag") == "5"
    assert node.ovs.vsctl("get", "interface", "tap0", "external_ids:iface-id") == "i-0"
    assert node.ovs.vsctl("get", "interface", "tap0", "ofport") == number
    assert repair.done.why == "port is missing"
    assert repair.done.verb == "create"


@pytest.mark.parametrize(
    ("resource", "what", "column", "declared"),
    [
        ("port/tap0", ["set", "port", "tap0", "tag=6"], ("port", "tap0", "tag"), "5"),
        ("port/tap0", ["clear", "port", "tap0", "tag"], ("port", "tap0", "tag"), "5"),
        ("port/tap1", ["set", "port", "tap1", "trunks=1,2,3"], ("port", "tap1", "trunks"), "[1, 2]"),
        ("port/tap1", ["clear", "port", "tap1", "vlan_mode"], ("port", "tap1", "vlan_mode"), "trunk"),
        ("port/tap1", ["set", "interface", "tap1", "mtu_request=900"], ("interface", "tap1", "mtu_request"), "1400"),
        ("port/tap1", ["clear", "interface", "tap1", "mac"], ("interface", "tap1", "mac"), '"fa:16:3e:00:00:01"'),
        ("port/tap0", ["set", "port", "tap0", "external_ids:a=c"], ("port", "tap0", "external_ids:a"), "b"),
        (
            "port/tap0",
            ["remove", "interface", "tap0", "external_ids", "iface-id"],
            ("interface", "tap0", "external_ids:iface-id"),
            "i-0",
        ),
        (
            "port/patch-tun",
            ["set", "interface", "patch-tun", "options:peer=elsewhere"],
            ("interface", "patch-tun", "options:peer"),
            "patch-int",
        ),
        (
            "port/gre0",
            ["set", "interface", "gre0", "options:remote_ip=192.0.2.77"],
            ("interface", "gre0", "options:remote_ip"),
            '"192.0.2.1"',
        ),
        (
            "port/vx0",
            ["set", "interface", "vx0", "options:dst_port=4790"],
            ("interface", "vx0", "options"),
            '{df_default="true", key="7", remote_ip="192.0.2.2"}',
        ),
        ("port/gen0", ["set", "interface", "gen0", "type=vxlan"], ("interface", "gen0", "type"), "geneve"),
        (
            "bridge/br-int",
            ["set", "bridge", "br-int", "fail_mode=standalone"],
            ("bridge", "br-int", "fail_mode"),
            "secure",
        ),
        (
            "bridge/br-int",
            ["set", "bridge", "br-int", "other_config:mac-table-size=1", "other_config:disable-in-band=true"],
            ("bridge", "br-int", "other_config"),
            '{mac-table-size="4096"}',
        ),
        (
            "bridge/br-int",
            [
                "clear",
                "bridge",
                "br-int",
                "external_ids",
                "--",
                "br-set-external-id",
                "br-int",
                "reconciler",
                "reconciler",
            ],
            ("bridge", "br-int", "external_ids:purpose"),
            "integration",
        ),
        ("bridge/br-int", ["set-controller", "br-int", "tcp:127.0.0.1:6653"], ("bridge", "br-int", "controller"), "[]"),
        (
            "bridge/br-tun",
            ["set", "bridge", "br-tun", "protocols=OpenFlow10"],
            ("bridge", "br-tun", "protocols"),
            "[OpenFlow13, OpenFlow14]",
        ),
    ],
    ids=lambda value: " ".join(value)[:48] if isinstance(value, list) else "",
)
def test_changed_attribute_is_set_back(
    node: Node, resource: str, what: list[str], column: tuple[str, str, str], declared: str
) -> None:
    with node.repairs(resource) as repair:
        node.ovs.vsctl("--no-wait", *what)
    assert node.ovs.vsctl("get", *column) == declared
    assert column[2].partition(":")[0] in repair.done.why
    assert repair.done.verb == "update"
    assert repair.done.before != repair.done.after


def test_deleted_patch_port_is_made_again_and_its_peer_and_flows_work(node: Node) -> None:
    before = node.ovs.flows("br-int")
    with node.repairs("port/patch-tun"):
        node.ovs.vsctl("--no-wait", "del-port", "patch-tun")
    assert node.ovs.vsctl("get", "interface", "patch-int", "options:peer") == "patch-tun"
    assert node.ovs.flows("br-int") == before
    node.until(lambda: "patch-tun" in node.ovs.appctl("dpif/show"), "vswitchd has it")


def test_deleted_bridge_comes_back_with_its_ports_and_flows(node: Node) -> None:
    before = node.ovs.flows("br-tun")
    with node.repairs("bridge/br-tun"):
        node.ovs.vsctl("--no-wait", "del-br", "br-tun")
    assert sorted(node.ovs.vsctl("list-ports", "br-tun").split()) == ["gen0", "gre0", "patch-int", "vx0"]
    assert node.ovs.flows("br-tun") == before
    assert node.ovs.vsctl("get", "bridge", "br-tun", "protocols") == "[OpenFlow13, OpenFlow14]"


def test_everything_deleted_at_once_comes_back(node: Node) -> None:
    before = {bridge: node.ovs.flows(bridge) for bridge in DESIRED["bridges"]}
    with node.repairs("bridge/br-int"), node.repairs("bridge/br-tun"), node.repairs("bridge/br-many"):
        node.ovs.vsctl("--no-wait", *(word for bridge in DESIRED["bridges"] for word in ("--", "del-br", bridge)))
    assert {bridge: node.ovs.flows(bridge) for bridge in DESIRED["bridges"]} == before


def test_port_moved_to_another_bridge_is_moved_back(node: Node) -> None:
    with node.repairs("port/tap2"):
        node.ovs.vsctl(
            "--no-wait", "del-port", "tap2", "--", "add-port", "br-tun", "tap2", "--", "set", "interface", "tap2",
            "type=internal", "--", "set", "port", "tap2", "external_ids:reconciler=reconciler",
        )  # fmt: skip
    assert node.ovs.vsctl("port-to-br", "tap2") == "br-int"


def test_one_flow_of_many_comes_back(node: Node) -> None:
    name = "flow/br-many/ip,nw_dst=10.3.9.1"
    with node.repairs(name) as repair:
        node.ovs.ofctl("--strict", "del-flows", "br-many", "ip,nw_dst=10.3.9.1,priority=32768")
    assert repair.done.why == "flow is missing"
    assert repair.done.after.startswith("ip,nw_dst=10.3.9.1,actions=")
    assert len(node.ovs.flows("br-many")) == MANY


def test_actions_changed_with_match_and_cookie_kept_are_set_back(node: Node) -> None:
    before = node.ovs.flows("br-many")
    with node.repairs("flow/br-many/ip,nw_dst=10.1.1.1") as repair:
        node.ovs.ofctl("--strict", "mod-flows", "br-many", "ip,nw_dst=10.1.1.1,priority=32768,actions=drop")
    assert node.ovs.flows("br-many") == before
    assert "actions" in repair.done.why
    assert "drop" in repair.done.before


def test_cookie_taken_away_from_a_flow_is_set_back(node: Node) -> None:
    before = node.ovs.flows("br-int")
    with node.repairs("flow/br-int/priority=1"):
        node.ovs.ofctl("add-flow", "br-int", "cookie=0x99,priority=1,actions=NORMAL")
    assert node.ovs.flows("br-int") == before


def test_all_flows_deleted_come_back(node: Node) -> None:
    before = node.ovs.flows("br-many")
    with node.repairs("flow/br-many/ip,nw_dst=10.0.0.1"):
        node.ovs.ofctl("del-flows", "br-many")
    assert node.ovs.flows("br-many") == before


def test_all_flows_replaced_by_others_come_back(node: Node) -> None:
    before = node.ovs.flows("br-int")
    with node.repairs("flow/br-int/priority=1"):
        node.ovs.ofctl("replace-flows", "br-int", "-", stdin="priority=9,actions=drop\ntable=3,actions=NORMAL\n")
    assert node.ovs.flows("br-int") == before


def test_hijacking_flow_is_removed(node: Node) -> None:
    before = node.ovs.flows("br-int")
    with node.repairs("flow/br-int/table=0,priority=65000,dl_type=0x800") as repair:
        node.ovs.ofctl("add-flow", "br-int", "priority=65000,ip,actions=output:1")
    assert node.ovs.flows("br-int") == before
    assert "foreign flow" in repair.done.why
    assert "output" in repair.done.before


def test_hijacking_flow_with_our_cookie_is_removed(node: Node) -> None:
    before = node.ovs.flows("br-int")
    cookie = before[0].partition(",")[0]
    node.ovs.ofctl("add-flow", "br-int", f"{cookie},priority=65001,arp,actions=drop")
    node.until(lambda: node.ovs.flows("br-int") == before, "it is gone", 5)


def test_hijacking_flow_on_a_bridge_without_declared_flows_is_removed(node: Node) -> None:
    node.ovs.ofctl("add-flow", "br-bare", "priority=7,actions=NORMAL")
    node.until(lambda: node.ovs.flows("br-bare") == [], "it is gone", 5)


def test_learned_flows_are_no_drift(node: Node) -> None:
    learned = "table=20,priority=1,hard_timeout=300,dl_dst=fa:16:3e:00:00:09,actions=NORMAL"
    node.ovs.ofctl("add-flow", "br-int", learned)
    node.is_untouched()
    assert any("table=20" in flow for flow in node.ovs.flows("br-int"))
    assert node.cli("plan").code == 0
    node.ovs.ofctl("del-flows", "br-int", "table=20")


def test_port_whose_number_was_taken_gets_another_and_its_flows_follow(node: Node) -> None:
    """A rival holds the number at the moment our port is made again; the flows that name the port are rewritten."""
    number = node.ovs.vsctl("get", "interface", "patch-tun", "ofport")
    node.ovs.vsctl(
        "--no-wait", "del-port", "patch-tun", "--", "add-port", "br-int", "rival", "--", "set", "interface", "rival",
        "type=internal", f"ofport_request={number}",
    )  # fmt: skip
    node.until(lambda: node.ovs.vsctl("get", "interface", "rival", "ofport") != "[]", "the rival has a number")
    node.converged()
    node.until(lambda: node.status().exit_code == 0 and _names_right_port(node), "flows name the right port")
    node.ovs.vsctl("del-port", "rival")
    node.converged()
    assert _names_right_port(node)


def test_port_whose_number_changed_has_its_flows_rewritten(node: Node) -> None:
    number = int(node.ovs.vsctl("get", "interface", "gre0", "ofport"))
    with node.repairs("flow/br-tun/in_port=gre0"), node.running.frozen():
        node.ovs.vsctl("set", "interface", "gre0", f"ofport_request={number + 100}")
    assert int(node.ovs.vsctl("get", "interface", "gre0", "ofport")) == number + 100
    node.until(lambda: _names_right_port(node, "br-tun", "gre0"), "flows name the right port")
    assert not any(f"in_port={number} " in flow for flow in node.ovs.flows("br-tun"))


def _names_right_port(node: Node, bridge: str = "br-int", port: str = "patch-tun") -> bool:
    number = node.ovs.vsctl("get", "interface", port, "ofport")
    flows = [flow for flow in node.ovs.flows(bridge) if "in_port" in flow]
    return number != "[]" and any(f"in_port={number}" in flow.replace(" ", ",") for flow in flows)
