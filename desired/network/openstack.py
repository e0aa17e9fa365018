"""From Neutron's objects, as its API and its notifications give them, to objects of the network model. Pure.

An object of Neutron is a mapping. Each function makes one resource of it, named by its id, or raises `Untranslatable`
with a sentence that says which object, what is wrong with it, and what comes of that. Nothing is checked here that
concerns several objects (`desired.network.check` does that). Called by `desired.network.translated` for the mirror;
`ALL` and `FIELDS` say what of Neutron is kept at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from ipaddress import ip_network
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from desired.network.model import (
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    NodeSpec,
    Owner,
    Role,
    RouterSpec,
    SubnetSpec,
)
from desired.resource import Origin, Resource, ResourceId, Spec

SOURCE = "openstack"
"""The source of every object that is made here."""

Body = Mapping[str, Any]


class Kind(StrEnum):
    """What is kept of Neutron. An `interface` is a router's port of which a notification told only the ids."""

    NETWORK = "network"
    SUBNET = "subnet"
    PORT = "port"
    ROUTER = "router"
    FLOATINGIP = "floatingip"
    AGENT = "agent"
    INTERFACE = "interface"


NOTIFIED = (Kind.NETWORK, Kind.SUBNET, Kind.PORT, Kind.ROUTER, Kind.FLOATINGIP)
"""The kinds of which notifications tell, and which a full read of the model has to have."""

_EVERY = frozenset({"id", "name", "admin_state_up"})
FIELDS: Mapping[Kind, frozenset[str]] = {
    Kind.NETWORK: _EVERY | {
        "shared", "mtu", "router:external", "provider:network_type", "provider:segmentation_id",
        "provider:physical_network", "segments",
    },
    Kind.SUBNET: _EVERY | {
        "network_id", "cidr", "gateway_ip", "enable_dhcp", "allocation_pools", "dns_nameservers", "host_routes",
        "ipv6_address_mode", "ipv6_ra_mode",
    },
    Kind.PORT: _EVERY | {"network_id", "mac_address", "fixed_ips", "device_id", "device_owner", "binding:host_id"},
    Kind.ROUTER: _EVERY | {"external_gateway_info", "routes", "distributed", "ha"},
    Kind.FLOATINGIP: _EVERY | {
        "floating_ip_address", "floating_network_id", "port_id", "fixed_ip_address", "router_id",
    },
    Kind.AGENT: _EVERY | {"host", "agent_type", "configurations"},
    Kind.INTERFACE: _EVERY | {"router_id", "subnet_ids"},
}  # fmt: skip
"""What is kept of an object; the rest of it is dropped at once."""

_OWNERS = {
    "network:dhcp": Owner.DHCP,
    "network:router_interface": Owner.ROUTER_INTERFACE,
    "network:router_interface_distributed": Owner.ROUTER_INTERFACE,
    "network:router_gateway": Owner.ROUTER_GATEWAY,
    "network:floatingip": Owner.FLOATING_IP,
    "": Owner.INSTANCE,
}
_ROLES: Mapping[str, Role] = {
    "Open vSwitch agent": "compute",
    "L3 agent": "network",
    "DHCP agent": "network",
    "Metadata agent": "network",
}


class Untranslatable(Exception):
    """An object of which no resource can be made. `lacking`: not wrong, but a full read has to tell the rest."""

    def __init__(self, message: str, *, lacking: bool = False) -> None:
        super().__init__(message)
        self.lacking = lacking


