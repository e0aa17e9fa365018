"""How long one node's share of a large cluster takes to compile: from nothing, and after one port changed.

The node has the roles network and compute: it serves DHCP and routers, and has instances. No floor program exists for
this; the budget of the project is 2 s from nothing and 20 ms for one changed port, with the finding of the change.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
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
from desired.resource import Origin, Resource, ResourceId, Spec
from tests.benchmarks.report import Table, ms, percentile, say

NODES, NETWORK_NODES, NETWORKS, PORTS, ROUTERS, FLOATING = 1000, 20, 2000, 20_000, 500, 2000
ROUNDS = 5
CHANGES = 100


def table() -> Table:
    """Compile for a network node and for a compute node."""
    model = cluster()
    rows, raw = [], {}
    for node in ("node0", f"node{NODES - 1}"):
        say(f"compile, {node}")
        scratch = [_timed(lambda node=node: compile_node(model, node)) for _ in range(ROUNDS)]
        size = len(compile_node(model, node).resources)
        known, found = _changes(model, node)
        role = "network node" if node == "node0" else "compute node"
        rows.append(
            (role, str(size), ms(percentile(scratch, 0.5)), ms(max(scratch)),
             ms(percentile(known, 0.5)), ms(percentile(known, 0.99)),
             ms(percentile(found, 0.5)), ms(percentile(found, 0.99)))
        )  # fmt: skip
        raw[role] = {"resources": size, "scratch_s": scratch, "named_s": known, "found_s": found}
    return Table(
        "compile: one node of a large cluster, ms",
        ("node", "resources", "scratch p50", "max", "one port named p50", "p99", "found p50", "p99"),
        rows,
        (
            f"{NODES} nodes ({NETWORK_NODES} of them network nodes), {NETWORKS} networks, {PORTS} ports,",
            f"{ROUTERS} routers, {FLOATING} floating IPs; multi-table",
            f"scratch: {ROUNDS} rounds; one port: {CHANGES} changes of a MAC, half of them on this node's networks;",
            "named: the changed object is handed over; found: two models are compared",
        ),
        raw,
    )


def cluster() -> Model:
    """The cluster, always the same one."""
    return Model.of(_objects())


def _objects() -> Iterator[Resource]:
    yield _declared("options", OptionsSpec())
    for n in range(NODES):
        roles = ("compute", "network") if n < NETWORK_NODES else ("compute",)
        ip = f"10.0.{n >> 8}.{n & 255}"
        yield _declared(f"node{n}", NodeSpec(roles=roles, tunnel_ip=ip, bridge_mappings={"physnet1": "br-ex"}))
    yield _declared("ext", NetworkSpec(type="flat", physical_network="physnet1", external=True))
    yield _declared("ext-subnet", SubnetSpec(network="ext", cidr="10.6.0.0/15", dhcp=False))
    for n in range(NETWORKS - 1):
        yield _declared(f"net{n}", NetworkSpec(type="vxlan", segmentation_id=n + 1))
        yield _declared(f"sub{n}", SubnetSpec(network=f"net{n}", cidr="10.1.0.0/16"))
    for n in range(PORTS):
        yield _declared(f"port{n}", port(n, 0))
    for n in range(ROUTERS):
        yield _declared(f"router{n}", RouterSpec.model_validate({"interfaces": [f"sub{n}"], "gateway": "ext"}))
    for n in range(FLOATING):
        ip = f"10.6.{n >> 8}.{n & 255}"
        spec = NeutronFloatingIpSpec(floating=ip, network="ext", port=f"port{_port_on(n % ROUTERS, n // ROUTERS)}")
        yield _declared(ip, spec)


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


def _declared(name: str, spec: Spec) -> Resource:
    return Resource(ResourceId(spec.kind, name), spec, Origin("bench", "model.yaml", 1, 1, name), spec.generation())


def _changes(model: Model, node: str) -> tuple[list[float], list[float]]:
    known, found = [], []
    compiler = Compiler(node)
    allocations = compiler.compile(model).allocations
    here = sorted(n for n in range(PORTS) if f"node{n % NODES}" == node)
    for at in range(2 * CHANGES):
        n = here[at % len(here)] if at % 4 < 2 else at * 97 % PORTS
        changed = _declared(f"port{n}", port(n, at + 1))
        model = Model(MappingProxyType({**model.objects, changed.id: changed}))
        named = (changed.id,) if at % 2 else None
        times = known if at % 2 else found
        times.append(_timed(lambda m=model, names=named: compiler.compile(m, allocations, names), collect=False))
    return known, found


def _timed(work: Callable[[], object], *, collect: bool = True) -> float:
    if collect:
        gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
