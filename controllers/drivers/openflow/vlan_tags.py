"""`mod_vlan_vid` and `mod_vlan_pcp` as OpenFlow 1.0 has them: change the packet's VLAN tag, or add one if it has none.

OpenFlow 1.4 has no such action. Unless the match says whether there is a tag, ovs-ofctl writes *push a tag, set it*
instead, which puts a second tag on a packet that has one: what leaves a tunnel in the single-table layout, where tags
travel, would reach nobody. Open vSwitch's `load` into the whole tag is what was meant, in every version. Used by the
compiler.
"""

from __future__ import annotations

import re

from controllers.drivers.openflow.prerequisites import fields

_VLAN_VID = 6
_PRESENT = 0x1000
_MOD = re.compile(r"\bmod_vlan_(vid|pcp)\s*(?:[:=]\s*(0x[0-9a-f]+|\d+)|\(\s*(0x[0-9a-f]+|\d+)\s*\))", re.IGNORECASE)


def rewritten(text: str) -> str:
    """The text with `load` for each such action; the text itself when there is none."""
    return _MOD.sub(_load, text)


def ambiguous(text: str, match: bytes) -> bool:
    """Whether the text has such an action, and its compiled match does not say whether there is a tag."""
    return "mod_vlan_" in text.lower() and _VLAN_VID not in fields(match)


def _load(action: re.Match[str]) -> str:
    value = int(action[2] or action[3], 0)
    if action[1].lower() == "vid":
        return f"load:{_PRESENT | value:#x}->NXM_OF_VLAN_TCI[0..12]"
    return f"load:{value << 1 | 1:#x}->NXM_OF_VLAN_TCI[12..15]"
