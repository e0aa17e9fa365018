"""Laws of the specs themselves, whatever source they come from."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from desired.kinds.openflow import FlowSpec, split_flow
from desired.kinds.ovs import BondSpec, BridgeSpec, HeldPortSpec, PortSpec
from desired.kinds.sections import SECTIONS
from desired.resource import ResourceId, Spec


@pytest.mark.parametrize("name", ["br-int", "tap6f1c3b5a-9e", "qg-a90b47d1-35", "eth0.100", "a" * 15, "v_1", "x@y"])
def test_the_names_of_real_interfaces_are_accepted(name: str) -> None:
    assert PortSpec(bridge=name).bridge == name


@pytest.mark.parametrize("name", ["", "a" * 16, "é" * 8, "-x", "a b", "a/b", ".", "..", "a:b", "a\n", "--if-exists"])
def test_no_name_is_an_option_a_path_or_two_words(name: str) -> None:
    if name.strip() == "a":
        assert PortSpec(bridge=name).bridge == "a"
        return
    with pytest.raises(ValidationError):
        PortSpec(bridge=name)


def test_addresses_are_written_in_one_way() -> None:
    port = PortSpec(bridge="b", type="vxlan", remote_ip="2001:DB8:0::1", mac="FA:16:3E:00:00:01")
    assert (port.remote_ip, port.mac) == ("2001:db8::1", "fa:16:3e:00:00:01")


def test_only_a_patch_port_has_a_peer_and_it_must() -> None:
    with pytest.raises(ValidationError, match="peer"):
        PortSpec(bridge="b", type="patch")
    with pytest.raises(ValidationError, match="peer is for patch ports"):
        PortSpec(bridge="b", peer="p")


def test_named_settings_and_options_become_one_map_as_ovsdb_has_it() -> None:
    port = PortSpec(bridge="b", type="gre", remote_ip="10.0.0.1", key=5, options={"csum": "true"})
    assert port.interface_options() == {"csum": "true", "remote_ip": "10.0.0.1", "key": "5"}


@pytest.mark.parametrize("spec", [BridgeSpec, HeldPortSpec])
def test_the_daemons_mark_cannot_be_declared(spec: type[Spec]) -> None:
    with pytest.raises(ValidationError, match="own mark"):
        spec.model_validate({"external_ids": {"reconciler": "me"}})


def test_protocols_cannot_lock_the_daemon_out() -> None:
    with pytest.raises(ValidationError, match="OpenFlow14"):
        BridgeSpec(protocols=("OpenFlow10",))


@pytest.mark.parametrize(
    ("text", "match", "actions"),
    [
        ("table=0, priority=1 ,ip  actions=drop", "table=0,priority=1,ip", "drop"),
        ("actions=normal", "", "normal"),
        ("tcp,ACTIONS = output:1,output:2", "tcp", "output:1,output:2"),
        ("ip action=resubmit(,2)", "ip", "resubmit(,2)"),
        (
            "table=1,actions=learn(table=2,hard_timeout=3),output:1",
            "table=1",
            "learn(table=2,hard_timeout=3),output:1",
        ),
    ],
)
def test_a_flow_is_split_where_its_actions_begin(text: str, match: str, actions: str) -> None:
    assert split_flow(text) == (match, actions)


@pytest.mark.parametrize(
    "flow", ["priority=1", "cookie=0x1,actions=drop", "#actions=drop", "actions=drop\nactions=all"]
)
def test_what_is_no_single_flow_is_refused(flow: str) -> None:
    with pytest.raises(ValidationError):
        FlowSpec(bridge="b", flow=flow)


def test_equal_intent_has_one_generation_and_another_has_another() -> None:
    bond = BondSpec(bridge="b", interfaces=("eth2", "eth1"))
    assert bond.generation() == BondSpec(bridge="b", interfaces=("eth1", "eth2")).generation()
    assert bond.generation() != BondSpec(bridge="b", interfaces=("eth1", "eth3")).generation()


def test_whatever_is_on_a_bridge_refers_to_it() -> None:
    for spec in (PortSpec(bridge="b"), FlowSpec(bridge="b", flow="actions=drop")):
        assert spec.refs() == (ResourceId("bridge", "b"),)


def test_every_section_has_its_own_name_and_an_example() -> None:
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)
    assert all(section.example and section.description for section in SECTIONS)
