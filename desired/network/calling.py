"""What a port is called: its names, its devices, its namespace. A person may use any of them. Pure."""

from __future__ import annotations

from desired.network.hosts import PREFIX, namespace_of
from desired.network.model import Owner
from desired.network.topology import Port, Topology

_PREFIXES = {Owner.ROUTER_INTERFACE: "qr-", Owner.ROUTER_GATEWAY: "qg-"}


def device_name(port: Port) -> str:
    """The device that we make for it, or Nova's."""
    return port.device_name(_PREFIXES.get(port.owner, "tap"))


def own_namespace(port: Port) -> tuple[str, str] | None:
    """The namespace that we made for a port, and the name of its device there; None for an instance of others."""
    name = device_name(port)
    if port.owner in _PREFIXES:
        return f"qrouter-{port.device}", name
    if port.owner is Owner.DHCP:
        return f"qdhcp-{port.network}", name
    if port.plug == "namespace":
        return namespace_of(port), "eth0"
    return None


def called(port: Port) -> frozenset[str]:
    """All that a port is called, in lower case."""
    devices = {port.device_name(prefix) for prefix in ("tap", "qr-", "qg-", "qvo", "qvb", "qbr")}
    space = namespace_of(port).lower() if port.plug == "namespace" else ""
    spaces = {space} if space.startswith(PREFIX) else set()
    return frozenset({port.name.lower(), port.id, port.mac, *(a.ip for a in port.addresses), *devices, *spaces})


def ports_called(topology: Topology, text: str) -> list[Port]:
    """The ports that are called so: by name, id, MAC, address, device or namespace."""
    asked = text.strip().lower()
    return [port for network in topology.networks.values() for port in network.ports if asked in called(port)]
