"""The whole way of a packet, from hop to hop: sender, Open vSwitch, a router's namespace, Open vSwitch again, …

It ends at who it is for, at the edge of this node (a tunnel, a NIC), or where something is missing. What happens on
another node only that node can say; the command to ask it is part of the answer.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from ipaddress import ip_address

from desired.network import dnsmasq
from desired.network.calling import device_name, own_namespace, ports_called
from desired.network.here import patch_name
from desired.network.model import TUNNELLED
from desired.network.topology import Network, Port
from desired.network.trace.aim import AtHost, AtNode, AtPort, Frame, Landing, Outside
from desired.network.trace.questions import Asking, AskInside, AskListening, AskSwitch, Device, ask
from desired.network.trace.routing import Delivered, routed
from desired.network.trace.scene import Scene, holder
from desired.network.trace.sender import sent, source_of
from desired.network.trace.switching import switched
from desired.network.trace.told import Diary, Packet, Traced
from desired.resource import ResourceId
from desired.schema.problem import did_you_mean

_HOPS = 12
"""Times through Open vSwitch; more is a loop."""

_STRANGER = "02:00:00:00:00:02"
"""The MAC of a sender outside, of whom nothing is known."""


class NotHereError(LookupError):
    """What was asked for is not to be found here. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`source` is what a person calls a port, or a NIC; `via` is the node out of whose tunnel the packet comes."""

    source: str
    to: str
    protocol: str = "icmp"
    port: int = 0
    via: str = ""


def trace(asked: Asked, scene: Scene) -> Asking[Traced]:
    """Follow the packet. Raises NotHereError when no port is meant, or another node has to be asked."""
    scene = replace(scene, switch=(yield from ask(AskSwitch())))
    diary = Diary()
    packet = Packet("", _address(asked.to, scene), asked.protocol, asked.port)
    begun = yield from _begun(asked, scene, diary, packet)
    if begun is None:
        return _ended(packet, diary, "it does not leave its sender")
    way = _Way(asked, scene, diary, begun[0])
    packet, frame = begun
    for _ in range(_HOPS):
        landing = yield from switched(scene, diary, frame, packet)
        found = yield from _landed(way, landing, frame, packet)
        if isinstance(found, Traced):
            return found
        packet, frame = found
    diary.tell("goes round in a loop", missing=(f"it is still on its way after {_HOPS} times through Open vSwitch",))
    return _ended(way.first, diary, "it does not arrive")


@dataclass(frozen=True, slots=True)
class _Way:
    """What stays the same from hop to hop. `first` is the packet as it was sent."""

    asked: Asked
    scene: Scene
    diary: Diary
    first: Packet


def _landed(way: _Way, landing: Landing | None, frame: Frame, packet: Packet) -> Asking[Traced | tuple[Packet, Frame]]:
    """The end, or how it goes on, after one way through Open vSwitch."""
    if landing is None:
        return _ended(way.first, way.diary, "it does not arrive")
    if not isinstance(landing, AtPort):
        return _left(way.first, way.diary, landing, _onward(way.asked, way.scene, frame, packet))
    router = way.scene.router_of(landing.port)
    if router is None:
        return (yield from _received(way, landing.port, packet))
    through = yield from routed(way.scene, way.diary, router, landing.port, packet)
    if isinstance(through, Delivered):
        return Traced(way.first, tuple(way.diary.hops), arrives=True, end=f"it arrives: at {through.who}")
    device = None if through is None else way.scene.device_of(through.port)
    if through is not None and (device is None or not device.works):
        missing = _unplugged(way.scene, through.port, device)
        way.diary.tell(f"leaves by {device_name(through.port)}", missing=(missing,))
    if through is None or device is None or not device.works:
        return _ended(way.first, way.diary, "it does not arrive")
    out = through.port
    space = (f"qrouter-{router.id}", device_name(out))
    return through.packet, Frame(way.scene.network(out), device, out.mac, through.next_hop, space)


# -- the beginning ------------------------------------------------------------------------------------------------


def _address(text: str, scene: Scene) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        found = [port for port in ports_called(scene.topology, text) if port.addresses]
        if len(found) == 1:
            return found[0].addresses[0].ip
        raise NotHereError(f"--to {text!r} is no IP address and no port with one; right would be 10.6.0.21") from None


def _begun(asked: Asked, scene: Scene, diary: Diary, packet: Packet) -> Asking[tuple[Packet, Frame] | None]:
    nic = scene.switch.devices.get(asked.source)
    if nic is not None and nic.type in {"", "system"} and not ports_called(scene.topology, asked.source):
        return _from_outside(scene, diary, nic, packet)
    port = _sender(asked, scene)
    source = source_of(port, packet.to)
    packet = replace(packet, source="" if source is None else source.ip)
    told = scene.names.port(port)
    if asked.via:
        left = yield from sent(scene, Diary(), port, packet, here=False)
        if left is None:
            raise NotHereError(f"{told} cannot send to {packet.to} at all; ask on its own node")
        return _out_of_tunnel(asked, scene, diary, port, left)
    device = scene.device_of(port)
    if device is None or not device.works:
        diary.tell(f"from {told}", missing=(_unplugged(scene, port, device),))
        return None
    vlan = scene.names.vlans.get(port.network)
    missing = []
    if device.tag != vlan:
        missing.append(f"{device.name} has tag {device.tag}; network {scene.network(port).name} is local VLAN {vlan}")
    what = f"from {told}: device {device.name} of {device.bridge}, {scene.names.vlan(device.tag or 0)}"
    declared = (ResourceId("port", device.name), ResourceId("held_port", port.id))
    evidence = tuple(scene.evidence(rid) for rid in declared if rid in scene.resources)
    if not diary.tell(what, *evidence, missing=tuple(missing)):
        return None
    left = yield from sent(scene, diary, port, packet, here=True)
    if left is None:
        return None
    return left[0], Frame(scene.network(port), device, port.mac, left[1], own_namespace(port))


def _sender(asked: Asked, scene: Scene) -> Port:
    """The port that is meant. Raises NotHereError."""
    found = ports_called(scene.topology, asked.source)
    here = [port for port in found if port.node == scene.node]
    if not found:
        known = [name for port in scene.ports() for name in (port.name, device_name(port))]
        near = did_you_mean(asked.source, known) or "name it by its name, id, MAC, address or device"
        raise NotHereError(f"no port of the model is {asked.source!r}; {near}")
    if asked.via:
        found = [port for port in found if port.node == asked.via] or found
    elif here:
        found = here
    if len(found) > 1:
        raise NotHereError(f"{asked.source!r} is {len(found)} ports; say which: {', '.join(p.id for p in found)}")
    (port,) = found
    if asked.via or port.node == scene.node:
        return port
    if not port.node:
        raise NotHereError(f"port {port.name} is on no node, so nothing can be sent from it")
    command = _command(asked, asked.source, asked.to, "")
    raise NotHereError(f"{scene.names.port(port)}: ask there, on {port.node}: {command}")


def _out_of_tunnel(
    asked: Asked, scene: Scene, diary: Diary, port: Port, left: tuple[Packet, str]
) -> tuple[Packet, Frame] | None:
    """It has come from another node: out of the tunnel from there, or in from the wire between."""
    packet, next_hop = left
    network = scene.network(port)
    node = scene.topology.nodes.get(asked.via)
    if node is None:
        raise NotHereError(f"there is no node {asked.via!r}; the model has {', '.join(sorted(scene.topology.nodes))}")
    what = f"from {scene.names.port(port)}: comes from node {asked.via}"
    if network.spec.type in TUNNELLED:
        remote, kind = node.spec.tunnel_ip, network.spec.type
        device = next(
            (d for d in scene.switch.devices.values() if remote and (d.type, d.remote_ip) == (kind, remote)), None
        )
        if device is None or not device.works:
            diary.tell(what, missing=(f"there is no {kind} tunnel to {asked.via} here that works",))
            return None
        diary.tell(f"{what} by {device.name}, with key {network.spec.segmentation_id}")
        return packet, Frame(network, device, port.mac, next_hop, key=network.spec.segmentation_id)
    nic = _nic_of(scene, network)
    if nic is None:
        diary.tell(what, missing=(f"network {network.name} has no bridge with a NIC here",))
        return None
    diary.tell(f"{what} by {nic.name}")
    return packet, Frame(network, nic, port.mac, next_hop, vlan=network.spec.segmentation_id)


def _from_outside(scene: Scene, diary: Diary, nic: Device, packet: Packet) -> tuple[Packet, Frame] | None:
    """A stranger outside, behind the gateway of the external network that has the address."""
    for network in scene.topology.networks.values():
        if _nic_of(scene, network, nic.bridge) is None or holder(scene.topology, network, packet.to) is None:
            continue
        subnets = (s for s in network.subnets if s.spec.version == packet.version and s.spec.gateway_ip)
        source = next((str(subnet.spec.gateway_ip) for subnet in subnets), "")
        if source:
            diary.tell(f"from outside, by {nic.name} of {nic.bridge}, on network {network.name}")
            packet = replace(packet, source=source)
            return packet, Frame(network, nic, _STRANGER, packet.to, vlan=network.spec.segmentation_id)
    diary.tell(f"from outside, by {nic.name}", missing=(f"nobody in a network of {nic.bridge} has {packet.to}",))
    return None


def _nic_of(scene: Scene, network: Network, bridge: str = "") -> Device | None:
    node = scene.topology.nodes.get(scene.node)
    mapped = node.spec.bridge_mappings.get(network.spec.physical_network or "") if node is not None else None
    if mapped is None or (bridge and mapped != bridge):
        return None
    ends = {patch_name("phy-", mapped), mapped}
    here = [device for device in scene.switch.devices.values() if device.bridge == mapped and device.name not in ends]
    return next((device for device in here if device.type in {"", "system"}), None)


def _unplugged(scene: Scene, port: Port, device: Device | None) -> str:
    told = scene.names.port(port)
    if device is None:
        return f"{told} is not plugged: no device of {scene.topology.options.integration_bridge} has its id {port.id}"
    return f"device {device.name} of {told} does not work: {device.error or 'Open vSwitch has no device for it'}"


# -- the end ------------------------------------------------------------------------------------------------------


def _ended(packet: Packet, diary: Diary, end: str) -> Traced:
    missing = next((hop.missing[0] for hop in reversed(diary.hops) if hop.missing), "")
    return Traced(packet, tuple(diary.hops), arrives=False, end=f"{end}: {missing}" if missing else end)


def _received(way: _Way, port: Port, packet: Packet) -> Asking[Traced]:
    """It is at a port that is no router's."""
    told = way.scene.names.port(port)
    if packet.to not in {address.ip for address in port.addresses} and packet.to != dnsmasq.METADATA:
        doubt = f"it is for {packet.to}: what {told} does with it is its own affair"
        way.diary.tell(f"reaches {told}, as the next hop", doubts=(doubt,))
        end = f"it arrives at the next hop, {told}"
        return Traced(way.first, tuple(way.diary.hops), arrives=True, end=end)
    space = own_namespace(port)
    missing = () if space is None else (yield from _in_namespace(*space, packet))
    if space is not None:
        way.diary.tell(f"namespace {space[0]} receives it on {space[1]}", missing=missing)
    if missing:
        return _ended(way.first, way.diary, "it does not arrive")
    return Traced(way.first, tuple(way.diary.hops), arrives=True, end=f"it arrives: at {told}")


