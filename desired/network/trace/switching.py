"""One way through Open vSwitch: from where a frame comes in to where it has to get, and whether it does.

Where it has to get is the model's word (whose MAC it is, and on which node); whether it gets there is the switch's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from desired.network.here import PATCH_INT, PATCH_TUN, patch_name
from desired.network.model import TUNNELLED
from desired.network.topology import Network, Port
from desired.network.trace.questions import (
    AskFlows,
    Asking,
    AskInside,
    AskNeighbour,
    Device,
    Forwarding,
    Step,
    ask,
)
from desired.network.trace.scene import Scene, device_name, holder
from desired.network.trace.told import Diary, Packet
from desired.resource import ResourceId

_FLOODED = "no learned MAC for destination, flooding"
_UNKNOWN_MAC = "02:00:00:00:00:01"
"""Of a receiver that is nobody's, so that what is done with its frames is what is done with unknown ones."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A packet on its way into a bridge: at `device`, from MAC `mac`, for whoever has address `next_hop`.

    `key` and `vlan` are what it carries when it comes out of a tunnel or in from a physical network. `space` is the
    namespace and the device that it comes from, if it comes from one.
    """

    network: Network
    device: Device
    mac: str
    next_hop: str
    space: tuple[str, str] | None = None
    key: int | None = None
    vlan: int | None = None


@dataclass(frozen=True, slots=True)
class AtPort:
    """It is at a port of the model on this node."""

    port: Port


@dataclass(frozen=True, slots=True)
class AtNode:
    """It is in a tunnel to another node, or on the wire to it."""

    node: str
    by: str


@dataclass(frozen=True, slots=True)
class AtHost:
    """It is at this machine's own address on a bridge."""

    device: str


@dataclass(frozen=True, slots=True)
class Outside:
    """It has left by a NIC."""

    nic: str


Landing = AtPort | AtNode | AtHost | Outside


@dataclass(frozen=True, slots=True)
class _Aim:
    """Where it has to get: a port here, a node by a tunnel (`remote` is the tunnel's end), or a physical bridge."""

    chain: tuple[str, ...]
    port: Port | None = None
    device: Device | None = None
    node: str = ""
    remote: str = ""
    physical: str = ""


def switched(scene: Scene, diary: Diary, frame: Frame, packet: Packet) -> Asking[Landing | None]:
    """Follow a frame through the bridges; None when it gets lost."""
    target = holder(scene.topology, frame.network, frame.next_hop)
    mac, doubts, unanswered = yield from _receiver(frame, target)
    aim = _aim(scene, frame, target)
    if isinstance(aim, str):
        diary.tell(_sentence(scene, frame, target), missing=(aim, *_wrong(scene, frame, (frame.device.bridge,), mac)))
        return None
    told = yield from ask(AskFlows(frame.device.bridge, _flow(frame, packet, mac)))
    landing = yield from _landed(scene, frame, aim, told)
    missing = [*unanswered, *([] if landing is not None else _lost(scene, aim, told))]
    if landing is not None and target is not None and frame.key is None and frame.vlan is None and packet.version == 4:
        missing += yield from _arp(scene, frame, aim, packet)
    if landing is not None:
        missing += _wrong_key(frame.network, aim, told)
    doubts += _doubts(aim, told)
    wrong = _wrong(scene, frame, aim.chain, mac) if missing else ()
    steps = [scene.flow(step) for step in told.steps if step.bridge in aim.chain]
    goes = _arrival(scene, landing) if landing is not None else "gets lost"
    sentence = f"{_sentence(scene, frame, target)}: {goes}"
    fine = diary.tell(sentence, *steps, missing=(*missing, *wrong), doubts=tuple(doubts))
    return landing if fine else None


def _sentence(scene: Scene, frame: Frame, target: Port | None) -> str:
    whom = scene.names.port(target) if target is not None else "which no port of the model has"
    return f"{frame.device.bridge}, from {frame.device.name} to {frame.next_hop} ({whom})"


def _receiver(frame: Frame, target: Port | None) -> Asking[tuple[str, list[str], list[str]]]:
    """The MAC it is sent to, what is doubtful about that, and what is missing."""
    if frame.space is None:
        if target is None and frame.network.spec.external is False:
            return (
                _UNKNOWN_MAC,
                [],
                [f"no port of network {frame.network.name} has {frame.next_hop}: ARP is unanswered"],
            )
        return (target.mac if target else _UNKNOWN_MAC), [], []
    known, state = yield from ask(AskNeighbour(frame.space[0], frame.next_hop, frame.space[1]))
    if target is not None:
        if known and known != target.mac:
            return known, [], [f"{frame.space[0]} takes {frame.next_hop} to be {known}; it is {target.mac}"]
        doubts = (
            [f"{frame.space[0]} got no answer when it last asked for {frame.next_hop}"] if state == "FAILED" else []
        )
        return target.mac, doubts, []
    if not frame.network.spec.external:
        return _UNKNOWN_MAC, [], [f"no port of network {frame.network.name} has {frame.next_hop}: ARP is unanswered"]
    if state == "FAILED":
        return known or _UNKNOWN_MAC, [], [f"nobody answers ARP for {frame.next_hop} on {frame.space[1]}"]
    doubts = [] if known else [f"{frame.space[0]} has not asked yet who has {frame.next_hop}"]
    return known or _UNKNOWN_MAC, doubts, []


