"""What the numbers, addresses and names on a node stand for in its model: VLANs, keys, MACs, devices, namespaces.

`flow_words` tells flows with them, `describe` every kind of resource, `explain` puts the sentences together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from desired.network.calling import device_name
from desired.network.here import tunnel_name
from desired.network.model import TUNNELLED
from desired.network.topology import Network, Node, Port, Router, Topology

MULTICAST = "01:00:00:00:00:00/01:00:00:00:00:00"
UNICAST = "00:00:00:00:00:00/01:00:00:00:00:00"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Names:
    """What numbers and addresses on one node stand for."""

    topology: Topology
    vlans: Mapping[str, int]
    """Network id to local VLAN."""
    node: str = ""
    _networks: dict[int, Network] = field(default_factory=dict)
    _segments: dict[int, Network] = field(default_factory=dict)
    _macs: dict[str, Port] = field(default_factory=dict)
    _devices: dict[str, Port] = field(default_factory=dict)
    _tunnels: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.topology.nodes.values():
            for kind in TUNNELLED if node.spec.tunnel_ip else ():
                self._tunnels[tunnel_name(kind, str(node.spec.tunnel_ip))] = node
        for network in self.topology.networks.values():
            vlan = self.vlans.get(network.id)
            if vlan is not None:
                self._networks[vlan] = network
                if network.spec.segmentation_id is not None:
                    self._segments.setdefault(network.spec.segmentation_id, network)
            for port in network.ports:
                self._macs.setdefault(port.mac, port)
                self._devices.setdefault(device_name(port), port)

    def vlan(self, number: int) -> str:
        network = self._networks.get(number)
        return f"local VLAN {number}" + (f" (network {network.name})" if network else "")

    def segment(self, number: int, what: str) -> str:
        network = self._segments.get(number)
        return f"{what} {number}" + (f" (network {network.name})" if network else "")

    def mac(self, text: str) -> str:
        if text == MULTICAST:
            return "everybody (broadcast and multicast)"
        if text == UNICAST:
            return "one receiver (unicast)"
        port = self._macs.get(text)
        return text + (f" ({self.port(port)})" if port else "")

    def port(self, port: Port) -> str:
        """A port in words: whose it is, and where."""
        where = "here" if port.node == self.node and port.node else f"on node {port.node}" if port.node else "nowhere"
        match port.owner.value:
            case "dhcp":
                return f"the DHCP server of network {self._network(port.network)}, {where}"
            case "router_interface" | "router_gateway":
                router = self.topology.routers.get(port.device)
                side = "outside" if port.owner.value == "router_gateway" else "inside"
                return f"router {router.name if router else port.device}, {side}, {where}"
        return f"port {port.name}, {where}"

    def device(self, name: str) -> str:
        """A port of Open vSwitch by its name."""
        options = self.topology.options
        known = {
            "patch-tun": f"the patch to {options.tunnel_bridge}",
            "patch-int": f"the patch to {options.integration_bridge}",
        }
        if name in known:
            return f"{name} ({known[name]})"
        if name.startswith("int-"):
            return f"{name} (the patch to {name.removeprefix('int-')})"
        if name.startswith("phy-"):
            return f"{name} (the patch to {options.integration_bridge})"
        node, port = self._tunnels.get(name), self._devices.get(name)
        if node is not None:
            return f"{name} (the tunnel to {node.name})"
        return f"{name} ({self.port(port)})" if port is not None else name

    def place(self, namespace: str) -> str:
        """A network namespace, by whose it is."""
        head, _, tail = namespace.partition("-")
        if namespace == "host":
            return "on the host"
        if head == "qrouter" and tail in self.topology.routers:
            return f"in the namespace of router {self.topology.routers[tail].name}"
        if head == "qdhcp" and tail in self.topology.networks:
            return f"in the namespace of the DHCP server of network {self.topology.networks[tail].name}"
        return f"in namespace {namespace}"

    def whose(self, name: str) -> str:
        """Whose a service or a file is whose name has the id of a network or router in it; '' when nobody's."""
        for own in _ID.findall(name):
            if own in self.topology.networks:
                return f"network {self.topology.networks[own].name}"
            if own in self.topology.routers:
                return f"router {self.topology.routers[own].name}"
        return ""

    def physical(self, number: int, bridge: str) -> str:
        """A VLAN on the wire of a bridge to a physical network."""
        own = self.topology.nodes.get(self.node)
        mapped = {} if own is None else own.spec.bridge_mappings
        for network in self.topology.networks.values():
            spec = network.spec
            if (spec.type, spec.segmentation_id) == ("vlan", number) and mapped.get(
                spec.physical_network or ""
            ) == bridge:
                return f"VLAN {number} outside (network {network.name})"
        return f"VLAN {number} outside"

    def _network(self, network_id: str) -> str:
        network = self.topology.networks.get(network_id)
        return network.name if network else network_id


def router_words(router: Router, names: Names) -> str:
    """A router in one sentence."""
    inside = ", ".join(str(address) for port in router.interfaces for address in port.addresses) or "no subnet"
    outside = ", ".join(address.ip for address in router.gateway.addresses) if router.gateway else ""
    way = f" and leads outside as {outside}" if outside else " and leads nowhere else"
    where = "here" if router.node == names.node else f"on node {router.node}"
    return f"router {router.name} ({where}) serves {inside}{way}"
