"""How long one node's share of a large cluster takes to compile: from nothing, and after one port changed.

The node has the roles network and compute: it serves DHCP and routers, and has instances. No floor program exists for
this; the budget of the project is 2 s from nothing and 20 ms for one changed port, with the finding of the change.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from desired.network.compiler import Compiler, compile_node
from desired.network.model import (
    Model,
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    NodeSpec,
    OptionsSpec,
    RouterSpec,
    SubnetSpec,
)
from desired.resource import Resource
from tests.benchmarks.report import Table, ms, percentile, say
from tests.desired.network.support import declared

NODES, NETWORK_NODES, NETWORKS, PORTS, ROUTERS, FLOATING = 1000, 20, 2000, 20_000, 500, 2000
ROUNDS = 5
CHANGES = 100


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds on the wall and of this thread's CPU time."""

    wall: float
    cpu: float


def table() -> Table:
    """Compile for a network node and for a compute node."""
    model = cluster()
    rows, raw = [], {}
    for node, role in (("node0", "network node"), (f"node{NODES - 1}", "compute node")):
        say(f"compile, {role}")
        scratch = [_timed(partial(compile_node, model, node)) for _ in range(ROUNDS)]
        times = {"scratch": scratch, **_changes(model, node)}
        size = len(compile_node(model, node).resources)
        for clock in ("wall", "cpu"):
            mine = {name: [getattr(one, clock) for one in found] for name, found in times.items()}
            cells = [f"{ms(percentile(found, 0.5))}/{ms(percentile(found, 0.99))}" for found in mine.values()]
            rows.append((f"{role}, {clock}", str(size), *cells))
            raw[f"{role}, {clock}"] = {"resources": size, **{f"{name}_s": found for name, found in mine.items()}}
    return Table(
        "compile: one node of a large cluster, ms, p50/p99",
        ("node", "resources", "from nothing", "port, named", "port, found", "others, named"),
        rows,
        (
            f"{NODES} nodes ({NETWORK_NODES} of them network nodes), {NETWORKS} networks, {PORTS} ports,",
            f"{ROUTERS} routers, {FLOATING} floating IPs; multi-table",
            f"from nothing: {ROUNDS} rounds; port: {CHANGES} changes of a MAC, half of them of ports on this node;",
            "named: the changed object is handed over; found: two models are compared;",
            "cpu: what the compiling itself took, whatever else the machine did;",
            f"others: {CHANGES} networks, subnets, routers and floating IPs that come, a quarter each",
        ),
        raw,
    )


def cluster() -> Model:
    """The cluster, always the same one."""
    return Model.of(_objects())


def _objects() -> Iterator[Resource]:
    yield declared("options", OptionsSpec())
    for n in range(NODES):
        roles = ("compute", "network") if n < NETWORK_NODES else ("compute",)
        ip = f"10.0.{n >> 8}.{n & 255}"
        yield declared(f"node{n}", NodeSpec(roles=roles, tunnel_ip=ip, bridge_mappings={"physnet1": "br-ex"}))
    yield declared("ext", NetworkSpec(type="flat", physical_network="physnet1", external=True))
    yield declared("ext-subnet", SubnetSpec(network="ext", cidr="10.6.0.0/15", dhcp=False))
    for n in range(NETWORKS - 1):
        yield declared(f"net{n}", NetworkSpec(type="vxlan", segmentation_id=n + 1))
        yield declared(f"sub{n}", SubnetSpec(network=f"net{n}", cidr="10.1.0.0/16"))
    for n in range(PORTS):
        yield declared(f"port{n}", port(n, 0))
    for n in range(ROUTERS):
        yield declared(f"router{n}", RouterSpec.model_validate({"interfaces": [f"sub{n}"], "gateway": "ext"}))
    for n in range(FLOATING):
        ip = f"10.6.{n >> 8}.{n & 255}"
        spec = NeutronFloatingIpSpec(floating=ip, network="ext", port=f"port{_port_on(n % ROUTERS, n // ROUTERS)}")
        yield declared(ip, spec)


def _port_on(network: int, at: int) -> int:
    """The number of the `at`-th port on a network."""
    return network + at * (NETWORKS - 1)


def port(n: int, change: int) -> NeutronPortSpec:
    """A port; another `change` is another MAC."""
    at = n // (NETWORKS - 1) + 10
    return NeutronPortSpec.model_validate(
        {
            "network": f"net{n % (NETWORKS - 1)}",
            "fixed_ips": [f"10.1.1.{at}"],
            "node": f"node{n % NODES}",
            "mac": f"fa:16:{change & 255:02x}:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}",
        }
    )


def _changes(model: Model, node: str) -> dict[str, list[Took]]:
    times: dict[str, list[Took]] = {"named": [], "found": [], "others": []}
    compiler = Compiler(node)
    allocations = compiler.compile(model).allocations
    here = [n for n in range(PORTS) if f"node{n % NODES}" == node]
    gc.collect()
    for at in range(3 * CHANGES):
        kind = ("named", "found", "others")[at % 3]
        n = here[at % len(here)] if at % 6 < 3 else at * 97 % PORTS
        changed = _coming(at // 3) if kind == "others" else declared(f"port{n}", port(n, at + 1))
        model = Model(MappingProxyType({**model.objects, changed.id: changed}))
        named = None if kind == "found" else (changed.id,)
        times[kind].append(_timed(partial(compiler.compile, model, allocations, named)))
    return times


def _coming(at: int) -> Resource:
    """Something new: a network, its subnet, a router in it, a floating IP."""
    n = at // 4
    if at % 4 == 0:
        return declared(f"new{n}", NetworkSpec(type="vxlan", segmentation_id=NETWORKS + n))
    if at % 4 == 1:
        return declared(f"new{n}", SubnetSpec(network=f"new{n}", cidr="10.1.0.0/16"))
    if at % 4 == 2:
        return declared(f"new{n}", RouterSpec.model_validate({"interfaces": [f"new{n}"], "gateway": "ext"}))
    ip = f"10.6.200.{n}"
    return declared(ip, NeutronFloatingIpSpec(floating=ip, network="ext", port=f"port{n}"))


def _timed(work: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.thread_time()
    work()
    return Took(time.perf_counter() - wall, time.thread_time() - cpu)
