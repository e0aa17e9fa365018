"""Everything that the model compiles to is explained, and everything that serves an object is found by its names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from controllers.catalog import spec_classes
from desired.network.allocations import Allocations
from desired.network.build import build
from desired.network.compiler import compile_node
from desired.network.explain import Explained, describe, explain
from desired.network.flow_words import flow_words
from desired.network.model import (
    Model,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    OptionsSpec,
    RouterSpec,
    SubnetSpec,
)
from desired.network.words import Names
from desired.resource import Origin, Resource, ResourceId
from tests.desired.network.support import MACS, of, three_nodes, with_objects

LAYOUTS = ("single-table", "multi-table")
NODES = ("network", "compute", "controller")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def model(layout: str) -> Model:
    """The three nodes, with every kind of network, metadata, IPv6, virtual hosts, static routes, a floating IP."""
    port = NeutronPortSpec
    return with_objects(
        three_nodes(layout),
        of(OptionsSpec, "options", layout=layout, metadata={"upstream": "127.0.0.1:8775"}),
        of(NetworkSpec, "seven", type="vlan", segmentation_id=7, physical_network="physnet1"),
        of(NetworkSpec, "vx", type="vxlan", segmentation_id=77),
        of(SubnetSpec, "vx", network="vx", cidr="192.168.7.0/24"),
        of(SubnetSpec, "vx6", network="vx", cidr="fd00:7::/64", ipv6_mode="slaac"),
        of(SubnetSpec, "seven", network="seven", cidr="10.77.0.0/24"),
        of(
            RouterSpec,
            "router",
            interfaces=["vx", "vx6"],
            gateway="outside",
            routes=[{"to": "10.99.0.0/16", "via": "172.16.1.10"}],
        ),
        of(port, "web", network="seven", node="network", plug="namespace", fixed_ips=["10.77.0.5"]),
        of(port, "bare", network="vx", node="network", plug="internal", fixed_ips=["192.168.7.9"]),
        of(NeutronFloatingIpSpec, "10.6.0.21", floating="10.6.0.21", port="vm1"),
    )


def compiled(layout: str, node: str) -> tuple[Mapping[ResourceId, Resource], Names]:
    made = compile_node(model(layout), node, Allocations())
    assert made.problems == ()
    return made.resources, Names(build(model(layout)), made.allocations.vlans, node)


RESOURCES, NAMES = compiled("multi-table", "network")
ROUTER = next(iter(NAMES.topology.routers.values()))
PORTS = {port.name: port for network in NAMES.topology.networks.values() for port in network.ports}

SEVEN = NAMES.vlans[PORTS["web"].network]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("node", NODES)
def test_everything_compiled_is_told_in_words(layout: str, node: str) -> None:
    resources, names = compiled(layout, node)
    for resource in resources.values():
        words = describe(resource, names)
        assert words != f"{resource.id.kind} {resource.id.name}", "there are words for its kind"
        assert not re.search(r"gets \w+:|has \w+ \w+:|->|\[\]|None", words), f"{resource.id}: {words}"
        assert not UUID.search(words), f"names, not ids, for people: {resource.id}: {words}"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_number_in_a_flow_is_told_for_what_it_is(layout: str) -> None:
    resources, names = compiled(layout, "network")
    for rid, resource in resources.items():
        if rid.kind == "flow":
            words = describe(resource, names)
            for number in re.findall(r"local VLAN \d+|tunnel key \d+|fa:16:[0-9a-f:]+", words):
                assert f"{number} (" in words, f"{rid}: {words}"


@pytest.mark.parametrize(
    ("bridge", "flow", "words"),
    [
        (
            "br-tun",
            f"table=20,priority=2,dl_vlan=2,dl_dst={MACS['vm1']},actions=strip_vlan,set_tunnel:1,output:gre-0a0a0a1e",
            (
                "on br-tun, table 20 (to a MAC whose node is known): what is in local VLAN 2 (network one) and is for "
                f"{MACS['vm1']} (port vm1, on node compute): loses its VLAN tag, gets tunnel key 1 "
                "(network one) and goes out at gre-0a0a0a1e (the tunnel to compute)"
            ),
        ),
        (
            "br-int",
            f"priority=3,in_port=int-br-ex,dl_vlan=7,actions=mod_vlan_vid:{SEVEN},NORMAL",
            (
                "on br-int: what comes in at int-br-ex (the patch to br-ex) and is in VLAN 7 outside "
                f"(network seven): gets local VLAN {SEVEN} (network seven) and is switched as in any learning switch"
            ),
        ),
        (
            "br-int",
            "table=23,priority=0,actions=drop",
            "on br-int, table 23 (the canary of the agent): anything else is dropped",
        ),
        (
            "br-x",
            "in_port=3,tcp,tp_dst=80,actions=mod_nw_dst:10.0.0.1,dec_ttl,group:4",
            (
                "on br-x: what comes in at 3, is TCP and has tp_dst 80: is for 10.0.0.1 from now on, lives "
                "one hop less and goes through group 4"
            ),
        ),
        (
            "br-x",
            "actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],LOCAL",
            (
                "on br-x: anything else has its NXM_OF_ETH_SRC copied to NXM_OF_ETH_DST and goes to this "
                "machine itself, by br-x"
            ),
        ),
        ("br-x", "actions=note:00.11", "on br-x: anything else gets note:00.11"),
    ],
)
def test_a_flow_is_a_sentence(bridge: str, flow: str, words: str) -> None:
    assert flow_words(bridge, flow, NAMES) == words


def test_an_arp_answer_is_told_as_one() -> None:
    rid = next(rid for rid in RESOURCES if "table=21" in rid.name and "172.16.1.10" in rid.name)
    words = describe(RESOURCES[rid], NAMES)
    assert f"is answered here: 172.16.1.10 is at {MACS['vm1']} (port vm1, on node compute)" in words


def ids(found: Explained) -> set[str]:
    return {str(told.resource) for told in found.told}


@pytest.mark.parametrize("called", ["vm1", MACS["vm1"], "172.16.1.10", PORTS["vm1"].id, f"tap{PORTS['vm1'].id[:11]}"])
def test_all_that_serves_an_instance_elsewhere_is_found_by_whatever_it_is_called(called: str) -> None:
    found = explain(called, RESOURCES, NAMES)
    assert found.subject[0].startswith(f"port vm1, on node compute, has MAC {MACS['vm1']} and 172.16.1.10/24")
    assert "floating IP 10.6.0.21 leads to it" in found.subject
    assert any("reached through the tunnel to compute (10.10.10.30)" in said for said in found.subject)
    network, space = PORTS["vm1"].network, f"qrouter-{ROUTER.id}"
    expected = {
        f"flow/br-tun/table=20,priority=2,dl_vlan={NAMES.vlans[network]},dl_dst={MACS['vm1']}",
        f"flow/br-tun/table=21,priority=1,arp,dl_vlan={NAMES.vlans[network]},arp_tpa=172.16.1.10",
        f"flow/br-tun/table=22,priority=1,dl_vlan={NAMES.vlans[network]}",
        "port/gre-0a0a0a1e",
        f"namespace/{space}",
        f"floating_ip/{space}/10.6.0.21",
        f"redirect/{space}/169.254.169.254 tcp 80",
        f"route/{space}/default",
        f"file//etc/reconciler-network/qdhcp-{network}.hosts",
        f"service/qdhcp-{network}.service",
    }
    assert expected <= ids(found)
    others = {rid for rid in ids(found) if NAMES.vlans and f"dl_vlan={NAMES.vlans[PORTS['vm2'].network]}" in rid}
    assert not others, "nothing of the other tenant"
    assert not {rid for rid in ids(found) if rid.startswith("sysctl/")}, "nor what is set once for a namespace"
    sysctl = ResourceId("sysctl", f"{space}/net.ipv4.ip_forward")
    assert str(sysctl) in ids(explain(called, RESOURCES, NAMES, {sysctl: "differs"})), "unless it is not right"


def test_on_its_own_node_an_instance_is_served_by_its_port_and_the_tunnels_to_where_its_network_is() -> None:
    resources, names = compiled("multi-table", "compute")
    found = explain("vm1", resources, names)
    assert {f"held_port/{PORTS['vm1'].id}", "port/gre-0a0a0a14"} <= ids(found)
    assert "port/vxlan-0a0a0a14" not in ids(found)
    assert "port/gre-0a0a0a0a" not in ids(found), "its network is not on the controller"


@pytest.mark.parametrize(
    ("called", "said", "resource"),
    [
        ("10.6.0.21", "floating IP 10.6.0.21 leads to 172.16.1.10 of port vm1", "floating_ip/{space}/10.6.0.21"),
        ("router", "router router (here) serves", "namespace/{space}"),
        (f"qrouter-{ROUTER.id}", "router router (here) serves", "snat/{space}/172.16.1.0/24 to 10.6.0.2"),
        ("qr1", "router router, inside, here, has MAC fa:16:3e:00:00:02", "link/{space}/{qr}"),
        (PORTS["qr1"].device_name("qr-"), "router router, inside", "address/{space}/{qr}/172.16.1.1/24"),
        (PORTS["qg"].device_name("qg-"), "router router, outside", "port/{qg}"),
        ("10.6.0.2", "router router, outside", "address/{space}/{qg}/10.6.0.2/15"),
        ("tag 2", "network one (gre with segmentation id 1) is local VLAN 2 here", "namespace/qdhcp-{one}"),
        ("vlan 2", "network one (gre", "flow/br-tun/table=22,priority=1,dl_vlan=2"),
        ("one", "network one (gre", "file//etc/reconciler-network/qdhcp-{one}.options"),
        ("172.16.1.0/24", "subnet one is 172.16.1.0/24, gateway 172.16.1.1", "service/qdhcp-{one}.service"),
        (
            "seven",
            "network seven (vlan with segmentation id 7)",
            f"flow/br-ex/priority=4,in_port=phy-br-ex,dl_vlan={SEVEN}",
        ),
        ("qvm-web", "port web, here", "route/qvm-web/default"),
    ],
)
def test_objects_are_found_by_their_names(called: str, said: str, resource: str) -> None:
    found = explain(called, RESOURCES, NAMES)
    assert found.subject[0].startswith(said), found.subject
    names = {
        "space": f"qrouter-{ROUTER.id}",
        "one": PORTS["vm1"].network,
        "qr": PORTS["qr1"].device_name("qr-"),
        "qg": PORTS["qg"].device_name("qg-"),
    }
    assert resource.format(**names) in ids(found)


def test_resources_stand_by_bridge_and_namespace_with_what_is_not_right() -> None:
    wrong = {ResourceId("namespace", f"qrouter-{ROUTER.id}"): "namespace is missing"}
    found = explain("vm1", RESOURCES, NAMES, wrong)
    places = [told.place for told in found.told]
    assert [place for at, place in enumerate(places) if place not in places[:at]] == sorted(
        set(places), key=places.index
    ), "each place once"
    assert places[0].startswith("bridge ")
    assert places[-1] == "this machine"
    assert {told.wrong for told in found.told} == {"", "namespace is missing"}


def test_of_a_resource_the_object_and_the_place_of_its_declaration_are_told() -> None:
    rid = next(rid for rid in RESOURCES if "table=20" in rid.name and MACS["vm1"] in rid.name)
    found = explain(str(rid), RESOURCES, NAMES)
    assert found.subject[0].startswith("port vm1, on node compute")
    assert found.subject[-1] == "made by vm1, declared at model.yaml:1:1"


def test_the_same_address_of_two_tenants_is_both() -> None:
    twice = with_objects(
        model("multi-table"),
        of(SubnetSpec, "two", network="two", cidr="172.16.1.0/24"),
        of(NeutronPortSpec, "vm2", network="two", mac=MACS["vm2"], fixed_ips=["172.16.1.10"], node="compute"),
        of(NeutronPortSpec, "dhcp2", network="two", mac=MACS["dhcp2"], fixed_ips=["172.16.1.2"], owner="dhcp",
           node="network"),
    )  # fmt: skip
    made = compile_node(twice, "network", Allocations())
    found = explain("172.16.1.10", made.resources, Names(build(twice), made.allocations.vlans, "network"))
    assert found.subject[0] == "2 ports are called so"
    assert {"port vm1", "port vm2"} <= {said.partition(",")[0] for said in found.subject}


def test_what_is_nothing_says_what_is_near() -> None:
    with pytest.raises(LookupError, match="did you mean 'vm1'"):
        explain("vm11", RESOURCES, NAMES)


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("masquerade", {"namespace": "host", "out": "eth0"},
         "what leaves by eth0 gets the address of the device on the host"),
        ("snat", {"namespace": "host", "source": "10.0.0.0/8", "out": "eth0", "to": "192.0.2.1"}, ("what leaves from "
         "10.0.0.0/8 by eth0 gets source 192.0.2.1 on the host")),
        ("port_forward", {"namespace": "host", "address": "192.0.2.1", "port": 80, "to": "10.0.0.5", "to_port": 8080},
         "tcp port 80 of 192.0.2.1 leads to 10.0.0.5, port 8080 on the host"),
        ("open_port", {"namespace": "host", "ports": [6082], "comment": "SPICE"}, ("tcp port 6082 is open on the host:"
         " SPICE")),
        ("rule", {"namespace": "host", "table": "filter", "chain": "INPUT", "rule": "-s 10.0.0.1 -j DROP"},
         "a rule on the host: filter INPUT -s 10.0.0.1 -j DROP"),
        ("neighbour", {"namespace": "host", "dev": "eth0", "ip": "10.0.0.9", "mac": MACS["vm1"]},
         f"10.0.0.9 is {MACS['vm1']} (port vm1, on node compute) on the host"),
        ("policy_rule", {"namespace": "host", "from": "10.0.0.0/8", "table": 100, "priority": 5},
         "policy rule x looks into table 100 on the host"),
        ("sysctl", {"namespace": "host", "key": "net.ipv4.conf.eth0.proxy_arp", "value": "1"},
         "net.ipv4.conf.eth0.proxy_arp is 1 on the host: ARP is answered for addresses that are behind this machine"),
        ("group", {"bridge": "br-x", "group_id": 4, "group": "type=all,bucket=actions=drop"},
         "group 4 of br-x, for flows to go through"),
        ("meter", {"bridge": "br-x", "meter_id": 7, "meter": "kbps,band=type=drop,rate=10"},
         "meter 7 of br-x, a limit of speed for flows"),
        ("service", {"name": "nginx", "state": None}, "systemd unit nginx.service, left as it is"),
        ("file", {"path": "/etc/x", "content": "y"}, "file /etc/x"),
        ("namespace", {}, "a network namespace"),
    ],
)  # fmt: skip
def test_what_a_person_declares_is_told_by_what_it_says(kind: str, spec: dict[str, object], words: str) -> None:
    checked = spec_classes()[kind].model_validate(spec)
    resource = Resource(ResourceId(kind, "x"), checked, Origin("yaml"), checked.generation())
    assert describe(resource, NAMES) == words
