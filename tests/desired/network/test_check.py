"""What is wrong with a whole model: each mistake in the words and at the place an operator needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from desired.network.check import faults
from desired.network.model import Model
from desired.network.section import SECTIONS
from desired.schema import Loaded, load_tree

FAULTS = Path(__file__).parent / "faults"
GOOD = """
model:
  nodes:
    network: {roles: [network], tunnel_ip: 10.10.10.20, bridge_mappings: {physnet1: br-ex}}
    compute1: {roles: [compute], tunnel_ip: 10.10.10.30}
  networks:
    one: {type: gre, segmentation_id: 1}
    two: {type: gre, segmentation_id: 999}
    public: {type: flat, physical_network: physnet1, external: true}
  subnets:
    one: {network: one, cidr: 172.16.1.0/24}
    two: {network: two, cidr: 172.16.1.0/24}
    public: {network: public, cidr: 10.6.0.0/15, dhcp: false}
  ports:
    vm1: {network: one, node: compute1, fixed_ips: [172.16.1.5]}
    vm2: {network: two, node: compute1, fixed_ips: [172.16.1.5]}
  routers:
    r1: {interfaces: [one], gateway: public}
    r2: {interfaces: [two]}
  floating_ips:
    10.6.0.21: vm1
"""


def tree(path: Path) -> Loaded:
    return load_tree(path, node="network", roles=frozenset({"network"}), sections=SECTIONS)


def model(path: Path) -> Model:
    loaded = tree(path)
    assert not loaded.problems
    return Model.of(loaded.resources)


def test_every_fault_of_a_model_is_named_with_its_place() -> None:
    places = tree(FAULTS / "model.yaml").places
    found = faults(model(FAULTS / "model.yaml"))
    said = [str(fault.problem(places[fault.resource.id])).replace(f"{FAULTS}/", "") for fault in found]
    assert said == (FAULTS / "faults.txt").read_text().splitlines()


def test_tenants_may_overlap_and_a_good_model_has_no_fault(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(GOOD)
    assert faults(model(tmp_path)) == ()


@pytest.mark.parametrize("gone", ["networks", "subnets", "ports", "nodes", "routers"])
def test_what_refers_to_something_that_is_gone_dangles(tmp_path: Path, gone: str) -> None:
    lines = GOOD.splitlines()
    start = lines.index(f"  {gone}:")
    end = next((n for n, line in enumerate(lines[start + 1 :], start + 1) if not line.startswith("    ")), len(lines))
    (tmp_path / "model.yaml").write_text("\n".join(lines[:start] + lines[end:]))
    found = faults(model(tmp_path))
    if gone == "routers":
        assert found == ()
    else:
        assert any(fault.dangling and "there is no" in fault.message for fault in found)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{cidr: 10.1.0.1/24}",
         "cidr: '10.1.0.1/24' is an address in a subnet, not the subnet; right would be 10.1.0.0/24"),
        ('{cidr: "fd00::/80", ipv6_mode: slaac}',
         "ipv6_mode slaac needs a /64, in which hosts choose addresses; not fd00::/80"),
        ("{cidr: 10.1.0.0/24, allocation_pools: [{start: 10.1.0.9, end: 10.1.0.20}, {start: 10.1.0.2, end: 10.1.0.9}]}",
         "allocation_pools: 10.1.0.2 to 10.1.0.9 and 10.1.0.9 to 10.1.0.20 share addresses"),
        ('{cidr: 10.1.0.0/24, dns: ["fd00::53"]}', "dns: fd00::53 is not IPv4, as 10.1.0.0/24 is"),
        ("{cidr: 10.1.0.0/24, host_routes: [{to: 10.2.0.0/16, via: 'fe80::1'}]}",
         "host_routes[0]: to and via must both be IPv4 or both IPv6, not 10.2.0.0/16 via fe80::1"),
    ],
)  # fmt: skip
def test_a_subnet_that_no_host_could_use_is_refused(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "model.yaml").write_text(
        f"model: {{networks: {{n: {{type: local}}}}, subnets: {{s: {{network: n, {given[1:]}}}}}\n"
    )
    loaded = load_tree(tmp_path, node="network", roles=frozenset(), sections=SECTIONS)
    assert [problem.message for problem in loaded.problems] == [said]


def test_a_wrong_entry_is_one_mistake_and_not_also_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text("model: {nodes: {n: {roles: [netwrok]}}}\n")
    loaded = load_tree(tmp_path, node="n", roles=frozenset(), sections=SECTIONS)
    assert [problem.path for problem in loaded.problems] == ["model.nodes.n.roles[0]"]


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("{networks: {n: {type: gre, segmentation_ID: 1}}}", "unknown key 'segmentation_ID'",
         "did you mean 'segmentation_id'?"),
        ("{ports: {vm: *nowhere}}", "*nowhere names nothing: there is no &nowhere above it in this document", ""),
        ("{ports: {'': {network: n}}}", "a name must not be empty",
         "like ports: {vm1: {network: one, node: net1, fixed_ips: [10.0.0.5]}}"),
        ("{floating_ips: [vm]}", "must be a mapping, not a list", "like floating_ips: {203.0.113.9: vm1}"),
        ("{ports: {vm: }, networks: }", "network is missing", "add network: a name"),
        ("{Networks: {}}", "unknown key 'Networks'", "did you mean 'networks'?"),
    ],
)  # fmt: skip
def test_one_mistake_is_said_once_and_in_plain_words(tmp_path: Path, text: str, said: str, hint: str) -> None:
    (tmp_path / "model.yaml").write_text(f"model: {text}\n")
    found = [(problem.message, problem.hint) for problem in tree(tmp_path).problems]
    assert (said, hint) in found
    assert len(found) == 1


def test_a_port_of_the_router_itself_may_have_the_routers_address(tmp_path: Path) -> None:
    port = "    leg: {network: one, owner: router_interface, device: r1, fixed_ips: [172.16.1.1]}\n"
    (tmp_path / "model.yaml").write_text(GOOD.replace("  routers:\n", f"{port}  routers:\n"))
    assert faults(model(tmp_path)) == ()


def test_an_empty_model_has_no_fault() -> None:
    assert faults(Model.of(())) == ()
