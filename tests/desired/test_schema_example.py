"""The shipped example on a real Open vSwitch: every port comes up, every flow is accepted, by public tools alone."""

from __future__ import annotations

from pathlib import Path

from desired.kinds.openflow import FlowSpec
from desired.kinds.ovs import BridgeSpec, PortSpec
from desired.kinds.sections import SECTIONS
from desired.schema import load_tree
from tests.ovs import PrivateOvs

EXAMPLE = Path(__file__).parents[2] / "desired" / "examples" / "three-node-gre"


def test_open_vswitch_accepts_the_example(ovs: PrivateOvs) -> None:
    loaded = load_tree(EXAMPLE, node="network", roles=frozenset({"network"}), sections=SECTIONS)
    specs = {resource.id.name: resource.spec for resource in loaded.resources}
    flows: dict[str, list[str]] = {}
    for name, spec in specs.items():
        if isinstance(spec, BridgeSpec):
            ovs.add_bridge(name, f"fail_mode={spec.fail_mode}")
            flows[name] = []
    for name, spec in specs.items():
        if isinstance(spec, PortSpec):
            options = [f"options:{key}={value}" for key, value in spec.interface_options().items()]
            ids = [f'external_ids:{key}="{value}"' for key, value in spec.interface_external_ids.items()]
            mac = [f'mac="{spec.mac}"'] if spec.mac else []
            tag = [f"tag={spec.tag}"] if spec.tag else []
            interface = ["--", "set", "interface", name, f"type={spec.type}", *options, *ids, *mac]
            ovs.vsctl("add-port", spec.bridge, name, *tag, *interface)
        elif isinstance(spec, FlowSpec):
            flows[spec.bridge].append(spec.flow)
    for name, spec in specs.items():
        if isinstance(spec, PortSpec):
            assert ovs.vsctl("get", "interface", name, "error") == "[]"
            assert int(ovs.vsctl("get", "interface", name, "ofport")) > 0
    for bridge, texts in flows.items():
        ovs.ofctl("--bundle", "replace-flows", bridge, "-", stdin="\n".join(texts))
        assert len(ovs.flows(bridge)) == len(texts)
    assert {bridge: len(texts) for bridge, texts in flows.items()} == {"br-int": 3, "br-tun": 9, "br-ex": 3}


def test_a_broadcast_from_a_tunnel_reaches_its_tenant_only(ovs: PrivateOvs) -> None:
    test_open_vswitch_accepts_the_example(ovs)
    trace = ovs.appctl("ofproto/trace", "br-tun", "in_port=gre-2,tun_id=999,dl_dst=ff:ff:ff:ff:ff:ff")
    ports = {name: ovs.vsctl("get", "interface", name, "ofport") for name in ("tapc3e95d20-71", "tap6f1c3b5a-9e")}
    assert "set_field:4098->vlan_vid" in trace or "mod_vlan_vid:2" in trace
    assert ports["tapc3e95d20-71"] != ports["tap6f1c3b5a-9e"]