def _in_namespace(name: str, dev: str, packet: Packet) -> Asking[tuple[str, ...]]:
    """What is missing for a namespace to take the packet."""
    inside = yield from ask(AskInside(name, packet.version))
    link = inside.links.get(dev)
    missing = ""
    if not inside.there:
        missing = f"namespace {name} is gone"
    elif link is None or not link.up:
        missing = f"device {dev} {'is not' if link is None else 'is down'} in {name}"
    elif not any(address.startswith(f"{packet.to}/") for address in link.addresses):
        missing = f"{packet.to} is not on {dev} in {name}"
    elif packet.protocol in {"tcp", "udp"} and not (yield from ask(AskListening(name, packet.protocol, packet.port))):
        missing = f"nobody listens at {packet.protocol} port {packet.port} in {name}"
    return (missing,) if missing else ()


def _left(first: Packet, diary: Diary, landing: Landing, command: str) -> Traced:
    hops = tuple(diary.hops)
    match landing:
        case AtNode(node, _):
            end = f"it leaves this node for {node}, as it should; what happens there, {node} can say"
            return Traced(first, hops, arrives=True, end=end, node=node, command=command)
        case AtHost(device):
            return Traced(first, hops, arrives=True, end=f"it arrives: at this machine, on {device}")
        case Outside(nic):
            return Traced(first, hops, arrives=True, end=f"it leaves by {nic} to the outside, as it should")
        case AtPort():
            raise AssertionError("a port of this node is no way out of it")


def _onward(asked: Asked, scene: Scene, frame: Frame, packet: Packet) -> str:
    """What to ask the next node. There it is from whose MAC it has: a router's port, or who sent it."""
    last = next((port for port in frame.network.ports if port.mac == frame.mac), None)
    source = asked.source
    if last is not None:
        source = last.name if len(ports_called(scene.topology, last.name)) == 1 else last.id
    return _command(asked, source, packet.to, scene.node)


def _command(asked: Asked, source: str, to: str, via: str) -> str:
    words = ["reconcile", "trace", "--from", source, "--to", to]
    words += [f"--{asked.protocol}", str(asked.port)] if asked.port else []
    return shlex.join([*words, *(["--via", via] if via else [])])
