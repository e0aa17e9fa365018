"""A node that is declared by the model of its cluster: made from it, held, followed, and its local VLANs kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.functional.daemon import Node

MODEL = """
model:
  nodes:
    n1: {roles: [network, compute], tunnel_ip: 10.10.10.20, bridge_mappings: {physnet1: br-ex}}
    n2: {roles: [compute], tunnel_ip: 10.10.10.30}
  networks:
    one: {type: gre, segmentation_id: 1}
    two: {type: gre, segmentation_id: 999}
    public: {type: flat, physical_network: physnet1, external: true}
  subnets:
    one: {network: one, cidr: 172.16.1.0/24, dhcp: false}
    two: {network: two, cidr: 172.16.1.0/24, dhcp: false}
    public: {network: public, cidr: 10.6.0.0/15, dhcp: false}
  ports:
    here: {network: one, node: n1, plug: internal, fixed_ips: [172.16.1.5]}
    there: {network: one, node: n2, mac: "fa:16:3e:00:00:06", fixed_ips: [172.16.1.6]}
    other: {network: two, node: n1, plug: internal, fixed_ips: [172.16.1.5]}
  routers:
    r1: {interfaces: [one], gateway: public}
  floating_ips:
    10.6.0.21: here
"""

TAGGED = 4
"""Ports of n1 with a local VLAN: two of instances, two of the router."""


@pytest.fixture(scope="module")
def made(node_module: Node) -> Iterator[Node]:
    node_module.write(MODEL)
    node_module.start()
    yield node_module
    assert node_module.stop() == 0


@pytest.fixture
def running(made: Node) -> Iterator[Node]:
    """As the model says, before and after."""
    yield made
    made.write(MODEL)
    made.until(lambda: not made.client.status().config_problems, "the model is right again")
    made.until(lambda: "00:07" not in flows(made, "br-tun") and len(tags(made)) == TAGGED, "it is as it was")
    made.converged()


def flows(node: Node, bridge: str) -> str:
    return "\n".join(node.ovs.flows(bridge))


def tags(node: Node) -> dict[str, str]:
    """Local VLAN of each port that has one."""
    rows = node.ovs.vsctl("--format=csv", "--no-headings", "--columns=name,tag", "list", "port")
    return {name: tag for name, _, tag in (row.partition(",") for row in rows.splitlines()) if tag.isdigit()}


def test_a_node_is_made_from_the_model_and_the_second_pass_plans_nothing(running: Node) -> None:
    bridges = set(running.ovs.vsctl("list-br").split())
    assert bridges == {"br-int", "br-tun", "br-ex"}
    assert "fa:16:3e:00:00:06" in flows(running, "br-tun")
    plan = running.cli("plan")
    assert (plan.code, plan.err) == (0, ""), plan.text


def test_a_port_that_comes_changes_only_what_concerns_it(running: Node) -> None:
    before = flows(running, "br-int")
    running.write(
        MODEL.replace("  routers:", '    more: {network: one, node: n2, mac: "fa:16:3e:00:00:07"}\n  routers:')
    )
    running.until(lambda: "fa:16:3e:00:00:07" in flows(running, "br-tun"), "the new port's flow is there")
    assert flows(running, "br-int") == before
    touched = {
        action.resource
        for entry in running.client.history(resource=None, since=None, limit=1)
        for action in entry.actions
    }
    assert all("fa:16:3e:00:00:07" in rid.name for rid in touched), touched


def test_local_vlans_outlive_the_daemon_its_store_and_a_network_before_them(running: Node) -> None:
    before = tags(running)
    assert len(set(before.values())) >= 3
    running.kill9()
    for file in running.state.glob("state.db*"):
        file.unlink()
    first = '    aaa: {type: gre, segmentation_id: 5, id: "00000000-0000-4000-8000-000000000000"}\n'
    port = "    new: {network: aaa, node: n1, plug: internal}\n"
    running.write(MODEL.replace("  networks:\n", f"  networks:\n{first}").replace("  ports:\n", f"  ports:\n{port}"))
    running.start()
    after = tags(running)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1


def test_until_open_vswitch_answers_nothing_of_the_model_is_made_or_taken_away(node: Node) -> None:
    node.write(MODEL)
    node.ovs.stop_ovsdb()
    node.start(converged=False)
    node.until(lambda: any("which local VLANs" in said for said in node.client.status().notices), "it says so")
    node.ovs.start_ovsdb()
    node.converged()
    assert "br-tun" in node.ovs.vsctl("list-br")
    node.stop()


def test_a_mistake_in_the_model_is_named_and_changes_nothing(running: Node) -> None:
    before = flows(running, "br-tun")
    running.write(MODEL.replace("{network: one, node: n2", "{network: oen, node: n2"))
    running.until(lambda: bool(running.client.status().config_problems), "the mistake is seen")
    status = running.cli("status")
    assert status.code == 1
    assert "there is no network 'oen'" in status.text
    assert "did you mean 'one'?" in status.text
    assert flows(running, "br-tun") == before


def test_explain_says_of_an_address_what_serves_it(running: Node) -> None:
    said = running.cli("explain", "172.16.1.6")
    assert said.code == 0, said.text
    assert "port there, on node n2" in said.out
    assert "reached through the tunnel to n2" in said.out
    lines = [line.strip() for line in said.out.splitlines() if line.startswith("      flow/br-tun") and "00:06" in line]
    flow = lines[0].partition("   ")[0]
    back = running.cli("explain", flow)
    assert "port there, on node n2" in back.out
    nothing = running.cli("explain", "thre")
    assert (nothing.code, "did you mean 'there'?" in nothing.err) == (1, True), nothing.text
