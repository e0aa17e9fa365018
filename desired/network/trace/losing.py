"""Why a frame did not get where it has to, and what else about its way is not as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from desired.kinds.ovs import PortSpec
from desired.network.here import PATCH_INT, PATCH_TUN, patch_name
from desired.network.topology import Network
from desired.network.trace.aim import Aim, Frame, is_nic
from desired.network.trace.questions import Forwarding, Step
from desired.network.trace.scene import Scene
from desired.resource import ResourceId

_FLOODED = "no learned MAC for destination, flooding"


def lost(scene: Scene, aim: Aim, told: Forwarding) -> Iterator[str]:
    """Why it did not get where it has to."""
    crossed = told.bridges()
    for before, bridge in zip(aim.chain, aim.chain[1:], strict=False):
        if bridge not in crossed:
            yield _unjoined(scene, told, before, bridge)
            return
    absent = _absent(scene, aim)
    if absent:
        yield absent
        return
    if aim.remote and told.unrouted:
        yield f"Open vSwitch knows no route to {aim.remote}, the other end of the tunnel"
        return
    last = next((step for step in reversed(told.steps) if step.bridge == aim.chain[-1]), None)
    if last is None:
        yield f"no flow of {aim.chain[-1]} was met"
    elif _drops(last):
        yield f"dropped on {last.bridge}: {_where(last)}"
    else:
        whither = aim.device.name if aim.device else aim.remote or f"the NIC of {aim.physical}"
        yield f"nothing on {last.bridge} sends it to {whither}; the last flow it meets is in {_where(last)}"


def _absent(scene: Scene, aim: Aim) -> str:
    """What is not there at the end of its way, or is not as it has to be; '' when it is."""
    devices = scene.switch.devices.values()
    if aim.device is not None and aim.port is not None:
        vlan = scene.names.vlans.get(aim.port.network)
        wrong = f"{aim.device.name} has tag {aim.device.tag}; its network is local VLAN {vlan}"
        return "" if aim.device.tag == vlan else wrong
    if aim.physical and not any(device.bridge == aim.physical and is_nic(device) for device in devices):
        return f"no NIC is a port of {aim.physical}"
    if aim.remote and not any(device.remote_ip == aim.remote for device in devices):
        return f"there is no tunnel to {aim.node} ({aim.remote})"
    return ""


def _where(step: Step) -> str:
    return f"table {step.table}" + (", where no flow matches" if step.priority < 0 else f", priority {step.priority}")


def _drops(step: Step) -> bool:
    return step.priority < 0 or not step.actions or step.actions == ("drop",)


def _unjoined(scene: Scene, told: Forwarding, before: str, bridge: str) -> str:
    """Why nothing gets from one bridge to the other."""
    if bridge not in scene.switch.bridges:
        return f"bridge {bridge} is missing"
    for name, peer, place in _patches(scene, before, bridge):
        device = scene.switch.devices.get(name)
        if device is None:
            return f"patch port {name} of {place} is missing"
        if device.bridge != place or device.peer != peer:
            return (
                f"{name} is a port of {device.bridge} with peer {device.peer or 'none'}; not one of {place} to {peer}"
            )
    last = next((step for step in reversed(told.steps) if step.bridge == before), None)
    if last is not None and _drops(last):
        return f"dropped on {before}: {_where(last)}"
    return f"no flow of {before} sends it to {bridge}"


def _patches(scene: Scene, one: str, other: str) -> Sequence[tuple[str, str, str]]:
    options = scene.topology.options
    outer = other if one == options.integration_bridge else one
    inner_name, outer_name = (
        (PATCH_TUN, PATCH_INT)
        if outer == options.tunnel_bridge
        else (patch_name("int-", outer), patch_name("phy-", outer))
    )
    return (inner_name, outer_name, options.integration_bridge), (outer_name, inner_name, outer)


def wrong_key(network: Network, aim: Aim, told: Forwarding) -> Iterator[str]:
    keys = {tunnel.key for tunnel in told.tunnels if tunnel.to == aim.remote} - {None}
    if aim.remote and keys and keys != {network.spec.segmentation_id}:
        found = ", ".join(map(str, sorted(key for key in keys if key is not None)))
        yield f"it leaves with tunnel key {found}; network {network.name} has {network.spec.segmentation_id}"


def doubts(aim: Aim, told: Forwarding) -> Iterator[str]:
    if aim.remote in told.unresolved:
        yield f"the switch does not know the MAC of {aim.remote} yet, and asks for it when a packet comes"
    flooding = {step.bridge for step in told.steps if _FLOODED in step.notes} & set(aim.chain)
    if flooding:
        yield f"where the MAC is was not learnt yet: it is flooded on {' and '.join(sorted(flooding))}"


def not_right(scene: Scene, frame: Frame, chain: Iterable[str], mac: str) -> tuple[str, ...]:
    """What is not as declared on these bridges."""
    bridges = set(chain)
    flows = tuple(f"flow/{bridge}/" for bridge in bridges)
    names = {frame.device.name, *bridges}

    def concerns(rid: ResourceId) -> bool:
        resource = scene.resources.get(rid)
        port = resource is not None and isinstance(resource.spec, PortSpec) and resource.spec.bridge in bridges
        return port or str(rid).startswith(flows) or rid.name in names

    key, vlan = frame.network.spec.segmentation_id, scene.names.vlans.get(frame.network.id)
    return scene.not_right(concerns, first=("port/", mac, f"tun_id={key}", f"dl_vlan={vlan}"))
