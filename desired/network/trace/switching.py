"""One way through Open vSwitch: from where a frame comes in to where it has to get, and whether it does.

Where it has to get is the model's word (whose MAC it is, and on which node); whether it gets there is the switch's.
"""

from __future__ import annotations

from desired.network.topology import Port
from desired.network.trace.aim import Aim, AtHost, AtNode, AtPort, Frame, Landing, Outside, aim_of, is_nic
from desired.network.trace.losing import doubts, lost, not_right, wrong_key
from desired.network.trace.questions import AskFlows, Asking, AskInside, AskNeighbour, Forwarding, ask
from desired.network.trace.scene import Scene, holder
from desired.network.trace.told import Diary, Packet

_UNKNOWN_MAC = "02:00:00:00:00:01"
"""Of a receiver that is nobody's, so that what is done with its frames is what is done with unknown ones."""


def switched(scene: Scene, diary: Diary, frame: Frame, packet: Packet) -> Asking[Landing | None]:
    """Follow a frame through the bridges; None when it gets lost."""
    target = holder(scene.topology, frame.network, frame.next_hop)
    mac, unsure, missing = yield from _receiver(frame, target)
    aim = aim_of(scene, frame, target)
    sentence = _sentence(scene, frame, target)
    if isinstance(aim, str):
        wrong = not_right(scene, frame, (frame.device.bridge,), mac)
        diary.tell(sentence, missing=(aim, *wrong))
        return None
    told = yield from ask(AskFlows(frame.device.bridge, _flow(frame, packet, mac)))
    landing = yield from _landed(scene, frame, aim, told)
    if landing is None:
        missing += lost(scene, aim, told)
    else:
        missing += wrong_key(frame.network, aim, told)
        if target is not None and frame.key is None and frame.vlan is None and packet.version == 4:
            missing += yield from _arp(scene, frame, aim, packet)
    steps = [scene.flow(step) for step in told.steps if step.bridge in aim.chain]
    fine = diary.tell(
        f"{sentence}: {'gets lost' if landing is None else _arrival(landing)}",
        *steps,
        missing=(*missing, *(not_right(scene, frame, aim.chain, mac) if missing else ())),
        doubts=(*unsure, *doubts(aim, told)),
    )
    return landing if fine else None


def _sentence(scene: Scene, frame: Frame, target: Port | None) -> str:
    whom = scene.names.port(target) if target is not None else "which no port of the model has"
    return f"{frame.device.bridge}, from {frame.device.name} to {frame.next_hop} ({whom})"


def _receiver(frame: Frame, target: Port | None) -> Asking[tuple[str, list[str], list[str]]]:
    """The MAC it is sent to, what is doubtful about that, and what is missing."""
    if target is None and not frame.network.spec.external:
        unanswered = f"no port of network {frame.network.name} has {frame.next_hop}: ARP is unanswered"
        return _UNKNOWN_MAC, [], [unanswered]
    known, state = "", ""
    if frame.space is not None:
        known, state = yield from ask(AskNeighbour(frame.space[0], frame.next_hop, frame.space[1]))
    doubts, missing = [], []
    space, dev = frame.space or ("", "")
    if target is not None and known and known != target.mac:
        missing.append(f"{space} takes {frame.next_hop} to be {known}; it is {target.mac}")
    elif target is not None and state == "FAILED":
        doubts.append(f"{space} got no answer when it last asked for {frame.next_hop}")
    elif target is None and state == "FAILED":
        missing.append(f"nobody answers ARP for {frame.next_hop} on {dev}")
    elif target is None and space and not known:
        doubts.append(f"{space} has not asked yet who has {frame.next_hop}")
    return known or (target.mac if target is not None else _UNKNOWN_MAC), doubts, missing


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
    more = f",tp_dst={packet.port},tp_src=40000" if packet.port else ",icmpv6_type=128" if six else ",icmp_type=8"
    return (
        f"in_port={frame.device.ofport}{carried},{kind},dl_src={frame.mac},dl_dst={mac},"
        f"{field}_src={packet.source},{field}_dst={packet.to},nw_ttl=64{more}"
    )


def _landed(scene: Scene, frame: Frame, aim: Aim, told: Forwarding) -> Asking[Landing | None]:
    """Where it is after all flows, if that is where it has to be."""
    if aim.port is not None:
        device = aim.device
        return AtPort(aim.port, device.name) if device is not None and device.odp in told.ports else None
    if aim.remote:
        return AtNode(aim.node, "tunnel") if aim.remote in _ends(told) else None
    reached = [device for device in map(scene.switch.numbered, told.ports) if device and device.bridge == aim.physical]
    if not aim.node and any(device.name == aim.physical for device in reached):
        host = yield from ask(AskInside("", 4))
        link = host.links.get(aim.physical)
        if link is not None and any(address.startswith(f"{frame.next_hop}/") for address in link.addresses):
            return AtHost(aim.physical)
    nic = next((device for device in reached if is_nic(device)), None)
    if nic is None:
        return None
    return AtNode(aim.node, f"NIC {nic.name}") if aim.node else Outside(nic.name)


def _ends(told: Forwarding) -> set[str]:
    return {tunnel.to for tunnel in told.tunnels}


def _arp(scene: Scene, frame: Frame, aim: Aim, packet: Packet) -> Asking[list[str]]:
    """Would a request for the receiver's MAC be answered? It must get to it, or an answer must come back at once."""
    flow = (
        f"in_port={frame.device.ofport},arp,dl_src={frame.mac},dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,"
        f"arp_spa={packet.source},arp_tpa={frame.next_hop},arp_sha={frame.mac}"
    )
    told = yield from ask(AskFlows(frame.device.bridge, flow))
    landed = yield from _landed(scene, frame, aim, told)
    if landed is not None or frame.device.odp in told.ports:
        return []
    why = "; ".join(lost(scene, aim, told))
    return [f"nobody would answer the ARP request for {frame.next_hop}: {why}"]


def _arrival(landing: Landing) -> str:
    match landing:
        case AtPort(_, device):
            return f"comes out at {device}"
        case AtNode(node, "tunnel"):
            return f"goes into the tunnel to {node}"
        case AtNode(node, by):
            return f"goes out by {by}, to {node}"
        case AtHost(device):
            return f"comes out at {device}, this machine itself"
        case Outside(nic):
            return f"goes out by {nic}"
