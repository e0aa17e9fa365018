"""A network node written by hand on a real Open vSwitch: every port comes up, every flow is accepted by its tools."""

from __future__ import annotations

import re
from pathlib import Path

from desired.kinds.openflow import FlowSpec
from desired.kinds.ovs import BridgeSpec, PortSpec
from desired.kinds.sections import SECTIONS
from desired.schema import load_tree
from tests.ovs import PrivateOvs

EXAMPLE = Path(__file__).parent / "network-node"


def build(ovs: PrivateOvs) -> dict[str, list[str]]:
    """Make by hand what the example declares; its flows by bridge."""
    loaded = load_tree(EXAMPLE, node="network", roles=frozenset({"network"}), sections=SECTIONS)
    flows: dict[str, list[str]] = {}
    for resource in loaded.resources:  # sorted by kind: bridges come first
        name, spec = resource.id.name, resource.spec
        if isinstance(spec, BridgeSpec):
            ovs.add_bridge(name, f"fail_mode={spec.fail_mode}")
        elif isinstance(spec, FlowSpec):
            flows.setdefault(spec.bridge, []).append(spec.flow)
        elif isinstance(spec, PortSpec):
            settings = [f"options:{key}={value}" for key, value in spec.interface_options().items()]
            settings += [f'external_ids:{key}="{value}"' for key, value in spec.interface_external_ids.items()]
            settings += [f'mac="{spec.mac}"'] if spec.mac else []
            tag = [f"tag={spec.tag}"] if spec.tag else []
            ovs.vsctl(
                "add-port", spec.bridge, name, *tag, "--", "set", "interface", name, f"type={spec.type}", *settings
            )
    for bridge, texts in flows.items():
        ovs.ofctl("--bundle", "replace-flows", bridge, "-", stdin="\n".join(texts))
    return flows


def datapath_ports(ovs: PrivateOvs) -> dict[str, str]:
    """Number in the datapath to name."""
    return {number: name for name, number in re.findall(r"^ +(\S+) \d+/(\d+):", ovs.appctl("dpif/show"), re.MULTILINE)}


def test_open_vswitch_accepts_every_port_and_every_flow(ovs: PrivateOvs) -> None:
    flows = build(ovs)
    assert {bridge: len(texts) for bridge, texts in flows.items()} == {"br-int": 3, "br-tun": 9, "br-ex": 3}
    assert {bridge: len(ovs.flows(bridge)) for bridge in flows} == {"br-int": 3, "br-tun": 9, "br-ex": 3}
    rows = ovs.vsctl("--format=csv", "--no-headings", "--columns=name,error,ofport", "list", "interface").splitlines()
    assert len(rows) == 3 + 6 + 6
    for row in rows:
        _, error, ofport = row.split(",")
        assert (error, int(ofport) > 0) == ("[]", True)


def test_a_broadcast_from_a_tunnel_reaches_the_ports_of_its_key_only(ovs: PrivateOvs) -> None:
    build(ovs)
    for key, expected in (
        (1, {"tap6f1c3b5a-9e", "qr-2d84e07f-c6"}),
        (999, {"tapc3e95d20-71", "qr-58b7f4ac-0d"}),
        (5, set()),
    ):
        trace = ovs.appctl("ofproto/trace", "br-tun", f"in_port=gre-2,tun_id={key},dl_dst=ff:ff:ff:ff:ff:ff")
        actions = trace.rpartition("Datapath actions: ")[2].strip()
        reached = {datapath_ports(ovs).get(step, step) for step in actions.split(",") if step.isdigit()}
        assert reached - {"br-int"} == expected
