"""What one node is among the others, and how its devices are called: by Neutron's names, whoever made them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from desired.network.model import TUNNELLED, NetworkSpec, OptionsSpec
from desired.network.topology import Node, Topology

LONGEST = 15
"""Bytes in the name of an interface."""

_HASH = 6
PATCH_TUN, PATCH_INT = "patch-tun", "patch-int"


@dataclass(frozen=True, slots=True)
class Here:
    """A node with its surroundings: tunnel addresses of its `peers` by name, and the tunnel types that are in use.

    `ipv6_underlay`: some tunnel address of the cluster is one of IPv6, which leaves less room in a packet.
    """

    options: OptionsSpec
    node: Node
    peers: Mapping[str, str]
    types: tuple[str, ...]
    ipv6_underlay: bool

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def tunnels(self) -> bool:
        """Whether it takes part in tunnels."""
        return bool(self.types) and self.node.spec.tunnel_ip is not None

    def bridge_of(self, network: NetworkSpec) -> str | None:
        """The bridge of a vlan or flat network here, None when its physical network has none."""
        return self.node.spec.bridge_mappings.get(network.physical_network or "")

    @property
    def physical_bridges(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.node.spec.bridge_mappings.values())))


def here(topology: Topology, node: Node) -> Here:
    """The surroundings of `node`. Peers are all other nodes that end tunnels of the same IP version."""
    own = node.spec.tunnel_ip
    peers = {}
    if own is not None:
        version = ":" in own
        for name in sorted(topology.nodes):
            ip = topology.nodes[name].spec.tunnel_ip
            if name != node.name and ip is not None and ip != own and (":" in ip) is version:
                peers[name] = ip
    types = sorted({network.spec.type for network in topology.networks.values()} & TUNNELLED)
    ipv6 = any(":" in (other.spec.tunnel_ip or "") for other in topology.nodes.values())
    return Here(topology.options, node, peers, tuple(types), ipv6)


def patch_name(prefix: str, bridge: str) -> str:
    """``int-BRIDGE`` or ``phy-BRIDGE``; a long one ends with a hash, as Neutron's does."""
    if len(prefix + bridge) <= LONGEST:
        return prefix + bridge
    digest = hashlib.sha1(bridge.encode(), usedforsecurity=False).hexdigest()[:_HASH]
    return f"{prefix}{bridge[: LONGEST - len(prefix) - _HASH]}{digest}"


def tunnel_name(tunnel_type: str, remote: str) -> str:
    """``gre-0a0a0a1e``: the type and the peer's address in hex; of an IPv6 address, the beginning of a hash."""
    address = ip_address(remote)
    if address.version == 4:
        return f"{tunnel_type}-{int(address):08x}"
    digest = base64.b32encode(hashlib.blake2b(remote.encode(), digest_size=20).digest()).decode().lower()
    return f"{tunnel_type}-{digest[: LONGEST - len(tunnel_type) - 1]}"


__all__ = ["LONGEST", "PATCH_INT", "PATCH_TUN", "Here", "here", "patch_name", "tunnel_name"]