def object_key(value: Any) -> str:
    """An id as Neutron writes it, in one spelling. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{_short(value)} is no id")  # noqa: TRY004 (one error for everything that is no id)
    return str(UUID(value))


def called(kind: Kind, body: Body) -> str:
    """What people call an object, as in ``network 6f1c3b5a-… (web)``."""
    name = _one_line(body.get("name"))
    return f"{kind} {body.get('id', '')}" + (f" ({name})" if name else "")


def owner_of(body: Body) -> Owner:
    """What a port is for."""
    owner = str(body.get("device_owner") or "")
    return _OWNERS.get(owner, Owner.INSTANCE if owner.startswith(("compute:", "baremetal:")) else Owner.OTHER)


# -- each kind ----------------------------------------------------------------------------------------------------


def network(body: Body) -> Resource:
    """Raises Untranslatable: also for a network that its owner made, as long as nobody told how it is carried."""
    if body.get("segments"):
        raise _left_out(Kind.NETWORK, body, "it has several segments; networks of one segment are supported")
    _needs(Kind.NETWORK, body, "provider:network_type")
    values = {
        "type": str(body["provider:network_type"]),
        "segmentation_id": body.get("provider:segmentation_id"),
        "physical_network": body.get("provider:physical_network"),
        "external": bool(body.get("router:external")),
        "shared": bool(body.get("shared")),
        "mtu": body.get("mtu") or None,
    }
    if values["type"] in {"flat", "local"}:
        values["segmentation_id"] = None  # some plugins write 0
    return _made(NetworkSpec, Kind.NETWORK, body, values)


def subnet(body: Body) -> Resource:
    _needs(Kind.SUBNET, body, "network_id", "cidr")
    gateway = body.get("gateway_ip", ...)
    values = {
        "network": body["network_id"],
        "cidr": body["cidr"],
        "gateway": None if gateway is ... else gateway or "none",
        "allocation_pools": [_only(pool, "start", "end") for pool in _list(body, "allocation_pools")],
        "dns": _list(body, "dns_nameservers"),
        "host_routes": _routes(Kind.SUBNET, body, "host_routes"),
        "dhcp": body.get("enable_dhcp") is not False,
        "ipv6_mode": body.get("ipv6_ra_mode") or body.get("ipv6_address_mode") or None,
    }
    return _made(SubnetSpec, Kind.SUBNET, body, values)


def port(body: Body, interface: Body | None = None) -> Resource:
    """`interface`: what a router's notification said of this port, which may be newer than the port's own words."""
    _needs(Kind.PORT, body, "network_id")
    owner, device = owner_of(body), _one_line(body.get("device_id"))
    if interface is not None and owner is not Owner.ROUTER_INTERFACE:
        owner, device = Owner.ROUTER_INTERFACE, str(interface.get("router_id", ""))
    values = {
        "network": body["network_id"],
        "mac": body.get("mac_address") or None,
        "fixed_ips": [
            {"ip": fixed.get("ip_address"), "subnet": fixed.get("subnet_id")}
            for fixed in _mappings(Kind.PORT, body, "fixed_ips")
        ],
        "node": _one_line(body.get("binding:host_id")) or None,
        "owner": owner,
        "device": device,
    }
    return _made(NeutronPortSpec, Kind.PORT, body, values)


def router(body: Body, ports: Sequence[Body] = (), interfaces: Sequence[Body] = ()) -> Resource:
    """A router with its interfaces: `ports` are those of the router, `interfaces` what notifications said of others.

    It is where the most of its ports are bound (Neutron binds a router's ports to the host of its agent).
    """
    for word in ("distributed", "ha"):
        if body.get(word) is True:
            raise _left_out(Kind.ROUTER, body, f"it has {word}: true; only routers of one node are supported")
    if body.get("admin_state_up") is False:
        raise _left_out(Kind.ROUTER, body, "it is switched off (admin_state_up: false), so it is not served")
    own = [each for each in ports if owner_of(each) is Owner.ROUTER_INTERFACE]
    known = {each.get("id") for each in own}
    served = [
        {"subnet": fixed.get("subnet_id"), "ip": fixed.get("ip_address")}
        for each in own
        for fixed in _mappings(Kind.PORT, each, "fixed_ips")
    ]
    served += [
        {"subnet": subnet_id}
        for each in interfaces
        if each.get("id") not in known
        for subnet_id in _list(each, "subnet_ids")
    ]
    values = {
        "interfaces": sorted(served, key=lambda one: (str(one["subnet"]), str(one.get("ip")))),
        "gateway": _gateway(body),
        "routes": _routes(Kind.ROUTER, body, "routes"),
        "node": _host(ports),
    }
    return _made(RouterSpec, Kind.ROUTER, body, values)


def floating_ip(body: Body) -> Resource:
    _needs(Kind.FLOATINGIP, body, "floating_ip_address")
    connected = body.get("port_id") or None
    values = {
        "floating": body["floating_ip_address"],
        "network": body.get("floating_network_id") or None,
        "port": connected,
        "fixed": (body.get("fixed_ip_address") or None) if connected else None,
        "router": (body.get("router_id") or None) if connected else None,
    }
    return _made(NeutronFloatingIpSpec, Kind.FLOATINGIP, body, values)


def node(host: str, agents: Iterable[Body]) -> Resource:
    """A node, of what its agents report: the switch agent its tunnel address and bridges, the others its roles."""
    origin = Origin(SOURCE, path=f"node {host}")
    roles, values = set(), {}
    for agent in agents:
        role = _ROLES.get(str(agent.get("agent_type")))
        if role is None:
            continue
        roles.add(role)
        said = agent.get("configurations")
        if isinstance(said, Mapping) and role == "compute":
            values["tunnel_ip"] = said.get("tunneling_ip") or None
            values["bridge_mappings"] = said.get("bridge_mappings") or {}
    if not roles:
        raise Untranslatable(f"node {host}: none of its agents is of a kind that is known here, so it is left out")
    spec = _spec(NodeSpec, f"node {host}", {"roles": sorted(roles), **values})
    return Resource(ResourceId(NodeSpec.kind, host), spec, origin, spec.generation())


# -- what they are made of ----------------------------------------------------------------------------------------


def _gateway(body: Body) -> dict[str, Any] | None:
    info = body.get("external_gateway_info")
    if not info:
        return None
    if not isinstance(info, Mapping) or not info.get("network_id"):
        raise _left_out(Kind.ROUTER, body, f"external_gateway_info has no network_id: {_short(info)}")
    ips = [fixed.get("ip_address") for fixed in _mappings(Kind.ROUTER, info, "external_fixed_ips")]
    return {"network": info["network_id"], "ips": ips, "snat": info.get("enable_snat") is not False}


def _host(ports: Sequence[Body]) -> str | None:
    """Where a router is: its gateway's host, or that of its first other port."""
    bound = [
        (owner_of(each) is not Owner.ROUTER_GATEWAY, str(each.get("id")), host)
        for each in ports
        if (host := _one_line(each.get("binding:host_id")))
    ]
    return min(bound)[2] if bound else None


def _routes(kind: Kind, body: Body, field: str) -> list[dict[str, Any]]:
    found = [
        {"to": _network_of(route.get("destination")), "via": route.get("nexthop")}
        for route in _mappings(kind, body, field)
    ]
    return sorted(found, key=lambda route: (str(route["to"]), str(route["via"])))


def _network_of(destination: Any) -> Any:
    """A destination without the host bits that Neutron lets people write."""
    try:
        return str(ip_network(destination, strict=False))
    except (ValueError, TypeError):
        return destination


def _made(spec: type[Spec], kind: Kind, body: Body, values: Mapping[str, Any]) -> Resource:
    what = called(kind, body)
    made = _spec(spec, what, {**values, "id": body["id"], "display": _one_line(body.get("name"))})
    return Resource(ResourceId(spec.kind, str(body["id"])), made, Origin(SOURCE, path=what), made.generation())


def _spec(spec: type[Spec], what: str, values: Mapping[str, Any]) -> Spec:
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] in {"value_error", "missing"} else f" (it is {_short(first['input'])})"
        raise Untranslatable(f"{what}: {f'{place}: ' if place else ''}{said}{given}; it is left out") from error


