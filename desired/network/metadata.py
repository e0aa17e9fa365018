"""The metadata service that instances find at 169.254.169.254: a proxy in a namespace, as Neutron's, with haproxy.

The proxy says to `options.metadata.upstream` of which router or network the request came and from which address; that
is how the metadata agent knows the instance. An upstream that is an address is reached from the host, not from the
router: for it there is one relay for the node (`relay`), behind a unix socket that all proxies ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

from desired.kinds.service import ServiceSpec
from desired.network.draft import made
from desired.network.topology import Topology
from desired.network.units import STATE, file, path, unit
from desired.resource import Origin, Resource

ADDRESS = "169.254.169.254"
PORT = 80
RELAY = "reconciler-metadata"
_SOCKET = f"/run/{RELAY}/socket"
_CAPABILITIES = "CAP_NET_BIND_SERVICE CAP_DAC_OVERRIDE"
"""The second, because the socket of Neutron's agent is of the user neutron."""

_COMMON = """global
    log stderr format raw daemon notice
    maxconn 1024

defaults
    mode http
    log global
    option dontlognull
    option http-server-close
    retries 3
    timeout http-request 30s
    timeout connect 30s
    timeout client 32s
    timeout server 32s
    timeout http-keep-alive 30s
"""


class Serves(StrEnum):
    """Of what the clients of a proxy are, in the words of its headers."""

    ROUTER = "Router"
    NETWORK = "Network"


def proxy(topology: Topology, namespace: str, serves: Serves, serves_id: str, origin: Origin) -> Iterator[Resource]:
    """The proxy in a namespace; nothing when metadata is not served at all."""
    settings = topology.options.metadata
    if settings is None:
        return
    name = f"{namespace}-metadata"
    other = Serves.NETWORK if serves is Serves.ROUTER else Serves.ROUTER
    upstream = settings.upstream if settings.upstream.startswith("/") else _SOCKET
    port = settings.port if serves is Serves.ROUTER else PORT
    lines = [
        *_COMMON.splitlines(),
        "",
        "listen metadata",
        f"    bind 0.0.0.0:{port}",
        "    # What a client says of itself is worth nothing.",
        f"    http-request del-header X-Neutron-{other}-ID",
        f"    http-request set-header X-Neutron-{serves}-ID {serves_id}",
        "    http-request set-header X-Forwarded-For %[src]",
        f"    server upstream unix@{upstream}",
    ]
    yield file(f"{name}.cfg", lines, origin, name)
    text = unit(f"Metadata proxy of {serves.lower()} {serves_id}", _start(name), _CAPABILITIES, namespace=namespace)
    service = ServiceSpec(name=f"{name}.service", unit=text, namespace=namespace, restart_on=(path(f"{name}.cfg"),))
    yield made(service, origin)


def relay(topology: Topology, origin: Origin) -> Iterable[Resource]:
    """The node's relay to an upstream that is an address; nothing when it is a unix socket. Once for each node."""
    settings = topology.options.metadata
    if settings is None or settings.upstream.startswith("/"):
        return
    lines = [
        *_COMMON.splitlines(),
        "",
        "listen relay",
        f"    bind unix@{_SOCKET} mode 600",
        f"    server upstream {settings.upstream}",
    ]
    yield file(f"{RELAY}.cfg", lines, origin, RELAY)
    text = unit("Relay to the metadata service", _start(RELAY), _CAPABILITIES)
    text = text.replace(f"StateDirectory={STATE}\n", f"RuntimeDirectory={RELAY}\n")
    yield made(ServiceSpec(name=f"{RELAY}.service", unit=text, restart_on=(path(f"{RELAY}.cfg"),)), origin)


def _start(name: str) -> str:
    return f"/usr/sbin/haproxy -db -f {path(f'{name}.cfg')}"
