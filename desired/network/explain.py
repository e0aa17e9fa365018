"""`reconcile explain`: what a thing on this node is for and which declared line made it, and what serves an object.

Both ways: from a resource (``flow/br-tun/…``, ``namespace/qrouter-…``) to the object of the model that it serves, and
from an object (a port by name, id, MAC, address or device; a network by name or local VLAN; a router; a floating IP) to
all resources of this node that serve it. Pure: `reconciler.doors.explain` asks the daemon and prints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from desired.kinds.file import InFile
from desired.kinds.namespace import (
    AddressSpec,
    LinkSpec,
    NamespaceSpec,
    NeighbourSpec,
    RouteSpec,
    SysctlSpec,
)
from desired.kinds.openflow import FlowSpec
from desired.kinds.ovs import BridgeSpec, HeldPortSpec, PortSpec
from desired.kinds.rules import FloatingIpSpec, RedirectSpec, RuleSpec, SnatSpec
from desired.kinds.service import ServiceSpec
from desired.network.topology import Network, Port, Router
from desired.network.words import Names, flow_words, router_words
from desired.resource import Origin, Resource, ResourceId, Resources
from desired.schema.problem import did_you_mean


@dataclass(frozen=True, slots=True)
class Told:
    """One resource in words."""

    resource: ResourceId
    words: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Explained:
    """`subject` are sentences about what was asked for; `told` the resources of this node that serve it."""

    subject: tuple[str, ...]
    told: tuple[Told, ...]


def explain(query: str, resources: Resources, names: Names) -> Explained:
    """Explain a resource or an object. Raises LookupError saying what would be near when nothing is meant."""
    kind, slash, name = query.partition("/")
    rid = ResourceId(kind, name)
    if slash and rid in resources:
        resource = resources[rid]
        made = f"made by {resource.origin.path or 'it'}, declared at {resource.origin}"
        about = tuple(_about(resource, names))
        return Explained((*about, made), (Told(rid, describe(resource, names), resource.origin),))
    subject = _subject(query, names)
    if subject is None:
        in_text = _mentioning(resources.values(), [query.lower()])
        if in_text:
            return Explained((f"{query} is no object of the model; these resources name it",), _told(in_text, names))
        raise LookupError(_unknown(query, resources, names))
    wanted = {each for each in subject.words if each}
    serving = [
        resource
        for resource in resources.values()
        if resource.origin in subject.origins or (wanted and _mentions(resource, wanted))
    ]
    return Explained(subject.sentences, _told(serving, names))


# -- what is asked for --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Subject:
    """An object: sentences about it, the origins of what is made for it, and words that name it in resources."""

    sentences: tuple[str, ...]
    origins: frozenset[Origin]
    words: tuple[str, ...]


def _subject(query: str, names: Names) -> _Subject | None:
    asked = query.strip().lower()
    topology = names.topology
    finders: tuple[Callable[[], _Subject | None], ...] = (
        lambda: _vlan(asked, names),
        lambda: _first(_port(port, names) for port in _ports(names) if asked in _port_names(port)),
        lambda: _first(
            _router(router, names) for router in topology.routers.values() if asked in _router_names(router)
        ),
        lambda: _first(
            _network(network, names)
            for network in topology.networks.values()
            if asked in {network.name.lower(), network.id, f"qdhcp-{network.id}"}
        ),
        lambda: _first(_subnet(network, asked, names) for network in topology.networks.values()),
    )
    return _first(finder() for finder in finders)


def _first(found: Iterable[_Subject | None]) -> _Subject | None:
    return next((each for each in found if each is not None), None)


def _ports(names: Names) -> Iterator[Port]:
    for network in names.topology.networks.values():
        yield from network.ports


def _port_names(port: Port) -> set[str]:
    devices = {port.device_name(prefix) for prefix in ("tap", "qr-", "qg-", "qvo", "qvb", "qbr")}
    return {port.name.lower(), port.id, port.mac, *(address.ip for address in port.addresses), *devices}


def _router_names(router: Router) -> set[str]:
    floating = {fip.floating for fip in router.floating} | {fip.id for fip in router.floating}
    return {router.name.lower(), router.id, f"qrouter-{router.id}"} | floating


def _port(port: Port, names: Names) -> _Subject:
    topology = names.topology
    network = topology.networks[port.network]
    has = ", ".join(map(str, port.addresses)) or "no address"
    sentences = [f"{names.port(port)}, has MAC {port.mac} and {has}, on network {network.name}"]
    origins = {port.origin, network.origin, *(subnet.origin for subnet in network.subnets)}
    words = [port.id, port.mac, *(address.ip for address in port.addresses)]
    own = {address.ip for address in port.addresses}
    for router in topology.routers.values():
        if not any(inside.network == port.network for inside in router.interfaces):
            continue
        sentences.append(router_words(router, names))
        for floating in router.floating:
            if floating.fixed in own:
                sentences.append(f"floating IP {floating.floating} leads to it")
                origins.add(floating.origin)
                words.append(floating.floating)
        if router.node == names.node and _only(router, port):
            words.append(f"qrouter-{router.id}")
    node = topology.nodes.get(port.node)
    if node is not None and port.node != names.node and node.spec.tunnel_ip:
        words.append(node.spec.tunnel_ip)
        sentences.append(f"it is reached through the tunnel to {node.name} ({node.spec.tunnel_ip})")
    return _Subject(tuple(sentences), frozenset(origins), tuple(words))


def _only(router: Router, port: Port) -> bool:
    """Is the router there for this network alone? Then all of it serves the port."""
    return {inside.network for inside in router.interfaces} == {port.network}


def _router(router: Router, names: Names) -> _Subject:
    origins = {router.origin, *(fip.origin for fip in router.floating)}
    sentences = [router_words(router, names)]
    sentences += [f"floating IP {fip.floating} leads to {fip.fixed}" for fip in router.floating]
    ports = [*router.interfaces, *([router.gateway] if router.gateway else [])]
    return _Subject(tuple(sentences), frozenset(origins), (f"qrouter-{router.id}", *(port.mac for port in ports)))


def _network(network: Network, names: Names) -> _Subject:
    return _Subject(
        tuple(_network_words(network, names)),
        frozenset({network.origin, *(subnet.origin for subnet in network.subnets)}),
        (network.id,),
    )


def _network_words(network: Network, names: Names) -> Iterator[str]:
    spec = network.spec
    segment = f" with segmentation id {spec.segmentation_id}" if spec.segmentation_id is not None else ""
    vlan = names.vlans.get(network.id)
    here = f"is local VLAN {vlan} here" if vlan is not None else "is not on this node"
    yield f"network {network.name} ({spec.type}{segment}) {here}"
    for subnet in network.subnets:
        yield f"subnet {subnet.name} is {subnet.spec.cidr}, gateway {subnet.spec.gateway_ip or 'none'}"
    if network.dhcp_nodes:
        yield f"its DHCP is served by {', '.join(network.dhcp_nodes)}"
    if network.nodes:
        ports = f"{len(network.ports)} port{'' if len(network.ports) == 1 else 's'}"
        yield f"it has {ports}, on {', '.join(sorted(network.nodes))}"


def _subnet(network: Network, asked: str, names: Names) -> _Subject | None:
    if any(asked in {subnet.name.lower(), subnet.id, subnet.spec.cidr} for subnet in network.subnets):
        return _network(network, names)
    return None


def _vlan(asked: str, names: Names) -> _Subject | None:
    found = re.fullmatch(r"(?:vlan|tag)[ =:]?(\d+)", asked)
    if found is None:
        return None
    number = int(found.group(1))
    network = next((names.topology.networks.get(key) for key, vlan in names.vlans.items() if vlan == number), None)
    return None if network is None else _network(network, names)


# -- which resources ----------------------------------------------------------------------------------------------


def _told(resources: Iterable[Resource], names: Names) -> tuple[Told, ...]:
    ordered = sorted(resources, key=lambda each: (_ORDER.get(each.id.kind, 99), each.id))
    return tuple(Told(resource.id, describe(resource, names), resource.origin) for resource in ordered)


_ORDER = {
    kind: place
    for place, kind in enumerate(
        ("bridge", "port", "held_port", "flow", "namespace", "link", "address", "route", "floating_ip", "snat", "rule")
    )
}


def _mentioning(resources: Iterable[Resource], words: Iterable[str]) -> list[Resource]:
    wanted = set(words)
    return [resource for resource in resources if _mentions(resource, wanted)]


def _mentions(resource: Resource, wanted: set[str]) -> bool:
    """Does one of the words stand in it, whole?"""
    text = f"{resource.id.name} {resource.spec.model_dump_json()}".lower()
    return any(
        word in text and re.search(rf"(?<![0-9a-z.:-]){re.escape(word)}(?![0-9a-z-]|[.:][0-9a-f])", text)
        for word in wanted
    )


def _unknown(query: str, resources: Resources, names: Names) -> str:
    known = [*map(str, resources), *(port.name for port in _ports(names))]
    known += [network.name for network in names.topology.networks.values()]
    known += [router.name for router in names.topology.routers.values()]
    near = did_you_mean(query, known)
    hint = near or "name a resource (KIND/NAME), a port, a network, a router, a floating IP, a MAC or an address"
    return f"nothing on this node and nothing in its model is {query!r}; {hint}"


# -- resources in words -------------------------------------------------------------------------------------------


def _about(resource: Resource, names: Names) -> Iterator[str]:
    """Sentences on the object of the model that a resource comes from."""
    topology = names.topology
    for network in topology.networks.values():
        if resource.origin in {network.origin, *(subnet.origin for subnet in network.subnets)}:
            yield from _network_words(network, names)
        for port in network.ports:
            if port.origin == resource.origin:
                yield from _port(port, names).sentences
    for router in topology.routers.values():
        if router.origin == resource.origin:
            yield router_words(router, names)
        for floating in router.floating:
            if floating.origin == resource.origin:
                yield f"floating IP {floating.floating} leads to {floating.fixed}"


def describe(resource: Resource, names: Names) -> str:
    """One resource in one sentence."""
    spec = resource.spec
    for kind, words in _WORDS.items():
        if isinstance(spec, kind):
            told: str = words(spec, resource, names)
            return told
    return f"{resource.id.kind} {resource.id.name}"


def _bridge(_spec: BridgeSpec, resource: Resource, names: Names) -> str:
    options = names.topology.options
    told = {
        options.integration_bridge: "the integration bridge: every instance, DHCP server and router is a port of it",
        options.tunnel_bridge: "the tunnel bridge: between the integration bridge and the other nodes",
    }
    return told.get(resource.id.name, "a bridge to a physical network")


def _ovs_port(spec: PortSpec, resource: Resource, names: Names) -> str:
    where = f" in {names.vlan(spec.tag)}" if spec.tag is not None else ""
    if spec.type == "patch":
        return f"one end of the patch between {spec.bridge} and where {spec.peer} is"
    if spec.type in {"gre", "vxlan", "geneve"}:
        return f"the {spec.type} tunnel from {spec.local_ip} to {spec.remote_ip}: {names.device(resource.id.name)}"
    port = next((p for p in _ports(names) if spec.interface_external_ids.get("iface-id") == p.id), None)
    return f"the device of {names.port(port) if port else resource.id.name} on {spec.bridge}{where}"


def _held(spec: HeldPortSpec, resource: Resource, names: Names) -> str:
    port = next((each for each in _ports(names) if each.id == resource.id.name), None)
    whose = names.port(port) if port else f"the port with iface-id {resource.id.name}"
    return f"{whose}: others plug it, and it is kept in {names.vlan(spec.tag)}" if spec.tag is not None else whose


def _namespace(_spec: NamespaceSpec, resource: Resource, names: Names) -> str:
    head, _, tail = resource.id.name.partition("-")
    if head == "qrouter" and tail in names.topology.routers:
        return f"where {router_words(names.topology.routers[tail], names)}"
    if head == "qdhcp" and tail in names.topology.networks:
        return f"where dnsmasq serves DHCP to network {names.topology.networks[tail].name}"
    return "a network namespace"


def _link(spec: LinkSpec, _resource: Resource, _names: Names) -> str:
    return f"device {spec.dev} in namespace {spec.namespace}"


def _address(spec: AddressSpec, _resource: Resource, names: Names) -> str:
    ip = spec.address.partition("/")[0]
    floating = any(fip.floating == ip for router in names.topology.routers.values() for fip in router.floating)
    what = "a floating IP answered for" if floating else "an address"
    return f"{spec.address}, {what} on {spec.dev} in {spec.namespace}"


def _route(spec: RouteSpec, _resource: Resource, _names: Names) -> str:
    way = f"via {spec.via}" if spec.via else f"on {spec.dev}"
    return f"the way to {spec.to} is {way} in {spec.namespace}"


def _neighbour(spec: NeighbourSpec, _resource: Resource, names: Names) -> str:
    return f"{spec.ip} is {names.mac(spec.mac)} in {spec.namespace}"


def _sysctl(spec: SysctlSpec, _resource: Resource, _names: Names) -> str:
    told = {"net/ipv4/ip_forward": "packets are forwarded", "net/ipv6/conf/all/forwarding": "IPv6 is forwarded"}
    return f"{spec.key} is {spec.value} in {spec.namespace}" + (
        f": {told[spec.key]}" if spec.key in told and spec.value == "1" else ""
    )


def _floating(spec: FloatingIpSpec, _resource: Resource, _names: Names) -> str:
    return f"{spec.floating} outside stands for {spec.fixed} inside, both ways"


def _snat(spec: SnatSpec, _resource: Resource, _names: Names) -> str:
    whose = f"from {spec.source}" if spec.source else f"that leaves by {spec.out}"
    return f"what comes {whose} goes out as {spec.to}"


def _redirect(spec: RedirectSpec, _resource: Resource, _names: Names) -> str:
    return f"{spec.destination}:{spec.port} is answered here, at port {spec.to_port}"


def _rule(spec: RuleSpec, _resource: Resource, _names: Names) -> str:
    return f"in {spec.namespace}: {spec.words()}"


def _service(spec: ServiceSpec, _resource: Resource, names: Names) -> str:
    network = next((n for n in names.topology.networks.values() if n.id in spec.name), None)
    router = next((r for r in names.topology.routers.values() if r.id in spec.name), None)
    whose = f" for network {network.name}" if network else f" for router {router.name}" if router else ""
    return f"systemd unit {spec.name}{whose}, to be {spec.wanted or 'as it is'}"


def _file(spec: InFile, _resource: Resource, _names: Names) -> str:
    return f"file {spec.path}"


_WORDS: Mapping[type, Callable[..., str]] = {
    FlowSpec: lambda spec, _resource, names: flow_words(spec.bridge, spec.flow, names),
    BridgeSpec: _bridge,
    PortSpec: _ovs_port,
    HeldPortSpec: _held,
    NamespaceSpec: _namespace,
    LinkSpec: _link,
    AddressSpec: _address,
    RouteSpec: _route,
    NeighbourSpec: _neighbour,
    SysctlSpec: _sysctl,
    FloatingIpSpec: _floating,
    SnatSpec: _snat,
    RedirectSpec: _redirect,
    RuleSpec: _rule,
    ServiceSpec: _service,
    InFile: _file,
}
"""In this order: what a kind is derived from comes after it."""
