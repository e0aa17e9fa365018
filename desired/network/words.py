"""What a compiled thing is for, in words: flows, tags, ports, namespaces, addresses, rules, services, files.

A flow is told field by field, with the local VLANs, tunnel keys, MACs and ports in it named for what they are; so
flows that a person wrote are told as well. Pure; `explain` puts these sentences together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from desired.kinds.openflow import split_flow
from desired.network.topology import Network, Node, Port, Router, Topology

MULTICAST = "01:00:00:00:00:00/01:00:00:00:00:00"
UNICAST = "00:00:00:00:00:00/01:00:00:00:00:00"

TABLES: Mapping[tuple[str, int], str] = {
    ("tun", 2): "what comes from br-int",
    ("tun", 3): "what comes out of a gre tunnel",
    ("tun", 4): "what comes out of a vxlan tunnel",
    ("tun", 6): "what comes out of a geneve tunnel",
    ("tun", 10): "learning where senders are",
    ("tun", 20): "to a MAC whose node is known",
    ("tun", 21): "ARP answered here",
    ("tun", 22): "flooding",
    ("int", 23): "the canary of the agent",
    ("int", 24): "against ARP spoofing",
    ("int", 60): "transient",
}
"""What the tables of the multi-table layout are for."""


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

    def __post_init__(self) -> None:
        for network in self.topology.networks.values():
            vlan = self.vlans.get(network.id)
            if vlan is not None:
                self._networks[vlan] = network
                if network.spec.segmentation_id is not None:
                    self._segments.setdefault(network.spec.segmentation_id, network)
            for port in network.ports:
                self._macs.setdefault(port.mac, port)

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
        node = self._peer(name)
        return f"{name} (the tunnel to {node.name})" if node else name

    def _peer(self, name: str) -> Node | None:
        kind, _, tail = name.partition("-")
        if kind not in {"gre", "vxlan", "geneve"} or not re.fullmatch(r"[0-9a-f]{8}", tail):
            return None
        address = ".".join(str(byte) for byte in bytes.fromhex(tail))
        return next((node for node in self.topology.nodes.values() if node.spec.tunnel_ip == address), None)

    def _network(self, network_id: str) -> str:
        network = self.topology.networks.get(network_id)
        return network.name if network else network_id


# -- flows --------------------------------------------------------------------------------------------------------


def flow_words(bridge: str, text: str, names: Names) -> str:
    """A flow as a sentence."""
    head, actions = split_flow(text)
    fields: dict[str, str] = {}
    for part in head.split(","):
        name, _, value = part.partition("=")
        fields[name] = value
    table = int(fields.pop("table", "0") or 0)
    fields.pop("priority", None)
    who = _joined(list(_conditions(fields, names)))
    options = names.topology.options
    place = {options.tunnel_bridge: "tun", options.integration_bridge: "int"}.get(bridge, "")
    told = TABLES.get((place, table))
    where = f"on {bridge}" + (f", table {table}" if table else "") + (f" ({told})" if told else "")
    does = _joined(list(_deeds(actions, bridge, names)))
    return f"{where}: what {who}: {does}" if who else f"{where}: anything else {does}"


def _conditions(fields: Mapping[str, str], names: Names) -> Iterator[str]:
    told: dict[str, Callable[[str], str]] = {
        "in_port": lambda value: f"comes in at {names.device(value.strip(chr(34)))}",
        "dl_vlan": lambda value: _untagged(value) or f"is in {names.vlan(int(value, 0))}",
        "tun_id": lambda value: f"has {names.segment(int(value, 0), 'tunnel key')}",
        "dl_dst": lambda value: f"is for {names.mac(value)}",
        "dl_src": lambda value: f"is from {names.mac(value)}",
        "nw_src": lambda value: f"is from {value}",
        "nw_dst": lambda value: f"is for {value}",
        "arp_tpa": lambda value: f"asks for {value}",
        "arp_spa": lambda value: f"says it is {value}",
    }
    for name, value in fields.items():
        if name in told:
            yield told[name](value)
        elif value:
            yield f"has {name} {value}"
        elif name:
            yield f"is {name.upper()}"


def _untagged(value: str) -> str:
    return "is untagged" if int(value, 0) in {0xFFFF, 0} else ""


def _deeds(actions: str, bridge: str, names: Names) -> Iterator[str]:
    for action in _split(actions):
        name, _, value = re.sub(r"[:(]", "\0", action, count=1).partition("\0")
        value = value.rstrip(")") if "(" in action else value
        yield _deed(name.strip().lower(), value.strip(), bridge, names) or f"gets {action}"


def _deed(name: str, value: str, bridge: str, names: Names) -> str:
    port = value.strip('"')
    told: dict[str, Callable[[], str]] = {
        "": lambda: "is dropped",
        "drop": lambda: "is dropped",
        "normal": lambda: "is switched as in any learning switch",
        "strip_vlan": lambda: "loses its VLAN tag",
        "pop_vlan": lambda: "loses its VLAN tag",
        "mod_vlan_vid": lambda: f"gets {names.vlan(int(value, 0)) if _inside(bridge, names) else f'VLAN {value}'}",
        "set_tunnel": lambda: f"gets {names.segment(int(value, 0), 'tunnel key')}",
        "set_tunnel64": lambda: f"gets {names.segment(int(value, 0), 'tunnel key')}",
        "output": lambda: f"goes out at {names.device(port)}",
        "in_port": lambda: "goes back where it came from",
        "resubmit": lambda: f"goes on in table {value.rsplit(',', maxsplit=1)[-1].strip()}",
        "goto_table": lambda: f"goes on in table {value}",
        "learn": lambda: f"teaches table {_learns_into(value)} where its sender is",
    }
    if name in told:
        return told[name]()
    return f"goes out at {names.device(name)}" if not value and re.fullmatch(r"[a-z0-9_.-]+", name) else ""


def _learns_into(value: str) -> str:
    found = re.search(r"table=(\d+)", value)
    return found.group(1) if found else "0"


def _inside(bridge: str, names: Names) -> bool:
    """Do VLANs on this bridge mean local ones? On a bridge to a physical network they are its own."""
    return bridge in {names.topology.options.integration_bridge, names.topology.options.tunnel_bridge}


def _split(actions: str) -> Iterator[str]:
    """Actions at the top level: commas inside parentheses belong to one."""
    depth, start = 0, 0
    for at, char in enumerate(actions):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            yield actions[start:at]
            start = at + 1
    yield actions[start:]


def _joined(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def router_words(router: Router, names: Names) -> str:
    """A router in one sentence."""
    inside = ", ".join(str(address) for port in router.interfaces for address in port.addresses) or "no subnet"
    outside = ", ".join(address.ip for address in router.gateway.addresses) if router.gateway else ""
    way = f" and leads outside as {outside}" if outside else " and leads nowhere else"
    where = "here" if router.node == names.node else f"on node {router.node}"
    return f"router {router.name} ({where}) serves {inside}{way}"