def _aim(scene: Scene, frame: Frame, target: Port | None) -> _Aim | str:
    """Where the frame has to get, or what is missing for it to get anywhere."""
    options, network = scene.topology.options, frame.network
    begin = (frame.device.bridge,) if frame.device.bridge != options.integration_bridge else ()
    inner = (*begin, options.integration_bridge)
    if target is not None and target.node == scene.node:
        device = scene.device_of(target)
        if device is None:
            return f"{scene.names.port(target)} is not plugged: no device of {options.integration_bridge} has its id"
        if not device.works:
            return f"device {device.name} of {scene.names.port(target)} does not work: {device.error or 'no device'}"
        return _Aim(inner, port=target, device=device)
    if target is not None and not target.node:
        return f"port {target.name} is on no node"
    if network.spec.type in TUNNELLED and target is not None:
        remote = scene.topology.nodes.get(target.node)
        if remote is None or remote.spec.tunnel_ip is None:
            return f"node {target.node} has no tunnel address"
        chain = (*inner, options.tunnel_bridge) if not begin else inner
        return _Aim(chain, node=target.node, remote=remote.spec.tunnel_ip)
    own = scene.topology.nodes.get(scene.node)
    bridge = own.spec.bridge_mappings.get(network.spec.physical_network or "") if own is not None else None
    if bridge is None:
        if target is None:
            return f"nobody in network {network.name} has {frame.next_hop}"
        return f"node {scene.node} has no bridge for network {network.name} ({network.spec.physical_network})"
    return _Aim((*inner, bridge), node="" if target is None else target.node, physical=bridge)


def _flow(frame: Frame, packet: Packet, mac: str) -> str:
    six = packet.version == 6
    carried = "".join(
        (
            f",tun_id={frame.key:#x}" if frame.key is not None else "",
            f",dl_vlan={frame.vlan}" if frame.vlan is not None else "",
        )
    )
    kind = {"icmp": "icmp6" if six else "icmp"}.get(packet.protocol, packet.protocol + ("6" if six else ""))
    field = "ipv6" if six else "nw"
    more = f",tp_dst={packet.port},tp_src=40000" if packet.port else f",icmp_type={128 if six else 8}"
    return (
        f"in_port={frame.device.ofport}{carried},{kind},dl_src={frame.mac},dl_dst={mac},"
        f"{field}_src={packet.source},{field}_dst={packet.to},nw_ttl=64{more}"
    )


def _landed(scene: Scene, frame: Frame, aim: _Aim, told: Forwarding) -> Asking[Landing | None]:
    """Where it is after all flows, if that is where it has to be."""
    if aim.port is not None:
        there = aim.device is not None and aim.device.odp in told.ports
        return AtPort(aim.port) if there else None
    if aim.remote:
        return AtNode(aim.node, "tunnel") if aim.remote in _ends(told) - set(told.unrouted) else None
    reached = [device for device in map(scene.switch.numbered, told.ports) if device and device.bridge == aim.physical]
    if not aim.node and any(device.name == aim.physical for device in reached):
        host = yield from ask(AskInside("", 4))
        link = host.links.get(aim.physical)
        if link is not None and any(address.startswith(f"{frame.next_hop}/") for address in link.addresses):
            return AtHost(aim.physical)
    nic = next((device for device in reached if _is_nic(device)), None)
    if nic is None:
        return None
    return AtNode(aim.node, f"NIC {nic.name}") if aim.node else Outside(nic.name)


def _is_nic(device: Device) -> bool:
    return device.type in {"", "system"} and device.name != device.bridge


def _ends(told: Forwarding) -> set[str]:
    return {tunnel.to for tunnel in told.tunnels}


def _lost(scene: Scene, aim: _Aim, told: Forwarding) -> Iterator[str]:
    """Why it did not get where it has to."""
    crossed = told.bridges()
    for before, bridge in zip(aim.chain, aim.chain[1:], strict=False):
        if bridge not in crossed:
            yield from _unjoined(scene, before, bridge)
            return
    for end in told.unrouted:
        yield f"Open vSwitch knows no route to {end}, the other end of the tunnel"
    if aim.physical:
        here = [device for device in scene.switch.devices.values() if device.bridge == aim.physical]
        if not any(_is_nic(device) for device in here):
            yield f"no NIC is a port of {aim.physical}"
            return
    if aim.remote and not any(device.remote_ip == aim.remote for device in scene.switch.devices.values()):
        yield f"there is no tunnel to {aim.node} ({aim.remote})"
    last = next((step for step in reversed(told.steps) if step.bridge == aim.chain[-1]), None)
    if last is None:
        yield f"no flow of {aim.chain[-1]} was met"
    elif _drops(last):
        yield f"dropped on {last.bridge}: {_where(last)}"
    elif not told.unrouted:
        whither = aim.device.name if aim.device else aim.remote or f"the NIC of {aim.physical}"
        yield f"nothing on {last.bridge} sends it to {whither}; the last flow it meets is in {_where(last)}"


