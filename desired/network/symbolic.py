"""Local VLANs in words, for a node whose allocations are not known here: ``<vlan of NETWORK>`` instead of a number.

Off a node nobody knows its local VLANs, and numbers would look as if somebody did. `dealt` gives each network that the
node has a number that nothing else in the model is written with; `worded` writes those numbers out again in text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from desired.network.allocations import FIRST, LAST, Allocations
from desired.network.topology import Topology

_VLAN = re.compile(r'(\btag: |"tag": |\bdl_vlan=|\bmod_vlan_vid:)(\d+)\b')


def dealt(topology: Topology, node: str) -> Allocations:
    """Numbers for the networks on `node`, none of them the VLAN of a physical network while there are others."""
    specs = (network.spec for network in topology.networks.values())
    outside = {spec.segmentation_id for spec in specs if spec.type == "vlan"}
    numbers = sorted(range(FIRST, LAST + 1), key=lambda vlan: (vlan in outside, vlan))
    present = sorted(own for own, network in topology.networks.items() if node in network.nodes)
    return Allocations(dict(zip(present, numbers, strict=False)))


def worded(text: str, allocations: Allocations, topology: Topology) -> str:
    """Text (flows, or rendered YAML) with each local VLAN as the name of its network."""
    names = _names(allocations, topology)

    def word(found: re.Match[str]) -> str:
        name = names.get(int(found[2]))
        return found[0] if name is None else f"{found[1]}<vlan of {name}>"

    return _VLAN.sub(word, text)


def _names(allocations: Allocations, topology: Topology) -> Mapping[int, str]:
    """What each network is called: by its name, or by what people call it where that is all there is."""
    names = {}
    for own, vlan in allocations.vlans.items():
        network = topology.networks.get(own)
        if network is not None:
            names[vlan] = network.spec.display or network.name
    return names
