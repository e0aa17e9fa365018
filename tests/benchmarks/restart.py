"""A daemon that starts on a node of a large cloud, which its store remembers: how long, and how long nobody is heard.

The cloud is that of `compiling`, as Neutron's objects in the store's mirror; the broker is away, so that nothing else
is known of it. First on an empty switch, then again on one where all is there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from desired.network.mirror import Mirror
from desired.sql import SqlStore
from desired.store import MirrorRow
from tests.benchmarks.compiling import FLOATING, NETWORKS, NODES, PORTS, ROUTERS
from tests.benchmarks.daemon import Daemon, switch
from tests.benchmarks.lag import Lags, watched
from tests.benchmarks.report import Table, say
from tests.desired.network.neutron import Body, floating_ip, network, port, router, subnet, uid

RESTARTS = 3
HERE = "bench"
MODEL = f"model:\n  nodes:\n    {HERE}: {{roles: [compute], tunnel_ip: 10.0.255.1}}\n"
NOBODY = "amqp://guest@127.0.0.1:1/"
_NETWORK, _SUBNET, _ROUTER, _FLOATING, _PORT, _AGENT = (n * 100_000 for n in range(1, 7))


@dataclass(frozen=True, slots=True)
class _Start:
    """Seconds from its spawning until it answers and until it is converged; what it did and what it took."""

    answers: float
    converged: float
    cpu: float
    memory: int
    actions: float
    lags: Lags


def table(directory: Path) -> Table:
    """Start, and start again."""
    say("the cloud")
    rows = Mirror().full_read(time.time(), dict(_objects())).rows
    with switch(directory, "restart") as ovs:
        daemon = Daemon(ovs)
        daemon.declare(MODEL)
        daemon.env["RECONCILER_AMQP__URL"] = NOBODY
        _remember(daemon, rows)
        starts = {}
        for name in ("first start", *(f"restart {n + 1}" for n in range(RESTARTS))):
            say(name)
            starts[name] = _started(daemon)
    made = [
        [
            name, f"{start.answers:.1f}", f"{start.converged:.1f}", f"{start.cpu:.1f}", f"{start.memory / 2**20:.0f}",
            f"{start.actions:.0f}", start.lags.row()[1],
        ]
        for name, start in starts.items()
    ]  # fmt: skip
    notes = (
        f"{NODES:,} nodes, {NETWORKS:,} networks, {PORTS:,} ports, {ROUTERS} routers, {FLOATING:,} floating IPs in the",
        "store's mirror, no broker; a compute node. Seconds from spawning it; a restart has nothing to do on the node.",
    )
    raw = {
        name: {"answers_s": s.answers, "converged_s": s.converged, "cpu_s": s.cpu, "lags_s": s.lags.seen}
        for name, s in starts.items()
    }
    columns = ("", "answers", "converged", "CPU s", "MiB", "actions", "loop lag p50, p99, largest")
    return Table("restart: a node of a large cloud, from what its store remembers", columns, made, notes, raw)


def _started(daemon: Daemon) -> _Start:
    began = time.monotonic()
    daemon.start()
    with watched(daemon) as lags:
        daemon.until(lambda: bool(lags.seen), "does not answer")
        answers = time.monotonic() - began
        converged = daemon.settled(300.0) - began
        cpu = daemon.cpu()
        daemon.quiet()
    acted = sum(value for name, value in daemon.metrics().items() if name.startswith("reconciler_actions_total"))
    start = _Start(answers, converged, cpu, daemon.pss(), acted, lags)
    daemon.end()
    return start


def _remember(daemon: Daemon, rows: tuple[MirrorRow, ...]) -> None:
    store = SqlStore(f"sqlite:///{daemon.home}/state.db", HERE)
    store.open()
    store.save_mirror(Mirror.source, rows, ())
    store.close()


def _objects() -> Iterator[tuple[str, list[Body]]]:
    """What Neutron's API would list."""
    yield "agent", [_agent(n) for n in range(NODES - 1)]
    flat = {"provider:network_type": "flat", "provider:physical_network": "physnet1", "provider:segmentation_id": None}
    external = network(_NETWORK, **flat, **{"router:external": True})
    yield "network", [external, *(network(_NETWORK + n + 1) for n in range(NETWORKS - 1))]
    outside = subnet(_SUBNET, _NETWORK, cidr="10.6.0.0/15", gateway_ip="10.6.0.1", enable_dhcp=False, host_routes=[])
    yield "subnet", [outside, *(_subnet(n) for n in range(NETWORKS - 1))]
    yield "router", [router(_ROUTER + n, external_gateway_info={"network_id": uid(_NETWORK)}) for n in range(ROUTERS)]
    yield "port", [*(_port(n) for n in range(PORTS)), *(_interface(n) for n in range(ROUTERS))]
    yield "floatingip", [_floating(n) for n in range(FLOATING)]


def _agent(n: int) -> Body:
    said = {"tunneling_ip": f"10.0.{n >> 8}.{n & 255}", "bridge_mappings": {"physnet1": "br-ex"}}
    return {"id": uid(_AGENT + n), "host": f"node{n}", "agent_type": "Open vSwitch agent", "configurations": said}


def _subnet(n: int) -> Body:
    own = {"cidr": "10.1.0.0/16", "gateway_ip": "10.1.0.1", "allocation_pools": [], "host_routes": []}
    return subnet(_SUBNET + n + 1, _NETWORK + n + 1, **own)


def _port(n: int) -> Body:
    """The ports of a network are on other nodes each, as those of `compiling` are."""
    at, host = n % (NETWORKS - 1), n % NODES
    fixed = {"subnet_id": uid(_SUBNET + at + 1), "ip_address": f"10.1.1.{n // (NETWORKS - 1) + 10}"}
    mac = f"fa:16:3e:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}"
    more = {"binding:host_id": HERE if host == NODES - 1 else f"node{host}", "mac_address": mac, "fixed_ips": [fixed]}
    return port(_PORT + n, _NETWORK + at + 1, 0, **more)


def _interface(n: int) -> Body:
    fixed = {"subnet_id": uid(_SUBNET + n + 1), "ip_address": "10.1.0.1"}
    more = {"device_owner": "network:router_interface", "device_id": uid(_ROUTER + n), "fixed_ips": [fixed]}
    mac = f"fa:16:3f:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}"
    return port(_PORT + PORTS + n, _NETWORK + n + 1, 0, mac_address=mac, **more, **{"binding:host_id": f"node{n % 20}"})


def _floating(n: int) -> Body:
    address = f"10.6.{(n >> 8) + 1}.{n & 255}"
    connected = uid(_PORT + n % ROUTERS + n // ROUTERS * (NETWORKS - 1))
    return floating_ip(_FLOATING + n, _NETWORK, floating_ip_address=address, port_id=connected)
