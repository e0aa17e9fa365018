"""What a document of YAML may hold: one line for each section. A new kind adds its spec and a line here.

Names of ports, bonds and bridges share what OVSDB and the kernel have as one namespace, so they claim them.
"""

from __future__ import annotations

from collections.abc import Iterator

from desired.kinds.check import CheckSpec
from desired.kinds.file import FileSpec
from desired.kinds.files_section import Files
from desired.kinds.names import IfaceId, InterfaceName, OneLine
from desired.kinds.namespace import NamespaceSpec
from desired.kinds.namespace_section import Spaces
from desired.kinds.openflow import FlowSpec, GroupSpec, MeterSpec, split_flow
from desired.kinds.ovs import BondSpec, BridgeSpec, HeldPortSpec, PortSpec
from desired.kinds.rules import RawRuleSpec
from desired.kinds.rules_section import Rules
from desired.kinds.service import ServiceSpec, UnitName
from desired.kinds.services_section import Services
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
    Spaces(
        name="namespaces",
        spec=NamespaceSpec,
        example="{qrouter-1: {links: {qr-1: {type: ovs, addresses: [10.0.0.1/24]}}}}",
        description="Network namespaces and what lives in them: links, addresses, routes, rules, neighbours, sysctls.",
    ),
    Spaces(
        name="host",
        single=True,
        spec=NamespaceSpec,
        example="{links: {eth1: {mtu: 9000}}, sysctls: {net.ipv4.ip_forward: 1}}",
        description="The same for the host itself, whose interfaces are only held: what is not declared stays.",
    ),
    Rules(
        name="rules",
        spec=RawRuleSpec,
        example="{qrouter-1: {floating_ips: {203.0.113.5: 10.0.0.5}}}",
        description="NAT and filter rules, by network namespace ('host' is the host): readable forms, and raw ones.",
    ),
    Files(
        name="files",
        spec=FileSpec,
        example='{/etc/neutron/l3_agent.ini: {ini: {DEFAULT: {external_network_bridge: ""}}}}',
        description="Whole files of ours, by path, and blocks and INI keys held in files of others.",
    ),
    Services(
        name="services",
        spec=ServiceSpec,
        name_type=UnitName,
        example="{rabbitmq-server: {enabled: true, checks: [{tcp: 127.0.0.1:5672}]}}",
        description="systemd units, by name: running or stopped, enabled, masked, and what tells that they work.",
    ),
    Named(
        name="checks",
        spec=CheckSpec,
        name_type=OneLine,
        example="{root-disk: {disk: /, max_used: 85}}",
        description="Conditions of the node, by name: seen in its status and alerts; nothing is repaired by them.",
    ),
)
