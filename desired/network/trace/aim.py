"""A frame that enters Open vSwitch, where the model says that it has to get, and where it may end up."""

from __future__ import annotations

from dataclasses import dataclass

from desired.network.model import TUNNELLED
from desired.network.topology import Network, Port
from desired.network.trace.questions import Device
from desired.network.trace.scene import Scene


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
    """It is at a port of the model on this node, which is `device` of Open vSwitch."""

    port: Port
    device: str


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
class Aim:
    """Where it has to get: a port here, a node by a tunnel (`remote` is the tunnel's end), or a physical bridge."""

    chain: tuple[str, ...]
    port: Port | None = None
    device: Device | None = None
    node: str = ""
    remote: str = ""
    physical: str = ""


def aim_of(scene: Scene, frame: Frame, target: Port | None) -> Aim | str:
    """Where the frame has to get, or what is missing for it to get anywhere."""
    options = scene.topology.options
    begin = (frame.device.bridge,) if frame.device.bridge != options.integration_bridge else ()
    inner = (*begin, options.integration_bridge)
    if target is None:
        return _by_wire(scene, frame, None, inner)
    if target.node == scene.node:
        return _at_home(scene, target, inner)
    if not target.node:
        return f"port {target.name} is on no node"
    if frame.network.spec.type not in TUNNELLED:
        return _by_wire(scene, frame, target, inner)
    remote = scene.topology.nodes.get(target.node)
    if remote is None or remote.spec.tunnel_ip is None:
        return f"node {target.node} has no tunnel address"
    chain = inner if begin else (*inner, options.tunnel_bridge)
    return Aim(chain, node=target.node, remote=remote.spec.tunnel_ip)


def _at_home(scene: Scene, target: Port, chain: tuple[str, ...]) -> Aim | str:
    device, told = scene.device_of(target), scene.names.port(target)
    if device is None:
        return f"{told} is not plugged: no device of {chain[-1]} has its id"
    if not device.works:
        return f"device {device.name} of {told} does not work: {device.error or 'Open vSwitch has no device for it'}"
    return Aim(chain, port=target, device=device)


def _by_wire(scene: Scene, frame: Frame, target: Port | None, chain: tuple[str, ...]) -> Aim | str:
    """By the bridge of its physical network, if this node has one."""
    network, own = frame.network, scene.topology.nodes.get(scene.node)
    bridge = own.spec.bridge_mappings.get(network.spec.physical_network or "") if own is not None else None
    if bridge is not None:
        return Aim((*chain, bridge), node="" if target is None else target.node, physical=bridge)
    if target is None:
        return f"nobody in network {network.name} has {frame.next_hop}"
    return f"node {scene.node} has no bridge for network {network.name} ({network.spec.physical_network})"


def is_nic(device: Device) -> bool:
    return device.type in {"", "system"} and device.name != device.bridge
