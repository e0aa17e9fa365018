"""Local VLANs: which number a network has on one node. They are found on the node, kept, and never dealt anew.

A number means something on its node only, so that no two nodes need to agree. `harvest` reads what is on the node
before the first compile, from our own ports and from those that Neutron's agent left; `allocate` adds numbers for
networks that came. A network that left keeps its number until the last free one is needed: what comes back disturbs
nobody. Nothing here reads OVSDB or the store; who calls hands over rows and keeps the result.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from desired.network.topology import Topology

FIRST, LAST = 1, 4094
NET_UUID = "net_uuid"
"""The key in Port.other_config that says of which network a port is: Neutron's, and ours."""

IFACE_ID = "iface-id"
_NOBODY = "?"


@dataclass(frozen=True, slots=True)
class ObservedPort:
    """A row of Port on br-int, with `external_ids` of its Port and Interface together."""

    name: str
    tag: int | None = None
    other_config: Mapping[str, str] = field(default_factory=dict)
    external_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Allocations:
    """Network id to local VLAN. Numbers of ports that belong to no known network are held under ``?PORT``."""

    vlans: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = [vlan for vlan in self.vlans.values() if not FIRST <= vlan <= LAST]
        if wrong or len(set(self.vlans.values())) != len(self.vlans):
            raise ValueError(f"local VLANs must be {FIRST} to {LAST} and each for one network: {dict(self.vlans)}")

    def get(self, network: str) -> int | None:
        return self.vlans.get(network)

    def allocate(self, present: Collection[str]) -> tuple[Allocations, tuple[str, ...]]:
        """Deal numbers to those of `present` that have none: the lowest free ones, in order of the networks' ids.

        The second value names the networks for which there was none left.
        """
        new = sorted(network for network in present if network not in self.vlans)
        if not new:
            return self, ()
        vlans = dict(self.vlans)
        free = sorted(set(range(FIRST, LAST + 1)) - set(vlans.values()))
        if len(free) < len(new):
            gone = sorted(vlans.keys() - set(present), key=vlans.__getitem__)
            for network in gone[: len(new) - len(free)]:
                free.append(vlans.pop(network))
        vlans |= dict(zip(new, free, strict=False))
        return Allocations(vlans), tuple(new[len(free) :])


def harvest(ports: Iterable[ObservedPort], topology: Topology) -> Allocations:
    """The numbers that are in use on a node.

    A port belongs to the network that its ``other_config:net_uuid`` names, else to that of the port of the model which
    its iface-id is. Where ports of one network have several numbers, the one that most have counts. The number of a
    port that tells neither is held as well, so that no network is joined to it.
    """
    network_of = {port.id: network.id for network in topology.networks.values() for port in network.ports}
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    strangers: dict[int, str] = {}
    for row in sorted(ports, key=lambda row: row.name):
        if row.tag is None or not FIRST <= row.tag <= LAST:
            continue
        network = row.other_config.get(NET_UUID) or network_of.get(row.external_ids.get(IFACE_ID, ""))
        if network is None:
            strangers.setdefault(row.tag, f"{_NOBODY}{row.name}")
        else:
            votes[network][row.tag] += 1
    claims = sorted((-count, tag, network) for network, tags in votes.items() for tag, count in tags.items())
    vlans: dict[str, int] = {}
    taken: set[int] = set()
    for _, tag, network in claims:
        if network not in vlans and tag not in taken:
            vlans[network] = tag
            taken.add(tag)
    vlans |= {name: tag for tag, name in strangers.items() if tag not in taken}
    return Allocations(vlans)
