"""What the sender does with the packet: which of its addresses it uses, and to whom it hands it.

An instance's own routing cannot be seen from outside; it is taken to be what its DHCP server tells it. Of a namespace
that we made, the kernel is asked.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from desired.network import dnsmasq
from desired.network.calling import own_namespace
from desired.network.topology import Address, Network, Port, Topology
from desired.network.trace.questions import Asking, AskInside, AskRoute, ask
from desired.network.trace.scene import Scene
from desired.network.trace.told import Diary, Evidence, Packet


def source_of(port: Port, to: str) -> Address | None:
    """The address of a port that it sends from: of the IP version of `to`, in its subnet if possible."""
    version = ip_address(to).version
    same = [address for address in port.addresses if ip_address(address.ip).version == version]
    near = [address for address in same if ip_address(to) in ip_network(str(address), strict=False)]
    return next(iter([*near, *same]), None)


def sent(scene: Scene, diary: Diary, port: Port, packet: Packet, *, here: bool) -> Asking[tuple[Packet, str] | None]:
    """The packet with its source, and the next hop's address; None when it does not leave the sender."""
    space = own_namespace(port)
    if here and space is not None:
        return (yield from _from_namespace(scene, diary, packet, *space))
    return _as_told(scene, diary, port, packet)


def _from_namespace(
    scene: Scene, diary: Diary, packet: Packet, namespace: str, dev: str
) -> Asking[tuple[Packet, str] | None]:
    inside = yield from ask(AskInside(namespace, packet.version))
    wrong = scene.not_right(lambda rid: rid.name == namespace or rid.name.startswith(f"{namespace}/"))
    if not inside.there:
        diary.tell(f"starts in namespace {namespace}", missing=(f"namespace {namespace} is gone", *wrong))
        return None
    link = inside.links.get(dev)
    if link is None or not link.up:
        what = "is not there" if link is None else "is down"
        diary.tell(f"starts in namespace {namespace}", missing=(f"device {dev} {what} in {namespace}", *wrong))
        return None
    own = {address.partition("/")[0] for address in link.addresses}
    missing = [] if packet.source in own else [f"{packet.source} is not on {dev} in {namespace}"]
    way = yield from ask(AskRoute(namespace, packet.to, source="" if missing else packet.source))
    if way.local:
        diary.tell(f"is for {namespace} itself", Evidence(way.route))
        return None
    if way.refused:
        missing.append(f"no route to {packet.to} in {namespace}: {way.refused}")
    elif way.dev != dev:
        missing.append(f"the route to {packet.to} in {namespace} is by {way.dev or 'no device'}, not by {dev}")
    then = f"hands it to {way.via}" if way.via else "sends it straight"
    evidence = () if way.refused else (Evidence(f"route: {way.route}"),)
    lost = bool(missing)
    diary.tell(f"namespace {namespace} {then} on {dev}", *evidence, missing=(*missing, *(wrong if missing else ())))
    return None if lost else (packet, way.via or packet.to)


def _as_told(scene: Scene, diary: Diary, port: Port, packet: Packet) -> tuple[Packet, str] | None:
    network = scene.network(port)
    source = source_of(port, packet.to)
    if source is None:
        diary.tell("does not leave", missing=(f"port {port.name} has no IPv{packet.version} address",))
        return None
    packet = replace(packet, source=packet.source or source.ip)
    if ip_address(packet.to) in ip_network(str(source), strict=False):
        return packet, packet.to
    via, why = _next_hop(scene.topology, network, source, packet.to)
    if not via:
        diary.tell("does not leave", missing=(why,))
        return None
    diary.tell(f"{packet.to} is in another subnet: {why}")
    return packet, via


def _next_hop(topology: Topology, network: Network, source: Address, to: str) -> tuple[str, str]:
    """By what its DHCP server tells an instance: the next hop and why, or '' and why there is none."""
    subnet = next((each for each in network.subnets if each.id == source.subnet), None)
    if subnet is None:
        return "", f"the subnet of {source.ip} is not in the model"
    told = [route for route in subnet.spec.host_routes if ip_address(to) in ip_network(route.to)]
    if told:
        best = max(told, key=lambda route: ip_network(route.to).prefixlen)
        return best.via, f"host route {best.to} of subnet {subnet.name} says {best.via} ({subnet.origin})"
    server = dnsmasq.metadata_server(topology, network, subnet) if to == dnsmasq.METADATA else None
    if server is not None:
        return server, f"its DHCP server {server} serves metadata"
    gateway = subnet.spec.gateway_ip
    if gateway is None:
        return "", f"subnet {subnet.name} ({subnet.spec.cidr}) has no gateway ({subnet.origin})"
    if gateway == source.ip:
        return "", f"{gateway} is the gateway of subnet {subnet.name} itself"
    return gateway, f"its gateway is {gateway} ({subnet.origin})"
