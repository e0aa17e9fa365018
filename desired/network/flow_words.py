"""A flow as a sentence, told field by field and action by action, so that what a person wrote is told as well. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address

from desired.kinds.openflow import split_flow
from desired.network.words import Names

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

_ANSWER = re.compile(r"load:(0x[0-9a-f]+)->NXM_NX_ARP_SHA\[\]")
_ANSWER_IP = re.compile(r"load:(0x[0-9a-f]+)->NXM_OF_ARP_SPA\[\]")
_ARP_REPLY = "load:0x2->NXM_OF_ARP_OP[]"


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
    does = _answer(actions, names) or _joined(list(_deeds(actions, bridge, names)))
    options = names.topology.options
    place = {options.tunnel_bridge: "tun", options.integration_bridge: "int"}.get(bridge, "")
    told = TABLES.get((place, table))
    where = f"on {bridge}" + (f", table {table}" if table else "") + (f" ({told})" if told else "")
    return f"{where}: what {who}: {does}" if who else f"{where}: anything else {does}"


def _conditions(fields: Mapping[str, str], names: Names) -> Iterator[str]:
    told: dict[str, Callable[[str], str]] = {
        "in_port": lambda value: f"comes in at {names.device(value.strip(chr(34)))}",
        "dl_vlan": lambda value: _untagged(value) or f"is in {_vlan(int(value, 0), fields, names)}",
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


def _vlan(number: int, fields: Mapping[str, str], names: Names) -> str:
    """What comes in from a physical network has that network's VLAN, all else a local one."""
    port = fields.get("in_port", "").strip('"')
    return names.physical(number, port.removeprefix("int-")) if port.startswith("int-") else names.vlan(number)


def _answer(actions: str, names: Names) -> str:
    """The answer that an ARP responder makes of a request; '' for any other flow."""
    mac, ip = _ANSWER.search(actions), _ANSWER_IP.search(actions)
    if _ARP_REPLY not in actions or mac is None or ip is None:
        return ""
    octets = int(mac.group(1), 16).to_bytes(6, "big")
    where = names.mac(":".join(f"{octet:02x}" for octet in octets))
    return f"is answered here: {ip_address(int(ip.group(1), 16))} is at {where}"


def _untagged(value: str) -> str:
    return "is untagged" if int(value, 0) in {0xFFFF, 0} else ""


def _deeds(actions: str, bridge: str, names: Names) -> Iterator[str]:
    for action in _split(actions):
        name, _, value = re.sub(r"[:(]", "\0", action, count=1).partition("\0")
        value = value.rstrip(")") if "(" in action else value
        yield _deed(name.strip().lower(), value.strip(), bridge, names) or f"gets {action}"


def _deed(name: str, value: str, bridge: str, names: Names) -> str:
    if name in _TOLD:
        return _TOLD[name](value, bridge, names)
    port = re.fullmatch(r"[a-z0-9_.-]+", name)
    return f"goes out at {names.device(name)}" if not value and port else ""


def _new_vlan(value: str, bridge: str, names: Names) -> str:
    number = int(value, 0)
    return f"gets {names.vlan(number) if _inside(bridge, names) else names.physical(number, bridge)}"


def _key(value: str, _bridge: str, names: Names) -> str:
    return f"gets {names.segment(int(value, 0), 'tunnel key')}"


def _set(value: str, bridge: str, names: Names) -> str:
    """``set_field:VALUE->FIELD`` and ``load:VALUE->FIELD``."""
    what, _, field = value.partition("->")
    name = field.removesuffix("[]").lower()
    if name in {"tun_id", "nxm_nx_tun_id"}:
        return _key(what, bridge, names)
    if name in {"eth_src", "eth_dst", "nxm_of_eth_src", "nxm_of_eth_dst"} and ":" in what:
        return f"has {'sender' if name.endswith('src') else 'receiver'} {names.mac(what)} from now on"
    return f"has {what} in {field.removesuffix('[]')} from now on"


def _move(value: str, _bridge: str, _names: Names) -> str:
    source, _, target = value.partition("->")
    return f"has its {source.removesuffix('[]')} copied to {target.removesuffix('[]')}"


_Deed = Callable[[str, str, Names], str]
_TOLD: Mapping[str, _Deed] = {
    "": lambda *_: "is dropped",
    "drop": lambda *_: "is dropped",
    "normal": lambda *_: "is switched as in any learning switch",
    "flood": lambda *_: "goes out everywhere",
    "all": lambda *_: "goes out everywhere",
    "local": lambda _value, bridge, _names: f"goes to this machine itself, by {bridge}",
    "in_port": lambda *_: "goes back where it came from",
    "controller": lambda *_: "goes to the controller",
    "strip_vlan": lambda *_: "loses its VLAN tag",
    "pop_vlan": lambda *_: "loses its VLAN tag",
    "push_vlan": lambda *_: "gets a VLAN tag",
    "mod_vlan_vid": _new_vlan,
    "set_tunnel": _key,
    "set_tunnel64": _key,
    "set_field": _set,
    "load": _set,
    "move": _move,
    "mod_dl_src": lambda value, _bridge, names: f"has sender {names.mac(value)} from now on",
    "mod_dl_dst": lambda value, _bridge, names: f"has receiver {names.mac(value)} from now on",
    "mod_nw_src": lambda value, *_: f"comes from {value} from now on",
    "mod_nw_dst": lambda value, *_: f"is for {value} from now on",
    "dec_ttl": lambda *_: "lives one hop less",
    "output": lambda value, _bridge, names: f"goes out at {names.device(value.strip(chr(34)))}",
    "group": lambda value, *_: f"goes through group {value}",
    "meter": lambda value, *_: f"is slowed down by meter {value}",
    "ct": lambda value, *_: f"is tracked as a connection ({value})",
    "resubmit": lambda value, *_: f"goes on in table {value.rsplit(',', maxsplit=1)[-1].strip()}",
    "goto_table": lambda value, *_: f"goes on in table {value}",
    "learn": lambda value, *_: f"teaches table {_learns_into(value)} where its sender is",
}


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
