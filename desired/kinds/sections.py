"""What a document of YAML may hold: one line for each section. A new kind adds its spec and a line here.

Names of ports, bonds and bridges share what OVSDB and the kernel have as one namespace, so they claim them.
"""

from __future__ import annotations

from collections.abc import Iterator

from desired.kinds.names import IfaceId, InterfaceName
from desired.kinds.openflow import FlowSpec, GroupSpec, MeterSpec, split_flow
from desired.kinds.ovs import BondSpec, BridgeSpec, HeldPortSpec, PortSpec
from desired.schema.section import Claim, Listed, Named, Numbered, Pairs, Section


def _port(name: str, _spec: object) -> Iterator[Claim]:
    yield "port", name
    yield "interface", name


def _bond(name: str, spec: BondSpec) -> Iterator[Claim]:
    yield "port", name
    for interface in spec.interfaces:
        yield "interface", interface


def _flow(spec: FlowSpec) -> str:
    return f"{spec.bridge}/{split_flow(spec.flow)[0]}"


def _group(spec: GroupSpec) -> str:
    return f"{spec.bridge}/{spec.group_id}"


def _meter(spec: MeterSpec) -> str:
    return f"{spec.bridge}/{spec.meter_id}"


SECTIONS: tuple[Section, ...] = (
    Named(
        name="bridges",
        spec=BridgeSpec,
        name_type=InterfaceName,
        claims=_port,
        example="{br-int: {fail_mode: secure}}",
        description="Open vSwitch bridges, by name.",
    ),
    Named(
        name="ports",
        spec=PortSpec,
        name_type=InterfaceName,
        claims=_port,
        example="{tap0: {bridge: br-int, tag: 1}}",
        description="Ports with one interface, by name.",
    ),
    Pairs(
        name="patches",
        spec=PortSpec,
        name_type=InterfaceName,
        claims=_port,
        within="bridge",
        other="peer",
        ends={"type": "patch"},
        example="[{br-int: patch-tun, br-tun: patch-int}]",
        description="Patch pairs, each in one line: the port patch-tun on br-int and its peer patch-int on br-tun.",
    ),
    Named(
        name="bonds",
        spec=BondSpec,
        name_type=InterfaceName,
        claims=_bond,
        example="{bond0: {bridge: br-ex, interfaces: [eth1, eth2]}}",
        description="Ports with several interfaces, by name.",
    ),
    Named(
        name="held_ports",
        spec=HeldPortSpec,
        name_type=IfaceId,
        example="{3c7a0d52-…: {tag: 1}}",
        description="Attributes held on ports that others plug, by their external_ids:iface-id.",
    ),
    Listed(
        name="flows",
        spec=FlowSpec,
        within="bridge",
        text="flow",
        name_of=_flow,
        example='{br-int: ["priority=1,actions=normal"]}',
        description="OpenFlow flows in the syntax of ovs-ofctl(8), by bridge; ports by name.",
    ),
    Numbered(
        name="groups",
        spec=GroupSpec,
        within="bridge",
        number="group_id",
        text="group",
        name_of=_group,
        example='{br-int: {1: "type=all,bucket=actions=output:1"}}',
        description="OpenFlow groups, by bridge and group id.",
    ),
    Numbered(
        name="meters",
        spec=MeterSpec,
        within="bridge",
        number="meter_id",
        text="meter",
        name_of=_meter,
        example='{br-int: {1: "kbps,band=type=drop,rate=1000"}}',
        description="OpenFlow meters, by bridge and meter id.",
    ),
)
