"""One resource in one sentence, whatever its kind: what it is for and whose it is. Pure.

What the model compiles to is told by its purpose; what a person declared is told by what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from desired.kinds.check import CheckSpec
from desired.kinds.file import InFile
from desired.kinds.namespace import AddressSpec, LinkSpec, NamespaceSpec, NeighbourSpec, RouteSpec, SysctlSpec
from desired.kinds.namespace import RuleSpec as PolicyRuleSpec
from desired.kinds.openflow import FlowSpec, GroupSpec, MeterSpec
from desired.kinds.ovs import BridgeSpec, HeldPortSpec, PortSpec
from desired.kinds.rules import (
    FloatingIpSpec,
    MasqueradeSpec,
    OpenPortSpec,
    PortForwardSpec,
    RawRuleSpec,
    RedirectSpec,
    SnatSpec,
)
from desired.kinds.service import ServiceSpec
from desired.network import metadata
from desired.network.flow_words import flow_words
from desired.network.topology import Port
from desired.network.words import Names, router_words
from desired.resource import Resource


def describe(resource: Resource, names: Names) -> str:
    """One resource in one sentence."""
    for kind, words in _WORDS.items():
        if isinstance(resource.spec, kind):
            return words(resource.spec, resource.id.name, names)
    return f"{resource.id.kind} {resource.id.name}"


# -- Open vSwitch -------------------------------------------------------------------------------------------------


def _bridge(_spec: BridgeSpec, name: str, names: Names) -> str:
    options = names.topology.options
    told = {
        options.integration_bridge: "the integration bridge: every instance, DHCP server and router is a port of it",
        options.tunnel_bridge: "the tunnel bridge: between the integration bridge and the other nodes",
    }
    own = names.topology.nodes.get(names.node)
    physical = [net for net, bridge in (own.spec.bridge_mappings.items() if own else ()) if bridge == name]
    return told.get(name) or f"the bridge to physical network {', '.join(physical) or 'outside'}"


def _ovs_port(spec: PortSpec, name: str, names: Names) -> str:
    where = f" in {names.vlan(spec.tag)}" if spec.tag is not None else ""
    if spec.type == "patch":
        return f"one end of the patch between {spec.bridge} and where {spec.peer} is"
    if spec.type in {"gre", "vxlan", "geneve"}:
        return f"the {spec.type} tunnel from {spec.local_ip} to {spec.remote_ip}: {names.device(name)}"
    port = _port_of(spec.interface_external_ids.get("iface-id", ""), names)
    if port is None and spec.type == "system":
        return f"the NIC {name} as a port of {spec.bridge}{where}"
    return f"the device of {names.port(port) if port else name} on {spec.bridge}{where}"


def _port_of(own: str, names: Names) -> Port | None:
    networks = names.topology.networks.values() if own else ()
    return next((port for network in networks for port in network.ports if port.id == own), None)


def _held(spec: HeldPortSpec, name: str, names: Names) -> str:
    port = _port_of(name, names)
    whose = names.port(port) if port else f"the port with iface-id {name}"
    return f"{whose}: others plug it, and it is kept in {names.vlan(spec.tag)}" if spec.tag is not None else whose


# -- namespaces ---------------------------------------------------------------------------------------------------


def _namespace(_spec: NamespaceSpec, name: str, names: Names) -> str:
    head, _, tail = name.partition("-")
    if head == "qrouter" and tail in names.topology.routers:
        return f"where {router_words(names.topology.routers[tail], names)}"
    if head == "qdhcp" and tail in names.topology.networks:
        return f"where dnsmasq serves DHCP to network {names.topology.networks[tail].name}"
    if head == "qvm":
        return f"the virtual host of port {tail}"
    return "the host's own network" if name == "host" else "a network namespace"


def _link(spec: LinkSpec, _name: str, names: Names) -> str:
    own = names.device(spec.device or spec.dev)
    shown = own if spec.device is None else f"{spec.dev}, which is {own} outside,"
    return f"device {shown} {names.place(spec.namespace)}"


def _address(spec: AddressSpec, _name: str, names: Names) -> str:
    ip = spec.address.partition("/")[0]
    floats = [fip for router in names.topology.routers.values() for fip in router.floating if fip.floating == ip]
    if floats:
        return f"floating IP {ip} (of {floats[0].fixed}) is answered for on {spec.dev} {names.place(spec.namespace)}"
    if ip == metadata.ADDRESS:
        return f"the metadata address, answered for {names.place(spec.namespace)}"
    return f"{spec.address} is an address of {names.device(spec.dev)} {names.place(spec.namespace)}"


def _route(spec: RouteSpec, _name: str, names: Names) -> str:
    to = "everywhere else" if spec.to in {"default", "::/0", "0.0.0.0/0"} else spec.to
    way = f"via {spec.via}" if spec.via else f"straight on {spec.dev}"
    return f"the way to {to} is {way} {names.place(spec.namespace)}"


def _neighbour(spec: NeighbourSpec, _name: str, names: Names) -> str:
    return f"{spec.ip} is {names.mac(spec.mac)} {names.place(spec.namespace)}"


def _policy(spec: PolicyRuleSpec, name: str, names: Names) -> str:
    what = f"looks into table {spec.table}" if spec.action == "lookup" else f"is {spec.action}"
    return f"policy rule {name.rpartition('/')[2]} {what} {names.place(spec.namespace)}"


_SYSCTLS = {
    ("net/ipv4/ip_forward", "1"): "IPv4 is forwarded",
    ("net/ipv6/conf/all/forwarding", "1"): "IPv6 is forwarded",
    ("net/ipv4/conf/all/arp_ignore", "1"): "ARP is answered only on the device that has the address",
    ("net/ipv4/conf/all/arp_announce", "2"): "ARP requests come from an address of the device they leave by",
    ("net/ipv4/conf/all/rp_filter", "2"): "an answer may come back by another device than the request left by",
    ("accept_ra", "0"): "no address or route is taken from router advertisements",
    ("proxy_arp", "1"): "ARP is answered for addresses that are behind this machine",
}


def _sysctl(spec: SysctlSpec, _name: str, names: Names) -> str:
    keys = ((spec.key, spec.value), (spec.key.rpartition("/")[2], spec.value))
    told = next((_SYSCTLS[key] for key in keys if key in _SYSCTLS), "")
    text = f"{spec.key.replace('/', '.')} is {spec.value} {names.place(spec.namespace)}"
    return f"{text}: {told}" if told else text


# -- rules --------------------------------------------------------------------------------------------------------


def _floating(spec: FloatingIpSpec, _name: str, names: Names) -> str:
    return f"{spec.floating} outside stands for {spec.fixed} inside, both ways, {names.place(spec.namespace)}"


def _snat(spec: SnatSpec, _name: str, names: Names) -> str:
    whose = " ".join(word for word in (spec.source and f"from {spec.source}", spec.out and f"by {spec.out}") if word)
    return f"what leaves {whose} gets source {spec.to} {names.place(spec.namespace)}"


def _masquerade(spec: MasqueradeSpec, _name: str, names: Names) -> str:
    whose = " ".join(word for word in (spec.source and f"from {spec.source}", spec.out and f"by {spec.out}") if word)
    return f"what leaves {whose} gets the address of the device {names.place(spec.namespace)}"


def _forward(spec: PortForwardSpec, _name: str, names: Names) -> str:
    to = f"{spec.to}, port {spec.to_port or spec.port}"
    return f"{spec.protocol} port {spec.port} of {spec.address} leads to {to} {names.place(spec.namespace)}"


def _redirect(spec: RedirectSpec, _name: str, names: Names) -> str:
    what = "the metadata service, " if spec.destination == metadata.ADDRESS else ""
    return f"{what}{spec.destination}:{spec.port}, is answered at port {spec.to_port} {names.place(spec.namespace)}"


def _open(spec: OpenPortSpec, _name: str, names: Names) -> str:
    whom = f" from {spec.source}" if spec.source else ""
    why = f": {spec.comment}" if spec.comment else ""
    return f"{spec.protocol} port {', '.join(spec.ports)} is open{whom} {names.place(spec.namespace)}{why}"


def _raw(spec: RawRuleSpec, _name: str, names: Names) -> str:
    text, place = f"{spec.table} {spec.chain} {spec.rule}", names.place(spec.namespace)
    if "! --ctstate DNAT -j ACCEPT" in spec.rule and spec.chain == "POSTROUTING":
        return f"what stays inside keeps its source {place}: {spec.rule}"
    if "--checksum-fill" in spec.rule:
        return f"DHCP answers get a checksum, which old clients insist on, {place}: {spec.rule}"
    if spec.chain == "INPUT" and spec.rule.endswith("-j DROP") and "-i qg-" in spec.rule:
        return f"nobody outside reaches the metadata proxy {place}: {spec.rule}"
    return f"a rule {place}: {text}"


# -- services, files, checks --------------------------------------------------------------------------------------


def _service(spec: ServiceSpec, _name: str, names: Names) -> str:
    whose, wanted = names.whose(spec.name), f"to be {spec.wanted}" if spec.wanted else "left as it is"
    what = f"systemd unit {spec.name}"
    if whose and spec.name.endswith("-metadata.service"):
        what = f"the metadata proxy (haproxy) of {whose}"
    elif whose and spec.name.endswith("-radvd.service"):
        what = f"router advertisements (radvd) of {whose}"
    elif whose and spec.name.startswith("qdhcp-"):
        what = f"DHCP and DNS (dnsmasq) of {whose}"
    elif spec.name == f"{metadata.RELAY}.service":
        what = "the relay of all metadata proxies here to the metadata service"
    checked = f", with {len(spec.checks)} check{'' if len(spec.checks) == 1 else 's'}" if spec.checks else ""
    return f"{what}, {wanted}{checked}"


_FILES = {
    "-metadata.cfg": "what the metadata proxy (haproxy) of {} is started with",
    "-radvd.conf": "what routers advertise (radvd) of {}",
    ".hosts": "which MAC gets which address by DHCP in {}",
    ".names": "the names of addresses in the DNS of {}",
    ".options": "what DHCP says of routers, DNS servers and MTU in {}",
    ".conf": "what dnsmasq of {} is started with",
}


def _file(spec: InFile, _name: str, names: Names) -> str:
    if spec.path.endswith(f"/{metadata.RELAY}.cfg"):
        return "what the relay to the metadata service (haproxy) is started with"
    whose = names.whose(spec.path)
    told = next((words for suffix, words in _FILES.items() if whose and spec.path.endswith(suffix)), "")
    return told.format(whose) if told else f"file {spec.path}"


def _check(spec: CheckSpec, name: str, _names: Names) -> str:
    return f"the check {name}, asked every {spec.interval:g} s: it repairs nothing, and tells"


_WORDS: Mapping[type, Callable[[Any, str, Names], str]] = {
    FlowSpec: lambda spec, _name, names: flow_words(spec.bridge, spec.flow, names),
    GroupSpec: lambda spec, _name, _names: f"group {spec.group_id} of {spec.bridge}, for flows to go through",
    MeterSpec: lambda spec, _name, _names: f"meter {spec.meter_id} of {spec.bridge}, a limit of speed for flows",
    BridgeSpec: _bridge,
    PortSpec: _ovs_port,
    HeldPortSpec: _held,
    NamespaceSpec: _namespace,
    LinkSpec: _link,
    AddressSpec: _address,
    RouteSpec: _route,
    NeighbourSpec: _neighbour,
    PolicyRuleSpec: _policy,
    SysctlSpec: _sysctl,
    FloatingIpSpec: _floating,
    SnatSpec: _snat,
    MasqueradeSpec: _masquerade,
    PortForwardSpec: _forward,
    RedirectSpec: _redirect,
    OpenPortSpec: _open,
    RawRuleSpec: _raw,
    ServiceSpec: _service,
    InFile: _file,
    CheckSpec: _check,
}
"""In this order: what a kind is derived from comes after it."""