def _needs(kind: Kind, body: Body, *fields: str) -> None:
    for field in fields:
        if body.get(field) is None:
            raise _lacking(kind, body, field)


def _lacking(kind: Kind, body: Body, field: str) -> Untranslatable:
    message = f"{called(kind, body)}: nobody has told its {field} yet, so it is left out until a full read does"
    return Untranslatable(message, lacking=True)


def _left_out(kind: Kind, body: Body, what: str) -> Untranslatable:
    return Untranslatable(f"{called(kind, body)}: {what}; it is left out")


def _list(body: Body, field: str) -> list[Any]:
    value = body.get(field) or ()
    if not isinstance(value, list | tuple):
        raise Untranslatable(f"object {body.get('id')}: {field} must be a list, not {_short(value)}; it is left out")
    return list(value)


def _mappings(kind: Kind, body: Body, field: str) -> list[Body]:
    found = _list(body, field)
    for each in found:
        if not isinstance(each, Mapping):
            raise _left_out(kind, body, f"{field} must hold mappings, not {_short(each)}")
    return found


def _only(value: Any, *fields: str) -> Any:
    return {field: value.get(field) for field in fields} if isinstance(value, Mapping) else value


def _one_line(value: Any) -> str:
    """Names in Neutron may hold anything; here they are one printable line."""
    if not isinstance(value, str):
        return ""
    if value.isprintable():
        return value.strip()
    return "".join(sign if sign.isprintable() else " " for sign in value).strip()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
