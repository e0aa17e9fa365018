"""Neutron's objects and messages for tests: as its API and `oslo.messaging` write them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

Body = dict[str, Any]


def uid(number: int) -> str:
    return str(UUID(int=number))


def network(number: int, **more: Any) -> Body:
    return {
        "id": uid(number),
        "name": f"net{number}",
        "admin_state_up": True,
        "shared": False,
        "mtu": 1450,
        "router:external": False,
        "provider:network_type": "vxlan",
        "provider:segmentation_id": number,
        "provider:physical_network": None,
        "status": "ACTIVE",
        "subnets": [],
        **more,
    }


def subnet(number: int, net: int, **more: Any) -> Body:
    return {
        "id": uid(number),
        "name": "",
        "network_id": uid(net),
        "cidr": f"10.0.{number % 256}.0/24",
        "ip_version": 4,
        "gateway_ip": f"10.0.{number % 256}.1",
        "enable_dhcp": True,
        "allocation_pools": [{"start": f"10.0.{number % 256}.2", "end": f"10.0.{number % 256}.254"}],
        "dns_nameservers": ["9.9.9.9"],
        "host_routes": [{"destination": "10.9.0.0/16", "nexthop": f"10.0.{number % 256}.9"}],
        "ipv6_address_mode": None,
        "ipv6_ra_mode": None,
        **more,
    }


def port(number: int, net: int, sub: int, **more: Any) -> Body:
    return {
        "id": uid(number),
        "name": f"port{number}",
        "network_id": uid(net),
        "mac_address": f"fa:16:3e:00:{number // 256 % 256:02x}:{number % 256:02x}",
        "fixed_ips": [{"subnet_id": uid(sub), "ip_address": f"10.0.{sub % 256}.{number % 250 + 2}"}],
        "admin_state_up": True,
        "device_id": uid(900_000 + number),
        "device_owner": "compute:nova",
        "binding:host_id": "compute1",
        "binding:vif_type": "ovs",
        "security_groups": [uid(7)],
        **more,
    }


def router(number: int, **more: Any) -> Body:
    return {
        "id": uid(number),
        "name": f"router{number}",
        "admin_state_up": True,
        "external_gateway_info": None,
        "routes": [],
        "distributed": False,
        "ha": False,
        **more,
    }


def floating_ip(number: int, net: int, **more: Any) -> Body:
    return {
        "id": uid(number),
        "floating_ip_address": f"172.24.4.{number % 250}",
        "floating_network_id": uid(net),
        "port_id": None,
        "fixed_ip_address": None,
        "router_id": None,
        "status": "DOWN",
        **more,
    }


def message(event: str, payload: Any, at: float = 0.0, *, envelope: int = 2, key: str = "") -> bytes:
    """A notification as it comes off the wire."""
    inner = {
        "message_id": f"m{key or f'{event}{at}'}",
        "publisher_id": "network.controller1",
        "event_type": event,
        "priority": "INFO",
        "payload": payload,
        "timestamp": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "_unique_id": f"u{key or f'{event}{at}'}",
        "_context_request_id": "req-1",
    }
    if envelope == 1:
        return json.dumps(inner).encode()
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(inner)}).encode()
