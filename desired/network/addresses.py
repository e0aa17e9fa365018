"""Addresses as numbers: which subnet has one, and which are free for the ports that follow from other objects.

DHCP servers take the last free addresses of a pool, in order. Routers spread over the upper half of it by a hash of
their port's id, so that one that comes or goes does not move the addresses of the others.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network

from desired.network.topology import Address, Subnet

EUI64_MODES = frozenset({"slaac", "dhcpv6-stateless"})


def number(ip: str) -> tuple[int, int]:
    """IP version and value of an address."""
    if ":" in ip:
        return 6, int.from_bytes(socket.inet_pton(socket.AF_INET6, ip), "big")
    return 4, int.from_bytes(socket.inet_aton(ip), "big")


@dataclass(slots=True)
class _Range:
    """A subnet in numbers; `pools` from the last to the first."""

    subnet: Subnet
    version: int
    first: int
    last: int
    prefix: int
    taken: set[int] = field(default_factory=set)

    def text(self, value: int) -> str:
        return str(IPv4Address(value) if self.version == 4 else IPv6Address(value))

    def pools(self) -> list[tuple[int, int]]:
        written = self.subnet.spec.allocation_pools
        if written:
            return sorted(((number(pool.start)[1], number(pool.end)[1]) for pool in written), reverse=True)
        if self.last - self.first < 2:
            return [(self.first, self.last)]
        return [(self.first + 1, self.last - 1 if self.version == 4 else self.last)]


class Addresses:
    """The addresses of one network: what is taken, and what may still be had."""

    def __init__(self, subnets: Iterable[Subnet]) -> None:
        self._ranges: dict[str, _Range] = {}
        for subnet in subnets:
            net = ip_network(subnet.spec.cidr)
            first, last = int(net.network_address), int(net.broadcast_address)
            self._ranges[subnet.id] = _Range(subnet, net.version, first, last, net.prefixlen)

    def find(self, ip: str, subnet: str | None = None) -> Address | None:
        """The address with its subnet; `subnet` (an id) when it is known which."""
        version, value = number(ip)
        for name in (subnet,) if subnet is not None else self._ranges:
            span = self._ranges.get(name)
            if span is not None and span.version == version and span.first <= value <= span.last:
                return Address(ip, span.prefix, name)
        return None

    def take(self, ips: Iterable[str]) -> None:
        """These are not free."""
        for ip in ips:
            found = self.find(ip)
            if found is not None:
                self._ranges[found.subnet].taken.add(number(ip)[1])

    def reserve_gateways(self) -> None:
        """Gateways, and what subnets say their DHCP servers have, are not free."""
        for span in self._ranges.values():
            gateway = span.subnet.spec.gateway_ip
            self.take((*((gateway,) if gateway else ()), *span.subnet.spec.dhcp_addresses))

    def last_free(self, subnet: str) -> Address | None:
        """Take the last free address of a subnet's pools."""
        span = self._ranges[subnet]
        return self._first_free(span, (value for low, high in span.pools() for value in range(high, low - 1, -1)))

    def spread_free(self, subnet: str, key: str) -> Address | None:
        """Take a free address in the upper half of a subnet's pools, the same one for the same `key` if it is free."""
        span = self._ranges[subnet]
        pools = span.pools()
        size = sum(high - low + 1 for low, high in pools)
        start = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") % max(1, (size + 1) // 2)
        return self._first_free(span, (_nth(pools, (start + step) % size) for step in range(size)))

    def from_mac(self, subnet: str, mac: str) -> Address | None:
        """The address that a host with this MAC gives itself where routers advertise the prefix."""
        span = self._ranges[subnet]
        parts = bytes.fromhex(mac.replace(":", ""))
        low = bytes((parts[0] ^ 2, *parts[1:3], 0xFF, 0xFE, *parts[3:]))
        value = span.first | int.from_bytes(low, "big")
        return Address(span.text(value), span.prefix, subnet) if value <= span.last else None

    @staticmethod
    def _first_free(span: _Range, candidates: Iterator[int]) -> Address | None:
        for value in candidates:
            if value not in span.taken:
                span.taken.add(value)
                return Address(span.text(value), span.prefix, span.subnet.id)
        return None


def _nth(pools: list[tuple[int, int]], at: int) -> int:
    """The `at`-th address, counted from the last one down."""
    for low, high in pools:
        if at <= high - low:
            return high - at
        at -= high - low + 1
    raise IndexError(at)
