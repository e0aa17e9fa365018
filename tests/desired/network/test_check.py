"""What is wrong with a whole model: each mistake in the words and at the place an operator needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from desired.network.check import faults
from desired.network.model import Model
from desired.network.section import SECTIONS
from desired.schema import load_tree

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


def model(path: Path) -> Model:
    loaded = load_tree(path, node="network", roles=frozenset({"network"}), sections=SECTIONS)
    assert not loaded.problems
    return Model.of(loaded.resources)


def test_every_fault_of_a_model_is_named_with_its_place() -> None:
    said = [str(fault.problem()).replace(f"{FAULTS}/", "") for fault in faults(model(FAULTS / "model.yaml"))]
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


def test_an_empty_model_has_no_fault() -> None:
    assert faults(Model.of(())) == ()
