"""The objects of the model that may be asked about, by whatever they are called, and what is made for each.

A subject is found by name, id, MAC, address, device, namespace, ``vlan 3`` or ``tag 3``; it has sentences about itself,
the origins of what is made for it, and words that name it in what is declared. Pure; `explain` uses it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from desired.network.calling import called, ports_called
from desired.network.here import tunnel_name
from desired.network.hosts import namespace_of
from desired.network.model import TUNNELLED
from desired.network.topology import FloatingIp, Network, Port, Router, Subnet
from desired.network.words import Names, router_words
from desired.resource import Origin


@dataclass(frozen=True, slots=True)
class Subject:
    """An object: sentences about it, the origins of what is made for it, and words that name it in resources.

    `one` are the origins of a port itself, where it is about one port: what belongs to other ports of its network, and
    what is set once for a whole namespace, is then left out (unless it is not right).
    """

    sentences: tuple[str, ...]
    origins: frozenset[Origin]
    words: tuple[str, ...]
    one: frozenset[Origin] = frozenset()


def subject_of(asked: str, names: Names) -> Subject | None:
    """What is meant by a word in lower case; None when nothing is."""
    topology = names.topology
    finders: tuple[Callable[[], Subject | None], ...] = (
        lambda: _vlan(asked, names),
        lambda: _first(
            _floating(router, fip, names) for router, fip in _floats(names) if asked in {fip.floating, fip.id}
        ),
        lambda: _ports(ports_called(topology, asked), names),
        lambda: _first(
            _router(router, names) for router in topology.routers.values() if asked in _router_names(router)
        ),
        lambda: _first(
            _network(network, names)
            for network in topology.networks.values()
            if asked in {network.name.lower(), network.id, f"qdhcp-{network.id}"}
        ),
        lambda: _first(
            _subnet(network, subnet, names)
            for network in topology.networks.values()
            for subnet in network.subnets
            if asked in {subnet.name.lower(), subnet.id, subnet.spec.cidr}
        ),
    )
    return _first(finder() for finder in finders)


def made_for(origin: Origin, names: Names) -> Iterator[str]:
    """Sentences on the object of the model that was declared there."""
    topology = names.topology
    for network in topology.networks.values():
        if origin in {network.origin, *(subnet.origin for subnet in network.subnets)}:
            yield from _network_words(network, names)
        for port in network.ports:
            if port.origin == origin:
                yield from _port(port, names).sentences
    for router in topology.routers.values():
        if router.origin == origin:
            yield router_words(router, names)
        for floating in router.floating:
            if floating.origin == origin:
                yield f"floating IP {floating.floating} leads to {floating.fixed}"


def known_names(names: Names) -> Iterator[str]:
    """What may be asked for, for a hint."""
    topology = names.topology
    for network in topology.networks.values():
        yield network.name
        yield from (port.name for port in network.ports)
    yield from (router.name for router in topology.routers.values())
    yield from (fip.floating for _, fip in _floats(names))


def _first(found: Iterable[Subject | None]) -> Subject | None:
    return next((each for each in found if each is not None), None)


def _floats(names: Names) -> Iterator[tuple[Router, FloatingIp]]:
    for router in names.topology.routers.values():
        for floating in router.floating:
            yield router, floating


# -- ports --------------------------------------------------------------------------------------------------------


def _ports(found: list[Port], names: Names) -> Subject | None:
    """One port; or several, where tenants have the same address."""
    if not found:
        return None
    subjects = [_port(port, names) for port in found]
    if len(subjects) == 1:
        return subjects[0]
    return Subject(
        (f"{len(found)} ports are called so", *(sentence for each in subjects for sentence in each.sentences)),
        frozenset().union(*(each.origins for each in subjects)),
        tuple(word for each, port in zip(subjects, found, strict=True) for word in each.words if word in called(port)),
        frozenset(port.origin for port in found),
    )


def _port(port: Port, names: Names) -> Subject:
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
        if router.node == names.node:
            origins |= _inside_of(router, network)
            words.append(f"qrouter-{router.id}/default")
        for floating in router.floating:
            if floating.fixed in own:
                sentences.append(f"floating IP {floating.floating} leads to it")
                origins.add(floating.origin)
                words.append(floating.floating)
    node = topology.nodes.get(port.node)
    if node is not None and port.node != names.node and node.spec.tunnel_ip and network.spec.type in TUNNELLED:
        sentences.append(f"it is reached through the tunnel to {node.name} ({node.spec.tunnel_ip})")
        words.append(tunnel_name(network.spec.type, node.spec.tunnel_ip))
    elif port.node == names.node:
        words += [*_tunnels(network, names), namespace_of(port).lower()]
    return Subject(tuple(sentences), frozenset(origins), tuple(words), frozenset({port.origin}))


def _inside_of(router: Router, network: Network) -> set[Origin]:
    """What of a router serves one of its networks: its namespace, its ports there and outside, its NAT."""
    found = {router.origin, *(port.origin for port in router.interfaces if port.network == network.id)}
    return found | ({router.gateway.origin} if router.gateway is not None else set())


def _tunnels(network: Network, names: Names) -> Iterator[str]:
    """The tunnels from here to where else the network is."""
    for name in network.nodes - {names.node} if network.spec.type in TUNNELLED else ():
        node = names.topology.nodes.get(name)
        if node is not None and node.spec.tunnel_ip:
            yield tunnel_name(network.spec.type, node.spec.tunnel_ip)


# -- floating IPs, routers ----------------------------------------------------------------------------------------


def _floating(router: Router, floating: FloatingIp, names: Names) -> Subject:
    inside = {port.network for port in router.interfaces}
    found = [
        port
        for own in inside
        for port in names.topology.networks[own].ports
        if any(address.ip == floating.fixed for address in port.addresses)
    ]
    whose = f" of {names.port(found[0])}" if found else ""
    sentences = [f"floating IP {floating.floating} leads to {floating.fixed}{whose}", router_words(router, names)]
    words = [floating.floating, f"qrouter-{router.id}"]
    origins = {floating.origin, *(() if router.gateway is None else (router.gateway.origin,))}
    for port in found:
        words += [port.id, port.mac]
        origins.add(port.origin)
    return Subject(tuple(sentences), frozenset(origins), tuple(words), frozenset({floating.origin, *_origins(found)}))


def _origins(ports: list[Port]) -> Iterator[Origin]:
    return (port.origin for port in ports)


def _router_names(router: Router) -> set[str]:
    return {router.name.lower(), router.id, f"qrouter-{router.id}"}


def _router(router: Router, names: Names) -> Subject:
    origins = {router.origin, *(fip.origin for fip in router.floating)}
    sentences = [router_words(router, names)]
    sentences += [f"floating IP {fip.floating} leads to {fip.fixed}" for fip in router.floating]
    ports = [*router.interfaces, *([router.gateway] if router.gateway else [])]
    return Subject(tuple(sentences), frozenset(origins), (f"qrouter-{router.id}", *(port.mac for port in ports)))


# -- networks -----------------------------------------------------------------------------------------------------


def _network(network: Network, names: Names) -> Subject:
    return Subject(
        tuple(_network_words(network, names)),
        frozenset({network.origin, *(subnet.origin for subnet in network.subnets)}),
        (network.id, f"qdhcp-{network.id}", *_tunnels(network, names)),
    )


def _network_words(network: Network, names: Names) -> Iterator[str]:
    spec = network.spec
    segment = f" with segmentation id {spec.segmentation_id}" if spec.segmentation_id is not None else ""
    vlan = names.vlans.get(network.id)
    here = f"is local VLAN {vlan} here" if vlan is not None else "is not on this node"
    yield f"network {network.name} ({spec.type}{segment}) {here}"
    yield from (_subnet_words(subnet) for subnet in network.subnets)
    if network.dhcp_nodes:
        yield f"its DHCP is served by {', '.join(network.dhcp_nodes)}"
    if network.nodes:
        ports = f"{len(network.ports)} port{'' if len(network.ports) == 1 else 's'}"
        yield f"it has {ports}, on {', '.join(sorted(network.nodes))}"


def _subnet_words(subnet: Subnet) -> str:
    return f"subnet {subnet.name} is {subnet.spec.cidr}, gateway {subnet.spec.gateway_ip or 'none'}"


def _subnet(network: Network, subnet: Subnet, names: Names) -> Subject:
    whole = _network(network, names)
    others = {each.origin for each in network.subnets if each.id != subnet.id}
    return Subject((_subnet_words(subnet), *whole.sentences), whole.origins - others, (*whole.words, subnet.spec.cidr))


def _vlan(asked: str, names: Names) -> Subject | None:
    found = re.fullmatch(r"(?:local )?(?:vlan|tag)[ =:]?(\d+)", asked)
    if found is None:
        return None
    number = int(found.group(1))
    network = next((names.topology.networks.get(key) for key, vlan in names.vlans.items() if vlan == number), None)
    return None if network is None else _network(network, names)