def _where(step: Step) -> str:
    return f"table {step.table}" + (", where no flow matches" if step.priority < 0 else f", priority {step.priority}")


def _drops(step: Step) -> bool:
    return step.priority < 0 or not step.actions or step.actions == ("drop",)


def _unjoined(scene: Scene, before: str, bridge: str) -> Iterator[str]:
    """Why nothing gets from one bridge to the other."""
    if bridge not in scene.switch.bridges:
        yield f"bridge {bridge} is missing"
        return
    for name, peer, place in _patches(scene, before, bridge):
        device = scene.switch.devices.get(name)
        if device is None:
            yield f"patch port {name} of {place} is missing"
        elif device.bridge != place or device.peer != peer:
            yield f"{name} is a port of {device.bridge} with peer {device.peer or 'none'}; not one of {place} to {peer}"
        else:
            continue
        return
    yield f"no flow of {before} sends it to {bridge}"


def _patches(scene: Scene, one: str, other: str) -> Sequence[tuple[str, str, str]]:
    options = scene.topology.options
    outer = other if one == options.integration_bridge else one
    inner_name, outer_name = (
        (PATCH_TUN, PATCH_INT)
        if outer == options.tunnel_bridge
        else (patch_name("int-", outer), patch_name("phy-", outer))
    )
    return (inner_name, outer_name, options.integration_bridge), (outer_name, inner_name, outer)


def _arp(scene: Scene, frame: Frame, aim: _Aim, packet: Packet) -> Asking[list[str]]:
    """Would a request for the receiver's MAC be answered? It must get to it, or an answer must come back at once."""
    flow = (
        f"in_port={frame.device.ofport},arp,dl_src={frame.mac},dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,"
        f"arp_spa={packet.source},arp_tpa={frame.next_hop},arp_sha={frame.mac}"
    )
    told = yield from ask(AskFlows(frame.device.bridge, flow))
    landed = yield from _landed(scene, frame, aim, told)
    if landed is not None or frame.device.odp in told.ports:
        return []
    why = "; ".join(_lost(scene, aim, told))
    return [f"nobody would answer the ARP request for {frame.next_hop}: {why}"]


def _wrong_key(network: Network, aim: _Aim, told: Forwarding) -> Iterator[str]:
    keys = {tunnel.key for tunnel in told.tunnels if tunnel.to == aim.remote} - {None}
    if aim.remote and keys and keys != {network.spec.segmentation_id}:
        found = ", ".join(map(str, sorted(key for key in keys if key is not None)))
        yield f"it leaves with tunnel key {found}; network {network.name} has {network.spec.segmentation_id}"


def _doubts(aim: _Aim, told: Forwarding) -> list[str]:
    found = []
    if aim.remote in told.unresolved:
        found.append(f"the switch does not know the MAC of {aim.remote} yet, and asks for it when a packet comes")
    flooded = [step.bridge for step in told.steps if _FLOODED in step.notes and step.bridge in aim.chain]
    for bridge in dict.fromkeys(flooded):
        found.append(f"{bridge} has not learnt where the MAC is, and floods")
    return found


def _wrong(scene: Scene, frame: Frame, chain: Iterable[str], mac: str) -> tuple[str, ...]:
    """What is not as declared on these bridges."""
    bridges = set(chain)
    flows = tuple(f"flow/{bridge}/" for bridge in bridges)
    names = {PATCH_INT, PATCH_TUN, frame.device.name, *bridges}
    names |= {patch_name(prefix, bridge) for prefix in ("int-", "phy-") for bridge in bridges}

    def concerns(rid: ResourceId) -> bool:
        tunnel = rid.kind == "port" and rid.name.startswith(("gre-", "vxlan-", "geneve-"))
        return f"{rid}".startswith(flows) or rid.name in names or tunnel

    key, vlan = frame.network.spec.segmentation_id, scene.names.vlans.get(frame.network.id)
    return scene.not_right(concerns, first=(mac, f"tun_id={key}", f"dl_vlan={vlan}"))


def _arrival(scene: Scene, landing: Landing) -> str:
    match landing:
        case AtPort(port):
            return f"comes out at {device_name(port)}"
        case AtNode(node, "tunnel"):
            return f"goes into the tunnel to {node}"
        case AtNode(node, by):
            return f"goes out by {by}, to {node}"
        case AtHost(device):
            return f"comes out at {device}, this machine itself"
        case Outside(nic):
            return f"goes out by {nic}"
